"""What a node last said of itself. When it did, the detectors know (``core/detection``)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Introduction:
    """What a node last said of itself."""

    boot: int
    echo: int
    disk: str
    state: str
    committed: int
    foreign: bool = False
    """It holds a configuration of another cluster, or of another life of the group (M6)."""
