"""A checkpoint file as a pure stream: a group's whole state at one slot, in bytes that prove themselves.

A file is a magic number and frames: 4-byte length of the body, 4-byte crc32 of the body (seeded with the frame's
position, so that a frame in a wrong place never verifies), and the body: one byte of kind, then msgpack.

====  ========  ===================================================================================
kind  name      content
====  ========  ===================================================================================
1     header    see :class:`CheckpointHeader`; exactly one, the first
2     entries   ``[key, entry, key, entry, …]``, keys strictly ascending over all frames
3     requests  ``[slot, record, …]``, slots strictly ascending over all frames
4     trailer   ``(number of entries, number of request records, digest)``; exactly one, the last
====  ========  ===================================================================================

What an entry is, and how it counts for the digest, is the key-value machine's business: the decoder is given something
that recomputes (:class:`Recompute`) and refuses a file whose content does not add up to the digest in its header.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple, Protocol, cast
from zlib import crc32

import msgpack

from replicad.core.journal.records import CheckpointRecord
from replicad.core.model.configuration import ids_in
from replicad.core.model.errors import DamageError, check

MAGIC = b"replicad checkpoint\n"
FORMAT_VERSION = 3
FORMAT_WITHOUT_IDS = 2
"""Written, and read, as long as the group has no ids: readers of the release before know no other (M6)."""
FRAME_BYTES = 256 * 1024
"""A frame of entries is closed when it holds this much."""
FRAME_BYTES_MAX = 64 * 1024 * 1024
"""A longer frame is damage: nothing larger is ever read into memory."""

HEADER = 1
ENTRIES = 2
REQUESTS = 3
TRAILER = 4

_PREFIX = Struct(">II")
_ITEM_OVERHEAD = 16


class CheckpointHeader(NamedTuple):
    """Whose state this is and at which slot; ``last_index`` and ``digest`` are the machine's after it.

    ``cluster_id`` and ``incarnation`` are those of ``configuration``. Before the first change of members the state has
    none: they are then those with which the group was formed, "" if that was before there were any.
    """

    machine_version: int
    cluster: str
    group: str
    slot: int
    last_index: int
    digest: bytes
    configuration: bytes
    cluster_id: str = ""
    incarnation: str = ""


class Entries(NamedTuple):
    """Some entries, in key order."""

    pairs: list[tuple[bytes, bytes]]


class Requests(NamedTuple):
    """Some request records, in slot order."""

    records: list[tuple[int, bytes]]


class Trailer(NamedTuple):
    """The end: what must have come before it."""

    entries: int
    requests: int
    digest: bytes


Part = CheckpointHeader | Entries | Requests | Trailer

_HEADER_TYPES = (int, str, str, int, int, bytes, bytes, str, str)
_IDS = 2
"""Fields of the header that the older format lacks."""
_TRAILER_TYPES = (int, int, bytes)


def check_owner(header: CheckpointHeader, cluster: str, group: str, slot: int, ids: tuple[str, str] = ("", "")) -> None:
    """Raise DamageError unless a file is the checkpoint of this group at this slot.

    ``ids``: cluster id and incarnation as far as they are known here. A file without them may be from before they were
    made; one with others is another cluster's, or of another life of the group (M6).
    """
    if (header.cluster, header.group, header.slot) != (cluster, group, slot):
        raise DamageError(
            f"it is the checkpoint of group {header.group!r} of cluster {header.cluster!r} at slot {header.slot}"
        )
    for what, there, here in zip(("cluster", "incarnation"), (header.cluster_id, header.incarnation), ids, strict=True):
        if there and here and there != here:
            raise DamageError(f"it is of the {what} {there}, and the group here of {here}")


def check_committed(header: CheckpointHeader, committed: CheckpointRecord) -> None:
    """Raise DamageError unless a file is the checkpoint that the group committed, as the log says."""
    if (header.slot, header.digest) != (committed.slot, committed.digest):
        raise DamageError(f"it is not the checkpoint that the group committed, but one of slot {header.slot}")


def header_of(
    state: tuple[int, int, bytes, bytes], cluster: str, group: str, slot: int, version: int, ids: tuple[str, str]
) -> CheckpointHeader:
    """Return the header of a state ``(slot, index, digest, configuration)``; ValueError if it is at another slot.

    ``ids``: cluster id and incarnation as far as they are known here. One alone is left out: the group was formed
    before there were ids and has none of its own yet, so that a member of an older release may have to read the file.
    """
    applied, index, digest, configuration = state
    if applied != slot:
        raise ValueError(f"the store is at slot {applied}, not {slot}")
    known = ids_in(configuration) if configuration else ids if all(ids) else ("", "")
    return CheckpointHeader(version, cluster, group, slot, index, digest, configuration, *known)


class Source(Protocol):
    """What is written: a store, or a view of one, that does not change meanwhile."""

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield entries in key order."""

    def scan_requests(self) -> Iterator[tuple[int, bytes]]:
        """Yield request records in slot order."""


class Recompute(Protocol):
    """A digest computed from content alone (``core/kv/digest.StateDigest``)."""

    def add_entry(self, key: bytes, entry: bytes) -> None:
        """Count an entry; raises DamageError if it contradicts itself."""

    def add_requests(self, slot: int, record: bytes) -> None:
        """Count a request record."""

    def add_configuration(self, configuration: bytes) -> None:
        """Count the configuration."""

    def value(self) -> bytes:
        """Return the digest."""


class CheckpointEncoder:
    """Yields a checkpoint file, about :data:`FRAME_BYTES` at a time, so that the caller may pause in between."""

    def __init__(self, header: CheckpointHeader, source: Source) -> None:
        """Prepare to write ``source``, whose digest ``header`` claims; whoever reads the file recomputes it."""
        self._header = header
        self._source = source
        self._position = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield the file's bytes; only once."""
        check(self._position == 0, "a checkpoint encoder is used once")
        self._position = len(MAGIC)
        yield MAGIC
        if self._header.cluster_id:
            yield self._frame(HEADER, (FORMAT_VERSION, *self._header))
        else:
            yield self._frame(HEADER, (FORMAT_WITHOUT_IDS, *self._header[:-_IDS]))
        entries = requests = 0
        for items in _grouped(self._source.scan(b"")):
            entries += len(items) // 2
            yield self._frame(ENTRIES, items)
        for items in _grouped(self._source.scan_requests()):
            requests += len(items) // 2
            yield self._frame(REQUESTS, items)
        yield self._frame(TRAILER, (entries, requests, self._header.digest))

    def _frame(self, kind: int, content: object) -> bytes:
        body = bytes((kind,)) + cast("bytes", msgpack.packb(content))
        frame = _PREFIX.pack(len(body), crc32(body, self._position & 0xFFFFFFFF)) + body
        self._position += len(frame)
        return frame


def _grouped(pairs: Iterator[tuple[bytes, bytes]] | Iterator[tuple[int, bytes]]) -> Iterator[list[bytes | int]]:
    """Yield flat lists ``[name, data, name, data, …]`` of about one frame's size."""
    items: list[bytes | int] = []
    size = 0
    for name, data in pairs:
        items += (name, data)
        size += len(data) + (len(name) if type(name) is bytes else 0) + _ITEM_OVERHEAD
        if size >= FRAME_BYTES:
            yield items
            items, size = [], 0
    if items:
        yield items


class Sink(Protocol):
    """Where the parts of a checkpoint go: a store in a write transaction."""

    def put(self, key: bytes, entry: bytes) -> None:
        """Write an entry."""

    def put_requests(self, slot: int, record: bytes) -> None:
        """Keep a request record."""


def write_part(sink: Sink, part: Part) -> None:
    """Write the entries or request records of one part; a header and a trailer hold none."""
    match part:
        case Entries(pairs):
            for key, entry in pairs:
                sink.put(key, entry)
        case Requests(records):
            for slot, record in records:
                sink.put_requests(slot, record)
        case _:
            pass


class CheckpointDecoder:
    """Turns the bytes of a checkpoint file back into parts, and believes nothing.

    Feed it the file in pieces of any size, then call :meth:`finish`. What :meth:`feed` returns before that is checked
    frame by frame, but is not yet known to be complete: do not serve it.
    """

    def __init__(self, recompute: Recompute) -> None:
        self._recompute = recompute
        self._buffer = bytearray()
        self._position = 0
        self._started = False
        self._last_key: bytes | None = None
        self._last_slot = -1
        self._entries = 0
        self._requests = 0
        self.header: CheckpointHeader | None = None
        self.trailer: Trailer | None = None

    def feed(self, data: bytes) -> list[Part]:
        """Return the parts that ``data`` completes; raises DamageError at the first that is not as it was written."""
        self._buffer += data
        if not self._started:
            if len(self._buffer) < len(MAGIC):
                return []
            if self._buffer[: len(MAGIC)] != MAGIC:
                raise DamageError("this is not a checkpoint file: it does not begin like one")
            del self._buffer[: len(MAGIC)]
            self._position = len(MAGIC)
            self._started = True
        parts: list[Part] = []
        at = 0
        while len(self._buffer) - at >= _PREFIX.size:
            length, crc = _PREFIX.unpack_from(self._buffer, at)
            if not 0 < length <= FRAME_BYTES_MAX:
                raise DamageError(f"the frame at byte {self._position} claims {length} bytes")
            end = at + _PREFIX.size + length
            if len(self._buffer) < end:
                break
            body = bytes(memoryview(self._buffer)[at + _PREFIX.size : end])
            if crc32(body, self._position & 0xFFFFFFFF) != crc:
                raise DamageError(f"the frame at byte {self._position} fails its checksum")
            parts.append(self._part(body))
            self._position += end - at
            at = end
        del self._buffer[:at]
        return parts

    def finish(self) -> CheckpointHeader:
        """Return the header of a file that is complete and adds up; raises DamageError if it does not."""
        if self.header is None or self.trailer is None:
            raise DamageError(f"the checkpoint is cut short at byte {self._position + len(self._buffer)}")
        if self._buffer:
            raise DamageError(f"{len(self._buffer)} bytes follow the checkpoint's end")
        return self.header

    def _part(self, body: bytes) -> Part:
        try:
            content = msgpack.unpackb(memoryview(body)[1:], use_list=False)
        except (ValueError, msgpack.exceptions.UnpackException) as error:
            raise DamageError(f"the frame at byte {self._position} is not msgpack: {error}") from error
        kind = body[0]
        if type(content) is not tuple:
            raise DamageError(f"the frame at byte {self._position} is not a list")
        if self.trailer is not None:
            raise DamageError(f"a frame follows the trailer at byte {self._position}")
        if (kind == HEADER) != (self.header is None):
            raise DamageError(f"the frame at byte {self._position} has kind {kind} in a wrong place")
        if kind == HEADER:
            return self._on_header(content)
        if kind == ENTRIES:
            return self._on_entries(content)
        if kind == REQUESTS:
            return self._on_requests(content)
        if kind == TRAILER:
            return self._on_trailer(content)
        raise DamageError(f"the frame at byte {self._position} has the unknown kind {kind}")

    def _on_header(self, content: tuple[object, ...]) -> CheckpointHeader:
        version = content[0] if content else None
        if version not in {FORMAT_VERSION, FORMAT_WITHOUT_IDS}:
            raise DamageError(
                f"the checkpoint has format version {version!r}; this program reads {FORMAT_WITHOUT_IDS} and "
                f"{FORMAT_VERSION}"
            )
        types = _HEADER_TYPES if version == FORMAT_VERSION else _HEADER_TYPES[:-_IDS]
        if tuple(type(field) for field in content[1:]) != types:
            raise DamageError("the checkpoint's header has fields of wrong types")
        header = self.header = CheckpointHeader(*content[1:])  # type: ignore[arg-type] # checked just above
        self._recompute.add_configuration(header.configuration)
        return header

    def _pairs(self, content: tuple[object, ...]) -> list[tuple[object, object]]:
        if len(content) % 2:
            raise DamageError(f"the frame at byte {self._position} is not a list of pairs")
        return list(zip(content[::2], content[1::2], strict=True))

    def _on_entries(self, content: tuple[object, ...]) -> Entries:
        if self._requests:
            raise DamageError(f"entries after request records at byte {self._position}")
        pairs = self._pairs(content)
        add = self._recompute.add_entry
        last = self._last_key
        for key, entry in pairs:
            if type(key) is not bytes or type(entry) is not bytes or (last is not None and key <= last):
                raise DamageError(f"an entry near byte {self._position} is malformed or out of order")
            add(key, entry)
            last = key
        self._last_key = last
        self._entries += len(pairs)
        return Entries(cast("list[tuple[bytes, bytes]]", pairs))

    def _on_requests(self, content: tuple[object, ...]) -> Requests:
        records = self._pairs(content)
        for slot, record in records:
            if type(slot) is not int or type(record) is not bytes or slot <= self._last_slot:
                raise DamageError(f"a request record near byte {self._position} is malformed or out of order")
            self._recompute.add_requests(slot, record)
            self._last_slot = slot
        self._requests += len(records)
        return Requests(cast("list[tuple[int, bytes]]", records))

    def _on_trailer(self, content: tuple[object, ...]) -> Trailer:
        if tuple(type(field) for field in content) != _TRAILER_TYPES:
            raise DamageError("the checkpoint's trailer has fields of wrong types")
        trailer = Trailer(*content)  # type: ignore[arg-type] # checked just above
        if (trailer.entries, trailer.requests) != (self._entries, self._requests):
            raise DamageError(
                f"the checkpoint holds {self._entries} entries and {self._requests} request records, "
                f"but its trailer counts {trailer.entries} and {trailer.requests}"
            )
        computed = self._recompute.value()
        if self.header is None or computed != self.header.digest or computed != trailer.digest:
            raise DamageError(f"the checkpoint's content has digest {computed.hex()}, not the one that it claims")
        self.trailer = trailer
        return trailer
