"""Opening a data directory: the message log, the store, and what to do when one of them may not be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.engine.ports import Opened
from replicad.core.journal.checkpoints import check_committed
from replicad.core.journal.recovery import DurableState
from replicad.core.journal.startup import GroupFound, GroupStart, Source, StoreFound, judge_group, unusable
from replicad.core.kv.machine import Machine
from replicad.core.model.errors import DamageError
from replicad.node.checkpoint import CheckpointFiles
from replicad.node.identity import machine_boot_id
from replicad.node.lmdb_environment import StoreEnvironment, store_found
from replicad.node.lmdb_store import LmdbStore
from replicad.node.wal import MessageLog

if TYPE_CHECKING:
    import structlog

    from replicad.core.journal.records import CheckpointRecord
    from replicad.node.identity import DataDirectory
    from replicad.node.settings import Settings


def open_log(
    data: DataDirectory, settings: Settings, log: structlog.stdlib.BoundLogger
) -> tuple[StoreEnvironment, MessageLog]:
    """Open message log and store; where they are damaged or contradict each other, the disk starts over (rule M4).

    Then everything is set aside, and the disk has a new id. All groups are looked at before the node meets anybody.
    """
    while True:
        try:
            return _open_both(data, settings)
        except DamageError as error:
            log.warning("data_set_aside", reason=str(error), to=str(data.path / "damaged"))
            data.set_aside()


def _open_both(data: DataDirectory, settings: Settings) -> tuple[StoreEnvironment, MessageLog]:
    identity = data.identity
    message_log = MessageLog(
        data.path,
        identity.log,
        rebooted=data.rebooted,
        started_before=identity.started_before,
        segment_bytes=settings.process.segment_bytes,
        reserve_bytes=settings.process.reserve_bytes,
    )
    environment = StoreEnvironment(
        data.path / "store",
        disk=identity.disk,
        machine_boot=machine_boot_id(),
        map_size=settings.process.store_map_bytes,
    )
    try:
        for group in environment.groups():
            durable = message_log.recovery.states.get(group, DurableState())
            files = CheckpointFiles(data.path / "checkpoints", settings.cluster, group).slots()
            with environment.view(group) as view:
                found = store_found(view, environment.identity, environment.reached_by(group))
            contradiction = judge_group(GroupFound(durable, found, files)).contradiction
            if contradiction:
                raise DamageError(f"group {group}: {contradiction}")  # noqa: TRY301 - everything opened is closed below
    except BaseException:
        environment.close()
        message_log.close()
        raise
    return environment, message_log


def open_group(
    data: DataDirectory,
    settings: Settings,
    environment: StoreEnvironment,
    name: str,
    durable: DurableState,
    log: structlog.stdlib.BoundLogger,
) -> Opened:
    """Bring the store of the group with the id ``name`` to a state that the log (``durable``) continues.

    That is as it is, from the checkpoint, or empty. Raises DamageError.
    """
    store = LmdbStore(environment, name)
    files = CheckpointFiles(data.path / "checkpoints", settings.cluster, name)
    window = settings.limits.request_window_slots
    machine: Machine | None = None
    found = store_found(store, environment.identity, environment.reached_by(name))
    if name in environment.leftovers:
        found = None  # what is there is of a membership that ended
        del environment.leftovers[name]
    if found is not None and not found.damage:
        try:
            machine = Machine(store, window)
        except DamageError as error:
            found = StoreFound(damage=str(error))
    start = judge_group(GroupFound(durable, found, files.slots()))
    if start.contradiction:
        raise DamageError(start.contradiction)
    if start.distrusted:
        log.warning("store_damaged", group=name, reason=start.distrusted)
    if machine is None or start.source is not Source.STORE:
        start = _make_again(store, files, durable, start, log)
        machine = Machine(store, window)
    durable.committed = max(durable.committed, start.committed)
    return Opened(durable, machine, store, files, start.source is Source.OTHERS)


def _make_again(
    store: LmdbStore,
    files: CheckpointFiles,
    durable: DurableState,
    start: GroupStart,
    log: structlog.stdlib.BoundLogger,
) -> GroupStart:
    """Clear the store, and load the checkpoint if that is what is gone on from; return what it comes to."""
    _clear(store)
    slot = durable.checkpoint.slot if durable.checkpoint is not None else 0
    if slot or durable.entries:
        log.info("store_rebuilding", group=store.group, checkpoint=slot)
    if durable.checkpoint is None:
        return start
    if start.source is Source.CHECKPOINT:
        try:
            _load(files, durable.checkpoint, store)
        except (DamageError, FileNotFoundError) as error:
            _clear(store)
            start = unusable(start, str(error))
    if start.source is Source.OTHERS:
        log.warning("checkpoint_unusable", group=store.group, checkpoint=slot, reason=start.lacking)
    return start


def _clear(store: LmdbStore) -> None:
    store.begin()
    store.clear()
    store.commit()


def _load(files: CheckpointFiles, checkpoint: CheckpointRecord, store: LmdbStore) -> None:
    header = files.load(checkpoint.slot, store)
    check_committed(header, checkpoint)
