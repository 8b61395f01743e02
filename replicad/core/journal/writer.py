"""Where the bytes of new records go, and which segments may be removed. Pure: whoever owns the files writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from replicad.core.journal.records import (
    DroppedRecord,
    EntryRecord,
    FormationRecord,
    PromiseRecord,
    Record,
    SlotPromiseRecord,
    WatermarkRecord,
)
from replicad.core.journal.recovery import DurableState, Recovery
from replicad.core.journal.segments import (
    FRAME_BYTES,
    HEADER_BYTES,
    SEGMENT_BYTES,
    SEGMENT_BYTES_MIN,
    encode_record,
    frame,
)
from replicad.core.model.errors import check


class Write(NamedTuple):
    """Bytes to write to one segment. The segments before it must be durable first."""

    segment: int
    position: int
    data: bytes


class SegmentWriter:
    """Plans the writes of one log.

    ``segment`` and ``position`` say where the next record goes. The owner creates segment ``n + 1`` (header, zeros)
    before it executes a write to it, executes the writes in order, makes each durable before it starts one to another
    segment, and says with :meth:`durable` what it made durable.
    """

    def __init__(self, segment: int = 1, *, size: int = SEGMENT_BYTES) -> None:
        check(size >= SEGMENT_BYTES_MIN, f"a segment has at least {SEGMENT_BYTES_MIN} bytes")
        self.segment = segment
        self.position = HEADER_BYTES
        self.current_size = size
        self.live: dict[str, DurableState] = {}
        """What must be written again before segments go (rule K2), without entries."""
        self.highest: dict[int, dict[str, int]] = {segment: {}}
        """Segment -> group -> highest slot of an entry there, for all segments that hold records."""
        self._size = size
        self._flushed = HEADER_BYTES

    @classmethod
    def resume(cls, recovery: Recovery, *, size: int = SEGMENT_BYTES) -> SegmentWriter:
        """Return the writer that goes on where a recovered log ends, the files having been put right."""
        writer = cls(recovery.segment or 1, size=size)
        if recovery.segment:
            writer.position = writer._flushed = recovery.position
            writer.current_size = recovery.size
            writer.highest.update(recovery.highest)
        writer.live = {
            group: DurableState(
                promised=state.promised,
                committed=state.committed,
                checkpoint=state.checkpoint,
                formation=state.formation,
            )
            for group, state in recovery.states.items()
        }
        return writer

    def placeable(self, payload_bytes: Sequence[int], segments: int, reserve: int = 0) -> int:
        """Return how many of the next records, of these payload sizes, fit.

        ``segments`` further segments exist; in the last of all, ``reserve`` bytes are to stay free.
        """
        room = self.current_size - self.position
        for count, length in enumerate(payload_bytes):
            needed = length + FRAME_BYTES
            while needed > room - (0 if segments else reserve):
                if not segments:
                    return count
                segments -= 1
                room = self._size - HEADER_BYTES
            room -= needed
        return len(payload_bytes)

    def append(self, records: Sequence[tuple[str, Record]], payloads: Sequence[bytes] | None = None) -> list[Write]:
        """Return the writes that add these records, at most one per segment, in the order of execution.

        ``payloads``: the records as :func:`encode_record` gave them, if that was done already.
        """
        writes: list[Write] = []
        parts: list[bytes] = []
        begin = self.position
        encoded = payloads if payloads is not None else [encode_record(group, record) for group, record in records]
        for (group, record), payload in zip(records, encoded, strict=True):
            if self.position + len(payload) + FRAME_BYTES > self.current_size:
                if parts:
                    writes.append(Write(self.segment, begin, b"".join(parts)))
                    parts = []
                self._roll()
                begin = self.position
            parts.append(frame(payload, self.segment, self.position, self._flushed))
            self.position += len(payload) + FRAME_BYTES
            self._remember(group, record)
        if parts:
            writes.append(Write(self.segment, begin, b"".join(parts)))
        return writes

    def durable(self, segment: int, position: int) -> None:
        """Note that everything before this place is durable. Later records bear witness to it (see ``segments``)."""
        if segment == self.segment:
            check(self._flushed <= position <= self.position, "what was flushed had been written before")
            self._flushed = position

    def removable(self, truncated: Mapping[str, int]) -> list[int]:
        """Return the oldest segments that may go when each group's log is truncated up to (with) the given slot.

        That is every segment before the current one, from the oldest on, without an entry above its group's slot. A
        group that is not named keeps all its entries, and none goes that is not covered by a recorded checkpoint.
        :meth:`live_records` must be durable before they go.
        """
        numbers: list[int] = []
        for number in sorted(self.highest):
            if number == self.segment:
                break
            if any(slot > self._covered(group, truncated) for group, slot in self.highest[number].items()):
                break
            numbers.append(number)
        return numbers

    def removed(self, numbers: Sequence[int]) -> None:
        """Note that these segments are gone."""
        for number in numbers:
            check(number != self.segment, "the current segment stays")
            del self.highest[number]

    def live_records(self) -> list[tuple[str, Record]]:
        """Return what all groups' records say that does not depend on a slot (rule K2)."""
        return [(group, record) for group in sorted(self.live) for record in live_records(self.live[group])]

    def _covered(self, group: str, truncated: Mapping[str, int]) -> int:
        checkpoint = self.live[group].checkpoint
        return min(truncated.get(group, 0), checkpoint.slot) if checkpoint is not None else 0

    def _roll(self) -> None:
        self.segment += 1
        self.position = self._flushed = HEADER_BYTES
        self.current_size = self._size
        self.highest[self.segment] = {}

    def pinning(self, truncated: Mapping[str, int]) -> list[str]:
        """Return the groups that keep the oldest segment, if that is not the current one."""
        oldest = min(self.highest)
        if oldest == self.segment:
            return []
        return [group for group, slot in self.highest[oldest].items() if slot > self._covered(group, truncated)]

    def _remember(self, group: str, record: Record) -> None:
        if type(record) is DroppedRecord:
            self.live.pop(group, None)
            for slots in self.highest.values():
                slots.pop(group, None)
            return
        state = self.live.get(group)
        if state is None:
            state = self.live[group] = DurableState()
        if type(record) is EntryRecord:
            if not record.decided and record.epoch > state.promised:
                state.promised = record.epoch
            highest = self.highest[self.segment]
            if record.slot > highest.get(group, 0):
                highest[group] = record.slot
        else:
            if type(record) is SlotPromiseRecord:
                highest = self.highest[self.segment]
                highest[group] = max(highest.get(group, 0), record.slot)
            state.replay(record)


def live_records(state: DurableState) -> list[Record]:
    """Return the records that say again what ``state`` holds besides entries."""
    records: list[Record] = []
    if state.formation:
        records.append(FormationRecord(state.formation))
    if state.promised:
        records.append(PromiseRecord(state.promised))
    if state.checkpoint is not None:
        records.append(state.checkpoint)
    if state.committed:
        records.append(WatermarkRecord(state.committed))
    return records
