"""Writer and recovery together: what was flushed comes back, wherever the segments end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.journal.records import (
    CheckpointRecord,
    EntryRecord,
    FormationRecord,
    PromiseRecord,
    SlotPromiseRecord,
    WatermarkRecord,
)
from replicad.core.journal.recovery import DurableState, recover
from replicad.core.journal.segments import HEADER_BYTES, SEGMENT_BYTES_MIN, Ending, LogIdentity, encode_header
from replicad.core.journal.writer import SegmentWriter, live_records
from replicad.core.model.errors import DamageError

IDENTITY = LogIdentity("cluster", "n1", "0011223344556677")
SIZE = SEGMENT_BYTES_MIN
LARGE = 1_500_000


class Files:
    """Segments as byte arrays, written as the writer plans."""

    def __init__(self):
        self.segments = {}
        self.writer = SegmentWriter(size=SIZE)

    def flush(self, *records):
        """Append records and make them durable."""
        for write in self.writer.append([("g", record) for record in records]):
            self.create(write.segment)
            self.segments[write.segment][write.position : write.position + len(write.data)] = write.data
            self.writer.durable(write.segment, write.position + len(write.data))

    def create(self, number):
        """Create a segment if it is not there."""
        if number not in self.segments:
            self.segments[number] = bytearray(encode_header(IDENTITY, number, SIZE).ljust(SIZE, b"\0"))

    def recover(self, *, rebooted=False):
        """Recover from what is there."""
        return recover(sorted(self.segments.items()), IDENTITY, rebooted=rebooted)


def entry(slot, value=b"v", *, epoch=5, decided=False):
    """Return an entry."""
    return EntryRecord(slot, epoch, 0, decided, value)


def three_segments():
    """Return files with slots 1 to 6 in three segments."""
    files = Files()
    for slot in range(1, 7):
        files.flush(entry(slot, bytes([slot]) * LARGE))
    assert sorted(files.segments) == [1, 2, 3]
    return files


def test_a_log_across_segments_is_recovered_whole():
    """Every entry of every segment comes back, and the writer goes on at the end."""
    files = three_segments()
    recovery = files.recover()
    assert sorted(recovery.states["g"].entries) == [1, 2, 3, 4, 5, 6]
    assert recovery.states["g"].promised == 5
    assert (recovery.segment, recovery.position) == (files.writer.segment, files.writer.position)
    assert recovery.highest == files.writer.highest
    resumed = SegmentWriter.resume(recovery, size=SIZE)
    (write,) = resumed.append([("g", entry(7))])
    assert (write.segment, write.position) == (files.writer.segment, files.writer.position)


def test_one_append_may_fill_several_segments_each_with_one_write():
    """The writes come in order, one per segment."""
    writer = SegmentWriter(size=SIZE)
    writes = writer.append([("g", entry(slot, bytes(LARGE))) for slot in range(1, 7)])
    assert [write.segment for write in writes] == [1, 2, 3]
    assert all(write.position == HEADER_BYTES for write in writes)


def test_empty_segments_ahead_are_spares():
    """Segments that were created ahead of need do not hide the place where the log ends."""
    files = three_segments()
    files.create(4)
    recovery = files.recover()
    assert (recovery.segment, recovery.spares) == (3, 1)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda segments: segments.pop(2), "segment 2 of the message log is missing"),
        (lambda segments: segments.update({2: segments[1]}), "has the header of segment 1"),
        (lambda segments: segments.update({3: segments[3][:-1]}), "bytes, not"),
        (lambda segments: segments[2].__setitem__(slice(0, 1), b"x"), "does not begin with"),
        (lambda segments: segments[1].__setitem__(slice(9000, 9001), b"x"), "not merely cut short"),
        (lambda segments: segments[1].__setitem__(slice(HEADER_BYTES, SIZE), bytes(SIZE - HEADER_BYTES)), "is empty"),
        (lambda segments: segments[2].__setitem__(slice(HEADER_BYTES + 50, SIZE), bytes(SIZE)), "came after it"),
    ],
)
def test_damage_before_the_last_segment_is_named(harm, reason):
    """Missing, exchanged, shortened and broken segments are damage, each with its reason."""
    files = three_segments()
    harm(files.segments)
    if len(files.segments.get(2, bytes(SIZE))) != SIZE:
        files.segments[2] = files.segments[2][:SIZE]
    with pytest.raises(DamageError, match=reason):
        files.recover()


def test_a_log_of_another_disk_is_damage():
    """Segments that were copied from another data directory are not taken."""
    files = three_segments()
    with pytest.raises(DamageError, match="belongs to node 'n1'"):
        recover(sorted(files.segments.items()), IDENTITY._replace(disk="ff"), rebooted=False)


def test_a_committed_slot_that_the_log_lacks_is_damage():
    """The oldest segments cannot vanish unnoticed, although the sequence of the rest is without a gap."""
    files = three_segments()
    files.flush(WatermarkRecord(6))
    del files.segments[1]
    with pytest.raises(DamageError, match="slot 1 of group g is committed"):
        files.recover()


def test_segments_below_a_checkpoint_are_removable_and_the_rest_is_recovered():
    """After truncation, with the live records written again, nothing that is still needed is gone (rule K2)."""
    files = Files()
    files.flush(FormationRecord(b"initial"), PromiseRecord(9))
    for slot in range(1, 7):
        files.flush(entry(slot, bytes([slot]) * LARGE))
    files.flush(WatermarkRecord(6))
    assert files.writer.removable({"g": 4}) == []  # the group has recorded no checkpoint
    files.flush(CheckpointRecord(4, b"d" * 16))
    assert files.writer.removable({}) == []
    assert files.writer.removable({"g": 3}) == [1]
    numbers = files.writer.removable({"g": 6})
    assert numbers == [1, 2]  # never above the checkpoint, never the current one
    files.flush(*(record for _, record in files.writer.live_records()))
    for number in numbers:
        del files.segments[number]
    files.writer.removed(numbers)
    state = files.recover().states["g"]
    assert (state.formation, state.promised, state.committed) == (b"initial", 9, 6)
    assert state.checkpoint == CheckpointRecord(4, b"d" * 16)
    assert sorted(state.entries) == [5, 6]


def test_entries_up_to_the_checkpoint_are_not_kept():
    """The checkpoint's file has what they say."""
    files = Files()
    files.flush(*(entry(slot) for slot in range(1, 11)), CheckpointRecord(8, b"d" * 16))
    assert sorted(files.recover().states["g"].entries) == [9, 10]


def test_the_latest_acceptance_counts_unless_the_slot_was_decided():
    """A later ballot replaces an earlier one, and nothing replaces a decided value."""
    state = DurableState()
    for record in (entry(1, b"a", epoch=1), entry(1, b"b", epoch=2), entry(2, b"c", epoch=2, decided=True)):
        state.replay(record)
    state.replay(entry(2, b"d", epoch=3))
    assert (state.entries[1].value, state.entries[2].value) == (b"b", b"c")
    assert state.promised == 3


def test_a_slot_promise_is_remembered_until_its_slot_is_checkpointed():
    """The highest one counts; it is a promise of its epoch, too (whoever promises a slot has promised all of them)."""
    state = DurableState()
    for record in (SlotPromiseRecord(3, 9, 2), SlotPromiseRecord(3, 9, 1), SlotPromiseRecord(7, 9, 1)):
        state.replay(record)
    assert state.slot_promises == {3: (9, 2), 7: (9, 1)}
    assert state.promised == 9
    state.replay(CheckpointRecord(3, b"d" * 16))
    assert state.slot_promises == {7: (9, 1)}


def test_a_segment_with_a_slot_promise_stays_until_the_slot_is_covered():
    """It is written once: were its segment removed, a late batch would be accepted after a restart (rules K2, A1)."""
    files = Files()
    files.flush(SlotPromiseRecord(9, 5, 1))
    for slot in range(1, 7):
        files.flush(entry(slot, bytes([slot]) * LARGE))
    files.flush(CheckpointRecord(6, b"d" * 16))
    assert files.writer.removable({"g": 6}) == []
    assert files.recover().states["g"].slot_promises == {9: (5, 1)}
    for slot in range(7, 11):
        files.flush(entry(slot, bytes([slot]) * LARGE))
    files.flush(CheckpointRecord(10, b"d" * 16))
    assert files.writer.removable({"g": 10})[:2] == [1, 2]
    assert files.recover().states["g"].slot_promises == {}


def test_a_recovered_segment_with_a_slot_promise_stays_as_well():
    """What keeps a segment is known again after a restart."""
    files = Files()
    files.flush(entry(1), SlotPromiseRecord(9, 5, 1))
    assert files.recover().highest == {1: {"g": 9}}


def test_live_records_restore_everything_but_entries():
    """Replaying them into nothing gives the same promises, formation, checkpoint and watermark."""
    state = DurableState(promised=7, committed=12, checkpoint=CheckpointRecord(10, b"d" * 16), formation=b"f")
    copy = DurableState()
    for record in live_records(state):
        copy.replay(record)
    assert copy == state
    assert live_records(DurableState()) == []


def test_room_is_counted_as_records_are_placed():
    """What `placeable` counts is what `append` then places without another segment, and the reserve stays free."""
    writer = SegmentWriter(size=SIZE)
    sizes = [LARGE] * 6
    assert writer.placeable(sizes, 0) == 2
    assert writer.placeable(sizes, 1) == 4
    assert writer.placeable(sizes, 2) == 6
    assert writer.placeable(sizes, 0, reserve=SIZE - LARGE) == 0
    assert writer.placeable(sizes, 1, reserve=SIZE - LARGE - HEADER_BYTES - 100) == 3
    assert writer.placeable([], 0, reserve=SIZE) == 0


@given(
    st.lists(st.lists(st.integers(1, 1_000_000), min_size=1, max_size=3), min_size=1, max_size=6),
    st.data(),
    st.booleans(),
)
def test_a_crash_at_any_byte_keeps_all_that_was_flushed(flushes, data, rebooted):
    """Flush by flush, with the last one cut anywhere: a prefix comes back, and after repair the log goes on."""
    files = Files()
    slot = 0
    for sizes in flushes[:-1]:
        files.flush(*(entry(slot + number, bytes([255]) * size) for number, size in enumerate(sizes, 1)))
        slot += len(sizes)
    writes = files.writer.append(
        [("g", entry(slot + number, b"z" * size)) for number, size in enumerate(flushes[-1], 1)]
    )
    write = writes[0]
    cut = data.draw(st.integers(0, len(write.data)))
    files.create(write.segment)
    files.segments[write.segment][write.position : write.position + cut] = write.data[:cut]
    recovery = files.recover(rebooted=rebooted)
    kept = sorted(recovery.states["g"].entries) if recovery.states else []
    assert kept == list(range(1, len(kept) + 1))
    assert len(kept) >= slot
    if recovery.ending is Ending.TORN:
        files.segments[recovery.segment][recovery.position : recovery.used] = bytes(recovery.used - recovery.position)
    files.writer = SegmentWriter.resume(recovery, size=SIZE)
    files.flush(entry(len(kept) + 1, b"next"))
    again = files.recover(rebooted=rebooted)
    assert again.ending is Ending.CLEAN
    assert sorted(again.states["g"].entries) == [*kept, len(kept) + 1]
