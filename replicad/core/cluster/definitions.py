"""What the group ``_meta`` holds: definitions of groups, and where nodes are found. JSON values under readable keys.

``group/NAME`` is a group's definition, or says that the group was dropped: a dropped name leaves a mark, so that a
settings file cannot bring the group back. ``node/NAME`` is where a node is found, or says that it was removed.
``voters`` says whether the voters of ``_meta`` are those of the settings for good.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from replicad.core.model.limits import Limits
from replicad.core.model.operations import ACK_ALL, ACK_MAJORITY, ACK_ONE

META = "_meta"
DEFAULT = "default"
RESERVED = "_"
"""Names that begin so are the cluster's own."""

GROUP_PREFIX = b"group/"
NODE_PREFIX = b"node/"
VOTERS_KEY = b"voters"

REMOTE_WRITE = "remote-write"
ACTIVE = "active"
PROTOCOLS = (REMOTE_WRITE, ACTIVE)
ACKS = {"all": ACK_ALL, "majority": ACK_MAJORITY, "one": ACK_ONE}
LIMITS = ("checkpoint_slots", "checkpoint_bytes", "value_bytes_max")
"""Constants of the cluster that a group may make smaller for itself."""


def not_to_be_dropped(name: str, *, force: bool) -> str:
    """Return why a group of this name is not dropped, in a sentence ("": it may be)."""
    if name == META:
        return f"group {META} holds what the cluster knows of itself; it cannot be dropped"
    if name == DEFAULT and not force:
        return (
            f"clients that name no group use {DEFAULT!r}; it is dropped by force only "
            f"(replicad group drop {DEFAULT} --force)"
        )
    return ""


@dataclass(frozen=True, slots=True)
class GroupDefinition:
    """One group as the cluster knows it. ``members`` and ``mirrors`` follow the group's own configuration."""

    name: str
    id: str
    """What logs, frames and stores call it; never used again, while a name may be."""
    founders: tuple[str, ...]
    """The initial members, in order; never changed."""
    members: tuple[str, ...]
    mirrors: tuple[str, ...] = ()
    protocol: str = REMOTE_WRITE
    ack: str = "all"
    preferred: str = ""
    """Where its coordinator should be; "": anywhere."""
    limits: Mapping[str, int] = field(default_factory=dict)
    version: int = 0
    """Version of the configuration that members, mirrors and protocol are of (0: it is not known to be formed)."""

    @staticmethod
    def new(name: str, token: str, members: tuple[str, ...], **options: object) -> GroupDefinition:
        """Return the definition of a group that is created now; ``token``, drawn for it, makes its id its own."""
        identity = f"{name}.{token}"
        return replace(GroupDefinition(name, identity, members, members), **options)  # type: ignore[arg-type]

    def group_limits(self, limits: Limits) -> Limits:
        """Return the cluster's constants with this group's own."""
        return replace(limits, **self.limits) if self.limits else limits

    def nodes(self) -> tuple[str, ...]:
        """Return members and mirrors."""
        return (*self.members, *self.mirrors)

    def wish(self) -> tuple[object, ...]:
        """Return what whoever creates a group chooses: two wishes that are equal ask for the same group."""
        return self.founders, self.ack, dict(self.limits)

    def as_json(self) -> dict[str, object]:
        """Return what is stored and shown."""
        return {
            "id": self.id,
            "members": list(self.members),
            "mirrors": list(self.mirrors),
            "founders": list(self.founders),
            "protocol": self.protocol,
            "ack": self.ack,
            "preferred": self.preferred,
            "limits": dict(self.limits),
            "version": self.version,
        }

    def encode(self) -> bytes:
        """Return the value of its key."""
        return _encode(self.as_json())


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """Where a node is found, as ``host:port``; ``native`` is "" if it does not serve native clients."""

    peer: str
    http: str
    leaving: bool = False
    """Whether it is about to be removed: it gets no vote on ``_meta`` any more, and no new groups."""
    native: str = ""

    def encode(self) -> bytes:
        """Return the value of its key."""
        fields: dict[str, object] = {"peer": self.peer, "http": self.http}
        if self.native:
            fields["native"] = self.native
        if self.leaving:
            fields["leaving"] = True
        return _encode(fields)


DROPPED = b'{"dropped": true}'
REMOVED = b'{"removed": true}'


def _encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def group_key(name: str) -> bytes:
    """Return the key of a group's definition."""
    return GROUP_PREFIX + name.encode()


def node_key(name: str) -> bytes:
    """Return the key of a node's addresses."""
    return NODE_PREFIX + name.encode()


def parse_definition(name: str, value: bytes) -> GroupDefinition | None:
    """Return the definition in a value, None for a group that was dropped; raises ValueError for anything else."""
    fields = _fields(value)
    if fields.get("dropped") is True:
        return None
    try:
        definition = GroupDefinition(
            name,
            fields["id"],
            tuple(fields["founders"]),
            tuple(fields["members"]),
            tuple(fields.get("mirrors", ())),
            fields["protocol"],
            fields["ack"],
            fields["preferred"],
            fields["limits"],
            fields["version"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"the definition of group {name!r} lacks something: {error}") from error
    texts = (definition.id, definition.preferred, *definition.founders, *definition.nodes())
    numbers = (definition.version, *definition.limits.values())
    if (
        any(type(text) is not str for text in texts)
        or any(type(number) is not int for number in numbers)
        or not definition.id
        or not definition.founders
        or definition.protocol not in PROTOCOLS
        or definition.ack not in ACKS
        or any(limit not in LIMITS for limit in definition.limits)
    ):
        raise ValueError(f"the definition of group {name!r} holds something that cannot be")
    return definition


def parse_node(name: str, value: bytes) -> NodeEntry | None:
    """Return the addresses in a value, None for a node that was removed; raises ValueError for anything else."""
    fields = _fields(value)
    if fields.get("removed") is True:
        return None
    peer, http, native = fields.get("peer"), fields.get("http"), fields.get("native", "")
    if type(peer) is not str or type(http) is not str or type(native) is not str:
        raise ValueError(f"the addresses of node {name!r} are not both there")
    return NodeEntry(peer, http, leaving=fields.get("leaving") is True, native=native)


def encode_voters(*, fixed: bool) -> bytes:
    """Return the value of ``voters``."""
    return _encode({"fixed": fixed})


def parse_voters(value: bytes) -> bool:
    """Return whether the voters of ``_meta`` are fixed; raises ValueError."""
    return _fields(value).get("fixed") is True


def _fields(value: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(value)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one error for a bad value, whatever it is
    return fields


def by_preference(group: str, nodes: tuple[str, ...]) -> list[str]:
    """Return the nodes in the order in which this group would like its coordinator there (rendezvous hashing).

    Each group has an order of its own, so coordinators spread; a node that comes or goes moves few of them.
    """

    def weight(node: str) -> bytes:
        return blake2b(f"{group}\0{node}".encode(), digest_size=8).digest()

    return sorted(nodes, key=lambda node: (weight(node), node), reverse=True)
