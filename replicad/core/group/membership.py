"""How a group forms for the first time, who follows it, and how its configuration changes. Rules M1 to M5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.detection.patience import Patience
from replicad.core.group.introduction import Introduction
from replicad.core.group.lineage import Kin
from replicad.core.group.source import Source
from replicad.core.group.state import Role
from replicad.core.journal.records import FormationRecord
from replicad.core.model.cluster_id import CLUSTER_ID_SINCE
from replicad.core.model.configuration import Configuration
from replicad.core.model.messages import Form, Introduce, MirrorHeartbeat, Welcome
from replicad.core.model.obstacles import NO_VOTER, NOT_ADDED, OWN_LOSS, Obstacle
from replicad.core.model.operations import CONFIGURATION, encode_batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.core.group.office import Office
    from replicad.core.group.state import GroupState

INTRODUCE_HEARTBEATS = 2
STRANGERS_HEARTBEATS = 10
"""A group is formed no earlier after the start, where there are nodes that are no initial members of it."""
REMOVED_PAUSE_US = 1_000_000
"""Who is not in the configuration introduces itself no more often than this."""
NAMING_HEARTBEATS = 20
"""So long after the start a group waits for the cluster's id before it forms without one."""
ESTRANGED_HEARTBEATS = 20
"""A voter that coordinators offer slots to, and no heartbeats, says so after so long."""
MIRROR_HEARTBEATS = 2
"""Mirrors hear from the coordinator every so many heartbeats."""


class Membership:
    """Formation, introductions, mirrors, and configuration entries."""

    def __init__(
        self, state: GroupState, formed: Callable[[], None], admissible: Callable[[str, str], bool] = lambda *_: True
    ) -> None:
        """``formed()``: an initial configuration was recorded. ``admissible(node, disk)``: its digest was compared."""
        self.state = state
        self.formed = formed
        self.admissible = admissible
        self.introductions: dict[str, Introduction] = {}
        self.introduced_at = -(10**12)
        self.acquaintance: Configuration | None = None
        """The newest configuration that a node heard of which knows none itself: it is learnt if it names the node."""
        self.source = Source(state)
        self.beaten_at = -(10**12)
        self.replied_at: dict[str, int] = {}
        self.estranged_since = -1
        """Since when somebody leads the group whose disk the configuration here does not know (-1: nobody does)."""
        self.began_with_slots = bool(state.log.highest)
        """Whatever configuration they are of, they were not fetched from today's group."""

    # --- introducing oneself ----------------------------------------------------------------------------------------

    def own_state(self) -> str:
        """Return ``formed``, ``lost`` or ``empty``."""
        state = self.state
        if state.configuration is not None:
            return "formed"
        holds = state.log.highest or state.promised or state.applied
        return "lost" if state.lost or holds else "empty"

    def introduction(self, to: str) -> Introduce:
        """Return what this node says of itself to another one."""
        state = self.state
        heard = self.introductions.get(to)
        configuration = state.configuration.encode() if state.configuration else b""
        return Introduce(
            state.boot,
            heard.boot if heard else 0,
            state.disk,
            self.own_state(),
            state.log.committed,
            state.applied,
            configuration,
        )

    def tick(self) -> None:
        """Introduce oneself while one is no voter or knows no coordinator; form the group if all are here and empty.

        A mirror does so while it knows no live source.
        """
        state = self.state
        if state.is_voter() and state.coordinator:
            return
        if self.source.live():
            if state.is_mirror():
                return
        elif not state.is_voter():
            state.coordinator = ""
        if state.now - self.introduced_at >= self._pause():
            self.introduced_at = state.now
            known = dict.fromkeys((*state.initial_members, *state.peers(), *self._acquaintances(), *self._strangers()))
            for name in known:
                if name != state.node:
                    state.send(name, self.introduction(name))
        if state.configuration is None and self.may_form():
            self._form()

    def _pause(self) -> int:
        state = self.state
        outside = state.role is Role.REMOVED or (state.configuration is None and self.stranger)
        return REMOVED_PAUSE_US if outside else INTRODUCE_HEARTBEATS * state.limits.heartbeat_us

    # --- first formation --------------------------------------------------------------------------------------------

    def may_form(self) -> bool:
        """Return whether this is the first initial member, and *all* of them are present and empty (M5).

        The group may have been formed before, and have other members by now: a node that is no initial member gets
        some time to say so.
        """
        state = self.state
        if state.initial_members[0] != state.node or self.own_state() != "empty":
            return False
        others = self._strangers()
        if others and state.now - state.started_at < STRANGERS_HEARTBEATS * state.limits.heartbeat_us:
            return False
        if any(self._fresh(name) in {"formed", "lost"} for name in others):
            return False
        if self._awaits_id():
            return False
        return all(
            self._fresh(name) == "empty" and self.introductions[name].echo == state.boot
            for name in state.initial_members
            if name != state.node
        )

    def _awaits_id(self) -> bool:
        """Return whether the cluster's id is about to be made: with it this group needs no entry to get it later."""
        state = self.state
        awaited = bool(state.naming.fresh_id) and state.new_ids() is None and state.founders_speak(CLUSTER_ID_SINCE)
        return awaited and state.now - state.started_at < NAMING_HEARTBEATS * state.limits.heartbeat_us

    def _strangers(self) -> list[str]:
        """Return the nodes, known here and no initial members, that may hold an unformed node's group."""
        state = self.state
        if state.configuration is not None:
            return []
        return [name for name in state.neighbours if name not in state.initial_members and name != state.node]

    @property
    def stranger(self) -> bool:
        """Whether this node knows no configuration, and the newest one that it heard of does not name it."""
        return self.acquaintance is not None and not self.acquaintance.names(self.state.node)

    def _acquaintances(self) -> tuple[str, ...]:
        return self.acquaintance.nodes() if self.acquaintance is not None else ()

    def _fresh(self, name: str) -> str:
        introduction = self.introductions.get(name)
        if introduction is None or self.state.detectors.suspects(name, self.state.now, Patience.FORMATION):
            return "absent"
        return introduction.state

    def disks_told(self) -> dict[str, str]:
        """Return ``node -> disk`` that it lately said it has.

        Not of who has committed more: it may have been re-admitted in a configuration that is not known here yet.
        """
        state = self.state
        return {
            name: said.disk
            for name, said in self.introductions.items()
            if said.disk
            and said.committed <= state.log.committed
            and not state.detectors.suspects(name, state.now, Patience.ADVICE)
        }

    def obstacles(self) -> list[Obstacle]:
        """Return what keeps an unformed node from taking part."""
        state = self.state
        if state.configuration is not None:
            return []
        if state.node not in state.initial_members:
            return [NOT_ADDED if self.acquaintance else NO_VOTER]
        found = []
        for name in state.initial_members:
            if name == state.node:
                continue
            said = self._fresh(name)
            if said == "absent":
                found.append(Obstacle.absent(name))
            elif said == "formed":
                found.append(Obstacle.formed(name))
            elif said == "lost":
                found.append(Obstacle.lost(name))
        found += [Obstacle.formed(name) for name in self._strangers() if self._fresh(name) == "formed"]
        if state.lost:
            found.append(OWN_LOSS)
        return found

    def _form(self) -> None:
        state = self.state
        disks = {}
        for name in state.initial_members:
            disks[name] = state.disk if name == state.node else self.introductions[name].disk
        configuration = Configuration.initial(disks, state.initial_protocol)
        ids = state.new_ids() if state.founders_speak(CLUSTER_ID_SINCE) else None
        self._record(configuration.identified(*ids) if ids else configuration)

    def _record(self, configuration: Configuration) -> None:
        state = self.state
        encoded = configuration.encode()
        state.append(FormationRecord(encoded))
        state.take_configuration(configuration)
        state.out.catalog_stale = True
        state.belong(configuration.cluster)
        state.event("formed", members=",".join(configuration.nodes()))
        self.formed()
        for name in state.peers():
            state.send_durable(name, Form(encoded))

    def on_form(self, message: Form) -> None:
        """Record a configuration that names this very disk, if it is one that never voted.

        It may have caught up already, as a welcomed one, when the message that should have come first was lost.
        """
        state = self.state
        configuration = _decoded(message.configuration)
        if configuration is None:
            return
        fresh = state.configuration is None and not state.lost and not state.promised
        ours = configuration.holds(state.node, state.disk) and state.lineage.kin(configuration) is not Kin.FOREIGN
        if fresh and ours:
            self._record(configuration)

    # --- meeting others ---------------------------------------------------------------------------------------------

    def on_introduce(self, sender: str, disk: str, message: Introduce, office: Office | None) -> None:
        """Remember it; answer an unformed node with what this one holds; a coordinator welcomes a new disk."""
        state = self.state
        theirs = _decoded(message.configuration)
        foreign = state.lineage.kin_of_peer(theirs, sender, disk) is Kin.FOREIGN
        self._note_foreign(sender, message, foreign=foreign)
        self.introductions[sender] = Introduction(
            message.boot, message.echo, message.disk, message.state, message.committed, foreign
        )
        if theirs is not None and not foreign:
            self._learn(theirs)
        kin = state.lineage.kin_of_peer(theirs, sender, disk)
        self.source.check(sender, disk, kin)
        if foreign:
            self._on_foreign(sender)
        if foreign or state.out.forget:
            return
        if state.configuration is not None or not self.stranger:
            self.source.consider(sender, disk, theirs, message.committed)
        office = office if state.role is Role.COORDINATOR else None  # what was learnt just now may have ended it
        if state.configuration is not None:
            self._answer(sender, message, state.configuration, kin, office)

    def _on_foreign(self, sender: str) -> None:
        """Tell who is of another past that it is; and be told so by a majority of those that the own one names."""
        state = self.state
        own = state.configuration
        if own is None or not state.is_voter():
            return
        if state.coordinator:
            self._reply(sender, REMOVED_PAUSE_US)
            return
        strange = [name for name in state.peers() if name in self.introductions and self.introductions[name].foreign]
        if len(strange) >= state.majority() and self.estranged_since < 0:
            self.estranged_since = state.now

    def _answer(self, sender: str, message: Introduce, own: Configuration, kin: Kin, office: Office | None) -> None:
        """Tell a peer what it does not know: the group's beginning, its configuration, who coordinates it."""
        state = self.state
        member = own.member(sender)
        initial = member is not None and member.disk == message.disk and member.since == 0
        if message.state != "formed" and initial:
            state.send_durable(sender, Form(own.encode()))
        outdated = kin in {Kin.OLDER, Kin.GIVEN_UP}
        missing = message.state != "formed" or outdated or not own.holds(sender, message.disk)
        if missing and state.is_voter() and state.coordinator:
            self._reply(sender)
        welcome = state.knows(sender) and kin is not Kin.GIVEN_UP
        if office is not None and welcome and (missing or message.committed < own.slot):
            state.send(sender, Welcome(office.epoch, state.log.committed))

    def on_foreign_heartbeat(self, sender: str) -> None:
        """Somebody is in office who has no vote as far as is known here: one of the two has missed a configuration."""
        state = self.state
        if state.configuration is None or state.configuration.names(sender):
            return
        self._reply(sender)

    def _reply(self, sender: str, pause: int = 0) -> None:
        """Introduce oneself in answer, but not again and again: two that do not know each other would never stop."""
        state = self.state
        pause = pause or INTRODUCE_HEARTBEATS * state.limits.heartbeat_us - state.limits.heartbeat_us // 2
        if state.now - self.replied_at.get(sender, -pause) >= pause:
            self.replied_at[sender] = state.now
            state.send(sender, self.introduction(sender))

    def _note_foreign(self, sender: str, message: Introduce, *, foreign: bool) -> None:
        before = self.introductions.get(sender)
        if foreign and not (before is not None and before.foreign and before.disk == message.disk):
            self.state.complaint("foreign_configuration", sender, peer=sender, disk=message.disk[:64])

    def _learn(self, heard: Configuration) -> None:
        """Take over a newer configuration in which this disk has no vote.

        Every configuration heard is committed somewhere. One that gives this disk a vote is taken from the log only,
        with the slots that it governs (M4).
        """
        state = self.state
        if heard.holds(state.node, state.disk):
            return
        kin = state.lineage.kin(heard)
        if kin is Kin.SUCCESSOR:
            state.give_up(heard)
        if kin is not Kin.NEWER:
            return
        if state.configuration is None:
            if self.acquaintance is None or heard.version > self.acquaintance.version:
                self.acquaintance = heard
            if state.node not in heard.mirrors:
                return
            if heard.generation and self.began_with_slots:
                state.out.forget = "the slots here are of no known configuration, and the group was recovered since"
                return
        elif state.refuted(heard):
            return  # a branch of this group goes on elsewhere
        state.take_configuration(heard)
        state.append(FormationRecord(heard.encode()))
        state.belong(heard.cluster)
        state.event("configuration_learnt", version=heard.version, slot=heard.slot)
        self.formed()

    def on_welcome(self, sender: str, disk: str, message: Welcome) -> bool:
        """A coordinator offers itself as the source of all that this disk lacks; returns whether a mirror takes it."""
        state = self.state
        if state.is_mirror():
            return self._follow(sender, disk, message.epoch, message.committed)
        if state.is_voter() and not state.coordinator and self.estranged_since < 0:
            self.estranged_since = state.now
        if not state.is_voter() or not state.coordinator:
            # A voter, too: with an older configuration it does not know the disk whose heartbeats it hears.
            self.source.take(sender, disk, message.committed)
        return False

    def estranged(self) -> bool:
        """Return whether the group has gone on without this disk for long, and not by a change that is known here."""
        state = self.state
        if not state.is_voter() or state.coordinator:
            self.estranged_since = -1
        since = self.estranged_since
        return since >= 0 and state.now - since > ESTRANGED_HEARTBEATS * state.limits.heartbeat_us

    # --- mirrors ----------------------------------------------------------------------------------------------------

    def beat(self, office: Office, checkpoint: tuple[int, bytes], verdict: tuple[int, bytes]) -> None:
        """Coordinator: tell the mirrors whom to follow, and what checkpoint and digest they must have."""
        state = self.state
        configuration = state.configuration
        heartbeat = state.limits.heartbeat_us
        if configuration is None or not configuration.mirrors:
            return
        if state.now - self.beaten_at < MIRROR_HEARTBEATS * heartbeat - heartbeat // 2:
            return
        self.beaten_at = state.now
        message = MirrorHeartbeat(
            office.epoch, configuration.version, state.log.committed, *checkpoint, verdict[0], verdict[1]
        )
        for name in configuration.mirrors:
            state.send(name, message)

    def on_mirror_heartbeat(self, sender: str, disk: str, message: MirrorHeartbeat) -> bool:
        """Mirror: follow this coordinator, unless a later one was heard; returns whether it is followed."""
        state = self.state
        if state.is_voter() and state.coordinator:
            return False
        if not state.lineage.of_this_generation(message.version):
            # First compare configurations: one of the two may hold slots of a past that was given up.
            state.send(sender, self.introduction(sender))
            return False
        if state.is_mirror():
            return self._follow(sender, disk, message.epoch, message.committed)
        self.source.take(sender, disk, message.committed)  # it has yet to learn that it lost its vote
        return False

    def _follow(self, sender: str, disk: str, epoch: int, committed: int) -> bool:
        """Mirror: follow the coordinator of an epoch, unless a later one was heard of."""
        state = self.state
        if epoch < state.epoch:
            return False
        if (epoch, sender) != (state.epoch, state.coordinator):
            if epoch != state.epoch:
                state.adopt_epoch(epoch)
            state.coordinator = sender
            state.event("following", epoch=epoch, coordinator=sender)
        self.source.take(sender, disk, committed)
        return True

    def on_fetch(self, sender: str, disk: str, first: int) -> None:
        """Coordinator: who asks for slots without a vote says by that how far it is, and which disk it has."""
        if not self.follows(sender, disk):
            return
        known = self.introductions.get(sender)
        if known is None or known.disk != disk:
            self.introductions[sender] = Introduction(0, 0, disk, "formed", max(0, first - 1))
        else:
            known.state, known.committed = "formed", max(0, first - 1)

    def follows(self, node: str, disk: str) -> bool:
        """Return whether this disk follows without a vote: a mirror's, or one that is not its member's (yet)."""
        configuration = self.state.configuration
        return configuration is not None and configuration.names(node) and not configuration.holds(node, disk)

    # --- configuration entries --------------------------------------------------------------------------------------

    def admit(self, office: Office) -> None:
        """Coordinator: re-admit a new disk that has caught up, through the log (M1, M3, M4)."""
        configuration = self.state.configuration
        candidate = self._candidate(office)
        if configuration is None or candidate is None:
            return
        name, disk = candidate
        slot = self.propose(office, name, lambda slot: configuration.with_disk(name, disk, slot))
        if slot:
            self.state.event("readmission_proposed", member=name, disk=disk, slot=slot)

    def identify(self, office: Office) -> bool:
        """Coordinator: give a group that is older than ids are both of its own, once every node can read them (M6).

        Returns whether that is under way.
        """
        state = self.state
        configuration = state.configuration
        if configuration is None or configuration.cluster or state.leaving or (ids := state.new_ids()) is None:
            return False
        if state.role is not Role.COORDINATOR or state.log.open_configuration():
            return False
        if not state.all_speak(CLUSTER_ID_SINCE) or not all(map(office.view.fresh, office.authority.peers.values())):
            return False
        cluster, incarnation = ids
        slot = self.propose(office, "", lambda slot: configuration.with_ids(cluster, incarnation, slot))
        if slot:
            state.event("ids_proposed", cluster_id=cluster, incarnation=incarnation, slot=slot)
        return True

    def propose(self, office: Office, leaver: str, make: Callable[[int], Configuration]) -> int:
        """Propose the configuration ``make(slot)``; returns the slot, or 0 as long as it must wait.

        Until the view has lost the ``leaver``, whose disk loses its vote by this ("": nobody's does; M3); and then,
        with no new slots meanwhile, until all slots below are committed (M1).
        """
        if leaver and not office.view.remove(leaver):
            return 0
        if not self.may_propose(office):
            office.closing = True
            return 0
        slot = office.assigned + 1
        office.propose(encode_batch(CONFIGURATION, make(slot).encode()))
        return slot

    def may_propose(self, office: Office) -> bool:
        """Return whether all slots below are committed (M1)."""
        return office.assigned == self.state.log.committed

    def _candidate(self, office: Office) -> tuple[str, str] | None:
        state = self.state
        if state.log.open_configuration() or state.role is not Role.COORDINATOR:
            return None
        for name in state.peers():
            introduction = self.introductions.get(name)
            peer = office.authority.peers.get(name)
            if introduction is None or introduction.foreign or peer is None or introduction.disk == peer.disk:
                continue
            if state.detectors.suspects(name, state.now, Patience.NEWCOMER):
                continue
            if not state.detectors.suspects(name, state.now, Patience.INCUMBENT):
                continue  # the member's current disk still answers: two processes claim one name
            if self.caught_up(introduction) and self.admissible(name, introduction.disk):
                return name, introduction.disk
        return None

    def caught_up(self, introduction: Introduction) -> bool:
        """Return whether a newcomer is close enough to be admitted without holding the group up for long."""
        state = self.state
        return introduction.committed + state.limits.join_lag_slots >= state.log.committed


def _decoded(configuration: bytes) -> Configuration | None:
    """Return the configuration that a peer sent, None if there is none, or none that can be read."""
    try:
        return Configuration.decode(configuration) if configuration else None
    except ValueError:
        return None
