"""Maintenance: a drained node holds no lease, and no office that another can have, and others send it nothing (V3).

It stays a voter, and goes on accepting: what is durable, and how many must answer, is as before. Whether a node is
drained is its own affair, kept in its directory. Coordinators learn it by the leases that it returns, all others by
notices, which are only advice: who forwards to a drained node all the same is served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import META
from replicad.core.detection.detector import PassiveHeartbeat
from replicad.core.group.state import Role
from replicad.core.model.messages import DrainNotice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from replicad.core.engine.group import Group
    from replicad.core.engine.node import Engine

NOTICE_US = 500_000
"""A drained node says so again after so long,"""
FORGET_US = 3_000_000
"""and who has not heard it for so long forgets it: the node may have been stopped, and its mark removed."""

UNFIT = "takes no office now: it is drained, about to stop or being rebuilt, or its disk is full or hangs"


@dataclass(frozen=True, slots=True)
class Holding:
    """What a drained node has still of one group, and in words what keeps it."""

    group: str
    office: bool
    why: str


@dataclass(frozen=True, slots=True)
class Need:
    """A group that stands still if this node is stopped now, and in words why."""

    group: str
    why: str


class Drain:
    """Whether this node is drained, and which others are."""

    def __init__(self, engine: Engine, *, drained: bool) -> None:
        self.engine = engine
        self.drained = drained
        self._others = PassiveHeartbeat(FORGET_US - 1)
        """Who lately said that it is drained: here a sign of life says that."""
        self._said_at = 0
        self._told_done = False

    # --- this node --------------------------------------------------------------------------------------------------

    def set(self, *, drained: bool) -> None:
        """Drain this node, or end that; what is so already is no mistake.

        The directory says so durably by now: a node that has told others so is drained after a crash as well.
        """
        if drained == self.drained:
            return
        engine = self.engine
        self.drained, self._told_done = drained, False
        self.event("drained" if drained else "undrained")
        self._say()
        for group in list(engine.groups.values()):
            group.perform(group.replica.set_drained(drained, engine.ports.now()))

    def holdings(self) -> list[Holding]:
        """Return what a drained node has still to get rid of, ``_meta`` last; empty if it is not drained."""
        if not self.drained:
            return []
        groups = sorted(self.engine.groups.values(), key=lambda group: (group.name == META, group.name))
        return [_holding(group) for group in groups if not group.replica.may_end]

    def needs(self, connected: Callable[[str], bool]) -> list[Need]:
        """Return the groups that have no majority in touch without this node's vote: to stop it would stop them.

        To be drained costs no vote, so a node may hold nothing and be needed all the same.
        """
        groups = sorted(self.engine.groups.values(), key=lambda group: (group.name == META, group.name))
        needs = [_need(group, connected) for group in groups if group.replica.state.is_voter()]
        return [need for need in needs if need is not None]

    def tick(self, now: int) -> None:
        """Say again that this node is drained; put into the event log, once, that it has nothing left."""
        if not self.drained:
            return
        if now - self._said_at >= NOTICE_US:
            self._say()
        if not self._told_done and not self.holdings():
            self._told_done = True
            self.event("drain_done")

    def on_peer(self, peer: str) -> None:
        """A link to a peer was opened."""
        if self.drained:
            self.engine.ports.send(peer, META, DrainNotice(drained=True))

    def event(self, name: str) -> None:
        """Put a line into the event log."""
        self.engine.ports.event("", name, {})

    def _say(self) -> None:
        engine = self.engine
        self._said_at = engine.ports.now()
        others = [name for name in engine.catalog.nodes() if name != engine.name]
        engine.ports.broadcast(others, META, DrainNotice(self.drained))

    # --- other nodes ------------------------------------------------------------------------------------------------

    def on_notice(self, sender: str, message: DrainNotice) -> None:
        """Another node of the cluster says whether it is drained."""
        if message.drained and sender in self.engine.catalog.nodes():
            self._others.heard(sender, self.engine.ports.now())
        else:
            self._others.forget(sender)

    def is_drained(self, node: str) -> bool:
        """Return whether a node is drained, as far as is known here."""
        if node == self.engine.name:
            return self.drained
        return not self._others.suspects(node, self.engine.ports.now())

    def contacts(self, names: Iterable[str], connected: Callable[[str], bool]) -> list[str]:
        """Return which of a group's members a request may be passed on to, those in touch first.

        Drained ones only if no other is in touch: rather there than nowhere.
        """
        ordered = sorted(names, key=lambda name: not connected(name))
        others = [name for name in ordered if not self.is_drained(name)]
        return others if any(map(connected, others)) else ordered


def _need(group: Group, connected: Callable[[str], bool]) -> Need | None:
    configuration = group.replica.state.configuration
    if configuration is None:
        return None
    names = [member.node for member in configuration.members if member.node != group.engine.name]
    others = [name for name in names if connected(name)]
    if len(others) >= configuration.majority():
        return None
    if not names:
        return Need(group.name, "this node is its only voter")
    away = ", ".join(name for name in names if name not in others)
    why = f"this node is not in touch with {away}" if away else "it has two voters, and needs both"
    return Need(group.name, f"{why}; without this node too few of its {len(names) + 1} voters are left")


def _holding(group: Group) -> Holding:
    replica = group.replica
    if replica.role not in {Role.COORDINATOR, Role.CANDIDATE}:
        return Holding(group.name, office=False, why="its lease is being given back")
    office = replica.office
    if office is None:
        return Holding(group.name, office=True, why="it stands for the office: no other member that can is in touch")
    if office.successor:
        return Holding(group.name, office=True, why=f"the office is being handed over to {office.successor}")
    peers = office.authority.peers
    if not peers:
        return Holding(group.name, office=True, why="this node is the only voter")
    reasons = []
    for name, peer in peers.items():
        if not office.view.fresh(peer):
            reasons.append(f"{name} does not answer")
        elif not peer.willing:
            reasons.append(f"{name} is drained as well" if group.engine.drain.is_drained(name) else f"{name} {UNFIT}")
        else:
            reasons.append(f"{name} has no lease, so it is not fit to take over yet")
    return Holding(group.name, office=True, why=f"no other member can take the office: {'; '.join(reasons)}")
