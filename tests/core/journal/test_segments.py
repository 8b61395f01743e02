"""The format of the message log: what is written is read back, and nothing else ever is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.journal.records import (
    CheckpointRecord,
    EntryRecord,
    FormationRecord,
    PromiseRecord,
    SlotPromiseRecord,
    WatermarkRecord,
)
from replicad.core.journal.segments import (
    FRAME_BYTES,
    HEADER_BYTES,
    MAGIC,
    RECORD_BYTES_MAX,
    Ending,
    FormatError,
    LogIdentity,
    decode_header,
    decode_record,
    encode_header,
    encode_record,
    frame,
    scan,
)
from replicad.core.model.errors import DamageError

IDENTITY = LogIdentity("cluster", "n1", "0011223344556677")
SIZE = HEADER_BYTES + 4096
NUMBERS = st.integers(0, 2**63)
GROUPS = st.sampled_from(["default", "g", "ü" * 3])
RECORDS = st.one_of(
    st.builds(PromiseRecord, NUMBERS),
    st.builds(EntryRecord, NUMBERS, NUMBERS, NUMBERS, st.booleans(), st.binary(max_size=120)),
    # Values full of zeros and of what looks like a length are the hard ones: they resemble what a cut write leaves.
    st.builds(EntryRecord, NUMBERS, NUMBERS, NUMBERS, st.booleans(), st.sampled_from([bytes(90), b"\0\0\0\x10" * 20])),
    st.builds(SlotPromiseRecord, NUMBERS, NUMBERS, NUMBERS),
    st.builds(WatermarkRecord, NUMBERS),
    st.builds(CheckpointRecord, NUMBERS, st.binary(min_size=16, max_size=16)),
    st.builds(FormationRecord, st.binary(max_size=60)),
)
FLUSHES = st.lists(st.lists(st.tuples(GROUPS, RECORDS), min_size=1, max_size=4), max_size=5)


def build(flushes, segment=7):
    """Return a segment, its records with their places, and the place where the last flush began."""
    data = bytearray(encode_header(IDENTITY, segment, SIZE).ljust(SIZE, b"\0"))
    position = flushed = HEADER_BYTES
    expected = []
    for flush in flushes:
        flushed = position
        for group, record in flush:
            framed = frame(encode_record(group, record), segment, position, flushed)
            data[position : position + len(framed)] = framed
            expected.append((group, record, position))
            position += len(framed)
    return data, expected, flushed, position


def ends(expected, end):
    """Return the end of each record."""
    return [*(place for _, _, place in expected[1:]), end] if expected else []


@given(GROUPS, RECORDS)
def test_a_record_survives_the_codec(group, record):
    """What is encoded is decoded to the same group, type and fields."""
    result = decode_record(encode_record(group, record))
    assert result == (group, record)
    assert type(result[1]) is type(record)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data):
    """Arbitrary payloads give a record or a ValueError, never anything else."""
    try:
        group, record = decode_record(data)
    except ValueError:
        return
    assert decode_record(encode_record(group, record)) == (group, record)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\x93\xa1g\x01\xff", "wrong types"),  # a negative epoch
        (b"\x93\xa1g\x01\xc3", "wrong types"),  # true is no epoch
        (b"\x92\xa1g\x01", "wrong types"),
        (b"\x93\xa1g\x63\x01", "unknown record kind 99"),
        (b"\x93\x01\x01\x01", "not an array"),
        (b"\xc1", "not msgpack"),
    ],
)
def test_a_malformed_record_is_refused_with_its_reason(payload, reason):
    """Each malformed payload is named for what is wrong with it."""
    with pytest.raises(ValueError, match=reason):
        decode_record(payload)


def test_a_record_that_is_too_long_is_refused_when_it_is_framed():
    """The bound is checked before anything is written."""
    with pytest.raises(ValueError, match="at most"):
        frame(bytes(RECORD_BYTES_MAX + 1), 1, HEADER_BYTES, HEADER_BYTES)


@given(FLUSHES, st.booleans())
def test_an_intact_segment_gives_back_every_record(flushes, rebooted):
    """A segment that nothing happened to is clean, and complete."""
    data, expected, flushed, end = build(flushes)
    result = scan(data, 7, rebooted=rebooted)
    assert result.ending is Ending.CLEAN
    assert (result.records, result.end, result.used, result.flushed) == (expected, end, end, flushed)


@given(FLUSHES, st.data())
def test_a_cut_write_of_a_killed_process_is_torn_and_loses_only_what_was_cut(flushes, data):
    """Cut at any byte of the last flush: what was whole before the cut is there, and the rest is torn, not damaged."""
    content, expected, flushed, end = build(flushes)
    cut = data.draw(st.integers(flushed, end))
    content[cut:] = bytes(SIZE - cut)
    result = scan(content, 7, rebooted=False)
    whole = [record for record, stop in zip(expected, ends(expected, end), strict=True) if stop <= cut]
    assert result.records == whole
    assert result.ending is (Ending.TORN if result.used > result.end else Ending.CLEAN)


@given(FLUSHES.filter(bool), st.data())
def test_a_power_cut_during_a_flush_is_torn_whatever_it_left(flushes, data):
    """Any bytes where the last flush was writing: all earlier records are there, none is wrong, nothing is damage."""
    content, expected, flushed, end = build(flushes)
    for start in range(flushed, end, 16):
        if data.draw(st.booleans()):
            content[start : min(start + 16, end)] = bytes(min(16, end - start))
    result = scan(content, 7, rebooted=True)
    assert result.ending is not Ending.DAMAGED
    assert result.records == expected[: len(result.records)]
    assert len(result.records) >= sum(place < flushed for _, _, place in expected)


@given(FLUSHES.filter(lambda flushes: len(flushes) > 1), st.data(), st.booleans())
def test_a_record_that_was_flushed_before_the_last_flush_never_rots_unnoticed(flushes, data, rebooted):
    """One wrong byte in what a later record saw flushed is damage, whether the machine restarted or not."""
    content, expected, flushed, _ = build(flushes)
    where = data.draw(st.integers(HEADER_BYTES, flushed - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    result = scan(content, 7, rebooted=rebooted)
    assert result.ending is Ending.DAMAGED
    assert result.records == expected[: len(result.records)]


@given(FLUSHES.filter(bool), st.data(), st.booleans())
def test_flipped_bytes_give_a_prefix_or_damage_but_never_a_wrong_record(flushes, data, rebooted):
    """Whatever is overwritten, the records that are read are the first ones that were written."""
    content, expected, _, _ = build(flushes)
    for where in data.draw(st.sets(st.integers(HEADER_BYTES, SIZE - 1), min_size=1, max_size=4)):
        content[where] ^= data.draw(st.integers(1, 255))
    result = scan(content, 7, rebooted=rebooted)
    assert result.records == expected[: len(result.records)]
    assert result.ending is not Ending.CLEAN


@given(FLUSHES.filter(bool), st.data())
def test_a_rotten_last_record_is_damage_when_only_the_process_died(flushes, data):
    """A complete last record with a wrong byte, but for its closing one, was not cut short."""
    content, expected, _, end = build(flushes)
    where = data.draw(st.integers(expected[-1][2], end - 2))
    content[where] ^= data.draw(st.integers(1, 255))
    assert scan(content, 7, rebooted=False).ending is Ending.DAMAGED


@given(FLUSHES.filter(bool), st.integers(1, 9))
def test_a_record_at_a_wrong_place_never_verifies(flushes, shift):
    """Records that moved within their segment, or into another one, are not read."""
    content, _, _, _ = build(flushes)
    moved = content[:HEADER_BYTES] + bytes(shift) + content[HEADER_BYTES:-shift]
    assert scan(moved, 7, rebooted=True).records == []
    assert scan(content, 8, rebooted=True).records == []


def test_a_torn_tail_that_resembles_frames_is_judged_quickly():
    """Scanning a large tail full of plausible lengths checks headers only, not megabytes at each byte."""
    data = bytearray(encode_header(IDENTITY, 1, SIZE + 2**20).ljust(SIZE + 2**20, b"\0"))
    data[HEADER_BYTES : HEADER_BYTES + 2**20] = b"\x00\x20\x00\x00" * 2**18
    assert scan(data, 1, rebooted=True).ending is Ending.TORN


def test_a_header_survives_the_codec_and_notices_every_flipped_byte():
    """A header is read back, and is refused with any one byte changed."""
    block = encode_header(IDENTITY, 3, SIZE)
    assert decode_header(block) == (IDENTITY, 3, SIZE)
    for where in [*range(120), HEADER_BYTES - 5, HEADER_BYTES - 1]:
        broken = bytearray(block)
        broken[where] ^= 1
        with pytest.raises(DamageError):
            decode_header(broken)
    with pytest.raises(DamageError):
        decode_header(block[:-1])
    with pytest.raises(ValueError, match="too long"):
        encode_header(LogIdentity("c" * 5000, "n", "d"), 1, SIZE)


def test_a_header_of_a_later_version_is_refused_and_not_called_damage():
    """A log of a newer replicad must be left alone, not set aside."""
    from zlib import crc32

    body = bytearray(encode_header(IDENTITY, 3, SIZE)[:-4])
    body[len(MAGIC) + 1] = 2
    with pytest.raises(FormatError, match="version 2"):
        decode_header(body + crc32(body).to_bytes(4, "big"))


def test_framing_adds_what_it_says():
    """The overhead that the writer plans with is the real one."""
    assert len(frame(b"x" * 10, 1, HEADER_BYTES, HEADER_BYTES)) == 10 + FRAME_BYTES


@pytest.mark.parametrize("last", [HEADER_BYTES, 65_535, 65_536, 65_537, 131_071, 131_072, 199_999])
def test_the_used_part_of_a_large_segment_ends_at_its_last_byte_that_is_not_zero(last):
    """Wherever it lies: what is behind it is zeros, what is before it may be."""
    data = bytearray(200_000)
    data[last] = 1
    assert scan(bytes(data), 1, rebooted=True).used == last + 1
    assert scan(bytes(200_000), 1, rebooted=True).used == HEADER_BYTES
