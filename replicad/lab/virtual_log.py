"""The message log of a simulated node: what ``node/wal.py`` does with files and a thread, on a virtual disk.

One write is under way at a time; whatever is appended meanwhile is gathered into the next flush. Nothing is reported
durable before its flush, and each segment is durable before the next one gets its first record. Which segments stand
ready, and whether the disk counts as full, says the same object as in a real log (``core/journal/space``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from replicad.core.journal.records import DroppedRecord, FormationRecord, PromiseRecord, Record
from replicad.core.journal.recovery import Recovery
from replicad.core.journal.segments import HEADER_BYTES, LogIdentity, encode_header, encode_record
from replicad.core.journal.space import Space
from replicad.core.journal.writer import SegmentWriter, Write
from replicad.lab.crash_points import DROP_LOGGED, LOG_FLUSHED, PROMISES_STORED
from replicad.lab.disk import VirtualDisk

if TYPE_CHECKING:
    from replicad.lab.events import EventQueue
    from replicad.lab.swarm import DiskFaults

Done = Callable[[], None]

RETRY_US = 100_000
"""As long as the disk is full, making a segment is tried again so often."""


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
        self.reserved = any(isinstance(record, PromiseRecord) for _, record in records)


class _Truncation:
    """Segments that may go once everything appended before is durable; ``done`` is told which."""

    def __init__(self, slots: Mapping[str, int], done: Callable[[list[int]], None]) -> None:
        self.slots = slots
        self.done = done


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
        self._waiting: list[_Job | _Truncation] = []
        self.truncated: dict[str, int] = {}
        """Group -> the slot up to which its entries may go."""
        self._flushing: list[_Job] = []
        self._writes: list[Write] = []
        self._stopped = False
        self._cramped = False
        """Some of what waits has no place."""
        self.told_full = False
        """Whether the node was told that the disk is full."""
        self._retrying = False
        self._on_full: Callable[[bool], None] | None = None
        self.hang_until = 0
        """No flush ends before this virtual time."""
        if recovery.segment:
            disk.write(recovery.segment, recovery.position, bytes(recovery.used - recovery.position))
            disk.flush()
        self.writer = SmallSegmentWriter.resume(recovery, size=disk.segment_bytes)
        self.space = Space(recovery.spares)
        if not recovery.segment:
            disk.create(1, encode_header(identity, 1, disk.segment_bytes))

    def start(self, on_full: Callable[[bool], None]) -> None:
        """Put the segments in order; from now on ``on_full(full)`` says whether more than promises is taken."""
        if self._stopped:
            return
        self._on_full = on_full
        for _ in range(self.space.surplus()):
            self._drop_spare()
        self._see_to_space()

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

    def use_up(self) -> None:
        """On a disk that has just become full: it was so when the segments were to be made that stand ready."""
        while self.space.spares:
            self._drop_spare()
        self._see_to_space()

    def spare_segments(self) -> int:
        """Return how many segments are on the disk behind the one that is written."""
        return sum(number > self.writer.segment for number, _ in self._disk.segments())

    def truncate(self, slots: Mapping[str, int], done: Callable[[list[int]], None]) -> None:
        """Have the segments removed that hold nothing above each group's slot, after all that was appended so far.

        What else they hold and is still needed is written again and flushed first (K2); then ``done(numbers)``.
        """
        self._waiting.append(_Truncation(slots, done))
        self._gather()

    def remove(self, numbers: list[int]) -> None:
        """Delete segments that :meth:`SegmentWriter.removable` named, unless they are gone already."""
        numbers = [number for number in numbers if number in self.writer.highest]
        self._disk.remove(numbers)
        self.writer.removed(numbers)

    # --- space --------------------------------------------------------------------------------------------------------

    def _make_segment(self) -> bool:
        """Make a segment behind the last one; return whether there was space."""
        number = self.writer.segment + self.space.spares + 1
        try:
            self._disk.create(number, encode_header(self._identity, number, self._disk.segment_bytes))
        except OSError:
            self.space.refused()
            return False
        self.space.made()
        return True

    def _drop_spare(self) -> None:
        self._disk.remove([self.writer.segment + self.space.spares])
        self.space.removed(1)

    def _make_room(self, jobs: Sequence[_Job]) -> int:
        """Return how many of these appends have a place, after making segments if need be."""
        # A promise at the back must not wait for records in front of it that only lack the space kept for promises.
        reserve = 0 if any(job.reserved for job in jobs) else self._faults.reserve_bytes
        sizes = [len(payload) for job in jobs for payload in job.payloads]
        while True:
            placed = self.writer.placeable(sizes, self.space.spares, reserve)
            if placed == len(sizes) or not self._make_segment():
                break
        for count, job in enumerate(jobs):
            placed -= len(job.payloads)
            if placed < 0:
                return count
        return len(jobs)

    def _see_to_space(self) -> None:
        """Make what is lacking, and say whether the disk is full; as long as it is, look again."""
        if self._stopped or self._on_full is None:
            return
        if self.space.lacks(waiting=self._cramped):
            self._make_segment()
        full = self.space.full(waiting=self._cramped)
        if full != self.told_full:
            self.told_full = full
            self._on_full(full)
        if full and not self._retrying:
            self._retrying = True
            self._queue.after(RETRY_US, self._retry)

    def _retry(self) -> None:
        self._retrying = False
        self._gather()
        self._see_to_space()

    # --- writing ------------------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """Begin to write what waits, unless a write is under way."""
        if self._flushing or self._stopped:
            return
        while self._waiting and isinstance(self._waiting[0], _Truncation):
            if self._write_live(self._waiting.pop(0)):
                return
        jobs = self._jobs()
        count = self._make_room(jobs)
        self._cramped = count < len(jobs)
        if not count:
            self._see_to_space()
            return
        self._flushing = jobs[:count]
        self._waiting = self._waiting[count:]
        self._begin()

    def _jobs(self) -> list[_Job]:
        """Return the appends that wait before the next truncation."""
        jobs: list[_Job] = []
        for job in self._waiting:
            if isinstance(job, _Truncation):
                break
            jobs.append(job)
        return jobs

    def _write_live(self, truncation: _Job | _Truncation) -> bool:
        """Begin to write what the segments that may go still say; returns whether there is anything to do."""
        if not isinstance(truncation, _Truncation):
            return False
        self.truncated.update(truncation.slots)
        numbers = self.writer.removable(self.truncated)
        if not numbers:
            return False
        live = _Job(self.writer.live_records(), lambda: truncation.done(numbers))
        sizes = [len(payload) for payload in live.payloads]
        if self.writer.placeable(sizes, self.space.spares) < len(sizes):
            return False  # not even the space kept for promises holds them
        self._flushing = [live]
        self._begin()
        return True

    def _begin(self) -> None:
        records = [item for job in self._flushing for item in job.records]
        payloads = [payload for job in self._flushing for payload in job.payloads]
        before = self.writer.segment
        self._writes = self.writer.append(records, payloads)
        self.space.used(self.writer.segment - before)
        self._write()

    def _write(self) -> None:
        """Hand the next write to the operating system and begin its flush."""
        if self._writes:
            write = self._writes[0]
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
            elif isinstance(record, DroppedRecord):
                self._at(DROP_LOGGED)
                self._disk.promises.pop(group, None)
            elif isinstance(record, FormationRecord):
                self._disk.formed = True
        self._at(PROMISES_STORED)
        self._gather()
        self._see_to_space()
        for job in jobs:
            job.done()


def used_bytes(recovery: Recovery) -> tuple[int, int]:
    """Return ``(segment, position)`` up to which everything was flushed before the log's last record was written."""
    return recovery.segment, recovery.rewrite if recovery.segment else HEADER_BYTES
