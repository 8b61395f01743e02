"""Scripts about tickets and repairs: each comes to the one moment at which its rule matters."""

from __future__ import annotations

from replicad.core.model.operations import ACK_MAJORITY, ACTIVE
from replicad.lab.mutations.drama import Drama
from replicad.lab.mutations.registry import scripted


def _holds_more(drama: Drama, name: str) -> bool:
    """Return whether a node has accepted what it does not know to be committed."""
    log = drama.replica(name).state.log
    return log.highest > log.committed


@scripted("ticket-of-another-process")
def ticket_of_another_process() -> None:
    """A ticket that was used is delivered once more, to the next process of its holder, which asks for one as well.

    The holder loses what it accepted itself, as its disk hung: a process that finds that asks for nothing before the
    slot is committed (K3).
    """
    drama = Drama(protocol=ACTIVE, repair_after_us=250_000)
    sequencer, holder, witness = drama.order
    drama.write(sequencer)
    drama.holding |= {("Ticket", sequencer, holder)}
    drama.begin(holder)
    drama.until(lambda: bool(drama.held), "give a ticket")
    duplicate = list(drama.held)
    drama.dropped |= {("SlotAccept", holder, sequencer)}
    before = drama.node(holder).disk.segments()
    drama.hang(holder, 1_000_000)
    drama.release()
    drama.until(lambda: _holds_more(drama, witness), "accept the batch")
    drama.crash(holder, power=True)
    drama.roll_back(holder, before)
    drama.restart(holder)
    epoch = drama.replica(sequencer).epoch
    drama.until(lambda: drama.replica(holder).epoch == epoch, "follow again")
    drama.dropped |= {("TicketRequest", holder, "*")}
    drama.begin(holder)
    drama.run_for(1_000)
    drama.held += duplicate
    drama.release()
    drama.run_for(10_000)
    drama.end()


@scripted("repair-ignores-view")
def repair_ignores_view() -> None:
    """A batch is found at its contact only; the third member, who reads under a lease, gets nothing of its repair."""
    drama = Drama(protocol=ACTIVE, repair_after_us=25_000)
    sequencer, contact, reader = drama.order
    drama.write(sequencer)
    drama.run_for(10_000)
    drama.dropped |= {("SlotAccept", contact, "*"), ("SlotAccept", sequencer, reader), ("Accept", sequencer, reader)}
    drama.dropped |= {("SlotPrepare", sequencer, reader), ("Slots", "*", reader)}
    drama.write(contact)
    drama.read(reader)
    drama.end()


@scripted("chosen-vouches-for-all")
def chosen_vouches_for_all() -> None:
    """A member holds a batch that a dead epoch left in a slot, and hears that the slot was chosen in the next one."""
    drama = Drama(protocol=ACTIVE)
    first, second, lonely = drama.order
    drama.write(first)
    drama.run_for(10_000)
    drama.dropped |= {("SlotAccept", lonely, "*")}
    drama.begin(lonely)
    drama.until(lambda: _holds_more(drama, lonely), "use its ticket")
    drama.part(lonely)
    drama.crash(first)
    drama.restart(first)
    drama.until(lambda: drama.leads(first) or drama.leads(second), "elect somebody anew")
    drama.dropped -= {("*", first, lonely), ("*", second, lonely)}
    drama.dropped |= {("SlotAccept", "*", lonely), ("Accept", "*", lonely)}
    epoch = drama.replica(first).state.promised
    drama.until(lambda: drama.replica(lonely).epoch == epoch, "follow the next epoch")
    drama.write(second)
    drama.run_for(10_000)
    drama.end()


@scripted("joiners-not-in-tickets", "ticket-view-ignored")
def holder_without_batch() -> None:
    """A batch reaches a majority, and not the one who reads under a lease."""
    drama = Drama(protocol=ACTIVE)
    sequencer, contact, reader = drama.order
    drama.write(sequencer)
    drama.run_for(10_000)
    drama.dropped |= {("SlotAccept", contact, reader), ("Accept", sequencer, reader), ("Slots", "*", reader)}
    drama.write(contact)
    drama.read(reader)
    drama.end()


@scripted("sequencer-reads-its-prefix")
def announcement_lost() -> None:
    """The sequencer does not hear that a slot is chosen; it has accepted the batch, and is asked for the key."""
    drama = Drama(protocol=ACTIVE)
    sequencer, contact, _ = drama.order
    drama.write(sequencer)
    drama.run_for(10_000)
    drama.dropped |= {("Chosen", contact, sequencer)}
    drama.write(contact)
    drama.read(sequencer)
    drama.end()


@scripted("late-proposal-accepted", "repairs-not-listed")
def late_batch() -> None:
    """A contact holds a batch whose slot the others fill with a no-op; it hears of the commit, and sends the batch."""
    drama = Drama(protocol=ACTIVE)
    sequencer, contact, third = drama.order
    drama.write(sequencer)
    drama.run_for(10_000)
    drama.dropped |= {("SlotAccept", contact, "*"), ("HeartbeatAck", contact, sequencer), ("Slots", "*", contact)}
    drama.dropped |= {(name, sequencer, contact) for name in ("SlotPrepare", "SlotAccept", "Accept")}
    drama.begin(contact)
    drama.until(lambda: _holds_more(drama, contact), "use its ticket")
    drama.dropped |= {("Heartbeat", sequencer, contact), ("PreVote", contact, "*")}
    committed = drama.replica(contact).committed
    drama.until(lambda: drama.replica(third).committed > committed, "repair the slot")
    drama.dropped -= {("SlotAccept", contact, "*")}
    drama.run_for(150_000)
    drama.end()


@scripted("promise-ends-at-hole")
def batch_above_hole() -> None:
    """A batch that a majority has lies above a hole, and the sequencer, who does not have it, stands again."""
    drama = Drama(protocol=ACTIVE)
    sequencer, contact, slow = drama.order
    drama.write(sequencer)
    drama.run_for(10_000)
    drama.dropped |= {("Ticket", sequencer, slow), ("SlotAccept", contact, sequencer)}
    drama.dropped |= {("PreVote", contact, "*"), ("PreVote", slow, "*")}
    drama.begin(slow)
    drama.run_for(1_000)
    outcomes = drama.begin(contact, ACK_MAJORITY)
    drama.until(lambda: bool(outcomes), "have it at a majority", 50_000)
    drama.crash(sequencer)
    drama.restart(sequencer)
    drama.until(lambda: drama.leads(sequencer) and drama.ready(), "elect it again")
    drama.read(sequencer)
    drama.end()


@scripted("repair-takes-noop", "repair-without-majority")
def batch_without_sequencer() -> None:
    """Two of three have a batch, and its client was told so; the sequencer, who has it not, repairs its slot."""
    drama = Drama(protocol=ACTIVE)
    sequencer, contact, _ = drama.order
    drama.write(sequencer)
    drama.run_for(10_000)
    drama.dropped |= {("SlotAccept", contact, sequencer)}
    committed = drama.replica(sequencer).committed
    outcomes = drama.begin(contact, ACK_MAJORITY)
    drama.until(lambda: bool(outcomes), "have it at a majority", 50_000)
    drama.until(lambda: drama.replica(sequencer).committed > committed, "repair the slot")
    drama.read(sequencer)
    drama.end()


@scripted("repair-counted-at-round-0")
def repair_with_old_acceptance() -> None:
    """A contact is alive and holds its batch at round 0, hears nothing of the repair, and is in the view."""
    drama = Drama(protocol=ACTIVE, repair_after_us=25_000)
    sequencer, contact, _ = drama.order
    drama.write(sequencer)
    drama.run_for(10_000)
    drama.dropped |= {("SlotAccept", contact, "*"), ("Slots", "*", contact)}
    drama.dropped |= {(name, sequencer, contact) for name in ("SlotPrepare", "SlotAccept", "Accept")}
    drama.begin(contact)
    drama.run_for(400_000)
    drama.end()


@scripted("ticket-majority-ignored")
def holder_in_small_view() -> None:
    """Three of five disks are full, so the view is two; a batch of theirs must not be lost with both."""
    drama = Drama(5, protocol=ACTIVE)
    sequencer, contact, *others = drama.order
    drama.write(sequencer)
    for name in others:
        drama.nodes[name].set_full(full=True)
    drama.until(lambda: len(drama.replica(sequencer).view) == len((sequencer, contact)), "drop the full ones")
    drama.begin(contact)
    drama.run_for(20_000)
    drama.part(sequencer, contact)
    for name in others:
        drama.nodes[name].set_full(full=False)
    drama.eager(others[0])
    drama.until(lambda: drama.leads(others[0]) and drama.replica(others[0]).applied > 0, "elect one of the others")
    drama.until(lambda: drama.read(others[0]), "read")
    drama.end()
