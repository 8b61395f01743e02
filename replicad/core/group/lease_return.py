"""The holder's side of ending a lease early: it is given back, so that no write waits until it has run out. Rule V2.

A member that wants no lease (about to stop, drained, disk stuck, slow or full) says so at once, and again until the
coordinator confirms. What makes that sound: the holder stops to read, and refuses every grant for a request made up to
then, *before* the return leaves; and the coordinator ends by it only grants that answered such requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.model.messages import LeaseReturn

if TYPE_CHECKING:
    from replicad.core.group.acceptor import Acceptor
    from replicad.core.group.state import GroupState
    from replicad.core.model.messages import LeaseRecall, LeaseReturned

RETURN_VERSION = 2
"""Version of the peer protocol that knows returns."""
OLDER_HEARTBEATS = 2
"""A coordinator that does not know returns learns from the answer to a heartbeat; so many later it has most likely."""


class LeaseReturns:
    """What one member has given back, and whether the coordinator knows."""

    def __init__(self, state: GroupState, acceptor: Acceptor) -> None:
        self.state = state
        self.acceptor = acceptor
        self.since = 0
        """When the lease was given up, which no grant for an earlier request survives (0: a lease is wanted)."""
        self.sent_at = 0
        self.confirmed_in = 0
        """The epoch whose coordinator has confirmed it."""
        self.assigned = 0
        """Tickets for slots up to here may name this member."""

    def tick(self) -> None:
        """Give back what is not wanted any more, and say so until it is confirmed."""
        state = self.state
        if self.acceptor.wants_lease():
            self.since = 0
            return
        if not self.since or self.acceptor.asked_at > self.since:
            self.since, self.sent_at, self.confirmed_in = state.now, 0, 0
        if not self._heard() and state.now - self.sent_at >= state.limits.heartbeat_us // 2:
            self.sent_at = state.now
            self._send()

    def _heard(self) -> bool:
        """Return whether there is nobody who would have to be told."""
        state = self.state
        return self.confirmed_in == state.epoch or not state.is_voter() or state.coordinator in {"", state.node}

    def _send(self) -> None:
        state = self.state
        state.send(state.coordinator, LeaseReturn(state.epoch, state.boot, state.now, willing=self.acceptor.willing()))

    def on_recall(self, sender: str, message: LeaseRecall) -> None:
        """The coordinator hands over: give the lease back that it speaks of; a later one is another matter."""
        state = self.state
        if sender != state.coordinator or not message.epoch == state.epoch == state.promised:
            return
        if self.acceptor.lease_request <= message.request:
            self.acceptor.drop_lease()
            self._send()

    def on_returned(self, sender: str, message: LeaseReturned) -> None:
        """The coordinator has taken note of what this process gave back."""
        state = self.state
        if sender != state.coordinator or message.epoch != state.epoch or message.boot != state.boot:
            return
        if self.since and message.request >= self.since:
            self.confirmed_in = state.epoch
            self.assigned = message.assigned

    def settled(self) -> bool:
        """Return whether nobody waits for this member's lease any more, so that its process may end.

        After a lease length it makes no difference whether the coordinator has heard.
        """
        state = self.state
        if not state.is_voter():
            return True
        waited = state.now - self.since if self.since else 0
        if waited >= state.limits.lease_us:
            return True
        if state.coordinator in {"", state.node}:
            return True
        if state.versions.get(state.coordinator, 1) < RETURN_VERSION:
            return waited >= OLDER_HEARTBEATS * state.limits.heartbeat_us
        return self.confirmed_in == state.epoch and state.log.committed >= self.assigned
