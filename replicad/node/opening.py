"""Opening a data directory: the message log, the store, and what to do when one of them may not be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.core.journal.recovery import DurableState
from replicad.core.kv.machine import Machine
from replicad.core.model.errors import DamageError
from replicad.node.checkpoint import CheckpointFiles
from replicad.node.identity import machine_boot_id
from replicad.node.lmdb_store import LmdbStore, StoreEnvironment
from replicad.node.wal import MessageLog

if TYPE_CHECKING:
    import structlog

    from replicad.core.journal.records import CheckpointRecord
    from replicad.node.definitions import GroupDefinition
    from replicad.node.identity import DataDirectory
    from replicad.node.settings import Settings


@dataclass(slots=True)
class OpenedGroup:
    """What one group starts from; ``rebuild``: its state must come from the others."""

    durable: DurableState
    store: LmdbStore
    machine: Machine
    files: CheckpointFiles
    rebuild: bool


def initial_members(definition: GroupDefinition, node: str) -> tuple[str, ...]:
    """Return whom a replica meets before it knows a configuration; the first one may form the group (M5).

    A group that has formed already never forms again, whatever this node has lost: somebody else comes first then.
    """
    if not definition.version:
        return definition.founders
    others = tuple(name for name in (*definition.members, *definition.founders) if name != node)
    own = (node,) if node in definition.founders else ()
    return tuple(dict.fromkeys((*others, *own))) if others else definition.founders


def open_log(
    data: DataDirectory, settings: Settings, log: structlog.stdlib.BoundLogger
) -> tuple[StoreEnvironment, MessageLog]:
    """Open the message log; a damaged one is set aside, and the disk starts over with a new id (rule M4)."""
    message_log = None
    while message_log is None:
        identity = data.identity
        try:
            message_log = MessageLog(
                data.path,
                identity.log,
                rebooted=data.rebooted,
                started_before=identity.started_before,
                segment_bytes=settings.process.segment_bytes,
                reserve_bytes=settings.process.reserve_bytes,
            )
        except DamageError as error:
            log.warning("data_set_aside", reason=str(error), to=str(data.path / "damaged"))
            data.set_aside()
    environment = StoreEnvironment(
        data.path / "store",
        disk=data.identity.disk,
        machine_boot=machine_boot_id(),
        map_size=settings.process.store_map_bytes,
    )
    return environment, message_log


def open_group(
    data: DataDirectory,
    settings: Settings,
    environment: StoreEnvironment,
    message_log: MessageLog,
    name: str,
    log: structlog.stdlib.BoundLogger,
) -> OpenedGroup:
    """Bring the store of the group with the id ``name`` to a state that the log continues.

    That is as it is, from the checkpoint, or empty. What the log held at the start is given out once.
    """
    durable = message_log.recovery.states.pop(name, DurableState())
    store = LmdbStore(environment, name)
    files = CheckpointFiles(data.path / "checkpoints", settings.cluster, name)
    checkpoint = durable.checkpoint.slot if durable.checkpoint else 0
    window = settings.limits.request_window_slots
    rebuild = False
    if store.trusted(data.identity.disk, machine_boot_id()):
        try:
            machine = _machine(store, window)
            _check_log_reaches(machine.applied_slot, durable, files)
            if machine.applied_slot >= checkpoint:
                _apply_again(machine.applied_slot, environment.reached_by(name), durable)
                return OpenedGroup(durable, store, machine, files, rebuild)
        except StoreDamageError as error:
            log.warning("store_damaged", group=name, reason=str(error))
    _clear(store)
    if durable.checkpoint is not None:
        log.info("store_rebuilding", group=name, checkpoint=checkpoint)
        try:
            _load(files, durable.checkpoint, store)
        except (DamageError, FileNotFoundError) as error:
            log.warning("checkpoint_unusable", group=name, checkpoint=checkpoint, reason=str(error))
            _clear(store)
            rebuild = True
    return OpenedGroup(durable, store, Machine(store, window), files, rebuild)


class StoreDamageError(Exception):
    """The store contradicts itself; it can be rebuilt."""


def _machine(store: LmdbStore, window: int) -> Machine:
    try:
        return Machine(store, window)
    except DamageError as error:
        raise StoreDamageError(str(error)) from error


def _check_log_reaches(applied: int, durable: DurableState, files: CheckpointFiles) -> None:
    """Raise DamageError if the store has applied what the log does not hold: then the log is older than it was.

    Slots are applied only when they are durable in the log, or come with a checkpoint whose file was kept first.
    """
    covered = durable.checkpoint.slot if durable.checkpoint else 0
    if applied > covered and applied not in durable.entries and not files.path(applied).exists():
        raise DamageError(f"the store has applied slot {applied}, and the message log ends before: it is an older one")


def _apply_again(applied: int, reached: int, durable: DurableState) -> None:
    """Have the slots committed that the store had applied and not yet written; DamageError if the log lacks one."""
    for slot in range(applied + 1, reached + 1):
        if slot not in durable.entries:
            raise DamageError(
                f"the store had applied slot {reached}, and the message log lacks slot {slot}: it is an older one"
            )
    durable.committed = max(durable.committed, reached)


def _clear(store: LmdbStore) -> None:
    store.begin()
    store.clear()
    store.commit()


def _load(files: CheckpointFiles, checkpoint: CheckpointRecord, store: LmdbStore) -> None:
    header = files.load(checkpoint.slot, store)
    if (header.slot, header.digest) != (checkpoint.slot, checkpoint.digest):
        raise DamageError(f"it is not the checkpoint that the group committed, but one of slot {header.slot}")
