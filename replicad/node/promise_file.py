"""The second copy of every group's promise (rule S1): two checksummed blocks that are written in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from zlib import crc32

import msgpack

from replicad.core.journal.segments import LogIdentity
from replicad.core.model.errors import DamageError
from replicad.node.disk_operations import DiskOperations, replace_file, write_all

BLOCK_BYTES = 64 * 1024
_CRC_BYTES = 4


class PromiseFile:
    """``DIR/promise``. All methods raise OSError."""

    def __init__(self, path: Path, identity: LogIdentity, disk: DiskOperations) -> None:
        self._path = path
        self._identity = identity
        self._disk = disk
        self._turn = 0
        self._descriptor = -1

    def load(self) -> dict[str, int]:
        """Return group -> promised epoch; creates the file if it is not there.

        Raises DamageError if neither block is good, or if the file belongs to another disk id.
        """
        try:
            data = self._disk.read(self._path)
        except FileNotFoundError:
            block = self._encode({})
            replace_file(self._disk, self._path, block + block)
            return {}
        found = [block for block in map(_decode, (data[:BLOCK_BYTES], data[BLOCK_BYTES:])) if block is not None]
        if not found:
            raise DamageError("both copies in the promise file are damaged")
        turn, owner, promises = max(found, key=lambda block: block[0])
        if owner != self._identity:
            raise DamageError(f"the promise file belongs to node {owner[1]!r} with disk id {owner[2]}")
        self._turn = turn
        return promises

    def store(self, promises: dict[str, int]) -> None:
        """Make these promises durable, leaving the block of the time before untouched."""
        self._turn += 1
        block = self._encode(promises)
        if self._descriptor < 0:
            self._descriptor = self._disk.open(self._path)
        write_all(self._disk, self._descriptor, block, BLOCK_BYTES * (self._turn % 2))
        self._disk.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    def _encode(self, promises: dict[str, int]) -> bytes:
        body = cast("bytes", msgpack.packb((self._turn, tuple(self._identity), promises)))
        if len(body) > BLOCK_BYTES - _CRC_BYTES:
            raise OSError("the promises of all groups do not fit the promise file")
        padded = body.ljust(BLOCK_BYTES - _CRC_BYTES, b"\0")
        return padded + crc32(padded).to_bytes(_CRC_BYTES, "big")


def _decode(block: bytes) -> tuple[int, LogIdentity, dict[str, int]] | None:
    """Return turn, owner and promises of a good block."""
    body, crc = block[:-_CRC_BYTES], block[-_CRC_BYTES:]
    if len(block) != BLOCK_BYTES or crc32(body).to_bytes(_CRC_BYTES, "big") != crc or not any(body):
        return None
    unpacker: Any = msgpack.Unpacker(use_list=False)
    unpacker.feed(body)
    turn, owner, promises = unpacker.unpack()
    return turn, LogIdentity(*owner), promises
