"""Where nodes and groups are found: the catalog that the engine follows, and the addresses of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.cluster.catalog import OwnWord
from replicad.core.cluster.definitions import META, GroupDefinition, NodeEntry
from replicad.core.model.operations import PUT, REFUSED
from replicad.node.settings_models import parse_address

if TYPE_CHECKING:
    from replicad.node.group_runtime import GroupRuntime
    from replicad.node.runtime import NodeRuntime
    from replicad.node.settings import Settings


def own_word(settings: Settings) -> OwnWord:
    """Return what the settings say of this node and of the groups that the cluster begins with."""
    return OwnWord(
        settings.node, _entry(settings, settings.node), settings.groups, tuple(settings.nodes), settings.meta_fixed
    )


def _entry(settings: Settings, name: str) -> NodeEntry:
    node = settings.nodes[name]
    native = node.native_address()
    return NodeEntry(str(node.peer_address()), str(node.http_address()), native=str(native) if native else "")


class Directory:
    """Groups and nodes of the cluster, as known at one node."""

    def __init__(self, node: NodeRuntime) -> None:
        self.node = node
        self.catalog = catalog = node.engine.catalog
        self.definition = catalog.definition
        self.names = catalog.names
        self.nodes = catalog.nodes
        self.leaving = catalog.leaving
        self.uses = catalog.uses
        self.wake = node.engine.follower.wake
        self.is_drained = node.engine.drain.is_drained

    @property
    def meta(self) -> GroupRuntime:
        """The group that holds the catalog."""
        return self.node.groups[META]

    @property
    def definitions(self) -> dict[str, GroupDefinition]:
        """The groups that the catalog holds."""
        return self.catalog.definitions

    @property
    def dropped(self) -> set[str]:
        """Names of groups that were dropped and not created again."""
        return self.catalog.dropped

    @property
    def entries(self) -> dict[str, NodeEntry]:
        """The nodes that the catalog holds."""
        return self.catalog.entries

    @property
    def removed(self) -> set[str]:
        """Names of nodes that were removed and not added again."""
        return self.catalog.removed

    # --- addresses --------------------------------------------------------------------------------------------------

    def elsewhere(self, name: str) -> list[str]:
        """Return the HTTP addresses of a group's other members as :meth:`contacts` has them, mirrors last."""
        return [address for address in map(self.http_address, self.contacts(name)) if address]

    def contacts(self, name: str) -> list[str]:
        """Return a group's other members, those in touch first; drained ones only if there is no other."""
        definition = self.definition(name)
        nodes = [peer for peer in definition.nodes() if peer != self.node.name] if definition else []
        return self.node.engine.drain.contacts(nodes, self.node.transport.connected)

    def entry(self, name: str) -> NodeEntry:
        """Return where a node is found, as the cluster knows it or the settings say."""
        known = self.entries.get(name)
        if known is not None:
            return known
        return _entry(self.node.settings, name)

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

    def meet_nodes(self) -> None:
        """Have the transport find every node of the cluster, and leave those that were removed."""
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
        for name in self.catalog.gone(self.meta.replica.state.configuration if META in self.node.groups else None):
            if name in known:
                self.node.log.info("peer_removed", peer=name)
                transport.remove_peer(name)

    # --- writing ----------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Wait until what is known here is what the cluster knows; raises RequestError."""
        await self.meta.read_barrier(consistent=False)
        self.node.engine.follower.look()

    async def put(self, key: bytes, value: bytes) -> bool:
        """Write one key, unless somebody else has changed it since it was read; raises RequestError."""
        result = await self.meta.write(PUT, key, value, cas=self.catalog.modified.get(key, 0))
        if not self.node.engine.follower.loaded():
            self.node.engine.follower.look()
        return result.status != REFUSED
