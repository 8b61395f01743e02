"""Between contacts and coordinators: operations and read points."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.model.messages.base import Message


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
