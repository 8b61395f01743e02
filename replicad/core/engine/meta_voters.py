"""Keeps the voters of ``_meta`` what they should be (:mod:`replicad.core.cluster.voters`).

Whoever coordinates ``_meta`` acts, one change at a time; not where the settings name the voters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import META
from replicad.core.cluster.voters import Standing, next_change
from replicad.core.model.change_kinds import DEMOTE, PROMOTE
from replicad.core.model.errors import RequestError

if TYPE_CHECKING:
    from replicad.core.engine.group import Group
    from replicad.core.engine.node import Engine
    from replicad.core.group.office import Office
    from replicad.core.model.refusals import Refusal

LOOK_US = 1_000_000
FIT_US = 2_000_000
"""A mirror may become a voter when it could have become one for so long."""
SURPLUS_US = 30_000_000
"""A voter too many stays so long: another node may be about to make the number odd."""
PAUSE_US = 1_000_000
PAUSE_US_MAX = 30_000_000
"""After a change that was refused; twice as long after each further one."""
CHANGE_US = 10_000_000


class MetaVoters:
    """Changes the voters of ``_meta`` while this node coordinates it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.due = 0
        """When :meth:`tick` has something to do."""
        self._not_before = 0
        self._pause = PAUSE_US
        self._fit_since: dict[str, int] = {}
        self._surplus_since = 0
        self._changing = False

    def tick(self, now: int) -> None:
        """Look now and then whether somebody should get a vote or lose it."""
        self.due = now + LOOK_US
        if self._changing:
            return
        change = self.choose(now)
        if change is not None and now >= self._not_before:
            self._changing = True
            self._make(*change)

    def choose(self, now: int) -> tuple[str, str] | None:
        """Return the change to ask for now; None if there is none, or it is not yet time for it."""
        meta = self.engine.groups.get(META)
        office = meta.replica.office if meta is not None else None
        if meta is None or office is None or meta.replica.state.leaving:
            self._fit_since = {}
            self._surplus_since = 0
            return None
        change = next_change(self._standing(meta, office, now), fixed=self.engine.catalog.voters_fixed)
        if change is None or change[0] != DEMOTE:
            self._surplus_since = 0
            return change
        self._surplus_since = self._surplus_since or now
        return change if now - self._surplus_since >= SURPLUS_US else None

    def _standing(self, meta: Group, office: Office, now: int) -> Standing:
        catalog = self.engine.catalog
        configuration = meta.replica.state.configuration
        voters = configuration.nodes() if configuration else ()
        leaving = frozenset((*catalog.leaving(), *catalog.removed))
        place = {name: number for number, name in enumerate(catalog.nodes())}
        mirrors = sorted(configuration.mirrors if configuration else (), key=lambda name: place.get(name, len(place)))
        desk = meta.replica.change_desk
        able = [name for name in mirrors if name in place and name not in leaving]
        able = [name for name in able if not desk.unsafe(PROMOTE, name, office)]
        self._fit_since = {name: self._fit_since.get(name, now) for name in able}
        peers = office.authority.peers
        return Standing(
            coordinator=self.engine.name,
            voters=tuple(sorted(voters, key=lambda name: place.get(name, len(place)))),
            fit=tuple(name for name in able if now - self._fit_since[name] >= FIT_US),
            silent=tuple(name for name in voters if name in peers and not office.view.fresh(peers[name])),
            leaving=leaving,
            removed=frozenset(catalog.removed),
        )

    def _make(self, kind: str, name: str) -> None:
        meta = self.engine.groups[META]

        def answered(answer: Refusal | RequestError | None) -> None:
            self._on_answer(kind, name, answer)

        try:
            meta.changes.request(kind, name, CHANGE_US, answered)
        except RequestError as error:
            answered(error)

    def _on_answer(self, kind: str, name: str, answer: Refusal | RequestError | None) -> None:
        self._changing = False
        refused = answer.message if isinstance(answer, RequestError) else answer.sentence if answer else ""
        self.engine.groups[META].event("meta_voters_changed", change=kind, member=name, refused=refused)
        if answer is None:
            self._pause = PAUSE_US
            self.due = 0  # an even number is no place to stay
            return
        self._not_before = self.engine.ports.now() + self._pause
        self._pause = min(2 * self._pause, PAUSE_US_MAX)
