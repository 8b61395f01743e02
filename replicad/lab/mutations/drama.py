"""A small cluster with levers that a script pulls: single messages held back, clocks set, disks taken back in time.

Values are numbers that rise with each write to one key, so a read is stale if it shows less than what was acknowledged
before it began.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replicad.core.cluster.definitions import DEFAULT
from replicad.core.model.limits import Limits
from replicad.core.model.operations import ACK_ALL, APPLIED, NO_CAS, PUT, REMOTE_WRITE
from replicad.lab.checks import Stuck, Violation
from replicad.lab.clients import Request
from replicad.lab.contact import Level, Outcome
from replicad.lab.stage import Stage, StageNode

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.core.group.replica import Replica
    from replicad.core.model.cluster_id import Card
    from replicad.core.model.messages import Message
    from replicad.core.model.refusals import Refusal

LIMITS = Limits(
    value_bytes_max=512, batch_bytes_max=2_048, page_bytes=16_384, checkpoint_slots=1_000, batch_operations_max=1
)
KEY = b"k"


class DramaNode(StageNode):
    """A node whose executor may be slow."""

    apply_us = 0

    def apply_delay(self) -> int:
        """Return how long the executor waits before its next run."""
        return self.apply_us


class Drama(Stage):
    """Three nodes (or more) that are up; :attr:`order` begins with the coordinator, which is ``n1``."""

    def __init__(
        self, nodes: int = 3, *, spare: int = 0, ahead: int = 0, protocol: str = REMOTE_WRITE, **limits: Any
    ) -> None:
        """``spare``: nodes that are no members, and are not started; ``ahead``: what the clocks show at the start."""
        super().__init__(nodes + spare, replace(LIMITS, **limits), nodes, protocol)
        self.stage_nodes = {name: DramaNode(self, name) for name in self.names}
        self.nodes = dict(self.stage_nodes)
        for node in self.nodes.values():
            node.clock.restart(self.queue.now, self.queue.now + ahead)
        self.dropped: set[tuple[str, str, str]] = set()
        """``(message, source, target)`` that are lost; ``*`` stands for any."""
        self.holding: set[tuple[str, str, str]] = set()
        self.held: list[tuple[str, Card, str, bytes]] = []
        self.number = 0
        self.acknowledged = 0
        self.node("n1").start()
        for name in self.founders:
            self.nodes[name].start()
            self.replica(name).election.delay = 0 if name == "n1" else 1_000_000
        self.until(self.ready, "get ready")
        if not self.leads("n1"):
            raise Stuck("n1 stood first and is not coordinator")
        self.order = list(self.founders)

    # --- looking ------------------------------------------------------------------------------------------------------

    def node(self, name: str) -> DramaNode:
        """Return a node."""
        node = self.nodes[name]
        if not isinstance(node, DramaNode):
            raise TypeError(name)
        return node

    def replica(self, name: str) -> Replica:
        """Return the replica of a running node."""
        process = self.nodes[name].process
        if process is None:
            raise Stuck(f"{name} is down")
        return process.replica

    def ready(self) -> bool:
        """Return whether every running node may read what has been committed."""
        for node in self.nodes.values():
            process = node.process
            if process is not None and not (process.readable and process.replica.holds_lease(process.clock())):
                return False
        return True

    def leads(self, name: str) -> bool:
        """Return whether a node is coordinator."""
        process = self.nodes[name].process
        return process is not None and process.replica.role == "coordinator"

    def until(self, condition: Callable[[], bool], what: str, limit: int = 10_000_000, *, rule: str = "setup") -> None:
        """Let time pass until something holds; raises Stuck: ``rule`` if that is what the script is about."""
        if not self.run_while(lambda: not condition(), limit, 1_000):
            states = "; ".join(node.describe() for node in self.nodes.values())
            raise Stuck(f"the cluster did not {what}: {states}", rule=rule)

    # --- messages -----------------------------------------------------------------------------------------------------

    def transmit(
        self, source: str, card: Card, target: str, message: Message, data: bytes, group: str = DEFAULT
    ) -> None:
        """Put a message on the network, unless it is dropped or held."""
        name = type(message).__name__
        if self._named(self.dropped, name, source, target):
            return
        if self._named(self.holding, name, source, target):
            self.held.append((source, card, target, data))
            return
        super().transmit(source, card, target, message, data, group)

    def _named(self, links: set[tuple[str, str, str]], name: str, source: str, target: str) -> bool:
        return any(
            link in links
            for link in ((name, source, target), (name, source, "*"), ("*", source, target), (name, "*", target))
        )

    def release(self, count: int = 1_000_000) -> None:
        """Deliver the first messages that were held."""
        self.holding.clear()
        for source, card, target, data in self.held[:count]:
            self.queue.after(0, self._arrive, source, card, target, data)
        del self.held[:count]
        self.run_for(1)

    def part(self, *names: str) -> None:
        """Cut these nodes from all others (not from each other)."""
        for a in names:
            for b in self.names:
                if b not in names:
                    self.dropped |= {("*", a, b), ("*", b, a)}

    def join(self, *names: str) -> None:
        """Undo everything that is dropped between these nodes (none given: everywhere)."""
        chosen = names or self.names
        self.dropped = {link for link in self.dropped if not (link[1] in (*chosen, "*") and link[2] in (*chosen, "*"))}

    def eager(self, name: str) -> None:
        """Let a node stand for election as soon as its loyalty allows it, and nobody else meanwhile."""
        replica = self.replica(name)
        if replica.election.phase:
            replica.election.give_up("begins anew")
        replica.acceptor.heard_at = -(10**9)
        replica.election.delay = 0

    def rate(self, name: str, ppm: int) -> None:
        """Let a clock run wrong by so many parts per million from now on."""
        clock = self.nodes[name].clock
        reading = clock.read(self.queue.now)
        clock.ppm = ppm
        clock.restart(self.queue.now, reading)

    def loyal_for(self, name: str) -> int:
        """Return for how many microseconds of its own clock a voter promises nothing to a new candidate."""
        return self.replica(name).acceptor.sticky_until() - self.nodes[name].clock.read(self.queue.now)

    def roll_back(self, name: str, segments: list[tuple[int, bytes]]) -> None:
        """Give a dead machine's log the bytes that it had before."""
        self.nodes[name].promised = 0
        disk = self.nodes[name].disk
        disk.wipe()
        for number, data in segments:
            disk.create(number, data)

    # --- changes of the group -----------------------------------------------------------------------------------------

    def change(self, kind: str, argument: str) -> Refusal | None:
        """Have the coordinator answer a request for a change; raises Stuck if there is no answer within a second."""
        process = self.nodes["n1"].process
        if process is None:
            raise Stuck("n1 is down")
        number = process.change(kind, argument)
        self.until(lambda: number in process.changes, f"answer {kind} {argument}", 1_000_000)
        return process.changes[number]

    # --- clients ------------------------------------------------------------------------------------------------------

    def begin(self, name: str, ack: int = ACK_ALL) -> list[Outcome]:
        """Send a write of the next number; the list gets its outcome."""
        self.number += 1
        number = self.number
        outcomes: list[Outcome] = []

        def answer(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if not outcome.error:
                self.acknowledged = max(self.acknowledged, number)

        self.request_write(name, Request("c", KEY, PUT, b"%d" % number, ack=ack), NO_CAS, b"", answer)
        return outcomes

    def write(self, name: str, limit: int = 3_000_000) -> None:
        """Have a write acknowledged within ``limit``, in as many attempts as it takes; raises Stuck."""
        end = self.queue.now + limit
        while self.queue.now < end:
            outcomes = self.begin(name)
            self.run_while(lambda: not outcomes, end - self.queue.now, 1_000)  # noqa: B023 - used at once
            if outcomes and not outcomes[0].error and outcomes[0].result and outcomes[0].result.status == APPLIED:
                return
            self.run_for(10_000)
        raise Stuck(f"a write at {name} is not acknowledged within {limit // 1_000} ms", rule="write")

    def read(self, name: str, level: Level = Level.LINEARIZABLE, wait: int = 20_000) -> bool:
        """Read and judge; returns whether there was an answer within ``wait``. Raises Violation for a stale one."""
        acknowledged = self.acknowledged
        outcomes: list[Outcome] = []
        self.request_read(name, KEY, level, outcomes.append)
        self.run_while(lambda: not outcomes, wait, 1_000)
        if not outcomes or outcomes[0].error:
            return False
        entry = outcomes[0].entry
        seen = int(entry.value) if entry is not None else 0
        if seen < acknowledged:
            raise Violation("linearizable", f"{name} reads {seen} after {acknowledged} was acknowledged")
        return True

    def ask(self, name: str) -> list[int]:
        """Send a linearizable read; the list gets the number that it shows."""
        seen: list[int] = []

        def answer(outcome: Outcome) -> None:
            if not outcome.error:
                seen.append(int(outcome.entry.value) if outcome.entry is not None else 0)

        self.request_read(name, KEY, Level.LINEARIZABLE, answer)
        return seen

    def end(self) -> None:
        """Heal everything; then all nodes take a write and show it."""
        self.join()
        self.release()
        self.heal()
        self.until(self.ready, "get ready in the end")
        for name in self.names:
            self.write(name)
        for name in self.names:
            self.until(lambda name=name: self.read(name, wait=100_000), f"read at {name}")  # type: ignore[misc]
        self.judge.healed({})
