"""One dataclass per message between the replicas of a group, and their codec.

On the wire a message is a msgpack array ``[type number, field, …]``. Numbers are never reused. A message knows what
makes it invalid (``invalid()``): a bad peer's message is dropped and logged, it never reaches a handler.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

import msgpack

Entry = tuple[int, int, int, bytes]
"""``(slot, epoch, round, value)``: a slot's accepted or decided value with its ballot."""

Summary = tuple[int, int, int, bytes]
"""``(slot, epoch, round, digest of the value)``."""


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages."""

    number: ClassVar[int]

    def invalid(self) -> str | None:
        """Return why this message makes no sense whatever the receiver's state, or None."""
        for name, kind in _CHECKS[type(self)]:
            value = getattr(self, name)
            if kind == "int":
                if type(value) is not int or value < 0:
                    return f"{name} is not a non-negative integer"
            elif type(value) is not _TYPES.get(kind, tuple):
                return f"{name} is not {_WORDS.get(kind, 'a list')}"
            elif kind not in _TYPES and not _items_valid(kind, value):
                return f"{name} has an item of a wrong type"
        return None


_TYPES: dict[str, type] = {"str": str, "bytes": bytes, "bool": bool}
_WORDS = {"str": "text", "bytes": "bytes", "bool": "a boolean"}


def _items_valid(kind: str, value: Any) -> bool:
    if kind == "tuple[bytes, ...]":
        return all(type(item) is bytes for item in value)
    if kind == "tuple[int, ...]":
        return all(type(item) is int and item >= 0 for item in value)
    if kind in {"tuple[Entry, ...]", "tuple[Summary, ...]"}:
        return all(
            type(item) is tuple
            and len(item) == 4
            and all(type(part) is int and part >= 0 for part in item[:3])
            and type(item[3]) is bytes
            for item in value
        )
    return True


# --- election -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PreVote(Message):
    """Candidate to all: would you promise ``epoch``? Changes nothing at the receiver. ``attempt`` is echoed."""

    number = 1
    epoch: int
    attempt: int
    committed: int


@dataclass(frozen=True, slots=True)
class PreVoteAnswer(Message):
    """Voter to candidate: whether it would promise; ``promised`` helps a candidate that is behind."""

    number = 2
    epoch: int
    attempt: int
    granted: bool
    promised: int


@dataclass(frozen=True, slots=True)
class Prepare(Message):
    """Candidate to all: promise all slots at ``epoch`` and report what you accepted from ``from_slot`` on.

    ``predecessor`` is the epoch in which this same process was coordinator just before (0: none); it overrides the
    receiver's loyalty to that epoch (rule E5). Sent again with a higher ``from_slot`` for further pages.
    """

    number = 3
    epoch: int
    attempt: int
    from_slot: int
    predecessor: int


@dataclass(frozen=True, slots=True)
class Promise(Message):
    """Voter to candidate, after the promise is durable: one page of what it accepted or decided.

    ``committed`` is its contiguous committed prefix, ``base`` the highest slot it has truncated, ``highest`` the
    highest slot it accepted; the page covers ``from_slot`` to ``to_slot`` without exception.
    """

    number = 4
    epoch: int
    attempt: int
    committed: int
    base: int
    highest: int
    from_slot: int
    to_slot: int
    entries: tuple[Summary, ...]


@dataclass(frozen=True, slots=True)
class Rejected(Message):
    """Anyone to the sender of a message of an old epoch: ``promised`` is higher than ``epoch``."""

    number = 5
    epoch: int
    promised: int


@dataclass(frozen=True, slots=True)
class FetchValues(Message):
    """Candidate to a voter that promised ``epoch``: send the accepted values of these slots."""

    number = 6
    epoch: int
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Values(Message):
    """Voter to candidate: accepted values, as many as fit a page."""

    number = 7
    epoch: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Release(Message):
    """Coordinator to all, handing over: its authority and its grants have ended; loyalty to ``epoch`` ends now.

    ``successor`` is the node that should stand first (empty: any).
    """

    number = 8
    epoch: int
    successor: str


# --- log ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept(Message):
    """Coordinator to all: accept ``values`` for the slots from ``first`` on, at ballot ``(epoch, 0)``.

    ``start`` is the first slot of the epoch: all slots below are committed. ``committed`` is the watermark (C3).
    """

    number = 9
    epoch: int
    start: int
    first: int
    committed: int
    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Accepted(Message):
    """Member to coordinator, after its records are durable.

    Every slot up to ``matched`` is decided, or durably accepted at ``(epoch, 0)``. ``gap`` asks for the slots after it.
    """

    number = 10
    epoch: int
    matched: int
    gap: bool


@dataclass(frozen=True, slots=True)
class Committed(Message):
    """Coordinator to all: every slot up to ``committed`` is committed; slots from ``start`` on at ``(epoch, 0)``."""

    number = 11
    epoch: int
    start: int
    committed: int


@dataclass(frozen=True, slots=True)
class FetchSlots(Message):
    """Replica that lacks committed slots to one that has them: send the slots from ``first`` on."""

    number = 12
    first: int


@dataclass(frozen=True, slots=True)
class Slots(Message):
    """Answer to FetchSlots: committed slots in order (C2), as many as fit a page; ``committed`` is the sender's."""

    number = 13
    first: int
    committed: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Truncated(Message):
    """Answer to FetchSlots when these slots are gone: take the checkpoint at ``checkpoint`` instead (0: none here)."""

    number = 14
    first: int
    base: int
    checkpoint: int


# --- heartbeats, leases ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heartbeat(Message):
    """Coordinator to each member, every ``heartbeat_us``.

    ``sequence`` numbers the round. A grant (L3) is ``grant_us > 0`` for the process ``grant_boot``, answering the
    lease request made at ``grant_request`` on the holder's own clock, valid for reads that wait for ``grant_slot``.
    ``acknowledged`` is what the coordinator knows this member to have acknowledged in this epoch.
    ``checkpoint``/``checkpoint_digest``: the newest committed checkpoint. ``digest_slot``/``digest``: the majority's
    digest there (K3); an empty digest with a slot means that there is no majority: stop.
    """

    number = 15
    epoch: int
    sequence: int
    start: int
    assigned: int
    committed: int
    acknowledged: int
    grant_boot: int
    grant_request: int
    grant_us: int
    grant_slot: int
    checkpoint: int
    checkpoint_digest: bytes
    digest_slot: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class HeartbeatAck(Message):
    """Member to coordinator: alive, loyal until now + lease.

    ``lease_request`` is the member's own clock when it asks for a lease, 0 when it wants none or gives its lease back
    (slow or full disk, leaving). ``matched`` is durable, ``applied`` is what it can read. ``digest_slot``/``digest``:
    its digest at the newest slot that is a multiple of ``digest_slots``. ``checkpoint``/``checkpoint_digest``: the
    newest checkpoint that it has written (an empty digest: it could not write that one).
    """

    number = 16
    epoch: int
    sequence: int
    boot: int
    matched: int
    applied: int
    lease_request: int
    digest_slot: int
    digest: bytes
    checkpoint: int
    checkpoint_digest: bytes


# --- contacts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forward(Message):
    """Contact to primary: put these encoded operations in a slot; tell me when they are as durable as ``ack`` asks."""

    number = 17
    ack: int
    operations: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ForwardRefused(Message):
    """Primary to contact: these were not put in any slot by me: not (or not yet) in office, or overloaded."""

    number = 18
    overloaded: bool
    request_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Durable(Message):
    """Primary to contact: these operations reached the acknowledgement level they asked for (majority, one)."""

    number = 19
    request_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ReadProbe(Message):
    """Contact to coordinator: which slot must I have applied to read now? ``confirmed`` asks a majority (R2)."""

    number = 20
    boot: int
    probe: int
    confirmed: bool


@dataclass(frozen=True, slots=True)
class ReadPoint(Message):
    """Coordinator to contact: apply ``slot``, then read."""

    number = 21
    boot: int
    probe: int
    slot: int


# --- checkpoints and transfer ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckpointRequest(Message):
    """Any member to the coordinator: take a checkpoint now."""

    number = 22


@dataclass(frozen=True, slots=True)
class FetchCheckpoint(Message):
    """Replica that needs a transfer to one that offered a checkpoint: send the bytes from ``offset`` on."""

    number = 23
    slot: int
    offset: int


@dataclass(frozen=True, slots=True)
class CheckpointChunk(Message):
    """Bytes of the checkpoint file at ``slot``; ``total`` is the file's length (0: it is not here any more)."""

    number = 24
    slot: int
    offset: int
    total: int
    data: bytes


# --- formation and membership ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Introduce(Message):
    """Node to all members while it is no voter or knows no coordinator: who am I, and what do I hold.

    ``state`` is ``empty`` (may take part in a first formation), ``lost`` (its data was damaged: it must be
    re-admitted), or ``formed``; ``configuration`` is the one that it recorded (empty: none). ``echo`` is the boot id
    last heard from the receiver: words meant for an earlier process of it do not count for a formation.
    """

    number = 25
    boot: int
    echo: int
    disk: str
    state: str
    committed: int
    applied: int
    configuration: bytes

    def invalid(self) -> str | None:
        """Also check the state's name."""
        if self.state not in {"empty", "lost", "formed"}:
            return f"state {self.state!r} is not empty, lost or formed"
        return super(Introduce, self).invalid()


@dataclass(frozen=True, slots=True)
class Form(Message):
    """First initial member to all: record this initial configuration, if your disk is still the empty one in it."""

    number = 26
    configuration: bytes


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """Coordinator to a node whose disk is not in the configuration: catch up with me, then I re-admit you."""

    number = 27
    epoch: int
    committed: int


MESSAGES: dict[int, type[Message]] = {
    kind.number: kind
    for kind in (
        PreVote,
        PreVoteAnswer,
        Prepare,
        Promise,
        Rejected,
        FetchValues,
        Values,
        Release,
        Accept,
        Accepted,
        Committed,
        FetchSlots,
        Slots,
        Truncated,
        Heartbeat,
        HeartbeatAck,
        Forward,
        ForwardRefused,
        Durable,
        ReadProbe,
        ReadPoint,
        CheckpointRequest,
        FetchCheckpoint,
        CheckpointChunk,
        Introduce,
        Form,
        Welcome,
    )
}

BULK: tuple[type[Message], ...] = (Accept, Forward, Slots, Values, CheckpointChunk, FetchCheckpoint, FetchSlots)
"""Messages that travel on the bulk connection; all others are control, which no bulk data can delay."""

_FIELDS: dict[type[Message], tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind)) for kind in MESSAGES.values()
}
_CHECKS: dict[type[Message], tuple[tuple[str, str], ...]] = {
    kind: tuple((field.name, str(field.type)) for field in fields(kind)) for kind in MESSAGES.values()
}


def to_wire(message: Message) -> tuple[Any, ...]:
    """Return the plain tuple that travels for ``message``."""
    kind = type(message)
    return (kind.number, *[getattr(message, name) for name in _FIELDS[kind]])


def from_wire(parts: object) -> Message:
    """Return the message in ``parts`` (as unpacked, tuples for arrays); raises ValueError with the reason."""
    if type(parts) is not tuple or not parts:
        raise ValueError("a message is a non-empty list")
    kind = MESSAGES.get(parts[0]) if type(parts[0]) is int else None
    if kind is None:
        raise ValueError(f"unknown message number {parts[0]!r}")
    if len(parts) != len(_FIELDS[kind]) + 1:
        raise ValueError(f"{kind.__name__} has {len(_FIELDS[kind])} fields, not {len(parts) - 1}")
    message = kind(*parts[1:])
    reason = message.invalid()
    if reason is not None:
        raise ValueError(f"{kind.__name__}: {reason}")
    return message


def encode_message(message: Message) -> bytes:
    """Return the msgpack bytes of one message."""
    return cast("bytes", msgpack.packb(to_wire(message)))


def decode_message(data: bytes) -> Message:
    """Return the message in ``data``; raises ValueError with the reason."""
    try:
        parts = msgpack.unpackb(data, use_list=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"not msgpack: {error}") from error
    return from_wire(parts)
