"""How far each group's store has come: a small file beside LMDB's, written with every commit and never synced.

A store writes to its databases rarely, so what a killed process had applied is mostly in the message log only. This
file says up to which slot: those slots are known to be committed, so the next start applies them again by itself, and
a log that ends before is an older one than it was. Like the databases it counts only on the boot of the machine on
which it was written.

A cell per group: hash of its id (32 bytes), slot (8), crc32 of both (4), zeros up to 64 bytes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from zlib import crc32

CELL_BYTES = 64
CELLS = 1024
"""Reserved at once: a full disk must not keep a group from its cell."""

_CELL = Struct(">32sQ")
_CRC = Struct(">I")


class Reached:
    """The file at ``path``; raises OSError if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a cell that was not written whole counts for nothing."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(OSError):
            os.posix_fallocate(self._descriptor, 0, CELLS * CELL_BYTES)
        self._slots: dict[bytes, int] = {}
        self._cells: dict[bytes, int] = {}
        self._free: list[int] = []
        data = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        self._count = len(data) // CELL_BYTES
        for number in reversed(range(self._count)):
            cell = _cell(data, number)
            if cell is None:
                self._free.append(number)
            else:
                self._cells[cell[0]], self._slots[cell[0]] = number, cell[1]

    def slot(self, group: str) -> int:
        """Return the slot that a group's store had applied, or 0."""
        return self._slots.get(_name(group), 0)

    def note(self, group: str, slot: int) -> None:
        """Note that a group's store has applied ``slot``; 0: it knows nothing any more. A full disk forgets more."""
        name = _name(group)
        number = self._cells.get(name)
        if number is None:
            if not slot:
                return
            if not self._free:
                self._free.append(self._count)
                self._count += 1
            number = self._cells[name] = self._free.pop()
        self._slots[name] = slot
        data = _CELL.pack(name, slot)
        with suppress(OSError):
            cell = (data + _CRC.pack(crc32(data))).ljust(CELL_BYTES, b"\0")
            os.pwrite(self._descriptor, cell, number * CELL_BYTES)

    def forget(self, group: str) -> None:
        """Give a group's cell back: the group is gone from this node."""
        self.note(group, 0)
        name = _name(group)
        self._slots.pop(name, None)
        number = self._cells.pop(name, None)
        if number is not None:
            self._free.append(number)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_reached(path: Path, group: str) -> int:
    """Return the slot that the file at ``path`` gives for a group, 0 if none; nothing is written."""
    try:
        data = path.read_bytes()
    except OSError:
        return 0
    cells = filter(None, (_cell(data, number) for number in range(len(data) // CELL_BYTES)))
    return dict(cells).get(_name(group), 0)


def _cell(data: bytes, number: int) -> tuple[bytes, int] | None:
    """Return ``(hash of the group's id, slot)`` of a cell; one that was not written whole counts for nothing."""
    begin = number * CELL_BYTES
    name, slot = _CELL.unpack_from(data, begin)
    whole = _CRC.unpack_from(data, begin + _CELL.size)[0] == crc32(data[begin : begin + _CELL.size])
    return (name, slot) if slot and whole else None


@lru_cache(maxsize=CELLS)
def _name(group: str) -> bytes:
    return blake2b(group.encode(), digest_size=32).digest()
