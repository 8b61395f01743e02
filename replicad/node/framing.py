"""Frames between peers: bytes to lists of messages and back. Pure; the links do the input and output.

A frame is ``length (4 bytes), crc32 of the payload (4), payload``, big-endian. The payload of an established link is
a msgpack array of items, each ``[group, [message number, field, …]]``. An item whose first element is an integer is
the transport's own: ``[PING, stamp]``, answered by ``[PONG, stamp]``. During the handshake a payload is a msgpack map
(see :mod:`replicad.node.handshake`) and much shorter.

A frame is taken as a whole or not at all: nothing of a frame with one bad item reaches a replica.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, cast
from zlib import crc32

import msgpack

from replicad.core.model.limits import FRAME_BYTES_MAX
from replicad.core.model.messages import Message, from_wire, to_wire

HEADER = struct.Struct(">II")
HANDSHAKE_BYTES_MAX = 4096
"""Nobody who has not proved to be a peer makes us hold more than this."""

ITEM_BYTES_MAX = FRAME_BYTES_MAX - 16
"""An item must fit a frame together with the frame's array header."""

FRAME_BYTES_TARGET = 256 * 1024
"""Items are gathered into frames of about this size: a larger one would only hold the receiver's loop for longer."""

FRAME_ITEMS_TARGET = 512
ITEMS_MAX = 4096
"""Items in one frame: as many as we send, and as many as we take."""

ARRAY_ITEMS_MAX = 65_536
"""Elements of any array inside a frame: bounds what decoding may allocate per level."""

PING = 0
PONG = 1

_BUFFER_BYTES = 256 * 1024
_KEPT_BUFFER_BYTES = 2 * 1024 * 1024

_packer = msgpack.Packer()


class FrameError(Exception):
    """Bytes that are no frame of ours; the message says what is wrong with them. The link must close."""


class FrameBuffer:
    """Collects received bytes and gives out whole payloads, without copying them.

    ``limit`` is the longest payload that is acceptable now, in bytes; it may change between two payloads.
    """

    def __init__(self, limit: int, size: int = _BUFFER_BYTES) -> None:
        self.limit = limit
        self._size = size
        self._data = bytearray(size)
        self._view = memoryview(self._data)
        self._start = 0
        self._end = 0

    def writable(self) -> memoryview:
        """Return the space that the next bytes are to be written into; never empty."""
        return self._view[self._end :]

    def received(self, count: int) -> Iterator[memoryview]:
        """Take note of ``count`` bytes written; yield each whole payload, valid until the next one is asked for.

        Raises FrameError at the first payload that is empty, longer than ``limit`` or has another checksum.
        """
        self._end += count
        wanted = HEADER.size
        while self._end - self._start >= HEADER.size:
            length, checksum = HEADER.unpack_from(self._data, self._start)
            if length > self.limit:
                raise FrameError(f"a frame of {length} bytes, longer than the {self.limit} allowed here")
            if length == 0:
                raise FrameError("an empty frame")
            wanted = HEADER.size + length
            stop = self._start + wanted
            if stop > self._end:
                break
            payload = self._view[self._start + HEADER.size : stop]
            if crc32(payload) != checksum:
                raise FrameError("a frame whose checksum does not match")
            self._start = stop
            wanted = HEADER.size
            yield payload
        self._make_room(wanted)

    def _make_room(self, wanted: int) -> None:
        """Move the beginning of an unfinished frame to the front of a buffer that can hold all of it."""
        rest = self._end - self._start
        capacity = len(self._data)
        if wanted > capacity or (rest == 0 and capacity > _KEPT_BUFFER_BYTES):
            data = bytearray(max(wanted, self._size))
            data[:rest] = self._view[self._start : self._end]
            self._data, self._view = data, memoryview(data)
        elif self._start and rest:
            self._data[:rest] = self._view[self._start : self._end].tobytes()
        self._start, self._end = 0, rest


def pack_item(group: str, message: Message) -> bytes:
    """Return the bytes of one item of a frame; packed once, they may go to several peers."""
    return cast("bytes", _packer.pack((group, to_wire(message))))


def pack_probe(kind: int, stamp: int) -> bytes:
    """Return the item of a PING or PONG; ``stamp`` is the sender's own time and comes back unchanged."""
    return cast("bytes", _packer.pack((kind, stamp)))


def pack_frame(items: Sequence[bytes]) -> list[bytes]:
    """Return the pieces of a frame of these items; small items are joined, large ones are not copied."""
    count = len(items)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")  # msgpack's array headers
    size = len(head) + sum(map(len, items))
    if size <= _BUFFER_BYTES:
        body = head + b"".join(items)
        return [HEADER.pack(size, crc32(body)) + body]
    checksum = crc32(head)
    for item in items:
        checksum = crc32(item, checksum)
    return [HEADER.pack(size, checksum) + head, *items]


def frame_bytes(payload: bytes) -> bytes:
    """Return one payload as a frame."""
    return HEADER.pack(len(payload), crc32(payload)) + payload


def unpack(payload: memoryview | bytes, *, maps: int = 0) -> Any:
    """Return the object in a payload, tuples for arrays; raises FrameError.

    No map has more than ``maps`` pairs, and extension types are refused: no message has any.
    """
    try:
        return msgpack.unpackb(payload, use_list=False, max_array_len=ARRAY_ITEMS_MAX, max_map_len=maps, max_ext_len=0)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise FrameError(f"a frame that is not msgpack as we use it ({str(error) or type(error).__name__})") from error


def unpack_items(payload: memoryview | bytes) -> tuple[list[tuple[str, Message]], list[tuple[int, int]]]:
    """Return the messages of a frame with their groups, and its probes ``(PING or PONG, stamp)``; raises FrameError."""
    items = unpack(payload)
    if type(items) is not tuple:
        raise FrameError("a frame that is not a list of items")
    if len(items) > ITEMS_MAX:
        raise FrameError(f"a frame of {len(items)} items, more than {ITEMS_MAX}")
    messages: list[tuple[str, Message]] = []
    probes: list[tuple[int, int]] = []
    for item in items:
        if type(item) is not tuple or len(item) != 2:
            raise FrameError("an item that is not a pair of group and message")
        group, body = item
        if type(group) is str:
            try:
                messages.append((group, from_wire(body)))
            except (ValueError, TypeError) as error:
                raise FrameError(f"a message that makes no sense: {error}") from error
        elif type(group) is int and group in {PING, PONG} and type(body) is int:
            probes.append((group, body))
        else:
            raise FrameError("an item whose group is not text")
    return messages, probes
