import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.kv.digest import StateDigest, configuration_part, requests_part, to_int
from replicad.core.kv.entries import (
    HEADER_BYTES_MIN,
    INDEX_MAX,
    content_hash,
    decode_entry,
    encode_entry,
    make_entry,
    stored_hash,
)
from replicad.core.model.errors import DamageError

indexes = st.integers(0, INDEX_MAX)
numbers = st.just(0) | st.integers(0, 2**64 - 1)
sessions = st.just(bytes(16)) | st.binary(min_size=16, max_size=16)
keys = st.binary(min_size=1, max_size=500)


@given(keys, indexes, indexes, st.binary(max_size=300), numbers, numbers, sessions)
def test_an_entry_survives_its_encoding(key, create, modify, value, flags, lock, session):
    """Decoding gives the entry back, and its hash is the one of its content."""
    entry = make_entry(key, create, modify, value, flags, lock, session)
    data = encode_entry(entry)
    assert decode_entry(data) == entry
    assert content_hash(key, data) == stored_hash(data) == entry.hash
    again = encode_entry(make_entry(key, create, create, value))
    assert (decode_entry(again).create, decode_entry(again).modify) == (create, create)


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ((5, 5, b""), 24),
        ((5, 6, b""), 32),
        ((5, 5, b"", 1), 64),
        ((5, 5, b"", 0, 1), 64),
        ((5, 5, b"", 0, 0, b"s" * 16), 64),
    ],
)
def test_what_is_not_set_takes_no_room(fields, header):
    """A key that was created and never changed has the shortest header, one with flags, lock or session the longest."""
    assert len(encode_entry(make_entry(b"k", *fields))) == header


def test_forms_are_told_apart_by_the_hash():
    """The same numbers in another form are another content: each content has one form and one hash."""
    short = encode_entry(make_entry(b"k", 7, 7, b"x"))
    longer = bytes([0x40]) + short[1:8] + short[:8] + short[8:]
    with pytest.raises(DamageError):
        StateDigest().add_entry(b"k", longer)


@given(keys, st.binary(max_size=40), st.data())
def test_any_flipped_bit_contradicts_the_hash(key, value, data):
    """An entry with one changed bit, header or value, is refused by the digest."""
    good = encode_entry(make_entry(key, 1, 2, value))
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamageError):
        StateDigest().add_entry(key, bytes(bad))


def test_the_border_between_key_and_value_counts():
    """Moving a byte from the key to the header or value gives another hash."""
    assert make_entry(b"ab", 1, 1, b"c").hash != make_entry(b"a", 1, 1, b"bc").hash


def test_a_short_entry_is_refused():
    """Fewer bytes than a header are no entry."""
    for data in (b"", bytes(HEADER_BYTES_MIN - 1), b"\x40" + bytes(30), b"\x80" + bytes(62), b"\xc0" + bytes(99)):
        with pytest.raises(ValueError, match="does not hold its header"):
            decode_entry(data)
        with pytest.raises(DamageError):
            StateDigest().add_entry(b"k", data)
    with pytest.raises(DamageError):
        StateDigest().add_entry(b"k" * 501, encode_entry(make_entry(b"k", 1, 1, b"")))


@given(st.lists(st.tuples(keys, st.binary(max_size=20)), unique_by=lambda pair: pair[0]), st.randoms())
def test_the_digest_does_not_depend_on_the_order(pairs, random):
    """The same items in another order give the same digest."""
    values = []
    for _ in range(2):
        state = StateDigest()
        for key, value in pairs:
            state.add_entry(key, encode_entry(make_entry(key, 1, 1, value)))
        values.append(state.value())
        random.shuffle(pairs)
    assert values[0] == values[1]


def test_kinds_and_slots_are_told_apart():
    """The same bytes as a configuration, or as the record of another slot, count differently; none counts nothing."""
    parts = [requests_part(1, b"x"), requests_part(2, b"x"), configuration_part(b"x"), to_int(b"x" * 16)]
    assert len(set(parts)) == 4
    assert configuration_part(b"") == 0
