"""A replica whose log has a hole below its committed prefix must not become coordinator."""

from random import Random

from replicad.core.group.replica import Replica
from replicad.core.journal.records import CheckpointRecord, EntryRecord
from replicad.core.journal.recovery import DurableState
from replicad.core.model.configuration import Configuration
from replicad.core.model.limits import Limits
from replicad.core.model.operations import NOOP_BATCH


def replica(applied):
    """Return the only member of a group, with slots 11 to 20 in its log and a store at ``applied``."""
    durable = DurableState(
        promised=1_000_001,
        entries={slot: EntryRecord(slot, 1_000_001, 0, True, NOOP_BATCH) for slot in range(11, 21)},
        committed=20,
        checkpoint=CheckpointRecord(10, b"d" * 16),
        formation=Configuration.initial({"n1": "disk"}).encode(),
    )
    return Replica(
        node="n1",
        disk="disk",
        boot=1,
        members=("n1",),
        limits=Limits(),
        durable=durable,
        applied=applied,
        digest=b"d" * 16,
        configuration=b"",
        lost=False,
        rebuild=False,
        random=Random(1),
        now=0,
    )


def stands(applied):
    """Return whether it stands for election when its time has come."""
    one = replica(applied)
    one.start(0)
    one.tick(2_000_000)
    return one.role != "follower"


def test_a_replica_without_a_hole_stands():
    """Everything above its store is in its log."""
    assert stands(applied=10)


def test_a_replica_with_a_hole_does_not_stand():
    """Slots 6 to 10 are committed, and neither applied nor held."""
    assert not stands(applied=5)
