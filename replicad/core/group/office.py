"""The office of a coordinator in one epoch: slots, batches, commit, announcements. Rules E3, C1 to C3, M1, M2, P1.

Which slots it proposes itself (a primary) and which it gives away as tickets (a sequencer) is settled at assignment.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from replicad.core.group.authority import Authority
from replicad.core.group.drag import Drag
from replicad.core.group.early import EarlyAnswers
from replicad.core.group.effects import EVERYONE
from replicad.core.group.log import batch_kind
from replicad.core.group.repair import Repairs
from replicad.core.group.sequencer import Sequencer
from replicad.core.group.view import View
from replicad.core.model.errors import check
from replicad.core.model.messages import (
    Accept,
    Accepted,
    Committed,
    ForwardRefused,
    Heartbeat,
    HeartbeatAck,
    LeaseReturn,
    LeaseReturned,
    Ticket,
)
from replicad.core.model.operations import (
    ACK_ALL,
    CONFIGURATION,
    NOOP_BATCH,
    OPERATIONS,
    decode_operation,
    encode_batch,
)

if TYPE_CHECKING:
    from replicad.core.group.early import Waiting
    from replicad.core.group.slots import Slots
    from replicad.core.group.state import GroupState

Queued = tuple[bytes, str, int, bytes, int]
"""``(encoded operation, contact, ack, request id, last slot in which it may be acknowledged before it is applied)``."""


BUSY_SLOTS = 2
"""With so many slots on their way, news of a commit need not travel alone."""
SMALL_OPERATIONS, SMALL_BYTES = 64, 65_536
"""A batch of fewer operations and fewer bytes than these is small."""
PATIENCE_HEARTBEATS = 3
"""Slots are sent again to a member whose acceptances have not moved for so many heartbeats."""
REPAIRED_LISTED = 64
"""Repaired slots that a watermark lists; it speaks only of the slots above those that fell off the list."""


class Office:
    """One epoch in office. A new epoch makes a new object, so nothing of an old office can leak into it."""

    def __init__(self, state: GroupState, slots: Slots, epoch: int, recovered: int, promisers: dict[str, str]) -> None:
        """Take office: everything up to ``recovered`` is held here or is a hole."""
        check(state.promised == epoch, "the coordinator's own promise is the epoch's", "own promise")
        self.state = state
        self.epoch = epoch
        self.start = state.log.committed + 1
        """The watermark speaks of the slots from here on."""
        self.first = self.start
        """First slot of this epoch."""
        self.recovered = recovered
        self.promisers = promisers
        self.slots = slots
        self.authority = Authority(state)
        self.view = View(state, self.authority)
        self.assigned = recovered
        self.ticketed: dict[int, str] = {}
        """Open slot -> the contact that holds its ticket."""
        self.repaired: dict[int, int] = {}
        """Slot -> the round (1 or more) at which it is committed, for the watermark."""
        self.own_tickets: list[Ticket] = []
        """Tickets for this node's own clients, taken by the contact at the end of the step."""
        self.sequencer = Sequencer(self)
        self.repairs = Repairs(self)
        self.drag = Drag(self)
        self.open: deque[tuple[int, int, int]] = deque()  # (slot, bytes, assigned at) not yet committed
        self.open_bytes = 0
        self.queue: deque[Queued] = deque()
        self.queued_bytes = 0
        self.queued_early = 0
        """Queued operations that ask for less than ``all``."""
        self.early = EarlyAnswers(state)
        self.announced = state.log.committed
        self.successor = ""
        """The voter to which the office is being moved ("": none)."""
        self.closing = False
        """No new slots: a configuration entry, or the hand-over, is next."""
        self._promised_configuration = state.configuration
        """The configuration in which a majority is known to have promised this epoch."""
        self._repropose()

    # --- taking office ----------------------------------------------------------------------------------------------

    def _repropose(self) -> None:
        """Propose for every open slot what was found for it, or a no-op (E3)."""
        state = self.state
        state.adopt_epoch(self.epoch)
        state.coordinator = state.node
        for slot in range(self.first, self.recovered + 1):
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
            self.queued_early += 1
        self.queue.append((operation, contact, ack, request_id, last))
        self.queued_bytes += len(operation)
        return True

    def may_assign(self) -> bool:
        """Return whether a slot may be assigned to operations: not if the log, or what is to be applied, only grows."""
        state, limits = self.state, self.state.limits
        heavy = state.log.bytes >= 4 * limits.checkpoint_bytes + limits.retained_bytes
        return not heavy and state.log.committed - state.applied < limits.open_slots_max and self.may_mark()

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

        For an entry of an earlier office an acceptance does not count: it says nothing of what that member holds above
        the entry from an older epoch.
        """
        state = self.state
        if self._promised_configuration is state.configuration:
            return True
        if state.configuration is not None and state.configuration.slot > self.recovered:
            # This office proposed it, when it had the promises that the one before asks for. The majority that accepted
            # it has promised this epoch, and shares a member with every majority of the new one.
            self._promised_configuration = state.configuration
            return True
        members = state.configuration.members if state.configuration else ()
        count = sum(member.node == state.node or self.promisers.get(member.node) == member.disk for member in members)
        if count >= state.majority():
            self._promised_configuration = state.configuration
        return count >= state.majority()

    def above_configuration(self) -> bool:
        """Return whether no undecided configuration entry is below the next slot (M1)."""
        return not self.state.log.open_configuration()

    def drain(self) -> None:
        """Put queued operations into slots, oldest first."""
        limits = self.state.limits
        while self.queue and self.worth_a_slot() and self.may_assign():
            if not self.queued_early and self._drain_at_once():
                return
            operations: list[bytes] = []
            early: Waiting = []
            size = 0
            while self.queue and len(operations) < limits.batch_operations_max:
                operation, contact, ack, request_id, last = self.queue[0]
                if operations and size + len(operation) > limits.batch_bytes_max:
                    break
                self.queue.popleft()
                self.queued_bytes -= len(operation)
                if ack != ACK_ALL:
                    self.queued_early -= 1
                    if self.assigned >= last:
                        continue  # its contact learns from the slots applied that it never will be
                    early.append((contact, ack, request_id))
                operations.append(operation)
                size += len(operation)
            if not operations:
                break
            self.assigned += 1
            if early:
                self.early.slots[self.assigned] = early
            self._assign(self.assigned, encode_batch(OPERATIONS, operations))

    def worth_a_slot(self) -> bool:
        """Return whether the queue should get a slot now, or grow: each costs every member messages and a flush."""
        if len(self.open) < self.state.limits.pipelined_slots or self.queued_early:
            return True  # who asks for less than ``all`` does not wait for the whole view (C5)
        return len(self.queue) >= SMALL_OPERATIONS or self.queued_bytes >= SMALL_BYTES

    def _drain_at_once(self) -> bool:
        """Put the whole queue into one slot, if it fits one batch (the usual case)."""
        limits = self.state.limits
        if len(self.queue) > limits.batch_operations_max or self.queued_bytes > limits.batch_bytes_max:
            return False
        self.propose(encode_batch(OPERATIONS, [item[0] for item in self.queue]))
        self.queue.clear()
        self.queued_bytes = 0
        return True

    def propose(self, value: bytes) -> int:
        """Assign a slot of its own to ``value`` (a checkpoint marker, a configuration entry); returns the slot."""
        self.assigned += 1
        self._assign(self.assigned, value)
        return self.assigned

    def _assign(self, slot: int, value: bytes) -> None:
        state = self.state
        state.hold(slot, self.epoch, 0, value, decided=False)
        state.extend_matched()
        self.open.append((slot, len(value), state.now))
        self.open_bytes += len(value)

    def give_away(self, contact: str) -> int:
        """Assign the next slot to the ticket of a contact; returns the slot."""
        self.assigned += 1
        self.ticketed[self.assigned] = contact
        self.open.append((self.assigned, 0, self.state.now))
        return self.assigned

    def send_accepts(self) -> None:
        """Send every member the slots proposed here that it was not sent yet: one message for all where they agree."""
        state = self.state
        groups: dict[int, list[str]] = {}
        peers = self.authority.peers
        for name, peer in peers.items():
            if peer.sent_to < self.assigned:
                groups.setdefault(max(peer.sent_to + 1, self.first), []).append(name)
        for first, names in groups.items():
            for message in self._accepts(first):
                for name in [EVERYONE] if len(names) == len(peers) else names:
                    state.send(name, message)
                self.announced = max(self.announced, message.committed)
            for name in names:
                peers[name].sent_to = self.assigned

    def _accepts(self, first: int, relayed_before: int = 0) -> list[Accept]:
        """Return messages with what was accepted here at round 0 from ``first`` on.

        Slots of ticket holders are theirs to send; those assigned before ``relayed_before`` are sent along, as they
        were proposed: their holder may be gone.
        """
        limit = self.state.limits.page_bytes
        messages: list[Accept] = []
        run: list[bytes] = []
        size = 0
        for slot in range(first, self.assigned + 1):
            held = self.state.log.get(slot)
            ours = held is not None and held[:2] == (self.epoch, 0) and self._may_send(slot, relayed_before)
            if run and (not ours or (held is not None and size + len(held[2]) > limit)):
                messages.append(self._accept(slot - len(run), run))
                run, size = [], 0
            if ours and held is not None:
                run.append(held[2])
                size += len(held[2])
        if run:
            messages.append(self._accept(self.assigned + 1 - len(run), run))
        return messages

    def _may_send(self, slot: int, relayed_before: int) -> bool:
        if slot not in self.ticketed:
            return True
        return relayed_before > 0 and self.assigned_at(slot) < relayed_before

    def _accept(self, first: int, values: list[bytes]) -> Accept:
        return Accept(self.epoch, self.start, first, self.state.log.committed, tuple(values), self.listed())

    def assigned_at(self, slot: int) -> int:
        """Return when an open slot was assigned (a committed one: 0)."""
        index = slot - self.open[0][0] if self.open else -1
        return self.open[index][2] if 0 <= index < len(self.open) else 0

    def oldest_held(self) -> tuple[int, int]:
        """Return the oldest open slot and when it was assigned; ``(0, 0)``: none, or a hole, which nobody can fill."""
        if not self.open or not self.repairs.found(self.open[0][0]):
            return 0, 0
        return self.open[0][0], self.open[0][2]

    def listed(self) -> tuple[int, ...]:
        """Return the repaired slots and their rounds as a watermark lists them (C3)."""
        return tuple(number for item in self.repaired.items() for number in item)

    # --- committing -------------------------------------------------------------------------------------------------

    def on_accepted(self, sender: str, message: Accepted) -> None:
        """Count durable acceptances; send again what a member lacks."""
        self.authority.note_matched(self.authority.peers[sender], message.matched)
        if message.gap:
            self.resend(sender, message.matched)

    def resend(self, name: str, matched: int) -> None:
        """Send again from ``matched + 1``, unless that is below the epoch's start (the member fetches those)."""
        state = self.state
        peer = self.authority.peers[name]
        if matched + 1 < self.first or state.now - peer.resent_at < state.limits.heartbeat_us // 2:
            return
        peer.resent_at = state.now
        size = 0
        for message in self._accepts(matched + 1, state.now - PATIENCE_HEARTBEATS * state.limits.heartbeat_us):
            state.send(name, message)
            size += sum(len(value) for value in message.values)
            if size > 4 * state.limits.page_bytes:
                break

    def advance(self) -> None:
        """Commit what a majority of all members *and* the whole view durably accepted (C1)."""
        state = self.state
        if self.early.slots:
            own = state.durable_limit(state.matched)
            self.early.tell(own, min(self.majority_matched(own), own))
        self.announced = max(self.announced, state.log.committed)  # by the contacts whose slots these were
        self.repairs.advance()
        while True:
            before = state.log.committed
            slot = self._committable()
            if slot > before:
                state.commit(slot)
                self.slots.learn()
            if slot == before or not self.has_promises():
                break
        self._close_slots()

    def _close_slots(self) -> None:
        """Forget open slots that are committed."""
        while self.open and self.open[0][0] <= self.state.log.committed:
            number, size, _ = self.open.popleft()
            self.open_bytes -= size
            contact = self.ticketed.pop(number, None)
            if contact is not None and number not in self.repaired:
                self.repairs.proposed_in_time(contact)

    def _committable(self) -> int:
        """Return the highest slot that is committed now: all below it are, each at one ballot.

        It ends at a configuration entry, whose members decide the slots above it (M2).
        """
        state = self.state
        slot = state.log.committed
        if slot == self.assigned:
            return slot
        own = state.durable_limit(state.matched)
        counted = min(self.majority_matched(own), self.view.limit(own))
        while slot < self.assigned:
            round_ = self.repairs.committed_round(slot + 1)
            if round_ == 0 and slot + 1 > counted:
                return slot
            if round_ < 0:
                return slot
            slot += 1
            if round_:
                self._list_repaired(slot, round_)
            held = state.log.get(slot)
            if held is not None and batch_kind(held[2]) == CONFIGURATION:
                return slot
        return slot

    def _list_repaired(self, slot: int, round_: int) -> None:
        self.repaired[slot] = round_
        if len(self.repaired) > REPAIRED_LISTED:
            oldest = min(self.repaired)
            del self.repaired[oldest]
            self.start = oldest + 1

    def majority_matched(self, own: int) -> int:
        """Return the highest slot that a majority of the members durably accepted."""
        others = [peer.matched for peer in self.authority.peers.values()]
        return sorted([own, *others])[-self.state.majority()]

    def announce(self) -> None:
        """Announce "committed" at once when no Accept carries it, unless the next one or the next commit soon does."""
        committed = self.state.log.committed
        if committed > self.announced and len(self.open) < BUSY_SLOTS:
            self.announced = committed
            self.state.broadcast(Committed(self.epoch, self.start, committed, self.listed()))

    def _trim_listed(self) -> None:
        """Stop listing what the whole view has applied: the watermark speaks of later slots from now on."""
        if self.repaired:
            known = [self.authority.peers[name].applied for name in self.view.joined]
            low = min([self.state.log.committed, *known])
            for slot in [slot for slot in self.repaired if slot <= low]:
                del self.repaired[slot]
            self.start = max(self.start, low + 1)

    # --- heartbeats -------------------------------------------------------------------------------------------------

    def heartbeat(self, checkpoint: tuple[int, bytes], verdict: tuple[int, bytes]) -> None:
        """Send a round of heartbeats, with grants to the holders of leases."""
        state = self.state
        self._trim_listed()
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
                    self.listed(),
                ),
            )
        self.announced = max(self.announced, state.log.committed)

    def may_grant(self, name: str) -> bool:
        """Return whether this member may get a grant now: E3, V1, V2."""
        peer = self.authority.peers[name]
        oldest, since = self.oldest_held()
        return (
            self.state.applied >= self.recovered
            and not self.state.comparing
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
            peer.sent_to = min(peer.sent_to, max(message.matched, self.first - 1))
        oldest, since = self.oldest_held()
        patience = PATIENCE_HEARTBEATS * state.limits.heartbeat_us
        if message.matched < oldest and state.now - max(since, peer.moved_at, peer.resent_at) > patience:
            self.resend(sender, message.matched)
        elif not self.open and message.matched < state.log.committed and peer.sent_to <= state.log.committed:
            peer.sent_to = max(peer.sent_to, state.log.committed)  # it fetches committed slots itself

    def on_lease_return(self, sender: str, message: LeaseReturn) -> None:
        """A member gave its lease back: from now on no commit waits for it."""
        if self.authority.on_return(self.authority.peers[sender], message):
            self.view.note_returned(sender)
            self.tend_view()
            self.state.send(sender, LeaseReturned(self.epoch, message.boot, message.request, self.assigned))

    def tend_view(self) -> None:
        """Take fit members into the view and drop unfit ones."""
        oldest, since = self.oldest_held()
        self.drag.tick(oldest, since)
        for name, peer in self.authority.peers.items():
            peer.stuck = self.repairs.unanswered_by(name)
        self.view.drop_unfit(oldest, since, self.assigned)
        self.view.consider(self.assigned, self.recovered)

    def reads_until(self) -> int:
        """Return until when this office may serve linearizable reads (0: not yet)."""
        if self.state.applied < self.recovered or self.state.comparing or not self.authority.granting:
            return 0
        return self.authority.authority_until()

    def read_slot(self) -> int:
        """Return the slot to apply before a linearizable read under this office's authority (R1).

        A ticket holder may have committed, and answered, what is only accepted here; never what is not.
        """
        return self.state.matched if self.ticketed else self.state.log.committed

    def refuse_queue(self) -> None:
        """Leaving office: tell the contacts of queued operations that they got no slot."""
        refused: dict[str, list[bytes]] = {}
        for _, contact, _, request_id, _ in self.queue:
            refused.setdefault(contact, []).append(request_id)
        for contact, request_ids in refused.items():
            if contact != self.state.node:
                self.state.send(contact, ForwardRefused(overloaded=False, request_ids=tuple(request_ids)))
        self.queue.clear()
        self.queued_bytes = self.queued_early = 0
