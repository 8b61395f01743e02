"""What clients are told unasked: where nodes serve them, which are in touch and not drained, who coordinates what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.native import wire

if TYPE_CHECKING:
    from replicad.node.runtime import NodeRuntime


class News:
    """The cluster as this node sees it, packed once for all clients."""

    def __init__(self, runtime: NodeRuntime) -> None:
        self.runtime = runtime
        self._known: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        self.frame = wire.pack((wire.CLUSTER, *self._known))

    def look(self) -> bool:
        """Look again; returns whether anything has changed."""
        found = (self._nodes(), self._groups())
        if found == self._known:
            return False
        self._known = found
        self.frame = wire.pack((wire.CLUSTER, *found))
        return True

    def members(self, group: str) -> tuple[str, ...] | None:
        """Return where a group's members serve native clients, those in touch first; None if there is no such group."""
        if self.runtime.directory.definition(group) is None:
            return None
        names = self.runtime.directory.contacts(group)
        return tuple(address for address in map(self.address, names) if address)

    def address(self, name: str) -> str:
        """Return where a node serves native clients, "" if it does not or that is not known."""
        return self.runtime.directory.native_address(name)

    def _nodes(self) -> dict[str, tuple[str, bool]]:
        own, connected = self.runtime.name, self.runtime.transport.connected
        drained = self.runtime.directory.is_drained
        return {
            name: (address, (name == own or connected(name)) and not drained(name))
            for name in self.runtime.directory.nodes()
            if (address := self.address(name))
        }

    def _groups(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        found = {}
        for name in self.runtime.directory.names():
            definition = self.runtime.directory.definition(name)
            group = self.runtime.groups.get(name)
            coordinator = group.replica.coordinator if group is not None else ""
            found[name] = (coordinator, definition.nodes() if definition is not None else ())
        return found
