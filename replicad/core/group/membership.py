"""How a group forms for the first time, and how a disk that lost its memory is re-admitted. Rules M1 to M5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.core.group.configuration import Configuration
from replicad.core.group.state import Role
from replicad.core.journal.records import FormationRecord
from replicad.core.model.messages import Form, Introduce, Welcome
from replicad.core.model.operations import CONFIGURATION, encode_batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.core.group.office import Office
    from replicad.core.group.state import GroupState

FRESH_HEARTBEATS = 20
"""An introduction counts for so many heartbeats."""


@dataclass(slots=True)
class Introduction:
    """What a node last said of itself."""

    boot: int
    echo: int
    disk: str
    state: str
    committed: int
    at: int


class Membership:
    """Formation, introductions, re-admission."""

    def __init__(self, state: GroupState, formed: Callable[[], None]) -> None:
        """``formed()`` is called when this node has recorded an initial configuration."""
        self.state = state
        self.formed = formed
        self.introductions: dict[str, Introduction] = {}
        self.introduced_at = -(10**12)
        self.source = ""
        self.source_committed = 0
        self.source_at = 0

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
        """Introduce oneself while one is no voter or knows no coordinator; form the group if all are here and empty."""
        state = self.state
        if state.is_voter() and state.coordinator:
            return
        if state.now - self.introduced_at >= 2 * state.limits.heartbeat_us:
            self.introduced_at = state.now
            known = dict.fromkeys((*state.initial_members, *state.peers()))
            for name in known:
                if name != state.node:
                    state.send(name, self.introduction(name))
        if state.configuration is None and self.may_form():
            self._form()

    # --- first formation --------------------------------------------------------------------------------------------

    def may_form(self) -> bool:
        """Return whether this is the first initial member, and *all* of them are present and empty (M5)."""
        state = self.state
        if state.initial_members[0] != state.node or self.own_state() != "empty":
            return False
        return all(
            self._fresh(name) == "empty" and self.introductions[name].echo == state.boot
            for name in state.initial_members
            if name != state.node
        )

    def _fresh(self, name: str) -> str:
        introduction = self.introductions.get(name)
        window = FRESH_HEARTBEATS * self.state.limits.heartbeat_us
        if introduction is None or self.state.now - introduction.at > window:
            return "absent"
        return introduction.state

    def obstacles(self) -> list[str]:
        """Return, in words, what keeps an unformed node from taking part."""
        state = self.state
        if state.configuration is not None:
            return []
        found = []
        for name in state.initial_members:
            if name == state.node:
                continue
            said = self._fresh(name)
            if said == "absent":
                found.append(f"{name} is not in touch")
            elif said == "formed":
                found.append(f"{name} holds data of this group")
            elif said == "lost":
                found.append(f"{name} had data and lost it")
        if state.lost:
            found.append("this node's data was damaged: it waits to be re-admitted")
        return found

    def _form(self) -> None:
        state = self.state
        disks = {}
        for name in state.initial_members:
            disks[name] = state.disk if name == state.node else self.introductions[name].disk
        self._record(Configuration.initial(disks))

    def _record(self, configuration: Configuration) -> None:
        state = self.state
        encoded = configuration.encode()
        state.append(FormationRecord(encoded))
        state.configuration = configuration
        state.event("formed", members=",".join(configuration.nodes()))
        self.formed()
        for name in state.peers():
            state.send_durable(name, Form(encoded))

    def on_form(self, message: Form) -> None:
        """Record a configuration that names this very disk, if it is one that never voted.

        It may have caught up already, as a welcomed one, when the message that should have come first was lost.
        """
        state = self.state
        try:
            configuration = Configuration.decode(message.configuration)
        except ValueError:
            return
        fresh = state.configuration is None and not state.lost and not state.promised
        if fresh and configuration.holds(state.node, state.disk):
            self._record(configuration)

    # --- meeting others ---------------------------------------------------------------------------------------------

    def on_introduce(self, sender: str, message: Introduce, office: Office | None) -> None:
        """Remember it; answer an unformed node with what this one holds; a coordinator welcomes a new disk."""
        state = self.state
        self.introductions[sender] = Introduction(
            message.boot, message.echo, message.disk, message.state, message.committed, state.now
        )
        if message.committed > state.log.committed and not state.coordinator:
            # Without a coordinator to welcome anyone: committed slots may be fetched from whoever has them (C2). They
            # may hold the configuration entry that this disk, or its peers, need to find a majority.
            self.source, self.source_committed, self.source_at = sender, message.committed, state.now
        if state.configuration is None:
            return
        member = state.configuration.member(sender)
        initial = member is not None and member.disk == message.disk and member.since == 0
        if message.state != "formed" and initial:
            state.send_durable(sender, Form(state.configuration.encode()))
        if message.state != "formed" or not state.configuration.holds(sender, message.disk):
            if state.is_voter() and state.coordinator:
                state.send(sender, self.introduction(sender))
            if office is not None:
                state.send(sender, Welcome(office.epoch, state.log.committed))
        elif office is not None and message.committed < state.configuration.slot:
            state.send(sender, Welcome(office.epoch, state.log.committed))

    def on_welcome(self, sender: str, message: Welcome) -> None:
        """A coordinator offers itself as the source of all that this disk lacks."""
        if not self.state.is_voter() or not self.state.coordinator:
            # A voter, too: with an older configuration it does not know the disk whose heartbeats it hears.
            self.source = sender
            self.source_committed = message.committed
            self.source_at = self.state.now

    # --- re-admission -----------------------------------------------------------------------------------------------

    def admit(self, office: Office) -> None:
        """Coordinator: re-admit a new disk that has caught up, through the log (M1, M3, M4)."""
        state = self.state
        configuration = state.configuration
        if configuration is None:
            return
        candidate = self._candidate(office)
        if candidate is None:
            office.closing = state.leaving
            return
        name, disk = candidate
        if not office.view.remove(name):
            return
        if not self.may_propose(office):
            office.closing = True
            return
        slot = office.assigned + 1
        office.closing = state.leaving
        state.event("readmission_proposed", member=name, disk=disk, slot=slot)
        office.propose(encode_batch(CONFIGURATION, configuration.with_disk(name, disk, slot).encode()))

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
            if introduction is None or peer is None or introduction.disk == peer.disk:
                continue
            if state.now - introduction.at > 6 * state.limits.heartbeat_us:
                continue
            if state.now - peer.heard_at < 4 * state.limits.heartbeat_us and peer.heard_at:
                continue  # the member's current disk still answers: two processes claim one name
            if self.caught_up(introduction):
                return name, introduction.disk
        return None

    def caught_up(self, introduction: Introduction) -> bool:
        """Return whether a newcomer is close enough to be admitted without holding the group up for long."""
        state = self.state
        return introduction.committed + state.limits.join_lag_slots >= state.log.committed
