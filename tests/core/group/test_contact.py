from dataclasses import replace

import pytest

from replicad.core.group.contact import RESEND_LEASES
from replicad.core.model import messages as m
from replicad.core.model.operations import (
    ACK_ALL,
    ACK_MAJORITY,
    ACK_ONE,
    ACTIVE,
    APPLIED,
    EXPIRED,
    Result,
    decode_batch,
)
from tests.core.group.rigs import HEARTBEAT, LEASE, LIMITS, TICK, Rig, ack, batch, epoch_of, heartbeat, operation

ID, ENCODED = operation(1)
OTHER_ID, OTHER = operation(2)


def forwards(rig):
    return [(to, message.operations) for to, message in rig.take_sent(m.Forward)]


def follower(**fields):
    rig = Rig(**fields)
    rig.follow("n2")
    rig.wait(TICK)
    rig.take_sent()
    return rig


# --- sending and sending again (T4, T5) -----------------------------------------------------------------------------


def test_operations_are_forwarded_as_their_own_bytes():
    """The primary gets exactly the bytes that the contact encoded, in one message."""
    rig = follower()
    rig.submit((ID, ENCODED), (OTHER_ID, OTHER))
    assert forwards(rig) == [("n2", (ENCODED, OTHER))]


def test_levels_of_acknowledgement_travel_apart():
    """A Forward has one level for all of its operations."""
    rig = follower()
    rig.submit((ID, ENCODED), ack=ACK_ALL)
    rig.submit((OTHER_ID, OTHER), ack=ACK_ONE)
    assert [(message.ack, message.operations) for message in rig.of(m.Forward)] == [
        (ACK_ALL, (ENCODED,)),
        (ACK_ONE, (OTHER,)),
    ]


def test_a_new_coordinator_gets_everything_at_once():
    """What waits is sent to a new coordinator at the next tick, with the same request ids."""
    rig = follower()
    rig.submit((ID, ENCODED))
    rig.take_sent()
    rig.step("n3", heartbeat(epoch_of("n3", 2)))
    rig.wait(TICK)
    assert forwards(rig) == [("n3", (ENCODED,))]
    rig.wait(TICK)
    assert forwards(rig) == []


def test_an_operation_is_sent_again_after_a_while():
    """A lost Forward is repeated after some lease lengths, not before."""
    rig = follower()
    rig.submit((ID, ENCODED))
    rig.take_sent()
    for _ in range(RESEND_LEASES * LEASE // HEARTBEAT - 1):
        rig.follow("n2")
        rig.wait(HEARTBEAT)
    assert forwards(rig) == []
    rig.wait(HEARTBEAT)
    assert forwards(rig) == [("n2", (ENCODED,))]


def test_an_operation_waits_here_while_nobody_is_in_office():
    """Without a coordinator nothing is sent; the first one that is heard gets it."""
    rig = Rig()
    rig.submit((ID, ENCODED))
    assert forwards(rig) == []
    rig.follow("n2")
    rig.wait(TICK)
    assert forwards(rig) == [("n2", (ENCODED,))]


def test_a_refused_operation_is_tried_again_soon():
    """An operation that the primary took not is sent again within a heartbeat or so."""
    rig = follower()
    rig.submit((ID, ENCODED))
    rig.take_sent()
    rig.step("n2", m.ForwardRefused(overloaded=True, request_ids=(ID, b"unknown")))
    rig.wait(HEARTBEAT + TICK)
    assert forwards(rig) == [("n2", (ENCODED,))]
    assert rig.refused_requests == []


def test_a_request_that_is_there_already_is_kept_once():
    """Two clients with one idempotency key share an operation: the first one's."""
    rig = Rig()
    rig.submit((ID, ENCODED))
    rig.submit((ID, OTHER))
    assert rig.replica.pending_operations() == [(ID, ENCODED)]


# --- abandoning (T5) ------------------------------------------------------------------------------------------------


def test_an_operation_that_was_never_sent_is_abandoned_definitely():
    """Nothing left this node, so nothing happened; and nothing will."""
    rig = Rig()
    rig.submit((ID, ENCODED))
    assert rig.replica.abandon(ID) is False
    rig.follow("n2")
    rig.wait(TICK)
    assert forwards(rig) == []


def test_an_operation_that_was_sent_is_abandoned_indefinitely():
    """Once sent, nobody here knows what became of it; it is not sent again."""
    rig = follower()
    rig.submit((ID, ENCODED))
    rig.take_sent()
    assert rig.replica.abandon(ID) is True
    rig.step("n3", heartbeat(epoch_of("n3", 2)))
    rig.wait(TICK)
    assert forwards(rig) == []


def test_an_unknown_operation_is_abandoned_indefinitely():
    """When in doubt, indefinite is always safe."""
    assert Rig().replica.abandon(b"never heard of") is True


# --- answers (C4, C5, D2) -------------------------------------------------------------------------------------------


def test_an_operation_is_done_when_it_is_applied_here():
    """It waits through acceptance and commit elsewhere, until this node applied it."""
    rig = follower()
    rig.submit((ID, ENCODED))
    epoch = epoch_of("n2")
    rig.step("n2", m.Accept(epoch, 1, 1, 0, (batch(1),)))
    assert rig.replica.pending_operations() == [(ID, ENCODED)]
    rig.step("n2", m.Committed(epoch, 1, 1))
    assert rig.replica.pending_operations() == []


@pytest.mark.parametrize(("ack", "answered"), [(ACK_ALL, False), (ACK_MAJORITY, True), (ACK_ONE, True)])
def test_only_the_lower_levels_are_answered_before_they_are_applied(ack, answered):
    """`Durable` ends operations that asked for less than all, and no others (C5)."""
    rig = follower()
    rig.submit((ID, ENCODED), ack=ack)
    rig.step("n2", m.Durable((ID,)))
    assert rig.durable_requests == ([ID] if answered else [])
    assert rig.replica.pending_operations() == ([] if answered else [(ID, ENCODED)])


def test_an_operation_expires_when_every_slot_of_its_window_was_applied():
    """Once slot base+W is applied here without it, it never will be: a definite answer (D2)."""
    rig = Rig()
    rig.submit((ID, ENCODED))
    install(rig, LIMITS.request_window_slots - 1)
    rig.wait(TICK)
    assert rig.refused_requests == []
    slot = LIMITS.request_window_slots
    rig.step("n2", m.Accept(epoch_of("n2"), 1, slot, slot, (batch(9),)))
    rig.wait(TICK)
    assert rig.applied[-1][0] == slot
    assert rig.refused_requests == [(ID, "expired")]


def test_the_result_expired_may_belong_to_another_contacts_copy():
    """The slot's own EXPIRED does not end the operation; the contact judges by its own base."""
    rig = follower()
    rig.submit((ID, ENCODED))
    rig.replica.contact.finish([(ID, Result(EXPIRED, 3))])
    assert rig.replica.pending_operations() == [(ID, ENCODED)]
    rig.replica.contact.finish([(ID, Result(APPLIED, 3))])
    assert rig.replica.pending_operations() == []


def install(rig, slot, results=()):
    rig.take(rig.replica.installed(slot, bytes(16), b"", list(results), rig.now))


def test_a_checkpoint_beyond_the_window_leaves_the_outcome_unknown():
    """After a jump over the whole window nobody can know whether the operation was applied and forgotten (D2)."""
    rig = Rig()
    rig.submit((ID, ENCODED))
    install(rig, LIMITS.request_window_slots)
    assert rig.refused_requests == [(ID, "unknown_outcome")]
    assert rig.replica.pending_operations() == []


def test_a_checkpoint_that_remembers_the_operation_ends_it():
    """What the installed state remembers is done; the rest goes on waiting."""
    rig = Rig()
    rig.submit((ID, ENCODED), (OTHER_ID, OTHER))
    install(rig, 5, [(ID, Result(APPLIED, 2))])
    assert rig.replica.pending_operations() == [(OTHER_ID, OTHER)]
    assert rig.refused_requests == []


# --- the primary as contact and for contacts ------------------------------------------------------------------------


def primary(**fields):
    rig = Rig(**fields)
    rig.elect()
    rig.acknowledge()
    rig.serve(2 * HEARTBEAT)
    rig.take_sent()
    return rig


def test_a_forward_to_a_node_out_of_office_is_refused():
    """The contact hears at once that nothing was done with its operations."""
    rig = follower()
    assert rig.step("n3", m.Forward(ACK_ALL, (ENCODED,))) == [("n3", m.ForwardRefused(False, (ID,)))]


def test_a_full_queue_refuses_before_any_work():
    """The primary's own clients get a definite `overloaded`, another contact a refusal by request id."""
    rig = primary()
    size = LIMITS.value_bytes_max
    count = LIMITS.open_bytes_max // size + 1
    for first in (100, 300):  # the first series fills the open slots, the second one the queue
        rig.submit(*[operation(number, value=bytes(size)) for number in range(first, first + count + 5)])
    assert {kind for _, kind in rig.refused_requests} == {"overloaded"}
    before = len(rig.slots())
    rig.take_sent()
    rig.step("n3", m.Forward(ACK_ALL, (ENCODED,)))
    assert rig.of(m.ForwardRefused) == [m.ForwardRefused(overloaded=True, request_ids=(ID,))]
    assert len(rig.slots()) == before


@pytest.mark.parametrize(
    ("ack", "accepted", "answered"),
    [(ACK_ONE, [], True), (ACK_MAJORITY, [], False), (ACK_MAJORITY, ["n2"], True), (ACK_ALL, ["n2"], False)],
)
def test_each_level_is_answered_when_its_durability_is_reached(ack, accepted, answered):
    """`one` needs the primary's disk, `majority` a majority of the disks, and neither the commit (C5)."""
    rig = primary()
    rig.step("n3", m.Forward(ack, (ENCODED,)))
    if accepted:
        rig.accept_all(*accepted)
    assert rig.replica.committed == 0
    assert rig.of(m.Durable) == ([m.Durable((ID,))] if answered else [])


def test_one_is_not_answered_before_the_flush():
    """Also the lowest level is durable at one node."""
    rig = primary()
    rig.flushing = False
    rig.step("n3", m.Forward(ACK_ONE, (ENCODED,)))
    assert rig.of(m.Durable) == []
    rig.flush()
    assert rig.of(m.Durable) == [m.Durable((ID,))]


def test_queued_operations_are_refused_when_the_office_ends():
    """Operations without a slot go back to their contacts, who send them to the next primary."""
    rig = primary()
    rig.replica.office.closing = True
    rig.step("n3", m.Forward(ACK_ALL, (ENCODED,)))
    rig.step("n2", heartbeat(epoch_of("n2", 5)))
    assert rig.of(m.ForwardRefused) == [m.ForwardRefused(overloaded=False, request_ids=(ID,))]
    assert rig.slots() == []


# --- read points (R2) -----------------------------------------------------------------------------------------------


def test_a_probe_is_answered_with_the_committed_slot():
    """With authority the coordinator answers at once; the reader applies that slot, then reads."""
    rig = primary()
    assert rig.step("n3", m.ReadProbe(4, 11, False)) == [("n3", m.ReadPoint(4, 11, 0))]


def test_a_confirmed_probe_waits_for_a_round_that_began_after_it():
    """A consistent read trusts no clock: acknowledgements of an older round do not answer it (R2)."""
    rig = primary()
    rig.until(m.Heartbeat)
    old = rig.of(m.Heartbeat)[-1]
    rig.now += 1
    rig.step("n3", m.ReadProbe(4, 11, True))
    rig.step("n2", ack(old))
    assert rig.of(m.ReadPoint) == []
    new = rig.of(m.Heartbeat)[-1]
    assert new.sequence > old.sequence
    rig.step("n2", ack(new))
    assert rig.of(m.ReadPoint) == [m.ReadPoint(4, 11, 0)]


def test_a_probe_without_authority_is_not_answered():
    """A coordinator that may have been replaced answers no read."""
    rig = primary()
    rig.now += LEASE
    assert [message for _, message in rig.step("n3", m.ReadProbe(4, 11, False))] == []


def test_a_read_point_for_an_earlier_process_is_ignored():
    """Answers to another process of this node, and second answers, mean nothing."""
    rig = follower()
    number, effects = rig.replica.probe(confirmed=False, now=rig.now)
    rig.take(effects)
    rig.step("n2", m.ReadPoint(99, number, 5))
    assert rig.read_points == []
    rig.step("n2", m.ReadPoint(7, number, 5))
    rig.step("n2", m.ReadPoint(7, number, 6))
    assert rig.read_points == [(number, 5)]


def test_a_lower_level_is_not_promised_beyond_the_window():
    """An operation that would expire in its slot gets none, instead of an early answer that would be a lie (C5, D2)."""
    rig = primary(limits=replace(LIMITS, request_window_slots=3))
    for number in range(3):
        rig.submit(operation(10 + number))
        rig.accept_all()
    assert rig.replica.committed == 3
    before = len(rig.slots())
    rig.step("n3", m.Forward(ACK_MAJORITY, (ENCODED,)))
    rig.accept_all()
    assert len(rig.slots()) == before
    assert rig.of(m.Durable) == []
    rig.step("n3", m.Forward(ACK_MAJORITY, (operation(3, base=1)[1],)))
    rig.accept_all()
    assert rig.of(m.Durable) == [m.Durable((operation(3)[0],))]


# --- handing on (active replication) --------------------------------------------------------------------------------


def large(number):
    """An operation that is large enough to be handed on."""
    return operation(number, value=b"v" * LIMITS.hand_on_bytes)


def test_members_take_turns_with_large_operations_of_the_sequencers_clients():
    """Every other one leaves the sequencer once, as a Forward, and the next one goes to the next member."""
    rig = Rig("n1", protocol=ACTIVE)
    rig.elect()
    rig.serve(4 * HEARTBEAT)
    assert rig.replica.view == ("n1", "n2", "n3")
    rig.take_sent()
    operations = [large(number) for number in range(1, 5)]
    rig.submit(*operations)
    sent = rig.take_sent()
    assert [(to, m_) for to, m_ in sent if isinstance(m_, m.Forward)] == [
        ("n3", m.Forward(ACK_ALL, (operations[1][1],))),
        ("n2", m.Forward(ACK_ALL, (operations[3][1],))),
    ]
    (accept, _) = [m_ for _, m_ in sent if isinstance(m_, m.SlotAccept)]
    assert decode_batch(accept.value)[1] == (operations[0][1], operations[2][1])


def test_an_operation_that_was_handed_on_comes_back_when_its_member_leaves_the_view():
    """Its client must not wait for a member that is gone (T4)."""
    rig = Rig("n1", protocol=ACTIVE)
    rig.elect()
    rig.serve(4 * HEARTBEAT)
    rig.submit(large(1), large(2))
    rig.take_sent()
    rig.serve(3 * LEASE, "n2")
    proposed = [decode_batch(m_.value)[1] for _, m_ in rig.take_sent(m.SlotAccept)]
    forwarded = [m_.operations for to, m_ in rig.take_sent(m.Forward)]
    assert (large(2)[1],) in proposed or (large(2)[1],) in forwarded


def test_a_member_proposes_what_the_sequencer_hands_on():
    """It asks for a ticket as for its own clients, and answers nobody."""
    rig = Rig("n2", protocol=ACTIVE)
    rig.follow("n1")
    rig.take_sent()
    rig.step("n1", m.Forward(ACK_ALL, (large(1)[1],)))
    assert [m_ for _, m_ in rig.take_sent() if isinstance(m_, m.TicketRequest)] == [
        m.TicketRequest(epoch_of("n1"), 7, 1)
    ]
    rig.step("n1", m.Ticket(7, 1, epoch_of("n1"), 1, 1, 1, ("n1", "n2")))
    assert {decode_batch(m_.value)[1] for _, m_ in rig.take_sent(m.SlotAccept)} == {(large(1)[1],)}
    assert rig.refused_requests == []


def test_a_contact_that_is_far_behind_asks_for_no_tickets():
    """It could not accept the slots that it would get, so the sequencer proposes for it until it has caught up."""
    rig = Rig("n2", protocol=ACTIVE)
    rig.follow("n1", committed=4 * LIMITS.open_slots_max)
    rig.take_sent()
    rig.submit(operation(1))
    sent = [m_ for _, m_ in rig.take_sent()]
    assert [m_ for m_ in sent if isinstance(m_, m.TicketRequest)] == []
    assert m.Forward(ACK_ALL, (operation(1)[1],)) in sent
