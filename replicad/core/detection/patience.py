"""What counts as a sign of life of a peer, and how long its absence is borne: one table for a whole replica.

A sign shows what a question needs to know, not just that some process sends bytes. Who cannot hear the coordinator may
well be heard by it, and must still leave the view: only answers count there. A new disk introduces itself while the old
one, under the same name, still answers: the two are told apart by the sign, too.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from replicad.core.detection.detector import PassiveHeartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.core.detection.detector import Detector
    from replicad.core.model.limits import Limits


class Sign(Enum):
    """What a peer did."""

    __hash__ = object.__hash__  # members are single objects; Enum's own, in Python, is called for every look-up

    ANSWER = auto()
    """The disk that votes acknowledged a heartbeat of this office: both directions work."""
    WORD = auto()
    """It said of itself which disk it has and how far it is, whether that disk votes or not."""
    OFFER = auto()
    """It offers committed slots, and is the one to fetch them from."""
    ACCEPTANCE = auto()
    """The disk that votes accepted a slot of a ticket of this contact."""


class Patience(Enum):
    """A question about a peer: ``(name, sign, heartbeats)``, the sign that counts, and how old it may be."""

    __hash__ = object.__hash__  # as for signs

    VIEW = "view", Sign.ANSWER, 3
    """Does a voter answer? The view, repairs, and which changes are safe."""
    INCUMBENT = "incumbent", Sign.ANSWER, 4
    """Does the disk that votes still answer, when another one claims its name?"""
    NEWCOMER = "newcomer", Sign.WORD, 6
    """Is a new disk still there, to be admitted in the place of the old one?"""
    CHANGE = "change", Sign.WORD, 12
    """Is a mirror still there, to be made a voter? It says so when it asks for slots, less often than a heartbeat."""
    FORMATION = "formation", Sign.WORD, 20
    """Are initial members present at the same time?"""
    SOURCE = "source", Sign.OFFER, 20
    """Is whom slots are fetched from still there?"""
    PROPOSAL = "proposal", Sign.ACCEPTANCE, 3
    """Is a proposal that a member left unanswered lost, rather than on its way?"""
    ADVICE = "advice", Sign.WORD, 200
    """Is what a node said of its disk worth telling to an operator?"""

    def __init__(self, label: str, sign: Sign, heartbeats: int) -> None:
        self.label = label
        self.sign = sign
        self.heartbeats = heartbeats


class Detectors:
    """The failure detectors of one replica, one for each question."""

    def __init__(self, limits: Limits, make: Callable[[int], Detector] = PassiveHeartbeat) -> None:
        """``make(patience_us)``: returns the detector for one question."""
        self._by_patience = {patience: make(patience.heartbeats * limits.heartbeat_us) for patience in Patience}
        self._by_sign = {
            sign: [self._by_patience[patience] for patience in Patience if patience.sign is sign] for sign in Sign
        }

    def heard(self, node: str, now: int, sign: Sign) -> None:
        """A node showed this sign of life."""
        for detector in self._by_sign[sign]:
            detector.heard(node, now)

    def detector(self, patience: Patience) -> Detector:
        """Return the detector for one question, for who asks it all the time."""
        return self._by_patience[patience]

    def suspects(self, node: str, now: int, patience: Patience) -> bool:
        """Return whether the answer to this question about a node is no, as far as can be told from its silence."""
        return self._by_patience[patience].suspects(node, now)

    def last_heard(self, node: str, sign: Sign) -> int | None:
        """Return when a node last showed this sign of life (None: never, or not since it was forgotten)."""
        return self._by_sign[sign][0].last_heard(node)

    def forget(self, node: str, sign: Sign) -> None:
        """What a node showed by this sign says nothing any more: another disk has its name, or another office began."""
        for detector in self._by_sign[sign]:
            detector.forget(node)
