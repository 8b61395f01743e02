"""Somebody who changes members and protocol of the group at random, while faults go on (not a fault itself).

What is unsafe is refused by the coordinator; what is refused or lost is not tried again. Disks are never lost in a run
in which members change: an entry that is under way may turn a minority of lost disks into a majority.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from replicad.core.model.configuration import Configuration
from replicad.core.model.operations import ACTIVE, REMOTE_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.lab.simulator import Simulator


class Operator:
    """Asks random nodes for random changes, from :meth:`start` to :meth:`stop`."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._settings = simulator.swarm.nemesis
        self._stopped = False

    def start(self) -> None:
        """Begin; each kind of change has a stream of its own."""
        kinds: tuple[tuple[str, int, Callable[[Random], None]], ...] = (
            ("switch", self._settings.switch_us, self._switch),
            ("change", self._settings.change_us, self._change),
            ("vote", self._settings.vote_us, self._vote),
        )
        for name, mean, ask in kinds:
            if mean:
                self._plan(Random(f"{self._simulator.seed}/operator/{name}"), mean, ask)

    def stop(self) -> None:
        """Ask for nothing any more."""
        self._stopped = True

    def _plan(self, random: Random, mean: int, ask: Callable[[Random], None]) -> None:
        def due() -> None:
            if not self._stopped:
                ask(random)
                self._plan(random, mean, ask)

        self._simulator.queue.after(int(random.expovariate(1.0) * mean), due)

    def _switch(self, random: Random) -> None:
        self._request(random, "protocol", random.choice((REMOTE_WRITE, ACTIVE)))

    def _change(self, random: Random) -> None:
        """Most changes lead somewhere: add what is spare, promote mirrors, take voters out or give them the office."""
        encoded = self._simulator.judge.configuration
        names = self._simulator.names
        founders = self._simulator.founders
        configuration = Configuration.decode(encoded) if encoded else None
        voters = configuration.nodes() if configuration else founders
        mirrors = configuration.mirrors if configuration else ()
        spare = [name for name in names if name not in voters and name not in mirrors]
        draw, pick = random.random(), random.random()
        kind, among = self._choose(draw, list(voters), list(mirrors), spare)
        if among:
            self._request(random, kind, among[int(pick * len(among))])

    def _vote(self, random: Random) -> None:
        """Give a mirror a vote, or take a voter's: what changes who counts."""
        encoded = self._simulator.judge.configuration
        configuration = Configuration.decode(encoded) if encoded else None
        promote, pick = random.random() < 0.5, random.random()
        if configuration is None:
            return
        among = configuration.mirrors if promote else configuration.nodes()
        if among:
            self._request(random, "promote" if promote else "demote", among[int(pick * len(among))])

    @staticmethod
    def _choose(draw: float, voters: list[str], mirrors: list[str], spare: list[str]) -> tuple[str, list[str]]:
        if draw < 0.15:
            return "move", voters
        if draw < 0.75 and spare:
            return "add", spare
        if draw < 0.8 and mirrors:
            return "promote", mirrors
        if draw < 0.9:
            return "demote", voters
        return "remove", [*voters, *mirrors]

    def _request(self, random: Random, kind: str, argument: str) -> None:
        simulator = self._simulator
        process = simulator.nodes[random.choice(simulator.names)].process
        if process is None:
            return
        simulator.count(f"asked {kind}")
        simulator.note(process.name, f"is asked: {kind} {argument}")
        process.post(process.ask_change, kind, argument)
