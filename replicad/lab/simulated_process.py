"""One process of a simulated node, from its start to its death: it drives a replica exactly as the real node does.

It carries out :class:`~replicad.core.group.effects.Effects` as their docstring says. A *fuse* burns one step for every
action; when it is gone, the process is killed or stopped right there: between reading the clock and the step that uses
it, between two records or messages of one step, or between two steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
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
from replicad.core.group.executor import Executor
from replicad.core.kv.entries import Entry, decode_entry
from replicad.core.kv.machine import Machine
from replicad.core.model.errors import DamageError
from replicad.core.model.messages import CheckpointChunk, Message, encode_message
from replicad.lab.checks import Violation
from replicad.lab.contact import Contact

if TYPE_CHECKING:
    from replicad.core.group.replica import Replica
    from replicad.core.kv.memory_store import MemoryStore
    from replicad.core.model.refusals import Refusal
    from replicad.lab.simulated_node import SimulatedNode
    from replicad.lab.virtual_log import VirtualLog

TICK_US = 10_000
TICK_LATE_US = 1_500
"""After a pause."""

Method = Callable[..., Effects | None]


class SimulatedProcess:
    """Volatile state of a node. :attr:`dead` processes ignore whatever still comes in."""

    def __init__(
        self,
        node: SimulatedNode,
        replica: Replica,
        machine: Machine,
        log: VirtualLog,
        boot: int,
    ) -> None:
        self.node = node
        self.name = node.name
        self.simulator = node.simulator
        self.replica = replica
        self.machine = machine
        self.executor = Executor(machine, self.simulator.swarm.limits.digest_slots)
        self.log = log
        self.contact = Contact(self, boot, self.simulator.judge)
        self.dead = False
        self.paused = False
        self.installing = False
        self.leaving = False
        """It was asked to hand over, and its process is about to end."""
        self.changes: dict[int, Refusal | None] = {}
        """Answered changes: number -> None or why it was refused."""
        self._fuse: Callable[[], None] | None = None
        self._fuse_left = 0
        self._stopped_at: Iterator[None] | None = None
        self._backlog: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._tickets = 0
        self._flushed = 0
        self._held: deque[tuple[int, str, Message]] = deque()
        self._executor_awake = False
        self._incoming: tuple[int, bytearray] = (0, bytearray())
        self._tick_waits = False

    # --- being driven -------------------------------------------------------------------------------------------------

    def post(self, handler: Callable[..., None], *arguments: Any) -> None:
        """Let something happen to the process: now, or once it goes on, or never if it is dead."""
        if self.dead:
            return
        if self.paused:
            self._backlog.append((handler, arguments))
        else:
            handler(*arguments)

    def later(self, delay: int, handler: Callable[..., None], *arguments: Any) -> None:
        """Post something after ``delay`` microseconds."""
        self.simulator.queue.after(delay, self.post, handler, *arguments)

    def at_end_of_turn(self, handler: Callable[..., None]) -> None:
        """Post something right after the current event."""
        self.simulator.queue.after(0, self.post, handler)

    def clock(self) -> int:
        """Read the machine's clock."""
        return self.node.clock.read(self.simulator.queue.now)

    def step(self, method: Method, *arguments: Any) -> None:
        """Read the clock, call ``method(*arguments, now)`` and carry out the effects."""
        if self.dead:
            return
        if self.paused:
            self._backlog.append((self.step, (method, *arguments)))
            return
        self._drive(self._steps(method, arguments))

    def _steps(self, method: Method, arguments: tuple[Any, ...]) -> Iterator[None]:
        now = self.clock()
        yield
        effects = method(*arguments, now)
        if effects is not None:
            yield from self._actions(effects)

    def _drive(self, steps: Iterator[None]) -> None:
        for _ in steps:
            if self._fuse is not None:
                self._fuse_left -= 1
                if self._fuse_left < 0:
                    fuse, self._fuse = self._fuse, None
                    self._stopped_at = steps
                    fuse()
                    return

    def light_fuse(self, actions: int, blow: Callable[[], None]) -> None:
        """Call ``blow()``, which kills or pauses this process, after so many more actions."""
        self._fuse = blow
        self._fuse_left = actions

    def put_out_fuse(self) -> None:
        """Undo :meth:`light_fuse`."""
        self._fuse = None

    def die(self) -> None:
        """Stop for ever."""
        self.dead = True
        self.log.stop()

    def pause(self) -> None:
        """Stop where it is (SIGSTOP)."""
        self.paused = True

    def resume(self) -> None:
        """Go on (SIGCONT): first the step that was interrupted, then everything that came in meanwhile, in order.

        A tick that is due comes last, and a little later: an event loop serves its sockets before its timers.
        """
        if self.dead or not self.paused:
            return
        self.paused = False
        steps, self._stopped_at = self._stopped_at, None
        if steps is not None:
            self._drive(steps)
        while self._backlog and not self.paused and not self.dead:
            handler, arguments = self._backlog.popleft()
            if handler == self._tick:
                self.simulator.queue.after(TICK_LATE_US, self.post, handler)
            else:
                handler(*arguments)

    # --- effects ------------------------------------------------------------------------------------------------------

    def _actions(self, effects: Effects) -> Iterator[None]:
        """Carry out one step's effects in their order; stops after every action."""
        if effects.distrust:
            self.node.store_broken = True
            yield
        if effects.append:
            self._append(effects)
            yield
        for to, message in effects.send:
            self._send(to, message)
            yield
        for to, message in effects.send_durable:
            if self._flushed == self._tickets:
                self._send(to, message)
            else:
                self._held.append((self._tickets, to, message))
            yield
        if effects.apply:
            for slot, value in effects.apply:
                self.simulator.judge.committed_slot(self.name, slot, value)
            self.executor.feed(effects.apply)
            self._wake_executor()
            yield
        if effects.read_points:
            self.contact.read_points(effects.read_points)
        if effects.durable_requests:
            self.contact.durable(effects.durable_requests)
        if effects.refused_requests:
            self.contact.refused(effects.refused_requests)
        self.changes.update(effects.changes)
        for transfer in effects.transfer:
            self._transfer(transfer)
            yield
        for name, fields in effects.events:
            self.simulator.count(name)
            self.simulator.note(self.name, " ".join([name, *(f"{k}={v}" for k, v in fields.items())]))
        if effects.halt:
            raise Violation("halt", f"{self.name} stopped for good: {effects.halt}")
        if effects.forget:
            self.node.forget(effects.forget)

    def _append(self, effects: Effects) -> None:
        self._tickets += 1
        ticket = self._tickets
        group = self.node.group
        self.simulator.logged(self.name, effects.append)
        self.log.append([(group, record) for record in effects.append], lambda: self.post(self._on_durable, ticket))

    def _on_durable(self, ticket: int) -> None:
        self._flushed = ticket
        held = self._held
        while held and held[0][0] <= ticket:
            _, to, message = held.popleft()
            self._send(to, message)
        self.step(self.replica.durable, ticket)

    def _send(self, to: str, message: Message) -> None:
        data = encode_message(message)
        for target in self.replica.state.peers() if to == EVERYONE else (to,):
            self.simulator.transmit(self.name, self.node.disk_id, target, message, data)

    # --- inputs -------------------------------------------------------------------------------------------------------

    def deliver(self, sender: str, sender_disk: str, message: Message) -> None:
        """A message arrived."""
        self.step(self.replica.step, sender, sender_disk, message)

    def start_ticking(self, first: int) -> None:
        """Tick every :data:`TICK_US` from now on; ticks that a pause swallowed are not made up for."""
        self.simulator.queue.after(first, self._tick_due)

    def _tick_due(self) -> None:
        if self.dead:
            return
        self.simulator.queue.after(TICK_US, self._tick_due)
        if not self._tick_waits:
            self._tick_waits = True
            self.post(self._tick)

    def _tick(self) -> None:
        self._tick_waits = False
        self.contact.tick(self.clock())
        self.step(self.replica.tick)
        self.node.check_established()

    def change(self, kind: str, argument: str) -> int:
        """Ask for a change of the group; its answer will be in :attr:`changes` under the number returned."""
        numbers: list[int] = []

        def request(now: int) -> Effects:
            number, effects = self.replica.request_change(kind, argument, now)
            numbers.append(number)
            return effects

        self.step(request)
        return numbers[0] if numbers else 0

    def ask_change(self, kind: str, argument: str) -> None:
        """Ask for a change, and see nothing of its answer."""
        self.change(kind, argument)

    def leave(self) -> None:
        """Hand over (SIGTERM); whoever asked for it ends the process later."""
        self.leaving = True
        self.step(self.replica.hand_over)

    def set_full(self, full: bool) -> None:
        """The disk got full, or has space again."""
        self.step(self.replica.set_full, full)

    # --- executing ----------------------------------------------------------------------------------------------------

    def _wake_executor(self) -> None:
        if not self._executor_awake and self.executor.queue:
            self._executor_awake = True
            self.later(self.node.apply_delay(), self._execute)

    def _execute(self) -> None:
        self._executor_awake = False
        if self.installing:
            return
        low = self.machine.applied_slot
        execution = self.executor.run(self.simulator.swarm.apply_budget)
        if execution is None:
            return
        judge = self.simulator.judge
        for slot, digest in execution.marks:
            judge.digest(self.name, slot, digest)
        judge.digest(self.name, execution.slot, execution.digest)
        judge.results(self.name, low, execution.slot, execution.results)
        self.contact.results(execution.results)
        self.step(self.replica.executed, execution)
        if self.executor.marker and not self.dead:
            self._pin_checkpoint()
        self._wake_executor()

    # --- reads --------------------------------------------------------------------------------------------------------

    @property
    def applied_slot(self) -> int:
        """The slot up to which the local store is."""
        return self.machine.applied_slot

    @property
    def readable(self) -> bool:
        """Return whether the store may be shown at all."""
        return not (self.installing or self.replica.state.rebuilding)

    def read(self, key: bytes) -> tuple[int, Entry | None]:
        """Return ``(applied slot, entry)`` from the local store."""
        return self.machine.applied_slot, self.machine.read(key)

    # --- checkpoints and transfers ------------------------------------------------------------------------------------

    def _pin_checkpoint(self) -> None:
        """Pin the state at the marker, let the executor go on, and write the file aside."""
        slot = self.executor.marker
        snapshot = self.node.store.snapshot()
        self.executor.resume()
        self.later(self.node.checkpoint_delay(), self._checkpoint_written, slot, snapshot)

    def _checkpoint_written(self, slot: int, snapshot: MemoryStore) -> None:
        self.simulator.count("checkpoint_written")
        digest = b"" if self.node.full else self.node.files.write(slot, snapshot)
        self.step(self.replica.checkpoint_written, slot, digest)

    def _transfer(self, effect: TransferEffect) -> None:
        match effect:
            case SendChunk(to, slot, offset):
                total, data = self.node.files.read_chunk(
                    slot, offset, self.simulator.swarm.limits.page_bytes, self.simulator.queue.now
                )
                self._send(to, CheckpointChunk(slot, offset, total, data))
            case BeginTransfer(slot):
                self._incoming = (slot, bytearray())
            case WriteChunk(slot, offset, data):
                if self._incoming[0] == slot and len(self._incoming[1]) == offset:
                    self._incoming[1].extend(data)
            case InstallCheckpoint(slot):
                self.installing = True
                self.node.store_broken = True
                self.later(self.node.checkpoint_delay(), self._install, slot)
            case CheckpointCommitted(slot):
                self._truncate(slot)

    def _install(self, slot: int) -> None:
        """Verify the received checkpoint and make it the store's content."""
        self.simulator.count("checkpoint_installed")
        incoming, data = self._incoming
        self._incoming = (0, bytearray())
        try:
            store = self.node.files.install(slot, bytes(data) if incoming == slot else b"")
        except DamageError as error:
            self.simulator.note(self.name, f"checkpoint {slot} is damaged: {error}")
            self.installing = False
            self.node.store_broken = False
            self.step(self.replica.install_failed, slot)
            self._wake_executor()
            return
        self.node.store = store
        self.node.store_broken = False
        self.machine = Machine(store, self.simulator.swarm.limits.request_window_slots)
        self.executor.reset(self.machine)
        self.installing = False
        if slot:
            self.simulator.judge.digest(self.name, slot, self.machine.digest)
        results = self.executor.recall(self.replica.pending_operations())
        self.step(self.replica.installed, slot, self.machine.digest, self.machine.configuration, results)
        self.contact.results(results)

    def _truncate(self, slot: int) -> None:
        """Drop older checkpoint files and segments, once everything logged so far, live state anew, is durable."""
        # Chosen first: the segment that the live records go to must not be among those that they make superfluous.
        numbers = self.log.writer.removable({self.node.group: slot})

        def remove() -> None:
            self.node.files.drop_below(slot, self.simulator.queue.now)
            left = [number for number in numbers if number in self.log.writer.highest]
            if left:
                self.log.remove(left)
                self.simulator.count("segments_removed")

        self.log.append(self.log.writer.live_records(), lambda: self.post(remove))

    def content(self) -> dict[bytes, bytes]:
        """Return the store's keys and values."""
        return {key: decode_entry(data).value for key, data in self.node.store.scan(b"")}
