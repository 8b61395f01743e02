"""One seed from beginning to end: a phase of faults (safety), then a healed phase (liveness), then the verdict."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import NamedTuple

from replicad.core.cluster.definitions import META
from replicad.core.journal.space import SPARES_KEPT
from replicad.core.model.configuration import Configuration
from replicad.core.model.errors import InvariantError
from replicad.core.model.operations import APPLIED, NO_CAS, PUT
from replicad.lab.catalog_operator import CatalogOperator
from replicad.lab.checks import Stuck, Violation
from replicad.lab.clients import Clients, Request
from replicad.lab.contact import Level, Outcome
from replicad.lab.drainer import Drainer
from replicad.lab.moving_clients import MovingClients
from replicad.lab.nemesis import Nemesis
from replicad.lab.operator import Operator
from replicad.lab.put_back import PutBack
from replicad.lab.simulator import EVENTS_MAX, Simulator
from replicad.lab.strangers import Strangers
from replicad.lab.swarm import Swarm, draw
from replicad.lab.transcript import Transcript

SPACE_US = 500_000
"""After healing, no disk counts as full after so long: it is a few times as long as a log waits for its next try."""
PATIENCE_US = 1_000_000
"""Beyond the time that a contact takes for a request: groups are ticked now and then only."""
HEAL_US = 30_000_000
"""After healing, everything converges within this."""
TAIL_LINES = 60


class Kind(StrEnum):
    """How a trial ended."""

    OK = "ok"
    CORRECTNESS = "correctness"
    LIVENESS = "liveness"
    CRASH = "crash"


@dataclass(slots=True)
class TrialResult:
    """What one seed gave; ``digest`` is the transcript's hash, ``tail`` its last lines (failures only)."""

    seed: int
    nodes: int
    kind: Kind = Kind.OK
    reason: str = ""
    rule: str = ""
    """What was broken, see :class:`Ending`."""
    digest: str = ""
    tail: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    slots: int = 0
    events: int = 0
    virtual_us: int = 0

    @property
    def command(self) -> str:
        """The one command that repeats this trial."""
        return f"replicad simulate --seeds 1 --seed {self.seed} --nodes {self.nodes}"


class Ending(NamedTuple):
    """How a simulated cluster ended, why, and by which rule's check ("": by none, an arbitrary exception)."""

    kind: Kind = Kind.OK
    reason: str = ""
    rule: str = ""


def verdict(error: Exception) -> Ending:
    """Return what it means that a simulated cluster raised this."""
    if isinstance(error, Violation):
        return Ending(Kind.CORRECTNESS, str(error), error.rule)
    if isinstance(error, Stuck):
        return Ending(Kind.LIVENESS, str(error), error.rule)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
    rule = error.rule if isinstance(error, InvariantError) else ""
    return Ending(Kind.CRASH, f"{type(error).__name__}: {error} ({where})", rule)


def run_trial(seed: int, nodes: int, *, sink: Callable[[str], None] | None = None) -> TrialResult:
    """Run one seed; ``sink`` gets the transcript line by line."""
    return Trial(seed, draw(seed, nodes), Transcript(keep=TAIL_LINES, sink=sink)).run()


class Trial:
    """A simulator, its nemesis and its clients, led through the two phases."""

    def __init__(self, seed: int, swarm: Swarm, transcript: Transcript) -> None:
        self.swarm = swarm
        self.result = TrialResult(seed, swarm.size)
        self.simulator = Simulator(seed, swarm, transcript, swarm.founders)
        self.nemesis = Nemesis(self.simulator)
        self.put_back = PutBack(self.simulator, self.nemesis)
        self.operator = Operator(self.simulator)
        self.drainer = Drainer(self.simulator)
        self.strangers = Strangers(self.simulator)
        self.catalog = CatalogOperator(self.simulator)
        window = swarm.limits.request_window_slots
        self.clients = Clients(self.simulator, swarm.load, window, Random(f"{seed}/clients"))
        self.moving = MovingClients(self.simulator, swarm.load, window, Random(f"{seed}/sessions"))

    def run(self) -> TrialResult:
        """Return how it went; never raises."""
        result = self.result
        simulator = self.simulator
        try:
            self._fault_phase()
            self._healed_phase()
        except Exception as error:  # noqa: BLE001 - whatever a process dies of is the trial's result
            result.kind, result.reason, result.rule = verdict(error)
        result.digest = simulator.transcript.digest()
        if result.kind is not Kind.OK:
            result.tail = simulator.transcript.lines()
        result.counts = simulator.counts
        result.requests = {**self.clients.counts, **self.moving.counts}
        result.slots = simulator.judge.committed
        result.events = simulator.queue.done
        result.virtual_us = simulator.queue.now
        return result

    # --- phase 1 ------------------------------------------------------------------------------------------------------

    def _fault_phase(self) -> None:
        simulator = self.simulator
        simulator.start_all()
        simulator.run_for(200_000)
        self.clients.start()
        self.moving.start()
        self.nemesis.start()
        self.put_back.start()
        self.operator.start()
        self.drainer.start()
        self.strangers.start()
        self.catalog.start()
        end = simulator.queue.now + self.swarm.fault_phase_us
        if not simulator.run_while(lambda: simulator.queue.now < end, self.swarm.fault_phase_us + 1_000_000):
            raise Stuck(f"a storm of {simulator.queue.done} events in the fault phase", rule="calm")

    # --- phase 2 ------------------------------------------------------------------------------------------------------

    def _healed_phase(self) -> None:
        """Heal; then everything converges, every node takes a write and a read, and all stores are equal."""
        simulator = self.simulator
        self.nemesis.stop()
        self.operator.stop()
        self.strangers.stop()
        self.catalog.stop()
        simulator.heal()
        self.drainer.stop()
        simulator.note("net", "healed")
        simulator.queue.after(SPACE_US, self._check_space)
        self._wait("converge", lambda: self._not_converged(idle=False))
        self._wait("follow the catalog", self.catalog.missing)
        self.clients.stop()
        self.moving.stop()
        self._wait("finish the clients' requests", lambda: "" if self._clients_idle() else "requests are open")
        # A slow executor may still have a queue from the traffic just ended: requests wait for it only so long.
        self._wait("apply what is committed", lambda: self._not_converged(idle=True))
        members = self._members()
        for name in members:
            self._write_at(name)
        self._notice_divergence()
        self._wait("answer every request that they took", self._unanswered, rule="answered")
        for name in members:
            self._read_at(name, members)
        self._wait("converge at the end", lambda: self._not_converged(idle=True))
        self._wait("hold the checkpoints that their logs begin at", self._lacking_checkpoint)
        self._check_segments()
        members = self._members()
        simulator.judge.healed(
            {
                name: (node.process.applied_slot, node.process.content())
                for name, node in simulator.nodes.items()
                if node.process is not None and name in members
            }
        )
        self._wait("follow the catalog at the end", self.catalog.missing)
        self.catalog.judge()
        simulator.judge.history(self.clients.history(simulator.judge.model))
        anomalies = simulator.judge.sessions(self.moving.sessions)
        self.moving.counts.update({"session_no_bookmark_anomaly": anomalies} if anomalies else {})

    def _check_space(self) -> None:
        """No disk counts as full that has space."""
        for name, node in self.simulator.nodes.items():
            if node.process is not None and node.process.log.told_full and not node.full:
                raise Violation("full", f"the disk of {name} has space again, and its log says that it is full")

    def _lacking_checkpoint(self) -> str:
        """Say who would have to fetch a whole state again if its machine restarted now."""
        members = self._members()
        return ", ".join(name for name, node in self.simulator.nodes.items() if name in members and node.fetches_again)

    def _check_segments(self) -> None:
        """No more segments stand ready than are kept, however often a node was started."""
        for name, node in self.simulator.nodes.items():
            spares = node.process.log.spare_segments() if node.process is not None else 0
            if spares > SPARES_KEPT:
                raise Violation("spare segments", f"the log of {name} has {spares} empty segments")

    def _configuration(self) -> Configuration | None:
        encoded = self.simulator.judge.configuration
        return Configuration.decode(encoded) if encoded else None

    def _members(self) -> list[str]:
        """Return the nodes that belong to the group by the newest configuration: voters, then mirrors."""
        configuration = self._configuration()
        if configuration is None:
            return list(self.simulator.founders)
        return [*configuration.nodes(), *configuration.mirrors]

    def _clients_idle(self) -> bool:
        return self.clients.idle and self.moving.idle

    def _unanswered(self) -> str:
        """Say who waits for longer than anybody has to."""
        patience = self.swarm.load.deadline_us + PATIENCE_US
        waiting = [node.process.waits(patience) for node in self.simulator.nodes.values() if node.process is not None]
        return next(filter(None, waiting), "")

    def _wait(self, what: str, missing: Callable[[], str], rule: str = "converge") -> None:
        """Let time pass until ``missing()`` says that nothing is."""
        simulator = self.simulator
        if not simulator.run_while(lambda: missing() != "", HEAL_US):
            storm = " (a storm of events)" if simulator.queue.done > EVENTS_MAX else ""
            state = "; ".join(node.describe() for node in simulator.nodes.values())
            raise Stuck(f"after healing the nodes did not {what}{storm}: {missing()}. {state}", rule=rule)

    def _not_converged(self, *, idle: bool) -> str:
        """Say what is missing until all nodes are equal and serve; ``idle``: also nothing is under way."""
        coordinators = []
        slots = {}
        configuration = self._configuration()
        mirrors = configuration.mirrors if configuration else ()
        voters = [name for name in self._members() if name not in mirrors]
        for name in self._members():
            process = self.simulator.nodes[name].process
            if process is None:
                return f"{name} is down"
            if not process.serves:
                return f"{name} has not opened the group"
            if not process.readable:
                return f"{name} rebuilds its store"
            if process.replica.state.full:
                return f"{name} says that its disk is full"
            if process.replica.role == "coordinator":
                coordinators.append(name)
            elif process.replica.role != ("mirror" if name in mirrors else "follower"):
                return f"{name} is {process.replica.role}"
            slots[name] = process.applied_slot
            asks = name in mirrors or (process.engine.drain.drained and process.replica.role != "coordinator")
            if not asks and process.replica.read_slot(process.clock()) is None:
                return f"{name} has no lease"
        if len(coordinators) != 1:
            return f"the coordinators are {coordinators}"
        office = coordinators[0]
        if self.simulator.nodes[office].drained and any(not self.simulator.nodes[name].drained for name in voters):
            return f"{office} is drained, and in office"
        behind = min(slots.values())
        if idle and behind < self.simulator.judge.committed:
            return f"of {self.simulator.judge.committed} slots {slots} are applied"
        return ""

    def _write_at(self, name: str) -> None:
        """A write at this node succeeds (one may have to be tried again while the view changes)."""
        key, value = b"last-" + name.encode(), b"written at " + name.encode()
        outcome = self._ask(
            name,
            lambda answer: self.simulator.request_write(
                name, Request("last", key, PUT, value), NO_CAS, b"last" + name.encode().ljust(12), answer
            ),
        )
        if outcome.result is None or outcome.result.status != APPLIED:
            raise Stuck(f"a write at {name} was not applied: {outcome}", rule="request")

    def _notice_divergence(self) -> None:
        """Replicas compare digests at the next boundary; then who was made to diverge rebuilds (K3)."""
        simulator = self.simulator

        def diverged() -> list[str]:
            return [name for name, node in simulator.nodes.items() if node.diverged or node.diverged_in(META)]

        for _ in range(self.swarm.limits.digest_slots + 1):
            if diverged():
                self._write_at(self._members()[0])
                self.catalog.touch()
        if diverged() and not simulator.run_while(lambda: bool(diverged()), HEAL_US):
            raise Violation("equal stores", f"{', '.join(diverged())} differs from the others, and nobody noticed")

    def _read_at(self, name: str, writers: list[str]) -> None:
        """A linearizable read at this node shows what was written at every node."""
        for writer in writers:
            key, value = b"last-" + writer.encode(), b"written at " + writer.encode()
            outcome = self._ask(
                name,
                lambda answer, key=key: self.simulator.request_read(name, key, Level.LINEARIZABLE, answer),  # type: ignore[misc]
            )
            if outcome.entry is None or outcome.entry.value != value:
                raise Violation("linearizable", f"{name} does not see the last write at {writer}: {outcome}")

    def _ask(self, name: str, send: Callable[[Callable[[Outcome], None]], bool]) -> Outcome:
        outcomes: list[Outcome] = []
        for _ in range(8):
            outcomes.clear()
            if send(outcomes.append):
                self.simulator.run_while(lambda: not outcomes, self.swarm.load.deadline_us + 100_000, 5_000)
            if outcomes and not outcomes[0].error:
                return outcomes[0]
            self.simulator.run_for(500_000)
        why = outcomes[0].error if outcomes else "no answer"
        raise Stuck(f"after healing a request at {name} fails: {why}", rule="request")
