import pytest

from replicad.core.detection.patience import Patience
from replicad.core.group.effects import (
    BeginTransfer,
    CheckpointCommitted,
    InstallCheckpoint,
    KeepCheckpoint,
    SendChunk,
    WriteChunk,
)
from replicad.core.journal.records import CheckpointRecord
from replicad.core.model import messages as m
from tests.core.group.rigs import (
    HEARTBEAT,
    TICK,
    Rig,
    batch,
    configuration_of,
    durable_state,
    epoch_of,
    operation,
)

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
    entries = [(slot, N2, batch(slot)) for slot in range(1, 6)]
    rig = Rig("n2", entries=entries, committed=committed, promised=epoch_of("n3", 2))
    rig.wait(TICK)
    rig.step("n3", m.DigestCompared(7, committed, bytes(16)))
    assert rig.replica.state.serves
    return rig


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
    """Chunks are asked for one after the other, written in order, and kept when all are there."""
    rig = follower()
    assert ("n2", m.FetchCheckpoint(3, 0)) in rig.step("n2", m.Truncated(1, 3, 3))
    assert rig.step("n2", m.CheckpointChunk(3, 0, 5, b"abc")) == [("n2", m.FetchCheckpoint(3, 3))]
    rig.step("n2", m.CheckpointChunk(3, 3, 5, b"de"))
    assert rig.transfers == [
        BeginTransfer(3),
        WriteChunk(3, 0, b"abc"),
        WriteChunk(3, 3, b"de"),
        KeepCheckpoint(3),
    ]


def test_the_store_is_replaced_only_when_the_log_says_so_durably():
    """A kept checkpoint is recorded first: a store must never be ahead of what the log bears witness to."""
    rig = transferring()
    rig.flushing = False
    rig.step("n2", m.CheckpointChunk(3, 0, 3, b"abc"))
    rig.take(rig.replica.checkpoint_kept(3, b"d" * 16, rig.now))
    assert CheckpointRecord(3, b"d" * 16) in rig.records
    assert not any(isinstance(effect, InstallCheckpoint) for effect in rig.transfers)
    rig.flush()
    assert rig.transfers[-1] == InstallCheckpoint(3)


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
    """The replica stands at the checkpoint's slot, and goes on from there."""
    rig = transferring()
    rig.step("n2", m.CheckpointChunk(3, 0, 3, b"abc"))
    rig.take(rig.replica.checkpoint_kept(3, b"d" * 16, rig.now))
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


# --- mirrors ----------------------------------------------------------------------------------------------------------


def mirrored(count=3):
    return configuration_of(count).with_mirror("n9", 0)


def in_office(count=3):
    durable = durable_state(count=count)
    durable.formation = mirrored(count).encode()
    rig = Rig(count=count, durable=durable)
    rig.elect()
    rig.acknowledge()
    rig.serve(3 * HEARTBEAT)
    return rig


def mirror(**fields):
    durable = durable_state(formed=False, **fields)
    durable.formation = mirrored().encode()
    return Rig("n9", durable=durable)


def beat(committed=0, epoch=N2, **fields):
    plain = {"checkpoint": 0, "checkpoint_digest": b"", "digest_slot": 0, "digest": b""}
    return m.MirrorHeartbeat(epoch, mirrored().version, committed, **{**plain, **fields})


def test_a_mirrors_request_waits_for_news():
    """What is committed is sent to the mirror in the same step, and before that nothing is."""
    rig = in_office()
    assert rig.step("n9", m.FetchSlots(1)) == []
    rig.submit(operation(1))
    assert rig.of(m.Slots) == []
    sent = [(to, message) for to, message in rig.step("n2", m.Accepted(rig.replica.epoch, 1, False))]
    assert not [message for _, message in sent if isinstance(message, m.Slots)]
    sent = rig.step("n3", m.Accepted(rig.replica.epoch, 1, False))
    [(to, slots_sent)] = [item for item in sent if isinstance(item[1], m.Slots)]
    assert (to, [entry[0] for entry in slots_sent.entries], slots_sent.committed) == ("n9", [1], 1)
    assert rig.replica.catch_up.waiting == {}


def test_a_mirror_counts_for_nothing():
    """It is sent no slot before that is committed, and commits wait for voters only."""
    rig = in_office()
    rig.step("n9", m.FetchSlots(1))
    rig.submit(operation(1))
    rig.accept_all()
    assert rig.replica.committed == 1
    assert {type(message) for to, message in rig.sent if to == "n9"} == {m.MirrorHeartbeat, m.Slots}
    assert "n9" not in rig.replica.view


def test_one_request_of_a_mirror_waits():
    """However often it asks, it is answered once."""
    rig = in_office()
    for _ in range(5):
        rig.step("n9", m.FetchSlots(1))
    rig.submit(operation(1))
    rig.accept_all()
    assert len(rig.of(m.Slots)) == 1


def test_requests_of_voters_and_strangers_do_not_wait():
    """Voters are sent what is new anyway, and whoever the group does not know gets nothing at all."""
    rig = in_office()
    rig.submit(operation(1))
    rig.accept_all()
    rig.step("n3", m.FetchSlots(2))
    assert rig.replica.catch_up.waiting == {}
    assert rig.step("n8", m.FetchSlots(1)) == []
    assert rig.step("n8", m.FetchCheckpoint(1, 0)) == []


def test_a_mirror_always_has_a_request_at_the_coordinator():
    """It asks when it hears whom to follow, again with every answer, and again when none comes."""
    rig = mirror()
    assert rig.step("n2", beat()) == [("n2", m.FetchSlots(1))]
    assert rig.replica.coordinator == "n2"
    assert rig.step("n2", slots(1, 11)) == [("n2", m.FetchSlots(2))]
    assert rig.step("n2", beat(committed=1)) == []
    rig.wait(4 * HEARTBEAT)
    assert rig.of(m.FetchSlots)[-2:] == [m.FetchSlots(2), m.FetchSlots(2)]


def test_a_mirror_follows_the_latest_coordinator():
    """A heartbeat of a later epoch moves it there, one of an earlier epoch moves it nowhere."""
    rig = mirror()
    later = epoch_of("n3", 2)
    rig.step("n2", beat())
    assert rig.step("n3", beat(epoch=later)) == [("n3", m.FetchSlots(1))]
    assert rig.step("n2", beat()) == []
    assert (rig.replica.coordinator, rig.replica.epoch) == ("n3", later)


def test_a_mirror_whose_coordinator_is_silent_introduces_itself():
    """It tells all voters, and knows no coordinator meanwhile."""
    rig = mirror()
    rig.step("n2", beat())
    rig.take_sent()
    rig.wait(Patience.SOURCE.heartbeats * HEARTBEAT + TICK)
    assert {to for to, message in rig.sent if isinstance(message, m.Introduce)} == {"n1", "n2", "n3"}
    assert rig.replica.coordinator == ""


def test_a_mirror_knows_how_fresh_it_is():
    """When the coordinator was heard, and what was committed then."""
    rig = mirror()
    rig.step("n2", beat(committed=7))
    assert (rig.replica.source_committed, rig.replica.source_heard_at) == (7, rig.now)
    heard_at = rig.now
    rig.wait(HEARTBEAT)
    assert rig.replica.source_heard_at == heard_at
    rig.step("n2", slots(1, 11, committed=8))
    assert (rig.replica.source_committed, rig.replica.source_heard_at) == (8, rig.now)


def test_a_mirrors_checkpoint_is_committed_by_the_coordinators_word():
    """The digest that the group committed makes the own file count, and lets the log before it go."""
    rig = mirror()
    rig.step("n2", slots(1, 11, 12))
    rig.take(rig.replica.checkpoint_written(2, b"d" * 16, rig.now))
    assert rig.replica.checkpoints.committed[0] == 0
    rig.step("n2", beat(committed=2, checkpoint=2, checkpoint_digest=b"d" * 16))
    assert CheckpointRecord(2, b"d" * 16) in rig.records
    assert CheckpointCommitted(2) in rig.transfers


def test_a_mirror_whose_checkpoint_differs_rebuilds_itself():
    """Its state is thrown away and fetched anew."""
    rig = mirror()
    rig.step("n2", slots(1, 11, 12))
    rig.take(rig.replica.checkpoint_written(2, b"x" * 16, rig.now))
    rig.step("n2", beat(committed=2, checkpoint=2, checkpoint_digest=b"d" * 16))
    assert rig.replica.state.rebuilding
    rig.wait(6 * HEARTBEAT)
    assert ("n2", m.FetchSlots(0)) in rig.sent


def test_a_mirror_may_forward_and_probe():
    """The coordinator serves it like a voter, whatever its disk."""
    rig = in_office()
    _, encoded = operation(1)
    rig.step("n9", m.Forward(0, (encoded,)), disk="any")
    assert [slot for slot, *_ in rig.slots()] == [1]
    rig.accept_all()
    sent = rig.step("n9", m.ReadProbe(5, 1, False), disk="any")
    assert ("n9", m.ReadPoint(5, 1, 1)) in sent
    assert rig.step("n8", m.Forward(0, (encoded,))) == []


def test_mirrors_hear_of_a_new_coordinator_at_once():
    """Whoever takes office tells them, and goes on telling them."""
    durable = durable_state()
    durable.formation = mirrored().encode()
    rig = Rig(durable=durable)
    rig.elect()
    [(to, message)] = [item for item in rig.sent if isinstance(item[1], m.MirrorHeartbeat)]
    assert (to, message.epoch) == ("n9", rig.replica.epoch)
    rig.serve(10 * HEARTBEAT)
    assert 4 <= len(rig.of(m.MirrorHeartbeat)) <= 7


def test_requests_of_mirrors_end_with_the_office():
    """A coordinator of the past keeps nobody waiting."""
    rig = in_office()
    rig.step("n9", m.FetchSlots(1))
    rig.follow("n2", epoch=epoch_of("n2", 9))
    assert rig.replica.catch_up.waiting == {}
