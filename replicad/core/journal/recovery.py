"""From a log's bytes back to what each group's replica must remember.

Segments are read one at a time, in order, so that memory holds one segment and the live entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from replicad.core.journal.records import (
    CheckpointRecord,
    DroppedRecord,
    EntryRecord,
    FormationRecord,
    PromiseRecord,
    Record,
    SlotPromiseRecord,
    WatermarkRecord,
)
from replicad.core.journal.segments import HEADER_BYTES, Ending, LogIdentity, ScanResult, decode_header, scan
from replicad.core.model.errors import DamageError


@dataclass(slots=True)
class DurableState:
    """What one group's replica has on disk.

    ``entries`` holds the value accepted last per slot, or the decided one. Entries up to the checkpoint's slot are
    dropped.
    """

    promised: int = 0
    entries: dict[int, EntryRecord] = field(default_factory=dict)
    committed: int = 0
    checkpoint: CheckpointRecord | None = None
    formation: bytes = b""
    slot_promises: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Slot -> the ``(epoch, round)`` that was promised for it alone."""

    def replay(self, record: Record) -> None:
        """Take in the next record of this group."""
        match record:
            case PromiseRecord():
                self.promised = max(self.promised, record.epoch)
            case SlotPromiseRecord(slot, epoch, round_):
                self.promised = max(self.promised, epoch)
                self.slot_promises[slot] = max((epoch, round_), self.slot_promises.get(slot, (0, 0)))
            case EntryRecord():
                self._replay_entry(record)
            case WatermarkRecord():
                self.committed = max(self.committed, record.committed)
            case CheckpointRecord():
                if self.checkpoint is None or record.slot > self.checkpoint.slot:
                    self.checkpoint = record
                    self.committed = max(self.committed, record.slot)
                    self.entries = {slot: entry for slot, entry in self.entries.items() if slot > record.slot}
                    self.slot_promises = {s: ballot for s, ballot in self.slot_promises.items() if s > record.slot}
            case FormationRecord():
                self.formation = record.configuration

    def _replay_entry(self, record: EntryRecord) -> None:
        if not record.decided:
            # Whoever accepts at an epoch has promised it (rule A1). A decided value may have been learnt instead.
            self.promised = max(self.promised, record.epoch)
        if self.checkpoint is not None and record.slot <= self.checkpoint.slot:
            return
        known = self.entries.get(record.slot)
        if known is None or record.decided or not known.decided:
            self.entries[record.slot] = record

    def missing_slot(self) -> int:
        """Return the first committed slot above the checkpoint whose value is not here, or 0."""
        first = self.checkpoint.slot + 1 if self.checkpoint is not None else 1
        for slot in range(first, self.committed + 1):
            if slot not in self.entries:
                return slot
        return 0


@dataclass(slots=True)
class Recovery:
    """What a log holds, and where it goes on.

    Before anything is appended, whoever owns the files zeroes ``[position, used)`` of ``segment`` from its end to its
    beginning (a torn tail may hold whole records that must never come back), writes ``[rewrite, position)`` again and
    flushes: those bytes may be in the machine's memory only, even after a flush that failed.
    """

    states: dict[str, DurableState] = field(default_factory=dict)
    segment: int = 0
    """Where the next record goes; 0: there is no segment yet."""
    position: int = HEADER_BYTES
    size: int = 0
    """Bytes of that segment."""
    used: int = HEADER_BYTES
    rewrite: int = HEADER_BYTES
    spares: int = 0
    """Empty segments that follow."""
    ending: Ending = Ending.CLEAN
    reason: str = ""
    highest: dict[int, dict[str, int]] = field(default_factory=dict)
    """Segment -> group -> highest slot of an entry there."""
    records: int = 0


def recover(segments: Iterable[tuple[int, bytes | bytearray]], identity: LogIdentity, *, rebooted: bool) -> Recovery:
    """Return what ``(number, bytes)`` of all segments, in order of their numbers, hold.

    ``rebooted``: see :func:`segments.scan`. Raises DamageError for anything but a clean end or a last record that was
    cut short, and FormatError for a log of an unknown version.
    """
    recovery = Recovery()
    previous = 0
    for number, data in segments:
        if previous and number != previous + 1:
            raise DamageError(f"segment {previous + 1} of the message log is missing: segment {number} is there")
        previous = number
        check_header(number, data, identity)
        _take(recovery, number, len(data), scan(data, number, rebooted=rebooted))
    for group, state in recovery.states.items():
        missing = state.missing_slot()
        if missing:
            raise DamageError(f"slot {missing} of group {group} is committed, and the message log does not hold it")
    return recovery


def check_header(number: int, data: bytes | bytearray, identity: LogIdentity | None) -> None:
    """Raise DamageError unless the segment's header is right and the bytes are complete (identity None: any)."""
    header = decode_header(data)
    if header.segment != number:
        raise DamageError(f"segment {number} of the message log has the header of segment {header.segment}")
    if identity is not None and header.identity != identity:
        raise DamageError(
            f"segment {number} of the message log belongs to {_owner(header.identity)}, not to {_owner(identity)}"
        )
    if header.size != len(data):
        raise DamageError(f"segment {number} of the message log has {len(data)} bytes, not {header.size}")


def _owner(identity: LogIdentity) -> str:
    return f"node {identity.node!r} of cluster {identity.cluster!r} with disk id {identity.disk}"


def _take(recovery: Recovery, number: int, size: int, result: ScanResult) -> None:
    """Add the next segment."""
    if result.ending is Ending.DAMAGED:
        raise DamageError(result.reason)
    empty = result.used == HEADER_BYTES
    if recovery.segment and empty:
        recovery.spares += 1
        return
    if recovery.ending is Ending.TORN:
        raise DamageError(f"{recovery.reason}, yet segment {number} holds records that came after it")
    if recovery.spares or (recovery.segment and recovery.position == HEADER_BYTES):
        raise DamageError(f"segment {number - 1} of the message log is empty, yet segment {number} holds records")
    recovery.segment, recovery.size = number, size
    recovery.position, recovery.used, recovery.rewrite = result.end, result.used, result.flushed
    recovery.ending, recovery.reason = result.ending, result.reason
    recovery.records += len(result.records)
    highest = recovery.highest.setdefault(number, {})
    for group, record, _ in result.records:
        if type(record) is DroppedRecord:
            recovery.states.pop(group, None)
            for slots in recovery.highest.values():
                slots.pop(group, None)
            continue
        state = recovery.states.get(group)
        if state is None:
            state = recovery.states[group] = DurableState()
        state.replay(record)
        if isinstance(record, EntryRecord | SlotPromiseRecord):
            highest[group] = max(highest.get(group, 0), record.slot)
