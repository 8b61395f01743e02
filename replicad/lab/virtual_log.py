"""The message log of a simulated node: what ``node/wal.py`` does with files and a thread, on a virtual disk.

One write is under way at a time; whatever is appended meanwhile is gathered into the next flush. Nothing is reported
durable before its flush, and each segment is durable before the next one gets its first record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from replicad.core.journal.records import FormationRecord, PromiseRecord, Record
from replicad.core.journal.recovery import Recovery
from replicad.core.journal.segments import FRAME_BYTES, HEADER_BYTES, LogIdentity, encode_header, encode_record
from replicad.core.journal.writer import SegmentWriter, Write
from replicad.lab.crash_points import LOG_FLUSHED, PROMISES_STORED
from replicad.lab.disk import VirtualDisk

if TYPE_CHECKING:
    from replicad.lab.events import EventQueue
    from replicad.lab.swarm import DiskFaults

Done = Callable[[], None]


class SmallSegmentWriter(SegmentWriter):
    """A writer of segments that are smaller than the longest record of a real log, so that they roll often."""

    def __init__(self, segment: int = 1, *, size: int) -> None:
        super().__init__(segment)
        self._size = size
        self.current_size = size


class _Job:
    """Records that were appended together, and what to call once they are durable."""

    def __init__(self, records: Sequence[tuple[str, Record]], done: Done) -> None:
        self.records = records
        self.done = done
        self.payloads = [encode_record(group, record) for group, record in records]
        self.size = sum(map(len, self.payloads)) + FRAME_BYTES * len(self.payloads)
        self.reserved = any(isinstance(record, PromiseRecord) for _, record in records)


class VirtualLog:
    """Appends records to a disk. Dies with its process: :meth:`stop`."""

    def __init__(
        self,
        *,
        identity: LogIdentity,
        disk: VirtualDisk,
        recovery: Recovery,
        faults: DiskFaults,
        queue: EventQueue,
        random: Random,
        at: Callable[[str], None],
    ) -> None:
        """Put the disk right after a recovery, and go on where it ends."""
        self._identity = identity
        self._disk = disk
        self._faults = faults
        self._queue = queue
        self._random = random
        self._at = at
        self._waiting: list[_Job] = []
        self._flushing: list[_Job] = []
        self._writes: list[Write] = []
        self._stopped = False
        self._free: int | None = None
        self.hang_until = 0
        """No flush ends before this virtual time."""
        if recovery.segment:
            disk.write(recovery.segment, recovery.position, bytes(recovery.used - recovery.position))
            disk.flush()
        self.writer = SmallSegmentWriter.resume(recovery, size=disk.segment_bytes)
        self._create(self.writer.segment)

    @property
    def busy(self) -> bool:
        """Return whether a write is under way, so that a crash may cut it."""
        return bool(self._flushing)

    def stop(self) -> None:
        """The process died; what waits is lost, what is being written is the disk's affair."""
        self._stopped = True
        self._waiting.clear()
        self._flushing.clear()

    def append(self, records: Sequence[tuple[str, Record]], done: Done) -> None:
        """Append ``(group, record)``; ``done()`` follows once all are durable, in the order of appending."""
        self._waiting.append(_Job(records, done))
        self._gather()

    def set_full(self, free: int | None) -> None:
        """The disk is full: ``free`` more bytes can be written (promises: always); None: there is space again."""
        self._free = free
        self._gather()

    def remove(self, numbers: list[int]) -> None:
        """Delete segments that :meth:`SegmentWriter.removable` named."""
        self._disk.remove(numbers)
        self.writer.removed(numbers)

    def _create(self, segment: int) -> None:
        """Create a segment, and an empty one ahead of it, as the real log does."""
        for number in (segment, segment + 1):
            if not self._disk.exists(number):
                self._disk.create(number, encode_header(self._identity, number, self._disk.segment_bytes))

    def _gather(self) -> None:
        """Begin to write what waits, unless a write is under way."""
        if self._flushing or self._stopped:
            return
        count = 0
        for job in self._waiting:
            if self._free is not None and not job.reserved:
                if job.size > self._free:
                    break
                self._free -= job.size
            count += 1
        if not count:
            return
        self._flushing, self._waiting = self._waiting[:count], self._waiting[count:]
        records = [item for job in self._flushing for item in job.records]
        payloads = [payload for job in self._flushing for payload in job.payloads]
        self._writes = self.writer.append(records, payloads)
        self._write()

    def _write(self) -> None:
        """Hand the next write to the operating system and begin its flush."""
        if self._writes:
            write = self._writes[0]
            self._create(write.segment)
            self._disk.write(write.segment, write.position, write.data)
        span = self._faults.flush_max_us - self._faults.flush_min_us
        duration = self._faults.flush_min_us + int(self._random.random() * span) + self._disk.slow_us
        self._queue.after(duration, self._flushed)

    def _flushed(self) -> None:
        if self._stopped:
            return
        if self._queue.now < self.hang_until:
            self._queue.at(self.hang_until, self._flushed)
            return
        self._disk.flush()
        if self._writes:
            write = self._writes.pop(0)
            self.writer.durable(write.segment, write.position + len(write.data))
            if self._writes:
                self._write()
                return
        self._at(LOG_FLUSHED)
        jobs, self._flushing = self._flushing, []
        for group, record in (item for job in jobs for item in job.records):
            if isinstance(record, PromiseRecord):
                self._disk.promises[group] = max(record.epoch, self._disk.promises.get(group, 0))
            elif isinstance(record, FormationRecord):
                self._disk.formed = True
        self._at(PROMISES_STORED)
        self._gather()
        for job in jobs:
            job.done()


def used_bytes(recovery: Recovery) -> tuple[int, int]:
    """Return ``(segment, position)`` up to which everything was flushed before the log's last record was written."""
    return recovery.segment, recovery.rewrite if recovery.segment else HEADER_BYTES
