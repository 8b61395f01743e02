"""Repair of slots whose ticket holder does not propose: both Paxos phases for one slot, by the sequencer."""

import pytest

from replicad.core.group.office import REPAIRED_LISTED
from replicad.core.group.repair import LIVE_DOUBLINGS, PATIENCE_DOUBLINGS_MAX, REPAIRS_MAX
from replicad.core.journal.records import SlotPromiseRecord
from replicad.core.model import messages as m
from replicad.core.model.limits import Limits
from replicad.core.model.operations import ACTIVE, NOOP_BATCH
from tests.core.group.rigs import HEARTBEAT, LIMITS, TICK, Rig, batch, names

AFTER = LIMITS.repair_after_us << LIVE_DOUBLINGS
"""How long a contact that lives has for its batch."""


def sequencer(count=3, *given, **fields):
    """``n1`` in office, everyone in its view; ``given``: who asked for a ticket, in order of the slots."""
    rig = Rig(count=count, protocol=ACTIVE, **fields)
    rig.elect()
    rig.acknowledge()
    rig.serve(2 * HEARTBEAT)
    assert sorted(rig.replica.view) == sorted(names(count))
    for number, contact in enumerate(given, 1):
        rig.step(contact, m.TicketRequest(rig.replica.epoch, 9, number))
    rig.take_sent()
    return rig


def hole(*given, count=3, **fields):
    """The same, and time has passed until the repair of the first slot began."""
    rig = sequencer(count, *(given or ("n2",)), **fields)
    rig.serve(AFTER + HEARTBEAT, matched=0)
    assert rig.of(m.SlotPrepare)
    rig.take_sent()
    return rig


def promise(rig, value=b"", accepted=0, slot=1):
    return m.SlotPromise(rig.replica.epoch, 1, slot, accepted, value)


def accepted(rig, slot=1, round_=1):
    return m.SlotAccepted(rig.replica.epoch, round_, slot)


def to_both(message):
    return [("n2", message), ("n3", message)]


# --- beginning --------------------------------------------------------------------------------------------------------


def test_a_hole_is_repaired_after_a_while():
    """A batch has some time to come; then the sequencer asks everyone to promise the slot, itself first."""
    rig = sequencer(3, "n2")
    rig.serve(AFTER - TICK, matched=0)
    assert rig.take_sent(m.SlotPrepare) == []
    rig.serve(2 * TICK, matched=0)
    epoch = rig.replica.epoch
    assert rig.take_sent(m.SlotPrepare) == to_both(m.SlotPrepare(epoch, 1, 1))
    assert rig.records[-1] == SlotPromiseRecord(1, epoch, 1)


def test_a_batch_that_is_held_here_needs_no_repair():
    """It is relayed to whoever lacks it: the sequencer has it to send."""
    rig = sequencer(3, "n2")
    rig.step("n2", m.SlotAccept(rig.replica.epoch, 0, 1, batch(1)))
    rig.serve(3 * AFTER, matched=0)
    assert rig.take_sent(m.SlotPrepare) == []


def test_slots_that_the_sequencer_proposes_itself_are_never_repaired():
    """Only what was given away can be lost with its holder."""
    rig = sequencer()
    rig.replica.office.propose(NOOP_BATCH)
    rig.serve(3 * AFTER, matched=0)
    assert rig.take_sent(m.SlotPrepare) == []


def test_repairs_under_way_are_bounded():
    """A contact that dies with many tickets does not make the sequencer send without end."""
    rig = sequencer(3, *["n2"] * (REPAIRS_MAX + 8))
    rig.serve(3 * AFTER, "n3", matched=0)
    assert sorted(rig.replica.office.repairs.open) == list(range(1, REPAIRS_MAX + 1))


def test_a_contact_that_lives_gets_twice_the_time_next_time():
    """A slow contact must not lose slot after slot to repairs (T3)."""
    rig = hole("n2")
    repairs = rig.replica.office.repairs
    assert repairs.overdue_after("n2") == 2 * AFTER
    assert repairs.overdue_after("n3") == AFTER


def test_the_time_does_not_grow_without_end():
    """A few doublings are enough; then a hole would hold up the group for longer than the contact is worth."""
    rig = hole("n2")
    repairs = rig.replica.office.repairs
    for slot in range(2, 20):
        repairs.begin(slot, "n2")
    assert repairs.overdue_after("n2") == LIMITS.repair_after_us << PATIENCE_DOUBLINGS_MAX


def test_a_contact_that_proposes_in_time_loses_its_extra_time_again():
    """Patience follows what the contact does."""
    rig = sequencer(3, "n2")
    epoch = rig.replica.epoch
    repairs = rig.replica.office.repairs
    repairs.patience["n2"] = 2
    rig.step("n2", m.SlotAccept(epoch, 0, 1, batch(1)))
    rig.step("n2", m.Chosen(epoch, (1,)))
    assert repairs.overdue_after("n2") == 2 * AFTER


def test_a_contact_that_is_gone_gets_no_extra_time():
    """Nobody waits longer for a node that answers no heartbeat."""
    rig = sequencer(3, "n2")
    rig.serve(LIMITS.repair_after_us + 4 * HEARTBEAT, "n3", matched=0)
    assert sorted(rig.replica.office.repairs.open) == [1]
    assert rig.replica.office.repairs.patience == {}


# --- the two phases ---------------------------------------------------------------------------------------------------


def test_where_nobody_has_a_batch_a_no_op_is_proposed():
    """A majority has promised, and none of it has accepted anything: nothing can have been committed."""
    rig = hole()
    sent = rig.step("n3", promise(rig))
    assert sent == to_both(m.SlotAccept(rig.replica.epoch, 1, 1, NOOP_BATCH))
    assert rig.slots()[-1] == (1, rig.replica.epoch, NOOP_BATCH)


def test_a_batch_that_a_member_has_is_proposed():
    """It may have been committed: it is what the slot holds, whoever proposed it."""
    rig = hole()
    sent = rig.step("n3", promise(rig, batch(1)))
    assert sent == to_both(m.SlotAccept(rig.replica.epoch, 1, 1, batch(1)))


def test_among_several_values_the_one_of_the_highest_ballot_is_proposed():
    """What was accepted in a later round has replaced what was accepted before it."""
    rig = hole(count=5)
    rig.step("n2", promise(rig, batch(1), accepted=0))
    rig.step("n3", promise(rig, batch(2), accepted=1))
    assert {message.value for message in rig.of(m.SlotAccept)} == {batch(2)}


def test_a_majority_of_promises_is_needed():
    """With fewer, a batch that some others have committed would be missed."""
    rig = hole(count=5)
    assert rig.step("n2", promise(rig)) == []
    assert rig.step("n2", promise(rig)) == []
    assert {type(message) for _, message in rig.step("n4", promise(rig, batch(1)))} == {m.SlotAccept}


def test_the_own_promise_counts_once_it_is_durable():
    """After a power cut the sequencer's own log must still refuse the batch."""
    rig = sequencer(3, "n2", flushing=True)
    rig.flushing = False
    rig.serve(AFTER + HEARTBEAT, matched=0)
    rig.take_sent()
    assert rig.step("n3", promise(rig)) == []
    assert {type(message) for _, message in rig.flush()} == {m.SlotAccept}


def test_a_batch_that_comes_during_its_repair_is_not_accepted():
    """The sequencer has promised the slot to its own repair (A1)."""
    rig = hole()
    assert rig.step("n2", m.SlotAccept(rig.replica.epoch, 0, 1, batch(1))) == []
    assert rig.slots() == []


def test_an_answer_of_another_round_or_slot_does_not_count():
    """A repair counts what was said at its own ballot."""
    rig = hole()
    epoch = rig.replica.epoch
    assert rig.step("n3", m.SlotPromise(epoch, 2, 1, 0, b"")) == []
    assert rig.step("n3", m.SlotPromise(epoch, 1, 7, 0, b"")) == []
    assert rig.step("n3", m.SlotPromise(epoch - 1_000_000, 1, 1, 0, b"")) == []


def test_who_does_not_answer_is_asked_again():
    """In both phases, and only those that have not answered."""
    rig = hole(count=5)
    epoch = rig.replica.epoch
    rig.step("n2", promise(rig))
    rig.serve(HEARTBEAT + TICK, matched=0)
    asked = rig.take_sent(m.SlotPrepare)
    assert {to for to, _ in asked} == {"n3", "n4", "n5"}
    rig.step("n3", promise(rig))
    rig.step("n4", accepted(rig))
    rig.take_sent()
    rig.serve(HEARTBEAT + TICK, matched=0)
    assert set(rig.take_sent(m.SlotAccept)) == {
        (to, m.SlotAccept(epoch, 1, 1, NOOP_BATCH)) for to in ("n2", "n3", "n5")
    }


def test_a_member_that_knows_the_slot_is_asked_for_it():
    """The slot was committed before the repair began; the sequencer only has to learn it (A2)."""
    rig = hole()
    assert rig.step("n3", m.Decided(rig.replica.epoch, 1, b"d" * 16)) == [("n3", m.FetchSlots(1))]


def test_a_holder_that_commits_during_the_repair_ends_it():
    """A majority had accepted the batch before they promised: the repair found it, and both agree."""
    rig = hole()
    epoch = rig.replica.epoch
    rig.step("n3", promise(rig, batch(1)))
    rig.step("n2", m.Chosen(epoch, (1,)))
    assert rig.applied == [(1, batch(1))]
    rig.serve(HEARTBEAT)
    assert rig.replica.office.repairs.open == {}


# --- committing (C1, C3) ----------------------------------------------------------------------------------------------


def repaired(rig, *voters, value=b"", slot=1):
    """All these members promise and accept; returns what was sent after the last."""
    for voter in voters:
        rig.step(voter, promise(rig, value, slot=slot))
    for voter in voters[:-1]:
        rig.step(voter, accepted(rig, slot))
    rig.take_sent()
    return rig.step(voters[-1], accepted(rig, slot))


def test_a_repaired_slot_is_committed_and_its_round_is_announced():
    """Everyone who has the slot only at round 0 must not take that for what was committed (C3)."""
    rig = hole()
    sent = repaired(rig, "n2", "n3")
    assert rig.applied == [(1, NOOP_BATCH)]
    assert sent == to_both(m.Committed(rig.replica.epoch, 1, 1, (1, 1)))
    rig.until(m.Heartbeat)
    assert rig.of(m.Heartbeat)[-1].repaired == (1, 1)


def test_a_repaired_slot_waits_for_the_whole_view():
    """A holder of a lease may be reading: it must have the slot, too."""
    rig = hole()
    repaired(rig, "n3")
    assert rig.replica.committed == 0
    rig.step("n2", accepted(rig))
    assert rig.replica.committed == 1


def test_a_repaired_slot_waits_for_a_majority():
    """A view of two of five is no majority."""
    rig = sequencer(5, "n2")
    rig.replica.office.view.joined = {"n3": 0}
    rig.serve(AFTER + HEARTBEAT, "n3", "n4", matched=0)
    rig.replica.office.view.joined = {"n3": 0}
    for voter in ("n3", "n4"):
        rig.step(voter, promise(rig))
    rig.step("n3", accepted(rig))
    assert rig.replica.committed == 0
    rig.step("n4", accepted(rig))
    assert rig.replica.committed == 1


def test_the_own_acceptance_of_a_repair_counts_once_it_is_durable():
    """As with every slot, the sequencer's disk is one of the disks."""
    rig = hole()
    rig.flushing = False
    rig.step("n2", promise(rig))
    for voter in ("n2", "n3"):
        rig.step(voter, accepted(rig))
    assert rig.replica.committed == 0
    rig.flush()
    assert rig.replica.committed == 1


def test_a_joiner_above_the_slot_is_not_waited_for():
    """What was assigned before it joined it reads only after it has applied it (V1)."""
    rig = sequencer(5, "n2")
    rig.replica.office.view.joined["n5"] = 1
    rig.serve(AFTER + HEARTBEAT, matched=0)
    repaired(rig, "n2", "n3", "n4")
    assert rig.replica.committed == 1


def test_a_slot_under_repair_is_not_committed_by_what_was_accepted_before():
    """An acceptance at round 0 says nothing about what will be accepted at round 1."""
    rig = hole("n2", "n3")
    for peer in ("n2", "n3"):
        rig.step(peer, m.Accepted(rig.replica.epoch, 2, False))
    rig.step("n3", promise(rig))
    assert rig.slots()[-1] == (1, rig.replica.epoch, NOOP_BATCH)
    assert rig.replica.committed == 0


def test_slots_above_a_repaired_one_follow_in_order():
    """Batches that were accepted above a hole are committed as soon as the hole is filled."""
    rig = sequencer(3, "n2", "n3")
    epoch = rig.replica.epoch
    rig.step("n3", m.SlotAccept(epoch, 0, 2, batch(2)))
    rig.step("n3", m.Chosen(epoch, (2,)))
    rig.serve(AFTER + HEARTBEAT, matched=0)
    repaired(rig, "n2", "n3")
    assert rig.applied == [(1, NOOP_BATCH), (2, batch(2))]


@pytest.mark.parametrize("count", [REPAIRED_LISTED + 3])
def test_the_watermark_lists_a_bounded_number_of_repairs(count):
    """It speaks only of the slots above those that fell off its list; the others are fetched."""
    rig = sequencer(3, *["n2"] * count, limits=Limits(join_lag_slots=1_000))
    for slot in range(1, count + 1):
        rig.replica.office.repairs.begin(slot, "n2")
        for voter in ("n2", "n3"):
            rig.step(voter, promise(rig, slot=slot))
            rig.step(voter, accepted(rig, slot))
    assert rig.replica.committed == count
    newest = rig.of(m.Committed)[-1]
    assert newest.start == 4
    assert newest.repaired == tuple(number for slot in range(4, count + 1) for number in (slot, 1))


def test_a_repair_is_not_listed_any_more_once_the_whole_view_has_applied_it():
    """Whoever is behind fetches it: the watermark speaks of the slots above it from then on."""
    rig = hole()
    repaired(rig, "n2", "n3")
    rig.serve(HEARTBEAT, applied=0)
    assert rig.of(m.Heartbeat)[-1].repaired == (1, 1)
    rig.serve(2 * HEARTBEAT, applied=1)
    newest = rig.of(m.Heartbeat)[-1]
    assert (newest.start, newest.repaired) == (2, ())
