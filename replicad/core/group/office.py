"""The office of a primary in one epoch: slots, batches, commit, announcements. Rules E3, C1 to C3, M1."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from replicad.core.group.authority import Authority
from replicad.core.group.effects import EVERYONE
from replicad.core.group.view import View
from replicad.core.model.errors import check
from replicad.core.model.messages import Accept, Accepted, Committed, Durable, ForwardRefused, Heartbeat, HeartbeatAck
from replicad.core.model.operations import (
    ACK_ALL,
    ACK_MAJORITY,
    ACK_ONE,
    NOOP_BATCH,
    OPERATIONS,
    decode_operation,
    encode_batch,
)

if TYPE_CHECKING:
    from replicad.core.group.state import GroupState

Queued = tuple[bytes, str, int, bytes, int]
"""``(encoded operation, contact, ack, request id, last slot in which it may be acknowledged before it is applied)``."""


class Office:
    """One epoch in office. A new epoch makes a new object, so nothing of an old office can leak into it."""

    def __init__(self, state: GroupState, epoch: int, recovered: int, promisers: dict[str, str]) -> None:
        """Take office: everything up to ``recovered`` is held here or is a hole."""
        check(state.promised == epoch, "the coordinator's own promise is the epoch's")
        self.state = state
        self.epoch = epoch
        self.start = state.log.committed + 1
        self.recovered = recovered
        self.promisers = promisers
        self.authority = Authority(state)
        self.view = View(state, self.authority)
        self.assigned = recovered
        self.open: deque[tuple[int, int, int]] = deque()  # (slot, bytes, assigned at) not yet committed
        self.open_bytes = 0
        self.queue: deque[Queued] = deque()
        self.queued_bytes = 0
        self.early: dict[int, list[tuple[str, int, bytes]]] = {}
        self.announced = state.log.committed
        self.closing = False
        """No new slots: a configuration entry, or the hand-over, is next."""
        self._promised_configuration = state.configuration
        """The configuration in which a majority is known to have promised this epoch."""
        self._repropose()

    # --- taking office ----------------------------------------------------------------------------------------------

    def _repropose(self) -> None:
        """Propose for every open slot what was found for it, or a no-op (E3)."""
        state = self.state
        state.epoch = self.epoch
        state.coordinator = state.node
        state.matched = state.log.committed
        for slot in range(self.start, self.recovered + 1):
            held = state.log.get(slot)
            self._assign(slot, NOOP_BATCH if held is None else held[2])

    # --- assigning --------------------------------------------------------------------------------------------------

    def offer(self, operation: bytes, contact: str, ack: int, request_id: bytes) -> bool:
        """Queue an operation for a slot; False when the queue is full (nothing was done)."""
        if self.queued_bytes >= self.state.limits.open_bytes_max or self.state.full:
            return False
        last = 0
        if ack != ACK_ALL:
            # It is acknowledged before it is applied, so it must not meet the end of its window there (D2).
            last = decode_operation(operation).base + self.state.limits.request_window_slots
        self.queue.append((operation, contact, ack, request_id, last))
        self.queued_bytes += len(operation)
        return True

    def may_assign(self) -> bool:
        """Return whether a slot may be assigned to operations: not if the log grows without a checkpoint."""
        limits = self.state.limits
        return self.state.log.bytes < 4 * limits.checkpoint_bytes + limits.retained_bytes and self.may_mark()

    def may_mark(self) -> bool:
        """Return whether the next slot may be assigned at all: bounded, nothing above an open configuration (M1).

        Checkpoint markers need no more than this: they are what makes a log shorter that has grown too long.
        """
        limits = self.state.limits
        return (
            len(self.open) < limits.open_slots_max
            and self.open_bytes < limits.open_bytes_max
            and not self.closing
            and self.above_configuration()
            and self.has_promises()
        )

    def has_promises(self) -> bool:
        """Return whether a majority of the *current* configuration promised this epoch (M2).

        A disk that this office admitted counts: it never held anything above its admission. An acceptance does not:
        it says nothing of what that member holds above the configuration entry from an older epoch.
        """
        state = self.state
        if self._promised_configuration is state.configuration:
            return True
        members = state.configuration.members if state.configuration else ()
        count = sum(
            member.node == state.node or self.promisers.get(member.node) == member.disk or member.since > self.recovered
            for member in members
        )
        if count >= state.majority():
            self._promised_configuration = state.configuration
        return count >= state.majority()

    def above_configuration(self) -> bool:
        """Return whether no undecided configuration entry is below the next slot (M1)."""
        return not self.state.log.open_configuration()

    def drain(self) -> None:
        """Put queued operations into slots, oldest first."""
        limits = self.state.limits
        while self.queue and self.may_assign():
            operations: list[bytes] = []
            early: list[tuple[str, int, bytes]] = []
            size = 0
            while self.queue and len(operations) < limits.batch_operations_max:
                operation, contact, ack, request_id, last = self.queue[0]
                if operations and size + len(operation) > limits.batch_bytes_max:
                    break
                self.queue.popleft()
                self.queued_bytes -= len(operation)
                if ack != ACK_ALL:
                    if self.assigned >= last:
                        continue  # its contact learns from the slots applied that it never will be
                    early.append((contact, ack, request_id))
                operations.append(operation)
                size += len(operation)
            if not operations:
                break
            self.assigned += 1
            if early:
                self.early[self.assigned] = early
            self._assign(self.assigned, encode_batch(OPERATIONS, operations))

    def propose(self, value: bytes) -> int:
        """Assign a slot of its own to ``value`` (a checkpoint marker, a configuration entry); returns the slot."""
        self.assigned += 1
        self._assign(self.assigned, value)
        return self.assigned

    def _assign(self, slot: int, value: bytes) -> None:
        state = self.state
        state.hold(slot, self.epoch, 0, value, decided=False)
        state.matched = slot
        self.open.append((slot, len(value), state.now))
        self.open_bytes += len(value)

    def send_accepts(self) -> None:
        """Send every member the slots that it was not sent yet: one message for all where they agree."""
        state = self.state
        groups: dict[int, list[str]] = {}
        for name, peer in self.authority.peers.items():
            if peer.sent_to < self.assigned:
                groups.setdefault(max(peer.sent_to + 1, self.start), []).append(name)
        for first, names in groups.items():
            everyone = len(names) == len(self.authority.peers)
            for message in self._accepts(first, state.limits.page_bytes):
                for name in [EVERYONE] if everyone else names:
                    state.send(name, message)
                self.announced = max(self.announced, message.committed)
            for name in names:
                self.authority.peers[name].sent_to = self.assigned

    def _accepts(self, first: int, limit: int) -> list[Accept]:
        messages = []
        committed = self.state.log.committed
        while first <= self.assigned:
            page = self.state.log.page(first, self.assigned, limit)
            if not page:
                break
            values = tuple(entry[3] for entry in page)
            messages.append(Accept(self.epoch, self.start, first, committed, values))
            first += len(page)
        return messages

    # --- committing -------------------------------------------------------------------------------------------------

    def on_accepted(self, sender: str, message: Accepted) -> None:
        """Count durable acceptances; send again what a member lacks."""
        peer = self.authority.peers[sender]
        peer.matched = max(peer.matched, message.matched)
        if message.gap:
            self.resend(sender, message.matched)

    def resend(self, name: str, matched: int) -> None:
        """Send again from ``matched + 1``, unless that is below the epoch's start (the member fetches those)."""
        state = self.state
        peer = self.authority.peers[name]
        if matched + 1 < self.start or state.now - peer.resent_at < state.limits.heartbeat_us // 2:
            return
        peer.resent_at = state.now
        size = 0
        for message in self._accepts(matched + 1, state.limits.page_bytes):
            state.send(name, message)
            size += sum(len(value) for value in message.values)
            if size > 4 * state.limits.page_bytes:
                break

    def advance(self) -> None:
        """Commit what a majority of all members *and* the whole view durably accepted (C1)."""
        state = self.state
        own = state.durable_limit(state.matched)
        committed = min(self.majority_matched(own), self.view.limit(own))
        self._answer_early(own)
        if committed <= state.log.committed:
            return
        while self.open and self.open[0][0] <= committed:
            _, size, _ = self.open.popleft()
            self.open_bytes -= size
        state.commit(committed)

    def majority_matched(self, own: int) -> int:
        """Return the highest slot that a majority of the members durably accepted."""
        slots = sorted([own, *(peer.matched for peer in self.authority.peers.values())], reverse=True)
        return slots[self.state.majority() - 1]

    def _answer_early(self, own: int) -> None:
        """Tell contacts about operations that asked for less than ``all`` (C5)."""
        if not self.early:
            return
        majority = min(self.majority_matched(own), own)
        answers: dict[str, list[bytes]] = {}
        for slot in [slot for slot in self.early if slot <= own]:
            waiting = []
            for contact, ack, request_id in self.early[slot]:
                if ack == ACK_ONE or (ack == ACK_MAJORITY and slot <= majority):
                    answers.setdefault(contact, []).append(request_id)
                else:
                    waiting.append((contact, ack, request_id))
            if waiting:
                self.early[slot] = waiting
            else:
                del self.early[slot]
        for contact, request_ids in answers.items():
            if contact == self.state.node:
                self.state.out.durable_requests.extend(request_ids)
            else:
                self.state.send(contact, Durable(tuple(request_ids)))

    def announce(self) -> None:
        """Announce "committed" at once when no Accept carries it."""
        committed = self.state.log.committed
        if committed > self.announced:
            self.announced = committed
            self.state.broadcast(Committed(self.epoch, self.start, committed))

    # --- heartbeats -------------------------------------------------------------------------------------------------

    def heartbeat(self, checkpoint: tuple[int, bytes], verdict: tuple[int, bytes]) -> None:
        """Send a round of heartbeats, with grants to the holders of leases."""
        state = self.state
        sequence = self.authority.begin_round()
        for name, peer in self.authority.peers.items():
            request, duration = 0, 0
            if self.may_grant(name):
                request, duration = self.authority.grant(peer)
            state.send(
                name,
                Heartbeat(
                    self.epoch,
                    sequence,
                    self.start,
                    self.assigned,
                    state.log.committed,
                    peer.matched,
                    peer.boot if duration else 0,
                    request,
                    duration,
                    self.view.joined.get(name, 0) if duration else 0,
                    checkpoint[0],
                    checkpoint[1],
                    verdict[0],
                    verdict[1],
                ),
            )
        self.announced = max(self.announced, state.log.committed)

    def may_grant(self, name: str) -> bool:
        """Return whether this member may get a grant now: E3, V1, V2."""
        peer = self.authority.peers[name]
        oldest, since = (self.open[0][0], self.open[0][2]) if self.open else (0, 0)
        return (
            self.state.applied >= self.recovered
            and self.view.may_hold(name)
            and not self.view.unfit(peer, oldest, since)
        )

    def on_heartbeat_ack(self, sender: str, message: HeartbeatAck) -> None:
        """Note the answer; send again to a member whose acceptances do not move."""
        state = self.state
        peer = self.authority.peers[sender]
        rebooted = peer.boot not in {0, message.boot}
        self.authority.on_ack(sender, message)
        if rebooted:
            peer.sent_to = min(peer.sent_to, max(message.matched, self.start - 1))
        behind = self.open and message.matched < self.open[0][0]
        if behind and state.now - self.open[0][2] > state.limits.heartbeat_us:
            self.resend(sender, message.matched)
        elif not self.open and message.matched < state.log.committed and peer.sent_to <= state.log.committed:
            peer.sent_to = max(peer.sent_to, state.log.committed)  # it fetches committed slots itself

    def tend_view(self) -> None:
        """Take fit members into the view and drop unfit ones."""
        oldest, since = (self.open[0][0], self.open[0][2]) if self.open else (0, 0)
        self.view.drop_unfit(oldest, since)
        self.view.consider(self.assigned, self.recovered)

    def reads_until(self) -> int:
        """Return until when this office may serve linearizable reads (0: not yet)."""
        if self.state.applied < self.recovered or not self.authority.granting:
            return 0
        return self.authority.authority_until()

    def refuse_queue(self) -> None:
        """Leaving office: tell the contacts of queued operations that they got no slot."""
        refused: dict[str, list[bytes]] = {}
        for _, contact, _, request_id, _ in self.queue:
            refused.setdefault(contact, []).append(request_id)
        for contact, request_ids in refused.items():
            if contact != self.state.node:
                self.state.send(contact, ForwardRefused(overloaded=False, request_ids=tuple(request_ids)))
        self.queue.clear()
        self.queued_bytes = 0
