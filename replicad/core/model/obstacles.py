"""What keeps an unformed node from taking part in its group: a kind for programs, a sentence for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class ObstacleKind(Enum):
    """Kinds of obstacles; all but the last three are about another node."""

    ABSENT = auto()
    FORMED = auto()
    """It holds data of the group: the group exists."""
    LOST = auto()
    OWN_LOSS = auto()
    NOT_ADDED = auto()
    NO_VOTER = auto()


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One obstacle; ``node`` is whom it is about ("": this node, or nobody)."""

    kind: ObstacleKind
    sentence: str
    node: str = ""

    @classmethod
    def absent(cls, node: str) -> Obstacle:
        """Return that a node was not heard of."""
        return cls(ObstacleKind.ABSENT, f"{node} is not in touch", node)

    @classmethod
    def formed(cls, node: str) -> Obstacle:
        """Return that a node is in the group already."""
        return cls(ObstacleKind.FORMED, f"{node} holds data of this group", node)

    @classmethod
    def lost(cls, node: str) -> Obstacle:
        """Return that a node was in the group and is empty."""
        return cls(ObstacleKind.LOST, f"{node} had data and lost it", node)


OWN_LOSS = Obstacle(ObstacleKind.OWN_LOSS, "this node's data was damaged: it waits to be re-admitted")
NOT_ADDED = Obstacle(ObstacleKind.NOT_ADDED, "this node waits to be added to the group")
NO_VOTER = Obstacle(ObstacleKind.NO_VOTER, "no voter is in touch")
