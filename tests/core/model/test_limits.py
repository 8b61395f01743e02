from dataclasses import fields, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.model.limits import FRAME_BYTES_MAX, Limits


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1])
def test_every_constant_is_positive(name, value):
    """A constant that is not positive is refused by its name."""
    with pytest.raises(ValueError, match=name):
        replace(Limits(), **{name: value})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"lease_us": 199_999, "heartbeat_us": 50_000}, "at least 4 heartbeats"),
        ({"rate_bound_ppm": 200_000}, "rate_bound_ppm must be below"),
        ({"batch_bytes_max": 100, "value_bytes_max": 101}, "batch_bytes_max must hold one value"),
        ({"page_bytes": FRAME_BYTES_MAX}, "do not fit a frame"),
    ],
)
def test_constants_that_contradict_each_other_are_refused(changed, sentence):
    """Every relation between constants is checked, and the sentence names it."""
    with pytest.raises(ValueError, match=sentence):
        replace(Limits(), **changed)


def test_the_smallest_lease_is_four_heartbeats():
    """The boundary itself is allowed."""
    assert replace(Limits(), lease_us=200_000, heartbeat_us=50_000).lease_us == 200_000


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_every_constant_is_in_the_checksum(name):
    """Two nodes that differ in any constant notice it in their handshake."""
    changed = replace(Limits(), **{name: getattr(Limits(), name) + 1})
    assert changed.checksum() != Limits().checksum()
    assert replace(changed, **{name: getattr(Limits(), name)}).checksum() == Limits().checksum()


@given(st.integers(0, 10**12), st.integers(1, 199_999))
def test_a_shortened_duration_ends_first_on_every_clock_within_the_bound(duration, ppm):
    """A clock that runs slower than another by less than the bound still ends its shortened duration first."""
    limits = replace(Limits(), rate_bound_ppm=ppm)
    slow = 1 - Fraction(ppm, 1_000_000)  # ticks of the slow clock while the other one ticks once
    assert limits.shortened(duration) / slow <= duration
    assert limits.shortened(duration) > duration * slow - 1
