"""The segment files of one message log: ``00000001.seg`` and so on, in one directory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from replicad.core.journal.recovery import Recovery
from replicad.core.journal.segments import FRAME_BYTES, HEADER_BYTES, LogIdentity, encode_header
from replicad.core.journal.writer import Write
from replicad.node.disk_operations import DiskOperations, write_all

ERASE_BYTES = 4096
AHEAD_BYTES = 128 * 1024
"""A small write takes so many zeros along, once they are used up: a flush over blocks that were written before is about
a third shorter than one for which the file system must note that reserved blocks hold data now."""
SMALL_BYTES = 32 * 1024
"""A longer write takes no zeros along: they would double what the disk has to take."""
_NAME = re.compile(r"(\d{8,})\.seg")


def segment_path(directory: Path, number: int) -> Path:
    """Return the path of a segment."""
    return directory / f"{number:08d}.seg"


def segment_numbers(directory: Path) -> list[int]:
    """Return the numbers of the segments that are there, in order."""
    found = (_NAME.fullmatch(path.name) for path in directory.iterdir())
    return sorted(int(match[1]) for match in found if match)


def holds_data(directory: Path) -> bool:
    """Return whether a node's data directory has a message log that holds at least one record."""
    wal = directory / "wal"
    for number in segment_numbers(wal) if wal.is_dir() else ():
        with segment_path(wal, number).open("rb") as file:
            file.seek(HEADER_BYTES)
            if any(file.read(FRAME_BYTES)):
                return True
    return False


class SegmentFiles:
    """Creates, writes, puts right and removes segments. All methods raise OSError; none is thread-safe."""

    def __init__(self, directory: Path, identity: LogIdentity, disk: DiskOperations) -> None:
        self.directory = directory
        self._identity = identity
        self._disk = disk
        self._descriptors: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._written: dict[int, int] = {}
        """Segment -> up to where its blocks have been written since it was opened, be it with zeros."""

    def read_all(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(number, bytes)`` of all segments in order, reading each when it is asked for."""
        for number in segment_numbers(self.directory):
            yield number, self._disk.read(segment_path(self.directory, number))

    def tidy(self) -> None:
        """Create the directory, and remove what an interrupted :meth:`create` left."""
        if not self.directory.is_dir():
            self.directory.mkdir(parents=True)
            self._disk.sync_directory(self.directory.parent)
        for part in sorted(self.directory.glob("*.new")):
            self._disk.unlink(part)

    def create(self, number: int, size: int) -> None:
        """Create an empty segment of ``size`` bytes; it appears under its name only when it is whole and durable."""
        path = segment_path(self.directory, number)
        part = path.with_suffix(".new")
        descriptor = self._disk.open(part, create=True)
        try:
            self._disk.allocate(descriptor, size)
            write_all(self._disk, descriptor, encode_header(self._identity, number, size), 0)
            self._disk.fdatasync(descriptor)
            self._disk.rename(part, path)
            self._disk.sync_directory(self.directory)
        except OSError:
            self._disk.close(descriptor)
            part.unlink(missing_ok=True)
            raise
        self._descriptors[number] = descriptor
        self._sizes[number] = size

    def put_right(self, recovery: Recovery) -> None:
        """Erase a torn tail and make what was recovered durable, as :class:`Recovery` asks."""
        if not recovery.segment:
            return
        number = recovery.segment
        descriptor = self._descriptor(number)
        # Backwards: if this is interrupted, what is left still looks like a record that was cut short.
        chunks = range(recovery.position, recovery.used, ERASE_BYTES)
        for begin in reversed(chunks):
            length = min(ERASE_BYTES, recovery.used - begin)
            write_all(self._disk, descriptor, bytes(length), begin)
        # After a flush that failed, the page cache may hold, as clean, bytes that the disk does not.
        tail = self._disk.read(segment_path(self.directory, number))[recovery.rewrite : recovery.position]
        write_all(self._disk, descriptor, tail, recovery.rewrite)
        self._disk.fdatasync(descriptor)
        self._disk.sync_directory(self.directory)

    def execute(self, write: Write) -> None:
        """Write bytes, always at the end of what was written, and make them durable."""
        descriptor = self._descriptor(write.segment)
        write_all(self._disk, descriptor, write.data + self._zeros(write), write.position)
        self._disk.fdatasync(descriptor)

    def _zeros(self, write: Write) -> bytes:
        """Return the zeros that this write takes along."""
        end = write.position + len(write.data)
        written = self._written.get(write.segment, 0)
        if end <= written or len(write.data) > SMALL_BYTES:
            return b""
        stop = min(end + AHEAD_BYTES, self._sizes[write.segment])
        self._written[write.segment] = stop
        return bytes(stop - end)

    def release(self, before: int) -> None:
        """Close the segments before this one, which will not be written again."""
        for number in sorted(self._descriptors):
            if number < before:
                self._disk.close(self._descriptors.pop(number))
                self._sizes.pop(number, None)
                self._written.pop(number, None)

    def remove(self, number: int) -> None:
        """Remove a segment, durably, so that a crash never leaves a gap in the sequence."""
        self._disk.unlink(segment_path(self.directory, number))
        self._disk.sync_directory(self.directory)

    def close(self) -> None:
        """Close all descriptors."""
        while self._descriptors:
            self._disk.close(self._descriptors.popitem()[1])

    def _descriptor(self, number: int) -> int:
        descriptor = self._descriptors.get(number)
        if descriptor is None:
            descriptor = self._disk.open(segment_path(self.directory, number))
            self._descriptors[number] = descriptor
            self._sizes[number] = self._disk.size(descriptor)
        return descriptor
