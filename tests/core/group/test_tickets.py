"""The contact's side of active replication: it closes batches, proposes them, and counts the answers."""

import pytest

from replicad.core.detection.patience import Patience
from replicad.core.group.log import value_digest
from replicad.core.model import messages as m
from replicad.core.model.configuration import Configuration
from replicad.core.model.limits import Limits
from replicad.core.model.operations import (
    ACK_MAJORITY,
    ACK_ONE,
    ACTIVE,
    CONFIGURATION,
    NOOP_BATCH,
    OPERATIONS,
    REMOTE_WRITE,
    encode_batch,
)
from tests.core.group.rigs import (
    HEARTBEAT,
    LEASE,
    TICK,
    Rig,
    batch,
    configuration_of,
    epoch_of,
    operation,
)

BOOT = 7
"""Of the process in a rig."""
N2, N3 = epoch_of("n2"), epoch_of("n3", 2)
"""Two epochs of two sequencers, the second one higher."""
EVERYONE = ("n2", "n1", "n3")


def ticket(number=1, slot=1, epoch=N2, *, boot=BOOT, members=EVERYONE, configuration=1):
    """A ticket of ``n2``, whose view is everyone."""
    return m.Ticket(boot, number, epoch, slot, configuration, 1, members)


def contact(**fields):
    """``n1`` under the sequencer ``n2``, of a group that is fed actively."""
    rig = Rig(protocol=ACTIVE, **fields)
    rig.follow("n2")
    rig.take_sent()
    return rig


def proposing(*numbers, **fields):
    """A contact that has just proposed operations of these numbers in slot 1."""
    rig = contact(**fields)
    rig.submit(*map(operation, numbers or [1]))
    rig.step("n2", ticket())
    return rig


def batch_of(*numbers):
    """A batch of several puts."""
    return encode_batch(OPERATIONS, [operation(number)[1] for number in numbers])


def to_both(message):
    """What is sent to everyone."""
    return [("n2", message), ("n3", message)]


def accepted(slot=1, epoch=N2, round_=0):
    return m.SlotAccepted(epoch, round_, slot)


# --- asking and proposing (T1, T2) ------------------------------------------------------------------------------------


def test_a_write_takes_a_ticket_and_goes_to_all_members_from_here():
    """The contact asks the sequencer for a slot, and sends the batch itself; it is logged like any other."""
    rig = contact()
    assert rig.submit(operation(1)) == [("n2", m.TicketRequest(N2, BOOT, 1))]
    assert rig.step("n2", ticket()) == to_both(m.SlotAccept(N2, 0, 1, batch(1)))
    assert rig.slots() == [(1, N2, batch(1))]


def test_the_ticket_closes_the_batch_with_the_oldest_operations_first():
    """What has come until the ticket is one batch; what does not fit waits for the next ticket."""
    rig = contact(limits=Limits(batch_operations_max=2))
    rig.submit(operation(1))
    assert rig.submit(operation(2), operation(3)) == []  # one ticket is under way already
    sent = rig.step("n2", ticket())
    assert [message for _, message in sent[:2]] == [m.SlotAccept(N2, 0, 1, batch_of(1, 2))] * 2
    assert sent[2:] == [("n2", m.TicketRequest(N2, BOOT, 2))]
    assert rig.step("n2", ticket(2, slot=2)) == to_both(m.SlotAccept(N2, 0, 2, batch_of(3)))


def test_a_batch_holds_no_more_bytes_than_it_may():
    """An operation that would make the batch too long waits for the next one."""
    rig = contact(limits=Limits(batch_bytes_max=300, value_bytes_max=300))
    rig.submit(operation(1, value=b"x" * 200), operation(2, value=b"y" * 200))
    rig.step("n2", ticket())
    assert [message.value for message in rig.of(m.SlotAccept)] == [batch(1, value=b"x" * 200)] * 2


def test_tickets_in_flight_are_bounded():
    """So many batches of a contact are under way at most; the next ticket is asked for when one is committed."""
    rig = contact(limits=Limits(tickets_max=2))
    for number in (1, 2):
        rig.submit(operation(number))
        rig.step("n2", ticket(number, slot=number))
    assert rig.submit(operation(3)) == []
    rig.step("n2", accepted())
    sent = rig.step("n3", accepted())
    assert ("n2", m.TicketRequest(N2, BOOT, 3)) in [*sent, *rig.wait(TICK)]


def test_an_empty_batch_is_proposed_as_a_no_op():
    """A slot that was given away must be filled, also when its operations were given up meanwhile."""
    rig = contact()
    request_id, encoded = operation(1)
    rig.submit((request_id, encoded))
    rig.replica.abandon(request_id)
    assert rig.step("n2", ticket()) == to_both(m.SlotAccept(N2, 0, 1, NOOP_BATCH))


def test_a_ticket_is_used_once():
    """A ticket that the network delivers twice is worth one batch."""
    rig = proposing()
    rig.submit(operation(2))
    assert rig.step("n2", ticket()) == []
    assert rig.step("n2", ticket(slot=5)) == []
    assert rig.slots() == [(1, N2, batch(1))]


def test_a_ticket_of_an_earlier_process_is_not_used():
    """Only the process that asked knows whether the slot was proposed for before."""
    rig = contact()
    rig.submit(operation(1))
    assert rig.step("n2", ticket(boot=BOOT - 1)) == []
    assert rig.slots() == []


def test_a_ticket_that_nobody_asked_for_is_not_used():
    """A number that is not outstanding here belongs to nobody."""
    rig = contact()
    assert rig.step("n2", ticket(9)) == []
    assert rig.slots() == []


def test_a_ticket_of_an_older_epoch_is_not_used():
    """Under a newer sequencer the slots of the older one mean nothing; the operation asks the newer one."""
    rig = contact()
    rig.submit(operation(1))
    assert ("n3", m.TicketRequest(N3, BOOT, 2)) in rig.follow("n3", epoch=N3)
    assert rig.step("n2", ticket()) == []
    assert rig.slots() == []


def test_a_ticket_whose_slot_is_decided_is_not_used():
    """It was so long under way that the slot was repaired; the operation asks again."""
    rig = contact()
    rig.submit(operation(1))
    rig.step("n2", m.Accept(N2, 1, 1, 1, (NOOP_BATCH,)))
    assert rig.step("n2", ticket()) == [("n2", m.TicketRequest(N2, BOOT, 2))]
    assert rig.of(m.SlotAccept) == []


def test_a_ticket_whose_slot_is_under_repair_is_not_used():
    """This member has promised the slot to the repair; nothing of the batch has left, so it takes another slot."""
    rig = contact()
    rig.submit(operation(1))
    rig.step("n2", m.SlotPrepare(N2, 1, 1))
    assert rig.step("n2", ticket()) == [("n2", m.TicketRequest(N2, BOOT, 2))]
    assert rig.step("n2", ticket(2, slot=2)) == to_both(m.SlotAccept(N2, 0, 2, batch(1)))


def test_a_ticket_that_does_not_come_is_asked_for_again_with_its_number():
    """The sequencer recognises the request, and gives the same slot (T1)."""
    rig = contact()
    rig.submit(operation(1))
    rig.take_sent()
    rig.wait(HEARTBEAT + TICK)
    assert rig.take_sent() == [("n2", m.TicketRequest(N2, BOOT, 1))]


def test_a_proposal_is_sent_again_to_those_who_did_not_answer():
    """A lost SlotAccept, or a lost answer, is made good by the holder while it lives."""
    rig = proposing()
    rig.step("n2", accepted())
    rig.take_sent()
    rig.wait(Patience.PROPOSAL.heartbeats * HEARTBEAT + TICK)
    assert [item for item in rig.take_sent() if isinstance(item[1], m.SlotAccept)] == [
        ("n3", m.SlotAccept(N2, 0, 1, batch(1)))
    ]


def test_an_operation_waits_for_a_sequencer_to_be_known():
    """Without a coordinator nobody is asked; with the first heartbeat the ticket is."""
    rig = Rig(protocol=ACTIVE)
    assert rig.submit(operation(1)) == []
    rig.follow("n2")
    assert m.TicketRequest(N2, BOOT, 1) in rig.of(m.TicketRequest)


def test_what_would_expire_in_the_slot_is_not_put_there():
    """A batch takes no operation beyond its window (D2): it would be lost, and nobody would know."""
    rig = contact(limits=Limits(request_window_slots=5))
    rig.submit(operation(1))
    assert rig.step("n2", ticket(slot=6)) == to_both(m.SlotAccept(N2, 0, 6, NOOP_BATCH))


# --- committing (C1) --------------------------------------------------------------------------------------------------


def test_a_batch_is_committed_when_the_whole_view_has_it():
    """The last acceptance makes the holder tell everyone, and apply it."""
    rig = proposing()
    assert rig.step("n2", accepted()) == []  # a majority, but n3 may be reading
    assert rig.step("n3", accepted()) == to_both(m.Chosen(N2, (1,)))
    assert rig.applied == [(1, batch(1))]


def test_a_small_view_does_not_make_a_majority():
    """However few hold leases, more than half of all members must have the batch."""
    rig = contact(count=5)
    rig.submit(operation(1))
    rig.step("n2", ticket(members=("n2", "n1")))
    rig.step("n2", accepted())
    assert rig.of(m.Chosen) == []
    rig.step("n4", accepted())
    assert rig.of(m.Chosen) == [m.Chosen(N2, (1,))] * 4


def test_the_own_acceptance_counts_once_it_is_durable():
    """The holder's disk is one of the disks that must have the batch."""
    rig = contact(flushing=False)
    rig.submit(operation(1))
    rig.step("n2", ticket())
    rig.step("n2", accepted())
    assert rig.step("n3", accepted()) == []
    assert rig.flush() == to_both(m.Chosen(N2, (1,)))


@pytest.mark.parametrize("answer", [accepted(round_=1), accepted(epoch=N3), accepted(slot=2)])
def test_an_acceptance_at_another_ballot_does_not_count(answer):
    """What a repair, another epoch or another slot was answered says nothing of this batch."""
    rig = proposing()
    rig.step("n2", accepted())
    rig.step("n3", answer)
    assert rig.of(m.Chosen) == []


def test_a_member_that_answers_twice_counts_once():
    """Acceptances are counted by member."""
    rig = contact(count=5)
    rig.submit(operation(1))
    rig.step("n2", ticket(members=("n2", "n1")))
    for _ in range(3):
        rig.step("n2", accepted())
    assert rig.of(m.Chosen) == []


def test_a_ticket_of_another_configuration_is_left_to_the_sequencer():
    """Whose acceptance counts is said by a configuration; with another one than the ticket's nobody can tell here."""
    rig = contact()
    rig.submit(operation(1))
    rig.step("n2", ticket(configuration=2))
    rig.step("n2", accepted())
    rig.step("n3", accepted())
    assert rig.of(m.Chosen) == []


def test_nothing_is_committed_after_a_newer_promise():
    """Another candidate may have read the members' acceptances before this batch was among them."""
    rig = proposing()
    rig.step("n2", accepted())
    rig.now += LEASE
    rig.step("n3", m.Prepare(N3, 1, 1, 0))
    assert rig.replica.state.promised == N3
    rig.step("n3", accepted())
    assert rig.of(m.Chosen) == []


def test_a_slot_that_others_committed_first_is_not_announced_again():
    """The sequencer counts, too; its watermark settles the batch."""
    rig = proposing()
    rig.step("n2", m.Committed(N2, 1, 1))
    assert rig.applied == [(1, batch(1))]
    rig.step("n2", accepted())
    rig.step("n3", accepted())
    assert rig.of(m.Chosen) == []


# --- lost slots (T4) --------------------------------------------------------------------------------------------------


def test_a_newer_epoch_makes_the_contact_propose_again():
    """The old sequencer's slots are settled by the election; the same operations ask for another one."""
    rig = proposing()
    assert ("n3", m.TicketRequest(N3, BOOT, 2)) in rig.follow("n3", epoch=N3)
    assert rig.step("n3", ticket(2, slot=2, epoch=N3)) == to_both(m.SlotAccept(N3, 0, 2, batch(1)))


def test_another_value_in_its_slot_makes_the_contact_propose_again():
    """A repair has put a no-op there: the batch goes into the next slot, request ids unchanged."""
    rig = proposing(1, 2)
    sent = rig.step("n2", m.SlotAccept(N2, 1, 1, NOOP_BATCH))
    assert ("n2", m.SlotAccepted(N2, 1, 1)) in sent
    rig.step("n2", m.Committed(N2, 1, 1, (1, 1)))
    assert rig.applied == [(1, NOOP_BATCH)]
    rig.wait(TICK)
    assert rig.of(m.TicketRequest)[-1] == m.TicketRequest(N2, BOOT, 2)
    assert rig.step("n2", ticket(2, slot=2)) == to_both(m.SlotAccept(N2, 0, 2, batch_of(1, 2)))


def test_a_batch_that_a_repair_has_kept_is_not_proposed_again():
    """The slot is decided with this very batch: its operations are done."""
    rig = proposing()
    rig.step("n2", m.SlotAccept(N2, 1, 1, batch(1)))
    rig.step("n2", m.Committed(N2, 1, 1, (1, 1)))
    rig.take_sent()
    rig.wait(5 * HEARTBEAT)
    assert rig.applied == [(1, batch(1))]
    assert rig.take_sent(m.TicketRequest) == []


def test_a_slot_decided_otherwise_makes_the_contact_propose_again_at_once():
    """A member answers with the digest of what it has; the contact need not wait to learn that value."""
    rig = proposing()
    decided = m.Decided(N2, 1, value_digest(NOOP_BATCH))
    assert rig.step("n3", decided) == [("n2", m.TicketRequest(N2, BOOT, 2))]


def test_a_slot_decided_with_this_batch_is_fetched():
    """A member has it committed, but does not say at which ballot: for others nothing follows from that (C3)."""
    rig = proposing()
    assert rig.step("n3", m.Decided(N2, 1, value_digest(batch(1)))) == [("n3", m.FetchSlots(1))]
    rig.step("n3", m.Slots(1, 1, ((1, N3, 0, batch(1)),)))
    assert rig.applied == [(1, batch(1))]
    assert rig.of(m.Chosen) == []


def test_a_slot_that_is_truncated_elsewhere_says_nothing_of_the_batch():
    """Without a digest the contact waits until it knows the slot itself."""
    rig = proposing()
    assert rig.step("n3", m.Decided(N2, 1, b"")) == []
    rig.wait(HEARTBEAT)
    assert rig.of(m.TicketRequest) == [m.TicketRequest(N2, BOOT, 1)]


def test_what_was_given_up_is_not_proposed_again():
    """A client whose deadline passed does not want a second try."""
    rig = proposing(1, 2)
    rig.replica.abandon(operation(1)[0])
    rig.step("n3", m.Decided(N2, 1, value_digest(NOOP_BATCH)))
    assert rig.step("n2", ticket(2, slot=2)) == to_both(m.SlotAccept(N2, 0, 2, batch(2)))


def test_an_operation_is_definite_only_before_its_batch_is_sent():
    """Until the ticket has come nothing can have happened (T5)."""
    rig = contact()
    rig.submit(operation(1), operation(2))
    assert not rig.replica.abandon(operation(1)[0])
    rig.step("n2", ticket())
    assert rig.replica.abandon(operation(2)[0])


def test_a_ticket_asked_for_as_a_new_epoch_begins_is_used():
    """Only what belongs to the old epoch is void; a slot of the new one that is not used would be a hole."""
    rig = proposing()
    rig.follow("n3", epoch=N3)
    rig.wait(TICK)
    assert rig.of(m.TicketRequest) == [m.TicketRequest(N2, BOOT, 1), m.TicketRequest(N3, BOOT, 2)]
    assert rig.step("n3", ticket(2, slot=2, epoch=N3)) == to_both(m.SlotAccept(N3, 0, 2, batch(1)))
    rig.wait(TICK)
    rig.step("n2", accepted(2, N3))
    assert rig.step("n3", accepted(2, N3)) == to_both(m.Chosen(N3, (2,)))


# --- less than all (C5) -----------------------------------------------------------------------------------------------


def test_one_is_answered_once_the_holder_has_it_on_disk():
    """The least that can be promised: it survives here."""
    rig = contact(flushing=False)
    rig.submit(operation(1), ack=ACK_ONE)
    rig.step("n2", ticket())
    assert rig.durable_requests == []
    rig.flush()
    assert rig.durable_requests == [operation(1)[0]]


def test_majority_is_answered_without_waiting_for_the_whole_view():
    """Two of three have it on disk; the third may not show it yet."""
    rig = contact()
    rig.submit(operation(1), ack=ACK_MAJORITY)
    rig.step("n2", ticket())
    assert rig.durable_requests == []
    rig.step("n2", accepted())
    assert rig.durable_requests == [operation(1)[0]]
    assert rig.of(m.Chosen) == []


def test_an_operation_answered_early_is_not_proposed_again():
    """`one` may be lost with its slot: nobody waits for it any more."""
    rig = contact()
    rig.submit(operation(1), ack=ACK_ONE)
    rig.step("n2", ticket())
    rig.take_sent()
    rig.step("n3", m.Decided(N2, 1, value_digest(NOOP_BATCH)))
    rig.wait(HEARTBEAT)
    assert rig.take_sent(m.TicketRequest) == []


# --- the group's preference (P1) --------------------------------------------------------------------------------------


def switch(rig, protocol, slot, sender="n2", epoch=N2):
    """The coordinator commits an entry that prefers this protocol."""
    changed = Configuration.decode(rig.replica.state.configuration.encode()).with_protocol(protocol, slot)
    entry = encode_batch(CONFIGURATION, changed.encode())
    return rig.step(sender, m.Accept(epoch, 1, slot, slot, (entry,)))


def test_a_group_that_prefers_its_primary_forwards():
    """Without tickets a contact passes operations on."""
    rig = Rig(protocol=REMOTE_WRITE)
    rig.follow("n2")
    rig.take_sent()
    assert rig.submit(operation(1)) == [("n2", m.Forward(0, (operation(1)[1],)))]


def test_a_committed_switch_decides_how_the_next_operation_goes():
    """The entry is a preference of the group: from it on contacts ask for tickets, or forward again."""
    rig = Rig(protocol=REMOTE_WRITE)
    rig.follow("n2")
    switch(rig, ACTIVE, 1)
    assert rig.submit(operation(1)) == [("n2", m.TicketRequest(N2, BOOT, 1))]
    switch(rig, REMOTE_WRITE, 2)
    assert rig.submit(operation(2)) == [("n2", m.Forward(0, (operation(2)[1],)))]


def test_what_waits_for_a_ticket_is_forwarded_after_a_switch():
    """Nobody is left in the queue for a ticket that the primary need not give."""
    rig = contact()
    rig.submit(operation(1))
    switch(rig, REMOTE_WRITE, 1)
    assert ("n2", m.Forward(0, (operation(1)[1],))) in rig.wait(TICK)


def test_a_ticket_that_comes_after_a_switch_is_used():
    """The slot was assigned to this contact, and nobody else may propose for it; here, a no-op."""
    rig = contact()
    rig.submit(operation(1))
    switch(rig, REMOTE_WRITE, 1)
    rig.wait(TICK)
    assert rig.step("n2", ticket(slot=2)) == to_both(m.SlotAccept(N2, 0, 2, NOOP_BATCH))


def test_a_node_without_a_vote_forwards_also_in_an_active_group():
    """Its disk is not the one that the configuration names: nothing that it logs would count."""
    rig = Rig(protocol=ACTIVE, disk="another")
    assert configuration_of(3, ACTIVE).protocol == ACTIVE
    assert not rig.replica.contact.proposes()
    assert Rig(protocol=ACTIVE).replica.contact.proposes()
