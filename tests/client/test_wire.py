import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.client import wire
from replicad.native import requests
from replicad.native import wire as server

NAMES = (
    *("PROTOCOL", "HELLO", "REQUEST", "ANSWER", "FAILED", "CLUSTER", "CLOSING", "GET", "VERSION_MIN", "VERSION_MAX"),
    "NUMBER_MAX",
)


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_mean_the_same(name):
    assert getattr(wire, name) == getattr(server, name)


def test_levels_are_the_servers():
    assert (wire.LEADER, wire.CONSISTENT, wire.STALE) == (requests.LEADER, requests.CONSISTENT, requests.STALE)


@given(st.lists(st.binary(max_size=200), max_size=10), st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_frames_survive_any_way_of_arriving(texts, sizes):
    """However the bytes are cut, the payloads come out whole and in order."""
    data = b"".join(wire.pack([number, text]) for number, text in enumerate(texts))
    inbox, found, at, turn = wire.Inbox(), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += inbox.received(data[at : at + size])
        at, turn = at + size, turn + 1
    assert found == list(enumerate(texts))


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad", b"\0\0\0\1\xc1", b"\0\0\0\1\x07", b"\0\0\0\1\x90", b"\0\0\0\2\x91\xa0"]
)
def test_something_else(data):
    """A server of another protocol is a ProtocolError, whatever it says."""
    with pytest.raises(wire.ProtocolError):
        list(wire.Inbox().received(data))
