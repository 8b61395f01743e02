"""Who holds commits up although a majority has accepted: members of the view, or the coordinator's own disk. Rule V2.

A member that leaves a slot unaccepted for too long is dropped for that alone. One that is a little faster, with every
slot, would keep the whole group at its own speed for ever; so the time is added up. Too long is ``stall_after``, or
more where a majority itself takes longer: blaming every disk of a slow cluster in turn would make it no faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.core.group.office import Office

WINDOW_STALLS = 4
"""Time is added up over this window and the one before it, each so many times the patience (a second, unless a majority
is slow); as long as one patience is too much."""
STEP_US_MAX = 50_000
"""Between two looks that are further apart nobody knows what was waited for."""


class Drag:
    """One office's account of who is waited for, looked at with every tick."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.looked_at = self.began_at = office.state.now
        self.held_up: dict[str, int] = {}
        """Node -> microseconds of this window in which only it was waited for."""
        self.before: dict[str, int] = {}
        """The same of the window before."""
        self.timed = (0, 0)
        """The newest slot whose way to a majority was timed, and, while it is under way, when it was assigned."""

    def tick(self, oldest: int, since: int) -> None:
        """Add up, and drop a member, or move the office, that costs the group too much.

        ``oldest``, ``since``: of :meth:`Office.oldest_held`.
        """
        office = self.office
        state = office.state
        self._time()
        stall = office.authority.pace.patience()
        step, self.looked_at = min(state.now - self.looked_at, STEP_US_MAX), state.now
        if state.now - self.began_at > WINDOW_STALLS * stall:
            self.began_at, self.before, self.held_up = state.now, self.held_up, {}
        if not oldest:
            return
        for name in self.waited_for(oldest, since):
            self.held_up[name] = self.held_up.get(name, 0) + step
            if self.held_up[name] + self.before.get(name, 0) <= stall:
                continue
            self.held_up[name] = self.before[name] = 0
            if name == state.node:
                self._move()
            else:
                office.authority.peers[name].dragging = True

    def _time(self) -> None:
        """Learn from one slot at a time how long a majority takes."""
        office = self.office
        slot, since = self.timed
        if since:
            if office.majority_matched(office.state.durable_limit(office.state.matched)) < slot:
                return
            office.authority.pace.observe(office.state.now - since)
            self.timed = slot, 0
        if office.open and office.open[-1][0] > slot:  # one that a majority has by now may be held up by others
            self.timed = office.open[-1][0], office.open[-1][2]

    def waited_for(self, slot: int, since: int) -> list[str]:
        """Return who alone keeps the oldest open slot from committing, for half of the patience by now."""
        office = self.office
        state = office.state
        if state.now - since <= office.authority.pace.patience() // 2:
            return []
        peers = office.authority.peers
        own = state.durable_limit(state.matched)
        if own < slot:
            others = sum(peer.matched >= slot for peer in peers.values())
            return [state.node] if others >= state.majority() else []
        if office.majority_matched(own) < slot:
            return []
        return [name for name in office.view.joined if peers[name].matched < slot]

    def _move(self) -> None:
        """Hand the office to the member that has accepted most, if one would take it."""
        office = self.office
        if not office.successor:
            office.successor = heir(office)
            if office.successor:
                office.state.flushes.fail(office.state.now)
                office.state.event("slow_coordinator", successor=office.successor)


def heir(office: Office) -> str:
    """Return the member that has accepted most of those that would take the office ("": there is none)."""
    peers = office.authority.peers
    fit = [name for name in office.view.joined if peers[name].willing and office.view.fresh(peers[name])]
    return max(fit, key=lambda name: (peers[name].matched, name), default="")
