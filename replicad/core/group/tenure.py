"""When a coordinator must leave its office, and how it hands over or stands again. Rules E4, E5, M2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.group.drag import heir
from replicad.core.model.messages import Forward, ForwardRefused, Rejected, Release
from replicad.core.model.operations import check_operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.core.group.acceptor import Acceptor
    from replicad.core.group.election import Election
    from replicad.core.group.office import Office
    from replicad.core.group.state import GroupState


class Tenure:
    """Watches over offices, one after the other."""

    def __init__(
        self, state: GroupState, acceptor: Acceptor, election: Election, step_down: Callable[[str], None]
    ) -> None:
        """``step_down(why)`` ends the office."""
        self.state = state
        self.acceptor = acceptor
        self.election = election
        self.step_down = step_down
        self.past_until = 0
        """When the grants and the authority of past offices end."""
        self.reelect_above = 0
        """A promise above the own epoch was heard of (0: none): stand again above it (E5)."""
        self.released = 0
        """The last epoch that this node handed over."""

    def begin(self) -> None:
        """A new office begins."""
        self.reelect_above = 0
        self.acceptor.released_to = ""

    def remember(self, office: Office) -> None:
        """The office ends: what it granted may last longer."""
        authority = office.authority
        self.past_until = max(self.past_until, authority.grants_until(), authority.authority_until())

    def ends(self, office: Office | None) -> int:
        """Return when all grants and the authority of this node's offices have ended (L1)."""
        if office is None:
            return self.past_until
        return max(self.past_until, office.authority.grants_until(), office.authority.authority_until())

    def must_step_down(self, office: Office) -> str:
        """Return why the coordinator may not stay in office ("": it may): E4, M2."""
        if office.authority.lost():
            return "no majority acknowledged its heartbeats"
        if self.state.stalled():
            return "its disk does not answer"
        if self.state.full:
            return "its disk is full"
        if not office.has_promises():
            return "no majority of the new configuration has promised its epoch"
        return ""

    def lasts(self, office: Office) -> bool:
        """Return whether the office goes on; if not, it has been ended here."""
        why = self.must_step_down(office)
        if why:
            self.step_down(why)
            return False
        if self.state.drained and not office.successor:
            # As long as there is none the office stays: a group without one is worse (V3).
            office.successor = heir(office)
        if self.state.leaving or (office.successor and self._may_be_elected(office)):
            return not self.hand_over(office)
        if self.reelect_above:
            return not self.stand_again(office)
        return True

    def hand_over(self, office: Office) -> bool:
        """Leave in order, once all grants have ended and open slots are committed; returns whether it is done (E5)."""
        state = self.state
        office.authority.granting = False
        office.authority.recall()
        # A node that stays closes its office no earlier than it must: nobody's process is about to end. One that is
        # drained closes it at once: what is open commits while the leases come back, and by then all have heard of it.
        office.closing = state.leaving or state.drained or self.grants_ended(office)
        if not self.grants_ended(office):
            return False
        if office.open and state.now - office.open[0][2] < state.limits.lease_us:
            return False
        self.step_down("hands over")
        self.past_until = state.now  # it reads and grants no more: nothing of this office outlives it
        self.released = office.epoch
        self.acceptor.released_to = self._successor(office)
        state.broadcast(Release(office.epoch, self.acceptor.released_to))
        return True

    def _may_be_elected(self, office: Office) -> bool:
        """Return whether the successor can stand by now: a new voter is bound for a lease length at first (L1)."""
        limits = self.state.limits
        return self.state.now >= office.authority.began_at + limits.lease_us + 2 * limits.heartbeat_us

    def grants_ended(self, office: Office) -> bool:
        """Return whether nobody reads under a grant of this office any more."""
        return self.state.now >= office.authority.grants_until()

    def stand_again(self, office: Office) -> bool:
        """Stand for an epoch above the promise that is in the way, once all grants have ended (E5)."""
        state = self.state
        office.authority.granting = False
        office.authority.recall()
        if not self.grants_ended(office):
            return False
        self.election.seen = max(self.election.seen, self.reelect_above)
        self.reelect_above = 0
        self.step_down("stands again above a higher promise")
        self.past_until = min(self.past_until, state.now)
        self.acceptor.loyal_epoch = office.epoch
        self.election.stand(predecessor=office.epoch)
        return True

    def _successor(self, office: Office) -> str:
        if office.successor in office.authority.peers:
            return office.successor
        peers = [item for item in office.authority.peers.items() if item[1].willing]
        best = max(peers, key=lambda item: (item[1].matched, item[0]), default=None)
        return best[0] if best else ""

    def on_rejected(self, message: Rejected, office: Office | None) -> None:
        """Someone promised a higher epoch: a candidate gives up, a coordinator stands again above it."""
        self.election.on_rejected(message)
        if office is not None and message.epoch == office.epoch:
            self.reelect_above = max(self.reelect_above, message.promised)
            office.authority.granting = False

    def on_forward(self, sender: str, message: Forward, office: Office | None) -> None:
        """Put a contact's operations in the queue of the office, or refuse them."""
        refused = []
        for encoded in message.operations:
            try:
                request_id = check_operation(encoded).request_id
            except ValueError as error:
                self.state.complaint("bad_operation", sender, sender=sender, reason=str(error))
                continue
            if office is None or self.state.leaving or not office.offer(encoded, sender, message.ack, request_id):
                refused.append(request_id)
        if refused:
            self.state.send(sender, ForwardRefused(overloaded=office is not None, request_ids=tuple(refused)))
