"""The slots that a replica holds in memory: accepted and decided values with their ballots.

Invariant: ``base <= committed <= highest``. Slots up to ``committed`` are decided; above it they are accepted only.
Slots up to ``base`` have been truncated (a checkpoint covers them).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from replicad.core.model.errors import check
from replicad.core.model.operations import CONFIGURATION

if TYPE_CHECKING:
    from replicad.core.journal.recovery import DurableState
    from replicad.core.model.messages import Entry

_CONFIGURATION_START = bytes((0x92, CONFIGURATION))

Held = tuple[int, int, bytes]
"""``(epoch, round, value)`` of one slot."""


def value_digest(value: bytes) -> bytes:
    """Return the 16-byte digest by which candidates compare values."""
    return hashlib.blake2b(value, digest_size=16).digest()


def batch_kind(value: bytes) -> int:
    """Return the kind of an encoded batch without decoding it: a two-element array starts with 0x92 and the kind."""
    check(len(value) >= 3 and value[0] == 0x92, "a slot holds bytes that are no batch")
    return value[1]


def is_configuration(value: bytes) -> bool:
    """Return whether an encoded batch is a configuration entry."""
    return value[:2] == _CONFIGURATION_START


class SlotLog:
    """Slots by number. A slot above ``committed`` may be overwritten at a higher ballot, one below never."""

    def __init__(self, durable: DurableState) -> None:
        """Take over what the message log holds, and is known to be decided: a store's position decides nothing here.

        A store may stand at a checkpoint that came from others; what was accepted here below it was maybe never chosen.
        """
        self.entries: dict[int, Held] = {
            slot: (entry.epoch, entry.round, entry.value) for slot, entry in durable.entries.items()
        }
        checkpoint = durable.checkpoint.slot if durable.checkpoint else 0
        self.committed = max(durable.committed, checkpoint)
        base = self.committed
        while base > checkpoint and base in self.entries:
            base -= 1
        self.base = base
        self.lowest = base + 1
        """No entry is below this; after a rebuild from an older checkpoint it can be below the base."""
        for slot in [slot for slot in self.entries if slot <= base]:
            del self.entries[slot]
        self.highest = max(self.entries, default=self.committed)
        self.highest = max(self.highest, self.committed)
        self.bytes = sum(len(entry[2]) for entry in self.entries.values())
        self._configurations = {slot: True for slot, held in self.entries.items() if is_configuration(held[2])}
        """Slots held that may be undecided configuration entries."""

    def get(self, slot: int) -> Held | None:
        """Return what is held for ``slot``."""
        return self.entries.get(slot)

    def put(self, slot: int, epoch: int, round_: int, value: bytes) -> None:
        """Hold ``value`` for ``slot``; a decided slot never changes its value."""
        old = self.entries.get(slot)
        if old is not None:
            check(
                slot > self.committed or old[2] == value,
                f"slot {slot} is decided and was given another value",
                "decided",
            )
            self.bytes -= len(old[2])
        self.entries[slot] = (epoch, round_, value)
        if is_configuration(value):
            self._configurations[slot] = True
        elif self._configurations:
            self._configurations.pop(slot, None)
        self.lowest = min(self.lowest, slot)
        self.bytes += len(value)
        self.highest = max(self.highest, slot)

    def advance(self, slot: int) -> None:
        """Mark every slot up to ``slot`` as decided."""
        check(slot >= self.committed, "the committed prefix never shrinks", "committed rises")
        self.committed = slot
        self.highest = max(self.highest, slot)

    def page(self, first: int, last: int, limit: int) -> tuple[Entry, ...]:
        """Return consecutive held slots from ``first`` to at most ``last``, about ``limit`` bytes (at least one)."""
        page: list[Entry] = []
        size = 0
        for slot in range(first, last + 1):
            held = self.entries.get(slot)
            if held is None or (page and size + len(held[2]) > limit):
                break
            page.append((slot, *held))
            size += len(held[2]) + 32
        return tuple(page)

    def truncate(self, slot: int) -> None:
        """Forget the slots up to ``slot``, all of them decided and covered by a committed checkpoint."""
        check(slot <= self.committed, "only decided slots are truncated", "truncated")
        for number in range(self.lowest, slot + 1):
            held = self.entries.pop(number, None)
            if held is not None:
                self.bytes -= len(held[2])
        self.base = max(self.base, slot)
        self.lowest = max(self.lowest, slot + 1)

    def reset_to(self, slot: int) -> None:
        """A checkpoint at ``slot`` replaces everything up to it; accepted slots above stay as they are."""
        for number in [number for number in self.entries if number <= slot]:
            self.bytes -= len(self.entries.pop(number)[2])
        self.base = max(self.base, slot)
        self.committed = max(self.committed, slot)
        self.highest = max(self.highest, slot)

    def open_configuration(self) -> bool:
        """Return whether some undecided slot holds a configuration entry (then nothing may be assigned, rule M1)."""
        if not self._configurations:
            return False
        self._configurations = {slot: True for slot in self._configurations if slot > self.committed}
        return bool(self._configurations)
