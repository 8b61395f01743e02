"""The configuration of a group: its voters, the disk that each of them is, and its mirrors. Rules M1 to M5, P1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import msgpack

from replicad.core.model.limits import STATE_MACHINE_VERSION
from replicad.core.model.operations import ACTIVE, REMOTE_WRITE

PROTOCOLS = (REMOTE_WRITE, ACTIVE)

GENERATION_STRIDE = 1_000_000
"""Versions of one generation; a group that was recovered from a lost majority goes on in the next one."""

_FIELDS = 9
_FIELDS_WITHOUT_IDS = 7
"""As long as the cluster has no id; all that speakers of version 1 of the peer protocol can read."""
_FIELDS_WITHOUT_MIRRORS = 5
"""Groups that were formed before there were mirrors have entries with so many fields."""


@dataclass(frozen=True, slots=True)
class Member:
    """One voting member: node name, the number of its disk (never reused), the disk's id, the slot that admitted it."""

    node: str
    number: int
    disk: str
    since: int = 0


@dataclass(frozen=True, slots=True)
class Configuration:
    """Voters in the order of their admission; ``version`` counts changes; ``slot`` is the entry's (0: initial).

    ``mirrors`` are names only: a mirror holds nothing that the group relies on, so any disk will do. ``protocol`` is a
    preference: how each slot is proposed, the coordinator settles when it assigns the slot (P1).

    ``cluster`` is the id of the cluster, ``incarnation`` that of this life of the group: a group that is formed again,
    after its disks were lost, has another one. Both are random, never change, and are "" until both are known (M6).
    """

    members: tuple[Member, ...]
    version: int = 1
    slot: int = 0
    next_number: int = 1
    machine_version: int = STATE_MACHINE_VERSION
    mirrors: tuple[str, ...] = ()
    protocol: str = REMOTE_WRITE
    cluster: str = ""
    incarnation: str = ""

    @staticmethod
    def initial(disks: dict[str, str], protocol: str = REMOTE_WRITE) -> Configuration:
        """Return the first configuration for ``node -> disk id``, in the dictionary's order."""
        members = tuple(Member(node, number, disk) for number, (node, disk) in enumerate(disks.items(), 1))
        return Configuration(members, next_number=len(members) + 1, protocol=protocol)

    def identified(self, cluster: str, incarnation: str) -> Configuration:
        """Return this configuration with both ids; raises ValueError if it has some, or if one is empty."""
        if self.cluster or not cluster or not incarnation:
            raise ValueError("a configuration gets both ids at once, and only once")
        return replace(self, cluster=cluster, incarnation=incarnation)

    # --- questions --------------------------------------------------------------------------------------------------

    def majority(self) -> int:
        """Return how many voters are a majority of all."""
        return len(self.members) // 2 + 1

    def member(self, node: str) -> Member | None:
        """Return the voter of that name."""
        for member in self.members:
            if member.node == node:
                return member
        return None

    def nodes(self) -> tuple[str, ...]:
        """Return the names of the voters."""
        return tuple(member.node for member in self.members)

    def names(self, node: str) -> bool:
        """Return whether ``node`` is a voter or a mirror, whatever its disk."""
        return node in self.mirrors or self.member(node) is not None

    def holds(self, node: str, disk: str) -> bool:
        """Return whether ``node`` is a voter with this very disk."""
        member = self.member(node)
        return member is not None and member.disk == disk

    @property
    def generation(self) -> int:
        """How often the group was recovered from a lost majority."""
        return self.version // GENERATION_STRIDE

    # --- changes, each effective above ``slot`` (M2) ----------------------------------------------------------------

    def with_disk(self, node: str, disk: str, slot: int) -> Configuration:
        """Return the configuration in which the voter ``node`` has the new ``disk`` (M4)."""
        new = Member(node, self.next_number, disk, slot)
        members = tuple(new if member.node == node else member for member in self.members)
        return self._next(slot, members=members, next_number=self.next_number + 1)

    def with_mirror(self, node: str, slot: int) -> Configuration:
        """Return the configuration with one more mirror."""
        return self._next(slot, mirrors=self.mirrors if self.names(node) else (*self.mirrors, node))

    def with_voter(self, node: str, disk: str, slot: int) -> Configuration:
        """Return the configuration in which the mirror ``node`` is a voter with this disk (M4)."""
        return self._next(
            slot,
            members=(*self.members, Member(node, self.next_number, disk, slot)),
            mirrors=_without(self.mirrors, node),
            next_number=self.next_number + 1,
        )

    def with_demoted(self, node: str, slot: int) -> Configuration:
        """Return the configuration in which the voter ``node`` is a mirror."""
        return self._next(slot, members=self._others(node), mirrors=(*self.mirrors, node))

    def without(self, node: str, slot: int) -> Configuration:
        """Return the configuration without ``node``, voter or mirror."""
        return self._next(slot, members=self._others(node), mirrors=_without(self.mirrors, node))

    def with_protocol(self, protocol: str, slot: int) -> Configuration:
        """Return the configuration that prefers another protocol (P1)."""
        return self._next(slot, protocol=protocol)

    def with_ids(self, cluster: str, incarnation: str, slot: int) -> Configuration:
        """Return the configuration of a group that is older than ids are, with both of them (M6)."""
        named = self.identified(cluster, incarnation)
        return replace(named, version=self.version + 1, slot=slot)

    def recovered(self, node: str, disk: str, slot: int) -> Configuration:
        """Return the first configuration of the next generation: ``node`` is the only voter, and all others are gone.

        For a majority that is lost for good: who comes back with an older generation belongs to a past given up.
        """
        return replace(
            self,
            members=(Member(node, self.next_number, disk, slot),),
            mirrors=(),
            version=(self.generation + 1) * GENERATION_STRIDE,
            slot=slot,
            next_number=self.next_number + 1,
        )

    def _others(self, node: str) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.node != node)

    def _next(self, slot: int, **changes: Any) -> Configuration:
        return replace(self, version=self.version + 1, slot=slot, **changes)

    @property
    def logged(self) -> bool:
        """Whether its slot holds it: the first one of all, and of each generation, were settled outside the log."""
        return self.slot > 0 and self.version % GENERATION_STRIDE != 0

    # --- bytes ------------------------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """Return the bytes that are logged and travel."""
        members = [(m.node, m.number, m.disk, m.since) for m in self.members]
        numbers = (self.version, self.slot, self.next_number, self.machine_version)
        ids = (self.cluster, self.incarnation) if self.cluster else ()
        return cast("bytes", msgpack.packb((*numbers, members, self.mirrors, self.protocol, *ids)))

    @staticmethod
    def decode(data: bytes) -> Configuration:
        """Return the configuration in ``data``; raises ValueError for anything else."""
        try:
            fields = msgpack.unpackb(data, use_list=False)
        except (TypeError, ValueError, msgpack.exceptions.UnpackException) as error:
            raise ValueError(f"not a configuration: {error}") from error
        if type(fields) is not tuple or len(fields) not in {_FIELDS, _FIELDS_WITHOUT_IDS, _FIELDS_WITHOUT_MIRRORS}:
            raise ValueError("not a configuration: a wrong number of fields")
        version, slot, next_number, machine_version, members = fields[:_FIELDS_WITHOUT_MIRRORS]
        mirrors, protocol = fields[_FIELDS_WITHOUT_MIRRORS:_FIELDS_WITHOUT_IDS] or ((), REMOTE_WRITE)
        ids = fields[_FIELDS_WITHOUT_IDS:]
        if not all(_is_number(number) for number in (version, slot, next_number, machine_version)):
            raise ValueError("not a configuration: a number is none, or negative")
        if type(members) is not tuple or not members or not all(map(_is_member, members)):
            raise ValueError("not a configuration: its voters are no list of (node, number, disk, slot)")
        if type(mirrors) is not tuple or not all(type(name) is str for name in mirrors):
            raise ValueError("not a configuration: its mirrors are no list of names")
        nodes = [*(member[0] for member in members), *mirrors]
        if len(set(nodes)) != len(nodes):
            raise ValueError("not a configuration: it names a node twice")
        if len({member[1] for member in members}) != len(members):
            raise ValueError("not a configuration: two disks have one number")
        if protocol not in PROTOCOLS:
            raise ValueError(f"not a configuration: protocol {protocol!r} is not {' or '.join(PROTOCOLS)}")
        if not all(type(identity) is str and identity for identity in ids):
            raise ValueError("not a configuration: an id is no text, or empty")
        voters = tuple(Member(*member) for member in members)
        return Configuration(voters, version, slot, next_number, machine_version, mirrors, protocol, *ids)


def ids_in(configuration: bytes) -> tuple[str, str]:
    """Return cluster id and incarnation of an encoded configuration, each "" if it has none; raises ValueError."""
    if not configuration:
        return "", ""
    known = Configuration.decode(configuration)
    return known.cluster, known.incarnation


def _without(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(other for other in names if other != name)


def _is_number(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_member(value: object) -> bool:
    if type(value) is not tuple or len(value) != len(Member.__slots__):
        return False
    node, number, disk, since = value
    return type(node) is str and _is_number(number) and type(disk) is str and _is_number(since)
