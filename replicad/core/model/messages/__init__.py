"""One dataclass per message between the replicas of a group, and their codec.

On the wire a message is a msgpack array ``[type number, field, …]``. Numbers are never reused. A message knows what
makes it invalid (``invalid()``): a bad peer's message is dropped and logged, it never reaches a handler.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

import msgpack

from replicad.core.model.messages.base import Entry, Message, Summary
from replicad.core.model.messages.comparison import CompareDigest, DigestCompared
from replicad.core.model.messages.contacts import Durable, Forward, ForwardRefused, ReadPoint, ReadProbe
from replicad.core.model.messages.drains import DrainNotice
from replicad.core.model.messages.election import (
    FetchValues,
    Prepare,
    PreVote,
    PreVoteAnswer,
    Promise,
    Rejected,
    Release,
    Values,
)
from replicad.core.model.messages.heartbeats import Heartbeat, HeartbeatAck
from replicad.core.model.messages.leases import LeaseRecall, LeaseReturn, LeaseReturned
from replicad.core.model.messages.log import Accept, Accepted, Committed, FetchSlots, Slots, Truncated
from replicad.core.model.messages.membership import (
    ChangeAnswer,
    ChangeOutcome,
    ChangeRequest,
    Form,
    Introduce,
    MirrorHeartbeat,
    Welcome,
)
from replicad.core.model.messages.tickets import (
    Chosen,
    Decided,
    SlotAccept,
    SlotAccepted,
    SlotPrepare,
    SlotPromise,
    Ticket,
    TicketRequest,
)
from replicad.core.model.messages.transfer import CheckpointChunk, CheckpointRequest, FetchCheckpoint

__all__ = [
    "BULK",
    "MESSAGES",
    "Accept",
    "Accepted",
    "ChangeAnswer",
    "ChangeOutcome",
    "ChangeRequest",
    "CheckpointChunk",
    "CheckpointRequest",
    "Chosen",
    "Committed",
    "CompareDigest",
    "Decided",
    "DigestCompared",
    "DrainNotice",
    "Durable",
    "Entry",
    "FetchCheckpoint",
    "FetchSlots",
    "FetchValues",
    "Form",
    "Forward",
    "ForwardRefused",
    "Heartbeat",
    "HeartbeatAck",
    "Introduce",
    "LeaseRecall",
    "LeaseReturn",
    "LeaseReturned",
    "Message",
    "MirrorHeartbeat",
    "PreVote",
    "PreVoteAnswer",
    "Prepare",
    "Promise",
    "ReadPoint",
    "ReadProbe",
    "Rejected",
    "Release",
    "SlotAccept",
    "SlotAccepted",
    "SlotPrepare",
    "SlotPromise",
    "Slots",
    "Summary",
    "Ticket",
    "TicketRequest",
    "Truncated",
    "Values",
    "Welcome",
    "decode_message",
    "encode_message",
    "from_wire",
    "to_wire",
]

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
        TicketRequest,
        Ticket,
        SlotAccept,
        SlotAccepted,
        SlotPrepare,
        SlotPromise,
        Decided,
        Chosen,
        ChangeRequest,
        ChangeAnswer,
        MirrorHeartbeat,
        ChangeOutcome,
        LeaseReturn,
        LeaseReturned,
        LeaseRecall,
        CompareDigest,
        DigestCompared,
        DrainNotice,
    )
}

BULK: tuple[type[Message], ...] = (
    Accept,
    Forward,
    Slots,
    Values,
    CheckpointChunk,
    FetchCheckpoint,
    FetchSlots,
    SlotAccept,
    SlotPromise,
)
"""Messages that travel on the bulk connection; all others are control, which no bulk data can delay."""

_FIELDS: dict[type[Message], tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind)) for kind in MESSAGES.values()
}


_SHOWN_MAX = 40
"""Characters of what a peer sent that a reason shows: it may be megabytes, or lists so deep that they have no repr."""


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
        shown = repr(parts[0])[:_SHOWN_MAX] if type(parts[0]) in {int, str} else type(parts[0]).__name__
        raise ValueError(f"unknown message number {shown}")
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
