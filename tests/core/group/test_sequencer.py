"""The sequencer: it gives slots away, sees no payload, and counts who has accepted what."""

from replicad.core.group.log import value_digest
from replicad.core.group.sequencer import GRANTS_REMEMBERED
from replicad.core.model import messages as m
from replicad.core.model.limits import Limits
from replicad.core.model.operations import ACTIVE
from tests.core.group.rigs import HEARTBEAT, LEASE, TICK, Rig, ack, batch, epoch_of, names, operation

BOOT = 9
"""Of the other members' processes."""


def sequencer(count=3, **fields):
    """``n1`` in office, with everyone in its view."""
    rig = Rig(count=count, protocol=ACTIVE, **fields)
    rig.elect()
    rig.acknowledge()
    rig.serve(2 * HEARTBEAT)
    assert sorted(rig.replica.view) == sorted(names(count))
    rig.take_sent()
    return rig


def ask(rig, sender="n2", number=1, boot=BOOT):
    """A contact asks; returns the tickets that are sent."""
    sent = rig.step(sender, m.TicketRequest(rig.replica.epoch, boot, number))
    return [message for to, message in sent if isinstance(message, m.Ticket) and to == sender]


def slots_of(tickets):
    return [ticket.slot for ticket in tickets]


# --- tickets (T1, T2, V1) ---------------------------------------------------------------------------------------------


def test_a_ticket_names_the_slot_the_configuration_and_the_view():
    """All that the holder needs to commit its batch without the sequencer."""
    rig = sequencer()
    office = rig.replica.office
    [ticket] = ask(rig)
    assert ticket == m.Ticket(BOOT, 1, rig.replica.epoch, 1, 1, office.view.number, ("n1", "n2", "n3"))
    assert rig.slots() == []  # it has seen no payload, and logs nothing


def test_asking_again_gives_the_same_slot():
    """A request that was repeated, or delivered twice, costs no second slot."""
    rig = sequencer()
    assert slots_of([*ask(rig), *ask(rig), *ask(rig, number=2), *ask(rig)]) == [1, 1, 2, 1]


def test_another_process_of_the_contact_gets_slots_of_its_own():
    """Numbers begin anew with each process; what the earlier one was given is its own affair."""
    rig = sequencer()
    first = ask(rig)
    assert ask(rig, boot=BOOT + 1) == []  # that process has not been heard of yet
    rig.until(m.Heartbeat)
    rig.acknowledge("n2", boot=BOOT + 1)
    assert slots_of([*first, *ask(rig, boot=BOOT + 1), *ask(rig, sender="n3")]) == [1, 2, 3]
    assert ask(rig) == []  # a request of the earlier process that was long on its way


def test_a_request_of_an_earlier_epoch_gets_nothing():
    """It was meant for another coordinator."""
    rig = sequencer()
    assert rig.step("n2", m.TicketRequest(rig.replica.epoch - 1, BOOT, 1)) == []


def test_what_an_earlier_process_waits_for_is_dropped():
    """No slot goes to a process that cannot take it any more."""
    rig = sequencer(limits=Limits(open_slots_max=1))
    ask(rig)
    assert ask(rig, number=2) == []
    rig.until(m.Heartbeat)
    rig.acknowledge("n2", boot=BOOT + 1, matched=0)
    assert ask(rig, boot=BOOT + 1) == []
    rig.accept_all()
    rig.step("n2", m.SlotAccept(rig.replica.epoch, 0, 1, batch(1)))
    rig.accept_all()
    granted = rig.take_sent(m.Ticket)
    assert [(ticket.boot, ticket.slot) for _, ticket in granted][1:] == [(BOOT + 1, 2)]


def test_a_very_old_request_gets_nothing():
    """What was given for it is forgotten; it must not be given a second slot."""
    rig = sequencer(limits=Limits(open_slots_max=2 * GRANTS_REMEMBERED))
    for number in range(1, GRANTS_REMEMBERED + 3):
        assert slots_of(ask(rig, number=number)) == [number]
    assert ask(rig, number=2) == []
    assert slots_of(ask(rig, number=3)) == [3]


def test_open_slots_are_bounded():
    """A contact waits for its ticket until a slot is committed."""
    rig = sequencer(limits=Limits(open_slots_max=2))
    assert slots_of([*ask(rig), *ask(rig, number=2)]) == [1, 2]
    assert ask(rig, sender="n3") == []
    rig.step("n2", m.SlotAccept(rig.replica.epoch, 0, 1, batch(1)))
    rig.step("n2", m.Accepted(rig.replica.epoch, 1, False))
    sent = rig.step("n3", m.Accepted(rig.replica.epoch, 1, False))
    assert [(to, message.slot) for to, message in sent if isinstance(message, m.Ticket)] == [("n3", 3)]


def test_waiting_requests_of_one_contact_are_bounded():
    """More than it may have in flight are not kept; it asks again."""
    rig = sequencer(limits=Limits(open_slots_max=1, tickets_max=2))
    for number in range(1, 9):
        ask(rig, number=number)
        ask(rig, number=number)
    assert [number for _, _, number in rig.replica.office.sequencer.waiting] == [2, 3]


def test_nothing_is_given_away_while_the_office_closes():
    """Above a configuration entry, and after the end of an office, there are no slots (M1)."""
    rig = sequencer()
    rig.replica.office.closing = True
    assert ask(rig) == []
    rig.replica.office.closing = False
    assert slots_of(ask(rig)) == [1]


def test_a_joiner_is_in_the_tickets_from_then_on():
    """Whoever may read has to have what was committed (V1)."""
    rig = Rig(protocol=ACTIVE)
    rig.elect()
    rig.acknowledge("n2")
    rig.serve(2 * HEARTBEAT, "n2")
    [before] = ask(rig)
    assert before.members == ("n1", "n2")
    rig.serve(2 * HEARTBEAT, "n2", "n3")
    [after] = ask(rig, number=2)
    assert after.members == ("n1", "n2", "n3")
    assert after.view == before.view + 1


def test_tickets_begin_above_what_the_election_found():
    """Slots that some member has accepted are the coordinator's to propose again (E3)."""
    rig = Rig(protocol=ACTIVE)
    old = epoch_of("n3")
    prepare = rig.elect({"n2": {"entries": [(2, old, 0, value_digest(batch(2)))]}})
    rig.step("n2", m.Values(prepare.epoch, ((2, old, 0, batch(2)),)))
    assert rig.replica.office.recovered == 2
    rig.acknowledge()
    assert slots_of(ask(rig)) == [3]


def test_a_contact_that_is_not_heard_gets_no_ticket():
    """It would hardly reach it, and leave a hole for everyone; the contact asks again."""
    rig = sequencer(3)
    rig.serve(4 * HEARTBEAT, "n3")
    assert ask(rig) == []
    rig.serve(HEARTBEAT)
    assert slots_of(ask(rig)) == [1]


def test_the_sequencers_own_clients_need_no_messages_for_a_ticket():
    """Its contact takes the ticket in the same step, and proposes like any other."""
    rig = sequencer()
    sent = rig.submit(operation(1))
    assert sent == [(peer, m.SlotAccept(rig.replica.epoch, 0, 1, batch(1))) for peer in ("n2", "n3")]
    for peer in ("n2", "n3"):
        rig.step(peer, m.SlotAccepted(rig.replica.epoch, 0, 1))
    assert rig.applied == [(1, batch(1))]
    assert rig.of(m.Chosen) == [m.Chosen(rig.replica.epoch, (1,))] * 2


# --- slots of both kinds (P1) -----------------------------------------------------------------------------------------


def test_each_slot_has_one_proposer_settled_when_it_is_assigned():
    """Forwarded operations and tickets share one row of slots; what was given away is not sent from here."""
    rig = sequencer()
    assert slots_of(ask(rig)) == [1]
    sent = rig.step("n3", m.Forward(0, (operation(5)[1],)))
    assert [(message.first, message.values) for _, message in sent] == [(2, (batch(5),))] * 2
    assert slots_of(ask(rig, number=2)) == [3]


def test_a_batch_that_is_here_is_relayed_to_a_member_that_lacks_it():
    """The holder may be gone; nothing is repaired where the batch can be read."""
    rig = sequencer()
    ask(rig)
    epoch = rig.replica.epoch
    rig.step("n2", m.SlotAccept(epoch, 0, 1, batch(1)))
    rig.take_sent()
    rig.serve(4 * HEARTBEAT, matched=0)
    relayed = {to for to, message in rig.take_sent(m.Accept) if (message.first, message.values) == (1, (batch(1),))}
    assert relayed == {"n2", "n3"}


# --- committing and reading (C1, R1) ----------------------------------------------------------------------------------


def test_the_sequencer_commits_a_holders_slot_by_what_members_have_accepted():
    """If the holder's own announcement is lost, the heartbeats' answers settle the slot."""
    rig = sequencer()
    ask(rig)
    rig.step("n2", m.SlotAccept(rig.replica.epoch, 0, 1, batch(1)))
    rig.until(m.Heartbeat)
    beat = rig.of(m.Heartbeat)[-1]
    rig.step("n2", ack(beat, matched=1))
    assert rig.replica.committed == 0
    rig.step("n3", ack(beat, matched=1))
    assert rig.replica.committed == 1


def test_a_slot_above_a_hole_is_not_committed():
    """Slots are committed in order, whatever the order in which batches come."""
    rig = sequencer()
    ask(rig)
    ask(rig, number=2)
    epoch = rig.replica.epoch
    rig.step("n2", m.SlotAccept(epoch, 0, 2, batch(2)))
    rig.step("n2", m.Chosen(epoch, (2,)))
    assert rig.replica.committed == 0
    rig.step("n2", m.SlotAccept(epoch, 0, 1, batch(1)))
    rig.step("n2", m.Chosen(epoch, (1,)))
    assert rig.applied == [(1, batch(1)), (2, batch(2))]


def test_what_holders_have_announced_is_not_announced_again():
    """Everyone heard it from the contact, at the same time as the sequencer."""
    rig = sequencer()
    ask(rig)
    epoch = rig.replica.epoch
    rig.step("n2", m.SlotAccept(epoch, 0, 1, batch(1)))
    rig.take_sent()
    rig.step("n2", m.Chosen(epoch, (1,)))
    assert rig.replica.committed == 1
    assert rig.take_sent(m.Committed) == []


def test_a_read_at_the_sequencer_waits_for_what_it_has_accepted():
    """A holder may have committed, and answered, what is only accepted here (R1)."""
    rig = sequencer()
    ask(rig)
    assert rig.replica.read_slot(rig.now) == 0
    rig.step("n2", m.SlotAccept(rig.replica.epoch, 0, 1, batch(1)))
    assert rig.replica.committed == 0
    assert rig.replica.read_slot(rig.now) == 1


def test_a_primarys_read_waits_for_what_is_committed_only():
    """Where nobody else proposes, nobody else can have answered."""
    rig = sequencer()
    rig.step("n3", m.Forward(0, (operation(5)[1],)))
    assert rig.replica.read_slot(rig.now) == 0


def test_a_hole_costs_nobody_a_lease():
    """Members cannot accept what nobody has sent: they stay in the view, however long a slow contact is given."""
    rig = sequencer(limits=Limits(repair_after_us=2_000_000))
    ask(rig)
    ask(rig, sender="n3")
    rig.step("n3", m.SlotAccept(rig.replica.epoch, 0, 2, batch(2)))
    rig.take_sent()
    rig.serve(4 * LEASE, matched=0)
    assert rig.replica.view == ("n1", "n2", "n3")
    assert "view_dropped" not in rig.event_names()
    assert rig.of(m.Accept) == []  # nor are they sent what they hold already


def test_a_member_without_a_batch_that_is_here_loses_its_lease():
    """It leaves a slot unaccepted for too long, whoever proposed that (V2)."""
    rig = sequencer()
    ask(rig)
    rig.step("n2", m.SlotAccept(rig.replica.epoch, 0, 1, batch(1)))
    end = rig.now + 3 * LEASE
    while rig.now < end:
        if any(isinstance(message, m.Heartbeat) for _, message in rig.wait(TICK)):
            rig.acknowledge("n2", matched=1)
            rig.acknowledge("n3", matched=0)
    assert rig.replica.committed == 1
    assert ("view_dropped", {"member": "n3"}) in rig.events


def test_leaving_office_ends_all_tickets():
    """A later office of the same node knows nothing of the tickets of this one."""
    rig = sequencer(limits=Limits(open_slots_max=1))
    ask(rig)
    ask(rig, number=2)
    rig.wait(2 * LEASE)
    assert rig.replica.office is None
    assert rig.step("n2", m.TicketRequest(rig.replica.epoch, BOOT, 2)) == []
