"""Nodes of an earlier cluster of the same name, found at this one's addresses at random times (M6).

Before such a run begins, an earlier cluster has lived: it formed, took writes, and changed its configuration more often
than the present one will. At random times one of its nodes, or a node that was put on a directory it left behind, runs
where a node of the present cluster is looked for. Whatever it says and hears, neither may change anything in the other.

In some runs the earlier cluster is older than ids are. In some the handshake lets through what tells of configurations
(``open_doors``): the replicas themselves must not believe it. Slots are not let through: who is asked for them is asked
by name, and only the handshake knows who answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import DEFAULT
from replicad.core.model.operations import ACTIVE, NO_CAS, PUT, REMOTE_WRITE
from replicad.lab.checks import Stuck, Violation
from replicad.lab.clients import Request
from replicad.lab.contact import Outcome
from replicad.lab.network import PERFECT
from replicad.lab.simulator import Simulator
from replicad.lab.swarm import NemesisFaults
from replicad.lab.transcript import Transcript

if TYPE_CHECKING:
    from replicad.core.model.cluster_id import Card
    from replicad.core.model.messages import Message
    from replicad.lab.simulated_node import SimulatedNode
    from replicad.lab.simulated_process import SimulatedProcess

WRITES = 12
CHANGES = 4
PATIENCE_US = 20_000_000
STAY_US = (100_000, 3_000_000)
OPEN_DOORS, NAMELESS = 0.3, 0.6
"""Below the first share configurations get past the handshake; up to the second one the strangers know no id."""


class EarlierCluster(Simulator):
    """A cluster of the same name that has lived, and whose nodes then meet the ``present`` one's."""

    present: Simulator | None = None

    def __init__(self, present: Simulator, *, named: bool) -> None:
        """Let it live and end; ``named``: it has an id."""
        quiet = replace(present.swarm, network=PERFECT, nemesis=NemesisFaults(), nodes=len(present.founders))
        swarm = replace(quiet, load=replace(quiet.load, lost_reply_ppm=0))
        super().__init__(present.seed + 1_000_000_007, swarm, Transcript(keep=0))
        for node in self.nodes.values():
            node.names_cluster = named
        self.start_all()
        first = self.names[0]
        for number in range(WRITES):
            self._write(first, b"earlier-%d" % number)
        for number in range(CHANGES):
            self._change(first, (ACTIVE, REMOTE_WRITE)[number % 2])
        for node in self.nodes.values():
            node.crash(power=False)
            node.strange = True
        self.present, self.queue = present, present.queue

    def transmit(
        self, source: str, card: Card, target: str, message: Message, data: bytes, group: str = DEFAULT
    ) -> None:
        """Its messages travel in its own network as long as it lives, then in the present one's."""
        if self.present is None:
            super().transmit(source, card, target, message, data, group)
        else:
            self.present.transmit(source, card, target, message, data, group)

    def begins(self, process: SimulatedProcess) -> None:
        """A process begins to send, here or in the present cluster's network."""
        if self.present is None:
            super().begins(process)
        else:
            self.present.begins(process)

    def _write(self, node: str, key: bytes) -> None:
        request = Request("earlier", key, PUT, b"of another cluster")
        self._until(lambda answer: self.request_write(node, request, NO_CAS, b"", answer))

    def _until(self, ask: Callable[[Callable[[Outcome], None]], bool]) -> None:
        outcomes: list[Outcome] = []

        def again() -> bool:
            if outcomes and not outcomes[-1].error:
                return False
            if outcomes or not asked[0]:
                outcomes.clear()
                asked[0] = ask(outcomes.append)
            return True

        asked = [False]
        if not self.run_while(again, PATIENCE_US, 5_000):
            raise Stuck("the earlier cluster does not get on")

    def _change(self, node: str, protocol: str) -> None:
        process = self.nodes[node].process
        if process is None:
            raise Stuck("a node of the earlier cluster is down")
        number = process.change("protocol", protocol)
        if not self.run_while(lambda: number not in process.changes, PATIENCE_US, 5_000):
            raise Stuck("the earlier cluster does not change its protocol")


class Strangers:
    """Puts a node of the earlier cluster in the place of one of this one's, from :meth:`start` to :meth:`stop`."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._mean = simulator.swarm.nemesis.stranger_us
        self._random = Random(f"{simulator.seed}/strangers")
        self._stopped = False
        self._earlier: EarlierCluster | None = None
        self._disks: dict[str, str] = {}

    def start(self) -> None:
        """Let the earlier cluster have lived, and plan the first visit."""
        if not self._mean:
            return
        kind = self._random.random()
        self._simulator.open_doors = kind < OPEN_DOORS
        self._earlier = EarlierCluster(self._simulator, named=not OPEN_DOORS <= kind < NAMELESS)
        for name, node in self._earlier.nodes.items():
            self._disks[name] = node.disk_id
            self._simulator.strange_disks[node.disk_id] = None
        self._plan()

    def stop(self) -> None:
        """Let no stranger come any more, and those who are here go."""
        self._stopped = True
        for name in list(self._simulator.strangers):
            self._leave(name)

    def _plan(self) -> None:
        def due() -> None:
            if not self._stopped:
                self._visit()
                self._plan()

        self._simulator.queue.after(int(self._random.expovariate(1.0) * self._mean), due)

    def _visit(self) -> None:
        simulator = self._simulator
        name = self._random.choice(simulator.founders)
        stay = self._random.randint(*STAY_US)
        reading = self._random.randint(1_000_000, 10_000_000_000)
        # As long as a cluster has no id, or a directory is empty, there is nothing by which it tells strangers.
        if simulator.strangers or self._earlier is None or not all(n.cluster_id for n in simulator.nodes.values()):
            return
        simulator.count("fault stranger")
        simulator.nodes[name].crash(power=False)
        stranger = self._earlier.nodes[name]
        stranger.clock.restart(simulator.queue.now, reading)
        simulator.note(name, "is replaced by a stranger")
        simulator.strangers[name] = stranger
        stranger.start()
        simulator.queue.after(stay, self._leave, name)

    def _leave(self, name: str) -> None:
        simulator = self._simulator
        stranger = simulator.strangers.pop(name, None)
        if stranger is None:
            return
        self._unchanged(name, stranger)
        stranger.crash(power=False)
        simulator.note(name, "is itself again")
        simulator.nodes[name].start()

    def _unchanged(self, name: str, stranger: SimulatedNode) -> None:
        """A stranger's directory is left as it was: it may be the only one that somebody has."""
        if stranger.disk_id != self._disks[name]:
            raise Violation("apart", f"the directory of another cluster's {name} was set aside")
