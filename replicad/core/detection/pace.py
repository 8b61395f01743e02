"""How long something usually takes, and how much longer it may take before it counts as stuck. Pure.

Mean and deviation are smoothed as TCP smooths round trips (Jacobson and Karels 1988; RFC 6298), but for two things: the
deviation follows four times more slowly, and no duration counts for more than the patience that there was. A fixed time
that is right for one cluster's disks calls every disk of another cluster stuck; one hang must not make it longer.
"""

from __future__ import annotations

DEVIATIONS = 4
MARGIN = 2
"""Half of the patience is what a single slot may take unnoticed: that half still covers mean and deviations."""


class Pace:
    """Durations of one kind of thing, in integer microseconds."""

    __slots__ = ("_deviation", "_mean", "ceiling_us", "floor_us")

    def __init__(self, floor_us: int, ceiling_us: int) -> None:
        """``floor_us``: patience that whatever is fast is given, too; ``ceiling_us``: no habit earns more."""
        self.floor_us = floor_us
        self.ceiling_us = ceiling_us
        self._mean = self._deviation = 0

    def observe(self, duration_us: int) -> None:
        """It took so long this time. What took longer than the patience counts as that: one hang is no habit."""
        duration = min(duration_us, self.patience())
        self._deviation += (abs(duration - self._mean) - self._deviation) // 16
        self._mean += (duration - self._mean) // 8

    def patience(self) -> int:
        """Return how long it may take before it counts as stuck."""
        usual = MARGIN * (self._mean + DEVIATIONS * self._deviation)
        return max(self.floor_us, min(usual, self.ceiling_us))
