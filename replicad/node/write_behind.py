"""What a store has committed and not yet written to its LMDB databases: a layer of changes above them.

The truth after a crash is the message log, which holds every applied slot above what the databases hold. So a store may
keep the newest changes in memory and write hundreds or thousands of them, in key order, in one LMDB transaction: it is
cheaper by far than a transaction per run of slots, and a key that is overwritten often is written once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar, cast

import lmdb

OVERHEAD_BYTES = 256
"""What a changed key takes in memory, beside its bytes."""

_Name = TypeVar("_Name", bytes, int)
Databases = tuple[lmdb._Database, ...]  # noqa: SLF001 - the library gives its type no other name


class Layer:
    """Changes: name -> bytes, or None for what is deleted. ``size`` is about its memory in bytes."""

    __slots__ = ("commits", "entries", "meta", "records", "size")

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes | None] = {}
        self.records: dict[int, bytes | None] = {}
        self.meta: dict[str, bytes | None] = {}
        self.size = 0
        self.commits = 0

    def __bool__(self) -> bool:
        """Return whether there is anything in it."""
        return bool(self.entries or self.records or self.meta)

    def absorb(self, newer: Layer) -> int:
        """Put newer changes on top; return by how much this grew."""
        grown = len(newer.entries) * OVERHEAD_BYTES + sum(map(len, filter(None, newer.entries.values())))
        self.entries.update(newer.entries)
        self.records.update(newer.records)
        self.meta.update(newer.meta)
        self.size += grown
        self.commits += 1
        return grown

    def copy(self) -> Layer:
        """Return one with the same changes."""
        other = Layer()
        other.absorb(self)
        return other

    def write(self, transaction: lmdb.Transaction, databases: Databases) -> None:
        """Write everything; raises lmdb.Error."""
        kv, requests, meta = databases
        entries = self.entries
        pairs: list[tuple[bytes, bytes]] = []
        for key in sorted(entries):
            entry = entries[key]
            if entry is None:
                transaction.delete(key, db=kv)
            else:
                pairs.append((key, entry))
        with transaction.cursor(kv) as cursor:
            cursor.putmulti(pairs)
        for slot, record in sorted(self.records.items()):
            _write(transaction, slot.to_bytes(8, "big"), record, requests)
        for name, value in self.meta.items():
            _write(transaction, name.encode(), value, meta)


def _write(transaction: lmdb.Transaction, name: bytes, data: bytes | None, database: lmdb._Database) -> None:
    if data is None:
        transaction.delete(name, db=database)
    else:
        transaction.put(name, data, db=database)


def changes(layers: Sequence[Layer], prefix: bytes, after: bytes | None) -> dict[bytes, bytes | None]:
    """Return what the layers, the newest last, say of keys with ``prefix`` above ``after``, in key order."""
    found = {key: entry for layer in layers for key, entry in layer.entries.items() if key.startswith(prefix)}
    return {key: found[key] for key in sorted(found) if after is None or key > after}


def merged(below: Iterator[tuple[_Name, bytes]], above: dict[_Name, bytes | None]) -> Iterator[tuple[_Name, bytes]]:
    """Yield the pairs of ``below`` as ``above`` has changed them; both are in ascending order."""
    upper = iter(above.items())
    changed = next(upper, None)
    for name, data in below:
        while changed is not None and changed[0] < name:
            if changed[1] is not None:
                yield cast("tuple[_Name, bytes]", changed)
            changed = next(upper, None)
        if changed is None or changed[0] != name:
            yield name, data
    while changed is not None:
        if changed[1] is not None:
            yield cast("tuple[_Name, bytes]", changed)
        changed = next(upper, None)
