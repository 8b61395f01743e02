"""The client's side of the native protocol's frames: payloads to bytes and back. Pure.

``docs/native.md`` describes every frame, with bytes; ``tests/client`` compares these numbers with the server's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, cast

import msgpack

PROTOCOL = "replicad"
VERSION_MIN = 1
VERSION_MAX = 1

HELLO, REQUEST, ANSWER, FAILED, CLUSTER, CLOSING = range(6)
"""Kinds of frames."""

GET = 0
"""Code of a read; those of writes are the core's PUT and DELETE."""

LEADER, CONSISTENT, STALE = range(3)
"""Levels of reads."""

NUMBER_MAX = 2**64 - 1
"""The greatest number that a frame can carry."""

FRAME_BYTES_MAX = 1 << 26
"""The longest frame that is taken from a server; it sends far less."""

_LENGTH = struct.Struct(">I")
_packer = msgpack.Packer()


class ProtocolError(Exception):
    """The other side does not speak this protocol; the connection must close."""


def pack(fields: object) -> bytes:
    """Return the frame of a payload."""
    payload = cast("bytes", _packer.pack(fields))
    return _LENGTH.pack(len(payload)) + payload


class Inbox:
    """Received bytes of one connection, cut into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = 4

    def received(self, data: bytes) -> Iterator[tuple[Any, ...]]:
        """Yield the payload of each whole frame; raises ProtocolError."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            data = bytes(self._rest)
        at, size = 0, len(data)
        wanted = 4
        while size - at >= 4:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > FRAME_BYTES_MAX:
                raise ProtocolError(f"a frame of {length} bytes arrived; is this the native port?")
            wanted = 4 + length
            if size - at < wanted:
                break
            yield unpack(data[at + 4 : at + wanted])
            at += wanted
            wanted = 4
        self._rest, self._wanted = bytearray(data[at:]), wanted


def unpack(payload: bytes) -> tuple[Any, ...]:
    """Return the fields of a payload; raises ProtocolError."""
    try:
        fields = msgpack.unpackb(payload, use_list=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError(f"a frame that is not msgpack arrived ({error})") from error
    if type(fields) is not tuple or not fields or type(fields[0]) is not int:
        raise ProtocolError("a frame that is no array with a kind arrived")
    return fields
