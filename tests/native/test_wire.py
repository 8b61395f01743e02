from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.model.errors import ERROR_KINDS, RequestError
from replicad.native import wire
from replicad.native.wire import FrameError, Inbox

PAYLOADS = st.lists(st.binary(min_size=1, max_size=300), max_size=12)


def framed(payloads):
    return b"".join(wire.LENGTH.pack(len(payload)) + payload for payload in payloads)


@given(PAYLOADS, st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(0, 3))
def test_frames_survive_any_way_of_arriving(payloads, sizes, pauses):
    """However the bytes are cut, and wherever the reader pauses, the payloads come out whole and in order."""
    inbox, found, at, turn = Inbox(300), [], 0, 0
    data = framed(payloads)
    while at < len(data):
        part = data[at : at + sizes[turn % len(sizes)]]
        at += len(part)
        turn += 1
        inbox.add(part)
        for payload in inbox.payloads():
            found.append(bytes(payload))
            if pauses and turn % (pauses + 1) == 0:
                break  # as a connection does whose turn is over
    found += [bytes(payload) for payload in inbox.payloads()]
    assert found == payloads
    assert not inbox.partial()


@given(st.binary(min_size=1, max_size=200))
def test_add_never_misses_a_frame(payload):
    """Byte by byte: whole at the last byte, and `add` says so."""
    inbox = Inbox(200)
    said = [inbox.add(bytes([byte])) and list(map(bytes, inbox.payloads())) for byte in framed([payload])]
    assert said[-1] == [payload]
    assert not any(said[:-1])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\0", "an empty frame"),
        (b"\0\0\1\x2d" + bytes(10), "a frame of 301 bytes, longer than the 300 allowed here"),
        (b"GET /v1/kv/k HTTP/1.1\r\n", "what looks like HTTP; this is the native port"),
    ],
)
def test_a_length_that_cannot_be(data, reason):
    inbox = Inbox(300)
    inbox.add(data)
    with pytest.raises(FrameError, match=reason):
        list(inbox.payloads())


@given(st.binary(max_size=400))
def test_any_bytes_are_a_payload_or_a_frame_error(data):
    """Nothing that arrives raises anything else."""
    with suppress(FrameError):
        wire.unpack(data)


def test_arrays_and_maps_are_bounded():
    """Decoding may not make more than it was sent for: long arrays, long maps and extensions are refused."""
    assert wire.unpack(msgpack.packb([0] * wire.OPERATIONS_MAX)) == (0,) * wire.OPERATIONS_MAX
    for value in ([0] * (wire.OPERATIONS_MAX + 1), dict.fromkeys(range(17), 0), msgpack.ExtType(1, b"x")):
        with pytest.raises(FrameError):
            wire.unpack(msgpack.packb(value))


def test_deep_nesting_is_refused():
    with pytest.raises(FrameError):
        wire.unpack(b"\x91" * 100_000 + b"\x00")


def test_every_error_can_stand_in_a_frame():
    """Errors travel by name, with their sentence, outcome and time to retry; the packer takes them by itself."""
    for name, kind in ERROR_KINDS.items():
        packed = wire.pack([RequestError(name, "why")])
        assert wire.unpack(packed[4:]) == ((name, "why", kind.definite, kind.retry_after_ms),)
    with pytest.raises(TypeError, match="a set cannot stand in a frame"):
        wire.pack([set()])


def test_native_errors_are_definite_and_not_in_the_other_table():
    assert all(kind.definite and kind.name not in ERROR_KINDS for kind in wire.ERRORS)
