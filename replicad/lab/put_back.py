"""Puts wrong data directories under nodes, at random times, and plays the person who does what a node's message says.

What the protocol promises to survive, on no more than a minority of the members at once:

* a directory of *another past*: of another run of a cluster with the same names, or of this disk in a branch of this
  cluster (all directories copied at one moment, and used elsewhere). It holds other values in the same slots;
* an *older copy* of the node's own directory, if what this disk promised and accepted since is held by all other
  members. A copy that lacks more takes its votes back: see "Known gaps" in ``docs/protocol.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from replicad.lab.directories import Directory, copy_directory, other_past, put_back

if TYPE_CHECKING:
    from replicad.lab.nemesis import Nemesis
    from replicad.lab.simulated_node import SimulatedNode
    from replicad.lab.simulated_process import SimulatedProcess
    from replicad.lab.simulator import Simulator

COPIES_KEPT = 3
COPY_EVERY_US = 700_000
OBEY_US = 500_000
"""How often a person looks at the nodes' status."""
TOUCH_US = 4_000_000
PAST_US = (1_500_000, 4_000_000)
"""How long another past lasts."""


class PutBack:
    """The faults of one run; :meth:`start` begins, and the nemesis ends them."""

    def __init__(self, simulator: Simulator, nemesis: Nemesis) -> None:
        self._simulator = simulator
        self._nemesis = nemesis
        self._copies: dict[str, list[Directory]] = {name: [] for name in simulator.names}
        self._aimed = Random(f"{simulator.seed}/put back/aimed")

    def start(self) -> None:
        """Begin; every kind of fault has a stream of its own."""
        settings = self._simulator.swarm.nemesis
        kinds: tuple[tuple[str, int, Callable[[Random], None]], ...] = (
            ("older", settings.older_us, self._older),
            ("other_past", settings.other_past_us, self._other_past),
        )
        for name, mean, pull in kinds:
            if mean:
                self._nemesis.plan(name, mean, pull)
        if settings.other_past_us:
            self._simulator.network.calm = self._nemesis.muted
            self._simulator.queue.after(OBEY_US, self._obey, Random(f"{self._simulator.seed}/obey"))
            self._simulator.listeners.append(self._aim)
        if settings.older_us:
            self._nemesis.plan("copies", COPY_EVERY_US, self._copy)

    def _copy(self, random: Random) -> None:
        node = self._simulator.nodes[random.choice(self._simulator.names)]
        copies = self._copies[node.name]
        copies.append(copy_directory(node))
        del copies[:-COPIES_KEPT]

    def _older(self, random: Random) -> None:
        """Kill a node, and start it on an older copy of its own directory."""
        node = self._nemesis.any(random)
        outage = self._nemesis.outage(random)
        number = random.randrange(COPIES_KEPT)
        copies = [copy for copy in self._copies[node.name] if copy.disk_id == node.disk_id]
        process = node.process
        if process is None or not copies or not self._nemesis.may_lose(node) or not self._harmless(node):
            return
        self._simulator.count("fault older directory")
        node.crash(power=False)
        node.note("gets an older copy of its directory")
        put_back(node, copies[number % len(copies)])
        self._nemesis.after(outage, node.start)

    def _harmless(self, node: SimulatedNode) -> bool:
        """Return whether every other node holds, durably, all that this disk promised and accepted."""
        process = node.process
        if process is None:
            return False
        others = [other.process for other in self._simulator.nodes.values() if other is not node]
        for group in process.engine.groups.values():
            own = group.replica.state
            for other in others:
                known = [one for one in other.engine.groups.values() if one.id == group.id] if other else []
                if not known:
                    return False
                state = known[0].replica.state
                if state.promised < own.promised or state.durable_limit(state.log.committed) < own.log.highest:
                    return False
        return True

    def _other_past(self, random: Random) -> None:
        """Kill a node, and start it on a directory of another past."""
        node = self._nemesis.any(random)
        outage = self._nemesis.outage(random)
        # One that began apart has no vote here; where voters of `_meta` change, nobody can tell whose list is newer.
        branch = random.random() < 0.5 or self._simulator.swarm.catalog
        duration = random.randint(*PAST_US)
        seed = random.getrandbits(40)

        def replace() -> None:
            begin = {name: copy_directory(other) for name, other in self._simulator.nodes.items()} if branch else {}
            self._replace(node, seed, duration, begin)
            self._nemesis.after(outage, node.start)

        if branch:
            self._when_in_touch(node, replace)
        elif node.process is not None and self._nemesis.may_lose(node):
            replace()

    def _replace(self, node: SimulatedNode, seed: int, duration: int, begin: dict[str, Directory]) -> None:
        simulator = self._simulator
        ids = [other.cluster_id for other in simulator.nodes.values() if other.cluster_id]
        past = other_past(seed, simulator.swarm, len(simulator.founders), duration, begin, ids[0] if ids else "")
        simulator.count("fault branched directory" if begin else "fault other directory")
        node.crash(power=False)
        node.note("gets the directory of another past" + (" (a branch of this one)" if begin else ""))
        put_back(node, past[node.name])
        node.restored(started=node.started_before, trusted=False)
        node.aliens = dict.fromkeys(past[node.name].stores)
        node.branched = bool(begin)
        for other in simulator.nodes.values():
            if begin and other.process is not None:
                other.process.put_out_fuse()
                other.process.log.hang_until = other.disk.slow_us = 0

    def _when_in_touch(self, node: SimulatedNode, replace: Callable[[], None]) -> None:
        """Pull no other lever until all others are in touch, or for so long that they will not be."""
        if self._nemesis.muted():
            return
        self._nemesis.waiting = True
        end = self._simulator.queue.now + TOUCH_US

        def look() -> None:
            late = self._simulator.queue.now >= end or self._nemesis.stopped
            if not late and not self._in_touch(node):
                self._simulator.queue.after(50_000, look)
                return
            self._nemesis.waiting = False
            if not late and node.process is not None and self._nemesis.may_lose(node):
                replace()

        look()

    def _in_touch(self, node: SimulatedNode) -> bool:
        """Return whether all others are up and follow one coordinator among them.

        A disk that votes and holds another past cannot be told from the only one that remembers, as long as no
        majority of the others is in touch ("Known gaps").
        """
        others = [other for other in self._simulator.nodes.values() if other is not node]
        for other in others:
            process = other.process
            if process is None or process.paused or other.full:
                return False
        processes = [other.process for other in others if other.process is not None]
        groups = dict.fromkeys(name for process in processes for name in process.engine.groups)
        return self._simulator.network.whole and all(_led_without(node.name, name, processes) for name in groups)

    def _aim(self, name: str, event: str) -> None:
        """When digests found a branch out, let the coordinator die while that disk is rebuilt, or just after.

        It is back before the rebuilt disk votes again: a majority of the others is to elect without it.
        """
        node = self._simulator.nodes[name]
        if event != "rebuilding" or not node.branched or self._nemesis.stopped or self._aimed.random() < 0.5:
            return
        lease_us = self._simulator.swarm.limits.lease_us
        delay, outage = self._aimed.randrange(lease_us), self._aimed.randrange(lease_us)

        def blow() -> None:
            for other in self._simulator.nodes.values():
                if other is not node and other.process is not None and other.process.replica.role == "coordinator":
                    self._simulator.count("fault aimed at a rebuild")
                    other.crash(power=False)
                    self._nemesis.after(outage, other.start)

        self._nemesis.after(delay, blow)

    def _obey(self, random: Random) -> None:
        """Do what the status of a node says that waits outside with a directory of another past: empty it."""
        for node in self._simulator.nodes.values():
            process = node.process
            if process is not None and node.alien and _estranged(process):
                self._simulator.count("emptied by hand")
                node.crash(power=False)
                node.note("is emptied, as its status says")
                node.wipe()
                self._simulator.queue.after(1_000 + random.randrange(300_000), node.start)
        self._simulator.queue.after(OBEY_US, self._obey, random)


def _estranged(process: SimulatedProcess) -> bool:
    """Return whether the status of a node says of a group that its directory is of another past."""
    return any(group.replica.membership.estranged() for group in process.engine.groups.values())


def _led_without(node: str, group: str, processes: list[SimulatedProcess]) -> bool:
    """Return whether all of these that vote in a group follow one coordinator there, which is another node."""
    voters = [
        (found.replica, process.clock())
        for process in processes
        if (found := process.engine.groups.get(group)) is not None and found.replica.state.is_voter()
    ]
    if any(replica.state.leaving or not replica.holds_lease(now) for replica, now in voters):
        return False
    led = {(replica.coordinator, replica.epoch) for replica, _ in voters}
    return len(led) == 1 and not any(coordinator in {"", node} for coordinator, _ in led)
