"""The view: the members on whose acceptance every commit waits, because they may hold a lease. Rules C1, V1, V2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.detection.patience import Patience

if TYPE_CHECKING:
    from replicad.core.group.authority import Authority, Peer
    from replicad.core.group.state import GroupState


class View:
    """Who is in the view, and since which slot."""

    def __init__(self, state: GroupState, authority: Authority) -> None:
        self.state = state
        self.authority = authority
        self._answering = state.detectors.detector(Patience.VIEW)
        self.joined: dict[str, int] = {}
        """Member -> b, the last slot assigned when it joined: it is waited for above b (V1)."""
        self.barred = ""
        """A member that is about to lose its vote: it gets no more grants, and does not join again (M3)."""
        self.number = 1
        """Counts the changes of the view."""

    def members(self) -> tuple[str, ...]:
        """Return the names in the view, the coordinator first."""
        return (self.state.node, *self.joined)

    def limit(self, slot: int) -> int:
        """Return the highest slot, at most ``slot``, that every member of the view lets commit (C1)."""
        peers = self.authority.peers
        for name, joined_at in self.joined.items():
            slot = min(slot, max(peers[name].matched, joined_at))
        return slot

    def consider(self, assigned: int, recovered: int) -> None:
        """Take in members that answer and have caught up (V1)."""
        if self.state.applied < recovered or not self.authority.granting:
            return
        for name, peer in self.authority.peers.items():
            if name in self.joined or name == self.barred or not self.fresh(peer) or peer.lease_request == 0:
                continue
            if not peer.probation.over(self.state.now):
                peer.probation.watch(self.state.now, peer.matched, assigned, self.authority.pace.patience())
                continue
            if peer.matched < max(self.state.log.base, peer.owes):
                continue  # it needs a whole checkpoint first: nothing should wait for that
            if assigned - peer.matched <= self.state.limits.join_lag_slots:
                self.joined[name] = assigned
                self.number += 1
                self.state.event("view_joined", member=name, slot=assigned)

    def fresh(self, peer: Peer) -> bool:
        """Return whether the member answered within the last few heartbeats."""
        # An acknowledgement of a round that is long forgotten says nothing.
        return peer.acked_sent_at >= 0 and not self._answering.suspects(peer.node, self.state.now)

    def may_hold(self, name: str) -> bool:
        """Return whether a grant may go to this member now: it must have applied b (V1)."""
        joined_at = self.joined.get(name)
        if joined_at is None or name == self.barred:
            return False
        peer = self.authority.peers[name]
        return peer.applied >= joined_at and not peer.regains

    def drop_unfit(self, oldest_open: int, open_since: int, assigned: int = 0) -> None:
        """Drop holders that are silent, or leave slots unaccepted, once their last grant has ended (V2).

        One that was dropped comes back only after it has accepted all that was ``assigned`` by then: otherwise a member
        that answers but accepts nothing would hold up every slot anew. One that was too slow must then keep up for a
        while, longer each time: its acceptances come together, and between them it looks like any other.
        """
        peers = self.authority.peers
        for name in list(self.joined):
            peer = peers.get(name)
            if peer is None:
                self._leave(name)
            elif self.unfit(peer, oldest_open, open_since):
                slow = self.fresh(peer) and self.slow(peer, oldest_open, open_since)  # silence is another matter
                if not self.may_drop(peer):
                    if slow:
                        self.authority.recall_from(name)
                    continue
                self._leave(name)
                peer.owes = assigned
                self.state.event("view_dropped", member=name)
                if slow:
                    self._put_on_probation(name, peer)

    def note_returned(self, name: str) -> None:
        """A member of the view gave its lease back."""
        if name in self.joined:
            self.state.event("lease_returned", member=name)

    def _put_on_probation(self, name: str, peer: Peer) -> None:
        peer.dragging = False
        peer.probation.fail(self.state.now)
        self.state.event("slow_member", member=name, probation_ms=peer.probation.length() // 1000)

    def unfit(self, peer: Peer, oldest_open: int, open_since: int) -> bool:
        """Return whether this member should get no more grants."""
        return peer.lease_request == 0 or not self.fresh(peer) or self.slow(peer, oldest_open, open_since)

    def slow(self, peer: Peer, oldest_open: int, open_since: int) -> bool:
        """Return whether this member keeps the others waiting, although it may well answer heartbeats."""
        if peer.stuck or peer.dragging:
            return True
        late = bool(oldest_open) and peer.matched < oldest_open
        return late and self.state.now - open_since > self.authority.pace.patience()

    def may_drop(self, peer: Peer) -> bool:
        """Return whether no read can happen any more under a grant to this member."""
        return self.state.now >= peer.granted_until

    def remove(self, name: str) -> bool:
        """Try to take a member out (M3: before its disk leaves the configuration); True when it is out."""
        peer = self.authority.peers.get(name)
        if name in self.joined and (peer is None or self.may_drop(peer)):
            self._leave(name)
        return name not in self.joined

    def _leave(self, name: str) -> None:
        del self.joined[name]
        self.number += 1
