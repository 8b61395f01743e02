"""Why a change of a group is refused: a code, by which programs decide, and a sentence, which people read.

One registry: each code says what becomes of its reason if one waits. The sentence may name nodes and numbers, and may
be worded anew at any time; nothing depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Course(Enum):
    """What becomes of the reason of a refusal by itself."""

    PASSES = "passes"
    """It goes away: wait, and ask again."""
    SETTLES = "settles"
    """It goes away soon if it comes from the change before; otherwise it stays until somebody does something else."""
    STAYS = "stays"
    """It stays until somebody does something else; then the same request may succeed."""
    FINAL = "final"
    """The same request meets it again, whatever one waits for."""


class RefusalCode(Enum):
    """Every reason, as ``(name on the wire, course)``; names are never given another meaning."""

    MALFORMED = "malformed", Course.FINAL
    UNKNOWN_PROTOCOL = "unknown_protocol", Course.FINAL
    ALREADY_VOTER = "already_voter", Course.FINAL
    NOT_VOTER = "not_voter", Course.FINAL
    NOT_MIRROR = "not_mirror", Course.FINAL
    LAST_VOTER = "last_voter", Course.FINAL
    TOO_MANY_VOTERS = "too_many_voters", Course.FINAL
    TOO_MANY_MIRRORS = "too_many_mirrors", Course.FINAL
    OUTDATED = "outdated", Course.PASSES
    HANDING_OVER = "handing_over", Course.PASSES
    BUSY = "busy", Course.PASSES
    OVERLOADED = "overloaded", Course.PASSES
    SILENT = "silent", Course.PASSES
    BEHIND = "behind", Course.PASSES
    NOT_IN_VIEW = "not_in_view", Course.PASSES
    NO_MAJORITY = "no_majority", Course.SETTLES
    COORDINATES = "coordinates", Course.STAYS
    FOREIGN = "foreign", Course.STAYS
    OTHER = "other", Course.STAYS
    """A code that this release does not know: only the sentence says why."""

    def __init__(self, wire: str, course: Course) -> None:
        self.wire = wire
        self.course = course


_BY_WIRE = {code.wire: code for code in RefusalCode}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A change that is not made. Always true, so that ``Refusal | None`` is "refused, or not"."""

    code: RefusalCode
    sentence: str

    @property
    def passes(self) -> bool:
        """Whether its reason goes away by itself."""
        return self.code.course is Course.PASSES

    @property
    def settles(self) -> bool:
        """Whether its reason goes away soon, if it comes from the change before."""
        return self.code.course is Course.SETTLES

    @property
    def final(self) -> bool:
        """Whether the same request meets it again, whatever one waits for."""
        return self.code.course is Course.FINAL


def from_wire(code: str, sentence: str) -> Refusal | None:
    """Return what a peer said; None if it refused nothing. The code of a later release is ``OTHER``."""
    return Refusal(_BY_WIRE.get(code, RefusalCode.OTHER), sentence) if code else None
