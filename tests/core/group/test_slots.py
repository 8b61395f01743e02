"""The voter's side of single slots: what it accepts and promises, and which slots it takes for committed."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.group.log import value_digest
from replicad.core.journal.records import SlotPromiseRecord
from replicad.core.journal.recovery import DurableState
from replicad.core.model import messages as m
from replicad.core.model.errors import InvariantError
from replicad.core.model.limits import Limits
from replicad.core.model.operations import (
    ACTIVE,
    CHECKPOINT_BATCH,
    CONFIGURATION,
    NOOP_BATCH,
    OPERATIONS,
    encode_batch,
)
from tests.core.group.rigs import HEARTBEAT, LEASE, Rig, batch, configuration_of, durable_state, epoch_of

N2, N3 = epoch_of("n2"), epoch_of("n3", 2)
"""Two epochs of two sequencers, the second one higher."""


def member(**fields):
    """``n1`` under the sequencer ``n2``; tickets are with ``n3``."""
    rig = Rig(protocol=ACTIVE, **fields)
    rig.follow("n2")
    rig.take_sent()
    return rig


def propose(slot, value=None, epoch=N2, round_=0):
    return m.SlotAccept(epoch, round_, slot, batch(slot) if value is None else value)


def accepted(slot, epoch=N2, round_=0):
    return m.SlotAccepted(epoch, round_, slot)


def repair(slot=1, epoch=N2, round_=1):
    return m.SlotPrepare(epoch, round_, slot)


def promised(slot=1, value=b"", at=0, epoch=N2, round_=1):
    return m.SlotPromise(epoch, round_, slot, at, value)


def resume(rig, **fields):
    """The node after a restart, with everything that its log holds."""
    durable = DurableState(formation=configuration_of(3, ACTIVE).encode())
    for record in rig.records:
        durable.replay(record)
    again = Rig(durable=durable, **fields)
    again.records = rig.records + again.records
    return again


# --- accepting (A1) ---------------------------------------------------------------------------------------------------


def test_a_holders_batch_is_accepted_and_answered_once_it_is_durable():
    """The answer goes to the holder, who counts; the sequencer is not asked."""
    rig = member(flushing=False)
    assert rig.step("n3", propose(1)) == []
    assert rig.slots() == [(1, N2, batch(1))]
    assert rig.flush() == [("n3", accepted(1))]


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])))
def test_slots_are_applied_in_order_whatever_the_order_in_which_they_come(order):
    """Hold-back: what comes too early is kept, and applied when the slots before it are."""
    rig = member()
    for slot in order:
        assert rig.step("n3", propose(slot)) == [("n3", accepted(slot))]
    for slot in order[::-1]:
        rig.step("n3", m.Chosen(N2, (slot,)))
    assert rig.applied == [(slot, batch(slot)) for slot in (1, 2, 3)]


def test_three_one_two():
    """Slot 3 waits for slot 2, although it is committed and here first."""
    rig = member()
    rig.step("n3", propose(3))
    rig.step("n3", m.Chosen(N2, (3,)))
    rig.step("n3", propose(1))
    rig.step("n3", m.Chosen(N2, (1,)))
    assert [slot for slot, _ in rig.applied] == [1]
    rig.step("n3", propose(2))
    rig.step("n3", m.Chosen(N2, (2,)))
    assert [slot for slot, _ in rig.applied] == [1, 2, 3]


def test_a_repeated_batch_is_answered_and_not_logged_again():
    """The holder sends again when an answer is lost."""
    rig = member()
    rig.step("n3", propose(1))
    assert rig.step("n3", propose(1)) == [("n3", accepted(1))]
    assert len(rig.slots()) == 1


def test_another_batch_at_an_equal_ballot_stops_the_process():
    """A ticket is used once; whoever sees it used twice stops (A1)."""
    rig = member()
    rig.step("n3", propose(1))
    with pytest.raises(InvariantError, match="same ballot"):
        rig.step("n3", propose(1, batch(9)))


def test_a_batch_of_an_older_epoch_is_refused():
    """Its holder learns of the promise, and its slot is settled by the election."""
    rig = member()
    rig.follow("n3", epoch=N3)
    assert rig.step("n3", propose(1)) == [("n3", m.Rejected(N2, N3))]
    assert rig.slots() == []


def test_a_batch_of_a_newer_epoch_tells_of_its_coordinator():
    """A holder has a ticket of an elected sequencer; its epoch names it, though nothing came from there yet."""
    rig = member()
    assert rig.step("n2", propose(4, epoch=N3)) == [("n2", accepted(4, N3))]
    assert (rig.replica.state.promised, rig.replica.epoch, rig.replica.coordinator) == (N3, N3, "n3")
    assert not rig.replica.holds_lease(rig.now)


def test_slots_far_ahead_are_not_kept():
    """What is out of order must not pile up in memory; it is fetched later."""
    rig = member(limits=Limits(open_slots_max=2))
    assert rig.step("n3", propose(8)) == [("n3", accepted(8))]
    assert rig.step("n3", propose(9)) == []
    assert [slot for slot, *_ in rig.slots()] == [8]


def test_a_full_disk_accepts_no_batch():
    """A member whose disk is full neither logs nor answers."""
    rig = member()
    rig.take(rig.replica.set_full(full=True, now=rig.now))
    assert rig.step("n3", propose(1)) == []
    assert rig.slots() == []


def test_an_old_disk_proposes_nothing():
    """A ticket belongs to a member; its former disk is nobody (M4)."""
    rig = member()
    assert rig.step("n3", propose(1), disk="an older disk") == []
    assert rig.slots() == []


NONSENSE = [
    b"",
    b"\xc1",
    b"\x01",
    encode_batch(OPERATIONS, b"none"),
    encode_batch(OPERATIONS, [b"none"]),
    encode_batch(OPERATIONS, [1]),
    CHECKPOINT_BATCH,
    encode_batch(CONFIGURATION, configuration_of(3).encode()),
]


@pytest.mark.parametrize("value", NONSENSE)
def test_what_no_replica_could_apply_is_not_accepted(value):
    """A contact proposes operations that are valid, or a no-op; anything else leaves a hole."""
    rig = member()
    assert rig.step("n3", propose(1, value)) == []
    assert rig.slots() == []
    assert "bad_operation" in rig.event_names()


def test_a_malformed_batch_becomes_a_no_op_by_repair():
    """Nobody has accepted it, so the sequencer finds nothing in the slot."""
    rig = member()
    rig.step("n3", propose(1, b"nonsense"))
    assert rig.step("n2", repair()) == [("n2", promised())]
    assert rig.step("n2", propose(1, NOOP_BATCH, round_=1)) == [("n2", accepted(1, round_=1))]
    rig.step("n2", m.Committed(N2, 1, 1, (1, 1)))
    assert rig.applied == [(1, NOOP_BATCH)]


# --- promising (T3, A1) -----------------------------------------------------------------------------------------------


def test_a_slot_promise_is_durable_before_it_leaves():
    """The repair relies on it even if this node restarts."""
    rig = member(flushing=False)
    assert rig.step("n2", repair()) == []
    assert rig.records[-1] == SlotPromiseRecord(1, N2, 1)
    assert rig.flush() == [("n2", promised())]


def test_a_slot_promise_reports_what_is_held():
    """Also what is still being flushed: it is durable by the time the promise leaves (E2)."""
    rig = member(flushing=False)
    rig.step("n3", propose(1))
    rig.step("n2", repair())
    assert rig.flush()[-1] == ("n2", promised(value=batch(1)))


def test_a_slot_promise_reports_nothing_of_older_epochs():
    """What they left above the slots that the election recovered was never committed, and never will be."""
    rig = member()
    rig.step("n3", propose(4))
    rig.follow("n3", epoch=N3)
    assert rig.step("n3", repair(4, N3)) == [("n3", promised(4, epoch=N3))]


def test_a_promised_slot_takes_no_batch_of_round_zero_any_more():
    """The holder comes too late; the other slots are as before."""
    rig = member()
    rig.step("n2", repair())
    assert rig.step("n3", propose(1)) == []
    assert rig.step("n3", propose(2)) == [("n3", accepted(2))]
    assert [slot for slot, *_ in rig.slots()] == [2]


def test_a_restart_keeps_the_promise_of_a_slot():
    """Otherwise a late batch would be accepted after the repair had found nothing."""
    rig = member()
    rig.step("n2", repair())
    again = resume(rig)
    assert again.step("n3", propose(1)) == []
    assert again.step("n2", propose(1, NOOP_BATCH, round_=1)) == [("n2", accepted(1, round_=1))]


def test_a_restart_keeps_what_was_accepted_out_of_order():
    """It is reported to a repair, and to the next candidate."""
    rig = member()
    rig.step("n3", propose(3))
    again = resume(rig)
    assert again.step("n2", repair(3)) == [("n2", promised(3, batch(3)))]
    again.now += 2 * LEASE
    [(_, promise)] = again.step("n3", m.Prepare(N3, 1, 1, 0))
    assert promise.entries == ((3, N2, 0, value_digest(batch(3))),)


def test_a_newer_epoch_ends_the_promises_of_slots():
    """A slot that was promised in an old epoch is the new holder's to propose for."""
    rig = member()
    rig.step("n2", repair())
    rig.follow("n3", epoch=N3)
    assert rig.step("n2", propose(1, epoch=N3)) == [("n2", accepted(1, N3))]
    assert resume(rig).step("n2", repair(1, N3)) == [("n2", m.SlotPromise(N3, 1, 1, 0, batch(1)))]


def test_a_repeated_slot_prepare_is_answered_again():
    """The first answer may be lost; the promise is logged once."""
    rig = member()
    rig.step("n2", repair())
    assert rig.step("n2", repair()) == [("n2", promised())]
    assert sum(isinstance(record, SlotPromiseRecord) for record in rig.records) == 1


def test_a_slot_prepare_of_an_older_epoch_is_refused():
    """Its sequencer is not in office any more."""
    rig = member()
    rig.follow("n3", epoch=N3)
    assert rig.step("n2", repair()) == [("n2", m.Rejected(N2, N3))]


def test_a_repair_replaces_what_was_accepted_in_round_zero():
    """The higher ballot counts, also if its value is another one."""
    rig = member()
    rig.step("n3", propose(1))
    assert rig.step("n2", propose(1, NOOP_BATCH, round_=1)) == [("n2", accepted(1, round_=1))]
    assert rig.step("n3", propose(1)) == []
    assert rig.slots()[-1] == (1, N2, NOOP_BATCH)


@given(st.lists(st.sampled_from(["batch", "prepare", "repair", "restart"]), max_size=10))
def test_no_batch_is_accepted_below_a_promise_or_a_repair(events):
    """Whatever comes, and whenever the node restarts: after a promise of round 1, round 0 gets no new acceptance."""
    rig = member()
    held, promised_round = None, 0
    for event in events:
        if event == "restart":
            rig = resume(rig)
        elif event == "prepare":
            [(_, answer)] = rig.step("n2", repair())
            assert (answer.accepted, answer.value) == (held or (0, b""))
            promised_round = 1
        elif event == "repair":
            value = held[1] if held else NOOP_BATCH
            assert rig.step("n2", propose(1, value, round_=1)) == [("n2", accepted(1, round_=1))]
            held, promised_round = (1, value), 1
        else:
            answers = rig.step("n3", propose(1))
            if held is None and not promised_round:
                held = (0, batch(1))
            assert bool(answers) == (held is not None and held[0] == 0)


# --- what comes too late (A2) -----------------------------------------------------------------------------------------


def test_a_proposal_for_a_decided_slot_is_told_so():
    """With the digest of the value, so that the holder knows whether it is its own."""
    rig = member()
    rig.step("n2", propose(1, NOOP_BATCH, round_=1))
    rig.step("n2", m.Committed(N2, 1, 1, (1, 1)))
    assert rig.step("n3", propose(1)) == [("n3", m.Decided(N2, 1, value_digest(NOOP_BATCH)))]
    assert rig.step("n2", repair()) == [("n2", m.Decided(N2, 1, value_digest(NOOP_BATCH)))]


def test_a_proposal_for_a_truncated_slot_is_told_so():
    """The value is gone; that the slot is decided is known."""
    rig = Rig(durable=durable_state(protocol=ACTIVE, promised=N2, committed=5), applied=5)
    rig.follow("n2")
    assert rig.step("n3", propose(3))[-1:] == [("n3", m.Decided(N2, 3, b""))]
    assert rig.step("n2", repair(3)) == [("n2", m.Decided(N2, 3, b""))]
    assert rig.slots() == []


# --- learning (C2, C3) ------------------------------------------------------------------------------------------------


def test_an_announcement_that_overtakes_its_batch_is_remembered():
    """Control messages and batches travel on different connections."""
    rig = member()
    rig.step("n3", m.Chosen(N2, (1,)))
    assert rig.applied == []
    rig.step("n3", propose(1))
    assert rig.applied == [(1, batch(1))]


def test_an_announcement_speaks_of_its_own_epoch_only():
    """What is held from an older epoch may be another value: it is not taken for the committed one."""
    rig = member()
    rig.step("n3", propose(1))
    rig.follow("n3", epoch=N3)
    rig.step("n2", m.Chosen(N3, (1,)))
    assert rig.applied == []
    rig.step("n2", propose(1, batch(9), epoch=N3))
    assert rig.applied == [(1, batch(9))]


def test_an_announcement_of_another_epoch_is_ignored():
    """A follower of one epoch has nothing to do with the tickets of another."""
    rig = member()
    rig.step("n3", propose(1))
    rig.step("n3", m.Chosen(N3, (1,)))
    assert rig.applied == []
    rig.follow("n3", epoch=N3)
    rig.step("n3", m.Chosen(N2, (1,)))
    assert rig.applied == []


def test_announcements_of_an_old_epoch_are_forgotten_with_it():
    """Their slots are proposed again by the election, at a ballot of its own."""
    rig = member()
    rig.step("n3", m.Chosen(N2, (1,)))
    rig.follow("n3", epoch=N3)
    rig.step("n2", propose(1, epoch=N3))
    assert rig.applied == []


def test_announcements_are_remembered_within_reach_only():
    """A contact cannot fill the memory of the others."""
    rig = member(limits=Limits(open_slots_max=2))
    rig.step("n3", m.Chosen(N2, tuple(range(1, 1_000))))
    assert sorted(rig.replica.state.chosen) == list(range(1, 9))


def test_a_watermark_names_the_round_of_repaired_slots():
    """Who missed a repair holds the batch that it replaced, and must not apply it (C3)."""
    rig = member()
    for slot in (1, 2):
        rig.step("n3", propose(slot))
    rig.step("n2", m.Committed(N2, 1, 2, (2, 1)))
    assert rig.applied == [(1, batch(1))]
    rig.step("n2", propose(2, NOOP_BATCH, round_=1))
    assert rig.applied == [(1, batch(1)), (2, NOOP_BATCH)]


def test_a_watermark_speaks_of_the_slots_from_its_start_on():
    """What is below may have been repaired, and is not listed any more."""
    rig = member()
    for slot in (1, 2):
        rig.step("n3", propose(slot))
    rig.step("n2", m.Committed(N2, 2, 2))
    assert rig.applied == []
    rig.step("n2", m.Slots(1, 2, ((1, N2, 1, NOOP_BATCH),)))
    assert rig.applied[:1] == [(1, NOOP_BATCH)]


def test_a_replica_with_another_value_fetches_the_committed_one():
    """It does not wait for a message that nobody will send again."""
    rig = member()
    rig.step("n3", propose(1))
    rig.step("n2", m.Committed(N2, 1, 1, (1, 1)))
    for _ in range(6):
        rig.follow("n2", start=1, committed=1, repaired=(1, 1), assigned=1)
        rig.wait(HEARTBEAT)
    assert ("n2", m.FetchSlots(1)) in rig.sent
    rig.step("n2", m.Slots(1, 1, ((1, N2, 1, NOOP_BATCH),)))
    assert rig.applied == [(1, NOOP_BATCH)]


def test_an_older_watermark_changes_nothing():
    """Messages may overtake each other; the newest list counts."""
    rig = member()
    rig.step("n3", propose(1))
    rig.step("n2", m.Committed(N2, 1, 1, (1, 1)))
    rig.step("n2", m.Committed(N2, 1, 0))
    assert rig.applied == []


def test_a_hole_does_not_count_as_accepted():
    """The sequencer hears of the complete slots only, and so does a reader (R1)."""
    rig = member()
    rig.step("n3", propose(1))
    rig.step("n3", propose(3))
    assert rig.replica.state.matched == 1
    rig.step("n3", propose(2))
    assert rig.replica.state.matched == 3
