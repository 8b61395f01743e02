"""Repair of slots whose ticket holder does not propose: both Paxos phases, for one slot alone. Rule T3 of the design.

The election promised all slots at ``(epoch, 0)``. A repair asks for a promise of its slot at ``(epoch, 1)``: with a
majority of answers either the batch is found, or nobody can have committed it, and a no-op takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.core.model.messages import FetchSlots, SlotAccept, SlotPrepare
from replicad.core.model.operations import NOOP_BATCH

if TYPE_CHECKING:
    from replicad.core.group.office import Office
    from replicad.core.model.messages import Decided, SlotAccepted, SlotPromise

REPAIRS_MAX = 64
"""Slots under repair at one time."""
PATIENCE_DOUBLINGS_MAX = 4
LIVE_DOUBLINGS = 2
"""The batch of a contact that lives is most likely only on its way."""
REPAIR_ROUND = 1


@dataclass(slots=True)
class Repair:
    """One slot under repair."""

    slot: int
    flush: int
    """The flush that makes the own promise, later the own acceptance, durable."""
    asked_at: int
    promises: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Member -> ``(round, value)`` that it had accepted."""
    value: bytes | None = None
    """What is proposed (None: still collecting promises)."""
    accepted: dict[str, None] = field(default_factory=dict)
    proposed_at: int = 0


class Repairs:
    """The repairs of one office. An epoch has one coordinator, so one round is enough: nobody competes."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.open: dict[int, Repair] = {}
        self.patience: dict[str, int] = {}
        """Contact -> how often its patience has been doubled: it lives, and was repaired nevertheless."""

    # --- beginning ----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Repair tickets that are overdue, ask again what was not answered, and forget what is committed."""
        office = self.office
        state = office.state
        for slot in [slot for slot in self.open if slot <= state.log.committed]:
            del self.open[slot]
        for slot, contact in list(office.ticketed.items()):
            if len(self.open) >= REPAIRS_MAX or state.now - office.assigned_at(slot) < self.overdue_after(contact):
                break  # slots are assigned in order: the others are younger
            if slot not in self.open and slot > state.log.committed and not self.found(slot):
                self.begin(slot, contact)
        for repair in self.open.values():
            if state.now - repair.asked_at >= state.limits.heartbeat_us:
                self.ask_again(repair)

    def overdue_after(self, contact: str) -> int:
        """Return how long to wait for this contact's batch: longer if it lives, still longer if it was slow (T3)."""
        patience = self.patience.get(contact, 0)
        if self.lives(contact):
            patience = min(patience + LIVE_DOUBLINGS, PATIENCE_DOUBLINGS_MAX)
        return self.office.state.limits.repair_after_us << patience

    def lives(self, contact: str) -> bool:
        """Return whether the contact answers heartbeats."""
        peer = self.office.authority.peers.get(contact)
        return peer is None or self.office.view.fresh(peer)

    def found(self, slot: int) -> bool:
        """Return whether the batch is held here: then it is relayed to whoever lacks it, and nothing else is needed."""
        held = self.office.state.log.get(slot)
        return held is not None and held[0] == self.office.epoch

    def begin(self, slot: int, contact: str) -> None:
        """Ask all members to promise this slot."""
        office = self.office
        state = office.state
        if self.lives(contact):
            self.patience[contact] = min(self.patience.get(contact, 0) + 1, PATIENCE_DOUBLINGS_MAX)
        state.promise_slot(slot, office.epoch, REPAIR_ROUND)
        repair = self.open[slot] = Repair(slot, state.tickets + 1, state.now)
        repair.promises[state.node] = office.slots.accepted(office.epoch, slot)
        state.broadcast(SlotPrepare(office.epoch, REPAIR_ROUND, slot))
        state.event("repair_begins", slot=slot, contact=contact)

    def proposed_in_time(self, contact: str) -> None:
        """A contact's slot was committed as it proposed it."""
        if self.patience.get(contact):
            self.patience[contact] -= 1

    def unanswered_by(self, name: str) -> bool:
        """Return whether this member has left the proposal of some repair unanswered for too long (V2)."""
        state, patience = self.office.state, self.office.authority.pace.patience()
        return any(
            repair.value is not None and name not in repair.accepted and state.now - repair.proposed_at > patience
            for repair in self.open.values()
        )

    def ask_again(self, repair: Repair) -> None:
        """Send to those who have not answered."""
        state = self.office.state
        repair.asked_at = state.now
        for name in self.office.authority.peers:
            if repair.value is None and name not in repair.promises:
                state.send(name, SlotPrepare(self.office.epoch, REPAIR_ROUND, repair.slot))
            elif repair.value is not None and name not in repair.accepted:
                state.send(name, SlotAccept(self.office.epoch, REPAIR_ROUND, repair.slot, repair.value))

    # --- the two phases -----------------------------------------------------------------------------------------------

    def on_promise(self, sender: str, message: SlotPromise) -> None:
        """Collect promises."""
        repair = self.open.get(message.slot)
        if repair is not None and repair.value is None and message.round == REPAIR_ROUND:
            repair.promises[sender] = (message.accepted, message.value)

    def on_accepted(self, sender: str, message: SlotAccepted) -> None:
        """Count acceptances at the repair's ballot."""
        repair = self.open.get(message.slot)
        if repair is not None and repair.value is not None and message.round == REPAIR_ROUND:
            repair.accepted[sender] = None

    def on_decided(self, sender: str, message: Decided) -> None:
        """A member knows the slot as committed already: fetch it from there."""
        state = self.office.state
        if message.slot > state.log.committed:
            state.send(sender, FetchSlots(state.log.committed + 1))

    def advance(self) -> None:
        """Propose for the slots that a majority has promised."""
        for repair in self.open.values():
            if repair.value is None and self.promised(repair):
                self.propose(repair)

    def promised(self, repair: Repair) -> bool:
        """Return whether a majority, this node's durable promise included, has promised the slot."""
        state = self.office.state
        own = state.durable_tickets >= repair.flush
        current = [name for name in self.office.authority.peers if name in repair.promises]
        return own and len(current) + 1 >= state.majority()

    def propose(self, repair: Repair) -> None:
        """Propose the value of the highest ballot, or a no-op where nobody has accepted any (T3)."""
        office = self.office
        state = office.state
        repair.value = self.choose(repair)
        if not office.slots.accept(office.epoch, REPAIR_ROUND, repair.slot, repair.value):
            del repair.promises[state.node]  # its own log has the slot decided meanwhile
            return
        repair.flush = state.tickets + 1
        repair.asked_at = repair.proposed_at = state.now
        state.broadcast(SlotAccept(office.epoch, REPAIR_ROUND, repair.slot, repair.value))
        state.event("repair_proposes", slot=repair.slot, found=repair.value != NOOP_BATCH)

    def choose(self, repair: Repair) -> bytes:
        """Return the value that may have been committed, or a no-op."""
        best = max(repair.promises.values(), key=lambda item: (bool(item[1]), item[0]))
        return best[1] or NOOP_BATCH

    # --- committing ---------------------------------------------------------------------------------------------------

    def committed_round(self, slot: int) -> int:
        """Return the round at which a repair has committed the slot; 0: no repair began; -1: it is not done."""
        repair = self.open.get(slot)
        if repair is None:
            return 0
        return REPAIR_ROUND if repair.value is not None and self.accepted(repair) else -1

    def accepted(self, repair: Repair) -> bool:
        """Return whether a majority and the whole view accepted at the repair's ballot (C1)."""
        office = self.office
        state = office.state
        if state.durable_tickets < repair.flush:
            return False
        current = [name for name in office.authority.peers if name in repair.accepted]
        if len(current) + 1 < state.majority():
            return False
        return all(
            name in repair.accepted or joined_at >= repair.slot for name, joined_at in office.view.joined.items()
        )
