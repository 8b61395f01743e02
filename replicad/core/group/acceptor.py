"""The voter and follower side of one replica: promises, acceptances, loyalty, the holder's lease.

Rules E2, A1, L1, L3 (holder), R1 (holder) of the design.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.group.log import value_digest
from replicad.core.group.slots import Slots
from replicad.core.model.errors import check
from replicad.core.model.messages import (
    Accept,
    Accepted,
    Committed,
    FetchValues,
    Heartbeat,
    HeartbeatAck,
    Prepare,
    PreVote,
    PreVoteAnswer,
    Promise,
    Rejected,
    Release,
    Values,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.core.group.state import GroupState
    from replicad.core.model.messages import Entry, Summary


class Acceptor:
    """Answers candidates and coordinators, and holds this replica's lease."""

    def __init__(self, state: GroupState, resign: Callable[[str], None], office_ends: Callable[[], int]) -> None:
        """``resign(why)`` gives up candidacy or office; ``office_ends()`` is when own authority and grants end."""
        self.state = state
        self.resign = resign
        self.office_ends = office_ends
        self.loyal_epoch = 0
        self.loyal_until = 0
        self.voter_since = state.started_at
        self.heard_at = state.started_at
        """When a coordinator was last heard, or a candidate promised: elections wait for it."""
        self.heartbeat_at = 0
        """When the last heartbeat that counted came (0: none yet)."""
        self.released_to = ""
        self.lease_until = 0
        self.lease_slot = 0
        self.asked_at = 0
        """When a lease was asked for last."""
        self.lease_request = 0
        """The newest request that a grant was taken for."""
        self.lease_asked_after = 0
        """Grants for requests made before this are refused: the lease was given back."""
        self.slots = Slots(state, self)

    # --- loyalty (L1) -----------------------------------------------------------------------------------------------

    def sticky_until(self) -> int:
        """Return until when this voter promises nothing to a new candidate (rule L1)."""
        lease = self.state.limits.lease_us
        return max(
            self.state.started_at + lease,
            self.voter_since + lease,
            self.loyal_until,
            self.office_ends(),
        )

    def may_promise(self, predecessor: int) -> bool:
        """Return whether loyalty allows a promise; the coordinator's own next epoch overrides it (rule E5)."""
        if self.state.yielding():
            return False  # if others have nothing to prove, and are a majority, they need no vote of this replica
        if predecessor and predecessor == self.loyal_epoch and self.office_ends() <= self.state.now:
            return self.state.started_at + self.state.limits.lease_us <= self.state.now
        return self.state.now >= self.sticky_until()

    # --- candidates -------------------------------------------------------------------------------------------------

    def on_pre_vote(self, sender: str, message: PreVote) -> None:
        """Say whether a Prepare would be promised; promise nothing."""
        state = self.state
        if not state.is_voter():
            return
        granted = (
            message.epoch > state.promised and message.committed >= state.log.base and self.may_promise(predecessor=0)
        )
        state.send(sender, PreVoteAnswer(message.epoch, message.attempt, granted, state.promised))

    def on_prepare(self, sender: str, message: Prepare) -> None:
        """Promise a higher epoch (E2), or repeat a page of the promise made to it."""
        state = self.state
        if not state.is_voter():
            return
        if message.epoch < state.promised:
            state.send(sender, Rejected(message.epoch, state.promised))
            return
        if message.epoch > state.promised:
            if not self.may_promise(message.predecessor):
                return
            self.raise_promise(message.epoch)
            self.heard_at = state.now
        elif state.epoch == message.epoch:
            return  # it is in office already: a page asked for long ago
        self._send_promise(sender, message)

    def raise_promise(self, epoch: int) -> None:
        """Promise ``epoch``; a promise above one's epoch drops lease and role (A1)."""
        self.state.promise(epoch)
        self.drop_lease()
        self.resign(f"promised epoch {epoch}")

    def _send_promise(self, sender: str, message: Prepare) -> None:
        state = self.state
        log = state.log
        first = max(message.from_slot, log.base + 1)
        last = min(log.highest, first + state.limits.page_entries - 1)
        entries: list[Summary] = []
        for slot in range(first, last + 1):
            held = log.get(slot)
            if held is not None:
                entries.append((slot, held[0], held[1], value_digest(held[2])))
        state.send_durable(
            sender,
            Promise(
                message.epoch,
                message.attempt,
                self._known_committed(),
                log.base,
                log.highest,
                message.from_slot,
                last,
                tuple(entries),
            ),
        )

    def _known_committed(self) -> int:
        """Return up to where decided slots are to be had here; what is doubted is reported as accepted, as it votes."""
        state = self.state
        if state.rebuilding:
            return state.log.base
        return min(state.log.committed, max(state.feedable(), state.log.base))

    def on_fetch_values(self, sender: str, message: FetchValues) -> None:
        """Send accepted values to the candidate that holds this promise."""
        state = self.state
        if message.epoch != state.promised:
            return
        entries: list[Entry] = []
        size = 0
        for slot in message.slots[: state.limits.page_entries]:
            held = state.log.get(slot)
            if held is None:
                continue
            if entries and size + len(held[2]) > state.limits.page_bytes:
                break
            entries.append((slot, *held))
            size += len(held[2])
        state.send_durable(sender, Values(message.epoch, tuple(entries)))

    def on_release(self, sender: str, message: Release) -> None:
        """The coordinator handed over: loyalty to its epoch ends now."""
        if message.epoch != self.loyal_epoch or sender != self.state.coordinator:
            return
        self.loyal_until = min(self.loyal_until, self.state.now)
        self.drop_lease()
        self.released_to = message.successor
        self.heard_at = self.state.now - self.state.limits.lease_us
        self.state.coordinator = ""

    # --- coordinators -----------------------------------------------------------------------------------------------

    def follow(self, sender: str, epoch: int) -> bool:
        """Return whether a coordinator's message of ``epoch`` counts here; adopt a newer epoch (A1)."""
        state = self.state
        if epoch < state.promised:
            state.send(sender, Rejected(epoch, state.promised))
            return False
        if epoch > state.promised:
            self.raise_promise(epoch)
        if state.epoch != epoch or state.coordinator != sender:
            check(
                state.epoch != epoch or not state.coordinator, "an epoch has at most one coordinator", "one coordinator"
            )
            if state.epoch != epoch:
                state.adopt_epoch(epoch)
            state.coordinator = sender
            self.resign(f"following {sender}")
            state.event("following", epoch=epoch, coordinator=sender)
        self.released_to = ""
        return True

    def on_accept(self, sender: str, message: Accept) -> None:
        """Accept the coordinator's slots (A1), and answer once they are durable."""
        state = self.state
        if not state.is_voter():
            return
        if not self.follow(sender, message.epoch) or state.full or state.stalled():
            return  # what the disk does not take must not pile up in memory
        gap = message.first > state.matched + 1
        slot = message.first
        for value in message.values:
            self.slots.accept(message.epoch, 0, slot, value)
            slot += 1
        self.slots.note_committed(message.epoch, message)
        self.answer_accept(sender, message.epoch, gap=gap)

    def answer_accept(self, sender: str, epoch: int, *, gap: bool) -> None:
        """Tell the coordinator what is durably accepted here (sent after the flush)."""
        self.state.send_durable(sender, Accepted(epoch, self.state.matched, gap))

    def on_committed(self, sender: str, message: Committed) -> None:
        """Learn that slots are committed."""
        if self.state.is_voter() and self.follow(sender, message.epoch):
            self.slots.note_committed(message.epoch, message)

    # --- heartbeats and the lease -----------------------------------------------------------------------------------

    def on_heartbeat(self, sender: str, message: Heartbeat) -> bool:
        """Be loyal, take a granted lease, answer. Returns whether the heartbeat counted."""
        state = self.state
        if not state.is_voter() or not self.follow(sender, message.epoch):
            return False
        self.heard_at = state.now
        self.heartbeat_at = state.now
        self.pledge(message.epoch)
        self.slots.note_committed(message.epoch, message)
        if self._of_another_past(message):
            return False
        missing = self._missing_of(message.acknowledged)
        if missing:
            state.out.forget = (
                f"slot {message.acknowledged} was acknowledged by this disk, but its log does not hold slot {missing}: "
                f"it is older than what the group knows"
            )
            return False
        self._take_grant(message)
        return True

    def _of_another_past(self, message: Heartbeat) -> bool:
        """Return whether this log is none of this group's: it calls a slot committed that no election found (E3).

        All that was chosen before an epoch is below what its coordinator has assigned. The process stops, and sets
        nothing aside: should it be the coordinator that is wrong, this directory is needed.
        """
        state = self.state
        held = state.log.get(state.log.committed)
        if state.log.committed <= message.assigned or held is None or held[0] >= message.epoch:
            return False
        state.out.halt = (
            f"slot {state.log.committed} is committed by this log, and the group has assigned no more than "
            f"{message.assigned} slots: this directory is of another past. If replicad status at {state.coordinator} "
            f"shows the group's data, move this directory away, and start the node again: it is re-admitted"
        )
        return True

    def _missing_of(self, acknowledged: int) -> int:
        """Return the first slot, up to the one acknowledged, that this log should hold and does not (0: none)."""
        log = self.state.log
        for slot in range(log.committed + 1, acknowledged + 1):
            if log.get(slot) is None:
                return slot
        return 0

    def pledge(self, epoch: int) -> None:
        """Be loyal to ``epoch`` for a lease length (L1)."""
        self.loyal_epoch = epoch
        self.loyal_until = self.state.now + self.state.limits.lease_us

    def acknowledge(
        self, sender: str, message: Heartbeat, mark: tuple[int, bytes], checkpoint: tuple[int, bytes]
    ) -> None:
        """Answer a heartbeat; at once, never behind the disk."""
        state = self.state
        request = state.now if self.wants_lease() else 0
        self.asked_at = max(self.asked_at, request)
        state.send(
            sender,
            HeartbeatAck(
                message.epoch,
                message.sequence,
                state.boot,
                state.durable_limit(state.matched),
                state.applied,
                request,
                mark[0],
                mark[1],
                checkpoint[0],
                checkpoint[1],
            ),
        )

    def wants_lease(self) -> bool:
        """Return whether to ask for a lease; otherwise read under none from now on (V2: stuck or full disks do; V3)."""
        if not self.willing() or self.state.comparing or not self.state.flushes.over(self.state.now):
            self.drop_lease()
            return False
        return True

    def fit(self) -> bool:
        """Return whether this replica should have a lease, or an office, at all."""
        state = self.state
        return not (state.rebuilding or state.full or state.leaving or state.stalled())

    def willing(self) -> bool:
        """Return whether this replica would have a lease, or an office that others could have as well (V3)."""
        return self.fit() and not self.state.drained

    def drop_lease(self) -> None:
        """Read no more, and take no grant for a request made before now."""
        self.lease_until = 0
        self.lease_asked_after = self.state.now + 1

    def _take_grant(self, message: Heartbeat) -> None:
        state = self.state
        if message.grant_us == 0 or message.grant_boot != state.boot:
            return
        if message.grant_request < self.lease_asked_after:
            return
        self.lease_until = max(self.lease_until, self.lease_end(message))
        self.lease_slot = message.grant_slot
        self.lease_request = max(self.lease_request, message.grant_request)

    def lease_end(self, message: Heartbeat) -> int:
        """Return when a granted lease ends: anchored at the own request, never at receipt (L3)."""
        return message.grant_request + self.state.limits.shortened(message.grant_us)

    def read_slot(self) -> int | None:
        """Return the slot to apply before a local linearizable read, None without a lease (R1)."""
        state = self.state
        if state.now >= self.lease_until or state.epoch != state.promised:
            return None
        return max(self.lease_slot, state.matched)
