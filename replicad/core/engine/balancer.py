"""Spreads the coordinators of a node's groups over their members, gently: one at a time, and only to a fit member.

Whoever is in office acts, nobody else, so no two nodes work against each other. A group that says where its coordinator
should be gets it there. The others move only away from a node that coordinates at least two groups more than the new
one: one move always makes it better, and a single group never moves. ``default`` moves last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import DEFAULT, META, by_preference
from replicad.core.model.change_kinds import MOVE
from replicad.core.model.errors import RequestError

if TYPE_CHECKING:
    from replicad.core.engine.group import Group
    from replicad.core.engine.node import Engine
    from replicad.core.model.refusals import Refusal

LOOK_US = 1_000_000
PAUSE_US = 3_000_000
"""Between two moves of this node."""
OFFICE_US = 10_000_000
"""An office that is younger stays: the cluster may still be coming up."""
BACKOFF_US = 30_000_000
"""After a move that failed."""
MOVE_US = 10_000_000


class Balancer:
    """Moves the offices of one node."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.due = 0
        """When :meth:`tick` has something to do."""
        self._not_before = 0
        self._moving = False

    def tick(self, now: int) -> None:
        """Look now and then whether an office should be elsewhere."""
        self.due = now + LOOK_US
        if self._moving or now < self._not_before:
            return
        found = self.choose(now)
        if found is not None:
            self._moving = True
            self._move(*found)

    def choose(self, now: int) -> tuple[Group, str] | None:
        """Return an office of this node that should move, and where to; None if all is well."""
        groups = sorted(
            self.engine.groups.values(), key=lambda group: (group.name != META, group.name == DEFAULT, group.id)
        )
        counts: dict[str, int] = {}
        for group in groups:
            coordinator = group.replica.coordinator
            counts[coordinator] = counts.get(coordinator, 0) + 1
        for group in groups:
            office = group.replica.office
            if office is None or now - office.authority.began_at < OFFICE_US or group.replica.state.leaving:
                continue
            if group.replica.state.drained:
                continue  # it leaves by itself, and to whom it can
            target = self._target(group, counts)
            if target and self._fit(group, target):
                return group, target
        return None

    def _target(self, group: Group, counts: dict[str, int]) -> str:
        configuration = group.replica.state.configuration
        voters = configuration.nodes() if configuration else ()
        definition = self.engine.catalog.definition(group.name)
        preferred = definition.preferred if definition is not None else ""
        if preferred in voters:
            return "" if preferred == self.engine.name else preferred
        own = counts.get(self.engine.name, 0)
        for name in by_preference(group.id, voters):
            if counts.get(name, 0) + 2 <= own and self._fit(group, name):
                return name
        return ""

    def _fit(self, group: Group, name: str) -> bool:
        """Return whether a member is in the view, and has what is committed but for a little."""
        office = group.replica.office
        peer = office.authority.peers.get(name) if office else None
        if office is None or peer is None or name not in office.view.joined:
            return False
        return peer.matched + group.limits.join_lag_slots >= group.replica.committed

    def _move(self, group: Group, target: str) -> None:
        def answered(answer: Refusal | RequestError | None) -> None:
            self._moving = False
            self._not_before = self.engine.ports.now() + (PAUSE_US if answer is None else BACKOFF_US)
            refused = answer.message if isinstance(answer, RequestError) else answer.sentence if answer else ""
            group.event("coordinator_moved", to=target, refused=refused)

        try:
            group.changes.request(MOVE, target, MOVE_US, answered)
        except RequestError as error:
            answered(error)
