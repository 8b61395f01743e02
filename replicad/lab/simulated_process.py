"""One process of a simulated node, from its start to its death: the engine, driven as a real process drives it.

What comes in is handed over one input at a time; the process may be stopped or killed between reading the clock and
using it, and between any two actions of the engine (:mod:`replicad.lab.simulated_ports`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from replicad.core.cluster.catalog import OwnWord
from replicad.core.cluster.definitions import DEFAULT, META, GroupDefinition, NodeEntry
from replicad.core.engine.node import Engine
from replicad.core.group.effects import Effects
from replicad.core.kv.entries import decode_entry
from replicad.core.kv.machine import Machine
from replicad.core.model.cluster_id import Card, foreign
from replicad.core.model.errors import RequestError
from replicad.core.model.limits import PEER_VERSION_MAX
from replicad.core.model.messages import Message
from replicad.core.model.refusals import Refusal, RefusalCode
from replicad.lab.contact import Contact, Outcome
from replicad.lab.crash_points import Died
from replicad.lab.simulated_ports import JudgeObserver, SimulatedPorts

if TYPE_CHECKING:
    from replicad.core.engine.group import Group
    from replicad.core.group.replica import Replica
    from replicad.core.journal.recovery import DurableState
    from replicad.lab.simulated_node import SimulatedNode
    from replicad.lab.simulator import Simulator
    from replicad.lab.virtual_log import VirtualLog

TICK_US = 10_000
TICK_LATE_US = 1_500
"""After a pause."""
REQUESTS_MAX = 10_000
META_VOTERS = 3
"""So many of the nodes vote on ``_meta`` at first; the others follow it."""
CHANGE_US = 30_000_000
"""How long somebody waits for the answer to a change."""


class SimulatedProcess:
    """Volatile state of a node. :attr:`dead` processes ignore whatever still comes in."""

    def __init__(self, node: SimulatedNode, held: dict[str, DurableState], log: VirtualLog, random: Random) -> None:
        self.node = node
        self.name = node.name
        self.simulator: Simulator = node.simulator
        self.log = log
        self.dead = False
        self.paused = False
        self.leaving = False
        """It was asked to hand over, and its process is about to end."""
        self.changes: dict[int, Refusal | None] = {}
        """Answered changes: number -> None or why it was refused."""
        self._interrupted: tuple[int, Callable[..., object], tuple[Any, ...]] | None = None
        """An input, and what the clock showed for it before the process was stopped."""
        self._reading: int | None = None
        """What the clock showed when the present input began."""
        self._backlog: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._tick_waits = False
        self._asked = 0
        self._unanswered: dict[int, tuple[int, str]] = {}
        """Requests to a group of the catalog: number -> since when, and what."""
        self.heard_ids: dict[str, str] = {}
        """Peer -> the cluster id that it named last."""
        swarm = self.simulator.swarm
        founders = self.simulator.founders
        default = GroupDefinition(DEFAULT, DEFAULT, founders, founders, protocol=swarm.protocol)
        self.ports = SimulatedPorts(self)
        self.engine = Engine(
            name=self.name,
            disk=node.disk_id,
            limits=swarm.limits,
            ports=self.ports,
            observer=JudgeObserver(self),
            random=random,
            patience_us=swarm.load.deadline_us,
            requests_max=REQUESTS_MAX,
            neighbours=self.simulator.names,
            own=OwnWord(self.name, NodeEntry(self.name, self.name), {DEFAULT: default}, self.simulator.names, False),
            check_address=str,
            held=held,
            lost=node.lost,
            operations_per_run=swarm.apply_budget,
            cluster_id=node.cluster_id,
            drained=node.drained,
            named_by="" if not node.names_cluster else META if swarm.catalog else DEFAULT,
        )
        self._contacts: dict[str, tuple[Group, Contact]] = {}
        if swarm.catalog:
            names = self.simulator.names
            voters = names[:META_VOTERS]
            self.engine.follower.open(GroupDefinition(META, META, voters, voters, names[META_VOTERS:]))
        else:
            self.engine.open_group(default)
        self.simulator.begins(self)

    @property
    def group(self) -> Group:
        """The group ``default``; where this node has no part in it, ``_meta``."""
        return self.engine.groups.get(DEFAULT) or self.engine.groups[META]

    @property
    def replica(self) -> Replica:
        """Its replica."""
        return self.group.replica

    @property
    def serves(self) -> bool:
        """Whether the node has a part in ``default``."""
        return DEFAULT in self.engine.groups

    @property
    def contact(self) -> Contact:
        """The contact of ``default``."""
        return self._contact(self.group)

    def _contact(self, group: Group) -> Contact:
        known = self._contacts.get(group.name)
        if known is None or known[0] is not group:
            contact = Contact(self.name, group, self.simulator.judge_of(group.id))
            known = self._contacts[group.name] = (group, contact)
        return known[1]

    @property
    def machine(self) -> Machine:
        """The key-value machine."""
        return self.group.executor.machine

    # --- being driven -------------------------------------------------------------------------------------------------

    def post(self, handler: Callable[..., None], *arguments: Any) -> None:
        """Let something happen to the process: now, or once it goes on, or never if it is dead."""
        if self.dead:
            return
        if self.paused:
            self._backlog.append((handler, arguments))
        else:
            with suppress(Died):
                handler(*arguments)

    def later(self, delay: int, handler: Callable[..., None], *arguments: Any) -> None:
        """Post something after ``delay`` microseconds."""
        self.simulator.queue.after(delay, self.post, handler, *arguments)

    def clock(self) -> int:
        """Read the machine's clock; within one input it shows the time at which that began."""
        if self._reading is not None:
            return self._reading
        return self.node.clock.read(self.simulator.queue.now)

    def run(self, handler: Callable[..., object], *arguments: Any) -> None:
        """Read the clock, and hand one input to the engine."""
        if self.dead:
            return
        if self.paused:
            self._backlog.append((self.run, (handler, *arguments)))
            return
        reading = self.clock()
        if self.ports.burn():
            self._interrupted = (reading, handler, arguments)
        else:
            self._hand_over(reading, handler, arguments)

    def _hand_over(self, reading: int, handler: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._reading = reading
        try:
            handler(*arguments)
        except Died:
            return
        finally:
            self._reading = None

    def step(self, method: Callable[..., Effects | None], *arguments: Any) -> None:
        """Read the clock, call the replica's ``method(*arguments, now)`` and have its effects carried out."""

        def ask() -> None:
            effects = method(*arguments, self.clock())
            if effects is not None:
                self.group.perform(effects)

        self.run(ask)

    def turn(self) -> None:
        """Let the engine do what it put off, one thing after the other."""
        for job in self.engine.take_due():
            self.run(job)

    def light_fuse(self, actions: int, blow: Callable[[], None]) -> None:
        """Call ``blow()``, which kills or pauses this process, after so many more actions."""
        self.ports.light_fuse(actions, blow)

    def put_out_fuse(self) -> None:
        """Undo :meth:`light_fuse`."""
        self.ports.put_out_fuse()

    def die(self) -> None:
        """Stop for ever."""
        self.dead = True
        self.log.stop()

    def pause(self) -> None:
        """Stop where it is (SIGSTOP)."""
        self.paused = True

    def resume(self) -> None:
        """Go on (SIGCONT): first the step that was interrupted, then everything that came in meanwhile, in order.

        A tick that is due comes last, and a little later: an event loop serves its sockets before its timers.
        """
        if self.dead or not self.paused:
            return
        self.paused = False
        self.ports.go_on()
        interrupted, self._interrupted = self._interrupted, None
        if interrupted is not None:
            self._hand_over(*interrupted)
        while self._backlog and not self.paused and not self.dead:
            handler, arguments = self._backlog.popleft()
            if handler == self._tick:
                self.simulator.queue.after(TICK_LATE_US, self.post, handler)
            else:
                handler(*arguments)

    # --- inputs -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take part."""
        self.run(self._join)

    def _join(self) -> None:
        self.engine.join()
        if self.simulator.swarm.catalog:
            self.engine.follower.start()

    def card(self) -> Card:
        """Return what this process says of its data when it opens a link."""
        belonging = self.engine.belonging
        empty = not belonging.cluster_id and belonging.empty()
        return Card(self.name, self.node.disk_id, belonging.cluster_id, empty)

    def refuses(self, theirs: Card) -> str:
        """Return why a link with this peer is refused, by either side ("": it is not)."""
        ours = self.card()
        if ours.cluster_id == theirs.cluster_id:
            return ""
        return foreign(ours, theirs, self.engine.belonging.names_disk)

    def deliver(self, sender: str, card: Card, message: Message, group: str) -> None:
        """A message arrived over a link that was opened with this card."""
        if self.heard_ids.get(sender) != card.cluster_id:
            self.heard_ids[sender] = card.cluster_id
            self.run(self.engine.on_peer, sender, PEER_VERSION_MAX)
        self.run(self.engine.on_message, sender, card.disk, group, message)

    def start_ticking(self, first: int) -> None:
        """Tick every :data:`TICK_US` from now on; ticks that a pause swallowed are not made up for."""
        self.simulator.queue.after(first, self._tick_due)

    def _tick_due(self) -> None:
        if self.dead:
            return
        self.simulator.queue.after(TICK_US, self._tick_due)
        if not self._tick_waits:
            self._tick_waits = True
            self.post(self._tick)

    def _tick(self) -> None:
        self._tick_waits = False
        self.run(self.engine.tick)
        self.node.check_established()

    def change(self, kind: str, argument: str, group: str = DEFAULT) -> int:
        """Ask for a change of a group; its answer will be in :attr:`changes` under the number returned."""
        self._asked = number = self._asked + 1

        def answered(answer: Refusal | RequestError | None) -> None:
            if isinstance(answer, RequestError):
                answer = Refusal(RefusalCode.OTHER, answer.message)
            self.changes[number] = answer

        def ask() -> None:
            found = self.engine.groups.get(group)
            if found is None:
                answered(RequestError("not_found", f"group {group} is not open here"))
                return
            # Whoever asks has found the group before; it may be closed when it is asked.
            self.later(self.node.upload_delay(), self.run, ask_group, found) if group != DEFAULT else ask_group(found)

        def ask_group(found: Group) -> None:
            try:
                found.changes.request(kind, argument, CHANGE_US, answered)
            except RequestError as error:
                answered(error)

        self.run(ask)
        return number

    def write(self, group: str, *arguments: Any) -> None:
        """Take a client's write to a group; the last of the arguments is whom to answer."""
        self._request(group, Contact.write, arguments)

    def read(self, group: str, *arguments: Any) -> None:
        """Take a client's read, likewise."""
        self._request(group, Contact.read, arguments)

    def _request(self, group: str, serve: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Find the group, and have its contact serve.

        Between the two there is the rest of a slow request: the group may be closed when that is there.
        """
        *rest, answer = arguments
        found = self.engine.groups.get(group)
        if found is None:
            answer(Outcome(error="not_ready"))
            return
        if group in {DEFAULT, META}:
            serve(self._contact(found), *rest, answer)
            return
        self._asked = number = self._asked + 1
        self._unanswered[number] = (self.simulator.queue.now, f"{serve.__name__} of {found.id}")

        def answered(outcome: Outcome) -> None:
            del self._unanswered[number]
            answer(outcome)

        self.later(self.node.upload_delay(), self.run, serve, self._contact(found), *rest, answered)

    def waits(self, patience_us: int) -> str:
        """Say which request has waited for longer than that ("": none)."""
        late = self.simulator.queue.now - patience_us
        overdue = [what for since, what in self._unanswered.values() if since < late]
        return f"{self.name} has not answered {len(overdue)} requests, the first a {overdue[0]}" if overdue else ""

    def ask_change(self, kind: str, argument: str, group: str = DEFAULT) -> None:
        """Ask for a change, and see nothing of its answer."""
        self.change(kind, argument, group)

    def leave(self) -> None:
        """Hand over (SIGTERM); whoever asked for it ends the process later."""
        self.leaving = True
        self.run(self.engine.leave)

    def drain(self, drained: bool) -> None:
        """An operator drains the node, or ends that: the directory says so first."""

        def keep_and_say() -> None:
            if drained != self.engine.drain.drained:
                self.ports.keep_drained(drained)
            self.engine.drain.set(drained=drained)

        self.run(keep_and_say)

    def set_full(self, full: bool) -> None:
        """The disk got full, or has space again."""
        self.run(lambda: self.engine.on_full(full=full))

    # --- what it shows ------------------------------------------------------------------------------------------------

    @property
    def applied_slot(self) -> int:
        """The slot up to which the local store is."""
        return self.machine.applied_slot

    @property
    def installing(self) -> bool:
        """Whether the store's content is being replaced."""
        return self.group.transfers.installing

    @property
    def readable(self) -> bool:
        """Return whether the store may be shown at all."""
        return not (self.installing or self.replica.state.rebuilding)

    def content(self) -> dict[bytes, bytes]:
        """Return the store's keys and values."""
        return {key: decode_entry(data).value for key, data in self.group.store.scan(b"")}
