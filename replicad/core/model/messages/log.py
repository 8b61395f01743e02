"""Slots of a coordinator, what is committed, and catch-up by log."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.model.messages.base import Entry, Message


@dataclass(frozen=True, slots=True)
class Accept(Message):
    """Coordinator to all: accept ``values`` for the slots from ``first`` on, at ballot ``(epoch, 0)``.

    The watermark ``committed`` speaks of the slots from ``start`` on, see :class:`Committed` (C3).
    """

    number = 9
    epoch: int
    start: int
    first: int
    committed: int
    values: tuple[bytes, ...]
    repaired: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted(Message):
    """Member to coordinator, after its records are durable.

    Every slot up to ``matched`` is decided, or durably accepted in ``epoch``. ``gap`` asks for the slots after it.
    """

    number = 10
    epoch: int
    matched: int
    gap: bool


@dataclass(frozen=True, slots=True)
class Committed(Message):
    """Coordinator to all: every slot up to ``committed`` is committed (C3).

    Those from ``start`` on at ``(epoch, 0)``, but for the ones in ``repaired``, a list of slot, round, slot, round, …
    """

    number = 11
    epoch: int
    start: int
    committed: int
    repaired: tuple[int, ...] = ()


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
