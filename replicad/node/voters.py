"""Keeps the voters of ``_meta`` what they should be: an odd number of the cluster's nodes, at most five.

A node that comes is a mirror first. It becomes a voter when there are two of them to go from 1 to 3 or from 3 to 5, or
one that makes the number odd. A silent voter stays one: it may come back, and only the operator knows that it will not,
and forgets the node. Whoever coordinates ``_meta`` acts, one change at a time; not where the settings name the voters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from replicad.core.cluster.definitions import META
from replicad.core.group.changes import DEMOTE, PROMOTE, REMOVE
from replicad.core.model.errors import RequestError
from replicad.node.clock import now_us

if TYPE_CHECKING:
    from replicad.core.group.office import Office
    from replicad.node.group_runtime import GroupRuntime
    from replicad.node.runtime import NodeRuntime

VOTERS_MAX = 5
LOOK_US = 1_000_000
FIT_US = 2_000_000
"""A mirror may become a voter when it could have become one for so long."""
SURPLUS_US = 30_000_000
"""A voter too many stays so long: another node may be about to make the number odd."""
PAUSE_US = 1_000_000
PAUSE_US_MAX = 30_000_000
"""After a change that was refused; twice as long after each further one."""
CHANGE_SECONDS = 10.0


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


class MetaVoters:
    """Changes the voters of ``_meta`` while this node coordinates it."""

    def __init__(self, node: NodeRuntime) -> None:
        self.node = node
        self._next_look = 0
        self._not_before = 0
        self._pause = PAUSE_US
        self._fit_since: dict[str, int] = {}
        self._surplus_since = 0
        self._changing = False

    def on_tick(self) -> None:
        """Look now and then whether somebody should get a vote or lose it."""
        now = now_us()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_US
        if self._changing:
            return
        change = self.choose(now)
        if change is not None and now >= self._not_before:
            self._changing = True
            self.node.groups[META].spawn(self._make(*change))

    def choose(self, now: int) -> tuple[str, str] | None:
        """Return the change to ask for now; None if there is none, or it is not yet time for it."""
        meta = self.node.groups.get(META)
        office = meta.replica.office if meta is not None else None
        if meta is None or office is None or meta.replica.state.leaving:
            self._fit_since = {}
            self._surplus_since = 0
            return None
        change = next_change(self._standing(meta, office, now), fixed=self.node.directory.voters_fixed)
        if change is None or change[0] != DEMOTE:
            self._surplus_since = 0
            return change
        self._surplus_since = self._surplus_since or now
        return change if now - self._surplus_since >= SURPLUS_US else None

    def _standing(self, meta: GroupRuntime, office: Office, now: int) -> Standing:
        directory = self.node.directory
        configuration = meta.replica.state.configuration
        voters = configuration.nodes() if configuration else ()
        leaving = frozenset((*directory.leaving(), *directory.removed))
        place = {name: number for number, name in enumerate(directory.nodes())}
        mirrors = sorted(configuration.mirrors if configuration else (), key=lambda name: place.get(name, len(place)))
        desk = meta.replica.change_desk
        able = [name for name in mirrors if name in place and name not in leaving]
        able = [name for name in able if not desk.unsafe(PROMOTE, name, office)]
        self._fit_since = {name: self._fit_since.get(name, now) for name in able}
        peers = office.authority.peers
        return Standing(
            coordinator=self.node.name,
            voters=tuple(sorted(voters, key=lambda name: place.get(name, len(place)))),
            fit=tuple(name for name in able if now - self._fit_since[name] >= FIT_US),
            silent=tuple(name for name in voters if name in peers and not office.view.fresh(peers[name])),
            leaving=leaving,
            removed=frozenset(directory.removed),
        )

    async def _make(self, kind: str, name: str) -> None:
        meta = self.node.groups[META]
        try:
            refusal = await meta.changes.request(kind, name, CHANGE_SECONDS)
            done, refused = refusal is None, refusal.sentence if refusal is not None else ""
        except RequestError as error:
            done, refused = False, error.message
        finally:
            self._changing = False
        meta.log.info("meta_voters_changed", change=kind, member=name, refused=refused)
        if done:
            self._pause = PAUSE_US
            self._next_look = 0  # an even number is no place to stay
            return
        self._not_before = now_us() + self._pause
        self._pause = min(2 * self._pause, PAUSE_US_MAX)
