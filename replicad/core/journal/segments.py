"""The message log as bytes: segment headers, framed records, and what a broken one means.

A segment is a zero-filled file: one header block of :data:`HEADER_BYTES`, then records without gaps, then zeros. A
record is framed as four unsigned 32-bit big-endian integers, the payload and one closing byte::

    payload length | flushed | crc of payload and closing byte | crc of the first three | payload | 0xE5

Both checksums are seeded with the segment's number and the record's position, so a record never verifies at another
place. The closing byte is never zero: a record whose write was cut short differs from one that rotted. ``flushed`` is
the position in this segment up to which everything was durable when the record was written: a bad record below a later
record's ``flushed`` was once good, so it is damage; above it, it may be a write that a power cut left half done.

A segment gets its first record only after all records of the one before it are durable.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, cast
from zlib import crc32

import msgpack

from replicad.core.journal.records import (
    CheckpointRecord,
    DroppedRecord,
    EntryRecord,
    FormationRecord,
    PromiseRecord,
    Record,
    SlotPromiseRecord,
    WatermarkRecord,
)
from replicad.core.model.errors import DamageError

FORMAT_VERSION = 1
MAGIC = b"replicad log\n"
HEADER_BYTES = 4096
SEGMENT_BYTES = 16 * 1024 * 1024
RECORD_BYTES_MAX = 4 * 1024 * 1024
"""Longest payload: one entry whose batch is as large as a frame allows."""
SEGMENT_BYTES_MIN = HEADER_BYTES + RECORD_BYTES_MAX + 64
"""A fresh segment holds any record."""

_FRAME = struct.Struct(">IIII")
_FRAME_START = struct.Struct(">III")
_PLACE = struct.Struct(">QQ")
_CRC = struct.Struct(">I")
_CLOSING = b"\xe5"
_PIECE_BYTES = 65_536
FRAME_BYTES = _FRAME.size + len(_CLOSING)
"""What framing adds to a payload."""

# Where a frame may begin: a length of 1 to RECORD_BYTES_MAX. Spares a checksum at nearly every byte of a torn tail.
_LENGTH = re.compile(rb"\x00(?=[\x00-\x40])(?!\x00\x00\x00)")

_KINDS: dict[int, tuple[type[Record], tuple[type, ...]]] = {
    1: (PromiseRecord, (int,)),
    2: (EntryRecord, (int, int, int, bool, bytes)),
    3: (WatermarkRecord, (int,)),
    4: (CheckpointRecord, (int, bytes)),
    5: (FormationRecord, (bytes,)),
    6: (SlotPromiseRecord, (int, int, int)),
    7: (DroppedRecord, ()),
}
_NUMBERS: dict[type[Record], int] = {kind: number for number, (kind, _) in _KINDS.items()}


class FormatError(Exception):
    """The log was written by a version of replicad that this one does not know: it is to be left alone."""


class LogIdentity(NamedTuple):
    """Whose log it is; every segment's header repeats it."""

    cluster: str
    node: str
    disk: str


class SegmentHeader(NamedTuple):
    """What a segment says about itself. ``size`` is the whole file's length in bytes."""

    identity: LogIdentity
    segment: int
    size: int


class Ending(Enum):
    """How a segment ends."""

    CLEAN = "clean"
    TORN = "torn"
    DAMAGED = "damaged"


@dataclass(slots=True)
class ScanResult:
    """What one segment holds.

    ``records`` are ``(group, record, position)``. New records belong at ``end``; bytes that are not zero reach up to
    ``used``, so ``[end, used)`` is to be zeroed if the segment is torn. ``flushed`` is the last record's: what is at
    ``[flushed, end)`` may not be durable yet.
    """

    records: list[tuple[str, Record, int]] = field(default_factory=list)
    end: int = HEADER_BYTES
    used: int = HEADER_BYTES
    flushed: int = HEADER_BYTES
    ending: Ending = Ending.CLEAN
    reason: str = ""


def encode_header(identity: LogIdentity, segment: int, size: int) -> bytes:
    """Return the first :data:`HEADER_BYTES` bytes of a segment; ValueError if the names do not fit."""
    body = MAGIC + cast("bytes", msgpack.packb((FORMAT_VERSION, *identity, segment, size)))
    if len(body) + _CRC.size > HEADER_BYTES:
        raise ValueError("the names of cluster and node are too long for a segment header")
    block = body.ljust(HEADER_BYTES - _CRC.size, b"\0")
    return block + _CRC.pack(crc32(block))


def decode_header(data: bytes | bytearray | memoryview) -> SegmentHeader:
    """Return the header at the start of ``data``; DamageError if broken, FormatError if of an unknown version."""
    block = bytes(data[:HEADER_BYTES])
    if len(block) < HEADER_BYTES or not block.startswith(MAGIC):
        raise DamageError("a segment does not begin with a segment header")
    if _CRC.pack(crc32(block[: -_CRC.size])) != block[-_CRC.size :]:
        raise DamageError("the checksum of a segment header is wrong")
    unpacker = msgpack.Unpacker(use_list=False)
    unpacker.feed(block[len(MAGIC) : -_CRC.size])
    fields = unpacker.unpack()
    version = fields[0]
    if version != FORMAT_VERSION:
        raise FormatError(f"the message log has format version {version}; this replicad reads version {FORMAT_VERSION}")
    _, cluster, node, disk, segment, size = fields
    return SegmentHeader(LogIdentity(cluster, node, disk), segment, size)


def encode_record(group: str, record: Record) -> bytes:
    """Return the payload of one record: a msgpack array of group name, number of the kind, and the record's fields."""
    return cast("bytes", msgpack.packb((group, _NUMBERS[type(record)], *record)))


def decode_record(payload: bytes | memoryview) -> tuple[str, Record]:
    """Return ``(group, record)``; raises ValueError, with the reason, for anything else."""
    try:
        fields = msgpack.unpackb(payload, use_list=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"not msgpack: {error}") from error
    if type(fields) is not tuple or len(fields) < 2 or type(fields[0]) is not str or type(fields[1]) is not int:
        raise ValueError("not an array of group, kind and fields")
    known = _KINDS.get(fields[1])
    if known is None:
        raise ValueError(f"unknown record kind {fields[1]}")
    kind, types = known
    values: tuple[Any, ...] = fields[2:]
    if tuple(map(type, values)) != types or any(type(value) is int and value < 0 for value in values):
        raise ValueError(f"a {kind.__name__} with fields of wrong types")
    return fields[0], kind(*values)


def frame(payload: bytes, segment: int, position: int, flushed: int) -> bytes:
    """Return the framed record for exactly this place; ``flushed``: see the module's docstring."""
    if not 0 < len(payload) <= RECORD_BYTES_MAX:
        raise ValueError(f"a record of {len(payload)} bytes; at most {RECORD_BYTES_MAX} fit")
    seed = _seed(segment, position)
    start = _FRAME_START.pack(len(payload), flushed, crc32(_CLOSING, crc32(payload, seed)))
    return b"".join((start, _CRC.pack(crc32(start, seed)), payload, _CLOSING))


def scan(data: bytes | bytearray, segment: int, *, rebooted: bool) -> ScanResult:
    """Return all records of a segment whose header was checked, and how it ends (rule S1).

    ``rebooted`` says that the machine, not only the process, restarted since the log was written: then what was never
    flushed may be half there in any order. Otherwise a cut write can only have left a prefix of itself, then zeros.
    """
    result = ScanResult(used=max(HEADER_BYTES, _used(data)))
    view = memoryview(data)
    while result.end < result.used:
        start = _frame_start(view, segment, result.end)
        payload = _payload(view, segment, result.end, start)
        if start is None or payload is None:
            result.ending, result.reason = _judge(view, segment, result, start, rebooted=rebooted)
            break
        try:
            group, record = decode_record(payload)
        except ValueError as error:
            result.ending, result.reason = Ending.DAMAGED, f"the record at {_at(segment, result.end)} is {error}"
            break
        result.records.append((group, record, result.end))
        result.end += start.length + FRAME_BYTES
        result.flushed = start.flushed
    return result


def _used(data: bytes | bytearray) -> int:
    """Return the length of ``data`` without the zeros at its end, looking at a piece at a time: it is never copied."""
    end = len(data)
    while end:
        begin = max(0, end - _PIECE_BYTES)
        left = len(data[begin:end].rstrip(b"\0"))
        if left:
            return begin + left
        end = begin
    return 0


class _FrameStart(NamedTuple):
    length: int
    flushed: int
    crc: int


def _seed(segment: int, position: int) -> int:
    return crc32(_PLACE.pack(segment, position))


def _at(segment: int, position: int) -> str:
    return f"byte {position} of segment {segment}"


def _frame_start(view: memoryview, segment: int, position: int) -> _FrameStart | None:
    """Return the integers before a payload if their checksum holds and they make sense there."""
    if position + FRAME_BYTES > len(view):
        return None
    length, flushed, crc, own = _FRAME.unpack_from(view, position)
    if not 0 < length <= RECORD_BYTES_MAX or not HEADER_BYTES <= flushed <= position:
        return None
    if crc32(view[position : position + _FRAME_START.size], _seed(segment, position)) != own:
        return None
    return _FrameStart(length, flushed, crc)


def _payload(view: memoryview, segment: int, position: int, start: _FrameStart | None) -> memoryview | None:
    """Return the payload if its checksum holds."""
    if start is None or position + start.length + FRAME_BYTES > len(view):
        return None
    begin = position + _FRAME.size
    closing = begin + start.length
    if crc32(view[begin : closing + 1], _seed(segment, position)) != start.crc:
        return None
    return view[begin:closing] if view[closing : closing + 1] == _CLOSING else None


def _judge(
    view: memoryview, segment: int, result: ScanResult, start: _FrameStart | None, *, rebooted: bool
) -> tuple[Ending, str]:
    """Decide whether the bad record at ``result.end`` was cut short or is damaged, and say why."""
    position, used = result.end, result.used
    where = f"the record at {_at(segment, position)}"
    if start is not None and position + start.length + FRAME_BYTES > len(view):
        return Ending.DAMAGED, f"{where} does not fit its segment"
    if rebooted:
        witness = _flushed_later(view, segment, position, used)
        if witness:
            return Ending.DAMAGED, f"{where} is bad, and {_at(segment, witness)} shows that it had been flushed"
        return Ending.TORN, f"{where} was being written when the machine stopped"
    if start is None:
        # A cut inside the four integers leaves at most 15 of their 16 bytes, and never a length of zero.
        cut = used < position + _FRAME.size and any(view[position : position + 4])
    else:
        cut = used < position + start.length + FRAME_BYTES
    if cut:
        return Ending.TORN, f"{where} was being written when the process stopped"
    return Ending.DAMAGED, f"{where} is bad, and was not merely cut short"


def _flushed_later(view: memoryview, segment: int, position: int, used: int) -> int:
    """Return the place of a frame after ``position`` that was written when ``position`` was durable, or 0."""
    for found in _LENGTH.finditer(view, position + 1, used):
        start = _frame_start(view, segment, found.start())
        if start is not None and start.flushed > position:
            return found.start()
    return 0
