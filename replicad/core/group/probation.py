"""How long somebody who was too slow must have kept up before it is relied on again: longer each time. Pure."""

from __future__ import annotations

FIRST_STALLS = 4
"""The first probation lasts so many times ``stall_after`` (a second, unless it is set otherwise)."""
DOUBLINGS_MAX = 6
FORGOTTEN_STALLS = 1_200
"""After so many times ``stall_after`` without a failure (five minutes) the next one counts as the first."""


class Probation:
    """Of one member: kept by the coordinator from what it sees, and by the member itself from its own flushes."""

    def __init__(self, stall_after_us: int) -> None:
        self.stall_after_us = stall_after_us
        self.doublings = -1
        """How often it was doubled (-1: there was none)."""
        self.until = 0
        self.watched = (0, 0)
        """A slot that was assigned, and when: the member must have it before long."""

    def length(self) -> int:
        """Return how long the member must keep up, in microseconds."""
        return self.stall_after_us * FIRST_STALLS << max(0, self.doublings)

    def fail(self, now: int) -> None:
        """It was too slow. Again while it proves itself: it begins anew; again after it had proven itself: longer."""
        if self.over(now):
            forgotten = now - self.until > FORGOTTEN_STALLS * self.stall_after_us
            self.doublings = 0 if forgotten else min(self.doublings + 1, DOUBLINGS_MAX)
        self.until = now + self.length()

    def over(self, now: int) -> bool:
        """Return whether it may be relied on."""
        return now >= self.until

    def watch(self, now: int, matched: int, assigned: int, patience_us: int) -> None:
        """Take note of how far the member has come: a slot of half of ``patience_us`` ago it must have."""
        slot, since = self.watched
        if matched < slot and now - since > patience_us // 2:
            self.fail(now)
        elif matched < slot:
            return
        self.watched = (assigned, now)
