"""A whole cluster in one process, under virtual time: nodes, network, clock, judge, and levers for faults.

Everything random comes from streams named after the seed, one for each purpose, so equal seeds give equal runs, also in
another process. Faults are pulled by :mod:`replicad.lab.nemesis` (random) or by a scenario (scripted).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from replicad.core.cluster.catalog import Catalog, OwnWord
from replicad.core.cluster.definitions import DEFAULT, META, NodeEntry
from replicad.core.model.configuration import Configuration
from replicad.core.model.messages import Form, Forward, Introduce, Message, Slots, decode_message
from replicad.lab.checks import Judge, Violation
from replicad.lab.contact import Level, Outcome
from replicad.lab.events import EventQueue
from replicad.lab.network import Network
from replicad.lab.simulated_node import SimulatedNode
from replicad.lab.transcript import DELIVERED, LOST, Transcript

if TYPE_CHECKING:
    from replicad.core.journal.records import Record
    from replicad.core.model.cluster_id import Card
    from replicad.lab.clients import Request
    from replicad.lab.simulated_process import SimulatedProcess
    from replicad.lab.swarm import Swarm

HELD_PAGES_MAX = 8
"""Pages of slots that the network holds back for one node."""
EVENTS_MAX = 3_000_000
"""A run with more events is a storm of messages."""
GRACE_US, LOOK_US = 2_000_000, 10_000
"""A node that was asked to stop looks so often whether it may end, and ends in any case after this long."""


class Simulator:
    """A cluster ``n1`` … ``n<nodes>`` whose processes are not started yet (:meth:`start_all`).

    The first ``founders`` of them (0: all) form the group; the others are there to be added to it.
    """

    def __init__(self, seed: int, swarm: Swarm, transcript: Transcript, founders: int = 0) -> None:
        self.seed = seed
        self.swarm = swarm
        self.transcript = transcript
        self.queue = EventQueue()
        self.judge = Judge(swarm.limits.request_window_slots)
        self.new_judge: Callable[[int], Judge] = Judge
        self.other_judges: dict[str, Judge] = {}
        """By the ids of groups other than ``default``."""
        self.network = Network(swarm.network, Random(f"{seed}/network"), Random(f"{seed}/network/late"))
        self.names = tuple(f"n{number}" for number in range(1, swarm.nodes + 1))
        self.founders = self.names[: founders or None]
        self.nodes = {name: SimulatedNode(self, name) for name in self.names}
        self.judge.differs = lambda name: self.nodes[name].diverged
        self.judge.alien = lambda name: DEFAULT in self.nodes[name].aliens
        self.counts: dict[str, int] = {}
        """How often what happened: messages by name, events of replicas, faults."""
        self.listeners: list[Callable[[str, str], None]] = []
        """Called with ``(node, event)`` when something happens there."""
        self.forwards: list[Callable[[str, str, str, Forward], None]] = []
        """Called with ``(source, target, group, message)`` when operations are passed on."""
        self._held_pages: dict[str, deque[tuple[str, Card, str, bytes, str]]] = {}
        self.strangers: dict[str, SimulatedNode] = {}
        """Name -> a node of another cluster of this name that is found at the address of this one's."""
        self.strange_disks: dict[str, None] = {}
        """Every disk id that one of them ever had."""
        self.senders: dict[str, SimulatedProcess] = {}
        """Disk -> the newest process that had it."""
        self.open_doors = False
        """What tells of configurations gets past the handshake: the replicas themselves must not believe it."""
        self._replies = Random(f"{seed}/replies")
        self._lost_reply_ppm = swarm.load.lost_reply_ppm

    def judge_of(self, group: str) -> Judge:
        """Return the judge of the group with this id."""
        if group == DEFAULT:
            return self.judge
        if group not in self.other_judges:
            judge = self.other_judges[group] = self.new_judge(self.swarm.limits.request_window_slots)
            judge.alien = lambda name: group in self.nodes[name].aliens
            if group == META:
                judge.differs = lambda name: self.nodes[name].diverged_in(META)
        return self.other_judges[group]

    # --- running ------------------------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Start every node, each a little later than the one before."""
        random = Random(f"{self.seed}/start")
        for node in self.nodes.values():
            self.queue.after(random.randrange(100_000), node.start)

    def run_for(self, duration: int) -> None:
        """Let so many microseconds of virtual time pass."""
        self.queue.run_until(self.queue.now + duration)

    def run_while(self, condition: Callable[[], bool], limit: int, slice_us: int = 50_000) -> bool:
        """Let time pass in slices while ``condition()`` holds; returns whether it ended before ``limit`` passed."""
        end = self.queue.now + limit
        while condition():
            if self.queue.now >= end or self.queue.done > EVENTS_MAX:
                return False
            self.run_for(slice_us)
        return True

    # --- what nodes call ----------------------------------------------------------------------------------------------

    def transmit(
        self, source: str, card: Card, target: str, message: Message, data: bytes, group: str = DEFAULT
    ) -> None:
        """Put a message on the network; ``card``: what the sender's handshakes say at present."""
        queue = self.queue
        if isinstance(message, Forward):
            for look in self.forwards:
                look(source, target, group, message)
        arrivals = self.network.arrivals(source, target, queue.now)
        if not arrivals:
            self.transcript.message(queue.now, source, LOST, target, message, data)
        if arrivals and isinstance(message, Slots) and self.network.holds_page(source, target, queue.now):
            held = self._held_pages.setdefault(target, deque(maxlen=HELD_PAGES_MAX))
            held.append((source, card, target, data, group))
            self.happened(source, "page_held_back")
            return
        for time in arrivals:
            queue.at(time, self._arrive, source, card, target, data, group)

    def happened(self, name: str, event: str) -> None:
        """Something happened at a node (an event of its replica, or of the network): aimed faults wait for it."""
        self.count(event)
        if event == "took_office":
            for number, page in enumerate(self._held_pages.pop(name, ())):
                self.queue.after(number * 200, self._arrive, *page)
        elif event == "view_dropped":
            self._check_view(name)
        for listen in self.listeners:
            listen(name, event)

    def _arrive(self, source: str, card: Card, target: str, data: bytes, group: str = DEFAULT) -> None:
        for node in (self.nodes.get(target), self.strangers.get(target)):
            if node is not None and node.process is not None:
                self._enter(node, source, card, data, group)

    def _enter(self, node: SimulatedNode, source: str, card: Card, data: bytes, group: str) -> None:
        """Let a message in, unless the two ends belong to two clusters."""
        process = node.process
        if process is None:
            return
        message = decode_message(data)
        apart = (card.disk in self.strange_disks) != node.strange
        if not (apart and self.open_doors and isinstance(message, (Introduce, Form))):
            judged = process.refuses(card) or self._refused_by(card, process)
            if judged:
                self.count("refused at the door")
                return
            if apart:
                raise Violation("apart", f"{node.name} takes a message of another cluster's {source}: {card}")
        self.transcript.message(self.queue.now, source, DELIVERED, node.name, message, data)
        self.count(type(message).__name__)
        process.post(process.deliver, source, card, message, group)

    def _refused_by(self, card: Card, process: SimulatedProcess) -> str:
        """Return why the sender, dead by now or not, refuses the receiver: each end of a link judges the other."""
        sender = self.senders.get(card.disk)
        return sender.refuses(process.card()) if sender is not None else ""

    def begins(self, process: SimulatedProcess) -> None:
        """A process begins to send."""
        self.senders[process.node.disk_id] = process

    def note(self, node: str, text: str) -> None:
        """Put a line into the transcript."""
        self.transcript.note(self.queue.now, node, text)

    def logged(self, node: str, records: Sequence[Record]) -> None:
        """A process handed records to its message log; scenarios show them."""

    def count(self, what: str) -> None:
        """Count something that happened."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def _check_view(self, name: str) -> None:
        """A member has left a view here, so what follows is committed without it: it must not read by a lease (V2)."""
        own = self.nodes[name].process
        for group in own.engine.groups.values() if own is not None else ():
            office = group.replica.office
            for peer, node in self.nodes.items() if office is not None else ():
                process = node.process
                found = process.engine.by_id.get(group.id) if process is not None and peer != name else None
                if process is None or found is None or office is None or peer in office.view.joined:
                    continue
                if found.replica.epoch == group.replica.epoch and found.replica.holds_lease(process.clock()):
                    raise Violation("lease in view", f"{peer} is not in the view of {name}, and has a lease")

    def check_deletion(self, node: str, disk: str, group: str) -> None:
        """A node deletes what it holds of a group: it was dropped, or goes on without this disk."""
        catalog, judge = self.catalog(), self.judge_of(group)
        if catalog.is_dead(group):
            return
        if judge.configuration:
            counts = Configuration.decode(judge.configuration).holds(node, disk)
        else:  # it is as it was formed
            founders = [known.founders for known in catalog.definitions.values() if known.id == group]
            counts = judge.committed > 0 and any(node in names for names in founders)
        if counts:
            raise Violation("deletion", f"{node} deletes group {group}, which counts on its disk {disk}")

    def catalog(self) -> Catalog:
        """Return what the committed state of ``_meta`` says."""
        meta = self.judge_of(META)
        own = OwnWord("", NodeEntry("", ""), {}, (), False)
        catalog = Catalog(own, str)
        content = meta.model.content(meta.committed)
        catalog.load((key, version.value or b"", version.index) for key, version in content.items())
        return catalog

    # --- what clients call --------------------------------------------------------------------------------------------

    def request_write(
        self,
        node: str,
        request: Request,
        cas: int,
        idempotency: bytes,
        answer: Callable[[Outcome], None],
        group: str = DEFAULT,
    ) -> bool:
        """Send a write to a node; False: nobody listens there."""
        process = self.nodes[node].process
        if process is None:
            return False
        process.post(
            process.run,
            process.write,
            group,
            request.code,
            request.key,
            request.value,
            cas,
            request.ack,
            idempotency,
            self._reply(answer),
        )
        return True

    def request_read(
        self,
        node: str,
        key: bytes,
        level: Level,
        answer: Callable[[Outcome], None],
        bookmark: int = 0,
        group: str = DEFAULT,
    ) -> bool:
        """Send a read to a node; False: nobody listens there."""
        process = self.nodes[node].process
        if process is None:
            return False
        process.post(process.run, process.read, group, key, level, bookmark, self._reply(answer))
        return True

    def _reply(self, answer: Callable[[Outcome], None]) -> Callable[[Outcome], None]:
        """Return a way for the answer, which may get lost on it."""
        if self._lost_reply_ppm and self._replies.randrange(1_000_000) < self._lost_reply_ppm:
            return _drop
        return answer

    def committed(self) -> int:
        """Return the highest slot that any node called committed."""
        return self.judge.committed

    # --- levers -------------------------------------------------------------------------------------------------------

    def crash(self, name: str, *, power: bool = False) -> None:
        """Kill a process, or its machine."""
        self.nodes[name].crash(power=power)

    def restart(self, name: str) -> None:
        """Start a node that is down."""
        self.nodes[name].start()

    def stop(self, name: str, ended: Callable[[], None]) -> None:
        """Ask a node to stop (SIGTERM): it ends once it may, at the latest after :data:`GRACE_US`; then ``ended()``."""
        node = self.nodes[name]
        process = node.process
        if process is None:
            return
        self.note(name, "is asked to stop")
        process.post(process.leave)
        end = self.queue.now + GRACE_US

        def look() -> None:
            if node.process is not process:
                return
            if self.queue.now >= end or (process.leaving and process.engine.left):
                node.crash(power=False)
                ended()
            else:
                self.queue.after(LOOK_US, look)

        self.queue.after(LOOK_US, look)

    def pause(self, name: str) -> None:
        """Stop a process (SIGSTOP)."""
        process = self.nodes[name].process
        if process is not None and not process.paused:
            self.note(name, "is stopped")
            process.pause()

    def resume(self, name: str) -> None:
        """Let a stopped process go on (SIGCONT)."""
        process = self.nodes[name].process
        if process is not None and process.paused:
            self.note(name, "goes on")
            process.resume()

    def hang(self, name: str, duration: int) -> None:
        """Let no flush of this process end for so long."""
        process = self.nodes[name].process
        if process is not None:
            self.note(name, f"disk hangs for {duration // 1000} ms")
            process.log.hang_until = self.queue.now + duration

    def heal(self) -> None:
        """End all faults: links, replies, disks, pauses; start what is down. Messages on their way still arrive."""
        self.network.heal()
        self._lost_reply_ppm = 0
        for name, node in self.nodes.items():
            node.disk.slow_us = 0
            if node.process is not None:
                node.process.put_out_fuse()
                for group in node.process.engine.groups.values():
                    group.replica.change_requests.pending.clear()
                node.process.log.hang_until = 0
            if node.full:
                node.set_full(full=False)
            self.resume(name)
            if node.process is not None and node.process.leaving:
                node.crash(power=False)
            node.start()


def _drop(_outcome: Outcome) -> None:
    """Lose an answer."""
