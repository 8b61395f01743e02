"""Somebody who drains nodes at random, and ends that, while faults go on (not a fault itself); and who looks on.

``drained``: a reader's lease ends as its node is drained, and does not come back before that ends, whatever happens to
the process; an office is left once another member is fit to take it; operations are not handed on to the node. That it
stands after all others a script shows (``drained-stands``). Every node may be drained at once: offices stay then.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from replicad.core.group.drag import heir
from replicad.lab.checks import Violation

if TYPE_CHECKING:
    from replicad.core.engine.group import Group
    from replicad.core.model.messages import Forward
    from replicad.lab.simulator import Simulator

LOOK_US = 20_000
OFFICE_US = 2_000_000
"""An office is left within this time of another member's being fit: recalled leases, open slots and a new voter's
loyalty may take a lease length each, at most 0.4 s."""


class Drainer:
    """Drains and undrains, from :meth:`start` to :meth:`stop`; looks on to the end."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._settings = simulator.swarm.nemesis
        self._random = Random(f"{simulator.seed}/drainer")
        self._stopped = False
        self.drained: dict[str, int] = {}
        """Nodes that were drained, as the operator knows -> how often the directory was wiped by then."""
        self._relieved: dict[tuple[str, str, int], int] = {}
        """Node, group and epoch of an office of a drained node -> since when another member is fit for it."""

    def start(self) -> None:
        """Begin."""
        if self._settings.drain_us:
            self._plan()
            self.watch()

    def stop(self) -> None:
        """Drain no more; in some seeds what is drained stays so."""
        self._stopped = True
        if self._random.randrange(1_000_000) >= self._settings.drained_for_good_ppm:
            for name, node in self._simulator.nodes.items():
                if node.drained or name in self.drained:
                    self.set(name, drained=False)

    def watch(self) -> None:
        """Look on, from now to the end."""
        self._simulator.forwards.append(self._check_forward)
        self._look()

    def _plan(self) -> None:
        def due() -> None:
            if not self._stopped:
                self._act()
                self._plan()

        self._simulator.queue.after(int(self._random.expovariate(1.0) * self._settings.drain_us), due)

    def _act(self) -> None:
        """Drain a node, the coordinator more often than others, or end that for one that is."""
        end, prefer, pick = self._random.random() < 0.4, self._random.random() < 0.4, self._random.random()
        among = [name for name in self._simulator.names if (name in self.drained) == end]
        if prefer and not end:
            among = [name for name in among if self._coordinates(name)] or among
        if among:
            self.set(among[int(pick * len(among))], drained=not end)

    def _coordinates(self, name: str) -> bool:
        process = self._simulator.nodes[name].process
        return process is not None and process.replica.office is not None

    def set(self, name: str, *, drained: bool) -> None:
        """Ask a node, if it is up; it answers at once, or dies."""
        node = self._simulator.nodes[name]
        process = node.process
        if process is None or process.paused or process.leaving:
            return
        self._simulator.count("asked drain" if drained else "asked undrain")
        process.drain(drained=drained)
        if drained and node.process is process and not process.paused:
            self.drained[name] = node.wipes
        elif not drained:
            self.drained.pop(name, None)

    # --- looking on ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        for name in sorted(self.drained):
            node = self._simulator.nodes[name]
            process = node.process
            if node.wipes != self.drained[name]:
                del self.drained[name]
            elif process is None or process.paused:
                self._relieved = {key: since for key, since in self._relieved.items() if key[0] != name}
            else:
                for group in process.engine.groups.values():
                    self._check(name, group, process.clock())
        self._simulator.queue.after(LOOK_US, self._look)

    def _check(self, name: str, group: Group, now: int) -> None:
        replica = group.replica
        office = replica.office
        if office is None:
            if replica.acceptor.lease_until > now:
                raise Violation("drained", f"{name} is drained, and holds a lease of {group.name}")
            return
        key = (name, group.name, office.epoch)
        if not heir(office):
            self._relieved.pop(key, None)
        elif now - self._relieved.setdefault(key, now) > OFFICE_US:
            raise Violation(
                "drained", f"{name} is drained, and keeps the office of {group.name}: {heir(office)} is fit"
            )

    def _check_forward(self, source: str, target: str, group: str, _message: Forward) -> None:
        """A sequencer hands nothing on to a member that it knows to be drained."""
        process = self._simulator.nodes[source].process
        found = process.engine.by_id.get(group) if process is not None else None
        office = found.replica.office if found is not None else None
        if office is None or target not in self.drained:
            return
        peer = office.authority.peers.get(target)
        if peer is not None and not peer.willing and not peer.lease_request:
            raise Violation("drained", f"{source} hands operations on to {target}, which is drained")
