"""What orderly stops and slow disks cost, in virtual time, where nothing else goes wrong.

Safety is :mod:`trial`'s affair. Here a cluster with drawn clocks, delays and disks carries a steady load, one thing is
done to it, and what is measured is how long no write was acknowledged, or how many were. :class:`Slow` says what is too
much. The judge watches, as always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

from replicad.core.model.limits import Limits
from replicad.core.model.operations import ACTIVE, NO_CAS, PUT, REMOTE_WRITE
from replicad.lab.checks import Stuck, Violation
from replicad.lab.clients import Request
from replicad.lab.contact import Outcome
from replicad.lab.network import NetworkFaults
from replicad.lab.simulator import Simulator
from replicad.lab.swarm import DiskFaults, Load, NemesisFaults, Swarm
from replicad.lab.transcript import Transcript

WRITERS, PAUSE_US = 4, 4_000
"""Writers, and how long one waits after an answer; a slow disk is tried with other loads, too."""
RETRY_US = 5_000
READY_US = 20_000_000
FOLLOWER_GAP_US = 50_000
"""No write may wait longer for an orderly stop of a follower, ..."""
COORDINATOR_GAP_US = 100_000
"""... or of the coordinator: an election is part of that."""
SETTLED_US = 2_000_000
SHARE = 0.5
"""With a slow member, a group must be at least so fast as without it."""
SLOW_SECONDS = 6
BLAMED_MAX = 1
"""Where all disks are equally slow, an office ends, or a member leaves the view, for that so often at most."""
DROPS_MAX = 4
"""A slow member leaves the view so often meanwhile at most: it stays away longer each time."""


class Slow(Violation):
    """The cluster went on, but not as fast as it must."""

    def __init__(self, message: str) -> None:
        super().__init__("speed", message)


@dataclass(frozen=True, slots=True)
class Stop:
    """One orderly stop: of whom, and the longest time without an acknowledged write around it."""

    node: str
    coordinator: bool
    gap_us: int


class QuietCluster:
    """Nodes without faults, and writers that go on through whichever nodes are up and stay."""

    def __init__(
        self, seed: int, nodes: int = 3, *, writers: int = WRITERS, pause_us: int = PAUSE_US, slow: bool = False
    ) -> None:
        """``slow``: every disk is so slow that a flush behind another one often takes longer than ``stall_after``."""
        random = Random(f"{seed}/quiet")
        self.pause_us = pause_us
        limits = Limits(checkpoint_slots=100_000)
        delay = random.choice((50, 200, 1_000))
        flush = random.choice((50, 500, 2_000))
        disk = DiskFaults(flush_min_us=flush, flush_max_us=2 * flush, segment_bytes=8 * 1024 * 1024)
        if slow:
            stall = limits.stall_after_us
            disk = replace(disk, flush_min_us=stall // 8, flush_max_us=stall * 5 // 8)
        swarm = Swarm(
            nodes=nodes,
            size=nodes,
            founders=nodes,
            limits=limits,
            network=NetworkFaults(delay_min_us=delay, delay_max_us=2 * delay),
            nemesis=NemesisFaults(),
            disk=disk,
            load=Load(deadline_us=5_000_000),
            fault_phase_us=0,
            clock_ppm=limits.rate_bound_ppm // 2 - 1,
            apply_delay_us=50,
            apply_budget=1024,
            protocol=random.choice((REMOTE_WRITE, ACTIVE)),
        )
        self.random = random
        self.simulator = Simulator(seed, swarm, Transcript(keep=0), nodes)
        self.avoided: set[str] = set()
        """Nodes that no new write goes through."""
        self.times: list[int] = []
        """When a write was acknowledged."""
        self.written = 0
        self.simulator.start_all()
        self.wait_until_ready()
        for _ in range(writers):
            self._write()

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait_until_ready(self) -> None:
        """Let time pass until every node is up and reads under a lease; raises Stuck."""
        if not self.simulator.run_while(lambda: not self._ready(), READY_US, 5_000):
            raise Stuck("; ".join(node.describe() for node in self.simulator.nodes.values()))

    def _ready(self) -> bool:
        for node in self.simulator.nodes.values():
            process = node.process
            if process is None or process.replica.read_slot(process.clock()) is None:
                return False
        return True

    def coordinator(self) -> str:
        """Return who is in office."""
        for name, node in self.simulator.nodes.items():
            if node.process is not None and node.process.replica.role == "coordinator":
                return name
        raise Stuck("nobody is in office")

    def gap(self, since: int) -> int:
        """Return the longest time without an acknowledged write from just before ``since`` until now."""
        before = [time for time in self.times if time <= since][-1:]
        times = [*before, *(time for time in self.times if time > since), self.simulator.queue.now]
        return max((later - sooner for sooner, later in pairwise(times)), default=0)

    # --- writing ------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        names = [n for n, node in self.simulator.nodes.items() if node.process is not None and n not in self.avoided]
        self.written += 1
        number = self.written
        request = Request("quiet", b"k%d" % (number % 50), PUT, b"%d" % number)

        def answer(outcome: Outcome) -> None:
            if not outcome.error:
                self.times.append(self.simulator.queue.now)
            self.simulator.queue.after(RETRY_US if outcome.error else self.pause_us, self._write)

        if not names or not self.simulator.request_write(self.random.choice(names), request, NO_CAS, b"", answer):
            self.simulator.queue.after(RETRY_US, self._write)

    # --- what is done to it -------------------------------------------------------------------------------------------

    def stop(self, name: str) -> Stop:
        """Stop a node in order, start it again, and return how long writes through the others stood still."""
        simulator = self.simulator
        self.avoided.add(name)
        simulator.run_for(self.random.randrange(300_000, 500_000))
        was_coordinator = name == self.coordinator()
        since = simulator.queue.now
        ended: list[int] = []
        simulator.stop(name, lambda: ended.append(simulator.queue.now))
        if not simulator.run_while(lambda: not ended, SETTLED_US * 2, 5_000):
            raise Stuck(f"{name} does not end")
        simulator.run_for(self.random.randrange(SETTLED_US // 2))
        simulator.restart(name)
        self.wait_until_ready()
        simulator.run_for(SETTLED_US // 4)
        self.avoided.discard(name)
        return Stop(name, was_coordinator, self.gap(since))

    def drain(self, name: str) -> Stop:
        """Drain a node, take it back, and return how long writes through the others stood still."""
        simulator = self.simulator
        process = simulator.nodes[name].process
        if process is None:
            raise Stuck(f"{name} is down")
        self.avoided.add(name)
        simulator.run_for(self.random.randrange(300_000, 500_000))
        was_coordinator = name == self.coordinator()
        since = simulator.queue.now
        process.drain(drained=True)
        if not simulator.run_while(lambda: bool(process.engine.drain.holdings()), SETTLED_US, 5_000):
            raise Stuck(f"{name} holds still {process.engine.drain.holdings()}")
        simulator.run_for(SETTLED_US // 2)
        gap = self.gap(since)
        process.drain(drained=False)
        self.wait_until_ready()
        self.avoided.discard(name)
        return Stop(name, was_coordinator, gap)

    def throughput(self, duration_us: int) -> int:
        """Let time pass and return how many writes were acknowledged meanwhile."""
        before = len(self.times)
        self.simulator.run_for(duration_us)
        return len(self.times) - before


def rolling(seed: int, nodes: int = 3) -> list[Stop]:
    """Stop every node in turn; returns what each stop cost. Raises Slow for one that cost too much."""
    cluster = QuietCluster(seed, nodes)
    names = list(cluster.simulator.names)
    cluster.random.shuffle(names)
    return _bounded([cluster.stop(name) for name in names], "orderly stop")


def draining(seed: int, nodes: int = 3) -> list[Stop]:
    """Drain every node in turn, and take it back; returns what each cost. Raises Slow for one that cost too much."""
    cluster = QuietCluster(seed, nodes)
    names = list(cluster.simulator.names)
    cluster.random.shuffle(names)
    return _bounded([cluster.drain(name) for name in names], "draining")


def _bounded(stops: list[Stop], what: str) -> list[Stop]:
    for stop in stops:
        bound = COORDINATOR_GAP_US if stop.coordinator else FOLLOWER_GAP_US
        if stop.gap_us > bound:
            who = "the coordinator" if stop.coordinator else "a follower"
            raise Slow(f"the {what} of {who} stopped writes for {stop.gap_us / 1000:.0f} ms")
    return stops


@dataclass(frozen=True, slots=True)
class SlowDisk:
    """How much longer each flush takes, and what the writers do meanwhile."""

    slow_us: int
    writers: int
    pause_us: int

    @classmethod
    def draw(cls, seed: int) -> SlowDisk:
        """Return the case of this seed."""
        random = Random(f"{seed}/slow")
        slow_us = random.choice((150_000, 200_000, 300_000, 400_000, 700_000))
        return cls(slow_us, random.choice((1, 2, 4)), random.choice((2_000, 10_000, 20_000, 50_000)))


def slow_member(seed: int, case: SlowDisk | None = None, *, coordinator: bool = False) -> float:
    """Slow one member's disk; returns the writes acknowledged relative to a group that lacks the member.

    Raises Slow if it is less than :data:`SHARE`, or if the member left the view again and again.
    """
    case = case or SlowDisk.draw(seed)

    def measure(hurt: Callable[[QuietCluster, str], None]) -> tuple[int, int]:
        cluster = QuietCluster(seed, writers=case.writers, pause_us=case.pause_us)
        first = cluster.coordinator()
        name = first if coordinator else next(name for name in cluster.simulator.names if name != first)
        cluster.avoided.add(name)
        cluster.simulator.run_for(SETTLED_US // 4)
        hurt(cluster, name)
        writes = cluster.throughput(SLOW_SECONDS * 1_000_000)
        return writes, cluster.simulator.counts.get("view_dropped", 0)

    def slow(cluster: QuietCluster, name: str) -> None:
        cluster.simulator.nodes[name].disk.slow_us = case.slow_us

    def kill(cluster: QuietCluster, name: str) -> None:
        cluster.simulator.crash(name)
        cluster.simulator.run_for(SETTLED_US // 2)

    without, _ = measure(kill)
    writes, drops = measure(slow)
    share = writes / max(1, without)
    if drops > DROPS_MAX:
        raise Slow(f"a slow member left the view {drops} times in {SLOW_SECONDS} s")
    if share < SHARE:
        raise Slow(f"with a slow member a group does {share:.0%} of what it does without it")
    return share


def slow_cluster(seed: int) -> int:
    """Let all disks be equally slow; returns the writes acknowledged. Raises Slow if anybody is blamed for it."""
    cluster = QuietCluster(seed, slow=True)
    counts = cluster.simulator.counts
    before = counts.get("left_office", 0) + counts.get("view_dropped", 0)
    writes = cluster.throughput(SLOW_SECONDS * 1_000_000)
    blamed = counts.get("left_office", 0) + counts.get("view_dropped", 0) - before
    if blamed > BLAMED_MAX:
        raise Slow(f"all disks are equally slow, and offices ended or members left the view {blamed} times for it")
    return writes
