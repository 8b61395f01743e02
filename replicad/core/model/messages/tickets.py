"""Tickets and single slots (active replication)."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.model.messages.base import Message


@dataclass(frozen=True, slots=True)
class TicketRequest(Message):
    """Contact to sequencer: give me a slot. Asked again with the same ``ticket`` until it comes (T1)."""

    number = 28
    epoch: int
    boot: int
    ticket: int


@dataclass(frozen=True, slots=True)
class Ticket(Message):
    """Sequencer to contact: ``slot`` is yours to propose one batch for, once, at ``(epoch, 0)`` (T1).

    The batch is committed when a majority of the configuration of version ``configuration`` and all ``members`` of the
    view, whose number is ``view``, have accepted it (C1).
    """

    number = 29
    boot: int
    ticket: int
    epoch: int
    slot: int
    configuration: int
    view: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SlotAccept(Message):
    """Ticket holder (round 0) or repairing sequencer (round 1 or more) to all: accept ``value`` for this slot."""

    number = 30
    epoch: int
    round: int
    slot: int
    value: bytes


@dataclass(frozen=True, slots=True)
class SlotAccepted(Message):
    """Member to the proposer of one slot, after its record is durable."""

    number = 31
    epoch: int
    round: int
    slot: int


@dataclass(frozen=True, slots=True)
class SlotPrepare(Message):
    """Sequencer to all: promise this slot at ``(epoch, round)`` and say what you accepted there in this epoch (T3)."""

    number = 32
    epoch: int
    round: int
    slot: int


@dataclass(frozen=True, slots=True)
class SlotPromise(Message):
    """Member to sequencer, after the promise is durable: ``value`` was accepted at ``(epoch, accepted)``.

    An empty value: nothing was accepted for the slot in this epoch.
    """

    number = 33
    epoch: int
    round: int
    slot: int
    accepted: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Decided(Message):
    """Answer to a SlotAccept or SlotPrepare that comes too late: the slot is decided (A2).

    ``digest`` is that of its value; it is empty where the slot is truncated.
    """

    number = 34
    epoch: int
    slot: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Chosen(Message):
    """Ticket holder to all: these slots are committed, with what was proposed for them at ``(epoch, 0)``."""

    number = 35
    epoch: int
    slots: tuple[int, ...]
