"""Whether a message log has room ahead: which empty segments stand ready, and when the disk counts as full.

Pure: whoever owns the files makes and removes segments, and says here what came of it. Being full is computed from what
is there and what waits, never left by an event: a disk that has space again is found out by the next try, and as long
as the disk is full, something is lacking, so that there is a next try.
"""

from __future__ import annotations

from replicad.core.model.errors import check

SPARES_KEPT = 1
"""Empty segments that stand ready behind the current one."""


class Space:
    """The empty segments of one log, and whether the last try to make one found space."""

    def __init__(self, spares: int) -> None:
        """``spares``: the empty segments that are there at the start."""
        self.spares = spares
        self._refused = False

    def surplus(self) -> int:
        """Return how many of the last segments may be removed at a start: more of them stand ready than are kept."""
        return max(0, self.spares - SPARES_KEPT)

    def lacks(self, *, waiting: bool) -> bool:
        """Return whether a segment must be made; ``waiting``: there are records that found no room."""
        return self.spares < SPARES_KEPT or waiting

    def full(self, *, waiting: bool) -> bool:
        """Return whether the disk is full: something is lacking, and the last try to make it found no space."""
        return self._refused and self.lacks(waiting=waiting)

    def made(self) -> None:
        """A segment was made."""
        self.spares += 1
        self._refused = False

    def refused(self) -> None:
        """There was no space for a segment."""
        self._refused = True

    def removed(self, segments: int) -> None:
        """Surplus segments were removed."""
        self.spares -= segments
        check(self.spares >= 0, "only empty segments are surplus")

    def used(self, segments: int) -> None:
        """The log went on into so many of the empty segments."""
        self.spares -= segments
        check(self.spares >= 0, "a log goes on only into segments that are there")
