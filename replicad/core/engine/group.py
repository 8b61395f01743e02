"""One group at a node: carries out its replica's effects, applies what is committed, and serves the node's clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import META
from replicad.core.engine.changes import Changes
from replicad.core.engine.deadlines import Deadlines
from replicad.core.engine.reads import Reads
from replicad.core.engine.transfers import Transfers
from replicad.core.engine.writes import Writes
from replicad.core.group.effects import EVERYONE, Effects
from replicad.core.group.state import Role
from replicad.core.journal.records import EntryRecord
from replicad.core.kv.store import StoreFullError
from replicad.core.model.errors import RequestError
from replicad.core.model.messages import Heartbeat, HeartbeatAck, MirrorHeartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.core.engine.node import Engine
    from replicad.core.engine.ports import GroupFiles, GroupStore, Observer
    from replicad.core.group.executor import Executor
    from replicad.core.group.replica import Replica
    from replicad.core.kv.entries import Entry
    from replicad.core.model.limits import Limits
    from replicad.core.model.messages import Message

OPERATIONS_PER_RUN = 512
"""Operations applied in one turn: about 5 ms."""
FULL_RETRY_US = 1_000_000
NO_COORDINATOR_LEASES = 5
IDLE_US = 200_000

HEARTBEATS = frozenset({Heartbeat, HeartbeatAck, MirrorHeartbeat})
STEADY = frozenset({Role.FOLLOWER, Role.MIRROR, Role.COORDINATOR})


class Group:
    """Drives one replica, its executor and its checkpoints."""

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        identity: str,
        limits: Limits,
        replica: Replica,
        executor: Executor,
        store: GroupStore,
        files: GroupFiles,
        flush_each: bool = False,
    ) -> None:
        """``identity``: what logs, frames and stores call the group. ``flush_each``: its state is little and rarely
        changes, and is what a start reads before it has applied anything again: every run is written at once.
        """
        self.engine = engine
        self.name = name
        self.id = identity
        self.limits = limits
        self.replica = replica
        self.executor = executor
        self.store = store
        self.files = files
        self.flush_each = flush_each
        self.observer: Observer = engine.observer
        self.lane = engine.gate.lane(identity)
        self.deadlines = Deadlines(engine.patience_us)
        self.writes = Writes(self, engine.requests_max)
        self.reads = Reads(self)
        self.transfers = Transfers(self)
        self.changes = Changes(self)
        self.on_applied: Callable[[], None] | None = None
        """Called when slots were applied, or the whole state was replaced."""
        now = engine.ports.now()
        self.active_at = now
        """When something last happened that was no heartbeat."""
        self.draining = False
        """It is about to be closed: it takes no writes."""
        self.checkpoint_at = now
        self.asked_at = 0
        """When the node last asked for a checkpoint, for the sake of the message log."""
        self.seen_role = ""
        self._executor_due = False
        self._store_full = False
        self._retry_at = 0  # 0: the store is not to be tried again at a certain time
        self._fresh_at = 0
        self._coordinator_at = now

    # --- inputs -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Let the replica take up what it held before."""
        now = self.engine.ports.now()
        self.transfers.start(now)
        self.perform(self.replica.start(now))

    def on_message(self, sender: str, disk: str, message: Message) -> None:
        """A peer's message arrived."""
        now = self.engine.ports.now()
        if type(message) not in HEARTBEATS:
            self.active_at = now
        effects = self.replica.step(sender, disk, message, now)
        if effects.append or effects.transfer:
            self.engine.belonging.on_data(sender)
        self.perform(effects)

    def idle(self, now: int) -> bool:
        """Return whether nothing but heartbeats goes on, so that time may pass in larger steps.

        Leases are judged by the clock, whenever that is asked; so a later tick only means a later election.
        """
        state = self.replica.state
        quiet = now - self.active_at > IDLE_US and not self.deadlines and not state.leaving and not state.comparing
        return quiet and bool(state.coordinator) and state.role in STEADY

    def tick(self) -> None:
        """Let time pass."""
        now = self.engine.ports.now()
        self.perform(self.replica.tick(now))
        if self.replica.coordinator:
            self._coordinator_at = now
        if self.replica.applied >= self.replica.source_committed:
            self._fresh_at = self.replica.source_heard_at
        self.deadlines.run(now)
        self.transfers.tick(now)
        if self.changes.waiting:
            self.changes.tick(now)
        if self._retry_at and now >= self._retry_at:
            self._retry_at = 0
            self.wake_executor()
        self._note_role()

    def judge_space(self) -> None:
        """Take no more than fits: the log has no room, which counts for all groups, or this group's own store has none.

        The one says nothing of the other: the log keeps a reserve; a store is written behind, and has a largest size.
        """
        full = self.engine.full or self._store_full
        if full != self.replica.state.full:
            self.perform(self.replica.set_full(full, self.engine.ports.now()))

    def on_durable(self, appends: int) -> None:
        """So many of this group's appends are on disk."""
        self.perform(self.replica.durable(appends, self.engine.ports.now()))

    def on_pinned(self, slot: int) -> None:
        """See ``Ports.pin``."""
        self.transfers.on_pinned(slot)

    def on_checkpoint_written(self, slot: int, digest: bytes) -> None:
        """See ``Ports.pin``; digest b"": it failed."""
        self.transfers.on_written(slot, digest, self.engine.ports.now())

    def on_kept(self, slot: int, digest: bytes) -> None:
        """See ``Ports.keep``."""
        self.perform(self.replica.checkpoint_kept(slot, digest, self.engine.ports.now()))

    def on_installed(self, slot: int) -> None:
        """See ``Ports.install``."""
        self.transfers.on_installed(slot, self.engine.ports.now())

    def on_install_failed(self, slot: int, reason: str) -> None:
        """See ``Ports.install``."""
        self.transfers.on_install_failed(slot, reason, self.engine.ports.now())

    # --- effects ----------------------------------------------------------------------------------------------------

    def perform(self, effects: Effects) -> None:
        """Do what a step asks, in the order that :class:`Effects` prescribes."""
        if not effects:
            return
        ports = self.engine.ports
        if effects.distrust:
            ports.distrust(self.id)
            self.observer.diverged(self.name)
        if effects.cluster_id:
            self.engine.belonging.learn(effects.cluster_id)
        if effects.append:
            self.active_at = ports.now()
            reserved = not any(type(record) is EntryRecord for record in effects.append)
            ports.append([(self.id, record) for record in effects.append], self.lane.append(), reserved=reserved)
        if effects.apply:
            self.observer.fed(self.id, effects.apply)
            self.executor.feed(effects.apply)
            self.wake_executor()  # it runs in a later turn, and before what is sent now is written: a client waits
        for to, message in effects.send:
            self.send(to, message)
        if effects.send_durable and not self.lane.hold(effects.send_durable):
            for to, message in effects.send_durable:
                self.send(to, message)
        if effects.read_points:
            self.reads.on_points(effects.read_points)
        if effects.serves:
            self.observer.compared(self.name)
            self.writes.on_results(effects.results)
            self.reads.wake()
        if effects.durable_requests:
            self.writes.on_durable(effects.durable_requests)
        for request_id, error in effects.refused_requests:
            self.writes.refuse(request_id, RequestError(error))
        for number, refusal in effects.changes:
            self.changes.on_answer(number, refusal)
        for effect in effects.transfer:
            self.transfers.perform(effect)
        if effects.catalog_stale:
            self.engine.follower.wake()
        for name, fields in effects.events:
            ports.event(self.name, name, fields)
        if effects.halt:
            ports.halt(effects.halt)
        if effects.forget:
            ports.forget(effects.forget)

    def send(self, to: str, message: Message) -> None:
        """Send a message to one peer or to all."""
        if to == EVERYONE:
            self.engine.ports.broadcast(self.replica.state.peers(), self.id, message)
        else:
            self.engine.ports.send(to, self.id, message)

    def event(self, name: str, **fields: object) -> None:
        """Put a line into the event log."""
        self.engine.ports.event(self.name, name, fields)

    # --- executing --------------------------------------------------------------------------------------------------

    def wake_executor(self) -> None:
        """Have the executor run in the next turn."""
        if not self._executor_due:
            self._executor_due = True
            self.engine.soon(self._execute)

    def _execute(self) -> None:
        self._executor_due = False
        if self.transfers.installing or self._retry_at or self.draining:
            return
        first = self.executor.machine.applied_slot + 1
        try:
            execution = self.executor.run(self.engine.operations_per_run)
        except StoreFullError as error:
            self._on_store_full(error)
            return
        if execution is None and not self._store_full:
            return
        self._write_store()
        if execution is None:
            return
        self.observer.executed(self.id, first, execution)
        self.writes.on_results(self.replica.contact.vouch(execution.results))
        self.perform(self.replica.executed(execution, self.engine.ports.now()))
        self.reads.wake()
        if self.on_applied is not None:
            self.on_applied()
        if self.executor.marker:
            self.transfers.take(self.executor.marker)
        elif self.executor.queue:
            self.wake_executor()

    def _write_store(self) -> None:
        """What was applied stays applied if the store has no room for it: it is written with the next run."""
        try:
            if self.flush_each:
                self.store.flush()
        except StoreFullError as error:
            self._on_store_full(error)
        else:
            self._store_full = False
            self.judge_space()

    def _on_store_full(self, error: StoreFullError) -> None:
        if not self._store_full:
            self.event("store_full", reason=str(error), hint="free space on the disk that holds the data directory")
        self._store_full = True
        self._retry_at = self.engine.ports.now() + FULL_RETRY_US
        self.judge_space()

    def check_open(self) -> None:
        """Refuse what would wait for a group that is closed: nobody would ever tell it; raises RequestError."""
        if self.draining:
            raise RequestError("not_ready", f"group {self.name} was closed at this node; nothing was done")

    def on_replaced(self) -> None:
        """The whole state was replaced."""
        if self.name == META:
            self.engine.follower.replaced()
        if self.on_applied is not None:
            self.on_applied()

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def index(self) -> int:
        """Index of the applied state."""
        return self.executor.machine.index

    def read(self, key: bytes) -> Entry | None:
        """Return the entry of ``key`` in the applied state."""
        return self.executor.machine.read(key)

    def staleness_us(self) -> int | None:
        """Return how old the local state may be: time since the coordinator was last heard, and all is applied that it
        had committed then; None: nobody can tell.

        Raises RequestError when there is no state that may be shown, not even as a stale one.
        """
        self.reads.check_readable()
        now = self.engine.ports.now()
        if self.replica.office is not None and self.reads.ready(now):
            return 0
        return max(0, now - self._fresh_at) if self._fresh_at else None

    def forsaken(self) -> bool:
        """Return whether no coordinator has been known for so long that requests are refused instead of waiting."""
        if self.replica.state.coordinator:
            return False
        return self.engine.ports.now() - self._coordinator_at > NO_COORDINATOR_LEASES * self.engine.limits.lease_us

    # --- leaving ----------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Begin to hand the office over."""
        self.perform(self.replica.hand_over(self.engine.ports.now()))

    def close(self, why: str = "this node stopped") -> None:
        """Fail what still waits, and say why: nobody will answer it."""
        self.draining = True
        self.writes.close(why)
        self.reads.close(why)
        self.transfers.close(why)
        self.changes.close(why)

    def _note_role(self) -> None:
        role = self.replica.role
        if role != self.seen_role:
            self.seen_role = role
            self.observer.role(self.name, role, self.replica.epoch)
            if role == Role.FOLLOWER:
                self.engine.admitted()
            self.engine.follower.wake()
