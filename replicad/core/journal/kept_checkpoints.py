"""Which checkpoint files of a group are kept, and whether received bytes follow each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from replicad.core.model.errors import DamageError

PIN_US = 10_000_000
"""A file that was read from less than this ago is being transferred, and stays (K1)."""


class KeptCheckpoints:
    """The complete files of one group, by slot, and the one that is being received. Times are microseconds."""

    def __init__(self) -> None:
        self._committed = 0
        self._read_at: dict[int, int] = {}
        self._receiving: tuple[int, int] | None = None

    def commit(self, slot: int) -> None:
        """Note that the group committed the checkpoint at ``slot``: older files may go."""
        self._committed = max(self._committed, slot)

    def install(self, slot: int) -> None:
        """Note that the store is about to hold the one at ``slot``, be it older than what was committed here."""
        self._committed = min(self._committed, slot)

    def read(self, slot: int, now: int) -> None:
        """Note that somebody is being sent the file at ``slot``."""
        self._read_at[slot] = now

    def removable(self, slots: Iterable[int], now: int) -> list[int]:
        """Return which of these files nobody needs any more."""
        gone = [slot for slot in slots if slot < self._committed and now - self._read_at.get(slot, -PIN_US) >= PIN_US]
        for slot in gone:
            self._read_at.pop(slot, None)
        return gone

    def begin(self, slot: int) -> None:
        """The bytes of the checkpoint at ``slot`` follow from offset 0; what was half received counts no more."""
        self._receiving = slot, 0

    def expect(self, slot: int, offset: int) -> None:
        """Raise DamageError unless bytes at ``offset`` come next."""
        if self._receiving != (slot, offset):
            raise DamageError(f"bytes at {offset} of the checkpoint at {slot} do not follow what was received")

    def receive(self, slot: int, offset: int, length: int) -> None:
        """Note that so many bytes were written there."""
        self._receiving = slot, offset + length

    def end(self) -> None:
        """Nothing is being received any more."""
        self._receiving = None
