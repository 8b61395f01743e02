"""What a failure detector is, and the simplest one: who has shown no sign of life for too long is suspected.

A suspicion may be wrong, at any time and for any duration: a slow network looks like a dead node. So no safety rule may
hang on it. What must be *known* of others (that nobody else can be elected, that nobody reads under a grant any more)
is the arithmetic of leases, L1 to L3 and E4, from times that were promised, and asks no detector.
"""

from __future__ import annotations

from typing import Protocol


class Detector(Protocol):
    """Says which nodes seem to have failed. Times are integer microseconds of the clock of whoever asks."""

    def heard(self, node: str, now: int) -> None:
        """A node showed a sign of life."""

    def suspects(self, node: str, now: int) -> bool:
        """Return whether a node seems to have failed; one that was never heard is suspected."""

    def last_heard(self, node: str) -> int | None:
        """Return when a node last showed a sign of life (None: never, or not since it was forgotten)."""

    def forget(self, node: str) -> None:
        """What was heard of a node says nothing any more: suspect it until it is heard again."""


class PassiveHeartbeat:
    """Suspects a node once its last sign of life is older than a fixed time; sends nothing itself."""

    def __init__(self, patience_us: int) -> None:
        """``patience_us``: the oldest sign of life that still counts."""
        self.patience_us = patience_us
        self._heard_at: dict[str, int] = {}

    def heard(self, node: str, now: int) -> None:
        """A node showed a sign of life."""
        self._heard_at[node] = now

    def suspects(self, node: str, now: int) -> bool:
        """Return whether the last sign of life is too old, or there is none."""
        heard_at = self._heard_at.get(node)
        return heard_at is None or now - heard_at > self.patience_us

    def last_heard(self, node: str) -> int | None:
        """Return when a node last showed a sign of life (None: never, or not since it was forgotten)."""
        return self._heard_at.get(node)

    def forget(self, node: str) -> None:
        """Suspect a node until it is heard again."""
        self._heard_at.pop(node, None)
