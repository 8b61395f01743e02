"""One group on a real node: carries out the replica's effects, and serves the node's clients.

Everything runs on the event loop's thread. Inputs of one turn of the loop become one batch; the executor applies what
was committed in one store transaction a turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from replicad.core.group.effects import (
    EVERYONE,
    BeginTransfer,
    CheckpointCommitted,
    Effects,
    InstallCheckpoint,
    SendChunk,
    TransferEffect,
    WriteChunk,
)
from replicad.core.kv.entries import Entry, decode_entry
from replicad.core.model.errors import DamageError, RequestError
from replicad.core.model.messages import CheckpointChunk
from replicad.core.model.operations import (
    ACK_ALL,
    EXPIRED,
    MISMATCH,
    NO_CAS,
    Result,
    encode_operation,
    make_request_id,
)
from replicad.node.checkpoint import CheckpointError
from replicad.node.clock import now_us
from replicad.node.deadlines import Deadlines
from replicad.node.lmdb_store import StoreFullError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import structlog

    from replicad.core.group.executor import Executor
    from replicad.core.group.replica import Replica
    from replicad.core.kv.machine import Machine
    from replicad.core.model.messages import Message
    from replicad.node.checkpoint import CheckpointFiles, Written
    from replicad.node.lmdb_store import LmdbStore, StoreView
    from replicad.node.runtime import NodeRuntime

OPERATIONS_PER_RUN = 512
"""Operations applied in one turn of the loop: about 5 ms."""

FULL_RETRY_SECONDS = 1.0
NO_COORDINATOR_LEASES = 5
"""Without a coordinator for so many lease lengths, writes are refused at once instead of waiting for one."""

_DURABLE = Result(1, 0)


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
        name: str,
        replica: Replica,
        executor: Executor,
        store: LmdbStore,
        files: CheckpointFiles,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self.node = node
        self.name = name
        self.replica = replica
        self.executor = executor
        self.store = store
        self.files = files
        self.log = log
        self.installing = False
        self.closing = False
        self.checkpoint_at = now_us()
        self.seen_role = ""
        self._boot = replica.state.boot
        self._number = 0
        self._waiters: dict[bytes, list[asyncio.Future[Result]]] = {}
        self._batch: list[tuple[bytes, bytes, int]] = []
        self._probes: dict[int, asyncio.Future[int]] = {}
        self._next_probe: dict[bool, asyncio.Future[int]] = {}
        self._applied_waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._checkpoint_waiters: list[asyncio.Future[dict[str, object]]] = []
        self._held: deque[tuple[int, list[tuple[str, Message]]]] = deque()
        self._issued = 0
        self._durable = 0
        self._executor_due = False
        self._full_until = 0.0
        self._coordinator_at = now_us()
        self._fresh_at = 0
        self._deadlines = Deadlines(node.settings.process.request_timeout_ms * 1000)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._replication = node.metrics.replication_seconds.labels(name)
        self._batch_operations = node.metrics.batch_operations.labels(name)

    # --- inputs -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Let the replica take up what it held before."""
        self.perform(self.replica.start(now_us()))

    def on_message(self, sender: str, disk: str, message: Message) -> None:
        """A peer's message arrived."""
        self.perform(self.replica.step(sender, disk, message, now_us()))

    def on_tick(self) -> None:
        """Let time pass."""
        now = now_us()
        self.perform(self.replica.tick(now))
        if self.replica.coordinator:
            self._coordinator_at = now
        if self.replica.applied >= self.replica.acceptor.watermark[1]:
            self._fresh_at = self.replica.acceptor.heard_at
        self._deadlines.run(now)
        self._note_role()

    def on_durable(self, ticket: int) -> None:
        """The message log has flushed everything up to this group's ``ticket``."""
        self._durable = ticket
        while self._held and self._held[0][0] <= ticket:
            for to, message in self._held.popleft()[1]:
                self._send(to, message)
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
            self._issued += 1
            self.node.append(self.name, effects.append, self._issued)
        for to, message in effects.send:
            self._send(to, message)
        if effects.send_durable:
            if self._durable == self._issued:
                for to, message in effects.send_durable:
                    self._send(to, message)
            else:
                self._held.append((self._issued, effects.send_durable))
        if effects.apply:
            self.executor.feed(effects.apply)
            self._wake_executor()
        if effects.read_points:
            self._on_read_points(effects.read_points)
        for request_id in effects.durable_requests:
            self._complete(request_id, _DURABLE)
        for request_id, error in effects.refused_requests:
            self._refuse(request_id, RequestError(error))
        for effect in effects.transfer:
            self._transfer(effect)
        for name, fields in effects.events:
            self.log.info(name, **fields)
        if effects.halt or effects.forget:
            self.node.stop_for_good(halt=effects.halt, forget=effects.forget)

    def _send(self, to: str, message: Message) -> None:
        if to == EVERYONE:
            self.node.transport.broadcast(self.replica.state.peers(), self.name, message)
        else:
            self.node.transport.send(to, self.name, message)

    # --- executing --------------------------------------------------------------------------------------------------

    def _wake_executor(self) -> None:
        if not self._executor_due:
            self._executor_due = True
            self._loop.call_soon(self._run_executor)

    def _run_executor(self) -> None:
        self._executor_due = False
        if self.installing or self._loop.time() < self._full_until:
            return
        try:
            execution = self.executor.run(OPERATIONS_PER_RUN)
        except StoreFullError as error:
            self._on_store_full(error)
            return
        if execution is None:
            return
        for request_id, result in execution.results:
            if request_id in self._waiters and result.status != EXPIRED:
                self._complete(request_id, result)
        self.perform(self.replica.executed(execution, now_us()))
        self._wake_readers()
        if self.executor.marker:
            self._spawn(self._take_checkpoint(self.executor.marker))
        elif self.executor.queue:
            self._wake_executor()

    def _on_store_full(self, error: StoreFullError) -> None:
        self.log.error("store_full", reason=str(error), hint="free space on the disk that holds the data directory")
        self._full_until = self._loop.time() + FULL_RETRY_SECONDS
        self.on_full(full=True)

        def again() -> None:
            self._full_until = 0.0
            self.on_full(full=self.node.disk_full)
            self._wake_executor()

        self._loop.call_later(FULL_RETRY_SECONDS, again)

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
        self._check_writable()
        if idempotency is None:
            self._number += 1
            request_id = make_request_id(self._boot, self._number)
        else:
            request_id = idempotency
        operation = encode_operation((request_id, self.replica.state.log.committed, code, key, value, flags, cas))
        if not self._batch:
            self._loop.call_soon(self._submit)
        self._batch.append((request_id, operation, ack))
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiters.setdefault(request_id, []).append(future)
        self._deadlines.add(now_us(), future.done, lambda: self._expire(request_id, future))
        return future

    def _check_writable(self) -> None:
        if self.closing:
            raise RequestError("not_ready", "this node is leaving")
        if self.replica.role in {"unformed", "learner"}:
            raise RequestError("not_ready", f"this node is no member yet: {self.replica.role}")
        if len(self._waiters) >= self.node.settings.process.requests_max:
            raise RequestError("overloaded", "too many writes are waiting at this node; nothing was done")
        if not self.replica.coordinator:
            silent = now_us() - self._coordinator_at
            if silent > NO_COORDINATOR_LEASES * self.replica.state.limits.lease_us:
                raise RequestError("no_coordinator")

    def _submit(self) -> None:
        batch, self._batch = self._batch, []
        self._batch_operations.observe(len(batch))
        self.perform(self.replica.submit(batch, now_us()))

    def _complete(self, request_id: bytes, result: Result) -> None:
        for future in self._waiters.pop(request_id, ()):
            if future.done():
                continue
            if result.status == MISMATCH:
                future.set_exception(RequestError("key_reused"))
            else:
                future.set_result(result)

    def _refuse(self, request_id: bytes, error: RequestError) -> None:
        for future in self._waiters.pop(request_id, ()):
            if not future.done():
                future.set_exception(error)

    def _expire(self, request_id: bytes, future: asyncio.Future[Result]) -> None:
        waiting = self._waiters.get(request_id)
        if waiting is None or future not in waiting:
            return
        waiting.remove(future)
        sent = True
        if not waiting:
            del self._waiters[request_id]
            sent = self.replica.abandon(request_id)
        kind = "unknown_outcome" if sent else ("timeout" if self.replica.coordinator else "no_coordinator")
        future.set_exception(RequestError(kind))

    # --- reads ------------------------------------------------------------------------------------------------------

    @property
    def index(self) -> int:
        """Index of the applied state."""
        return self.executor.machine.index

    def read(self, key: bytes) -> Entry | None:
        """Return the entry of ``key`` in the applied state."""
        return self.executor.machine.read(key)

    def read_ready(self) -> bool:
        """Return whether a linearizable read may be served right now (R1, L4: the clock is read here)."""
        slot = self.replica.read_slot(now_us())
        return slot is not None and self.executor.machine.applied_slot >= slot and not self.installing

    async def read_barrier(self, *, consistent: bool) -> None:
        """Wait until a read is linearizable here; raises RequestError."""
        self._check_readable()
        slot = None if consistent else self.replica.read_slot(now_us())
        if slot is None:
            slot = await self._probe(consistent=consistent)
        if self.executor.machine.applied_slot < slot:
            future: asyncio.Future[None] = self._loop.create_future()
            self._applied_waiters.append((slot, future))
            self._deadlines.add(now_us(), future.done, lambda: future.set_exception(RequestError("timeout")))
            await future
        self._check_readable()

    def _check_readable(self) -> None:
        if self.installing or self.replica.state.rebuilding:
            raise RequestError("not_ready", "this node is being rebuilt from the others")
        if self.replica.role == "unformed":
            raise RequestError("not_ready", "this node is no member of the group yet")

    async def _probe(self, *, consistent: bool) -> int:
        """Ask the coordinator for a read point; all readers of one turn share the question."""
        future = self._next_probe.get(consistent)
        if future is None:
            future = self._loop.create_future()
            self._next_probe[consistent] = future
            self._loop.call_soon(self._send_probe, consistent)
        return await asyncio.shield(future)

    def _send_probe(self, consistent: bool) -> None:
        future = self._next_probe.pop(consistent)
        now = now_us()
        number, effects = self.replica.probe(consistent, now)
        self._probes[number] = future

        def expire() -> None:
            self._probes.pop(number, None)
            self.replica.contact.forget_probe(number)
            kind = "timeout" if self.replica.coordinator else "no_coordinator"
            future.set_exception(RequestError(kind, "no coordinator confirmed the read in time"))
            future.exception()  # every reader may have gone away

        self._deadlines.add(now, future.done, expire)
        self.perform(effects)

    def _on_read_points(self, points: list[tuple[int, int]]) -> None:
        for number, slot in points:
            future = self._probes.pop(number, None)
            if future is not None and not future.done():
                future.set_result(slot)

    def _wake_readers(self) -> None:
        if not self._applied_waiters:
            return
        applied = self.executor.machine.applied_slot
        keep: deque[tuple[int, asyncio.Future[None]]] = deque()
        for slot, future in self._applied_waiters:
            if slot > applied and not future.done():
                keep.append((slot, future))
            elif not future.done():
                future.set_result(None)
        self._applied_waiters = keep

    @contextmanager
    def listing(self) -> Iterator[Listing]:
        """Open a read transaction; raises RequestError("overloaded") when too many are open."""
        with self.store.view() as view:
            yield Listing(view)

    def readable(self) -> bool:
        """Return whether the store may be shown at all, even as a stale read."""
        return not (self.installing or self.replica.state.rebuilding)

    def staleness_ms(self) -> int:
        """Return how old the local state may be: time since the last heartbeat all of whose slots are applied."""
        if self.replica.office is not None and self.read_ready():
            return 0
        if not self._fresh_at:
            return 2**31 - 1
        return max(0, (now_us() - self._fresh_at) // 1000)

    def has_coordinator(self) -> bool:
        """Return whether a coordinator is in touch."""
        return bool(self.replica.coordinator)

    def coordinator_address(self) -> str:
        """Return the coordinator's HTTP address."""
        address = self.node.settings.http_addresses.get(self.replica.coordinator)
        return str(address) if address else ""

    # --- checkpoints and transfers ----------------------------------------------------------------------------------

    async def checkpoint(self) -> dict[str, object]:
        """Take a checkpoint now; raises RequestError."""
        if not self.replica.coordinator:
            raise RequestError("no_coordinator")
        future: asyncio.Future[dict[str, object]] = self._loop.create_future()
        self._checkpoint_waiters.append(future)
        self.perform(self.replica.request_checkpoint(now_us()))
        try:
            return await asyncio.wait_for(future, 60)
        except TimeoutError:
            raise RequestError("unknown_outcome", "no checkpoint was committed within 60 s") from None

    async def _take_checkpoint(self, slot: int) -> None:
        """Pin the state at the marker, let the executor go on, and report what was written."""
        written: asyncio.Future[Written] | None = None
        try:
            written = await self.node.checkpointer.pin(self.name, slot)
        except (OSError, DamageError, CheckpointError) as error:
            self._checkpoint_failed(slot, error)
        self.executor.resume()
        self._wake_executor()
        digest = b""
        if written is not None:
            try:
                digest = (await written).digest
            except (OSError, DamageError, CheckpointError) as error:
                self._checkpoint_failed(slot, error)
        self.perform(self.replica.checkpoint_written(slot, digest, now_us()))

    def _checkpoint_failed(self, slot: int, error: Exception) -> None:
        self.log.warning("checkpoint_failed", slot=slot, reason=str(error))
        self.node.metrics.checkpoints.labels(self.name, "failed").inc()

    def _transfer(self, effect: TransferEffect) -> None:
        match effect:
            case SendChunk(to, slot, offset):
                total, data = self.files.read_chunk(slot, offset, self.node.limits.page_bytes, now_us())
                self._send(to, CheckpointChunk(slot, offset, total, data))
            case BeginTransfer(slot):
                self.files.begin(slot)
            case WriteChunk(slot, offset, data):
                self._receive(slot, offset, data)
            case InstallCheckpoint(slot):
                self.installing = True
                self._spawn(self._install(slot))
            case CheckpointCommitted(slot):
                self.checkpoint_at = now_us()
                self.files.committed(slot, now_us())
                self.node.message_log.truncate({self.name: slot})
                self.node.metrics.checkpoints.labels(self.name, "ok").inc()
                waiting, self._checkpoint_waiters = self._checkpoint_waiters, []
                for future in waiting:
                    if not future.done():
                        future.set_result({"slot": slot, "digest": self.replica.checkpoints.committed[1].hex()})

    def _receive(self, slot: int, offset: int, data: bytes) -> None:
        try:
            self.files.write(slot, offset, data)
        except (DamageError, StoreFullError) as error:
            self.log.warning("transfer_failed", checkpoint=slot, reason=str(error))
            self.perform(self.replica.install_failed(slot, now_us()))

    async def _install(self, slot: int) -> None:
        """Replace the store's content by the received checkpoint (slot 0: by nothing)."""
        try:
            if slot:
                await self.files.install(slot, self.store)
            else:
                self.store.begin()
                self.store.clear()
                self.store.commit()
        except (OSError, DamageError, StoreFullError) as error:
            self.log.error("transfer_failed", checkpoint=slot, reason=str(error))
            self.executor.machine.reload()
            self.installing = False
            self.perform(self.replica.install_failed(slot, now_us()))
            return
        machine = self.executor.machine
        machine.reload()
        self.executor.reset(machine)
        self.installing = False
        recalled = self.executor.recall(self.replica.pending_operations())
        for request_id, result in recalled:
            self._complete(request_id, result)
        effects = self.replica.installed(slot, machine.digest, machine.configuration, recalled, now_us())
        self.perform(effects)

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.node.fail(f"a background task of group {self.name} failed", task.exception())

    # --- leaving and telling ----------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Hand the office over, in bounded time."""
        self.perform(self.replica.hand_over(now_us()))
        for _ in range(200):
            if self.replica.idle_of_office:
                return
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Fail what still waits: nobody will answer it."""
        self.closing = True
        for request_id in list(self._waiters):
            sent = self.replica.abandon(request_id)
            self._refuse(request_id, RequestError("unknown_outcome" if sent else "not_ready", "this node stopped"))
        pending: list[asyncio.Future[Any]] = [future for _, future in self._applied_waiters]
        pending += [*self._probes.values(), *self._next_probe.values(), *self._checkpoint_waiters]
        for future in pending:
            if not future.done():
                future.set_exception(RequestError("not_ready", "this node stopped"))
                future.exception()
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

    def missing(self) -> list[str]:
        """Return, in words, what keeps this group from serving here; empty when it is ready."""
        replica = self.replica
        if replica.role == "unformed":
            reasons = replica.membership.obstacles()
            why = "; ".join(reasons) or "the first initial member is about to form it"
            if any("holds data" in reason for reason in reasons):
                return [f"group {self.name} exists, and this node's disk is not in it yet: {why}. {self._advice()}"]
            return [f"group {self.name} is not formed; all initial members must be present and empty: {why}"]
        if self.installing or replica.state.rebuilding:
            return [f"group {self.name} is being rebuilt here from the others"]
        if replica.role == "learner":
            return [f"group {self.name}: this disk waits to be re-admitted. {self._advice()}"]
        if replica.state.full:
            return [f"group {self.name}: the disk is full"]
        if not replica.coordinator:
            return [f"group {self.name} has no coordinator: no majority of its members is in touch. {self._advice()}"]
        return []

    def _advice(self) -> str:
        foreign = [
            name
            for name, said in self.replica.membership.introductions.items()
            if said.state != "formed" and said.disk and now_us() - said.at < 10_000_000
        ]
        configuration = self.replica.state.configuration
        if configuration is None or len(foreign) * 2 <= len(configuration.members):
            return "It goes on by itself once a majority of the members that hold its data is up."
        return (
            f"{' and '.join(foreign)} lost their disks: a majority of the group's disks is gone, and it will not invent"
            " a past. Put the lost data directories back; if they are gone for good, read what is here with ?stale"
            " and load it into a new cluster."
        )

    def status(self) -> dict[str, object]:
        """Return the group's part of ``/v1/replicad/status``."""
        replica = self.replica
        state = replica.state
        return {
            "protocol": "remote-write",
            "role": replica.role,
            "coordinator": replica.coordinator,
            "epoch": replica.epoch,
            "view": list(replica.view),
            "committed_slot": replica.committed,
            "applied_slot": replica.applied,
            "index": self.index,
            "digest": self.executor.machine.digest.hex(),
            "checkpoint_slot": replica.checkpoints.committed[0],
            "lease": replica.holds_lease(now_us()),
            "configuration": state.configuration.version if state.configuration else 0,
            "members": self._members(),
            "missing": self.missing(),
        }

    def _members(self) -> list[dict[str, object]]:
        replica = self.replica
        configuration = replica.state.configuration
        office = replica.office
        members: list[dict[str, object]] = []
        for member in configuration.members if configuration else ():
            peer = office.authority.peers.get(member.node) if office else None
            if member.node == replica.state.node:
                state, matched = replica.role, replica.state.matched
            elif office is not None and peer is not None:
                matched = peer.matched
                fresh = office.view.fresh(peer)
                state = "view" if member.node in office.view.joined else ("follower" if fresh else "silent")
            else:
                state, matched = ("coordinator" if member.node == replica.coordinator else "unknown"), 0
            members.append({"node": member.node, "state": state, "matched_slot": matched, "disk": member.disk})
        return members
