"""Pulls the simulator's levers at random times, within what the protocol promises to survive.

The one limit that is not a matter of taste: disks are damaged or wiped only while, with the new one, no more than a
minority of the members lacks what the group relies on (M5).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import META
from replicad.lab.losses import may_lose
from replicad.lab.virtual_log import RETRY_US

if TYPE_CHECKING:
    from replicad.lab.simulated_node import SimulatedNode
    from replicad.lab.simulator import Simulator

FUSE_ACTIONS_MAX = 40


class Nemesis:
    """One run's faults, from :meth:`start` to :meth:`stop`."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._queue = simulator.queue
        self._settings = simulator.swarm.nemesis
        self.stopped = False
        self.waiting = False
        """No lever is pulled until all nodes are in touch."""
        self._randoms: dict[str, Random] = {}
        self._enabled: list[Callable[[Random], None]] = []
        self._space = Random(f"{simulator.seed}/space")

    def start(self) -> None:
        """Begin; every kind of fault has a stream of its own."""
        settings = self._settings
        for node in self._simulator.nodes.values():
            node.points.scale_ppm, node.points.installs_ppm = settings.points_ppm, settings.installs_ppm
        kinds: list[tuple[str, int, Callable[[Random], None]]] = [
            ("crash", settings.crash_us, self._crash),
            ("power", settings.power_us, self._power),
            ("blackout", settings.blackout_us, self._blackout),
            ("pause", settings.pause_us, self._pause),
            ("partition", settings.partition_us, self._partition),
            ("one_way", settings.one_way_us, self._one_way),
            ("hang", settings.hang_us, self._hang),
            ("full", settings.full_us, self._fill),
            ("rot", settings.rot_us, self._rot),
            ("wipe", settings.wipe_us, self._wipe),
            ("hand_over", settings.hand_over_us, self._hand_over),
            ("checkpoint", settings.checkpoint_us, self._checkpoint),
        ]
        self._enabled = [pull for _, mean, pull in kinds[:-2] if mean]
        kinds.append(("storm", settings.storm_us, self._storm))
        kinds.append(("diverge", settings.diverge_us, self._diverge))
        kinds.append(("diverge_meta", settings.diverge_meta_us, self._diverge_meta))
        kinds.append(("isolate", settings.isolate_us, self._isolate))
        kinds.append(("flap", settings.flap_us, self._flap))
        kinds.append(("stop", settings.stop_us, self._stop))
        kinds.append(("slow", settings.slow_us, self._slow))
        if settings.aimed_ppm:
            self._randoms["aimed"] = Random(f"{self._simulator.seed}/faults/aimed")
            self._simulator.listeners.append(self._aim)
        for name, mean, pull in kinds:
            if mean:
                self.plan(name, mean, pull)

    def muted(self) -> bool:
        """Return whether no lever is pulled now: a directory is to be found out by a majority that is in touch."""
        return self.waiting or any(node.branched for node in self._simulator.nodes.values())

    def stop(self) -> None:
        """Pull no lever any more."""
        self.stopped = True
        for node in self._simulator.nodes.values():
            node.points.scale_ppm = node.points.installs_ppm = 0

    def plan(self, name: str, mean: int, pull: Callable[[Random], None]) -> None:
        """Pull this lever again and again, after random times of this mean, from a stream of its own."""
        random = self._randoms.setdefault(name, Random(f"{self._simulator.seed}/faults/{name}"))

        def due() -> None:
            if self.stopped:
                return
            if not self.muted():
                pull(random)
            self.plan(name, mean, pull)

        self._queue.after(int(random.expovariate(1.0) * mean), due)

    def outage(self, random: Random) -> int:
        """Return how long something stays broken, in microseconds."""
        long = random.randrange(1_000_000) < self._settings.long_ppm
        duration = random.random()
        return int(duration * 4_000_000) + 500_000 if long else int(duration * 600_000) + 1_000

    def after(self, delay: int, undo: Callable[[], None]) -> None:
        """Undo a fault later, unless healing did it before."""

        def due() -> None:
            if not self.stopped:
                undo()

        self._queue.after(delay, due)

    def any(self, random: Random) -> SimulatedNode:
        """Return a node; the coordinator more often than others, because it matters more."""
        nodes = self._simulator.nodes
        name = random.choice(self._simulator.names)
        prefer = random.random() < 0.4
        if prefer:
            for node in nodes.values():
                if node.process is not None and node.process.replica.role == "coordinator":
                    return node
        return nodes[name]

    def _coordinates(self, name: str) -> bool:
        process = self._simulator.nodes[name].process
        return process is not None and process.replica.role == "coordinator"

    def _storm(self, random: Random) -> None:
        """Pull several levers at nearly the same time."""
        levers = random.randrange(2, 5)
        for _ in range(levers):
            delay = random.randrange(100_000)
            if self._enabled:
                pull = random.choice(self._enabled)
                self.after(delay, lambda pull=pull: pull(random))  # type: ignore[misc]

    # --- aimed at what just happened ----------------------------------------------------------------------------------

    def _aim(self, name: str, event: str) -> None:
        """Kill where something was settled that few have heard of, or that is on its way.

        After a configuration entry all processes die: who committed it knows, and the others find it open. After a page
        that is held back its sender dies: a candidate that waits for the page goes on without it.
        """
        if event not in {"configuration", "page_held_back"} or self.stopped:
            return
        node = self._simulator.nodes[name]
        process = node.process
        if process is None or (event == "configuration" and process.replica.role != "coordinator"):
            return  # others hear of an entry when it is an old story
        random = self._randoms["aimed"]
        if random.randrange(1_000_000) >= self._settings.aimed_ppm:
            return
        outages = [random.randrange(400_000) for _ in self._simulator.names]
        delay = random.randrange(1_000) if event == "configuration" else random.randrange(400_000)
        victims = list(self._simulator.nodes.values()) if event == "configuration" else [node]

        def blow() -> None:
            for victim, outage in zip(victims, outages, strict=False):
                if victim.process is not None:
                    self._simulator.count("fault aimed")
                    victim.crash(power=False)
                    self.after(outage if victim is not node else outage // 4, victim.start)

        self.after(delay, blow)

    # --- processes and machines ---------------------------------------------------------------------------------------

    def _crash(self, random: Random) -> None:
        self._kill(self.any(random), random, power=False)

    def _power(self, random: Random) -> None:
        self._kill(self.any(random), random, power=True)

    def _kill(self, node: SimulatedNode, random: Random, *, power: bool) -> None:
        """Kill now, or somewhere within the next steps."""
        process = node.process
        actions = random.randrange(FUSE_ACTIONS_MAX) if random.random() < 0.7 else -1
        outage = self.outage(random)
        if process is None:
            return
        self._simulator.count("fault power" if power else "fault crash")

        def blow() -> None:
            node.crash(power=power)
            self.after(outage, node.start)

        if actions < 0:
            blow()
        else:
            process.light_fuse(actions, blow)

    def _blackout(self, random: Random) -> None:
        self._simulator.count("fault blackout")
        for node in self._simulator.nodes.values():
            outage = self.outage(random)
            if node.process is not None:
                node.crash(power=True)
                self.after(outage, node.start)

    def _pause(self, random: Random) -> None:
        node = self.any(random)
        actions = random.randrange(FUSE_ACTIONS_MAX)
        outage = self.outage(random)
        process = node.process
        if process is None or process.paused:
            return
        self._simulator.count("fault pause")

        def blow() -> None:
            self._simulator.pause(node.name)
            self.after(outage, process.resume)

        process.light_fuse(actions, blow)

    def _hand_over(self, random: Random) -> None:
        node = self.any(random)
        outage = self.outage(random)
        process = node.process
        if process is None:
            return
        self._simulator.count("fault hand over")
        process.post(process.leave)

        def leave() -> None:
            if node.process is process:
                node.crash(power=False)
                self.after(outage, node.start)

        self.after(1_000_000, leave)

    def _stop(self, random: Random) -> None:
        """SIGTERM: the process ends as soon as it may, after a while in any case, and starts again later."""
        node = self.any(random)
        outage = self.outage(random)
        process = node.process
        if process is None or process.leaving:
            return
        self._simulator.count("fault stop")
        self._simulator.stop(node.name, lambda: self.after(outage, node.start))

    def _checkpoint(self, random: Random) -> None:
        process = self.any(random).process
        if process is not None:
            process.post(process.step, process.replica.request_checkpoint)

    # --- network ------------------------------------------------------------------------------------------------------

    def _partition(self, random: Random) -> None:
        """Split the nodes into two sides; sometimes only one link, or one node from all others."""
        names = list(self._simulator.names)
        random.shuffle(names)
        size = random.randrange(1, len(names))
        side, other = names[:size], names[size:]
        if random.random() < 0.3:
            side, other = side[:1], other[:1]
        pairs = [(a, b) for a in side for b in other]
        self._cut([*pairs, *((b, a) for a, b in pairs)], random)

    def _one_way(self, random: Random) -> None:
        """A node that others do not hear, or that does not hear others, or one link in one direction."""
        names = list(self._simulator.names)
        random.shuffle(names)
        node, others = names[0], names[1:]
        kind = random.randrange(3)
        pairs = [(node, other) for other in others] if kind == 0 else [(other, node) for other in others]
        self._cut(pairs[:1] if kind == 2 else pairs, random)

    def _isolate(self, random: Random) -> None:
        """Cut a node off, mostly the coordinator, for a few lease lengths: it logs what is never chosen."""
        names = self._simulator.names
        node = next((name for name in names if self._coordinates(name)), random.choice(names))
        lease_us = self._simulator.swarm.limits.lease_us
        duration = 2 * lease_us + random.randrange(3 * lease_us)
        side = [node, *(name for name in names if name != node)][: random.randint(1, (len(names) - 1) // 2)]
        self._cut([pair for a in side for b in names if a != b for pair in ((a, b), (b, a))], random, duration)

    def _cut(self, pairs: list[tuple[str, str]], random: Random, duration: int = 0) -> None:
        network = self._simulator.network
        self._simulator.count("fault partition")
        self._simulator.note("net", "cut " + " ".join(f"{a}>{b}" for a, b in pairs))
        for a, b in pairs:
            network.block(a, b)

        def undo() -> None:
            self._simulator.note("net", "joined " + " ".join(f"{a}>{b}" for a, b in pairs))
            for a, b in pairs:
                network.unblock(a, b)

        self.after(duration or self.outage(random), undo)

    # --- disks --------------------------------------------------------------------------------------------------------

    def _hang(self, random: Random) -> None:
        self._simulator.count("fault hang")
        self._simulator.hang(self.any(random).name, self.outage(random))

    def _slow(self, random: Random) -> None:
        """Slow a disk down, for seconds, also across restarts."""
        node = self.any(random)
        slow_us = random.randrange(100_000, 1_000_000)
        duration = random.randrange(1_000_000, 8_000_000)
        if node.disk.slow_us:
            return
        self._simulator.count("fault slow disk")
        node.note(f"disk is slower by {slow_us // 1_000} ms")
        node.disk.slow_us = slow_us

        def undo() -> None:
            node.note("disk is as fast as before")
            node.disk.slow_us = 0

        self.after(duration, undo)

    def _fill(self, random: Random) -> None:
        node = self.any(random)
        outage = self.outage(random)
        if node.full:
            return
        self._simulator.count("fault full")
        node.set_full(full=True, used_up=self._space.random() < 0.5)

        def undo() -> None:
            if node.full:
                node.set_full(full=False)

        self.after(outage, undo)

    def _flap(self, random: Random) -> None:
        """A disk that is full for hundredths of seconds, while heartbeats and answers arrive in the opposite order.

        So the node answers a later heartbeat that it wants no lease, then an earlier one that it wants one; and the
        coordinator hears it the other way round.
        """
        node = self._simulator.nodes[random.choice(self._simulator.names)]
        before, behind, rest = random.randrange(60_000, 100_000), random.randrange(40_000), random.randrange(40_000)
        if node.process is None or self._coordinates(node.name) or any(n.full for n in self._simulator.nodes.values()):
            return
        self._simulator.count("fault flap")
        node.set_full(full=True)
        now, network = self._queue.now, self._simulator.network
        middle = now + RETRY_US - behind
        end = middle + before + rest
        for other in self._simulator.names:
            if self._coordinates(other):
                network.turn_round(other, node.name, middle - before, middle, end)
                network.turn_round(node.name, other, middle, end, 2 * end - middle)
                network.block(node.name, other)
                self._queue.at(middle, network.unblock_if, node.name, other)
        outage = RETRY_US - 1_000

        def undo() -> None:
            if node.full:
                node.set_full(full=False)

        self.after(outage, undo)

    def may_lose(self, node: SimulatedNode) -> bool:
        """Return whether this node may lose its data."""
        return may_lose(self._simulator, node)

    def _rot(self, random: Random) -> None:
        """Kill a node and damage its log or its newest checkpoint."""
        node = self.any(random)
        power = random.random() < 0.4
        in_log = random.random() < 0.75
        outage = self.outage(random)
        if node.process is None or not self.may_lose(node):
            return
        node.crash(power=power)
        if node.rot() if in_log else node.rot_checkpoint():
            self._simulator.count("fault rot" if in_log else "fault checkpoint rot")
        self.after(outage, node.start)

    def _wipe(self, random: Random) -> None:
        node = self.any(random)
        outage = self.outage(random)
        if node.process is None or not self.may_lose(node):
            return
        self._simulator.count("fault wipe")
        node.crash(power=False)
        node.note("is wiped")
        node.wipe()
        self.after(outage, node.start)

    def _diverge(self, random: Random) -> None:
        """Let one machine compute something that the others do not."""
        node = self.any(random)
        if node.process is None or not node.process.readable or not self.may_lose(node):
            return
        self._simulator.count("fault diverge")
        node.diverge()

    def _diverge_meta(self, random: Random) -> None:
        """Let one machine's copy of the catalog hold something that the others do not, while theirs are known equal."""
        node = self.any(random)
        for other in self._simulator.nodes.values():
            found = other.process.engine.by_id.get(META) if other.process is not None else None
            if found is None or other.diverged_in(META) or not found.replica.state.serves:
                return
        if not self.may_lose(node):
            return
        self._simulator.count("fault diverge meta")
        node.diverge(META)
