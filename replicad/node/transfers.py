"""Checkpoints and state transfer on a real node: what the replica's transfer effects do to files and store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.core.group.effects import (
    BeginTransfer,
    CheckpointCommitted,
    InstallCheckpoint,
    SendChunk,
    TransferEffect,
    WriteChunk,
)
from replicad.core.model.errors import DamageError, RequestError
from replicad.core.model.messages import CheckpointChunk
from replicad.node.checkpoint import CheckpointError
from replicad.node.clock import now_us
from replicad.node.lmdb_store import StoreFullError

if TYPE_CHECKING:
    from replicad.node.checkpoint import Written
    from replicad.node.group_runtime import GroupRuntime

FULL_RETRY_SECONDS = 1.0

CHECKPOINT_SECONDS = 60.0
"""How long a request for a checkpoint waits for it."""
LOOK_SECONDS = 0.5
"""After so long it is looked whether another coordinator must be asked."""
OBSOLETE_SECONDS = 0.5
"""How often it is looked whether a checkpoint that is being written can still be committed."""


class Transfers:
    """Checkpoints of one group: taken, sent, received, installed."""

    def __init__(self, group: GroupRuntime) -> None:
        self.group = group
        self.installing = False
        """The store's content is being replaced: nothing may be read from it."""
        self._waiting: list[asyncio.Future[dict[str, object]]] = []

    async def checkpoint(self) -> dict[str, object]:
        """Take a checkpoint now; raises RequestError."""
        if not self.group.replica.coordinator:
            raise RequestError("no_coordinator")
        future: asyncio.Future[dict[str, object]] = self.group.loop.create_future()
        self._waiting.append(future)
        asked = (0, "")
        for _ in range(int(CHECKPOINT_SECONDS / LOOK_SECONDS)):
            office = (self.group.replica.epoch, self.group.replica.coordinator)
            if office[1] and office != asked:  # a new coordinator does not know what the last one was asked for
                asked = office
                self.group.perform(self.group.replica.request_checkpoint(now_us()))
            await asyncio.wait([future], timeout=LOOK_SECONDS)
            if future.done():
                return future.result()
        raise RequestError("unknown_outcome", f"no checkpoint was committed within {CHECKPOINT_SECONDS:.0f} s")

    async def take(self, slot: int) -> None:
        """Pin the state at the marker, let the executor go on, and report what was written."""
        checkpoints, epoch = self.group.replica.checkpoints, self.group.replica.epoch
        writing: asyncio.Future[Written] | None = None
        obsolete = checkpoints.obsolete(slot, epoch)  # as most are that a restarted node comes to again
        try:
            if not obsolete:
                writing = await self.group.node.checkpointer.pin(self.group.id, slot)
        except (OSError, DamageError, CheckpointError) as error:
            self._checkpoint_failed(slot, error)
        self.group.executor.resume()
        self.group.wake_executor()
        if obsolete:
            return
        digest = b""
        if writing is not None:
            try:
                digest = await self._written(slot, epoch, writing)
            except (OSError, DamageError, CheckpointError) as error:
                self._checkpoint_failed(slot, error)
        self.group.perform(self.group.replica.checkpoint_written(slot, digest, now_us()))

    async def _written(self, slot: int, epoch: int, writing: asyncio.Future[Written]) -> bytes:
        """Return the digest of what was written; a checkpoint that nobody will commit any more is cancelled."""
        while not writing.done():
            await asyncio.wait([writing], timeout=OBSOLETE_SECONDS)
            if not writing.done() and self.group.replica.checkpoints.obsolete(slot, epoch):
                self._cancel("the coordinator gave it up, or left office")
        return writing.result().digest

    def _cancel(self, why: str) -> None:
        self.group.node.checkpointer.cancel(self.group.id, why)

    def _checkpoint_failed(self, slot: int, error: Exception) -> None:
        self.group.log.warning("checkpoint_failed", slot=slot, reason=str(error))
        self.group.node.metrics.checkpoints.labels(self.group.name, "failed").inc()

    def perform(self, effect: TransferEffect) -> None:
        """Carry out one effect on files or store."""
        match effect:
            case SendChunk(to, slot, offset):
                total, data = self.group.files.read_chunk(slot, offset, self.group.node.limits.page_bytes, now_us())
                self.group.send(to, CheckpointChunk(slot, offset, total, data))
            case BeginTransfer(slot):
                self.group.files.begin(slot)
            case WriteChunk(slot, offset, data):
                self._receive(slot, offset, data)
            case InstallCheckpoint(slot):
                self.installing = True
                self._cancel("the state is replaced by a checkpoint of the others")
                self.group.spawn(self._install(slot))
            case CheckpointCommitted(slot):
                self.group.checkpoint_at = now_us()
                self.group.files.committed(slot, now_us())
                self.group.node.message_log.truncate({self.group.id: slot})
                self.group.node.metrics.checkpoints.labels(self.group.name, "ok").inc()
                waiting, self._waiting = self._waiting, []
                for future in waiting:
                    if not future.done():
                        future.set_result({"slot": slot, "digest": self.group.replica.checkpoints.committed[1].hex()})

    def _receive(self, slot: int, offset: int, data: bytes) -> None:
        try:
            self.group.files.write(slot, offset, data)
        except (DamageError, StoreFullError) as error:
            self.group.log.warning("transfer_failed", checkpoint=slot, reason=str(error))
            self.group.perform(self.group.replica.install_failed(slot, now_us()))

    async def _install(self, slot: int) -> None:
        """Replace the store's content by the received checkpoint (slot 0: by nothing)."""
        machine = self.group.executor.machine
        try:
            await self._replace_content(slot)
        except (OSError, DamageError) as error:
            self.group.log.warning("transfer_failed", checkpoint=slot, reason=str(error))
            machine.reload()
            emptied = machine.applied_slot < self.group.replica.applied
            if emptied:
                self.group.executor.reset(machine)
            self.installing = False
            self.group.perform(self.group.replica.install_failed(slot, now_us(), emptied=emptied))
            return
        machine.reload()
        self.group.executor.reset(machine)
        self.installing = False
        recalled = self.group.executor.recall(self.group.replica.pending_operations())
        self.group.writes.on_results(recalled)
        effects = self.group.replica.installed(slot, machine.digest, machine.configuration, recalled, now_us())
        self.group.perform(effects)
        if self.group.on_applied is not None:
            self.group.on_applied()
        self.group.reads.wake()

    async def _replace_content(self, slot: int) -> None:
        """Install, as often as it takes: a full disk leaves a store that is half one thing and half another."""
        group = self.group
        while True:
            try:
                if not slot:
                    group.store.begin()
                    group.store.clear()
                    group.store.commit()
                elif group.files.path(slot, "in").exists():
                    await group.files.install(slot, group.store)
                else:
                    await group.files.reload(slot, group.store)
            except StoreFullError as error:
                group.log.warning("store_full", reason=str(error), hint="free space; the transfer goes on by itself")
                if group.store.writing:
                    group.store.abort()
                await asyncio.sleep(FULL_RETRY_SECONDS)
            else:
                return

    def close(self, why: str) -> None:
        """Fail whoever still waits for a checkpoint, and stop writing one."""
        self._cancel(why)
        for future in self._waiting:
            if not future.done():
                future.set_exception(RequestError("not_ready", why))
                future.exception()  # the requester may have gone away
