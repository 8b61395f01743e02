"""The engine's way out of a simulated process: a virtual log, a virtual network, virtual files, and the judge.

Every call is an action of the process. A *fuse* burns one step for each; when it is gone, the process is killed or
stopped right there. What a stopped process had still to do it does when it goes on; what a dead one had still to do
never happens. So the engine, which acts in one go, is interrupted between any two of its actions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from replicad.core.journal.records import DroppedRecord, Record
from replicad.core.kv.machine import read_state
from replicad.core.model.errors import DamageError
from replicad.core.model.messages import Message, encode_message
from replicad.lab.checks import Violation
from replicad.lab.crash_points import (
    CHECKPOINT_DELETED,
    CHECKPOINTS_DELETED,
    DROP_APPENDED,
    FILE_KEPT,
    FILE_WRITTEN,
    FILES_DROPPED,
    LIVE_WRITTEN,
    LOADED,
    RECORD_APPENDED,
    RECORD_DURABLE,
    SEGMENT_REMOVED,
    STORE_DELETED,
    WATERMARK_FORGOTTEN,
)

if TYPE_CHECKING:
    from replicad.core.cluster.definitions import GroupDefinition
    from replicad.core.engine.group import Group
    from replicad.core.engine.ports import Opened
    from replicad.core.group.executor import Execution
    from replicad.core.journal.recovery import DurableState
    from replicad.core.kv.memory_store import MemoryStore
    from replicad.lab.simulated_process import SimulatedProcess

Action = tuple[Callable[..., object], tuple[Any, ...]]


class SimulatedPorts:
    """Fulfils ``core.engine.ports.Ports`` for one process."""

    def __init__(self, process: SimulatedProcess) -> None:
        self.process = process
        self.node = process.node
        self.simulator = process.simulator
        self.stopped: deque[Action] | None = None
        """What a process that was stopped in the middle of a step has still to do (None: it was not)."""
        self._fuse: Callable[[], None] | None = None
        self._fuse_left = 0

    # --- being interrupted --------------------------------------------------------------------------------------------

    def light_fuse(self, actions: int, blow: Callable[[], None]) -> None:
        """Call ``blow()``, which kills or pauses the process, after so many more actions."""
        self._fuse, self._fuse_left = blow, actions

    def put_out_fuse(self) -> None:
        """Undo :meth:`light_fuse`."""
        self._fuse = None

    def burn(self) -> bool:
        """Let one step of the fuse burn; returns whether it blew."""
        if self._fuse is None:
            return False
        self._fuse_left -= 1
        if self._fuse_left >= 0:
            return False
        fuse, self._fuse = self._fuse, None
        fuse()
        return True

    def _act(self, action: Callable[..., object], *arguments: Any) -> None:
        """Do something now, or once the process goes on, or never if it is dead."""
        if self.process.dead:
            return
        if self.stopped is not None:
            self.stopped.append((action, arguments))
            return
        action(*arguments)
        self.burn()
        if self.process.paused and self.stopped is None:
            self.stopped = deque()

    def go_on(self) -> None:
        """Do what was still to do when the process was stopped; it may be stopped again."""
        left, self.stopped = self.stopped, None
        while left:
            action, arguments = left.popleft()
            self._act(action, *arguments)

    # --- the process --------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Read the machine's clock."""
        return self.process.clock()

    def wake(self) -> None:
        """Have the engine's turn come, after the time that this machine takes for it."""
        self.process.later(self.node.apply_delay(), self.process.turn)

    def answer(self, done: Callable[..., None], /, *arguments: Any) -> None:
        """Tell somebody who asked."""
        self._act(done, *arguments)

    def event(self, _group: str, name: str, fields: Mapping[str, object]) -> None:
        """Put a line into the transcript."""
        if self.process.dead:
            return
        self.simulator.happened(self.process.name, name)
        self.simulator.note(self.process.name, " ".join([name, *(f"{k}={v}" for k, v in fields.items())]))

    def halt(self, reason: str) -> None:
        """A directory of another past is moved away, as the sentence says; nothing else may lead to this."""
        if self.node.alien:
            self._act(self.node.move_away, reason)
            return
        raise Violation("halt", f"{self.process.name} stopped for good: {reason}")

    def forget(self, reason: str) -> None:
        """Set the directory aside and start over."""
        self._act(self.node.forget, reason)

    # --- groups -------------------------------------------------------------------------------------------------------

    def open(self, definition: GroupDefinition, durable: DurableState) -> Opened:
        """Open store and files of a group."""
        return self.node.open_group(definition.id, durable)

    def opened(self, definition: GroupDefinition, group: Group, opened: Opened) -> None:  # noqa: ARG002 - as the port
        """Checkpoints of another life of the group are told by their ids."""
        self.node.of(group.id).files.ids = group.replica.state.known_ids

    def closed(self, name: str, identity: str) -> None:
        """Nothing of a group that is closed is held but its data."""

    def delete_store(self, identity: str) -> None:
        """Delete the store, first its watermark; the judge must agree that nobody will miss it."""
        self._act(self._forget_watermark, identity)
        self._act(self._work)
        self._act(self._delete_databases, identity)

    def _forget_watermark(self, identity: str) -> None:
        self.simulator.check_deletion(self.node.name, self.node.disk_id, identity)
        self.node.of(identity).store_files.reached = 0
        self.node.at(WATERMARK_FORGOTTEN)

    def _delete_databases(self, identity: str) -> None:
        self.node.of(identity).store_files.wipe()
        self.node.belongs(identity)
        self.node.at(STORE_DELETED)

    def delete_checkpoints(self, identity: str) -> None:
        """Delete the files, one after the other."""
        for slot in self.node.of(identity).files.slots():
            self._act(self._work)
            self._act(self._delete_checkpoint, identity, slot)
        self._act(self.node.at, CHECKPOINTS_DELETED)

    def _delete_checkpoint(self, identity: str, slot: int) -> None:
        self.node.of(identity).files.remove(slot)
        self.node.at(CHECKPOINT_DELETED)

    def _work(self) -> None:
        """The process does one long thing, and hears and says nothing meanwhile; the log goes on by itself."""
        self.process.pause()
        self.simulator.queue.after(self.node.deletion_delay(), self.process.resume)

    def meet_nodes(self) -> None:
        """Every node is found by its name."""

    # --- the message log ----------------------------------------------------------------------------------------------

    def append(self, records: Sequence[tuple[str, Record]], number: int, *, reserved: bool) -> None:  # noqa: ARG002 - the log sees it itself
        """Append records; the engine is told when they are durable."""
        self._act(self._append, records, number)

    def _append(self, records: Sequence[tuple[str, Record]], number: int) -> None:
        process = self.process
        self.simulator.logged(process.name, [record for _, record in records])
        process.log.append(records, lambda: process.post(process.run, process.engine.on_durable, number))
        if any(type(record) is DroppedRecord for _, record in records):
            self.node.at(DROP_APPENDED)

    def truncate(self, slots: Mapping[str, int]) -> None:
        """Remove segments once everything logged so far, live state anew, is durable."""
        self._act(self._truncate, dict(slots))

    def _truncate(self, slots: dict[str, int]) -> None:
        process = self.process

        def remove(numbers: list[int]) -> None:
            self.node.at(LIVE_WRITTEN)
            for number in numbers:
                process.log.remove([number])
                self.simulator.count("segments_removed")
                self.node.at(SEGMENT_REMOVED)

        self.node.at(FILES_DROPPED)
        process.log.truncate(slots, lambda numbers: process.post(remove, numbers))

    def segments(self) -> tuple[int, tuple[str, ...]]:
        """Return how many segments the log has, and which groups keep the oldest."""
        log = self.process.log
        return len(log.writer.highest), tuple(log.writer.pinning(log.truncated))

    # --- the cluster's id ---------------------------------------------------------------------------------------------

    def keep_cluster_id(self, cluster_id: str) -> None:
        """Write it into the directory."""
        self._act(setattr, self.node, "cluster_id", cluster_id)

    def keep_drained(self, drained: bool) -> None:
        """Write it into the directory."""
        self._act(setattr, self.node, "drained", drained)

    def admitted(self) -> None:
        """Write it into the directory."""
        self._act(setattr, self.node, "lost", False)

    def open_links_anew(self) -> None:
        """Links here are never open for long."""

    def cluster_id_of(self, peer: str) -> str:
        """Return what the peer's newest message said: every message passes a door of its own here."""
        return self.process.heard_ids.get(peer, "")

    # --- the network --------------------------------------------------------------------------------------------------

    def send(self, to: str, group: str, message: Message) -> None:
        """Put a message on the network."""
        self._act(self._transmit, to, group, message, encode_message(message))

    def broadcast(self, peers: Iterable[str], group: str, message: Message) -> None:
        """Put a message to each of the peers on the network; the process may die between two of them."""
        data = encode_message(message)
        for peer in peers:
            self._act(self._transmit, peer, group, message, data)

    def _transmit(self, to: str, group: str, message: Message, data: bytes) -> None:
        self.simulator.transmit(self.process.name, self.process.card(), to, message, data, group)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def distrust(self, group: str) -> None:
        """Have no later start go on from the store."""
        self._act(setattr, self.node.of(group).store_files, "trusted", False)

    def pin(self, group: str, slot: int) -> None:
        """Hold the state after a moment, and write it aside."""
        self._act(self._later, group, self.node.apply_delay(), self._pin, group, slot)

    def _pin(self, group: str, slot: int) -> None:
        snapshot = self.node.of(group).store.snapshot()
        self._later(group, self.node.checkpoint_delay(), self._written, group, slot, snapshot)
        self._tell(group, lambda found: found.on_pinned(slot))

    def _written(self, group: str, slot: int, snapshot: MemoryStore) -> None:
        self.simulator.count("checkpoint_written")
        digest = b"" if self.node.full else self.node.of(group).files.write_snapshot(slot, snapshot)
        self.node.at(FILE_WRITTEN)
        self._tell(group, lambda found: found.on_checkpoint_written(slot, digest))

    def cancel_checkpoint(self, group: str, why: str) -> None:
        """A file that is being written here gets done all the same, and is taken for what it is."""

    def keep(self, group: str, slot: int) -> None:
        """Verify and keep what was received, after a while."""
        self._act(self._later, group, self.node.checkpoint_delay() // 2, self._keep, group, slot)

    def _keep(self, group: str, slot: int) -> None:
        process = self.process
        try:
            digest = self.node.of(group).files.keep(slot)
        except DamageError as error:
            self.simulator.note(process.name, f"checkpoint {slot} is damaged: {error}")
            reason = str(error)
            self._tell(group, lambda found: found.on_install_failed(slot, reason))
            return
        self.node.at(FILE_KEPT)
        self._tell(group, lambda found: found.on_kept(slot, digest))
        self.node.at(RECORD_APPENDED)

    def install(self, group: str, slot: int) -> None:
        """Replace the store's content after a while."""
        self._act(self._begin_to_install, group, slot)

    def _begin_to_install(self, group: str, slot: int) -> None:
        self.simulator.count("checkpoint_installed")
        self.node.at(RECORD_DURABLE)
        self.node.of(group).store.begin_load()
        self._later(group, self.node.checkpoint_delay() // 2, self._install, group, slot)

    def _install(self, group: str, slot: int) -> None:
        process = self.process
        data = self.node.of(group)
        data.store.end_load(data.files.load(slot))
        if slot:
            self.simulator.judge_of(group).digest(process.name, slot, read_state(data.store)[2])
        self.node.at(LOADED)
        self._tell(group, lambda found: found.on_installed(slot))

    def _later(self, group: str, delay: int, handler: Callable[..., None], *arguments: Any) -> None:
        """Go on with something for a group after a while, unless it was closed meanwhile (or closed and opened)."""
        found = self.process.engine.by_id.get(group)

        def due() -> None:
            if found is not None and self.process.engine.by_id.get(group) is found:
                handler(*arguments)

        self.process.later(delay, due)

    def _tell(self, group: str, say: Callable[[Group], None]) -> None:
        """Report to a group that something which it began is done, unless it was closed meanwhile."""
        found = self.process.engine.by_id.get(group)
        if found is not None:
            self.process.run(say, found)


class JudgeObserver:
    """Fulfils ``core.engine.ports.Observer``: shows the judge what a process does, as long as it lives."""

    def __init__(self, process: SimulatedProcess) -> None:
        self.process = process

    def fed(self, group: str, slots: Sequence[tuple[int, bytes]]) -> None:
        """Slots are called committed."""
        if not self.process.dead:
            judge = self.process.simulator.judge_of(group)
            for slot, value in slots:
                judge.committed_slot(self.process.name, slot, value)

    def executed(self, group: str, first: int, execution: Execution) -> None:
        """Slots were applied."""
        name, judge = self.process.name, self.process.simulator.judge_of(group)
        for slot, digest in execution.marks:
            judge.digest(name, slot, digest)
        judge.digest(name, execution.slot, execution.digest)
        judge.results(name, first - 1, execution.slot, execution.results)

    def batch(self, group: str, operations: int) -> None:
        """Nothing is measured."""

    def replicated(self, group: str, microseconds: int) -> None:
        """Nothing is measured."""

    def checkpoint(self, group: str, slot: int, outcome: str) -> None:
        """Files and log tell."""

    def diverged(self, group: str) -> None:
        """The transcript tells."""

    def compared(self, group: str) -> None:
        """From now on this group is judged, whatever the directory was."""
        if not self.process.dead:
            self.process.node.belongs(self.process.engine.groups[group].id)

    def role(self, group: str, role: str, epoch: int) -> None:
        """The transcript tells by the replica's own events."""
