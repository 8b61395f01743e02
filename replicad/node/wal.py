"""The message log on a real disk: one writer thread, one write and one flush for whatever is queued.

A failed write or flush stops the log for good: what the disk then holds is unknown, so nothing is written after it. A
full disk does not: the node is told early, while the current segment still has room for what is on its way, and a part
of that room is kept for promises.
"""

from __future__ import annotations

import asyncio
import errno
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from replicad.core.journal.records import DroppedRecord, PromiseRecord, Record
from replicad.core.journal.recovery import Recovery, recover
from replicad.core.journal.segments import FRAME_BYTES, SEGMENT_BYTES, LogIdentity, encode_record
from replicad.core.journal.space import Space
from replicad.core.journal.startup import Action, LogFound, adopt_promises, judge_log
from replicad.core.journal.writer import SegmentWriter
from replicad.core.model.errors import DamageError, InvariantError
from replicad.node.disk_operations import DiskOperations
from replicad.node.promise_file import PromiseFile
from replicad.node.segment_files import SegmentFiles

RESERVE_BYTES = 1024 * 1024
FULL_RETRY_SECONDS = 1.0
BATCH_BYTES = 4 * 1024 * 1024
"""One write and its flush take appends until they are at least so large together."""

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})
"""What may pass: no space, or no file descriptors (many connections). The node refuses writes until then."""


class _Append(NamedTuple):
    records: Sequence[tuple[str, Record]]
    ticket: int
    reserved: bool


class _Truncate(NamedTuple):
    slots: Mapping[str, int]


class _Close(NamedTuple):
    pass


class _Pending(NamedTuple):
    """One encoded record that waits for its place; ``ticket`` is set on the last of its append."""

    group: str
    record: Record
    payload: bytes
    ticket: int
    reserved: bool


class _Flush(NamedTuple):
    ticket: int
    seconds: float
    size: int
    records: int


class Callbacks(NamedTuple):
    """What the log tells its node; all are called on the loop's thread.

    ``on_durable(ticket)``: everything appended up to this ticket is on disk. ``on_failure(reason)``: once, the last
    thing ever heard. ``on_full(full)``: stop, or go on, giving it more than promises. ``on_flush(seconds, bytes,
    records)``: one write and its flush took so long.
    """

    on_durable: Callable[[int], None]
    on_failure: Callable[[str], None]
    on_full: Callable[[bool], None] = lambda _full: None
    on_flush: Callable[[float, int, int], None] = lambda _seconds, _size, _records: None


class MessageLog:
    """The log of one node, shared by all its groups. Opening recovers it (blocking); :meth:`start` lets it write."""

    def __init__(
        self,
        directory: Path,
        identity: LogIdentity,
        *,
        rebooted: bool,
        started_before: bool,
        segment_bytes: int = SEGMENT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
        full_retry_seconds: float = FULL_RETRY_SECONDS,
        disk: DiskOperations | None = None,
    ) -> None:
        """Recover ``directory/wal`` and ``directory/promise``; the result is :attr:`recovery`.

        ``rebooted``: see ``core.journal.recovery.recover``. ``started_before``: this disk id has run already, so an
        empty log is damage. Raises DamageError, FormatError and OSError.
        """
        disk = disk or DiskOperations()
        self._files = SegmentFiles(directory / "wal", identity, disk)
        self._promise_file = PromiseFile(directory / "promise", identity, disk)
        self._segment_bytes = segment_bytes
        self._reserve_bytes = reserve_bytes
        self._retry_seconds = full_retry_seconds
        self.recovery = self._recover(identity, rebooted=rebooted, started_before=started_before)
        self._writer = SegmentWriter.resume(self.recovery, size=segment_bytes)
        self._space = Space(self.recovery.spares)
        self._queue: queue.SimpleQueue[_Append | _Truncate | _Close] = queue.SimpleQueue()
        self._pending: deque[_Pending] = deque()
        self._truncated: dict[str, int] = {}
        self._truncation_due = False
        self._closing = False
        self._told_full = False
        self._failed = ""
        self._flushes: deque[_Flush] = deque()
        self._delivery_due = False
        self._flushing_since = 0.0
        self._flush_count = 0
        self._pinning: tuple[str, ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._callbacks: Callbacks | None = None
        self._thread = threading.Thread(target=self._run, name="replicad-wal", daemon=True)

    # --- the loop's side --------------------------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop, callbacks: Callbacks) -> None:
        """Start the writer thread; ``callbacks`` are called on ``loop``."""
        self._loop, self._callbacks = loop, callbacks
        self._thread.start()

    def append(self, records: Sequence[tuple[str, Record]], ticket: int, *, reserved: bool = False) -> None:
        """Queue records; never blocks. Tickets rise. ``reserved``: these may use the space kept for promises."""
        if not self._failed:
            self._queue.put(_Append(records, ticket, reserved))

    def truncate(self, slots: Mapping[str, int]) -> None:
        """Remove the segments that hold nothing above each group's given slot, after all that was appended so far.

        What else they hold and is still needed (promises, formations, checkpoints, watermarks of all groups) is
        written again and flushed first (rule K2). Entries above a group's last CheckpointRecord are never removed.
        """
        self._queue.put(_Truncate(dict(slots)))

    def close(self) -> None:
        """Flush what is queued (unless the disk is full or has failed), and end the thread. Blocks."""
        if self._thread.is_alive():
            self._queue.put(_Close())
            self._thread.join()
        self._files.close()
        self._promise_file.close()

    def stats(self) -> dict[str, object]:
        """Return figures for status pages; ``flushing_seconds`` is the age of the flush that is under way (0: none)."""
        since = self._flushing_since
        return {
            "segment": self._writer.segment,
            "position": self._writer.position,
            "segments": len(self._writer.highest) + self._space.spares,
            "queued": self._queue.qsize() + len(self._pending),
            "flushes": self._flush_count,
            "flushing_seconds": time.monotonic() - since if since else 0.0,
            "full": self._told_full,
            "failed": self._failed,
        }

    def pinning(self) -> tuple[str, ...]:
        """Return the groups that keep the oldest of several segments: a checkpoint of theirs would let it go."""
        return self._pinning

    # --- opening ----------------------------------------------------------------------------------------------------

    def _recover(self, identity: LogIdentity, *, rebooted: bool, started_before: bool) -> Recovery:
        self._files.tidy()
        recovery = recover(self._files.read_all(), identity, rebooted=rebooted)
        gone = not recovery.segment and started_before
        promises = {} if gone else self._promise_file.load()  # which would make the file anew
        found = LogFound(recovery, "", promises, started_before, rebooted)
        decision = judge_log(found)
        if decision.action is Action.SET_ASIDE:
            raise DamageError(decision.reason)
        adopt_promises(recovery, promises)
        if not recovery.segment:
            self._files.create(1, self._segment_bytes)
        self._files.put_right(recovery)
        return recovery

    # --- the thread's side ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._remove_surplus()
            self._see_to_space()
            while not self._closing:
                self._turn()
        except (OSError, ValueError, InvariantError) as error:
            self._fail(f"the message log cannot be written: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, a log that silently stopped would hang the node
            self._fail(f"a bug in the message log: {error!r}")

    def _turn(self) -> None:
        """Take what is queued, write it, and see to the next segment."""
        self._gather()
        self._write_pending()
        if self._truncation_due:
            self._truncation_due = bool(self._pending)
            self._remove_segments()
        if not self._closing:
            self._see_to_space()

    def _gather(self) -> None:
        """Wait for work (or, with a full disk, for the next try) and take what is there, up to a full batch.

        A bound is needed: a node that appends as fast as this takes would never see anything written.
        """
        size = 0
        wait = None
        if self._told_full:
            wait = self._retry_seconds
        elif self._pending:
            wait = 0  # there was no room for them, and meanwhile there is
        try:
            item = self._queue.get(timeout=wait)
            while True:
                match item:
                    case _Append():
                        size += self._take(item)
                    case _Truncate():
                        self._truncated.update(item.slots)
                        self._truncation_due = True
                        return
                    case _Close():
                        self._closing = True
                        return
                if size >= BATCH_BYTES:
                    return
                item = self._queue.get_nowait()
        except queue.Empty:
            return

    def _take(self, item: _Append) -> int:
        """Encode one append; return its bytes, framing included."""
        last = len(item.records) - 1
        size = 0
        for number, (group, record) in enumerate(item.records):
            payload = encode_record(group, record)
            size += len(payload) + FRAME_BYTES
            self._pending.append(_Pending(group, record, payload, item.ticket if number == last else 0, item.reserved))
        return size

    def _write_pending(self) -> None:
        """Write as many pending records as there is room for."""
        while self._pending:
            count = self._make_room()
            if not count:
                return
            self._write([self._pending.popleft() for _ in range(count)])

    def _make_room(self) -> int:
        """Return how many of the pending records have a place, after creating segments if need be."""
        # A promise at the back must not wait for records in front of it that only lack the space kept for promises.
        reserve = 0 if any(item.reserved for item in self._pending) else self._reserve_bytes
        sizes = [len(item.payload) for item in self._pending]
        while True:
            count = self._writer.placeable(sizes, self._space.spares, reserve)
            if count == len(sizes) or not self._prepare_spare():
                return count

    def _write(self, items: list[_Pending]) -> None:
        """Write and flush these records, and report it."""
        before = self._writer.segment
        writes = self._writer.append([(item.group, item.record) for item in items], [item.payload for item in items])
        self._space.used(self._writer.segment - before)
        begin = self._flushing_since = time.monotonic()
        for write in writes:
            self._files.execute(write)
            self._writer.durable(write.segment, write.position + len(write.data))
        if any(type(item.record) in {PromiseRecord, DroppedRecord} for item in items):
            self._promise_file.store({group: state.promised for group, state in sorted(self._writer.live.items())})
        seconds = time.monotonic() - begin
        self._flushing_since = 0.0
        self._flush_count += 1
        if self._writer.segment != before:
            self._files.release(self._writer.segment)
            self._pinning = tuple(self._writer.pinning(self._truncated))
        ticket = max(item.ticket for item in items)
        self._report(_Flush(ticket, seconds, sum(len(write.data) for write in writes), len(items)))

    def _prepare_spare(self) -> bool:
        """Create the next segment ahead of need; return whether there was space."""
        try:
            self._files.create(self._writer.segment + self._space.spares + 1, self._segment_bytes)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._space.refused()
            self._tell_full()
            return False
        self._space.made()
        self._tell_full()
        return True

    def _see_to_space(self) -> None:
        """Make what is lacking; what waited may have been written meanwhile, so that nothing is."""
        if self._space.lacks(waiting=bool(self._pending)):
            self._prepare_spare()
        self._tell_full()

    def _remove_surplus(self) -> None:
        """Remove empty segments that an earlier process made in vain, the last one first."""
        for _ in range(self._space.surplus()):
            self._files.remove(self._writer.segment + self._space.spares)
            self._space.removed(1)

    def _remove_segments(self) -> None:
        """Remove the segments that nobody needs, once what they say beside entries is written again (rule K2)."""
        numbers = self._writer.removable(self._truncated)
        if not numbers:
            self._pinning = tuple(self._writer.pinning(self._truncated))
            return
        live = [
            _Pending(group, record, encode_record(group, record), 0, reserved=True)
            for group, record in self._writer.live_records()
        ]
        if self._writer.placeable([len(item.payload) for item in live], self._space.spares) < len(live):
            return  # not even the space kept for promises holds them
        self._write(live)
        for number in numbers:
            self._files.remove(number)
        self._writer.removed(numbers)
        self._pinning = tuple(self._writer.pinning(self._truncated))

    # --- reports to the loop ----------------------------------------------------------------------------------------

    def _report(self, flush: _Flush) -> None:
        self._flushes.append(flush)
        if not self._delivery_due:
            self._delivery_due = True
            self._call(self._deliver)

    def _deliver(self) -> None:
        """On the loop: report all flushes so far, with the highest ticket only."""
        self._delivery_due = False
        ticket = 0
        callbacks = self._callbacks
        while self._flushes and callbacks is not None:
            flush = self._flushes.popleft()
            ticket = max(ticket, flush.ticket)
            callbacks.on_flush(flush.seconds, flush.size, flush.records)
        if ticket and callbacks is not None:
            callbacks.on_durable(ticket)

    def _tell_full(self) -> None:
        full = self._space.full(waiting=bool(self._pending))
        if full != self._told_full and self._callbacks is not None:
            self._told_full = full
            self._call(self._callbacks.on_full, full)

    def _fail(self, reason: str) -> None:
        self._failed = reason
        self._pending.clear()
        if self._callbacks is not None:
            self._call(self._callbacks.on_failure, reason)

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call on the loop; a loop that is closed already wants to hear nothing."""
        if self._loop is not None and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(callback, *arguments)
            except RuntimeError:
                if not self._loop.is_closed():
                    raise
