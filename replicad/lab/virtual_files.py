"""A simulated node's checkpoint files: real bytes through the real codec, on a disk that keeps what has its name.

A file is written aside, verified by reading it back, flushed, and only then gets its name; so a file is complete, or
rotten, never half. Rot is found when the file is read.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from replicad.core.journal.checkpoints import (
    CheckpointDecoder,
    CheckpointEncoder,
    CheckpointHeader,
    Entries,
    Requests,
    check_owner,
    header_of,
)
from replicad.core.journal.records import CheckpointRecord
from replicad.core.kv.digest import StateDigest
from replicad.core.kv.machine import read_state, write_state
from replicad.core.kv.memory_store import MemoryStore
from replicad.core.model.errors import DamageError
from replicad.core.model.limits import STATE_MACHINE_VERSION

PIN_US = 10_000_000
"""A file that a transfer reads is kept this long after the last read (K1)."""


class VirtualFiles:
    """Checkpoint files of one group in one data directory, by slot."""

    def __init__(self, cluster: str, group: str, random: Random) -> None:
        self._cluster = cluster
        self._group = group
        self._random = random
        self.ids: Callable[[], tuple[str, str]] = lambda: ("", "")
        """Cluster id and incarnation of the group as far as they are known."""
        self._files: dict[int, bytes] = {}
        self._rotten: dict[int, bytes] = {}
        """Files that were damaged, as they are now."""
        self._pins: dict[int, int] = {}
        self._incoming: tuple[int, bytearray] = (0, bytearray())
        """The checkpoint that is being received: its slot, and its bytes so far."""
        self._committed = 0

    def slots(self) -> list[int]:
        """Return the slots of all files, newest first."""
        return sorted(self._files, reverse=True)

    def write_snapshot(self, slot: int, snapshot: MemoryStore) -> bytes:
        """Write the state in ``snapshot`` and return the digest recomputed from the bytes.

        b"": it does not verify, or is of another slot, since the store was replaced meanwhile.
        """
        state = read_state(snapshot)
        try:
            header = header_of(state, self._cluster, self._group, slot, STATE_MACHINE_VERSION, self.ids())
        except ValueError:
            return b""
        data = b"".join(CheckpointEncoder(header, snapshot))
        try:
            decode(data)
        except DamageError:
            return b""
        self._files[slot] = data
        return header.digest

    def begin(self, slot: int) -> None:
        """Drop any half-received file; the bytes of the one at ``slot`` follow from offset 0."""
        self._incoming = (slot, bytearray())

    def write(self, slot: int, offset: int, data: bytes) -> None:
        """Write received bytes at the end; raises DamageError if they do not follow."""
        incoming, received = self._incoming
        if incoming != slot or len(received) != offset:
            raise DamageError(f"bytes at {offset} of the checkpoint at {slot} do not follow what was received")
        received.extend(data)

    def keep(self, slot: int) -> bytes:
        """Verify what was received, keep it as a file and return its digest; raises DamageError."""
        incoming, received = self._incoming
        self._incoming = (0, bytearray())
        data = bytes(received) if incoming == slot else b""
        digest = read_state(self._verified(slot, data))[2]
        self._files[slot] = data
        # A replica that rebuilds itself may be given an older one than was committed here: that file must stay.
        self._committed = min(self._committed, slot)
        return digest

    def load(self, slot: int) -> MemoryStore:
        """Return the store that a file holds (slot 0: an empty one); raises DamageError."""
        return self._verified(slot, self._files[slot]) if slot else MemoryStore()

    def load_committed(self, committed: CheckpointRecord) -> MemoryStore:
        """Return the store of the checkpoint that the log names; raises DamageError, also for another one there.

        A file that was being written when the state turned out to be wrong may be done after the right one was kept.
        """
        store = self.load(committed.slot)
        if read_state(store)[2] != committed.digest:
            raise DamageError("it is not the checkpoint that the group committed")
        return store

    def read_chunk(self, slot: int, offset: int, size: int, now: int) -> tuple[int, bytes]:
        """Return ``(length of the file, bytes from offset on)``, ``(0, b"")`` if it is gone; pins the file."""
        data = self._files.get(slot)
        if data is None:
            return 0, b""
        self._pins[slot] = now + PIN_US
        return len(data), data[offset : offset + size]

    def committed(self, slot: int, now: int) -> None:
        """Note that the group committed the checkpoint at ``slot``: older files go, except pinned ones."""
        self._committed = max(self._committed, slot)
        self.sweep(now)

    def sweep(self, now: int) -> None:
        """Remove older files whose transfer has ended meanwhile."""
        for old in [old for old in self._files if old < self._committed and self._pins.get(old, 0) <= now]:
            del self._files[old]

    def forget_pins(self) -> None:
        """The process that held the pins, and was receiving, is gone."""
        self._pins.clear()
        self._incoming = (0, bytearray())
        self._committed = 0

    def image(self) -> dict[int, bytes]:
        """Return all files, by slot."""
        return dict(self._files)

    def restore(self, files: dict[int, bytes]) -> None:
        """Hold just these files."""
        self.wipe()
        self._files = dict(files)

    def wipe(self) -> None:
        """Lose everything."""
        self._files.clear()
        self._pins.clear()

    def remove(self, slot: int) -> None:
        """Delete the file at ``slot``: the group is gone from this node."""
        self._files.pop(slot, None)
        self._pins.pop(slot, None)

    def rot(self) -> str:
        """Change a byte of the newest file; returns what was done ("": there is none)."""
        slots = self.slots()
        if not slots:
            return ""
        data = bytearray(self._files[slots[0]])
        position = self._random.randrange(len(data))
        data[position] ^= self._random.randrange(1, 256)
        self._files[slots[0]] = self._rotten[slots[0]] = bytes(data)
        return f"byte {position} of checkpoint {slots[0]} changed"

    def lacks(self, slot: int) -> bool:
        """Return whether there is no whole file at ``slot`` (0: none is needed)."""
        data = self._files.get(slot)
        return bool(slot) and (data is None or data is self._rotten.get(slot))

    def _verified(self, slot: int, data: bytes) -> MemoryStore:
        header, store = decode(data)
        check_owner(header, self._cluster, self._group, slot, self.ids())
        return store


def decode(data: bytes) -> tuple[CheckpointHeader, MemoryStore]:
    """Return the header and a store with the content of a checkpoint file; raises DamageError."""
    decoder = CheckpointDecoder(StateDigest())
    store = MemoryStore()
    store.begin()
    for part in decoder.feed(data):
        if isinstance(part, Entries):
            for key, entry in part.pairs:
                store.put(key, entry)
        elif isinstance(part, Requests):
            for slot, record in part.records:
                store.put_requests(slot, record)
    header = decoder.finish()
    write_state(store, header.slot, header.last_index, header.digest, header.configuration)
    store.commit()
    return header, store
