"""One node as a pure object: its groups, the log and the clock that they share, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from replicad.core.cluster.catalog import Catalog, OwnWord, initial_members
from replicad.core.cluster.definitions import DEFAULT, META, GroupDefinition
from replicad.core.engine.balancer import Balancer
from replicad.core.engine.belonging import Belonging
from replicad.core.engine.catalog_follower import CatalogFollower
from replicad.core.engine.drain import Drain
from replicad.core.engine.group import OPERATIONS_PER_RUN, Group
from replicad.core.engine.meta_voters import MetaVoters
from replicad.core.engine.ports import Opened
from replicad.core.group.executor import Executor
from replicad.core.group.replica import Replica
from replicad.core.journal.gate import Gate
from replicad.core.journal.records import DroppedRecord
from replicad.core.journal.recovery import DurableState
from replicad.core.model.cluster_id import Naming
from replicad.core.model.errors import check
from replicad.core.model.messages import DrainNotice

if TYPE_CHECKING:
    from replicad.core.engine.ports import Observer, Ports
    from replicad.core.model.limits import Limits
    from replicad.core.model.messages import Message

SWEEP_US = 5_000_000
SEGMENTS_PINNED_MAX = 4
"""The message log may have so many segments before the groups that keep the oldest are asked for a checkpoint."""
CHECKPOINT_PAUSE_US = 10_000_000


class Engine:
    """The groups of one node. A shell calls the ``on_…`` methods, :meth:`tick` every 10 ms, and :meth:`turn`."""

    def __init__(
        self,
        *,
        name: str,
        disk: str,
        limits: Limits,
        ports: Ports,
        observer: Observer,
        random: Random,
        patience_us: int,
        requests_max: int,
        neighbours: tuple[str, ...],
        own: OwnWord,
        check_address: Callable[[str], object],
        held: dict[str, DurableState] | None = None,
        lost: bool = False,
        operations_per_run: int = OPERATIONS_PER_RUN,
        cluster_id: str = "",
        named_by: str = META,
        drained: bool = False,
    ) -> None:
        """``patience_us``: how long a request may take; ``requests_max``: how many writes of a group may wait.

        ``neighbours``: the other nodes that this one can reach. ``random``: from the outside, for ids that nobody had
        before. ``own``, ``check_address``: see :class:`Catalog`. ``held``: by their ids, what the message log holds of
        groups; those that are opened are taken out. ``lost``: the directory was damaged, so it may not take part in a
        first formation. ``cluster_id``: which cluster the directory belongs to ("": not known);
        ``named_by``: the group that makes this id. ``drained``: the directory says that the node is.
        """
        self.name = name
        self.disk = disk
        self.limits = limits
        self.ports = ports
        self.observer = observer
        self.patience_us = patience_us
        self.requests_max = requests_max
        self.neighbours = neighbours
        self.lost = lost
        self.held = held if held is not None else {}
        self.operations_per_run = operations_per_run
        self.groups: dict[str, Group] = {}
        """By name."""
        self.by_id: dict[str, Group] = {}
        self.gate = Gate()
        self._named_by = named_by
        self.belonging = Belonging(self, cluster_id)
        self.drain = Drain(self, drained=drained)
        self.full = False
        """The disk is full."""
        self.joined = False
        self._random = random
        self._versions: dict[str, int] = {}
        self._due: list[Callable[[], None]] = []
        self._beat = 0
        self._swept_at = ports.now()
        self.catalog = Catalog(own, check_address)
        self.follower = CatalogFollower(self, self.catalog)
        self.balancer = Balancer(self)
        self.meta_voters = MetaVoters(self)

    # --- groups -----------------------------------------------------------------------------------------------------

    def open_group(self, definition: GroupDefinition) -> Group:
        """Open a group, and take part in it once the node has joined; raises DamageError."""
        name, identity = definition.name, definition.id
        check(name not in self.groups and identity not in self.by_id, f"group {name} is opened once")
        opened = self.ports.open(definition, self.held.pop(identity, DurableState()))
        limits = definition.group_limits(self.limits)
        group = Group(
            self,
            name=name,
            identity=identity,
            limits=limits,
            replica=self._replica(definition, limits, opened),
            executor=Executor(opened.machine, limits.digest_slots),
            store=opened.store,
            files=opened.files,
            flush_each=name == META,
        )
        self.groups[name] = self.by_id[identity] = group
        self.ports.opened(definition, group, opened)
        if self.joined:
            group.judge_space()
            group.start()
        return group

    def _replica(self, definition: GroupDefinition, limits: Limits, opened: Opened) -> Replica:
        replica = Replica(
            node=self.name,
            disk=self.disk,
            # Made anew each time a group is opened: request ids, tickets and leases of an earlier membership must never
            # be taken for those of this one.
            boot=self._random.getrandbits(63) or 1,
            members=initial_members(definition, self.name),
            limits=limits,
            durable=opened.durable,
            applied=opened.machine.applied_slot,
            digest=opened.machine.digest,
            configuration=opened.machine.configuration,
            lost=self.lost,
            rebuild=opened.rebuild,
            random=Random(self._random.getrandbits(64)),
            now=self.ports.now(),
            protocol=definition.protocol,
            neighbours=self.neighbours,
            naming=Naming(
                self.belonging.cluster_id, f"{self._random.getrandbits(128):032x}", definition.name == self._named_by
            ),
        )
        for peer, version in self._versions.items():
            replica.on_peer(peer, version)
        replica.state.drained = self.drain.drained
        return replica

    def drop_group(self, group: Group) -> None:
        """Close a group and delete what this node holds of it."""
        self.close(group, "the group was closed here")
        self.ports.closed(group.name, group.id)
        self.forget_group(group.id)

    def forget_group(self, identity: str) -> None:
        """Delete what this node holds of a group that is not open."""
        # The store goes first: one without a log is no contradiction the other way round only. The log goes last: as
        # long as it holds the group, a start knows that there is something to delete.
        self.ports.delete_store(identity)
        self.ports.delete_checkpoints(identity)
        self.held.pop(identity, None)
        self.ports.append([(identity, DroppedRecord())], self.gate.issue_alone(), reserved=True)
        self.ports.truncate({})

    def close(self, group: Group, why: str) -> None:
        """Take no part in a group any more."""
        del self.groups[group.name], self.by_id[group.id]
        group.close(why)

    def join(self) -> None:
        """Begin to take part: messages can be sent from now on."""
        self.joined = True
        for group in list(self.groups.values()):
            group.judge_space()
            group.start()

    # --- inputs -----------------------------------------------------------------------------------------------------

    def on_message(self, sender: str, disk: str, group: str, message: Message) -> None:
        """A message of the group with this id arrived from a peer whose link's handshake named ``disk``."""
        if type(message) is DrainNotice:
            self.drain.on_notice(sender, message)
            return
        found = self.by_id.get(group)
        if found is not None:
            found.on_message(sender, disk, message)

    def on_peer(self, peer: str, version: int) -> None:
        """A link to a peer was opened, on which this version of the peer protocol is spoken."""
        self._versions[peer] = version
        for group in self.groups.values():
            group.replica.on_peer(peer, version)
        self.belonging.on_peer(peer)
        self.drain.on_peer(peer)
        self.follower.wake()

    def on_durable(self, number: int) -> None:
        """The message log has flushed everything up to this flush number."""
        for lane, appends, messages in self.gate.durable(number):
            found = self.by_id.get(lane.group)
            if found is None or found.lane is not lane:
                continue
            for to, message in messages:
                found.send(to, message)
            found.on_durable(appends)

    def on_full(self, *, full: bool) -> None:
        """The disk is full, or has room again."""
        self.full = full
        for group in self.groups.values():
            group.judge_space()

    def tick(self) -> None:
        """Let time pass; call every 10 ms."""
        now = self.ports.now()
        beat = now // self.limits.heartbeat_us
        for group in list(self.groups.values()):
            # An election of ``default`` is never late; others, while they are idle, are ticked once a heartbeat.
            if beat != self._beat or group.name == DEFAULT or not group.idle(now):
                group.tick()
        self._beat = beat
        if now >= self.belonging.due:
            self.belonging.tick()
        self.drain.tick(now)
        self.follower.tick(now)
        if now >= self.balancer.due:
            self.balancer.tick(now)
        if now >= self.meta_voters.due:
            self.meta_voters.tick(now)
        if now - self._swept_at >= SWEEP_US:
            self._swept_at = now
            for group in self.groups.values():
                group.files.sweep(now)
            self._release_log(now)
            self.follower.wake()

    def _release_log(self, now: int) -> None:
        """Have groups that keep old segments take a checkpoint: an idle one would pin the log of all for ever."""
        segments, pinning = self.ports.segments()
        if segments <= SEGMENTS_PINNED_MAX:
            return
        for identity in pinning:
            group = self.by_id.get(identity)
            if group is not None and group.replica.coordinator and now - group.asked_at > CHECKPOINT_PAUSE_US:
                group.asked_at = now
                group.event("checkpoint_wanted", why="it is the oldest in the message log")
                group.perform(group.replica.request_checkpoint(now))

    def admitted(self) -> None:
        """This disk has a vote in a group: its directory is not lost any more, for whatever group."""
        self.lost = False
        for group in self.groups.values():
            group.replica.state.lost = False  # it may take part in first formations again
        self.ports.admitted()

    # --- turns ------------------------------------------------------------------------------------------------------

    def soon(self, job: Callable[[], None]) -> None:
        """Have a job done when everything that came in this turn of the process has been handed over."""
        if not self._due:
            self.ports.wake()
        self._due.append(job)

    def turn(self) -> None:
        """Do what was put off until the end of the turn; what this puts off has its own turn."""
        for job in self.take_due():
            job()

    def take_due(self) -> list[Callable[[], None]]:
        """Return what was put off, to be done in this order."""
        due, self._due = self._due, []
        return due

    # --- leaving ----------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Begin to hand over every office, and to give back every lease."""
        for group in self.groups.values():
            group.leave()

    @property
    def left(self) -> bool:
        """Whether that is done in every group."""
        return all(group.replica.may_end for group in self.groups.values())
