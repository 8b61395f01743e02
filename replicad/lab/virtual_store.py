"""A simulated node's store, with the durability of the real one (LMDB that is never synced, a layer above it).

What survives what:

* the process dies: what was written to the *databases*, always the state after some commit; the applied watermark,
  which is noted with every commit; whether a load was under way;
* the machine dies: nothing of it counts any more.

A commit goes to the layer and is lost with the process until something writes the layer: a full one, a commit that asks
for it, the beginning and the end of a load.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from replicad.core.journal.startup import StoreFound
from replicad.core.kv.machine import read_state
from replicad.core.kv.memory_store import MemoryStore
from replicad.lab.crash_points import LOAD_BEGUN, LOAD_WRITTEN, STORE_WRITTEN, WATERMARK_CLEARED

ALWAYS_PPM = 1_000_000


class StoreFiles:
    """What the store has on disk."""

    def __init__(self, random: Random, write_ppm: int) -> None:
        """``write_ppm``: the share of commits that fill the layer, so that it is written (parts per million)."""
        self._random = random
        self._write_ppm = write_ppm
        self.databases = MemoryStore()
        self.reached = 0
        self.loading = False
        self.trusted = False
        """A process of this disk id and this boot of the machine wrote it, and nobody distrusts it since."""

    def found(self) -> StoreFound | None:
        """Return what a start finds."""
        if not self.trusted or self.loading:
            return None
        return StoreFound(read_state(self.databases)[0], self.reached)

    def open(self, at: Callable[[str], None]) -> VirtualStore:
        """Return the store for a new process; content that is not trusted goes first. ``at``: the crash points."""
        if not self.trusted:
            self.wipe()
            self.trusted = True
        return VirtualStore(self, at)

    def layer_is_full(self) -> bool:
        """Return whether this commit is the one that fills the layer."""
        return self._write_ppm >= ALWAYS_PPM or self._random.randrange(ALWAYS_PPM) < self._write_ppm

    def image(self) -> tuple[MemoryStore, int, bool, bool]:
        """Return a copy of everything, for :meth:`restore`."""
        return self.databases.snapshot(), self.reached, self.loading, self.trusted

    def restore(self, image: tuple[MemoryStore, int, bool, bool], *, same_boot: bool) -> None:
        """Put a copy back; what was written on another boot of the machine is not trusted."""
        databases, self.reached, self.loading, trusted = image
        self.databases = databases.snapshot()
        self.trusted = trusted and same_boot

    def wipe(self) -> None:
        """Lose everything."""
        self.databases, self.reached, self.loading, self.trusted = MemoryStore(), 0, False, False


class VirtualStore(MemoryStore):
    """What a process sees of :class:`StoreFiles`: the databases, and the layer above them."""

    def __init__(self, files: StoreFiles, at: Callable[[str], None]) -> None:
        super().__init__()
        self.files = files
        self._at = at
        self.become(files.databases.snapshot())

    def commit(self, *, flush: bool = False) -> None:
        """Keep all writes since ``begin``; note how far that is."""
        super().commit(flush=flush)
        if flush or self.files.layer_is_full():
            self.flush()
        self.files.reached = read_state(self)[0]

    def flush(self) -> None:
        """Write the layer to the databases."""
        self.files.databases = self.snapshot()
        self._at(STORE_WRITTEN)

    def begin_load(self) -> None:
        """Empty it for a checkpoint: until that is there, a start must not believe it."""
        self.files.reached = 0
        self._at(WATERMARK_CLEARED)
        self.files.databases = MemoryStore()
        self.files.loading = True
        self.become(self.files.databases.snapshot())
        self._at(LOAD_BEGUN)

    def end_load(self, content: MemoryStore) -> None:
        """Take the content of a checkpoint, or none at all."""
        self.become(content.snapshot())
        self.files.databases = self.snapshot()
        self.files.loading = False
        self._at(LOAD_WRITTEN)
        self.files.reached = read_state(self)[0]
