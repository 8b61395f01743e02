"""What a start of the node would go on from, read while no node runs on the directory. Nothing is created or changed.

``replicad recover``, ``inspect`` and ``doctor`` see with this what the next start sees (``core/journal/startup``).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb

from replicad.core.journal.recovery import DurableState, Recovery, recover
from replicad.core.journal.startup import (
    GO_ON,
    Action,
    DirectoryStart,
    GroupFound,
    GroupStart,
    LogFound,
    Source,
    StoreFound,
    adopt_promises,
    judge_group,
    judge_identity,
    judge_log,
    unusable,
)
from replicad.core.kv.machine import read_state
from replicad.core.model.errors import DamageError
from replicad.node.checkpoint import read_header
from replicad.node.disk_operations import DiskOperations
from replicad.node.identity import Identity, find_identity, machine_boot_id
from replicad.node.inspect_store import checkpoint_slots, inspect_checkpoint
from replicad.node.lmdb_environment import REACHED, TRUST, StoreEnvironment, StoreView, identity_of, store_found, trusts
from replicad.node.promise_file import PromiseFile
from replicad.node.reached import read_reached
from replicad.node.segment_files import SegmentFiles


@dataclass(slots=True)
class OfflineGroup:
    """One group: what the log holds, the decision, and index and configuration of the state that is gone on from."""

    durable: DurableState
    start: GroupStart
    index: int = 0
    configuration: bytes = b""


@dataclass(slots=True)
class OfflineDirectory:
    """A data directory; use it as a context manager.

    ``decision`` is what a start does with it as a whole; the groups are known only if that is to go on, or if one of
    them is why it is not.
    """

    path: Path
    identity: Identity | None = None
    decision: DirectoryStart = GO_ON
    recovery: Recovery = field(default_factory=Recovery)
    groups: dict[str, OfflineGroup] = field(default_factory=dict)
    """By id."""
    environment: StoreEnvironment | None = None
    """The store, if a start would trust it."""
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def view(self, group: str) -> StoreView | None:
        """Return a view of a group's store if a start would trust it; close it."""
        try:
            view = self.environment.view(group) if self.environment is not None else None
        except (KeyError, lmdb.Error):
            return None
        if view is not None and not trusts(view, self._store_identity()):
            view.close()
            return None
        return view

    def _store_identity(self) -> bytes:
        return identity_of(self.identity.disk if self.identity is not None else "", machine_boot_id())

    def sentences(self) -> list[str]:
        """Say what the next start does, a sentence for the directory or one for each group."""
        match self.decision.action:
            case Action.BEGIN:
                return ["a start gives this directory a disk id"]
            case Action.REFUSE:
                return [f"a start refuses: {self.decision.reason}"]
            case Action.SET_ASIDE:
                return [f"a start sets everything here aside, and the disk gets a new id: {self.decision.reason}"]
            case Action.GO_ON:
                return [_sentence(group, found.start) for group, found in self.groups.items()]

    @property
    def rebuilds(self) -> dict[str, str]:
        """Group -> why a start must fetch its state from the others, for the groups of which that is so."""
        return {group: found.start.lacking for group, found in self.groups.items() if found.start.lacking}

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, cluster: str, node: str) -> None:
        """Look at everything; raises DirectoryError or FormatError for an unknown format, and OSError."""
        found, self.identity = find_identity(self.path)
        own = self.identity
        self.decision = judge_identity(
            found, cluster or (own.cluster if own else ""), node or (own.node if own else "")
        )
        if own is None or self.decision.action is not Action.GO_ON:
            return
        log = self._find_log(own)
        self.recovery = log.recovery
        self.decision = judge_log(log)
        if self.decision.action is not Action.GO_ON:
            return
        adopt_promises(self.recovery, log.promises)
        self._open_store()
        stored = self.environment.groups() if self.environment is not None else []
        for group in sorted({*self.recovery.states, *stored}):
            self.groups[group] = offline = self._judge(group)
            if offline.start.contradiction and self.decision.action is Action.GO_ON:
                self.decision = DirectoryStart(Action.SET_ASIDE, f"group {group}: {offline.start.contradiction}")

    def _find_log(self, identity: Identity) -> LogFound:
        disk = DiskOperations()
        rebooted = identity.machine_boot != machine_boot_id()
        promises: dict[str, int] = {}
        recovery = Recovery()
        try:
            if (self.path / "wal").is_dir():
                files = SegmentFiles(self.path / "wal", identity.log, disk)
                recovery = recover(files.read_all(), identity.log, rebooted=rebooted)
            if (self.path / "promise").exists():
                promises = PromiseFile(self.path / "promise", identity.log, disk).load()
        except DamageError as error:
            return LogFound(damage=str(error))
        return LogFound(recovery, "", promises, identity.started_before, rebooted)

    def _open_store(self) -> None:
        """Open the store if a start would trust it, without leaving a trace in it."""
        store = self.path / "store"
        try:
            trusted = (store / TRUST).read_bytes() == self._store_identity()
        except OSError:
            return
        if not trusted or not (store / "data.mdb").is_file():
            return
        try:
            self.environment = StoreEnvironment(store, readonly=True, locked=False)
        except lmdb.Error:
            return
        self._stack.callback(self.environment.close)

    def _judge(self, group: str) -> OfflineGroup:
        durable = self.recovery.states.get(group, DurableState())
        view = self.view(group)
        found: StoreFound | None = None
        index, configuration = 0, b""
        if view is not None:
            with view:
                found = store_found(view, self._store_identity(), read_reached(self.path / "store" / REACHED, group))
                if found is not None and not found.damage:
                    _, index, _, configuration = read_state(view)
        start = judge_group(GroupFound(durable, found, checkpoint_slots(self.path / "checkpoints", group)))
        if start.source is Source.STORE:
            return OfflineGroup(durable, start, index, configuration)
        checkpoint = durable.checkpoint
        if start.source is not Source.CHECKPOINT or checkpoint is None:
            return OfflineGroup(durable, start)
        file = self.path / "checkpoints" / f"{group}-{checkpoint.slot}.ckpt"
        fault = _checkpoint_fault(file, checkpoint.digest)
        if fault:
            return OfflineGroup(durable, unusable(start, fault))
        header = read_header(file)
        return OfflineGroup(durable, start, header.last_index, header.configuration)


def _sentence(group: str, start: GroupStart) -> str:
    why = f" ({start.distrusted})" if start.distrusted else ""
    first, last = start.applied + 1, start.committed
    again = f", and applies slots {first} to {last} again" if last > first else ""
    again = again or (f", and applies slot {last} again" if last == first else "")
    match start.source:
        case Source.STORE:
            return f"a start takes group {group} from the store, at slot {start.applied}{again}"
        case Source.CHECKPOINT:
            return f"a start makes the store of group {group} anew{why} from checkpoint {start.applied}{again}"
        case Source.LOG:
            return f"a start makes the store of group {group} anew{why} from the message log alone{again}"
        case Source.OTHERS:
            return f"a start fetches the state of group {group} from the other members{why}: {start.lacking}"


def read_offline(path: Path, cluster: str = "", node: str = "") -> OfflineDirectory:
    """Return what a start of ``node`` in ``cluster`` ("": whoever it says it is) finds in the data directory ``path``.

    Whoever calls has made sure that no node runs on it. Raises as :meth:`OfflineDirectory.read`.
    """
    directory = OfflineDirectory(path)
    try:
        directory.read(cluster, node)
    except BaseException:
        directory._stack.close()  # noqa: SLF001 - nobody else will
        raise
    return directory


def _checkpoint_fault(file: Path, digest: bytes) -> str:
    """Return why a checkpoint file cannot be loaded, or ""."""
    try:
        about = inspect_checkpoint(file, verify=True)
    except OSError as error:
        return f"its checkpoint {file.name} cannot be read: {error.strerror}"
    if about["damage"] or about.get("digest") != digest.hex():
        why = about["damage"] or "it is not the one that the group committed"
        return f"its checkpoint {file.name} is damaged: {why}"
    return ""
