"""The contact's side of active replication: it asks for tickets, proposes its batches itself, and counts the answers.

Rules T1, T2, T4, C1 of the design.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.core.detection.patience import Patience
from replicad.core.group.log import value_digest
from replicad.core.model.messages import Chosen, FetchSlots, SlotAccept, Ticket, TicketRequest
from replicad.core.model.operations import ACK_ALL, ACK_ONE, NOOP_BATCH, OPERATIONS, decode_operation, encode_batch

if TYPE_CHECKING:
    from replicad.core.group.contact import Pending
    from replicad.core.group.office import Office
    from replicad.core.group.slots import Slots
    from replicad.core.group.state import GroupState
    from replicad.core.model.messages import Decided, SlotAccepted


RESEND_HEARTBEATS = 3
"""A proposal is sent again no more often than this, and only to members that accept nothing meanwhile."""


@dataclass(slots=True)
class Proposal:
    """One batch of this contact, in the slot of one ticket."""

    ticket: Ticket
    value: bytes
    request_ids: list[bytes]
    flush: int
    """The flush that makes the own acceptance durable."""
    sent_at: int
    accepted: dict[str, None] = field(default_factory=dict)
    early: list[bytes] = field(default_factory=list)
    """Operations that asked for less than ``all`` and have not got it."""
    chosen: bool = False


class Tickets:
    """Operations that wait for a ticket, tickets asked for, and proposals whose slots are not decided here yet."""

    def __init__(self, state: GroupState, slots: Slots, pending: dict[bytes, Pending]) -> None:
        self.state = state
        self.slots = slots
        self.pending = pending
        self.queue: deque[bytes] = deque()
        """Request ids, oldest first; some may have been answered or given up meanwhile."""
        self.asked: dict[int, int] = {}
        """Ticket number -> when it was asked for. A number is used at most once (T1)."""
        self.number = 0
        self.epoch = 0
        """What is asked for and proposed belongs to this epoch."""
        self.proposals: dict[int, Proposal] = {}
        self.newly_chosen: list[int] = []

    # --- asking -------------------------------------------------------------------------------------------------------

    def enqueue(self, request_ids: list[bytes]) -> None:
        """Let operations wait for a ticket."""
        for request_id in request_ids:
            pending = self.pending[request_id]
            if not pending.queued:
                pending.queued = True
                self.queue.append(request_id)

    def disband(self) -> None:
        """The group is fed by its primary now: nobody waits for a ticket any more."""
        for request_id in self.queue:
            if request_id in self.pending:
                self.pending[request_id].queued = False
        self.queue.clear()

    def ask(self, office: Office | None) -> None:
        """Ask for a ticket when a batch begins: one for now, others while earlier ones are on their way (T2)."""
        state = self.state
        if not self.queue or (office is None and state.coordinator in {"", state.node}):
            return
        if self.asked or self.in_flight() >= state.limits.tickets_max:
            return
        self.number += 1
        self.asked[self.number] = state.now
        self._request(self.number, office)

    def in_flight(self) -> int:
        """Return how many proposals are not chosen yet."""
        return sum(not proposal.chosen for proposal in self.proposals.values())

    def _request(self, number: int, office: Office | None) -> None:
        state = self.state
        if office is not None:
            office.sequencer.request(state.node, state.boot, number)
        else:
            state.send(state.coordinator, TicketRequest(state.epoch, state.boot, number))

    # --- proposing ----------------------------------------------------------------------------------------------------

    def on_ticket(self, ticket: Ticket) -> None:
        """Propose one batch for the slot: once, by the process that asked, if it still waits for the ticket (T1)."""
        if not self.expected(ticket):
            return
        self.asked.pop(ticket.ticket, None)
        state = self.state
        if ticket.epoch != state.epoch or ticket.epoch != state.promised or ticket.slot <= state.log.committed:
            return  # a ticket of an office that is over, or one that was too long under way
        if not state.is_voter():
            return  # it lost its vote since it asked
        request_ids, value = self._close_batch(ticket.slot)
        if not self.slots.accept(ticket.epoch, 0, ticket.slot, value):
            self.enqueue(request_ids)  # under repair already: nothing was sent
            return
        proposal = Proposal(ticket, value, request_ids, state.tickets + 1, state.now)
        for request_id in request_ids:
            pending = self.pending[request_id]
            pending.sent, pending.sent_at = True, state.now
            if pending.ack != ACK_ALL:
                proposal.early.append(request_id)
        self.proposals[ticket.slot] = proposal
        state.broadcast(SlotAccept(ticket.epoch, 0, ticket.slot, value))

    def expected(self, ticket: Ticket) -> bool:
        """Return whether this process asked for the ticket, and has not used it (T1)."""
        return ticket.boot == self.state.boot and ticket.ticket in self.asked

    def _close_batch(self, slot: int) -> tuple[list[bytes], bytes]:
        """Take the oldest operations that fit a batch; an empty one is proposed, too (T2)."""
        limits = self.state.limits
        request_ids: list[bytes] = []
        operations: list[bytes] = []
        size = 0
        while self.queue and len(operations) < limits.batch_operations_max:
            pending = self.pending.get(self.queue[0])
            if pending is not None and operations and size + len(pending.operation) > limits.batch_bytes_max:
                break
            request_id = self.queue.popleft()
            if pending is None:
                continue  # it was answered or given up meanwhile
            pending.queued = False
            if slot > self._base(pending) + limits.request_window_slots:
                continue  # it would have expired there (D2): the contact's tick says so
            request_ids.append(request_id)
            operations.append(pending.operation)
            size += len(pending.operation)
        return request_ids, encode_batch(OPERATIONS, operations) if operations else NOOP_BATCH

    @staticmethod
    def _base(pending: Pending) -> int:
        """Return the base that counts: where an operation is answered before it is applied, the encoded one (C5)."""
        return pending.base if pending.ack == ACK_ALL else decode_operation(pending.operation).base

    # --- answers ------------------------------------------------------------------------------------------------------

    def on_accepted(self, sender: str, message: SlotAccepted) -> None:
        """Count a member's acceptance of a batch of this contact."""
        proposal = self.proposals.get(message.slot)
        if proposal is not None and message.round == 0 and message.epoch == proposal.ticket.epoch:
            proposal.accepted[sender] = None

    def on_decided(self, sender: str, message: Decided, office: Office | None) -> None:
        """A member knows the slot as decided: with this very batch, or else its operations need another slot (T4).

        At which ballot it was decided the member does not say, so nothing follows for others (C3): it is fetched.
        """
        proposal = self.proposals.get(message.slot)
        if proposal is None or proposal.chosen:
            return
        if message.digest == value_digest(proposal.value):
            self.state.send(sender, FetchSlots(self.state.log.committed + 1))
        elif message.digest:
            del self.proposals[message.slot]
            self._again(proposal)
            self.ask(office)

    def advance(self) -> None:
        """See which proposals are committed, and tell all members at once."""
        if not self.proposals:
            return
        for slot, proposal in list(self.proposals.items()):
            if not proposal.chosen:
                if proposal.early:
                    self._answer_early(proposal)
                if self.committed(proposal):
                    proposal.chosen = True
                    self.newly_chosen.append(slot)
        if self.newly_chosen:
            epoch, slots = self.state.epoch, tuple(self.newly_chosen)
            self.newly_chosen = []
            self.state.broadcast(Chosen(epoch, slots))
            self.slots.note_chosen(epoch, slots)

    def committed(self, proposal: Proposal) -> bool:
        """Return whether a majority and the whole view of the ticket durably accepted the batch (C1)."""
        state = self.state
        ticket = proposal.ticket
        if ticket.epoch != state.promised or state.durable_tickets < proposal.flush:
            return False
        configuration = state.configuration
        if configuration is None or configuration.version != ticket.configuration:
            return False  # it is not known here whose acceptance counts; the sequencer settles the slot
        if self.acceptances(proposal) < configuration.majority():
            return False
        return all(name in proposal.accepted or name == state.node for name in self.waited_for(ticket))

    def acceptances(self, proposal: Proposal) -> int:
        """Return how many voters accepted durably, this one (if it is one still) included."""
        peers = self.state.peers()
        return self.state.is_voter() + sum(name in peers for name in proposal.accepted)

    def waited_for(self, ticket: Ticket) -> tuple[str, ...]:
        """Return the members whose acceptance every commit waits for."""
        return ticket.members

    def _answer_early(self, proposal: Proposal) -> None:
        """Operations that asked for ``one`` or ``majority`` are answered as soon as that is reached (C5)."""
        state = self.state
        if state.durable_tickets < proposal.flush:
            return
        configuration = state.configuration
        known = configuration is not None and configuration.version == proposal.ticket.configuration
        majority = known and self.acceptances(proposal) >= state.majority()
        waiting = []
        for request_id in proposal.early:
            pending = self.pending.get(request_id)
            if pending is None:
                continue
            if majority or pending.ack == ACK_ONE:
                del self.pending[request_id]
                state.out.durable_requests.append(request_id)
            else:
                waiting.append(request_id)
        proposal.early = waiting

    def settle(self) -> None:
        """Slots were committed: what was lost there is proposed again, with the same request ids (T4)."""
        if not self.proposals:
            return
        state = self.state
        for slot in [slot for slot in self.proposals if slot <= state.log.committed]:
            proposal = self.proposals.pop(slot)
            held = state.log.get(slot)
            if held is None or held[2] != proposal.value:
                self._again(proposal)

    def _again(self, proposal: Proposal) -> None:
        self.enqueue([request_id for request_id in proposal.request_ids if request_id in self.pending])

    # --- time ---------------------------------------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """Another coordinator: tickets and open proposals of the old epoch are void (T4)."""
        self.epoch = self.state.epoch
        self.asked.clear()
        proposals, self.proposals = self.proposals, {}
        self.newly_chosen = []
        for proposal in proposals.values():
            if not proposal.chosen:
                self._again(proposal)

    def tick(self, office: Office | None) -> None:
        """Ask again for tickets that did not come; send again what was not answered."""
        state = self.state
        for number, asked_at in self.asked.items():
            if state.now - asked_at >= state.limits.heartbeat_us:
                self.asked[number] = state.now
                if office is not None or state.coordinator not in {"", state.node}:
                    self._request(number, office)
        before = state.now - RESEND_HEARTBEATS * state.limits.heartbeat_us
        for slot, proposal in self.proposals.items():
            if proposal.chosen or proposal.sent_at > before:
                continue
            # Who answers for other slots is only slow: messages get lost with their connection, not one by one.
            for name in state.peers():
                if name not in proposal.accepted and state.detectors.suspects(name, state.now, Patience.PROPOSAL):
                    proposal.sent_at = state.now
                    state.send(name, SlotAccept(proposal.ticket.epoch, 0, slot, proposal.value))
        self.ask(office)

    def is_open(self, request_id: bytes) -> bool:
        """Return whether the operation waits for a ticket or is in a proposal whose slot is not decided here."""
        return self.pending[request_id].queued or any(request_id in p.request_ids for p in self.proposals.values())
