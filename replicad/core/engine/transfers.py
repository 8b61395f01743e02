"""Checkpoints of one group and state transfer: what a replica's transfer effects ask of files and store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from replicad.core.group.effects import (
    BeginTransfer,
    CheckpointCommitted,
    InstallCheckpoint,
    KeepCheckpoint,
    SendChunk,
    TransferEffect,
    WriteChunk,
)
from replicad.core.kv.store import StoreFullError
from replicad.core.model.errors import DamageError, RequestError
from replicad.core.model.messages import CheckpointChunk

if TYPE_CHECKING:
    from replicad.core.engine.group import Group

CHECKPOINT_US = 60_000_000
"""How long a request for a checkpoint waits for it."""
LOOK_US = 500_000
"""How often it is looked whether another coordinator must be asked, and whether what is being written is obsolete."""

Taken = Callable[["tuple[int, bytes] | RequestError"], None]
"""Called once with ``(slot, digest)`` of a checkpoint that the group committed, or with the reason why not."""


class Transfers:
    """Checkpoints of one group: taken, sent, received, installed."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.installing = False
        """The store's content is being replaced: nothing may be read from it."""
        self._writing: dict[int, int] = {}
        """Slot of a checkpoint that is being written -> the epoch in which its marker was applied."""
        self._wanted: list[tuple[int, Taken]] = []
        """Who asked for a checkpoint: until when it waits, and whom to tell."""
        self._asked = (0, "")
        """The office that was asked for it."""
        self._looked = 0

    def start(self, now: int) -> None:
        """Look whether the checkpoint that the log begins at is here."""
        checkpoints = self.group.replica.checkpoints
        if checkpoints.recorded and not self.group.files.read_chunk(checkpoints.recorded, 0, 0, now)[0]:
            checkpoints.lacking = True

    # --- taking one -------------------------------------------------------------------------------------------------

    def request(self, taken: Taken, now: int) -> None:
        """Have the group take a checkpoint; raises RequestError."""
        self.group.check_open()
        if not self.group.replica.coordinator:
            raise RequestError("no_coordinator")
        self._wanted.append((now + CHECKPOINT_US, taken))
        self._asked = (0, "")
        self._ask(now)

    def _ask(self, now: int) -> None:
        """Ask the coordinator; a new one does not know what the last one was asked for."""
        office = (self.group.replica.epoch, self.group.replica.coordinator)
        if office[1] and office != self._asked:
            self._asked = office
            self.group.perform(self.group.replica.request_checkpoint(now))

    def take(self, slot: int) -> None:
        """The executor stands at the marker ``slot``: have the state pinned, and written."""
        replica = self.group.replica
        if replica.checkpoints.obsolete(slot, replica.epoch):  # as most are that a restarted node comes to again
            self._resume()
            return
        self._writing[slot] = replica.epoch
        self.group.engine.ports.pin(self.group.id, slot)

    def _resume(self) -> None:
        self.group.executor.resume()
        self.group.wake_executor()

    def on_pinned(self, slot: int) -> None:
        """The state at the marker is held for the checkpoint, or cannot be: either way the executor goes on."""
        if self.group.executor.marker == slot:
            self._resume()

    def on_written(self, slot: int, digest: bytes, now: int) -> None:
        """The checkpoint at ``slot`` is on disk and verified; b"": it failed."""
        self.on_pinned(slot)
        if self._writing.pop(slot, None) is None:
            return
        if not digest:
            self.group.observer.checkpoint(self.group.name, slot, "failed")
        self.group.perform(self.group.replica.checkpoint_written(slot, digest, now))

    def tick(self, now: int) -> None:
        """Let time pass."""
        if not (self._writing or self._wanted) or now - self._looked < LOOK_US:
            return
        self._looked = now
        obsolete = self.group.replica.checkpoints.obsolete
        if any(obsolete(slot, epoch) for slot, epoch in self._writing.items()):
            self._cancel("the coordinator gave it up, or left office")
        late = [taken for deadline, taken in self._wanted if deadline <= now]
        self._wanted = [waiting for waiting in self._wanted if waiting[0] > now]
        for taken in late:
            seconds = CHECKPOINT_US // 1_000_000
            error = RequestError("unknown_outcome", f"no checkpoint was committed within {seconds} s")
            self.group.engine.ports.answer(taken, error)
        if self._wanted:
            self._ask(now)

    def _cancel(self, why: str) -> None:
        self.group.engine.ports.cancel_checkpoint(self.group.id, why)

    # --- effects ----------------------------------------------------------------------------------------------------

    def perform(self, effect: TransferEffect) -> None:
        """Carry out one effect on files or store."""
        group = self.group
        ports = group.engine.ports
        match effect:
            case SendChunk(to, slot, offset):
                total, data = group.files.read_chunk(slot, offset, group.limits.page_bytes, ports.now())
                ports.send(to, group.id, CheckpointChunk(slot, offset, total, data))
            case BeginTransfer(slot):
                group.files.begin(slot)
            case WriteChunk(slot, offset, data):
                self._receive(slot, offset, data)
            case KeepCheckpoint(slot):
                self.installing = True
                self._cancel("the state is replaced by a checkpoint of the others")
                ports.keep(group.id, slot)
            case InstallCheckpoint(slot):
                self.installing = True
                ports.install(group.id, slot)
            case CheckpointCommitted(slot):
                now = ports.now()
                group.checkpoint_at = now
                group.files.committed(slot, now)
                ports.truncate({group.id: slot})
                group.observer.checkpoint(group.name, slot, "ok")
                wanted, self._wanted = self._wanted, []
                for _, taken in wanted:
                    ports.answer(taken, group.replica.checkpoints.committed)

    def _receive(self, slot: int, offset: int, data: bytes) -> None:
        group = self.group
        try:
            group.files.write(slot, offset, data)
        except (DamageError, StoreFullError) as error:
            group.event("transfer_failed", checkpoint=slot, reason=str(error))
            group.perform(group.replica.install_failed(slot, group.engine.ports.now()))

    # --- installing -------------------------------------------------------------------------------------------------

    def on_installed(self, slot: int, now: int) -> None:
        """The store's content is the received checkpoint (slot 0: nothing)."""
        group = self.group
        machine = group.executor.machine
        machine.reload()
        group.executor.reset(machine)
        self.installing = False
        recalled = group.executor.recall(group.replica.pending_operations())
        group.writes.on_results(group.replica.contact.vouch(recalled))
        group.perform(group.replica.installed(slot, machine.digest, machine.configuration, recalled, now))
        group.on_replaced()
        group.reads.wake()

    def on_install_failed(self, slot: int, reason: str, now: int) -> None:
        """What was received does not verify; the store is as it was, or empty if it failed at the second reading."""
        group = self.group
        group.event("transfer_failed", checkpoint=slot, reason=reason)
        machine = group.executor.machine
        machine.reload()
        emptied = machine.applied_slot < group.replica.applied
        if emptied:
            group.executor.reset(machine)
        self.installing = False
        group.perform(group.replica.install_failed(slot, now, emptied=emptied))
        group.wake_executor()

    def close(self, why: str) -> None:
        """Fail whoever still waits for a checkpoint, and stop writing one."""
        self._cancel(why)
        wanted, self._wanted = self._wanted, []
        for _, taken in wanted:
            self.group.engine.ports.answer(taken, RequestError("not_ready", why))
