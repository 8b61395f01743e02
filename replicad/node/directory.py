"""What this node knows of the cluster: its groups and nodes, as the group ``_meta`` holds them, and the settings.

Every node has ``_meta``, as a voter or a mirror, and follows what is applied here: it opens and closes groups, and
meets new nodes. Groups of the settings are opened without it, so keys are served whether or not it is up.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
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
from replicad.core.group.changes import ADD, REMOVE
from replicad.core.model.errors import DamageError, RequestError
from replicad.core.model.operations import PUT, REFUSED
from replicad.node.settings_models import parse_address

if TYPE_CHECKING:
    from replicad.core.group.configuration import Configuration
    from replicad.node.group_runtime import GroupRuntime
    from replicad.node.runtime import NodeRuntime

RETRY_SECONDS = 1.0
CHANGE_SECONDS = 5.0


class Wish(NamedTuple):
    """A key of ``_meta`` that should have another value; ``cas`` is what it has now."""

    key: bytes
    value: bytes
    cas: int


class Directory:
    """Groups and nodes of the cluster, as known at one node."""

    def __init__(self, node: NodeRuntime) -> None:
        self.node = node
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
        self._loop = asyncio.get_running_loop()
        self._loaded = -1
        self._due = False
        self._started = False
        self._closed = False
        self._confirmed = False
        """``_meta`` here is known to hold all that was acknowledged before this start: what it calls dropped is."""
        self._work: asyncio.Task[None] | None = None
        self._confirming: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open ``_meta`` and the groups of this node, as far as they are known without asking; raises DamageError."""
        voters = self.node.settings.meta
        mirrors = tuple(name for name in self.node.settings.nodes if name not in voters)
        meta = self.node.open_group(GroupDefinition(META, META, voters, voters, mirrors))
        meta.group.on_applied = self.wake
        self._load()
        self._reconcile()

    def start(self) -> None:
        """Begin to follow ``_meta``, and to tell it what this node knows better."""
        self._started = True
        self._confirming = self._loop.create_task(self._confirm())
        self.wake()

    def close(self) -> None:
        """Open, close and tell nothing any more."""
        self._closed = True
        for waiting in (self._work, self._confirming, self._retry):
            if waiting is not None:
                waiting.cancel()

    def wake(self) -> None:
        """Look again at the end of this turn of the loop: something is new."""
        if not self._due and not self._closed:
            self._due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._due = False
        if self._closed or self.node.outcome:
            return
        try:
            self._load()
            self._reconcile()
        except DamageError as error:
            self.node.stop_for_good(halt="", forget=str(error))
            return
        if self._started and (self._work is None or self._work.done()) and self._serves():
            self._work = self._loop.create_task(self._tell())

    # --- what is known ----------------------------------------------------------------------------------------------

    @property
    def meta(self) -> GroupRuntime:
        """The group that holds all this."""
        return self.node.groups[META]

    def definition(self, name: str) -> GroupDefinition | None:
        """Return a group's definition: the cluster's, or that of the settings until the cluster has one."""
        known = self.definitions.get(name)
        return known if known is not None or name in self.dropped else self.node.settings.groups.get(name)

    def names(self) -> list[str]:
        """Return the names of all groups, ``default`` first."""
        names = {*self.definitions, *self.node.settings.groups} - self.dropped
        return sorted(names, key=lambda name: (name != "default", name))

    def elsewhere(self, name: str) -> list[str]:
        """Return the HTTP addresses of a group's other members, those in touch first, mirrors last."""
        definition = self.definition(name)
        nodes = [peer for peer in definition.nodes() if peer != self.node.name] if definition else []
        nodes.sort(key=lambda peer: not self.node.transport.connected(peer))
        return [address for address in map(self.http_address, nodes) if address]

    def nodes(self) -> list[str]:
        """Return the names of all nodes: those of the settings, and those that were added."""
        return [name for name in dict.fromkeys((*self.node.settings.nodes, *self.entries)) if name not in self.removed]

    def leaving(self) -> list[str]:
        """Return the names of the nodes that are about to be removed."""
        return [name for name, entry in self.entries.items() if entry.leaving]

    def entry(self, name: str) -> NodeEntry:
        """Return where a node is found, as the cluster knows it or the settings say."""
        known = self.entries.get(name)
        if known is not None:
            return known
        settings = self.node.settings.nodes[name]
        native = settings.native_address()
        return NodeEntry(
            str(settings.peer_address()), str(settings.http_address()), native=str(native) if native else ""
        )

    def http_addresses(self) -> dict[str, str]:
        """Return where each node serves HTTP."""
        return {name: self.http_address(name) for name in self.nodes()}

    def http_address(self, name: str) -> str:
        """Return where a node serves HTTP, "" if that is not known."""
        entry = self.entries.get(name)
        if entry is not None and name != self.node.name:
            return entry.http
        settings = self.node.settings.nodes.get(name)
        return str(settings.http_address()) if settings is not None else ""

    def native_address(self, name: str) -> str:
        """Return where a node serves native clients, "" if it does not or that is not known."""
        entry = self.entries.get(name)
        if entry is not None and name != self.node.name and entry.native:
            return entry.native
        settings = self.node.settings.nodes.get(name)
        address = settings.native_address() if settings is not None else None
        return str(address) if address is not None else ""

    def uses(self, name: str) -> list[str]:
        """Return the groups that a node is a member or mirror of."""
        return [group for group in self.names() if (known := self.definition(group)) and name in known.nodes()]

    # --- following --------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Read the applied state of ``_meta``, if it has changed."""
        meta = self.meta
        if meta.transfers.installing or meta.replica.state.rebuilding or meta.executor.machine.index == self._loaded:
            return
        self._loaded = meta.executor.machine.index
        self.definitions, self.dropped, self.entries, self.removed, self.modified = {}, set(), {}, set(), {}
        self.voters_fixed = False
        with meta.listing() as listing:
            for key, entry in listing.scan(b""):
                self.modified[key] = entry.modify
                try:
                    self._take(key, entry.value)
                except ValueError as error:
                    name = key.decode(errors="replace")
                    self.node.log.warning("definition_invalid", key=name, reason=str(error))

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
                    parse_address(address)
                self.entries[name] = entry
        elif key == VOTERS_KEY:
            self.voters_fixed = parse_voters(value)

    def _reconcile(self) -> None:
        self._confirmed = self._confirmed or (self._started and self.meta.read_ready())
        self._reconcile_peers()
        for group in list(self.node.groups.values()):
            if group.name != META:
                self._reconcile_group(group)
        held = self.node.message_log.recovery.states
        for name in self.names():
            definition = self.definition(name)
            if definition is None or name in self.node.groups:
                continue
            if self.node.name in definition.nodes() or definition.id in held:
                self.node.open_group(definition)
                self.node.log.info("group_opened", group=name, members=",".join(definition.members))
        if not self._confirmed:
            return
        for identity in [identity for identity in held if self._dead(identity)]:
            self.node.log.info("group_dropped", group=identity)
            self.node.forget_group(identity)

    def _reconcile_peers(self) -> None:
        transport = self.node.transport
        known = set(transport.peers())
        for name in self.nodes():
            if name == self.node.name:
                continue
            addresses: list[tuple[str, int]] = []
            if name in self.entries:
                addresses.append(parse_address(self.entries[name].peer))
            if name in self.node.settings.nodes:
                addresses.append(self.node.settings.nodes[name].peer_address())
            if name not in known:
                self.node.log.info("peer_added", peer=name)
            transport.set_peer(name, *addresses[0], *addresses[1:])
        configuration = self.meta.replica.state.configuration
        for name in known & self.removed:
            if configuration is not None and configuration.member(name) is not None:
                continue  # it was just about to get a vote: it must be reached to lose it
            self.node.log.info("peer_removed", peer=name)
            transport.remove_peer(name)

    def _reconcile_group(self, group: GroupRuntime) -> None:
        """Close a group that was dropped, or that this node was removed from; take in its new definition."""
        definition = self.definitions.get(group.name)
        if definition is None or definition.id != group.id:
            if self._confirmed and self._dead(group.id):
                group.log.info("group_dropped", group_id=group.id)
                self.node.drop_group(group)
            return
        group.definition = definition
        if self.node.name in definition.nodes() or not self._confirmed:
            return
        configuration = group.replica.state.configuration
        # Without a configuration it never voted. An older one than the cluster knows never knew of a later return, so
        # nothing was acknowledged under that (M4).
        version = configuration.version if configuration is not None else 0
        names = configuration is not None and configuration.names(self.node.name)
        if version < definition.version or (version == definition.version and not names):
            group.log.info("group_left", why="this node is no member any more")
            self.node.drop_group(group)

    async def _confirm(self) -> None:
        """Learn that ``_meta`` is as new as this start: until then an old state must not have data deleted."""
        while not self._confirmed:
            try:
                await self.meta.read_barrier(consistent=True)
                self._confirmed = True
            except RequestError:
                await asyncio.sleep(RETRY_SECONDS)
        self.wake()

    def _dead(self, identity: str) -> bool:
        """Return whether the group of this id was dropped for good: its name is free, or another group's."""
        name = identity.partition(".")[0]
        definition = self.definitions.get(name)
        return name in self.dropped if definition is None else definition.id != identity

    # --- telling ----------------------------------------------------------------------------------------------------

    def _serves(self) -> bool:
        replica = self.meta.replica
        return bool(replica.coordinator) and replica.state.configuration is not None

    async def _tell(self) -> None:
        """Write what this node knows better than ``_meta`` does; what fails is tried again."""
        try:
            for wish in self._wishes():
                await self.meta.write(PUT, wish.key, wish.value, cas=wish.cas)
            await self._tend_mirrors()
        except RequestError:
            if not self._closed:
                self._retry = self._loop.call_later(RETRY_SECONDS, self.wake)

    def _wishes(self) -> list[Wish]:
        wishes = []
        own = self.node.settings.own
        known = self.entries.get(self.node.name)
        native = own.native_address()
        entry = NodeEntry(
            str(own.peer_address()),
            str(own.http_address()),
            leaving=known is not None and known.leaving,
            native=str(native) if native is not None else "",
        )
        if known != entry and self.node.name not in self.removed:
            wishes.append(self._wish(node_key(self.node.name), entry.encode()))
        if self.meta.replica.office is not None:
            fixed = self.node.settings.meta_fixed
            if fixed != self.voters_fixed and self._began_with(self.node.name):
                wishes.append(self._wish(VOTERS_KEY, encode_voters(fixed=fixed)))
            wishes += [
                Wish(group_key(name), definition.encode(), 0)
                for name, definition in self.node.settings.groups.items()
                if name not in self.definitions and name not in self.dropped
            ]
        for group in self.node.groups.values():
            definition = self.definitions.get(group.name)
            configuration = group.replica.state.configuration
            if group.replica.office is None or definition is None or configuration is None:
                continue
            newer = follow(definition, configuration)
            if definition.id == group.id and newer != definition:
                wishes.append(self._wish(group_key(group.name), newer.encode()))
        return wishes

    def _began_with(self, name: str) -> bool:
        """Return whether the cluster began with this node: one that came later may have other settings."""
        configuration = self.meta.replica.state.configuration
        member = configuration.member(name) if configuration is not None else None
        return member is not None and member.since == 0

    def _wish(self, key: bytes, value: bytes) -> Wish:
        return Wish(key, value, self.modified.get(key, 0))

    async def _tend_mirrors(self) -> None:
        """Coordinator of ``_meta``: every node of the cluster follows it, a node that was removed does not."""
        meta = self.meta
        configuration = meta.replica.state.configuration
        if meta.replica.office is None or configuration is None:
            return
        wanted = [(ADD, name) for name in self.nodes() if not configuration.names(name)]
        wanted += [(REMOVE, name) for name in configuration.mirrors if name in self.removed]
        for kind, name in wanted[:1]:  # one at a time: the next one follows the configuration that this one makes
            refusal = await meta.changes.request(kind, name, CHANGE_SECONDS)
            if refusal is not None:
                meta.log.info("change_refused", change=kind, member=name, reason=refusal.sentence)
                raise RequestError("conflict", refusal.sentence)
            self.wake()

    # --- writing ----------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Wait until what is known here is what the cluster knows; raises RequestError."""
        await self.meta.read_barrier(consistent=False)
        self._load()
        self._reconcile()

    async def put(self, key: bytes, value: bytes) -> bool:
        """Write one key, unless somebody else has changed it since it was read; raises RequestError."""
        result = await self.meta.write(PUT, key, value, cas=self.modified.get(key, 0))
        if self.meta.executor.machine.index != self._loaded:
            self._load()
            self._reconcile()
        return result.status != REFUSED


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
