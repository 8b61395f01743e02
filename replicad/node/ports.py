"""The engine's way out of a real process: the message log, the transport, checkpoint files, the event log."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from replicad.core.kv.store import StoreFullError
from replicad.core.model.errors import DamageError
from replicad.node.checkpoint import CheckpointError, CheckpointFiles
from replicad.node.clock import now_us
from replicad.node.lmdb_store import LmdbStore
from replicad.node.opening import open_group

if TYPE_CHECKING:
    from replicad.core.cluster.definitions import GroupDefinition
    from replicad.core.engine.group import Group
    from replicad.core.engine.ports import Opened
    from replicad.core.journal.records import Record
    from replicad.core.journal.recovery import DurableState
    from replicad.node.runtime import NodeRuntime

FULL_RETRY_SECONDS = 1.0


class NodePorts:
    """Fulfils ``core.engine.ports.Ports`` for one :class:`NodeRuntime`."""

    now = staticmethod(now_us)

    def __init__(self, node: NodeRuntime) -> None:
        self.node = node
        self.answer: Callable[..., object] = operator.call
        self.send = node.transport.send
        self.broadcast = node.transport.broadcast
        self.cluster_id_of = node.transport.cluster_id
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], str] = {}
        """What runs in the background, and the id of the group for which it does."""

    def wake(self) -> None:
        """Call ``Engine.turn`` in the next turn of the loop."""
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if not self.node.failed:
            self.node.engine.turn()

    # --- groups -----------------------------------------------------------------------------------------------------

    def open(self, definition: GroupDefinition, durable: DurableState) -> Opened:
        """Open store and files of a group; raises DamageError."""
        node = self.node
        return open_group(node.data, node.settings, node.environment, definition.id, durable, node.log)

    def opened(self, definition: GroupDefinition, group: Group, opened: Opened) -> None:
        """Let clients see the group."""
        store, files = opened.store, opened.files
        if isinstance(store, LmdbStore) and isinstance(files, CheckpointFiles):
            self.node.opened(definition, group, store, files)

    def closed(self, name: str, identity: str) -> None:  # noqa: ARG002 - files and databases have the id in their names
        """Let nobody see the group any more."""
        self.node.closed(name)

    def delete_store(self, identity: str) -> None:
        """Drop the group's databases."""
        self.node.environment.drop(identity)

    def delete_checkpoints(self, identity: str) -> None:
        """Remove the group's files."""
        CheckpointFiles(self.node.settings.data / "checkpoints", self.node.cluster, identity).remove()

    def meet_nodes(self) -> None:
        """Have the transport find the nodes that the catalog names."""
        self.node.directory.meet_nodes()

    # --- the message log --------------------------------------------------------------------------------------------

    def append(self, records: Sequence[tuple[str, Record]], number: int, *, reserved: bool) -> None:
        """Queue records; ``Engine.on_durable`` follows."""
        self.node.message_log.append(records, number, reserved=reserved)

    def truncate(self, slots: Mapping[str, int]) -> None:
        """Remove segments that nobody needs."""
        self.node.message_log.truncate(slots)

    def segments(self) -> tuple[int, tuple[str, ...]]:
        """Return the number of segments, and the groups that keep the oldest."""
        return int(str(self.node.message_log.stats()["segments"])), self.node.message_log.pinning()

    # --- which cluster ----------------------------------------------------------------------------------------------

    def keep_cluster_id(self, cluster_id: str) -> None:
        """Write it to ``identity.json``: that waits for the disk, once in the life of a directory."""
        node = self.node
        node.data.set_cluster_id(cluster_id)
        node.log.info("cluster_id_learnt", cluster_id=cluster_id)
        node.transport.set_cluster_id(cluster_id)

    def open_links_anew(self) -> None:
        """Dial every peer again."""
        self.node.transport.dial_again()

    def admitted(self) -> None:
        """Note it in identity.json."""
        self.node.note_member()

    def distrust(self, group: str) -> None:  # noqa: ARG002 - the environment is trusted as a whole, or not
        """Have the next start build the store anew."""
        self.node.environment.distrust()

    def pin(self, group: str, slot: int) -> None:
        """Have the worker process pin and write the state at ``slot``."""
        self.spawn(group, self._write_checkpoint(self.node.engine.by_id[group], slot))

    async def _write_checkpoint(self, group: Group, slot: int) -> None:
        digest = b""
        try:
            writing = await self.node.checkpointer.pin(group.id, slot, group.replica.state.known_ids())
            if not group.draining:
                group.on_pinned(slot)
            digest = (await writing).digest
        except (OSError, DamageError, CheckpointError) as error:
            group.event("checkpoint_failed", slot=slot, reason=str(error))
        if not group.draining:
            group.on_checkpoint_written(slot, digest)

    def cancel_checkpoint(self, group: str, why: str) -> None:
        """Have the worker process stop writing."""
        self.node.checkpointer.cancel(group, why)

    def keep(self, group: str, slot: int) -> None:
        """Verify and keep a received file in slices, beside everything else."""
        self.spawn(group, self._keep(self.node.engine.by_id[group], slot))

    async def _keep(self, group: Group, slot: int) -> None:
        try:
            header = await self.node.groups[group.name].files.keep(slot)
        except (OSError, DamageError) as error:
            if not group.draining:
                group.on_install_failed(slot, str(error))
            return
        if not group.draining:
            group.on_kept(slot, header.digest)

    def install(self, group: str, slot: int) -> None:
        """Replace the store's content in slices, beside everything else."""
        self.spawn(group, self._install(self.node.engine.by_id[group], slot))

    async def _install(self, group: Group, slot: int) -> None:
        try:
            await self._replace_content(group, slot)
        except (OSError, DamageError) as error:
            if not group.draining:
                group.on_install_failed(slot, str(error))
            return
        if not group.draining:
            group.on_installed(slot)

    async def _replace_content(self, group: Group, slot: int) -> None:
        """Install, as often as it takes: a full disk leaves a store that is half one thing and half another."""
        runtime = self.node.groups[group.name]
        files, store = runtime.files, runtime.store
        told = False
        while True:
            try:
                if not slot:
                    store.begin()
                    store.clear()
                    store.commit()
                else:
                    await files.install(slot, store)
            except StoreFullError as error:
                if not told:
                    group.event("store_full", reason=str(error), hint="free space; the transfer goes on by itself")
                told = True
                if store.writing:
                    store.abort()
                await asyncio.sleep(FULL_RETRY_SECONDS)
            else:
                return

    # --- the process ------------------------------------------------------------------------------------------------

    def event(self, group: str, name: str, fields: Mapping[str, object]) -> None:
        """Log a line."""
        self.node.on_event(group, name, fields)

    def halt(self, reason: str) -> None:
        """Stop for good."""
        self.node.stop_for_good(halt=reason, forget="")

    def forget(self, reason: str) -> None:
        """End this run, set the directory aside."""
        self.node.stop_for_good(halt="", forget=reason)

    def spawn(self, group: str, coroutine: Any) -> None:
        """Run a coroutine in the background, until the group with this id is closed; if it fails, the node stops."""
        task = self._loop.create_task(coroutine)
        self._tasks[task] = group
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        group = self._tasks.pop(task)
        if not task.cancelled() and task.exception() is not None:
            self.node.fail(f"a background task of group {group} failed", task.exception())

    def close(self, group: str) -> None:
        """End what runs in the background for a group."""
        for task in [task for task, owner in self._tasks.items() if owner == group]:
            task.cancel()


def settle(future: asyncio.Future[Any]) -> Callable[[Any], None]:
    """Return who is to be told an outcome: it gives the future a result, or the error, if anyone still waits."""

    def done(outcome: Any) -> None:
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    return done
