"""A group that was dropped from a disk: its records neither count nor keep segments."""

from replicad.core.journal.records import (
    CheckpointRecord,
    DroppedRecord,
    EntryRecord,
    FormationRecord,
    PromiseRecord,
    WatermarkRecord,
)
from replicad.core.journal.recovery import recover
from replicad.core.journal.segments import SEGMENT_BYTES_MIN, LogIdentity, encode_header
from replicad.core.journal.writer import SegmentWriter

IDENTITY = LogIdentity("c", "n1", "d1")


def written(*batches):
    """Return a writer and the bytes of its segments after these batches of records."""
    writer = SegmentWriter(size=SEGMENT_BYTES_MIN)
    files = {}
    for records in batches:
        for segment, position, data in writer.append(records):
            file = files.setdefault(segment, bytearray(SEGMENT_BYTES_MIN))
            file[position : position + len(data)] = data
            header = encode_header(IDENTITY, segment, SEGMENT_BYTES_MIN)
            file[: len(header)] = header
            writer.durable(segment, position + len(data))
    return writer, files


def big(group, slot):
    """Return a record that fills most of a segment."""
    return [(group, EntryRecord(slot, 1, 0, True, bytes(3 << 20)))]


def test_a_dropped_group_keeps_no_segment():
    """Its entries pin the log until it is dropped; after that they do not, and nothing of it is written again."""
    writer, _ = written(big("a", 1), big("b", 1), [("b", CheckpointRecord(1, b"d"))], big("b", 2))
    assert writer.pinning({"b": 1}) == ["a"]
    assert writer.removable({"b": 1}) == []
    writer.append([("a", DroppedRecord())])
    assert writer.pinning({"b": 1}) == []
    assert writer.removable({"b": 1}) == [1, 2]
    assert {group for group, _ in writer.live_records()} == {"b"}


def test_a_dropped_group_is_not_recovered():
    """What remains of it in the log is no damage, although its first slots are gone; a later life counts."""
    dropped = [("a", FormationRecord(b"f")), ("a", PromiseRecord(9)), ("a", WatermarkRecord(2))]
    _, files = written(big("a", 1), big("a", 2), [*dropped, ("a", DroppedRecord())], big("b", 1))
    del files[1]
    recovery = recover(sorted(files.items()), IDENTITY, rebooted=False)
    assert list(recovery.states) == ["b"]
    assert all("a" not in slots for slots in recovery.highest.values())
    _, files = written([*dropped, ("a", DroppedRecord()), ("a", PromiseRecord(3))])
    assert recover(sorted(files.items()), IDENTITY, rebooted=False).states["a"].promised == 3
