"""What a data directory holds of each group, read while no node runs on it. Nothing is created or changed.

It is put together as a start of the node would do it, so that a plan and what happens then do not differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import (
    GROUP_PREFIX,
    META,
    NODE_PREFIX,
    GroupDefinition,
    NodeEntry,
    parse_definition,
    parse_node,
)
from replicad.core.cluster.holding import Holding, hold
from replicad.core.journal.segments import FormatError
from replicad.core.journal.startup import Action
from replicad.core.kv.entries import decode_entry
from replicad.core.model.errors import DamageError
from replicad.node.identity import OK, DirectoryError, Identity
from replicad.node.offline import OfflineDirectory, read_offline
from replicad.node.segment_files import segment_path

if TYPE_CHECKING:
    from replicad.core.model.limits import Limits


@dataclass(slots=True)
class Survivor:
    """A data directory: whose it is, and what it holds, by the groups' names. ``written_at`` is in seconds (UNIX)."""

    path: Path
    identity: Identity
    written_at: float
    groups: dict[str, Holding]
    nodes: dict[str, NodeEntry]
    """Where the nodes of the cluster are found, as far as it is written here."""


@dataclass(slots=True)
class _Known:
    """What the directory says of the cluster: names of groups by id, and nodes."""

    names: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, NodeEntry] = field(default_factory=dict)


def read_survivor(path: Path, cluster: str, limits: Limits) -> Survivor:
    """Return what the data directory ``path`` holds; whoever calls has made sure that no node runs on it.

    Raises DirectoryError, with a plain sentence, if that cannot be told or nothing of it would count, and OSError.
    """
    try:
        with read_offline(path, cluster) as directory:
            return _read(directory, _fit(directory), limits)
    except (DamageError, FormatError) as error:
        raise DirectoryError(f"{path} is damaged, a group cannot go on from there: {error}") from error


def _fit(directory: OfflineDirectory) -> Identity:
    """Return whose directory it is, if a start of the node goes on with it; raises DirectoryError."""
    path, identity, decision = directory.path, directory.identity, directory.decision
    if decision.action is Action.BEGIN or not (path / "identity.json").exists():
        raise DirectoryError(f"{path} holds no data of a node (no identity.json)")
    if decision.action is Action.REFUSE:
        raise DirectoryError(decision.reason)
    if identity is None:
        raise DirectoryError(f"{decision.reason}; a group cannot go on from there. Run this on another survivor")
    contradicted = next((group for group, found in directory.groups.items() if found.start.contradiction), "")
    if contradicted:
        raise DirectoryError(
            f"the next start sets all that is in {path} aside: {decision.reason}. Put the wal directory back that was "
            f"written together with this store, or run this on another survivor. If there is neither, move "
            f"{path / 'store'} away and run this again: then the message log alone counts, which holds slots up to "
            f"{max(directory.groups[contradicted].durable.entries, default=0)}"
        )
    if decision.action is Action.SET_ASIDE:
        raise DirectoryError(
            f"{path} is damaged, a group cannot go on from there: {decision.reason}. The next start sets it aside. Run "
            f"this on another survivor"
        )
    if identity.state != OK and not directory.recovery.records:
        raise DirectoryError(_never_voted(path, identity))
    if not directory.recovery.records:
        raise DirectoryError(f"{path} is damaged, a group cannot go on from there: its message log is empty")
    return identity


def _never_voted(path: Path, identity: Identity) -> str:
    return (
        f"the data in {path} was damaged and set aside: what is there now (disk {identity.disk}) never had a vote. Run "
        f"this on another survivor"
    )


def _read(directory: OfflineDirectory, identity: Identity, limits: Limits) -> Survivor:
    known = _known(directory)
    groups = {}
    for group, found in directory.groups.items():
        name = known.names.get(group, group)
        groups[name] = hold((identity.node, identity.disk), (group, name), found, limits)
    # A process that died right after its disk was re-admitted has not noted that yet: the log says whether it was.
    if identity.state != OK and not any(holding.voter for holding in groups.values()):
        raise DirectoryError(_never_voted(directory.path, identity))
    segment = segment_path(directory.path / "wal", directory.recovery.segment)
    return Survivor(directory.path, identity, segment.stat().st_mtime, groups, known.nodes)


def _known(directory: OfflineDirectory) -> _Known:
    """Return what the group ``_meta`` says here of groups and nodes."""
    known = _Known()
    view = directory.view(META)
    if view is None:
        return known
    with view:
        for key, entry in view.scan(GROUP_PREFIX):
            found = _parsed(key, GROUP_PREFIX, entry)
            if isinstance(found, GroupDefinition):
                known.names[found.id] = found.name
        for key, entry in view.scan(NODE_PREFIX):
            found = _parsed(key, NODE_PREFIX, entry)
            if isinstance(found, NodeEntry):
                known.nodes[key.removeprefix(NODE_PREFIX).decode()] = found
    return known


def _parsed(key: bytes, prefix: bytes, entry: bytes) -> GroupDefinition | NodeEntry | None:
    name = key.removeprefix(prefix).decode(errors="replace")
    try:
        value = decode_entry(entry).value
        return parse_definition(name, value) if prefix == GROUP_PREFIX else parse_node(name, value)
    except (ValueError, DamageError):
        return None
