"""Active replication without its rules: T1 to T5, A1, A2, C1, C3, P1, R1 as they apply to tickets and repairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.core.journal.records import WatermarkRecord
from replicad.core.model.messages import SlotAccepted
from replicad.core.model.operations import NOOP_BATCH, OPERATIONS, decode_batch, decode_operation, encode_batch
from replicad.core.model.operations import encode_operation as encode
from replicad.lab.mutations.registry import always, covered, instead, register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function

OFFICE = "core.group.office:Office"
REPAIRS = "core.group.repair:Repairs"
SEQUENCER = "core.group.sequencer:Sequencer"
SLOTS = "core.group.slots:Slots"
TICKETS = "core.group.tickets:Tickets"

# --- T1, T2, P1: tickets ----------------------------------------------------------------------------------------------

register("ticket-used-twice", "T1", "a ticket that comes twice is used twice", TICKETS, "expected")(
    instead(lambda self, ticket: ticket.boot == self.state.boot)
)
register("ticket-of-another-process", "T1", "a ticket is used by a later process of the contact", TICKETS, "expected")(
    instead(lambda self, ticket: ticket.ticket in self.asked)
)


@register("ticket-not-idempotent", "T1", "asking again for a ticket gives another slot", SEQUENCER, "request")
def _ticket_not_idempotent(_original: Function) -> Function:
    def request(self: Any, contact: str, boot: int, ticket: int) -> None:
        from replicad.core.group.sequencer import Book  # noqa: PLC0415 - only where the rule is off

        self.books[contact] = Book(boot)
        if len(self.waiting) < self.office.state.limits.tickets_max:
            self.waiting.append((contact, boot, ticket))

    return request


covered("ticket-not-idempotent", "the contact uses the first of the two; the other slot is a hole, which is repaired")


@register(
    "empty-batch-kept-back", "T2", "a ticket for which nothing is left to propose is not used", TICKETS, "on_ticket"
)
def _empty_batch_kept_back(original: Function) -> Function:
    def on_ticket(self: Any, ticket: Any) -> None:
        if any(request_id in self.pending for request_id in self.queue):
            original(self, ticket)
        else:
            self.asked.pop(ticket.ticket, None)

    return on_ticket


covered("empty-batch-kept-back", "its slot is a hole, which is repaired; it costs everyone the time until then")


@register("two-proposers", "P1", "the sequencer proposes for a slot that it has given away", SEQUENCER, "grant")
def _two_proposers(original: Function) -> Function:
    def grant(self: Any, contact: str, boot: int, ticket: int, slot: int) -> None:
        office = self.office
        original(self, contact, boot, ticket, slot)
        if contact != office.state.node and office.state.log.get(slot) is None:
            office.state.hold(slot, office.epoch, 0, NOOP_BATCH, decided=False)
            office.state.extend_matched()
            office.ticketed.pop(slot, None)

    return grant


# --- T3, A1: repairs --------------------------------------------------------------------------------------------------

register(
    "holes-stay", "T3", "nobody repairs a slot whose ticket holder is gone (the textbook's form)", REPAIRS, "tick"
)(instead(lambda _self: None))
register("repair-without-majority", "T3", "the sequencer's own promise is enough for a repair", REPAIRS, "promised")(
    always(value=True)
)
register("repair-takes-noop", "T3", "a repair decides a no-op, whatever was accepted", REPAIRS, "choose")(
    always(NOOP_BATCH)
)
register(
    "repair-counted-at-round-0", "C1", "a slot under repair is committed by its round 0", REPAIRS, "committed_round"
)(always(0))
register(
    "slot-promise-ignored", "A1", "the ticket holder's batch is accepted after a repair's promise", SLOTS, "may_accept"
)(
    instead(lambda self, slot, epoch, round_: epoch >= self.state.promised)  # noqa: ARG005 - the original's names
)


@register(
    "slot-promise-forgotten",
    "A1",
    "promises of single slots are not written",
    "core.group.state:GroupState",
    "promise_slot",
)
def _slot_promise_forgotten(_original: Function) -> Function:
    def promise_slot(self: Any, slot: int, epoch: int, round_: int) -> None:
        self.slot_promises[slot] = (epoch, round_)
        self.append(WatermarkRecord(self.log.committed))

    return promise_slot


covered(
    "slot-promise-forgotten",
    "the sequencer is in every view, never restarts within its epoch, and repairs only what it has not accepted: "
    "its own promise keeps round 0 from being committed",
)
register("repair-ignores-view", "C1", "a majority alone commits a repaired slot", REPAIRS, "accepted")(
    lambda original: lambda self, repair: _without_view(self, lambda: original(self, repair))
)


def _without_view(repairs: Any, ask: Function) -> Any:
    view = repairs.office.view
    joined, view.joined = view.joined, {}
    try:
        return ask()
    finally:
        view.joined = joined


@register(
    "request-ids-forgotten", "T3", "a repair that finds a batch proposes it under other request ids", REPAIRS, "choose"
)
def _request_ids_forgotten(original: Function) -> Function:
    def choose(self: Any, repair: Any) -> bytes:
        value = bytes(original(self, repair))
        kind, payload = decode_batch(value)
        if kind != OPERATIONS or not isinstance(payload, tuple):
            return value
        operations = [decode_operation(encoded) for encoded in payload]
        others = [op._replace(request_id=bytes(b ^ 0xFF for b in op.request_id)) for op in operations]
        return encode_batch(OPERATIONS, [encode(operation) for operation in others])

    return choose


# --- T4, A2: what the contact learns ----------------------------------------------------------------------------------


@register("late-proposal-accepted", "A2", "a proposal for a decided slot is called accepted", SLOTS, "decided")
def _late_proposal_accepted(_original: Function) -> Function:
    return lambda _self, epoch, slot: SlotAccepted(epoch, 0, slot)


register("lost-batch-dropped", "T4", "what lost its slot is not proposed again", TICKETS, "_again")(
    instead(lambda _self, _proposal: None)
)
covered("lost-batch-dropped", "the contact sends what waits for three lease lengths again, so it costs time only")

# --- C1, C3, R1, E2 ---------------------------------------------------------------------------------------------------

register("ticket-view-ignored", "C1", "a ticket holder waits for a majority only", TICKETS, "waited_for")(always(()))
register("ticket-majority-ignored", "C1", "a ticket holder waits for the view only", TICKETS, "acceptances")(always(99))
register(
    "joiners-not-in-tickets", "V1", "a ticket names no member of the view but the sequencer", SEQUENCER, "waited_for"
)(instead(lambda self: (self.office.state.node,)))
register("repairs-not-listed", "C3", "a watermark does not say which slots were repaired", OFFICE, "listed")(always(()))
register("chosen-vouches-for-all", "C3", "an announcement vouches for any value held", SLOTS, "_known")(
    lambda original: (
        lambda self, slot, epoch, committed: (
            original(self, slot, epoch, committed)
            or (slot in self.state.chosen and self.state.log.get(slot) is not None)
        )
    )
)
register("sequencer-reads-its-prefix", "R1", "the sequencer reads what it knows as committed", OFFICE, "read_slot")(
    instead(lambda self: self.state.log.committed)
)


@register(
    "promise-ends-at-hole",
    "E2",
    "a promise reports no slot above the first hole",
    "core.group.acceptor:Acceptor",
    "_send_promise",
)
def _promise_ends_at_hole(original: Function) -> Function:
    def send_promise(self: Any, sender: str, message: Any) -> None:
        log = self.state.log
        highest = log.highest
        end = log.committed
        while log.get(end + 1) is not None:
            end += 1
        log.highest = end
        original(self, sender, message)
        log.highest = highest

    return send_promise


# --- sessions ---------------------------------------------------------------------------------------------------------


@register(
    "bookmark-ignored-after-failover",
    "sessions",
    "a replica that follows another coordinator than the first ignores bookmarks",
    "core.engine.reads:Reads",
    "reach",
)
def _bookmark_ignored(original: Function) -> Function:
    def reach(self: Any, index: int, ready: Any) -> int:
        return int(original(self, 0 if self.group.replica.epoch > 2_000_000 else index, ready))

    return reach
