"""The configuration of a group: its members and the disk that each of them is (rules M1 to M5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import msgpack

from replicad.core.model.limits import STATE_MACHINE_VERSION


@dataclass(frozen=True, slots=True)
class Member:
    """One voting member: node name, the number of its disk (never reused), the disk's id, the slot that admitted it."""

    node: str
    number: int
    disk: str
    since: int = 0


@dataclass(frozen=True, slots=True)
class Configuration:
    """Members in the order of the settings; ``version`` counts changes; ``slot`` is the entry's (0: initial)."""

    members: tuple[Member, ...]
    version: int = 1
    slot: int = 0
    next_number: int = 1
    machine_version: int = STATE_MACHINE_VERSION

    @staticmethod
    def initial(disks: dict[str, str]) -> Configuration:
        """Return the first configuration for ``node -> disk id``, in the dictionary's order."""
        members = tuple(Member(node, number, disk) for number, (node, disk) in enumerate(disks.items(), 1))
        return Configuration(members, next_number=len(members) + 1)

    def majority(self) -> int:
        """Return how many members are a majority of all."""
        return len(self.members) // 2 + 1

    def member(self, node: str) -> Member | None:
        """Return the member of that name."""
        for member in self.members:
            if member.node == node:
                return member
        return None

    def nodes(self) -> tuple[str, ...]:
        """Return the names of the members."""
        return tuple(member.node for member in self.members)

    def holds(self, node: str, disk: str) -> bool:
        """Return whether ``node`` is a member with this very disk."""
        member = self.member(node)
        return member is not None and member.disk == disk

    def with_disk(self, node: str, disk: str, slot: int) -> Configuration:
        """Return the configuration in which ``node`` has the new ``disk`` (M4), effective above ``slot``."""
        members = tuple(Member(node, self.next_number, disk, slot) if m.node == node else m for m in self.members)
        return Configuration(members, self.version + 1, slot, self.next_number + 1, self.machine_version)

    def encode(self) -> bytes:
        """Return the bytes that are logged and travel."""
        members = [(m.node, m.number, m.disk, m.since) for m in self.members]
        fields = (self.version, self.slot, self.next_number, self.machine_version, members)
        return cast("bytes", msgpack.packb(fields))

    @staticmethod
    def decode(data: bytes) -> Configuration:
        """Return the configuration in ``data``; raises ValueError for anything else."""
        try:
            version, slot, next_number, machine_version, members = msgpack.unpackb(data, use_list=False)
            return Configuration(tuple(Member(*m) for m in members), version, slot, next_number, machine_version)
        except (TypeError, msgpack.exceptions.UnpackException) as error:
            raise ValueError(f"not a configuration: {error}") from error
