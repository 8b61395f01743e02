"""What the rooms of one replica share: identity, durable state, log, and the effects of the current step."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

from replicad.core.detection.pace import Pace
from replicad.core.detection.patience import Detectors
from replicad.core.group.effects import EVERYONE, Effects
from replicad.core.group.lineage import Kin, Lineage
from replicad.core.group.log import SlotLog, batch_kind
from replicad.core.group.probation import Probation
from replicad.core.journal.records import (
    EntryRecord,
    FormationRecord,
    PromiseRecord,
    SlotPromiseRecord,
    WatermarkRecord,
)
from replicad.core.model.cluster_id import Naming
from replicad.core.model.configuration import Configuration
from replicad.core.model.errors import check
from replicad.core.model.limits import STATE_MACHINE_VERSION
from replicad.core.model.operations import CONFIGURATION, REMOTE_WRITE, decode_batch

if TYPE_CHECKING:
    from random import Random

    from replicad.core.journal.records import Record
    from replicad.core.journal.recovery import DurableState
    from replicad.core.model.limits import Limits
    from replicad.core.model.messages import Message


class Role(StrEnum):
    """What a replica is at the moment. Transitions: see ``Replica.become_*``, and nowhere else."""

    UNFORMED = "unformed"
    LEARNER = "learner"
    MIRROR = "mirror"
    REMOVED = "removed"
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    COORDINATOR = "coordinator"


STARTED, ADMITTED, REBUILT = "started", "admitted", "rebuilt"
"""Why a replica's digest must be compared before it serves."""
COMPLAINTS_MAX = 64
"""Of so many peers and kinds it is remembered when something was said; a stranger may take ever new names."""
COMPLAINT_US = 1_000_000
"""A peer that goes on sending nonsense costs no more than a line in so long."""
FLUSH_STALLS_MAX = 2
"""On a disk that is usually slow a flush may take so many times ``stall_after`` at most before the disk is stuck."""


class GroupState:
    """Shared by the rooms of one replica; every field has one owner who writes it, named beside it."""

    def __init__(
        self,
        *,
        node: str,
        disk: str,
        boot: int,
        members: tuple[str, ...],
        limits: Limits,
        durable: DurableState,
        applied: int,
        digest: bytes,
        configuration: bytes,
        lost: bool,
        rebuild: bool,
        random: Random,
        now: int,
        protocol: str = REMOTE_WRITE,
        neighbours: tuple[str, ...] = (),
        naming: Naming = Naming(),  # noqa: B008 - immutable
    ) -> None:
        self.node = node
        self.disk = disk
        self.boot = boot
        self.initial_members = members
        self.initial_protocol = protocol
        self.neighbours = neighbours
        self.cluster_id = naming.cluster_id  # belong()
        self.naming = naming
        self.limits = limits
        self.random = random
        self.started_at = now
        self.now = now
        self.lost = lost  # engine: some group has this disk as a voter
        self.rebuilding = rebuild  # digests, catch_up: the store is not to be trusted until a transfer replaced it
        self.comparing = ""  # comparison: why the digest must be compared before this replica serves ("": it was)
        self.yields_until = 0  # comparison: so long, voters that have nothing to prove go on without this one
        self.stands_from = 0  # comparison: an admitted or rebuilt replica leaves offices so long to others
        self.verified = applied  # catch_up: decided slots up to here have the values that others have
        self.contradicted = 0  # comparison: the slot after which the own state was found to be wrong (0: not known)
        self.doubted = 0  # catch_up: those above, up to here, are fed only when they are verified
        self.full = False  # replica: the disk is full
        self.leaving = False  # replica: a hand-over was asked for
        self.drained = False  # replica: for maintenance it has no lease, and no office that another may have (V3)
        self.detectors = Detectors(limits)  # dispatch, membership: who shows signs of life
        self.versions: dict[str, int] = {}  # replica: node -> version of the peer protocol that is spoken with it

        self.role = Role.UNFORMED  # replica
        self.promised = durable.promised  # promise()
        self.epoch = 0  # acceptor, election: the epoch that this replica follows or leads
        self.coordinator = ""  # acceptor, election: its coordinator ("" unknown)
        self.log = SlotLog(durable)
        known = [Configuration.decode(encoded) for encoded in (durable.formation, configuration) if encoded]
        self.configuration: Configuration | None = max(  # take_configuration()
            known, key=lambda configuration: configuration.version, default=None
        )
        self.applied = applied  # replica.executed
        self.digest = digest
        self.fed = applied  # feed(): the last slot given to the executor
        self.matched = self.log.committed  # accept(): all slots up to it are decided or accepted at `epoch`

        self.out = Effects()
        self._complaints: dict[tuple[str, str], tuple[int, int]] = {}  # complaint(): said at, not said since
        self.chosen: dict[int, int] = {}  # slots: open slots that are committed at (epoch, 0) -> epoch
        self.slot_promises: dict[int, tuple[int, int]] = {
            slot: ballot
            for slot, ballot in durable.slot_promises.items()
            if ballot[0] == self.promised and slot > self.log.committed
        }  # promise_slot()
        self.tickets = 0  # flushes asked for
        self.durable_tickets = 0  # flushes done
        self.unflushed: deque[tuple[int, int, int]] = deque()  # (ticket, lowest slot written, asked at)
        self.flushes = Probation(limits.stall_after_us)  # flushed(): of the own disk
        self.flush_pace = Pace(limits.stall_after_us, FLUSH_STALLS_MAX * limits.stall_after_us)  # flushed()
        self._lowest_written = 0
        self._voter_in: Configuration | None = None
        self._watermark_logged = durable.committed
        if self.configuration is not None:
            self.belong(self.configuration.cluster)

    # --- sending ----------------------------------------------------------------------------------------------------

    def send(self, to: str, message: Message) -> None:
        """Send at once."""
        self.out.send.append((to, message))

    def send_durable(self, to: str, message: Message) -> None:
        """Send once everything logged so far is durable."""
        self.out.send_durable.append((to, message))

    def broadcast(self, message: Message) -> None:
        """Send to every peer at once."""
        self.out.send.append((EVERYONE, message))

    def event(self, name: str, **fields: object) -> None:
        """Put a line into the event log."""
        self.out.events.append((name, fields))

    def complaint(self, name: str, of: str, **fields: object) -> None:
        """Put a line into the event log on what a peer sent: one a second of each kind, and how many were left out."""
        said_at, unsaid = self._complaints.get((of, name), (self.now - COMPLAINT_US, 0))
        if self.now - said_at < COMPLAINT_US:
            self._complaints[of, name] = (said_at, unsaid + 1)
            return
        self._complaints.pop((of, name), None)
        while len(self._complaints) >= COMPLAINTS_MAX:
            del self._complaints[next(iter(self._complaints))]
        self._complaints[of, name] = (self.now, 0)
        self.event(name, **fields, **({"unsaid": unsaid} if unsaid else {}))

    # --- logging ----------------------------------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Append a record to the message log."""
        self.out.append.append(record)

    def promise(self, epoch: int) -> None:
        """Promise all slots at ``epoch``; durable before anything sent by :meth:`send_durable` leaves."""
        check(epoch > self.promised, "a promise only rises", "promise rises")
        self.promised = epoch
        self.slot_promises = {}
        self.append(PromiseRecord(epoch))

    def promise_slot(self, slot: int, epoch: int, round_: int) -> None:
        """Promise one slot at ``(epoch, round_)`` (T3)."""
        check(epoch == self.promised, "a slot is promised within the promised epoch", "slot promise")
        if self.slot_promises.get(slot, (0, 0)) < (epoch, round_):
            self.slot_promises[slot] = (epoch, round_)
            self.append(SlotPromiseRecord(slot, epoch, round_))

    def slot_ballot(self, slot: int) -> tuple[int, int]:
        """Return the lowest ballot at which this slot may still be accepted (A1)."""
        return max((self.promised, 0), self.slot_promises.get(slot, (0, 0)))

    def hold(self, slot: int, epoch: int, round_: int, value: bytes, *, decided: bool) -> None:
        """Hold and log a value for a slot."""
        self.log.put(slot, epoch, round_, value)
        self.append(EntryRecord(slot, epoch, round_, decided, value))
        if self._lowest_written == 0 or slot < self._lowest_written:
            self._lowest_written = slot

    def durable_limit(self, slot: int) -> int:
        """Return the highest slot, at most ``slot``, below which nothing waits for a flush."""
        if self._lowest_written:
            slot = min(slot, self._lowest_written - 1)
        for _, lowest, _ in self.unflushed:
            if lowest:
                slot = min(slot, lowest - 1)
        return slot

    def flushed(self, ticket: int) -> None:
        """All flushes up to ``ticket`` are done."""
        check(
            self.durable_tickets <= ticket <= self.tickets, "flush tickets are completed in order", "flushed in order"
        )
        self.durable_tickets = ticket
        oldest = self.oldest_flush()
        if self.stalled():
            sound = self.flushes.over(self.now)
            self.flushes.fail(self.now)  # whoever is in office, now or later, need not find out for itself
            if sound:  # it gives its lease back by itself: nobody else says of it why
                self.event("slow_disk", probation_ms=self.flushes.length() // 1000)
        while self.unflushed and self.unflushed[0][0] <= ticket:
            self.unflushed.popleft()
        if oldest and self.oldest_flush() != oldest:
            self.flush_pace.observe(self.now - oldest)

    def oldest_flush(self) -> int:
        """Return when the oldest unfinished flush was asked for (0: none is waiting)."""
        return self.unflushed[0][2] if self.unflushed else 0

    def stalled(self) -> bool:
        """Return whether the disk has not answered for ``stall_after``, and longer than it usually takes (V2)."""
        unflushed = self.unflushed
        return bool(unflushed) and self.now - unflushed[0][2] > self.flush_pace.patience()

    def finish(self) -> Effects:
        """Close the step: number the flush, and return the effects."""
        out = self.out
        if out.append:
            if self.log.committed > self._watermark_logged:
                self._watermark_logged = self.log.committed
                out.append.append(WatermarkRecord(self.log.committed))
            self.tickets += 1
            self.unflushed.append((self.tickets, self._lowest_written, self.now))
            self._lowest_written = 0
        self.out = Effects()
        return out

    # --- committing -------------------------------------------------------------------------------------------------

    def commit(self, slot: int) -> None:
        """Every slot up to ``slot`` is committed, with the values held here."""
        first = self.log.committed + 1
        if slot < first:
            return
        self.log.advance(slot)
        for number in range(first, slot + 1):
            self.chosen.pop(number, None)
            self.slot_promises.pop(number, None)
        self.matched = max(self.matched, slot)
        self.extend_matched()
        for number in range(first, slot + 1):
            held = self.log.get(number)
            check(held is not None, f"slot {number} is committed but not held", "committed is held")
            if held is not None and batch_kind(held[2]) == CONFIGURATION:
                self.configure(held[2], number, held[0])
        known = self.configuration
        if known is not None and first <= known.slot <= slot and self.refuted(known):
            self.out.forget = (
                f"slot {known.slot} does not hold the configuration {known.version} that this disk was told of: that "
                f"one, or the log here, is of another past"
            )

    def refuted(self, heard: Configuration) -> bool:
        """Return whether the slot of a configuration is committed here, and holds something else."""
        held = self.log.get(heard.slot) if heard.logged and heard.slot <= self.log.committed else None
        found = _configuration_in(held[2]) if held is not None else heard
        return found is None or found.version != heard.version

    def adopt_epoch(self, epoch: int) -> None:
        """Follow or lead another epoch: what was accepted in it before a restart counts."""
        self.epoch = epoch
        self.coordinator = ""
        self.chosen = {}
        self.matched = self.log.committed
        self.extend_matched()

    def extend_matched(self) -> None:
        """Count consecutive slots that were accepted in this epoch."""
        while (held := self.log.get(self.matched + 1)) is not None and held[0] == self.epoch:
            self.matched += 1

    def configure(self, value: bytes, slot: int, epoch: int) -> None:
        """A configuration entry is committed: it governs the slots above (rule M2)."""
        configuration = _configuration_in(value)
        check(
            configuration is not None and configuration.slot == slot, "a configuration knows its slot", "configuration"
        )
        if configuration is None or (self.configuration and configuration.version <= self.configuration.version):
            return
        kin = self.lineage.kin(configuration)
        if kin is Kin.SUCCESSOR and (self.is_member() or self.is_mirror()):
            self.give_up(configuration)
            return  # a disk that never belonged to the group reads of its past, and gives up nothing
        if kin is Kin.FOREIGN:
            self.out.halt = f"slot {slot} holds a configuration of another cluster, or of another life of the group"
            return
        if configuration.machine_version > STATE_MACHINE_VERSION:
            self.out.halt = f"the group runs state machine version {configuration.machine_version}: upgrade this node"
        newcomer = not self.is_member()
        self.take_configuration(configuration)
        if slot <= self.log.committed:
            # First: a log that is cut here must not name members by an entry that it does not know to be committed.
            self.append(WatermarkRecord(slot))
        self.append(FormationRecord(configuration.encode()))
        if newcomer and self.is_member() and epoch > self.promised:
            # A newcomer has promised nothing yet; it must not serve an epoch older than the one that admitted it.
            self.promise(epoch)
        self.out.catalog_stale = True
        self.belong(configuration.cluster)
        self.event("configuration", version=configuration.version, slot=slot)

    def take_configuration(self, configuration: Configuration) -> None:
        """Let a configuration govern from here on: the one place that changes it.

        Nobody is told. What depends on it compares the object with the one that it was computed from.
        """
        self.configuration = configuration

    def adopt(self, configuration: Configuration, slot: int) -> None:
        """Take over the configuration of a checkpoint at ``slot`` that was installed, if it is a newer one."""
        if self.configuration is not None and configuration.version <= self.configuration.version:
            return
        if self.lineage.kin(configuration) is Kin.FOREIGN:
            self.out.halt = f"the checkpoint at slot {slot} is of another cluster, or of another life of the group"
            return
        self.take_configuration(configuration)
        self.belong(configuration.cluster)

    def give_up(self, successor: Configuration) -> None:
        """The group went on without this disk after its majority was lost: it forgets all."""
        self.out.forget = (
            f"the group was recovered without this disk (configuration {successor.version}): what it holds belongs "
            f"to a past that was given up"
        )

    def adopt_logged_configuration(self) -> None:
        """Configuration entries between the store's state and the committed prefix hold already (at a restart)."""
        for slot in range(self.applied + 1, self.log.committed + 1):
            held = self.log.get(slot)
            if held is not None and batch_kind(held[2]) == CONFIGURATION:
                self.configure(held[2], slot, held[0])

    def feed(self) -> None:
        """Give the executor what is committed and durable here, in order."""
        if self.rebuilding or self.fed == self.log.committed:
            return
        limit = self.durable_limit(self.feedable())
        while self.fed < limit:
            held = self.log.get(self.fed + 1)
            if held is None:
                return
            self.fed += 1
            self.out.apply.append((self.fed, held[2]))

    @property
    def serves(self) -> bool:
        """Whether what is read here at any level but ``?stale`` may be answered: the digest was compared (K3)."""
        return not (self.rebuilding or self.comparing)

    def yielding(self) -> bool:
        """Return whether voters that have nothing to prove may elect, and fetch, without this one: it must prove.

        Where they are no majority without it, they may not: nobody gains if it waits.
        """
        if self.serves or self.now >= self.yields_until or self.role is Role.COORDINATOR:
            return False
        return len(self.peers()) >= self.majority()

    @property
    def doubtful(self) -> bool:
        """Whether some of the own decided values are not believed: it was rebuilt, and has yet to verify them (K3)."""
        return self.doubted > self.verified

    @property
    def gap(self) -> bool:
        """Whether the log lacks the committed slot that the executor needs next."""
        return self.fed < self.log.committed and self.log.get(self.fed + 1) is None

    def feedable(self) -> int:
        """Return up to which slot the own decided values are believed: after a rebuild, those that were verified."""
        return self.verified if self.doubtful else self.log.committed

    # --- which cluster (M6) -----------------------------------------------------------------------------------------

    @property
    def lineage(self) -> Lineage:
        """What this disk knows of its own past: by it peers, and what they tell of, are judged."""
        return Lineage(self.node, self.disk, self.cluster_id, self.configuration)

    def belong(self, cluster_id: str) -> None:
        """Take over the id of the cluster, once ("": nothing is known by that)."""
        if not cluster_id or cluster_id == self.cluster_id:
            return
        if self.cluster_id:
            self.out.halt = (
                f"the group here is of the cluster {cluster_id}, and the directory of {self.cluster_id}: parts of two "
                f"directories were put together. Move it away, and start the node again"
            )
            return
        self.cluster_id = self.out.cluster_id = cluster_id

    def known_ids(self) -> tuple[str, str]:
        """Return the ids of the cluster and of this life of the group, each "" as long as it is not known."""
        return self.cluster_id, self.configuration.incarnation if self.configuration else ""

    def new_ids(self) -> tuple[str, str] | None:
        """Return the ids of the cluster and of this life of the group, for a group that has none; None: not yet.

        Only the group that names the cluster makes that id; the others wait until it is known here.
        """
        if not self.naming.fresh_id or not (self.cluster_id or self.naming.names_cluster):
            return None
        return self.cluster_id or self.naming.fresh_id, self.naming.fresh_id

    # --- membership -------------------------------------------------------------------------------------------------

    def is_member(self) -> bool:
        """Return whether this disk is one of the configuration's."""
        return self.configuration is not None and self.configuration.holds(self.node, self.disk)

    def is_voter(self) -> bool:
        """Return whether this disk may promise, accept and count (M4): it holds the log up to its admission."""
        configuration = self.configuration
        if configuration is None:
            return False
        if configuration is self._voter_in:
            return True
        member = configuration.member(self.node)
        if member is None or member.disk != self.disk or self.log.committed < member.since:
            return False
        self._voter_in = configuration  # the committed prefix only grows: asked with every message
        return True

    def counts(self, node: str, disk: str) -> bool:
        """Return whether what this peer says counts: its disk is the member's current one (rules L2, M4)."""
        return self.configuration is not None and self.configuration.holds(node, disk)

    def is_mirror(self) -> bool:
        """Return whether this node follows the group without a vote."""
        return self.configuration is not None and self.node in self.configuration.mirrors

    def non_voting_role(self) -> Role:
        """Return what a node is that is no voter (now)."""
        configuration = self.configuration
        if configuration is None:
            return Role.UNFORMED
        if self.node in configuration.mirrors:
            return Role.MIRROR
        return Role.LEARNER if configuration.member(self.node) else Role.REMOVED

    def knows(self, node: str) -> bool:
        """Return whether a node belongs to the group, whatever its disk: it may ask for slots, and forward."""
        return self.configuration.names(node) if self.configuration else node in self.initial_members

    def all_speak(self, version: int) -> bool:
        """Return whether every other node of the configuration was last heard to speak ``version`` or a later one."""
        configuration = self.configuration
        if configuration is None:
            return False
        others = (*configuration.nodes(), *configuration.mirrors)
        return all(self.versions.get(name, 1) >= version for name in others if name != self.node)

    def founders_speak(self, version: int) -> bool:
        """Return whether every other initial member was last heard to speak ``version`` or a later one."""
        return all(self.versions.get(name, 1) >= version for name in self.initial_members if name != self.node)

    def peers(self) -> list[str]:
        """Return the other members' names (before formation: the other initial members)."""
        names = self.configuration.nodes() if self.configuration else self.initial_members
        return [name for name in names if name != self.node]

    def majority(self) -> int:
        """Return the size of a majority of the current configuration."""
        return self.configuration.majority() if self.configuration else len(self.initial_members) // 2 + 1


def _configuration_in(entry: bytes) -> Configuration | None:
    """Return the configuration in an entry of the log; None: it holds something else."""
    try:
        _, payload = decode_batch(entry)
        return Configuration.decode(payload) if isinstance(payload, bytes) else None
    except ValueError:
        return None
