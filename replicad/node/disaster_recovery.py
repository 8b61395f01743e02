"""The deed of a disaster recovery: new configurations are written into the message log of a node that does not run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from replicad.core.journal.records import FormationRecord
from replicad.core.model.errors import DamageError
from replicad.node.identity import DirectoryError, machine_boot_id
from replicad.node.wal import Callbacks, MessageLog

if TYPE_CHECKING:
    from pathlib import Path

    from replicad.core.journal.records import Record
    from replicad.node.identity import Identity
    from replicad.node.settings import Settings


def write_configurations(settings: Settings, identity: Identity, configurations: Mapping[str, bytes]) -> None:
    """Append encoded configurations, by group id, to the message log, durably; the caller holds the directory's lock.

    Raises DirectoryError if the log cannot be opened or written; then some of them may hold, and some not.
    """
    records: list[tuple[str, Record]] = [
        (group, FormationRecord(configuration)) for group, configuration in configurations.items()
    ]
    try:
        asyncio.run(_append(settings.data, settings, identity, records))
    except (DamageError, OSError) as error:
        raise DirectoryError(f"the message log in {settings.data} could not be written: {error}") from error


async def _append(
    directory: Path, settings: Settings, identity: Identity, records: Sequence[tuple[str, Record]]
) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def durable(_: int) -> None:
        if not done.done():
            done.set_result(None)

    def failed(reason: str) -> None:
        if not done.done():
            done.set_exception(OSError(reason))

    def full(is_full: bool) -> None:
        if is_full:
            failed("the disk is full")

    log = MessageLog(
        directory,
        identity.log,
        rebooted=identity.machine_boot != machine_boot_id(),
        started_before=True,
        segment_bytes=settings.process.segment_bytes,
        reserve_bytes=settings.process.reserve_bytes,
    )
    log.start(loop, Callbacks(durable, failed, full))
    try:
        log.append(records, 1, reserved=True)
        await done
    finally:
        await asyncio.to_thread(log.close)
