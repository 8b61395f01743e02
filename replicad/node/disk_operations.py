"""Every call that the message log makes to the operating system's disk, in one object that tests can replace."""

from __future__ import annotations

import os
from pathlib import Path

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class DiskOperations:
    """The real disk. All methods raise OSError."""

    def read(self, path: Path) -> bytes:
        """Return a whole file."""
        return path.read_bytes()

    def open(self, path: Path, *, create: bool = False) -> int:
        """Open a file for reading and writing; return its descriptor."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        return os.open(path, flags, 0o640)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def size(self, descriptor: int) -> int:
        """Return the size of a file in bytes."""
        return os.fstat(descriptor).st_size

    def allocate(self, descriptor: int, size: int) -> None:
        """Reserve ``size`` bytes that read as zeros."""
        os.posix_fallocate(descriptor, 0, size)

    def pwrite(self, descriptor: int, data: bytes | memoryview, position: int) -> int:
        """Write at a position; return how many bytes were written, perhaps fewer than given."""
        return os.pwrite(descriptor, data, position)

    def fdatasync(self, descriptor: int) -> None:
        """Make a file's bytes durable."""
        os.fdatasync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, DIRECTORY_FLAGS)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Rename a file, replacing what was there."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()


def write_all(disk: DiskOperations, descriptor: int, data: bytes, position: int) -> None:
    """Write all of ``data``; raises OSError."""
    view = memoryview(data)
    while view:
        written = disk.pwrite(descriptor, view, position)
        if written <= 0:
            raise OSError(f"a write of {len(view)} bytes wrote nothing")
        view = view[written:]
        position += written


def replace_file(disk: DiskOperations, path: Path, data: bytes) -> None:
    """Replace a small file at once: after a crash it holds the old bytes or the new ones. Raises OSError."""
    part = path.with_name(path.name + ".new")
    descriptor = disk.open(part, create=True)
    try:
        write_all(disk, descriptor, data, 0)
        disk.fdatasync(descriptor)
    finally:
        disk.close(descriptor)
    disk.rename(part, path)
    disk.sync_directory(path.parent)
