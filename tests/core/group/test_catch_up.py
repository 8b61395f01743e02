import pytest

from replicad.core.group.effects import BeginTransfer, InstallCheckpoint, SendChunk, WriteChunk
from replicad.core.journal.records import CheckpointRecord
from replicad.core.model import messages as m
from tests.core.group.rigs import HEARTBEAT, Rig, batch, epoch_of

N2 = epoch_of("n2")


def slots(first, *numbers, committed=0):
    entries = tuple((first + offset, N2, 0, batch(number)) for offset, number in enumerate(numbers))
    return m.Slots(first, committed or first + len(numbers) - 1, entries)


def follower(**fields):
    """A follower of n2, which says that slots up to 3 are committed."""
    rig = Rig(**fields)
    for _ in range(4):
        rig.follow("n2", committed=3)
        rig.wait(HEARTBEAT // 2)
    return rig


# --- asking and taking ----------------------------------------------------------------------------------------------


def test_missing_slots_are_asked_of_the_coordinator():
    """A follower that hears of committed slots which do not come asks for the first one that it lacks."""
    rig = follower()
    assert [(to, message.first) for to, message in rig.sent if isinstance(message, m.FetchSlots)] == [("n2", 1)]


def test_a_follower_that_lacks_nothing_asks_for_nothing():
    """Slots that arrive within a heartbeat are no gap."""
    rig = Rig()
    for slot in range(1, 6):
        rig.step("n2", m.Accept(N2, 1, slot, slot - 1, (batch(slot),)))
        rig.follow("n2", committed=slot)
        rig.wait(HEARTBEAT)
    assert rig.of(m.FetchSlots) == []


def test_fetched_slots_are_committed_logged_and_applied_in_order():
    """What a peer serves is committed; it is logged as decided before it is applied."""
    rig = follower(flushing=False)
    rig.step("n2", slots(1, 11, 12, 13))
    assert rig.replica.committed == 3
    assert [(record.slot, record.decided) for record in rig.records if hasattr(record, "decided")] == [
        (1, True),
        (2, True),
        (3, True),
    ]
    assert rig.applied == []
    rig.flush()
    assert rig.applied == [(1, batch(11)), (2, batch(12)), (3, batch(13))]


def test_slots_after_a_hole_are_not_taken():
    """Slots are committed in order, whatever a peer sends."""
    rig = follower()
    rig.step("n2", slots(2, 12, 13))
    assert rig.replica.committed == 0
    assert rig.applied == []


def test_the_next_page_is_asked_for_at_once():
    """A long absence is made up for page by page, without a pause in between."""
    rig = follower()
    rig.take_sent()
    sent = rig.step("n2", slots(1, 11, committed=3))
    assert ("n2", m.FetchSlots(2)) in sent


def test_a_value_accepted_at_a_lower_ballot_is_replaced_by_the_committed_one():
    """What was decided elsewhere wins over what was only accepted here (C3)."""
    rig = follower(entries=[(1, epoch_of("n3"), batch(99))])
    rig.step("n2", slots(1, 11))
    assert rig.applied == [(1, batch(11))]


# --- serving (C2) ---------------------------------------------------------------------------------------------------


def holder(committed):
    return Rig("n2", entries=[(slot, N2, batch(slot)) for slot in range(1, 6)], committed=committed)


@pytest.mark.parametrize(("first", "served"), [(1, [1, 2, 3]), (3, [3])])
def test_only_committed_slots_are_served(first, served):
    """A slot that is accepted and not committed never leaves as an answer to FetchSlots (C2)."""
    [(to, answer)] = holder(3).step("n3", m.FetchSlots(first))
    assert to == "n3"
    assert [entry[0] for entry in answer.entries] == served
    assert answer.committed == 3


def test_nothing_is_served_above_the_committed_prefix():
    """Who asks for what is not committed yet gets no answer."""
    assert holder(3).step("n3", m.FetchSlots(4)) == []


def truncated():
    """A holder that has let slots 1 to 3 go under a committed checkpoint."""
    rig = Rig("n2")
    rig.take(rig.replica.installed(3, b"d" * 16, b"", [], rig.now))
    return rig


def test_truncated_slots_are_answered_with_the_checkpoint():
    """Who asks for slots that are gone is told which checkpoint to take instead."""
    [(_, answer)] = truncated().step("n3", m.FetchSlots(2))
    assert answer == m.Truncated(2, 3, 3)


def test_bytes_of_a_checkpoint_are_served_from_any_offset():
    """The driver is asked for the bytes; a checkpoint that is not held here is answered with nothing."""
    rig = truncated()
    rig.step("n3", m.FetchCheckpoint(3, 100))
    assert rig.transfers[-1] == SendChunk("n3", 3, 100)
    assert rig.step("n3", m.FetchCheckpoint(9, 0)) == [("n3", m.CheckpointChunk(9, 0, 0, b""))]


def test_a_replica_that_rebuilds_itself_serves_nothing():
    """A state that may be wrong is not passed on (K3)."""
    rig = Rig("n2", rebuild=True, entries=[(1, N2, batch(1))], committed=1)
    assert rig.step("n3", m.FetchSlots(1)) == []


# --- transfers ------------------------------------------------------------------------------------------------------


def transferring():
    rig = follower()
    rig.step("n2", m.Truncated(1, 3, 3))
    rig.take_sent()
    return rig


def test_a_transfer_goes_on_byte_by_byte_in_order():
    """Chunks are asked for one after the other, written in order, and installed when all are there."""
    rig = follower()
    assert ("n2", m.FetchCheckpoint(3, 0)) in rig.step("n2", m.Truncated(1, 3, 3))
    assert rig.step("n2", m.CheckpointChunk(3, 0, 5, b"abc")) == [("n2", m.FetchCheckpoint(3, 3))]
    rig.step("n2", m.CheckpointChunk(3, 3, 5, b"de"))
    assert rig.transfers == [
        BeginTransfer(3),
        WriteChunk(3, 0, b"abc"),
        WriteChunk(3, 3, b"de"),
        InstallCheckpoint(3),
    ]


@pytest.mark.parametrize(
    ("sender", "chunk"),
    [
        ("n3", m.CheckpointChunk(3, 0, 5, b"abc")),
        ("n2", m.CheckpointChunk(4, 0, 5, b"abc")),
        ("n2", m.CheckpointChunk(3, 1, 5, b"abc")),
    ],
    ids=["another sender", "another checkpoint", "another offset"],
)
def test_a_chunk_that_was_not_asked_for_is_dropped(sender, chunk):
    """Late and duplicated chunks change nothing."""
    rig = transferring()
    rig.step(sender, chunk)
    assert rig.transfers == [BeginTransfer(3)]


def test_an_installed_checkpoint_is_the_new_beginning():
    """The replica stands at the checkpoint's slot, records it, and goes on from there."""
    rig = transferring()
    rig.step("n2", m.CheckpointChunk(3, 0, 3, b"abc"))
    rig.take(rig.replica.installed(3, b"d" * 16, b"", [], rig.now))
    assert CheckpointRecord(3, b"d" * 16) in rig.records
    assert (rig.replica.committed, rig.replica.applied) == (3, 3)
    rig.step("n2", m.Accept(N2, 1, 4, 4, (batch(4),)))
    assert rig.applied == [(4, batch(4))]


def test_a_transfer_whose_source_lost_the_file_begins_anew():
    """When the checkpoint is gone at the source, the replica asks for slots again."""
    rig = transferring()
    rig.step("n2", m.CheckpointChunk(3, 0, 0, b""))
    for _ in range(6):
        rig.follow("n2", committed=3)
        rig.wait(HEARTBEAT)
    assert ("n2", m.FetchSlots(1)) in rig.sent
    assert not any(isinstance(effect, InstallCheckpoint) for effect in rig.transfers)


def test_a_transfer_that_does_not_verify_begins_anew():
    """Damaged bytes are never installed: the transfer starts over."""
    rig = transferring()
    rig.step("n2", m.CheckpointChunk(3, 0, 3, b"abc"))
    rig.take(rig.replica.install_failed(3, rig.now))
    rig.take_sent()
    for _ in range(6):
        rig.follow("n2", committed=3)
        rig.wait(HEARTBEAT)
    assert ("n2", m.FetchSlots(1)) in rig.sent
    assert rig.replica.applied == 0
