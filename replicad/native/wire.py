"""The native protocol's frames: bytes to payloads and back. Pure; the connection does the input and output.

A frame is ``length (4 bytes, big-endian), payload``; the payload is one msgpack array whose first element says what it
is. ``docs/native.md`` describes every kind, with bytes. The Python client has a side of its own (``client/wire.py``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, cast

import msgpack

from replicad.core.model.errors import ErrorKind, RequestError
from replicad.core.model.limits import KEY_BYTES_MAX

PROTOCOL = "replicad"
VERSION_MIN = 1
VERSION_MAX = 1
"""Versions of the native protocol that this release speaks."""

HELLO = 0
"""First frame of either side."""
REQUEST = 1
"""Client: ``[REQUEST, number, group, options, operations]``."""
ANSWER = 2
"""Server: ``[ANSWER, number, group id, index, age in ms, results]``."""
FAILED = 3
"""Server: ``[FAILED, number, error, addresses]``: a whole frame was refused; number 0: the connection ends."""
CLUSTER = 4
"""Server, unasked: ``[CLUSTER, nodes, groups]``: where nodes are and who coordinates what."""
CLOSING = 5
"""Server, unasked: ``[CLOSING, reason, grace in ms]``: begin nothing new here."""

GET = 0
"""Code of a read; those of writes are the core's PUT and DELETE."""

LENGTH = struct.Struct(">I")
HELLO_BYTES_MAX = 4_096
"""Nobody who has not said hello makes us hold more than this."""
FRAME_BYTES_MIN = 1 << 20
"""The longest frame that is taken is this, or one operation with the largest key and value."""
OPERATIONS_MAX = 1_024
"""Operations in one frame."""
ANSWER_BYTES_MAX = 4 << 20
"""Values in one answer; operations beyond it are refused, and can be asked again in a frame of their own."""
NUMBER_MAX = 2**64 - 1

_OVERHEAD_BYTES = 1_024
_ARRAY_ITEMS_MAX = OPERATIONS_MAX
_MAP_ITEMS_MAX = 16

ELSEWHERE = ErrorKind("elsewhere", 421, True, 0, "this node is no member of the group; the addresses say who is")
BAD_FRAME = ErrorKind("bad_frame", 400, True, 0, "what arrived is no frame of this protocol; the connection ends")
BAD_VERSION = ErrorKind("bad_version", 426, True, 0, "the two sides speak no common version of the protocol")
WRONG_CLUSTER = ErrorKind("wrong_cluster", 421, True, 0, "this node belongs to another cluster than the client means")
ERRORS = (ELSEWHERE, BAD_FRAME, BAD_VERSION, WRONG_CLUSTER)
"""Errors of this protocol beside those of ``core/model/errors.py``."""

_TEXT_PROTOCOLS = (b"GET ", b"PUT ", b"POST", b"HEAD", b"DELE", b"OPTI", b"PRI ")


class FrameError(Exception):
    """Bytes that are no frame of ours; the message says what is wrong with them. The connection must close."""


def native_error(kind: ErrorKind, message: str = "") -> RequestError:
    """Return an error of this protocol's own kinds."""
    error = RequestError("bad_request", message or kind.meaning)
    error.kind = kind
    return error


def error_fields(error: object) -> tuple[str, str, bool, int]:
    """Return an error as it stands in frames: name, sentence, whether it is definite, when to retry (ms, 0: never).

    It is what the packer calls for whatever msgpack does not know, so that results need no second look.
    """
    if not isinstance(error, RequestError):
        raise TypeError(f"a {type(error).__name__} cannot stand in a frame")
    kind = error.kind
    return kind.name, error.message, kind.definite, kind.retry_after_ms


def frame_bytes_max(value_bytes_max: int) -> int:
    """Return the longest payload that a node takes whose largest value is this long."""
    return max(FRAME_BYTES_MIN, value_bytes_max + KEY_BYTES_MAX + _OVERHEAD_BYTES)


_packer = msgpack.Packer(default=error_fields)


def pack(fields: object) -> bytes:
    """Return the frame of a payload."""
    payload = cast("bytes", _packer.pack(fields))
    return LENGTH.pack(len(payload)) + payload


def unpack(payload: bytes | bytearray) -> Any:
    """Return the object in a payload, tuples for arrays; raises FrameError."""
    try:
        return msgpack.unpackb(
            payload, use_list=False, max_array_len=_ARRAY_ITEMS_MAX, max_map_len=_MAP_ITEMS_MAX, max_ext_len=0
        )
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise FrameError(f"a frame that is not msgpack as this protocol uses it ({reason})") from error


class Inbox:
    """Received bytes of one connection, cut into payloads. ``limit`` is the longest that is acceptable now."""

    __slots__ = ("_at", "_data", "_wanted", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._data: bytes | bytearray = b""
        self._at = 0
        self._wanted = 0

    def add(self, data: bytes) -> bool:
        """Take bytes; returns whether a whole payload may be there."""
        if not self._data:
            self._data = data
            return True
        if not isinstance(self._data, bytearray):
            self._data = bytearray(memoryview(self._data)[self._at :])
            self._at = 0
        self._data += data
        return len(self._data) - self._at >= self._wanted

    def payloads(self) -> Iterator[bytes | bytearray]:
        """Yield each whole payload; it may be left at any time and begun anew. Raises FrameError."""
        while True:
            data, at = self._data, self._at
            left = len(data) - at
            if left < 4:
                break
            (length,) = LENGTH.unpack_from(data, at)
            if length > self.limit:
                raise FrameError(self._too_long(length, bytes(data[at : at + 4])))
            if length == 0:
                raise FrameError("an empty frame")
            if left < 4 + length:
                self._wanted = 4 + length
                break
            self._at = at + 4 + length
            yield data[at + 4 : self._at]
        self._drop_taken()

    def partial(self) -> bool:
        """Return whether bytes wait for the rest of their frame, or to be taken."""
        return len(self._data) > self._at

    def _drop_taken(self) -> None:
        if self._at == len(self._data):
            self._data, self._at = b"", 0
        elif self._at:
            self._data = bytearray(memoryview(self._data)[self._at :])
            self._at = 0
        if len(self._data) < 4:
            self._wanted = 4

    def _too_long(self, length: int, start: bytes) -> str:
        if start in _TEXT_PROTOCOLS:
            return "what looks like HTTP; this is the native port, see http_listen for the other one"
        return f"a frame of {length} bytes, longer than the {self.limit} allowed here"
