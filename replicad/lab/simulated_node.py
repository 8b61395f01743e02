"""One simulated machine with one data directory, on which processes start and die.

What survives what:

* the process dies: the log as far as it was written, the store as far as it was written (``virtual_store``), complete
  checkpoint files;
* the machine dies: what was flushed of the log, and complete checkpoint files (they are flushed before they get their
  name); the store may not be trusted and is rebuilt from a checkpoint and the log; the clock starts anew.

A damaged log is set aside at the start: the directory gets a new disk id and is *lost* (M4).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import DEFAULT
from replicad.core.engine.ports import Opened
from replicad.core.journal.recovery import DurableState, Recovery, recover
from replicad.core.journal.segments import LogIdentity
from replicad.core.journal.startup import (
    GroupFound,
    LogFound,
    Source,
    adopt_promises,
    judge_group,
    judge_log,
    unusable,
)
from replicad.core.kv.digest import MASK, to_bytes, to_int
from replicad.core.kv.entries import decode_entry, encode_entry, make_entry
from replicad.core.kv.machine import Machine, read_state, write_state
from replicad.core.kv.memory_store import MemoryStore
from replicad.core.model.configuration import Configuration
from replicad.core.model.errors import DamageError
from replicad.core.model.limits import PEER_VERSION_MAX
from replicad.lab.checks import Violation
from replicad.lab.crash_points import IDENTITY_RENEWED, LOG_PUT_RIGHT, STORE_MOVED, CrashPoints, Died
from replicad.lab.disk import VirtualDisk
from replicad.lab.simulated_process import TICK_US, SimulatedProcess
from replicad.lab.virtual_clock import VirtualClock
from replicad.lab.virtual_files import VirtualFiles
from replicad.lab.virtual_log import VirtualLog, used_bytes
from replicad.lab.virtual_store import StoreFiles, VirtualStore

if TYPE_CHECKING:
    from replicad.lab.simulator import Simulator

CLUSTER = "lab"
DIVERGED_KEY = b"~diverged"
"""A key that no client uses."""
_VOTERS = frozenset({"follower", "candidate", "coordinator"})


@dataclass(slots=True)
class GroupData:
    """What a data directory holds of one group beside the log."""

    files: VirtualFiles
    store_files: StoreFiles
    store: VirtualStore
    """What the present process sees of the store's files."""

    def wipe(self) -> None:
        """Lose everything."""
        self.files.wipe()
        self.store_files.wipe()


class SimulatedNode:
    """A machine: disk, files, store, clock, and at most one process."""

    def __init__(self, simulator: Simulator, name: str) -> None:
        seed = simulator.seed
        swarm = simulator.swarm
        self.simulator = simulator
        self.name = name
        self.peers = tuple(peer for peer in simulator.names if peer != name)
        self._random = Random(f"{seed}/node/{name}")
        self._timing = Random(f"{seed}/timing/{name}")
        self._uploads = Random(f"{seed}/uploads/{name}")
        self._deletion = Random(f"{seed}/deletion/{name}")
        self.disk = VirtualDisk(Random(f"{seed}/disk/{name}"), swarm.disk.segment_bytes)
        self.points = CrashPoints(Random(f"{seed}/points/{name}"))
        self.data: dict[str, GroupData] = {}
        """By the ids of groups: what the directory holds of them beside the log."""
        self.clock = VirtualClock(self._random.randint(-swarm.clock_ppm, swarm.clock_ppm), 0)
        self.clock.restart(simulator.queue.now, self._random.randint(1_000_000, 10_000_000_000))
        self.disk_id = self._new_disk_id()
        self.forced_id = ""
        """What a cluster that this node forms gets for its id ("": a random one)."""
        self.cluster_id = ""
        """Which cluster the directory belongs to ("": it is not known yet)."""
        self.drained = False
        """The directory has the mark of a drained node."""
        self.wipes = 0
        """How often the directory was lost, that mark included."""
        self.lost = False
        self.process: SimulatedProcess | None = None
        self.established = False
        """This disk is a voter that holds what the group relies on; only then may another disk be damaged."""
        self.rotten = ""
        """Damage that the next start must notice."""
        self.promised = 0
        """The promise that the last start of this disk found."""
        self.aliens: dict[str, None] = {}
        """Groups whose data are of another past: what clients are told is judged, not what they say to themselves."""
        self.branched = False
        """It is of a branch of this very cluster, so that this disk votes."""
        self.boots = 0
        """How often the machine lost power."""
        self._rebooted = True
        self.started_before = False
        self.names_cluster = True
        """The group makes the cluster's id, where it has none."""
        self.strange = False
        """It is a node of another cluster of this name."""

    def of(self, group: str) -> GroupData:
        """Return what the directory holds of the group with this id."""
        found = self.data.get(group)
        if found is None:
            stream = self.name if group == DEFAULT else f"{self.name}/{group}"
            seed = self.simulator.seed
            files = StoreFiles(Random(f"{seed}/store/{stream}"), self.simulator.swarm.disk.store_write_ppm)
            found = self.data[group] = GroupData(
                VirtualFiles(CLUSTER, group, Random(f"{seed}/files/{stream}")), files, VirtualStore(files, self.at)
            )
        return found

    def holds(self, group: str) -> bool:
        """Return whether the directory holds something of a group beside the log."""
        data = self.of(group)
        return bool(data.files.slots()) or next(data.store_files.databases.scan(b""), None) is not None

    @property
    def files(self) -> VirtualFiles:
        """The checkpoint files of ``default``."""
        return self.of(DEFAULT).files

    @property
    def store_files(self) -> StoreFiles:
        """What the store of ``default`` has on disk."""
        return self.of(DEFAULT).store_files

    @property
    def store(self) -> VirtualStore:
        """The store of ``default``."""
        return self.of(DEFAULT).store

    def _new_disk_id(self) -> str:
        return f"{self._random.getrandbits(64):016x}"

    def apply_delay(self) -> int:
        """Return how long the executor waits before its next run."""
        return int(self._timing.random() * self.simulator.swarm.apply_delay_us)

    def checkpoint_delay(self) -> int:
        """Return how long writing or loading a checkpoint takes."""
        return self._timing.randint(1_000, 150_000)

    def upload_delay(self) -> int:
        """Return how long it takes until a request of a group of the catalog is there as a whole."""
        return self._uploads.choice((0, 1_000, 20_000, 100_000))

    def deletion_delay(self) -> int:
        """Return how long it takes to delete one thing of a dropped group."""
        return self._deletion.randint(50, 5_000)

    # --- starting -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process on what the directory holds."""
        if self.process is None:
            with suppress(Died):
                self._start()

    def _start(self) -> None:
        recovery = self._recover()
        log = VirtualLog(
            identity=self._identity(),
            disk=self.disk,
            recovery=recovery,
            faults=self.simulator.swarm.disk,
            queue=self.simulator.queue,
            random=self._timing,
            at=self.at,
        )
        self.at(LOG_PUT_RIGHT)
        self._rebooted = False
        self.started_before = True
        self._check_stores(recovery)
        for data in self.data.values():
            data.files.forget_pins()
        process = self.process = SimulatedProcess(self, recovery.states, log, Random(f"{self._random.getrandbits(64)}"))
        for peer in self.peers:
            process.engine.on_peer(peer, PEER_VERSION_MAX)
        replica = process.replica
        if self.forced_id:
            for group in process.engine.groups.values():
                state = group.replica.state
                state.naming = replace(state.naming, fresh_id=self.forced_id)
        self.note(
            f"starts: disk {self.disk_id[:4]}{' lost' if self.lost else ''}"
            f"{' rebuild' if replica.state.rebuilding else ''} "
            f"applied={replica.applied} committed={replica.committed} log={recovery.ending.value}"
        )
        process.start()
        process.start_ticking(self._timing.randrange(TICK_US))
        log.start(lambda full: process.later(0, process.set_full, full))

    def _check_stores(self, recovery: Recovery) -> None:
        """No store is ahead of the log, opened or not: a start would set everything aside."""
        for group, data in self.data.items():
            durable = recovery.states.get(group, DurableState())
            start = judge_group(GroupFound(durable, data.store_files.found(), data.files.slots()))
            if start.contradiction:
                raise Violation(
                    "recovery", f"{self.name} finds its healthy {group} contradictory: {start.contradiction}"
                )

    def open_group(self, identity: str, durable: DurableState) -> Opened:
        """Bring the group's store to a state that the log continues."""
        data = self.of(identity)
        rebuild = self._prepare_store(data, durable)
        machine = Machine(data.store, self.simulator.swarm.limits.request_window_slots)
        if identity == DEFAULT and not self.simulator.swarm.catalog:
            self._check_kept(durable, machine.configuration)
        return Opened(durable, machine, data.store, data.files, rebuild)

    def _check_kept(self, durable: DurableState, configuration: bytes) -> None:
        """What one start of this disk found, the next one finds as well; a formation as soon as it was durable (K2)."""
        if self.disk.formed and not (durable.formation or configuration):
            raise Violation("recovery", f"{self.name} has forgotten that its group is formed")
        if durable.promised < self.promised:
            raise Violation("recovery", f"{self.name} has forgotten its promise of epoch {self.promised}")
        self.promised = durable.promised

    def _identity(self) -> LogIdentity:
        return LogIdentity(CLUSTER, self.name, self.disk_id)

    def _recover(self) -> Recovery:
        """Read the log; a damaged one is set aside."""
        found = self._find_log()
        reason = judge_log(found).reason
        if reason:
            if not self.rotten:
                raise Violation("recovery", f"{self.name} finds damage where none was done: {reason}")
            self.note(f"damage found: {reason}")
            self.simulator.count("damage_found")
            self.set_aside()
            return Recovery()
        if self.rotten:
            raise Violation("rot is noticed", f"{self.name} starts on a damaged log: {self.rotten}")
        adopt_promises(found.recovery, found.promises)
        return found.recovery

    def _find_log(self) -> LogFound:
        try:
            recovery = recover(self.disk.segments(), self._identity(), rebooted=self._rebooted)
        except DamageError as error:
            return LogFound(damage=str(error))
        return LogFound(recovery, "", self.disk.promises, self.started_before, self._rebooted)

    def set_aside(self) -> None:
        """Give up everything in the directory but what it belongs to: a new disk id, state lost; the log goes last."""
        self.rotten = "a set-aside that was interrupted"  # until it is done, the next start must set aside again
        self.disk_id = self._new_disk_id()
        self.lost = True
        self.established = False
        self.promised = 0
        self.started_before = False
        self.aliens, self.branched = {}, False
        self.at(IDENTITY_RENEWED)
        for data in self.data.values():
            data.wipe()
        self.at(STORE_MOVED)
        self.disk.wipe()
        self.rotten = ""

    def wipe(self) -> None:
        """Lose the directory; the next start makes a new one."""
        self.disk.wipe()
        for data in self.data.values():
            data.wipe()
        self.disk_id = self._new_disk_id()
        self.cluster_id = ""
        self.drained = False
        self.wipes += 1
        self.lost = False
        self.established = False
        self.rotten = ""
        self.promised = 0
        self.started_before = False
        self.aliens, self.branched = {}, False

    def restored(self, *, started: bool, trusted: bool) -> None:
        """A directory that may have a past was put here; ``trusted``: its store is of this boot of the machine."""
        self.started_before = started
        self._rebooted = self._rebooted or not trusted
        for data in self.data.values():
            data.store_files.trusted = data.store_files.trusted and trusted

    def _prepare_store(self, data: GroupData, durable: DurableState) -> bool:
        """Make the store something to start from; returns whether only a transfer can do that (rebuild)."""
        start = judge_group(GroupFound(durable, data.store_files.found(), data.files.slots()))
        if start.contradiction:
            raise Violation("recovery", f"{self.name} finds its healthy data contradictory: {start.contradiction}")
        data.store = data.store_files.open(self.at)
        if start.source is not Source.STORE:
            data.store.begin_load()
            content = MemoryStore()
            if start.source is Source.CHECKPOINT and durable.checkpoint is not None:
                try:
                    content = data.files.load_committed(durable.checkpoint)
                except DamageError as error:
                    start = unusable(start, str(error))
            data.store.end_load(content)
        if start.source is Source.OTHERS:
            self.note(f"checkpoint is damaged: {start.lacking}")
            self.simulator.count("checkpoint_damaged")
        durable.committed = max(durable.committed, start.committed)
        return start.source is Source.OTHERS

    # --- faults -------------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Put a line into the transcript."""
        self.simulator.note(self.name, text)

    def crash(self, *, power: bool) -> None:
        """Kill the process, or with ``power`` the machine."""
        process, self.process = self.process, None
        if process is None:
            return
        self.note("loses power" if power else "is killed")
        cut = process.log.busy and self._timing.random() < 0.5
        process.die()
        self._lose_memory(power=power, cut=cut)

    def _lose_memory(self, *, power: bool, cut: bool) -> None:
        if power:
            self.disk.lose_power()
            self.boots += 1
            for data in self.data.values():
                data.store_files.trusted = False
            self._rebooted = True
            self.clock.restart(self.simulator.queue.now, self._timing.randint(1_000_000, 10_000_000_000))
        else:
            self.disk.die(cut=cut)
        for data in self.data.values():
            data.store = VirtualStore(data.store_files, self.at)  # what whoever looks at a dead node sees

    def at(self, point: str) -> None:
        """The process is at a point between two things that are made durable apart: it may die here (Died)."""
        if not self.points.strikes(point) or self.simulator.network.calm():
            return
        power = self.points.power()
        self.note(f"dies: {point}")
        self.simulator.count(f"died: {point}")
        if self.process is not None:
            self.crash(power=power)
        else:
            self._lose_memory(power=power, cut=False)
        self.simulator.queue.after(self.points.outage(), self.start)
        raise Died

    def rot(self) -> bool:
        """Damage the log of a dead node where it must be noticed; returns whether there was anything to damage."""
        try:
            recovery = recover(self.disk.segments(), self._identity(), rebooted=self._rebooted)
        except DamageError as error:
            raise Violation("recovery", f"{self.name} finds damage where none was done: {error}") from error
        done = self.disk.rot(used_bytes(recovery))
        if done:
            self.note(f"rot: {done}")
            self.rotten = done
            self.established = False
        return bool(done)

    def rot_checkpoint(self) -> bool:
        """Damage the newest checkpoint file of a dead node, and its store; returns whether there was one."""
        done = self.files.rot()
        if done:
            self.note(f"rot: {done}")
            self.store_files.trusted = False
            self.established = False
        return bool(done)

    @property
    def alien(self) -> bool:
        """Whether the data of some group are of another past."""
        return bool(self.aliens)

    def belongs(self, group: str) -> None:
        """From now on a group's data here are judged, whatever they were: compared, or deleted."""
        self.aliens.pop(group, None)
        self.branched = self.branched and self.alien

    @property
    def diverged(self) -> bool:
        """Whether the store of ``default`` holds what only this machine computed (see :meth:`diverge`)."""
        return self.diverged_in(DEFAULT)

    def diverged_in(self, group: str) -> bool:
        """Return whether the store of a group does."""
        data = self.of(group).store.get(DIVERGED_KEY)
        return data is not None and decode_entry(data).value == self.name.encode()

    def diverge(self, group: str = DEFAULT) -> None:
        """Put a key into a group's store that no client knows and no slot holds, digest included (K3)."""
        found = self.process.engine.by_id.get(group) if self.process is not None else None
        if found is None or self.diverged_in(group):
            return
        self.note("diverges" if group == DEFAULT else f"diverges in {group}")
        self.established = self.established and group != DEFAULT
        store = self.of(group).store
        entry = make_entry(DIVERGED_KEY, 1, 1, self.name.encode())
        slot, index, digest, configuration = read_state(store)
        store.begin()
        store.put(DIVERGED_KEY, encode_entry(entry))
        total = (to_int(digest) + to_int(entry.hash)) & MASK
        write_state(store, slot, index, to_bytes(total), configuration)
        store.commit()
        found.executor.machine.reload()

    def forget(self, why: str) -> None:
        """The replica says that this disk is not what the group knows (M4)."""
        self.note(f"is forgotten: {why}")
        self.simulator.count("forgotten")
        self.crash(power=False)
        self.simulator.queue.after(50_000, self.start)
        self.set_aside()

    def move_away(self, why: str) -> None:
        """The process stopped for good: a person reads why, moves the directory away, and starts the node again."""
        self.note(f"stops, and gets an empty directory: {why}")
        self.simulator.count("emptied by hand")
        self.crash(power=False)
        self.wipe()
        self.simulator.queue.after(300_000, self.start)

    @property
    def full(self) -> bool:
        """Whether the disk has no space for another segment, or a checkpoint."""
        return self.disk.full

    def set_full(self, *, full: bool, used_up: bool = True) -> None:
        """Fill the disk, or make space again; ``used_up``: the log of the running process has no segment ahead.

        The node finds out by itself, when it lacks a segment, and when it gets one.
        """
        self.disk.full = full
        self.note(
            ("disk is full" if used_up else "disk is full, with segments ahead") if full else "disk has space again"
        )
        if full and used_up and self.process is not None:
            self.process.log.use_up()

    # --- state --------------------------------------------------------------------------------------------------------

    def check_established(self) -> None:
        """Note whether this disk is by now a voter with all that the group relies on."""
        process = self.process
        if self.established or process is None or self.diverged or self.alien or not process.serves:
            return
        replica = process.replica
        if replica.role not in _VOTERS or not process.readable:
            return
        if self.files.lacks(self.recorded_checkpoint()):
            return  # until the next checkpoint, what it was rebuilt from does not reach as far as its log begins
        configuration = self.simulator.judge.configuration
        if configuration and not Configuration.decode(configuration).holds(self.name, self.disk_id):
            return
        self.established = True

    @property
    def fetches_again(self) -> bool:
        """Whether the file of the checkpoint that the log begins at is not there."""
        recorded = self.recorded_checkpoint()
        return bool(recorded) and recorded not in self.files.slots()

    def recorded_checkpoint(self) -> int:
        """Return the slot of the checkpoint that the log begins at (0: none)."""
        live = self.process.log.writer.live.get(DEFAULT) if self.process is not None else None
        return live.checkpoint.slot if live is not None and live.checkpoint is not None else 0

    def describe(self) -> str:
        """Return one line about the node, for the report of a stuck run."""
        if self.process is None:
            return f"{self.name}: down"
        replica = self.process.replica
        return (
            f"{self.name}: {replica.role} of epoch {replica.epoch} under {replica.coordinator or 'nobody'}, "
            f"committed {replica.committed}, applied {self.process.applied_slot}, view {','.join(replica.view)}"
            f"{'' if self.process.readable else ', not readable'}{', full' if self.full else ''}"
        )
