"""Which nodes should vote on ``_meta``: an odd number of the cluster's nodes, at most five.

A node that comes is a mirror first. It becomes a voter when there are two of them to go from 1 to 3 or from 3 to 5, or
one that makes the number odd. A silent voter stays one: it may come back, and only the operator knows that it will not,
and forgets the node.
"""

from __future__ import annotations

from typing import NamedTuple

from replicad.core.model.change_kinds import DEMOTE, PROMOTE, REMOVE

VOTERS_MAX = 5


class Standing(NamedTuple):
    """Who is what in ``_meta``, in the order of the cluster's nodes; the coordinator is among the voters."""

    coordinator: str
    voters: tuple[str, ...]
    fit: tuple[str, ...]
    """Mirrors that have caught up, answer, and are not about to leave."""
    silent: tuple[str, ...]
    """Voters that do not answer."""
    leaving: frozenset[str]
    """Nodes that are about to leave the cluster, or have left it."""
    removed: frozenset[str]


def next_change(standing: Standing, *, fixed: bool) -> tuple[str, str] | None:
    """Return the change that brings the voters closer to what they should be; None if they are that, or cannot be."""
    for name in standing.voters:
        if name in standing.removed and name != standing.coordinator:
            return REMOVE, name
    if fixed:
        return None
    staying = [name for name in standing.voters if name not in standing.leaving]
    wanted = min(VOTERS_MAX, len(staying) + len(standing.fit))
    wanted = max(1, wanted - (wanted + 1) % 2)
    if len(staying) < wanted:
        return (PROMOTE, standing.fit[0]) if standing.fit else None
    if len(staying) > wanted and len(staying) == len(standing.voters):
        # One must go: if one is silent that one, since without it a majority needs fewer of those that answer.
        others = [name for name in staying if name != standing.coordinator]
        return DEMOTE, next((name for name in reversed(others) if name in standing.silent), others[-1])
    return None
