"""One group on a real node: carries out the replica's effects, and serves the node's clients.

Everything runs on the event loop's thread. Inputs of one turn of the loop become one batch; the executor applies what
was committed in one store transaction a turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from replicad.core.group.effects import EVERYONE, Effects
from replicad.core.group.state import Role
from replicad.core.kv.entries import Entry, decode_entry
from replicad.core.model.errors import RequestError
from replicad.core.model.messages import Heartbeat, HeartbeatAck, MirrorHeartbeat
from replicad.core.model.operations import ACK_ALL, NO_CAS, Result
from replicad.node import group_status
from replicad.node.changes import Changes
from replicad.node.clock import now_us
from replicad.node.deadlines import Deadlines
from replicad.node.definitions import ACKS, META
from replicad.node.lmdb_store import StoreFullError
from replicad.node.reads import Reads
from replicad.node.transfers import Transfers
from replicad.node.writes import Done, Writes, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import structlog

    from replicad.core.group.executor import Executor
    from replicad.core.group.replica import Replica
    from replicad.core.model.messages import Message
    from replicad.node.checkpoint import CheckpointFiles
    from replicad.node.definitions import GroupDefinition
    from replicad.node.lmdb_store import LmdbStore, StoreView
    from replicad.node.runtime import NodeRuntime

OPERATIONS_PER_RUN = 512
"""Operations applied in one turn of the loop: about 5 ms."""

FULL_RETRY_SECONDS = 1.0
NO_COORDINATOR_LEASES = 5

HEARTBEATS = frozenset({Heartbeat, HeartbeatAck, MirrorHeartbeat})
STEADY = frozenset({Role.FOLLOWER, Role.MIRROR, Role.COORDINATOR})
IDLE_US = 200_000

TELLING = frozenset({"configuration", "formed", "took_office"})
"""Events after which what the cluster knows of a group may be out of date."""


class Listing:
    """One consistent read transaction (see ``http.facade.Listing``)."""

    def __init__(self, view: StoreView) -> None:
        self._view = view

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, Entry]]:
        """Yield ``(key, entry)`` in key order."""
        for key, data in self._view.scan(prefix, after):
            yield key, decode_entry(data)


class GroupRuntime:
    """Drives one replica, its executor and its checkpoints."""

    def __init__(
        self,
        node: NodeRuntime,
        definition: GroupDefinition,
        replica: Replica,
        executor: Executor,
        store: LmdbStore,
        files: CheckpointFiles,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self.node = node
        self.definition = definition
        self.name = definition.name
        self.id = definition.id
        self.limits = definition.group_limits(node.limits)
        self.default_ack = ACKS[definition.ack]
        """What a write that does not say otherwise is acknowledged for."""
        self.replica = replica
        self.executor = executor
        self.store = store
        self.files = files
        self.log = log
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(node.settings.process.request_timeout_ms * 1000)
        self.writes = Writes(self)
        self.reads = Reads(self)
        self.transfers = Transfers(self)
        self.changes = Changes(self)
        self.on_applied: Callable[[], None] | None = None
        """Called when slots were applied, or the whole state was replaced."""
        self.active_at = now_us()
        """When something last happened that was no heartbeat."""
        self.closing = False
        self.checkpoint_at = now_us()
        self.asked_at = 0
        """When the node last asked for a checkpoint, for the sake of the message log."""
        self.seen_role = ""
        self._held: deque[tuple[int, list[tuple[str, Message]]]] = deque()
        self._issued = 0
        self._durable = 0
        self._executor_due = False
        self._full_until = 0.0
        self._fresh_at = 0
        self._coordinator_at = now_us()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- inputs -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Let the replica take up what it held before."""
        self.perform(self.replica.start(now_us()))

    def on_message(self, sender: str, disk: str, message: Message) -> None:
        """A peer's message arrived."""
        now = now_us()
        if type(message) not in HEARTBEATS:
            self.active_at = now
        self.perform(self.replica.step(sender, disk, message, now))

    def idle(self, now: int) -> bool:
        """Return whether nothing but heartbeats goes on, so that time may pass in larger steps.

        Leases are judged by the clock, whenever that is asked; so a later tick only means a later election.
        """
        state = self.replica.state
        quiet = now - self.active_at > IDLE_US and not self.deadlines and not state.leaving
        return quiet and bool(state.coordinator) and state.role in STEADY

    def on_tick(self) -> None:
        """Let time pass."""
        now = now_us()
        self.perform(self.replica.tick(now))
        if self.replica.coordinator:
            self._coordinator_at = now
        if self.replica.applied >= self.replica.source_committed:
            self._fresh_at = self.replica.source_heard_at
        self.deadlines.run(now)
        self._note_role()

    def on_durable(self, ticket: int) -> None:
        """The message log has flushed everything up to this group's ``ticket``."""
        self._durable = ticket
        while self._held and self._held[0][0] <= ticket:
            for to, message in self._held.popleft()[1]:
                self.send(to, message)
        self.perform(self.replica.durable(ticket, now_us()))

    def on_full(self, full: bool) -> None:
        """The disk is full, or has room again."""
        self.perform(self.replica.set_full(full, now_us()))

    # --- effects ----------------------------------------------------------------------------------------------------

    def perform(self, effects: Effects) -> None:
        """Do what a step asks, in the order that ``Effects`` prescribes."""
        if not effects:
            return
        if effects.append:
            self.active_at = now_us()
            self._issued += 1
            self.node.append(self.id, effects.append, self._issued)
        if effects.apply:
            self.executor.feed(effects.apply)
            self.wake_executor()  # it runs in a later turn, and before what is sent now is written: a client waits
        for to, message in effects.send:
            self.send(to, message)
        if effects.send_durable:
            if self._durable == self._issued:
                for to, message in effects.send_durable:
                    self.send(to, message)
            else:
                self._held.append((self._issued, effects.send_durable))
        if effects.read_points:
            self.reads.on_points(effects.read_points)
        if effects.durable_requests:
            self.writes.on_durable(effects.durable_requests)
        for request_id, error in effects.refused_requests:
            self.writes.refuse(request_id, RequestError(error))
        for number, refusal in effects.changes:
            self.changes.on_answer(number, refusal)
        for effect in effects.transfer:
            self.transfers.perform(effect)
        for name, fields in effects.events:
            self.log.info(name, **fields)
            if name in TELLING:
                self.node.directory.wake()
            if name == "rebuilding":
                self.store.environment.distrust()  # should the process die before the others' state is here
                self.node.metrics.digest_mismatches.labels(self.name).inc()
        if effects.halt or effects.forget:
            self.node.stop_for_good(halt=effects.halt, forget=effects.forget)

    def send(self, to: str, message: Message) -> None:
        """Send a message to one peer or to all."""
        if to == EVERYONE:
            self.node.transport.broadcast(self.replica.state.peers(), self.id, message)
        else:
            self.node.transport.send(to, self.id, message)

    # --- executing --------------------------------------------------------------------------------------------------

    def wake_executor(self) -> None:
        """Have the executor run in the next turn of the loop."""
        if not self._executor_due:
            self._executor_due = True
            self.loop.call_soon(self._run_executor)

    def _run_executor(self) -> None:
        self._executor_due = False
        if self.transfers.installing or self.loop.time() < self._full_until:
            return
        try:
            execution = self.executor.run(OPERATIONS_PER_RUN)
            if self.name == META:
                self.store.flush()  # little and rare, and what a start reads before it has applied anything again
        except StoreFullError as error:
            self._on_store_full(error)
            return
        if execution is None:
            return
        self.writes.on_results(execution.results)
        self.perform(self.replica.executed(execution, now_us()))
        self.reads.wake()
        if self.on_applied is not None:
            self.on_applied()
        if self.executor.marker:
            self.spawn(self.transfers.take(self.executor.marker))
        elif self.executor.queue:
            self.wake_executor()

    def _on_store_full(self, error: StoreFullError) -> None:
        self.log.warning("store_full", reason=str(error), hint="free space on the disk that holds the data directory")
        self._full_until = self.loop.time() + FULL_RETRY_SECONDS
        self.on_full(full=True)

        def again() -> None:
            self._full_until = 0.0
            self.on_full(full=self.node.disk_full)
            self.wake_executor()

        self.loop.call_later(FULL_RETRY_SECONDS, again)

    # --- writes -----------------------------------------------------------------------------------------------------

    def write(
        self,
        code: int,
        key: bytes,
        value: bytes = b"",
        flags: int = 0,
        cas: int = NO_CAS,
        ack: int = ACK_ALL,
        idempotency: bytes | None = None,
    ) -> asyncio.Future[Result]:
        """Submit one operation (see ``http.facade.GroupRuntime.write``)."""
        future: asyncio.Future[Result] = self.loop.create_future()
        self.writes.submit((code, key, value, flags, cas), ack, settle, future, idempotency)
        return future

    def write_then(
        self,
        code: int,
        key: bytes,
        value: bytes,
        flags: int,
        cas: int,
        ack: int,
        done: Done,
        token: Any,
        idempotency: bytes | None = None,
    ) -> None:
        """Submit one operation (see ``http.facade.GroupRuntime.write_then``)."""
        self.writes.submit((code, key, value, flags, cas), ack, done, token, idempotency)

    # --- reads ------------------------------------------------------------------------------------------------------

    @property
    def index(self) -> int:
        """Index of the applied state."""
        return self.executor.machine.index

    def read(self, key: bytes) -> Entry | None:
        """Return the entry of ``key`` in the applied state."""
        return self.executor.machine.read(key)

    def read_ready(self) -> bool:
        """Return whether a linearizable read may be served right now."""
        return self.reads.ready()

    async def read_barrier(self, *, consistent: bool) -> None:
        """Wait until a read is linearizable here; raises RequestError."""
        await self.reads.barrier(consistent=consistent)

    async def reach(self, index: int) -> None:
        """Wait until operation ``index`` is applied here; raises RequestError, ``behind`` at its deadline."""
        await self.reads.reach(index)

    @contextmanager
    def listing(self) -> Iterator[Listing]:
        """Open a read transaction; raises RequestError("overloaded") when too many are open."""
        with self.store.view() as view:
            yield Listing(view)

    def staleness_ms(self) -> int:
        """Return how old the local state may be: time since the coordinator was last heard, and all is applied that it
        had committed then.

        Raises RequestError when there is no state that may be shown, not even as a stale one.
        """
        self.reads.check_readable()
        if self.replica.office is not None and self.read_ready():
            return 0
        if not self._fresh_at:
            return 2**31 - 1
        return max(0, (now_us() - self._fresh_at) // 1000)

    def forsaken(self) -> bool:
        """Return whether no coordinator has been known for so long that requests are refused instead of waiting."""
        if self.replica.state.coordinator:
            return False
        return now_us() - self._coordinator_at > NO_COORDINATOR_LEASES * self.node.limits.lease_us

    def has_coordinator(self) -> bool:
        """Return whether a coordinator is in touch."""
        return bool(self.replica.coordinator)

    def coordinator_address(self) -> str:
        """Return the coordinator's HTTP address."""
        return self.node.directory.http_address(self.replica.coordinator)

    # --- background work --------------------------------------------------------------------------------------------

    async def checkpoint(self) -> dict[str, object]:
        """Take a checkpoint now; raises RequestError."""
        return await self.transfers.checkpoint()

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine in the background; if it fails, the node stops."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.node.fail(f"a background task of group {self.name} failed", task.exception())

    # --- leaving and telling ----------------------------------------------------------------------------------------

    def begin_to_leave(self) -> None:
        """Begin to hand the office over."""
        self.perform(self.replica.hand_over(now_us()))

    async def leave(self) -> None:
        """Wait until the office is handed over, in bounded time."""
        for _ in range(200):
            if self.replica.idle_of_office:
                return
            await asyncio.sleep(0.01)

    def close(self, why: str = "this node stopped") -> None:
        """Fail what still waits, and say why: nobody will answer it."""
        self.closing = True
        self.writes.close(why)
        self.reads.close(why)
        self.transfers.close(why)
        self.changes.close(why)
        for task in self._tasks:
            task.cancel()

    def _note_role(self) -> None:
        role = self.replica.role
        if role != self.seen_role:
            self.seen_role = role
            self.node.metrics.role_changes.labels(self.name, role).inc()
            self.log.info("role", role=role, epoch=self.replica.epoch)
            if role == "follower":
                self.node.note_member()
            self.node.directory.wake()

    def missing(self) -> list[str]:
        """Return, in words, what keeps this group from serving here; empty when it is ready."""
        return group_status.missing(self)

    def status(self) -> dict[str, object]:
        """Return the group's part of ``/v1/replicad/status``."""
        return group_status.status(self)
