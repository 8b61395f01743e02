"""The coordinator's heartbeats, authority and grants. Rules E4, L2, L3 (grantor), K3 (what heartbeats carry).

Intuition: a voter that acknowledged a heartbeat sent at ``t`` promises nobody else before ``t + Λ`` on its own clock,
since it answered after ``t``. So with a majority of such answers nobody else can be elected before
``t + Λ(1-ρ)`` on ours. Leases granted to readers end before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.core.detection.pace import Pace
from replicad.core.detection.patience import Sign
from replicad.core.group.probation import Probation
from replicad.core.model.messages import LeaseRecall

if TYPE_CHECKING:
    from replicad.core.group.state import GroupState
    from replicad.core.model.configuration import Configuration
    from replicad.core.model.messages import HeartbeatAck, LeaseReturn

ROUNDS_KEPT = 64
PACE_STALLS_MAX = 4
"""Where a majority is slow, a slot may take so many times ``stall_after`` at most before a member is blamed for it."""


@dataclass(slots=True)
class Peer:
    """What the coordinator knows of one member in this epoch."""

    node: str
    disk: str
    probation: Probation
    boot: int = 0
    acked_sequence: int = 0
    acked_sent_at: int = -1
    """Send time of the newest heartbeat that it acknowledged (-1: none)."""
    matched: int = 0
    """Durably accepted up to here, in this epoch."""
    moved_at: int = 0
    """When ``matched`` last rose."""
    applied: int = 0
    owes: int = 0
    """What it must have accepted before it may join the view again."""
    regains: int = 0
    """What its last process had matched, and this one has not reported yet: a read there might miss it (0: nothing)."""
    stuck: bool = False
    """It answers heartbeats, and leaves the proposal of a repair unanswered."""
    lease_request: int = 0
    """Its newest lease request, on its own clock; 0: it wants none."""
    request_granted: int = 0
    granted_in: int = 0
    """The round that the newest grant went out with: an answer to an earlier one knows nothing of it."""
    granted_until: int = 0
    """On the coordinator's clock: no read under its grants happens after this."""
    returned: tuple[int, int, int] = (0, 0, 0)
    """Boot and request of the newest return, and the last round begun before it came.

    What that process asks for up to then in answers to such rounds is granted no more: they may have been overtaken. An
    answer to a later round was sent after the return, whatever number that had.
    """
    willing: bool = True
    """It would take the office; not if, say, it is about to stop."""
    dragging: bool = False
    """It answers in time, and still keeps the group at its own speed."""
    recalled_at: int = 0
    sent_to: int = 0
    """Highest slot sent to it."""
    resent_at: int = 0


class Authority:
    """Heartbeat rounds, how long the office lasts, and grants to readers."""

    def __init__(self, state: GroupState) -> None:
        self.state = state
        self.sequence = 0
        self.round_sent_at: dict[int, int] = {}
        self.last_round_at = 0
        self.began_at = state.now
        self.granting = True
        stall = state.limits.stall_after_us
        self.pace = Pace(stall, PACE_STALLS_MAX * stall)
        """How long a slot takes until a majority has accepted it: nobody is slow who is no slower than that."""
        self._peers: dict[str, Peer] = {}
        self._followed: Configuration | None = None
        """The configuration whose other voters the peers are."""
        self._found_current_in: Configuration | None = None
        """The configuration for which :meth:`current` was true."""
        self.refresh_members()

    @property
    def peers(self) -> dict[str, Peer]:
        """What is known of each other voter of the configuration of this moment.

        It may change at any place that commits slots, a page of them that was long on its way included.
        """
        if self._followed is not self.state.configuration:
            self.refresh_members()
        return self._peers

    def refresh_members(self) -> None:
        """Follow the configuration: a new disk starts from nothing."""
        configuration = self._followed = self.state.configuration
        members = configuration.members if configuration else ()
        for member in members:
            if member.node == self.state.node:
                continue
            known = self._peers.get(member.node)
            if known is None or known.disk != member.disk:
                # What is committed already it fetches itself. From here on a majority may need it: until it can have
                # answered, its silence says nothing (E4).
                self._peers[member.node] = Peer(
                    member.node,
                    member.disk,
                    Probation(self.state.limits.stall_after_us),
                    sent_to=self.state.log.committed,
                )
                self.state.detectors.forget(member.node, Sign.ANSWER)
                self.began_at = self.state.now
        current = {member.node for member in members}
        for name in [name for name in self._peers if name not in current]:
            del self._peers[name]

    def current(self) -> bool:
        """Return whether the peers are the other voters of the configuration that is known here."""
        configuration = self.state.configuration
        if configuration is not None and configuration is self._found_current_in:
            return True  # peers change with the configuration only: this is asked after every step
        members = configuration.members if configuration else ()
        disks = {member.node: member.disk for member in members if member.node != self.state.node}
        if disks != {name: peer.disk for name, peer in self.peers.items()}:
            return False
        self._found_current_in = configuration
        return True

    def begin_round(self) -> int:
        """Number a new heartbeat round and remember when it was sent."""
        self.sequence += 1
        self.round_sent_at[self.sequence] = self.state.now
        self.round_sent_at.pop(self.sequence - ROUNDS_KEPT, None)
        self.last_round_at = self.state.now
        return self.sequence

    def on_ack(self, sender: str, message: HeartbeatAck) -> None:
        """Note an acknowledgement; an old one never replaces what a newer one said."""
        peer = self.peers[sender]
        sent_at = self.round_sent_at.get(message.sequence)
        if sent_at is not None:
            peer.acked_sent_at = max(peer.acked_sent_at, sent_at)
        self.note_matched(peer, message.matched)
        if message.sequence <= peer.acked_sequence:
            return
        if peer.boot != message.boot:
            peer.regains = peer.matched if peer.boot else 0
            peer.boot = message.boot
            peer.request_granted = 0
        elif message.lease_request == 0 and message.sequence >= peer.granted_in:
            peer.granted_until = 0  # it gave its lease back, and takes no grant for an earlier request
        if message.matched >= peer.regains:
            peer.regains = 0
        peer.acked_sequence = message.sequence
        peer.applied = message.applied
        boot, request, round_ = peer.returned
        over = message.boot == boot and message.lease_request <= request and message.sequence <= round_
        peer.lease_request = 0 if over else message.lease_request
        if peer.lease_request:
            peer.willing = True
            if message.sequence > round_:
                peer.returned = (0, 0, 0)

    def on_return(self, peer: Peer, message: LeaseReturn) -> bool:
        """Note that a member gave its leases back; returns whether none of its grants lasts any longer (V2).

        A return says nothing of another process's leases, nor of a lease that was asked for after it.
        """
        if peer.boot not in {0, message.boot}:
            return False
        boot, request, _ = peer.returned
        if message.boot != boot or message.request > request:
            peer.returned = (message.boot, message.request, self.sequence)
            peer.willing = message.willing
        if peer.lease_request <= message.request:
            peer.lease_request = 0
        if self.covers(message, peer):
            peer.granted_until = 0
        return self.state.now >= peer.granted_until

    def covers(self, message: LeaseReturn, peer: Peer) -> bool:
        """Return whether everything granted to this process answered requests that the return speaks of."""
        return peer.request_granted <= message.request

    def recall(self) -> None:
        """Ask all who may read under a grant to give it back."""
        for name in self.peers:
            self.recall_from(name)

    def recall_from(self, name: str) -> None:
        """Ask a member to give back what it may read under (again every half heartbeat)."""
        state, peer = self.state, self.peers[name]
        if state.now < peer.granted_until and state.now - peer.recalled_at >= state.limits.heartbeat_us // 2:
            peer.recalled_at = state.now
            state.send(name, LeaseRecall(state.epoch, peer.request_granted))

    def note_matched(self, peer: Peer, matched: int) -> None:
        """Note what a member has durably accepted."""
        if matched > peer.matched:
            peer.matched = matched
            peer.moved_at = self.state.now

    def majority_sent_at(self) -> int:
        """Return the majority-th latest send time of acknowledged heartbeats (own: now); -1 if there is none (L2)."""
        times = [peer.acked_sent_at for peer in self.peers.values()]
        times.append(self.state.now)
        times.sort()  # in place: it is asked with every read
        return times[-self.state.majority()]

    def authority_until(self) -> int:
        """Return when the authority ends, on the own clock (L2)."""
        sent_at = self.majority_sent_at()
        return 0 if sent_at < 0 else sent_at + self.state.limits.shortened(self.state.limits.lease_us)

    def grants_until(self) -> int:
        """Return when the last grant ends."""
        return max((peer.granted_until for peer in self.peers.values()), default=0)

    def lost(self) -> bool:
        """Return whether Λ has passed without a majority's acknowledgements (E4)."""
        return self.state.now - max(self.majority_sent_at(), self.began_at) > self.state.limits.lease_us

    def confirmed_round(self) -> int:
        """Return the newest round that a majority acknowledged."""
        others = [peer.acked_sequence for peer in self.peers.values()]
        return sorted([self.sequence, *others])[-self.state.majority()]

    def grant(self, peer: Peer) -> tuple[int, int]:
        """Return ``(request, duration)`` of a grant to this peer, ``(0, 0)`` for none; each request is granted once."""
        if not self.granting or peer.lease_request in {0, peer.request_granted}:
            return 0, 0
        duration = self.grant_duration()
        if duration <= 0:
            return 0, 0
        peer.request_granted = peer.lease_request
        peer.granted_in = self.sequence
        peer.granted_until = max(peer.granted_until, self.state.now + duration)
        return peer.lease_request, duration

    def grant_duration(self) -> int:
        """Return how long a grant made now lasts: within the authority (L3)."""
        return min(self.state.limits.lease_us, self.authority_until() - self.state.now)
