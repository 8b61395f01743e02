"""The contact (R_c): holds its clients' operations until they are applied here, and asks for read points.

It passes operations on to a primary, or proposes them itself with tickets of a sequencer (:mod:`tickets`). Rules T5
(errors are definite only before an operation was sent), C4, C5, D2, P1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.core.group.tickets import Tickets
from replicad.core.model.messages import Durable, Forward, ForwardRefused, ReadPoint, ReadProbe
from replicad.core.model.operations import ACK_ALL, ACTIVE, EXPIRED, check_operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicad.core.group.office import Office
    from replicad.core.group.slots import Slots
    from replicad.core.group.state import GroupState
    from replicad.core.model.operations import Result

RESEND_LEASES = 3
"""An operation that is still waiting is sent again after so many lease lengths, and at once to a new coordinator."""


@dataclass(slots=True)
class Pending:
    """One operation of a client of this node."""

    operation: bytes
    ack: int
    base: int
    sent: bool
    sent_at: int
    queued: bool = False
    """It waits for a ticket."""
    proposer: str = ""
    """The member that was asked to propose it ("": this node does, or the primary)."""
    origin: str = ""
    """Whose client brought it ("": this node's)."""


def pages(operations: list[bytes], limit: int) -> Iterator[tuple[bytes, ...]]:
    """Yield the operations in order, in portions that end when they exceed ``limit`` bytes."""
    page: list[bytes] = []
    size = 0
    for operation in operations:
        page.append(operation)
        size += len(operation)
        if size > limit:
            yield tuple(page)
            page, size = [], 0
    if page:
        yield tuple(page)


class Contact:
    """Operations and probes of this node's clients."""

    def __init__(self, state: GroupState, slots: Slots) -> None:
        self.state = state
        self.pending: dict[bytes, Pending] = {}
        self.tickets = Tickets(state, slots, self.pending)
        self.probes: dict[int, tuple[bool, int]] = {}
        self.probe_number = 0
        self.points: dict[int, int] = {}
        """Read points that came before this replica may serve, of the probes whose readers still wait."""
        self.results: dict[bytes, Result] = {}
        """Results of this node's operations that were computed before this replica may serve."""
        self.served = (0, "")
        """The (epoch, coordinator) that everything pending was last sent to."""
        self.large = 0
        """Large operations of the sequencer's own clients, counted: members take turns with them."""

    # --- writes -----------------------------------------------------------------------------------------------------

    def submit(self, operations: list[tuple[bytes, bytes, int]], office: Office | None) -> None:
        """Take operations ``(request id, encoded, ack)`` of clients and pass them on, if there is a coordinator."""
        pending = self.pending
        now = self.state.now
        base = self.state.log.committed
        for request_id, operation, ack in operations:
            known = pending.get(request_id)
            if known is None:
                pending[request_id] = Pending(operation, ack, base, False, now)
            else:
                known.base = base  # the same idempotency key again: this copy may be applied for longer
        self._pass_on(operations, office)

    def _pass_on(self, operations: list[tuple[bytes, bytes, int]], office: Office | None) -> None:
        state = self.state
        if not operations or state.comparing:
            return  # what it would be answered with is computed here
        if self.proposes():
            if office is not None and any(
                len(operation) >= state.limits.hand_on_bytes for _, operation, _ in operations
            ):
                operations = self._hand_on(operations, office)
            self.tickets.enqueue([request_id for request_id, _, _ in operations])
            self.tickets.ask(office)
        elif office is not None:
            pending = self.pending
            node = state.node
            for request_id, operation, ack in operations:
                if office.offer(operation, node, ack, request_id):
                    pending[request_id].sent = True
                elif not pending[request_id].sent:
                    del pending[request_id]
                    state.out.refused_requests.append((request_id, "overloaded"))
        elif state.coordinator and state.coordinator != state.node:
            self._forward(operations)

    def proposes(self) -> bool:
        """Return whether this contact proposes its batches itself (P1).

        That is the group's preference, it is a voter, and it has caught up: one that is far behind could not accept the
        slots that it would get, and each would be a hole.
        """
        configuration = self.state.configuration
        if configuration is None or configuration.protocol != ACTIVE or not self.state.is_voter():
            return False
        return not self.tickets.slots.far_behind()

    def _hand_on(self, operations: list[tuple[bytes, bytes, int]], office: Office) -> list[tuple[bytes, bytes, int]]:
        """Let other members of the view propose every other large operation; return those that stay here.

        The sequencer serves everyone; that its own clients' large values leave it once instead of n-1 times keeps it
        from becoming the bottleneck. Whose operation is proposed by whom is settled at assignment (P1).
        """
        state = self.state
        members = [name for name in office.view.members() if name != state.node]
        stay = []
        handed: dict[str, list[bytes]] = {}
        for item in operations:
            request_id, operation, ack = item
            if len(operation) < state.limits.hand_on_bytes or ack != ACK_ALL or not members:
                stay.append(item)
                continue
            self.large += 1
            if self.large % 2:
                stay.append(item)
                continue
            pending = self.pending[request_id]
            pending.proposer = members[self.large // 2 % len(members)]
            pending.sent, pending.sent_at = True, state.now
            handed.setdefault(pending.proposer, []).append(operation)
        for name, encoded in handed.items():
            for page in pages(encoded, state.limits.page_bytes):
                state.send(name, Forward(ACK_ALL, page))
        return stay

    def adopt(self, sender: str, message: Forward) -> None:
        """Propose operations of the sequencer's clients as if they were those of this node's."""
        state = self.state
        taken: list[bytes] = []
        refused: list[bytes] = []
        size = sum(len(pending.operation) for pending in self.pending.values() if pending.origin)
        for encoded in message.operations:
            try:
                operation = check_operation(encoded)
            except ValueError as error:
                state.complaint("bad_operation", sender, sender=sender, reason=str(error))
                continue
            if operation.request_id in self.pending:
                continue  # it came twice, or a client brought the same idempotency key here
            size += len(encoded)
            if size > state.limits.open_bytes_max or state.full or state.leaving or state.drained:
                refused.append(operation.request_id)
                continue
            self.pending[operation.request_id] = Pending(
                encoded, ACK_ALL, operation.base, sent=True, sent_at=state.now, origin=sender
            )
            taken.append(operation.request_id)
        if refused:
            state.send(sender, ForwardRefused(overloaded=True, request_ids=tuple(refused)))
        self.tickets.enqueue(taken)
        self.tickets.ask(None)

    def take_tickets(self, office: Office | None) -> None:
        """End of a step: ask, propose with the tickets of the own office, settle and announce what is decided."""
        tickets = self.tickets
        if tickets.epoch != self.state.epoch:
            tickets.begin_epoch()
        if tickets.queue and self.proposes():
            tickets.ask(office)
        if office is not None and office.sequencer.waiting:
            office.sequencer.drain()
        if office is not None and office.own_tickets:
            own, office.own_tickets = office.own_tickets, []
            for ticket in own:
                tickets.on_ticket(ticket)
        tickets.advance()
        tickets.settle()

    def _forward(self, operations: list[tuple[bytes, bytes, int]]) -> None:
        """Send to the primary, one Forward per acknowledgement level and page."""
        state = self.state
        levels: dict[int, list[bytes]] = {}
        for request_id, operation, ack in operations:
            pending = self.pending[request_id]
            pending.sent = True
            pending.sent_at = state.now
            levels.setdefault(ack, []).append(operation)
        for ack, encoded in levels.items():
            for page in pages(encoded, state.limits.page_bytes):
                state.send(state.coordinator, Forward(ack, page))

    def tick(self, office: Office | None) -> list[tuple[int, bool]]:
        """Send again to a new coordinator at once, and to the same one after a while; give up expired operations.

        Returns the probes ``(number, confirmed)`` that this node, being the coordinator now, must answer itself.
        """
        state = self.state
        serving = (state.epoch, state.coordinator)
        fresh = serving != self.served and bool(state.coordinator)
        if fresh:
            self.served = serving
        if self.tickets.queue and not self.proposes():
            self.tickets.disband()
        patience = RESEND_LEASES * state.limits.lease_us
        again = []
        window = state.limits.request_window_slots
        expired = []
        for request_id, pending in self.pending.items():
            if state.applied >= pending.base + window:
                expired.append(request_id)
            elif (
                fresh
                or not pending.sent
                or state.now - pending.sent_at >= patience
                or (pending.proposer and (office is None or pending.proposer not in office.view.joined))
            ):
                if self.tickets.is_open(request_id):
                    continue
                pending.proposer = ""
                pending.sent_at = state.now
                again.append((request_id, pending.operation, pending.ack))
        for request_id in expired:
            # D2: every slot in which it might have been applied has been applied here, without it.
            if not self.pending.pop(request_id).origin:
                state.out.refused_requests.append((request_id, "expired"))
        self._pass_on(again, office)
        self.tickets.tick(office)
        return self._tick_probes(office)

    def finish(self, results: list[tuple[bytes, Result]]) -> None:
        """Operations were applied here: nothing more to do for those of this node.

        EXPIRED may belong to another contact's older copy of the same idempotency key: :meth:`tick` decides.
        """
        pending = self.pending
        for request_id, result in results:
            if result[0] != EXPIRED:
                pending.pop(request_id, None)

    def vouch(self, results: list[tuple[bytes, Result]]) -> list[tuple[bytes, Result]]:
        """Return what may be answered now; the rest waits until this replica's digest was compared (K3)."""
        if not self.state.comparing and not self.state.rebuilding:
            return results
        self.results.update(item for item in results if item[0] in self.pending)
        return []

    def serve(self) -> None:
        """This replica may serve from now on: answer what waited for that, and send on what was held back."""
        state = self.state
        state.out.results.extend(self.results.items())
        state.out.read_points.extend(self.points.items())
        self.results, self.points = {}, {}
        self.served = (0, "")

    def disown(self) -> None:
        """The state is thrown away: so is what was computed from it."""
        self.results = {}

    def on_installed(self, slot: int, results: list[tuple[bytes, Result]]) -> None:
        """A checkpoint at ``slot`` was installed; ``results``: the pending operations that it remembers."""
        self.finish(results)
        window = self.state.limits.request_window_slots
        for request_id in [rid for rid, pending in self.pending.items() if slot >= pending.base + window]:
            # It may have been applied in a slot never seen here and forgotten since: nobody can know (D2).
            if not self.pending.pop(request_id).origin:
                self.state.out.refused_requests.append((request_id, "unknown_outcome"))

    def abandon(self, request_id: bytes) -> bool:
        """Forget an operation whose client's deadline passed; True if it may have been sent."""
        self.results.pop(request_id, None)
        pending = self.pending.pop(request_id, None)
        return pending is None or pending.sent

    def on_durable(self, message: Durable) -> None:
        """The primary says that operations reached the acknowledgement level that they asked for."""
        for request_id in message.request_ids:
            pending = self.pending.get(request_id)
            if pending is not None and pending.ack != ACK_ALL:
                del self.pending[request_id]
                self.state.out.durable_requests.append(request_id)

    def on_refused(self, message: ForwardRefused) -> None:
        """The primary took them not; they wait for the next tick (a copy of the Forward may still be on its way)."""
        for request_id in message.request_ids:
            pending = self.pending.get(request_id)
            if pending is not None:
                pause = self.state.limits.heartbeat_us if message.overloaded else self.state.limits.heartbeat_us // 2
                pending.sent_at = self.state.now - RESEND_LEASES * self.state.limits.lease_us + pause

    # --- reads ------------------------------------------------------------------------------------------------------

    def probe(self, *, confirmed: bool) -> int:
        """Ask the coordinator which slot to apply before reading; returns the probe's number."""
        self.probe_number += 1
        self.probes[self.probe_number] = (confirmed, self.state.now)
        return self.probe_number

    def send_probe(self, number: int) -> None:
        """Send a probe to the coordinator, if there is another one."""
        state = self.state
        if state.coordinator and state.coordinator != state.node:
            state.send(state.coordinator, ReadProbe(state.boot, number, self.probes[number][0]))

    def _tick_probes(self, office: Office | None) -> list[tuple[int, bool]]:
        patience = self.state.limits.heartbeat_us * 2
        own = []
        for number, (confirmed, asked_at) in list(self.probes.items()):
            if self.state.now - asked_at >= patience:
                self.probes[number] = (confirmed, self.state.now)
                if office is None:
                    self.send_probe(number)
                else:
                    own.append((number, confirmed))
        return own

    def forget_probe(self, number: int) -> None:
        """The reader went away."""
        self.probes.pop(number, None)
        self.points.pop(number, None)

    def on_read_point(self, message: ReadPoint) -> None:
        """The coordinator answered a probe of this process."""
        if message.boot == self.state.boot and self.probes.pop(message.probe, None) is not None:
            if self.state.comparing:
                self.points[message.probe] = message.slot
            else:
                self.state.out.read_points.append((message.probe, message.slot))
