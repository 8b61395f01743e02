from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.group.checkpoints import ASK_LEASES, Digests
from replicad.core.group.effects import CheckpointCommitted
from replicad.core.journal.records import CheckpointRecord
from replicad.core.model import messages as m
from tests.core.group.rigs import (
    HEARTBEAT,
    LEASE,
    LIMITS,
    TICK,
    Rig,
    ack,
    batch,
    durable_state,
    epoch_of,
    group_state,
    heartbeat,
    is_checkpoint,
    names,
    operation,
)

ONE, OTHER = b"1" * 16, b"2" * 16


def coordinator(*live, count=3, **fields):
    rig = Rig(count=count, **fields)
    rig.elect()
    rig.acknowledge(*live)
    rig.serve(2 * HEARTBEAT, *live)
    return rig


def marked(rig, *live):
    """Have the coordinator put a marker into the log and commit it; returns its slot."""
    rig.take(rig.replica.request_checkpoint(rig.now))
    rig.wait(TICK)
    [slot] = [slot for slot, _, value in rig.slots() if is_checkpoint(value)]
    rig.accept_all(*live)
    return slot


def report(rig, node, slot, digest):
    """This member says that it has written a checkpoint."""
    beat = next(message for message in reversed(rig.of(m.Heartbeat)))
    rig.step(node, ack(beat, checkpoint=slot, checkpoint_digest=digest))


def written(rig, slot, digest=ONE):
    rig.take(rig.replica.checkpoint_written(slot, digest, rig.now))


def committed(rig):
    return [record for record in rig.records if isinstance(record, CheckpointRecord)]


# --- agreement (K1) -------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_committed_when_a_majority_and_the_view_have_it():
    """All members of the view must report the same digest; then its record is logged, and then the log may go."""
    rig = coordinator()
    slot = marked(rig)
    written(rig, slot)
    report(rig, "n2", slot, ONE)
    rig.wait(TICK)
    assert committed(rig) == []
    report(rig, "n3", slot, ONE)
    rig.wait(TICK)
    assert committed(rig) == [CheckpointRecord(slot, ONE)]
    assert rig.transfers == [CheckpointCommitted(slot)]


def test_the_log_is_kept_until_the_checkpoints_record_is_durable():
    """Nothing is removed on the strength of a record that a crash may lose (K2)."""
    rig = coordinator()
    slot = marked(rig)
    written(rig, slot)
    report(rig, "n2", slot, ONE)
    report(rig, "n3", slot, ONE)
    rig.flushing = False
    rig.wait(TICK)
    assert committed(rig) == [CheckpointRecord(slot, ONE)]
    assert rig.transfers == []
    rig.flush()
    assert rig.transfers == [CheckpointCommitted(slot)]


@pytest.mark.parametrize("reports", [{}, {"n2": OTHER, "n3": ONE}, {"n2": ONE, "n3": OTHER}, {"n3": ONE}])
def test_a_checkpoint_with_a_view_member_missing_or_different_is_not_committed(reports):
    """A majority alone is not enough while a lease holder has not written the same (K1)."""
    rig = coordinator()
    slot = marked(rig)
    written(rig, slot)
    for node, digest in reports.items():
        report(rig, node, slot, digest)
    rig.wait(TICK)
    assert committed(rig) == []


def test_a_member_outside_the_view_is_not_waited_for():
    """With one member away, a majority that is the whole view commits."""
    rig = coordinator("n2")
    slot = marked(rig, "n2")
    assert sorted(rig.replica.view) == ["n1", "n2"]
    written(rig, slot)
    report(rig, "n2", slot, ONE)
    rig.wait(TICK)
    assert committed(rig) == [CheckpointRecord(slot, ONE)]


def test_a_minority_alone_commits_no_checkpoint():
    """A view of two out of five is no majority."""
    rig = coordinator("n2", "n3", count=5)
    slot = marked(rig, "n2", "n3")
    written(rig, slot)
    report(rig, "n2", slot, ONE)
    rig.wait(TICK)
    assert committed(rig) == []
    report(rig, "n3", slot, ONE)
    rig.wait(TICK)
    assert committed(rig) == [CheckpointRecord(slot, ONE)]


def test_a_report_of_an_older_checkpoint_does_not_count():
    """Only the digest at the marker's own slot is compared."""
    rig = coordinator()
    rig.submit(operation(1))
    rig.accept_all()
    slot = marked(rig)
    written(rig, slot)
    report(rig, "n2", slot - 1, ONE)
    report(rig, "n3", slot, ONE)
    rig.wait(TICK)
    assert committed(rig) == []


def test_a_failed_checkpoint_is_taken_again():
    """When writing fails at the coordinator, nothing is committed, and after a while there is another marker."""
    rig = coordinator()
    slot = marked(rig)
    written(rig, slot, b"")
    report(rig, "n2", slot, ONE)
    report(rig, "n3", slot, ONE)
    rig.wait(TICK)
    assert committed(rig) == []
    rig.take(rig.replica.request_checkpoint(rig.now))
    rig.serve(60 * LEASE)
    markers = [slot for slot, _, value in rig.slots() if is_checkpoint(value)]
    assert markers[:2] == [slot, slot + 1]


def test_the_first_checkpoint_of_an_office_waits_for_members_that_were_not_heard_yet():
    """A marker that is put before the first acknowledgements is not taken for one that all restarted after."""
    rig = Rig()
    rig.elect()
    rig.take(rig.replica.request_checkpoint(rig.now))
    rig.wait(TICK)
    assert rig.event_names().count("checkpoint_begins") == 1
    slot = rig.highest
    rig.acknowledge(applied=slot - 1)
    rig.serve(2 * HEARTBEAT, applied=slot - 1)
    assert sorted(rig.replica.view) == ["n1", "n2", "n3"]
    rig.accept_all()
    written(rig, slot)
    report(rig, "n2", slot, ONE)
    report(rig, "n3", slot, ONE)
    rig.wait(TICK)
    assert "checkpoint_abandoned" not in rig.event_names()
    assert committed(rig) == [CheckpointRecord(slot, ONE)]


@pytest.mark.parametrize("early", [True, False])
def test_a_checkpoint_is_given_up_when_a_member_restarts_after_the_marker(early):
    """Whether it was first heard before or after the marker: the process that would have written it is gone."""
    rig = Rig()
    rig.elect()
    if early:
        rig.acknowledge()
    rig.take(rig.replica.request_checkpoint(rig.now))
    rig.wait(TICK)
    slot = rig.highest
    rig.acknowledge(applied=slot - 1)
    rig.serve(2 * HEARTBEAT, applied=slot - 1)
    rig.accept_all()
    assert "checkpoint_abandoned" not in rig.event_names()
    assert not rig.replica.checkpoints.obsolete(slot, rig.replica.epoch)
    rig.wait(HEARTBEAT)
    rig.acknowledge("n2", boot=10, applied=slot)
    rig.wait(TICK)
    assert "checkpoint_abandoned" in rig.event_names()
    assert rig.replica.checkpoints.obsolete(slot, rig.replica.epoch)


def test_a_member_that_was_beyond_the_marker_when_first_heard_is_not_waited_for():
    """It may have restarted after it had taken the marker; nobody can tell, so the checkpoint is taken again."""
    rig = Rig()
    rig.elect()
    rig.take(rig.replica.request_checkpoint(rig.now))
    rig.wait(TICK)
    slot = rig.highest
    rig.accept_all()
    rig.acknowledge("n2", applied=slot)
    rig.wait(2 * TICK)
    assert "n2" in rig.replica.view
    assert "checkpoint_abandoned" in rig.event_names()


def test_a_followers_checkpoint_is_obsolete_when_another_leads():
    """The next coordinator commits none but its own markers."""
    rig = Rig("n2")
    rig.follow("n1")
    epoch = rig.replica.epoch
    assert not rig.replica.checkpoints.obsolete(5, epoch)
    rig.follow("n3", epoch=epoch_of("n3", 2))
    assert rig.replica.checkpoints.obsolete(5, epoch)


def test_an_older_failure_does_not_hide_a_newer_one():
    """A superseded checkpoint may be said to have failed after the one that superseded it."""
    rig = Rig("n2")
    rig.follow("n1")
    written(rig, 6, b"")
    written(rig, 5, b"")
    assert rig.replica.checkpoints.report() == (6, b"")
    assert not rig.replica.checkpoints.obsolete(6, rig.replica.epoch)
    rig.replica.checkpoints.on_installed(7, ONE)
    assert rig.replica.checkpoints.obsolete(6, rig.replica.epoch)


def test_anybody_may_ask_the_coordinator_for_a_checkpoint():
    """A request at a follower travels to the coordinator, which puts the marker."""
    follower = Rig("n2")
    follower.follow("n1")
    follower.take(follower.replica.request_checkpoint(follower.now))
    assert ("n1", m.CheckpointRequest()) in follower.sent
    rig = coordinator()
    rig.step("n2", m.CheckpointRequest())
    rig.wait(TICK)
    assert [is_checkpoint(value) for _, _, value in rig.slots()] == [True]


def test_a_log_over_its_bound_still_takes_a_marker():
    """A coordinator that finds the log too long for new writes can shorten it: the marker itself is not refused."""
    limits = replace(LIMITS, checkpoint_bytes=1_000, retained_bytes=1_000)
    rig = Rig(
        limits=limits,
        entries=[(slot, epoch_of("n1"), batch(slot, value=bytes(500))) for slot in range(1, 20)],
        committed=19,
    )
    assert rig.replica.applied == 19
    rig.elect({peer: {"committed": 19} for peer in rig.peers})
    rig.acknowledge(matched=19, applied=19)
    rig.serve(4 * HEARTBEAT, matched=19, applied=19)
    assert [is_checkpoint(value) for slot, _, value in rig.slots() if slot > 19] == [True]


# --- followers ------------------------------------------------------------------------------------------------------


def follower_with(digest):
    """A follower that has applied a marker at slot 1 and written its checkpoint."""
    rig = Rig("n2")
    rig.follow("n1")
    rig.step("n1", m.Accept(epoch_of("n1"), 1, 1, 1, (batch(1),)))
    written(rig, 1, digest)
    return rig


def test_a_follower_adopts_the_checkpoint_that_it_wrote_itself():
    """What heartbeats announce is recorded if the own file has the same digest."""
    rig = follower_with(ONE)
    rig.follow("n1", checkpoint=1, checkpoint_digest=ONE)
    assert committed(rig) == [CheckpointRecord(1, ONE)]
    assert rig.transfers == [CheckpointCommitted(1)]


def test_a_follower_whose_checkpoint_differs_rebuilds_itself():
    """Another digest than the committed one means that this replica diverged: it reads no more and starts over."""
    rig = follower_with(OTHER)
    rig.now += 1
    rig.follow("n1", grant_boot=7, grant_request=rig.now, grant_us=100_000)
    assert rig.replica.read_slot(rig.now) is not None
    assert not rig.distrusted
    rig.follow("n1", checkpoint=1, checkpoint_digest=ONE)
    assert committed(rig) == []
    assert rig.distrusted  # should it die before the others' state is here, a start must not use its own
    assert rig.replica.read_slot(rig.now) is None
    rig.wait(10 * HEARTBEAT)
    assert ("n1", m.FetchSlots(0)) in rig.sent


def test_who_is_being_rebuilt_adopts_nothing_meanwhile():
    """It may be about to install an older one, whose file must not go; what was under way before that is given up."""
    rig = follower_with(ONE)
    rig.flushing = False
    rig.follow("n1", checkpoint=1, checkpoint_digest=ONE)
    assert committed(rig) == [CheckpointRecord(1, ONE)]
    rig.take(rig.replica.checkpoint_kept(1, OTHER, rig.now))
    rig.flush()
    assert CheckpointCommitted(1) not in rig.transfers
    rig = follower_with(ONE)
    rig.flushing = False
    rig.follow("n1", checkpoint=1, checkpoint_digest=ONE)
    rig.replica.state.rebuilding = True
    rig.flush()
    rig.take(rig.replica.installed(0, bytes(16), b"", [], rig.now))
    assert CheckpointCommitted(1) not in rig.transfers
    rig = follower_with(ONE)
    rig.replica.state.rebuilding = True
    rig.follow("n1", checkpoint=1, checkpoint_digest=ONE)
    assert committed(rig) == []


def test_a_follower_without_the_file_adopts_nothing():
    """A checkpoint that this node has not written lets none of its log go."""
    rig = Rig("n2")
    rig.follow("n1", checkpoint=5, checkpoint_digest=ONE)
    assert committed(rig) == []
    assert rig.transfers == []


# --- digests (K3) ---------------------------------------------------------------------------------------------------


@given(st.sampled_from([3, 5]), st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=5, max_size=5))
def test_the_majoritys_digest_is_the_verdict(count, digests):
    """A digest that a majority of all members reports wins; all different enough means that all must stop."""
    state = group_state(count=count)
    room = Digests(state)
    room.on_marks([(64, digests[0])])
    for node, digest in zip(names(count)[1:], digests[1:count], strict=True):
        room.on_report(node, 64, digest)
    reported = digests[:count]
    winners = [digest for digest in (b"a", b"b", b"c") if reported.count(digest) > count // 2]
    assert room.verdict == ((64, winners[0]) if winners else (64, b""))
    assert room.contradicted(room.verdict) == bool(winners and winners[0] != digests[0])


def test_too_few_reports_are_no_verdict():
    """While a majority may still agree, nobody rebuilds and nobody stops."""
    room = Digests(group_state(count=5))
    room.on_marks([(64, ONE)])
    room.on_report("n2", 64, OTHER)
    room.on_report("n3", 64, b"3" * 16)
    assert room.verdict == (0, b"")


def test_a_verdict_without_a_majority_stops_every_replica_that_was_there():
    """With no majority on one digest nobody can say who is right: all stop."""
    rig = Rig("n2")
    slots = [batch(slot) for slot in range(1, 65)]
    rig.step("n1", m.Accept(epoch_of("n1"), 1, 1, 64, tuple(slots)))
    rig.step("n1", heartbeat(epoch_of("n1"), digest_slot=128))
    assert rig.halted == ""
    rig.step("n1", heartbeat(epoch_of("n1"), digest_slot=64))
    assert "all stop" in rig.halted


# --- a log that begins at a checkpoint that is not here ---------------------------------------------------------------


def rebuilt(slot):
    """A voter whose checkpoint at slot 4 was damaged, and whose state was replaced by that at ``slot``."""
    durable = durable_state(committed=4)
    durable.checkpoint = CheckpointRecord(4, ONE)
    rig = Rig("n1", durable=durable, applied=4, rebuild=True)
    rig.wait(LEASE)
    rig.follow("n2", committed=4, assigned=4)
    rig.take(rig.replica.checkpoint_kept(slot, bytes(16), rig.now))
    rig.take(rig.replica.installed(slot, bytes(16), b"", [], rig.now))
    missing = tuple((number, epoch_of("n2"), 0, batch(number)) for number in range(slot + 1, 5))
    rig.step("n2", m.Slots(slot + 1, 4, missing))
    assert rig.replica.applied == 4
    return rig


def test_who_was_rebuilt_from_an_older_checkpoint_than_its_log_begins_at_asks_for_a_new_one():
    """As soon as its state was compared; again later, and not once its log may begin at one that is here."""
    rig = rebuilt(2)
    rig.wait(2 * HEARTBEAT)
    assert rig.of(m.CheckpointRequest) == []
    rig.step("n2", m.DigestCompared(7, 4, bytes(16)))
    rig.wait(TICK)
    assert [(to, message) for to, message in rig.take_sent(m.CheckpointRequest)] == [("n2", m.CheckpointRequest())]
    for sequence in range(2, 2 + ASK_LEASES * LEASE // HEARTBEAT):
        rig.wait(HEARTBEAT)
        rig.follow("n2", committed=4, assigned=4, sequence=sequence)
    assert rig.take_sent(m.CheckpointRequest) == [("n2", m.CheckpointRequest())]
    rig.step("n2", m.Slots(5, 5, ((5, epoch_of("n2"), 0, batch(5)),)))
    written(rig, 5)
    rig.follow("n2", committed=5, assigned=5, sequence=1_000, checkpoint=5, checkpoint_digest=ONE)
    assert committed(rig)[-1] == CheckpointRecord(5, ONE)
    assert not rig.replica.checkpoints.lacking


def test_who_was_rebuilt_from_the_newest_checkpoint_asks_for_none():
    """Its log begins at just that one."""
    rig = rebuilt(4)
    rig.wait(2 * HEARTBEAT)
    rig.step("n2", m.DigestCompared(7, 4, bytes(16)))
    rig.wait(HEARTBEAT)
    assert rig.replica.state.serves
    assert rig.of(m.CheckpointRequest) == []


def test_a_coordinator_that_lacks_the_checkpoint_takes_one():
    """It asks nobody but itself."""
    rig = coordinator()
    rig.replica.checkpoints.lacking = True
    rig.serve(2 * HEARTBEAT)
    assert [slot for slot, _, value in rig.slots() if is_checkpoint(value)] == [1]


def test_a_checkpoint_below_the_one_that_the_log_begins_at_does_not_help():
    """With a restart of the machine the log goes on from the newer one, which is still not here."""
    rig = rebuilt(2)
    rig.step("n2", m.DigestCompared(7, 4, bytes(16)))
    assert rig.replica.checkpoints.lacking
    written(rig, 3)
    rig.follow("n2", committed=4, assigned=4, sequence=1_000, checkpoint=3, checkpoint_digest=ONE)
    assert committed(rig)[-1] == CheckpointRecord(3, ONE)
    assert rig.replica.checkpoints.lacking
