"""Follows ``_meta``: opens, drops and deletes groups as the catalog says, and tells it what this node knows better.

Every node has ``_meta``, as a voter or a mirror, and follows what is applied here. Groups of the settings are opened
without it, so keys are served whether or not it is up.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from replicad.core.cluster.catalog import Catalog, Drop, Forget, Open, OpenGroup, Wish
from replicad.core.cluster.definitions import META, GroupDefinition
from replicad.core.kv.entries import decode_entry
from replicad.core.model.change_kinds import ADD, REMOVE
from replicad.core.model.errors import DamageError, RequestError
from replicad.core.model.operations import ACK_ALL, PUT

if TYPE_CHECKING:
    from replicad.core.engine.group import Group
    from replicad.core.engine.node import Engine
    from replicad.core.model.operations import Result
    from replicad.core.model.refusals import Refusal

RETRY_US = 1_000_000
CHANGE_US = 5_000_000


class CatalogFollower:
    """What one node does because of the catalog."""

    def __init__(self, engine: Engine, catalog: Catalog) -> None:
        self.engine = engine
        self.catalog = catalog
        self.confirmed = False
        """``_meta`` here is known to hold all that was acknowledged before this start: what it calls dropped is."""
        self._loaded = -1
        self._due = False
        self._open_here = False
        self._started = False
        self._closed = False
        self._confirming = False
        self._telling = False
        self._wishes: deque[Wish] = deque()
        self._retry_at = 0
        self._confirm_at = 0

    @property
    def meta(self) -> Group:
        """The group that holds the catalog."""
        return self.engine.groups[META]

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self, meta: GroupDefinition) -> None:
        """Open ``_meta`` and the groups of this node, as far as they are known without asking."""
        self._guarded(lambda: self._open(meta))

    def _open(self, meta: GroupDefinition) -> None:
        self.engine.open_group(meta)
        self._open_here = True
        self.meta.on_applied = self.wake
        self.look()

    def start(self) -> None:
        """Begin to follow ``_meta``, and to tell it what this node knows better."""
        self._started = True
        self._confirm()
        self.wake()

    def close(self) -> None:
        """Open, close and tell nothing any more."""
        self._closed = True

    def wake(self) -> None:
        """Look again at the end of this turn: something is new."""
        if self._open_here and not self._due and not self._closed:
            self._due = True
            self.engine.soon(self._turn)

    def tick(self, now: int) -> None:
        """Let time pass."""
        if self._closed or not self._started:
            return
        if self._retry_at and now >= self._retry_at:
            self._retry_at = 0
            self.wake()
        if not self.confirmed and not self._confirming and now >= self._confirm_at:
            self._confirm()

    def _turn(self) -> None:
        self._due = False
        if self._closed:
            return
        if self._guarded(self.look) and self._started and not self._telling and not self._retry_at and self._serves():
            self._tell()

    def _guarded(self, step: object) -> bool:
        """Do something that may find damaged data; then this disk is forgotten. Returns whether all is well."""
        try:
            step()  # type: ignore[operator]
        except DamageError as error:
            self.engine.ports.forget(str(error))
            return False
        return True

    # --- following --------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Read what is applied of ``_meta``, if it has changed, and do what follows; raises DamageError."""
        self._load()
        self.confirmed = self.confirmed or (self._started and self.meta.reads.ready(self.engine.ports.now()))
        self.engine.ports.meet_nodes()
        engine = self.engine
        confirmed = self.confirmed and self._settled()
        for step in self.catalog.steps(self._groups(), list(engine.held), confirmed=confirmed):
            match step:
                case Drop(name, left):
                    group = engine.groups[name]
                    if left:
                        group.event("group_left", why="this node is no member any more")
                    else:
                        group.event("group_dropped", group_id=group.id)
                    engine.drop_group(group)
                case Open(definition):
                    engine.open_group(definition)
                    engine.groups[definition.name].event("group_opened", members=",".join(definition.members))
                case Forget(identity):
                    engine.ports.event(identity, "group_dropped", {})
                    engine.forget_group(identity)

    def _load(self) -> None:
        meta = self.meta
        machine = meta.executor.machine
        if meta.transfers.installing or meta.replica.state.rebuilding or machine.index == self._loaded:
            return
        self._loaded = machine.index
        entries = ((key, decode_entry(data)) for key, data in meta.store.scan(b""))
        for key, reason in self.catalog.load((key, entry.value, entry.modify) for key, entry in entries):
            meta.event("definition_invalid", key=key, reason=reason)

    def replaced(self) -> None:
        """The state of ``_meta`` was replaced, maybe by an older one: what it calls dropped must be confirmed anew."""
        self.confirmed = False
        self._loaded = -1

    def _settled(self) -> bool:
        """Return whether the state of ``_meta`` here is somebody's past: nothing follows from one that is in doubt."""
        return self.meta.replica.state.serves and not self.meta.transfers.installing

    def loaded(self) -> bool:
        """Return whether what is applied of ``_meta`` has been read."""
        return self.meta.executor.machine.index == self._loaded

    def _groups(self) -> list[OpenGroup]:
        return [
            OpenGroup(group.name, group.id, group.replica.state.configuration, group.replica.office is not None)
            for group in self.engine.groups.values()
        ]

    # --- confirming -------------------------------------------------------------------------------------------------

    def _confirm(self) -> None:
        """Learn that ``_meta`` is as new as this start: until then an old state must not have data deleted."""
        self._confirming = True
        try:
            self.meta.reads.barrier(self._on_confirmed, consistent=True)
        except RequestError as error:
            self._on_confirmed(error)

    def _on_confirmed(self, error: RequestError | None) -> None:
        self._confirming = False
        if error is None:
            self.confirmed = True
            self.wake()
        else:
            self._confirm_at = self.engine.ports.now() + RETRY_US

    # --- telling ----------------------------------------------------------------------------------------------------

    def _serves(self) -> bool:
        replica = self.meta.replica
        return bool(replica.coordinator) and replica.state.configuration is not None

    def _tell(self) -> None:
        """Write what this node knows better than ``_meta`` does; what fails is tried again."""
        self._telling = True
        self._wishes = deque(self.catalog.wishes(self._groups()))
        self._next_wish()

    def _next_wish(self) -> None:
        if not self._wishes:
            self._tend_mirrors()
            return
        wish = self._wishes.popleft()
        try:
            self.meta.writes.submit((PUT, wish.key, wish.value, 0, wish.cas), ACK_ALL, self._on_written, None)
        except RequestError:
            self._put_off()

    def _on_written(self, _token: None, outcome: Result | RequestError) -> None:
        if isinstance(outcome, RequestError):
            self._put_off()
        else:
            self._next_wish()

    def _put_off(self) -> None:
        self._telling = False
        self._retry_at = self.engine.ports.now() + RETRY_US

    def _tend_mirrors(self) -> None:
        """Coordinator of ``_meta``: every node of the cluster follows it, a node that was removed does not."""
        meta = self.meta
        configuration = meta.replica.state.configuration
        if meta.replica.office is None or configuration is None:
            self._telling = False
            return
        missing, gone = self.catalog.mirrors(configuration)
        wanted = [(ADD, name) for name in missing] + [(REMOVE, name) for name in gone]
        if not wanted:
            self._telling = False
            return
        kind, name = wanted[0]  # one at a time: the next one follows the configuration that this one makes

        def answered(answer: Refusal | RequestError | None) -> None:
            if answer is None:
                self._telling = False
                self.wake()
                return
            if not isinstance(answer, RequestError):
                meta.event("change_refused", change=kind, member=name, reason=answer.sentence)
            self._put_off()

        try:
            meta.changes.request(kind, name, CHANGE_US, answered)
        except RequestError:
            self._put_off()
