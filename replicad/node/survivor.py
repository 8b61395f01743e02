"""What a data directory holds of each group, read while no node runs on it. Nothing is created or changed.

It is put together as a start of the node would do it, so that a plan and what happens then do not differ.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import lmdb

from replicad.core.group.state import GroupState
from replicad.core.journal.recovery import DurableState, Recovery, recover
from replicad.core.journal.segments import FormatError
from replicad.core.kv.entries import decode_entry
from replicad.core.kv.machine import read_state
from replicad.core.model.errors import DamageError, InvariantError
from replicad.core.model.operations import OPERATIONS, decode_batch
from replicad.node.checkpoint import read_header
from replicad.node.definitions import (
    GROUP_PREFIX,
    META,
    NODE_PREFIX,
    GroupDefinition,
    NodeEntry,
    parse_definition,
    parse_node,
)
from replicad.node.disk_operations import DiskOperations
from replicad.node.identity import OK, DirectoryError, Identity, machine_boot_id, read_identity
from replicad.node.inspect_store import inspect_checkpoint
from replicad.node.lmdb_environment import REACHED, TRUST, StoreEnvironment, StoreView, identity_of
from replicad.node.promise_file import PromiseFile
from replicad.node.reached import read_reached
from replicad.node.segment_files import SegmentFiles, segment_path

if TYPE_CHECKING:
    from replicad.core.group.configuration import Configuration
    from replicad.core.model.limits import Limits

LOADING = "loading"


@dataclass(frozen=True, slots=True)
class Holding:
    """What a directory holds of one group.

    ``configuration`` is the newest one known to be committed (None: the group never formed here), ``voter`` whether
    the disk has a vote in it. Slots up to ``committed`` are committed, those up to ``highest`` accepted, the last one
    at ``ballot`` ((0, 0): none is). ``index`` is that of the last operation up to there. ``logged``: how far the
    message log alone bears witness. ``fault``: why a group cannot go on from this ("": it can).
    """

    id: str
    name: str
    configuration: Configuration | None
    voter: bool
    committed: int
    highest: int
    ballot: tuple[int, int]
    promised: int
    index: int
    logged: int
    fault: str = ""

    @property
    def rank(self) -> tuple[int, tuple[int, int], int]:
        """Return what of several survivors decides: committed slots, then the ballot and slot accepted last."""
        return self.committed, self.ballot, self.highest


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
class _Applied:
    """What is applied, of one group: the store's content, or that of a checkpoint."""

    slot: int = 0
    index: int = 0
    configuration: bytes = b""
    fault: str = ""


@dataclass(slots=True)
class _Known:
    """What the directory says of the cluster: names of groups by id, and nodes."""

    names: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, NodeEntry] = field(default_factory=dict)


def read_survivor(path: Path, cluster: str, limits: Limits) -> Survivor:
    """Return what the data directory ``path`` holds; whoever calls has made sure that no node runs on it.

    Raises DirectoryError, with a plain sentence, if that cannot be told, and OSError.
    """
    try:
        identity = read_identity(path / "identity.json")
    except FileNotFoundError:
        raise DirectoryError(f"{path} holds no data of a node (no identity.json)") from None
    except DamageError as error:
        raise DirectoryError(f"{error}; a group cannot go on from there") from error
    if identity.cluster != cluster:
        raise DirectoryError(f"{path} belongs to cluster {identity.cluster!r}, and this is {cluster!r}")
    if identity.state != OK:
        raise DirectoryError(
            f"the data in {path} was damaged and set aside: what is there now (disk {identity.disk}) never had a vote. "
            f"Run this on another survivor"
        )
    try:
        recovery = _read_log(path, identity)
        return _read(path, identity, recovery, limits)
    except (DamageError, FormatError) as error:
        raise DirectoryError(f"{path} is damaged, a group cannot go on from there: {error}") from error


def _read_log(path: Path, identity: Identity) -> Recovery:
    if not (path / "wal").is_dir():
        raise DamageError("it has no message log (no wal)")
    disk = DiskOperations()
    files = SegmentFiles(path / "wal", identity.log, disk)
    rebooted = identity.machine_boot != machine_boot_id()
    recovery = recover(files.read_all(), identity.log, rebooted=rebooted)
    if not recovery.records:
        raise DamageError("its message log is empty")
    if (path / "promise").exists():
        for group, epoch in PromiseFile(path / "promise", identity.log, disk).load().items():
            state = recovery.states.setdefault(group, DurableState())
            state.promised = max(state.promised, epoch)
    return recovery


def _read(path: Path, identity: Identity, recovery: Recovery, limits: Limits) -> Survivor:
    with ExitStack() as stack:
        environment = _open_store(path, identity, stack)
        known = _known(environment, identity)
        groups = {}
        for group, durable in sorted(recovery.states.items()):
            name = known.names.get(group, group)
            applied = _applied(path, environment, identity, group, durable)
            groups[name] = _holding(identity, group, name, durable, applied, limits)
    written_at = segment_path(path / "wal", recovery.segment).stat().st_mtime
    return Survivor(path, identity, written_at, groups, known.nodes)


# --- the store ------------------------------------------------------------------------------------------------------


def _open_store(path: Path, identity: Identity, stack: ExitStack) -> StoreEnvironment | None:
    """Open the store if a start of the node would trust it, without leaving a trace in it."""
    store = path / "store"
    try:
        trusted = (store / TRUST).read_bytes() == identity_of(identity.disk, machine_boot_id())
    except OSError:
        return None
    if not trusted or not (store / "data.mdb").is_file():
        return None
    try:
        environment = StoreEnvironment(store, readonly=True, locked=False)
    except lmdb.Error:
        return None
    stack.callback(environment.close)
    return environment


def _view(environment: StoreEnvironment | None, group: str, identity: Identity) -> StoreView | None:
    """Return a view of a group's store if a start of the node would trust it."""
    try:
        view = environment.view(group) if environment is not None else None
    except (KeyError, lmdb.Error):
        return None
    if view is None:
        return None
    if view.get_meta(TRUST) != identity_of(identity.disk, machine_boot_id()) or view.get_meta(LOADING) is not None:
        view.close()
        return None
    return view


def _known(environment: StoreEnvironment | None, identity: Identity) -> _Known:
    """Return what the group ``_meta`` says here of groups and nodes."""
    known = _Known()
    view = _view(environment, META, identity)
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


# --- one group ------------------------------------------------------------------------------------------------------


def _applied(
    path: Path, environment: StoreEnvironment | None, identity: Identity, group: str, durable: DurableState
) -> _Applied:
    """Return the state that a start would go on from: the store's, the checkpoint's, or none."""
    checkpoint = durable.checkpoint
    covered = checkpoint.slot if checkpoint is not None else 0
    view = _view(environment, group, identity)
    if view is not None:
        with view:
            try:
                slot, index, _, configuration = read_state(view)
            except DamageError:
                slot, index, configuration = -1, 0, b""
        reached = slot <= covered or slot in durable.entries or _checkpoint_path(path, group, slot).exists()
        if slot >= covered and reached:
            # What the store had applied and not yet written is committed; a start applies it again.
            noted = read_reached(path / "store" / REACHED, group)
            if all(each in durable.entries for each in range(slot + 1, noted + 1)):
                durable.committed = max(durable.committed, noted)
            return _Applied(slot, index, configuration)
    if checkpoint is None:
        return _Applied()
    file = _checkpoint_path(path, group, covered)
    try:
        about = inspect_checkpoint(file, verify=True)
    except OSError as error:
        return _Applied(covered, fault=f"its checkpoint {file.name} cannot be read: {error.strerror}")
    if about["damage"] or about.get("digest") != checkpoint.digest.hex():
        why = about["damage"] or "it is not the one that the group committed"
        return _Applied(covered, fault=f"its checkpoint {file.name} is damaged: {why}")
    header = read_header(file)
    return _Applied(covered, header.last_index, header.configuration)


def _checkpoint_path(path: Path, group: str, slot: int) -> Path:
    return path / "checkpoints" / f"{group}-{slot}.ckpt"


def _holding(
    identity: Identity, group: str, name: str, durable: DurableState, applied: _Applied, limits: Limits
) -> Holding:
    """Put log and state together as a replica does when it starts."""
    state = GroupState(
        node=identity.node,
        disk=identity.disk,
        boot=0,
        members=(identity.node,),
        limits=limits,
        durable=durable,
        applied=applied.slot,
        digest=b"",
        configuration=applied.configuration,
        lost=False,
        rebuild=False,
        random=Random(0),  # nothing is drawn
        now=0,
    )
    try:
        state.adopt_logged_configuration()
    except InvariantError as error:
        raise DamageError(f"group {name}: {error}") from error
    log = state.log
    last = durable.entries.get(log.highest) if log.highest > log.committed else None
    fault = applied.fault
    hole = next((slot for slot in range(applied.slot + 1, log.committed + 1) if log.get(slot) is None), 0)
    if hole and not fault:
        fault = f"slot {hole} is committed, and neither log nor checkpoint has it"
    return Holding(
        id=group,
        name=name,
        configuration=state.configuration,
        voter=state.is_voter(),
        committed=log.committed,
        highest=log.highest,
        ballot=(last.epoch, last.round) if last is not None else (0, 0),
        promised=state.promised,
        index=applied.index + _operations(durable, applied.slot, log.highest),
        logged=max(durable.committed, durable.checkpoint.slot if durable.checkpoint else 0),
        fault=fault,
    )


def _operations(durable: DurableState, above: int, highest: int) -> int:
    """Return how many operations the slots above one hold: each takes an index."""
    count = 0
    for slot in range(above + 1, highest + 1):
        entry = durable.entries.get(slot)
        if entry is None:
            continue
        try:
            kind, payload = decode_batch(entry.value)
        except ValueError as error:
            raise DamageError(f"slot {slot} holds no batch: {error}") from error
        if kind == OPERATIONS and isinstance(payload, tuple):
            count += len(payload)
    return count
