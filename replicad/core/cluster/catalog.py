"""The catalog of a cluster's groups and nodes: what the applied state of ``_meta`` says, and what follows from it.

Pure: whoever follows ``_meta`` hands its content over, and carries out what :meth:`Catalog.steps` and
:meth:`Catalog.wishes` say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from replicad.core.cluster.definitions import (
    GROUP_PREFIX,
    META,
    NODE_PREFIX,
    VOTERS_KEY,
    GroupDefinition,
    NodeEntry,
    encode_voters,
    group_key,
    node_key,
    parse_definition,
    parse_node,
    parse_voters,
)

if TYPE_CHECKING:
    from replicad.core.model.configuration import Configuration


class Wish(NamedTuple):
    """A key of ``_meta`` that should have another value; ``cas`` is what it has now."""

    key: bytes
    value: bytes
    cas: int


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """A group that is open at this node: its newest configuration, and whether this node coordinates it."""

    name: str
    id: str
    configuration: Configuration | None
    coordinates: bool


class Open(NamedTuple):
    """The node takes part in a group, or holds something of it."""

    definition: GroupDefinition


class Drop(NamedTuple):
    """The node closes a group and deletes what it holds of it; ``left``: the group goes on without this node."""

    name: str
    left: bool


class Forget(NamedTuple):
    """The node deletes what it holds of a group that is not open and was dropped."""

    identity: str


Step = Open | Drop | Forget


@dataclass(frozen=True, slots=True)
class OwnWord:
    """What a node's settings say of itself and of the groups that the cluster begins with."""

    node: str
    entry: NodeEntry
    groups: Mapping[str, GroupDefinition]
    nodes: tuple[str, ...]
    meta_fixed: bool
    """Whether the voters of ``_meta`` are those of the settings for good."""


class Catalog:
    """Groups and nodes of the cluster, as known at one node."""

    def __init__(self, own: OwnWord, check_address: Callable[[str], object]) -> None:
        """``check_address`` raises ValueError for a text that is no address."""
        self.own = own
        self.definitions: dict[str, GroupDefinition] = {}
        self.dropped: set[str] = set()
        """Names of groups that were dropped and not created again."""
        self.entries: dict[str, NodeEntry] = {}
        self.removed: set[str] = set()
        """Names of nodes that were removed and not added again."""
        self.voters_fixed = False
        """Whether the voters of ``_meta`` stay those that the settings name."""
        self.modified: dict[bytes, int] = {}
        """Key of ``_meta`` -> its modify index."""
        self._check_address = check_address

    def load(self, items: Iterable[tuple[bytes, bytes, int]]) -> list[tuple[str, str]]:
        """Take over the whole content of ``_meta`` as ``(key, value, modify index)``.

        Returns ``(key, reason)`` of what makes no sense; it counts for nothing.
        """
        self.definitions, self.dropped, self.entries, self.removed, self.modified = {}, set(), {}, set(), {}
        self.voters_fixed = False
        invalid = []
        for key, value, modify in items:
            self.modified[key] = modify
            try:
                self._take(key, value)
            except ValueError as error:
                invalid.append((key.decode(errors="replace"), str(error)))
        return invalid

    def _take(self, key: bytes, value: bytes) -> None:
        if key.startswith(GROUP_PREFIX):
            name = key.removeprefix(GROUP_PREFIX).decode()
            definition = parse_definition(name, value)
            if definition is None:
                self.dropped.add(name)
            else:
                self.definitions[name] = definition
        elif key.startswith(NODE_PREFIX):
            name = key.removeprefix(NODE_PREFIX).decode()
            entry = parse_node(name, value)
            if entry is None:
                self.removed.add(name)
            else:
                for address in filter(None, (entry.peer, entry.http, entry.native)):
                    self._check_address(address)
                self.entries[name] = entry
        elif key == VOTERS_KEY:
            self.voters_fixed = parse_voters(value)

    # --- what is known ----------------------------------------------------------------------------------------------

    def definition(self, name: str) -> GroupDefinition | None:
        """Return a group's definition: the cluster's, or that of the settings until the cluster has one."""
        known = self.definitions.get(name)
        return known if known is not None or name in self.dropped else self.own.groups.get(name)

    def names(self) -> list[str]:
        """Return the names of all groups, ``default`` first."""
        names = {*self.definitions, *self.own.groups} - self.dropped
        return sorted(names, key=lambda name: (name != "default", name))

    def nodes(self) -> list[str]:
        """Return the names of all nodes: those of the settings, and those that were added."""
        return [name for name in dict.fromkeys((*self.own.nodes, *self.entries)) if name not in self.removed]

    def leaving(self) -> list[str]:
        """Return the names of the nodes that are about to be removed."""
        return [name for name, entry in self.entries.items() if entry.leaving]

    def uses(self, name: str) -> list[str]:
        """Return the groups that a node is a member or mirror of."""
        return [group for group in self.names() if (known := self.definition(group)) and name in known.nodes()]

    def gone(self, meta: Configuration | None) -> list[str]:
        """Return the nodes that were removed and need not be reached any more.

        One that was just about to get a vote on ``_meta`` must be reached to lose it.
        """
        return sorted(name for name in self.removed if meta is None or meta.member(name) is None)

    # --- what follows -----------------------------------------------------------------------------------------------

    def steps(self, groups: Iterable[OpenGroup], held: Collection[str], *, confirmed: bool) -> list[Step]:
        """Return what this node is to open, drop and forget.

        ``held``: ids of groups that are not open and of which the message log holds something. ``confirmed``: this
        catalog is known to be as new as the node's start; until then an old one must not have data deleted.
        """
        steps: list[Step] = []
        present = set()
        for group in groups:
            drop = self._drop(group, confirmed=confirmed) if group.name != META else None
            if drop is None:
                present.add(group.name)
            else:
                steps.append(drop)
        opened = set()
        for name in self.names():
            definition = self.definition(name)
            if definition is None or name in present:
                continue
            # What an unconfirmed catalog defines may have been dropped since, and its data deleted here: opened, it
            # would form anew.
            known = confirmed or name not in self.definitions
            if definition.id in held or (known and self.own.node in definition.nodes()):
                steps.append(Open(definition))
                opened.add(definition.id)
        if confirmed:
            steps += [Forget(identity) for identity in held if identity not in opened and self.is_dead(identity)]
        return steps

    def _drop(self, group: OpenGroup, *, confirmed: bool) -> Drop | None:
        """Return whether a group that is open here was dropped, or goes on without this node."""
        definition = self.definitions.get(group.name)
        if definition is None or definition.id != group.id:
            return Drop(group.name, left=False) if confirmed and self.is_dead(group.id) else None
        if self.own.node in definition.nodes() or not confirmed:
            return None
        configuration = group.configuration
        # Without a configuration it never voted. An older one than the cluster knows never knew of a later return, so
        # nothing was acknowledged under that (M4).
        version = configuration.version if configuration is not None else 0
        names = configuration is not None and configuration.names(self.own.node)
        if version < definition.version or (version == definition.version and not names):
            return Drop(group.name, left=True)
        return None

    def is_dead(self, identity: str) -> bool:
        """Return whether the group of this id was dropped for good: its name is free, or another group's."""
        name = identity.partition(".")[0]
        definition = self.definitions.get(name)
        return name in self.dropped if definition is None else definition.id != identity

    # --- what the cluster should know -------------------------------------------------------------------------------

    def wishes(self, groups: Iterable[OpenGroup]) -> list[Wish]:
        """Return what this node knows better than ``_meta`` does; ``groups``: all that are open here, ``_meta`` too."""
        own = self.own
        wishes = []
        known = self.entries.get(own.node)
        entry = replace(own.entry, leaving=known is not None and known.leaving)
        if known != entry and own.node not in self.removed:
            wishes.append(self._wish(node_key(own.node), entry.encode()))
        for group in groups:
            if not group.coordinates:
                continue
            if group.name == META:
                wishes += self._first_words(group.configuration)
                continue
            definition, configuration = self.definitions.get(group.name), group.configuration
            if definition is None or configuration is None or definition.id != group.id:
                continue
            newer = follow(definition, configuration)
            if newer != definition:
                wishes.append(self._wish(group_key(group.name), newer.encode()))
        return wishes

    def _first_words(self, meta: Configuration | None) -> list[Wish]:
        """Return what the coordinator of ``_meta`` says there for the settings that the cluster began with."""
        own = self.own
        wishes = []
        member = meta.member(own.node) if meta is not None else None
        # Whoever came later may have other settings.
        if own.meta_fixed != self.voters_fixed and member is not None and member.since == 0:
            wishes.append(self._wish(VOTERS_KEY, encode_voters(fixed=own.meta_fixed)))
        wishes += [
            Wish(group_key(name), definition.encode(), 0)
            for name, definition in own.groups.items()
            if name not in self.definitions and name not in self.dropped
        ]
        return wishes

    def _wish(self, key: bytes, value: bytes) -> Wish:
        return Wish(key, value, self.modified.get(key, 0))

    def mirrors(self, meta: Configuration) -> tuple[list[str], list[str]]:
        """Return the nodes that should follow ``_meta`` and do not, and the mirrors of it that were removed."""
        missing = [name for name in self.nodes() if not meta.names(name)]
        return missing, [name for name in meta.mirrors if name in self.removed]


def follow(definition: GroupDefinition, configuration: Configuration) -> GroupDefinition:
    """Return the definition with what a newer configuration says of it."""
    if configuration.version <= definition.version:
        return definition
    return replace(
        definition,
        members=configuration.nodes(),
        mirrors=configuration.mirrors,
        protocol=configuration.protocol,
        version=configuration.version,
    )


def initial_members(definition: GroupDefinition, node: str) -> tuple[str, ...]:
    """Return whom a replica meets before it knows a configuration; the first one may form the group (M5).

    A group that has formed already never forms again, whatever this node has lost: somebody else comes first then.
    """
    if not definition.version:
        return definition.founders
    others = tuple(name for name in (*definition.members, *definition.founders) if name != node)
    own = (node,) if node in definition.founders else ()
    return tuple(dict.fromkeys((*others, *own))) if others else definition.founders
