"""What a scenario needs of the run that it is part of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from benchmarks.clusters.base import HttpCluster

Contender = TypeVar("Contender")


class Context(Protocol):
    """One run of the benchmarks."""

    quick: bool
    """Whether figures may be rough: fewer repetitions, less data."""
    rounds: int
    seconds: int
    """How long one run of a load generator takes."""

    def note(self, text: str) -> None:
        """Say what was found or is done now."""
        ...

    def fail(self, sentence: str) -> None:
        """Keep that there is no figure, and why."""
        ...

    def bar(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show the progress of a scenario; what the block gets is called with how much more is done."""
        ...

    def cluster(self, contender: str, nodes: int = 3, protocol: str = "remote-write") -> HttpCluster:
        """Return a new cluster, not started."""
        ...


def rotated(contenders: Sequence[Contender], number: int) -> list[Contender]:
    """Return the contenders in the order of this round: each comes first equally often."""
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]
