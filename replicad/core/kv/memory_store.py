"""A store in memory, for the simulator and tests. What was not committed is gone after :meth:`MemoryStore.abort`."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import TypeVar

from replicad.core.model.errors import check

_Name = TypeVar("_Name", int, str)


class MemoryStore:
    """The :class:`~replicad.core.kv.store.Store` protocol on a dictionary and a sorted list of its keys."""

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self._requests: dict[int, bytes] = {}
        self._meta: dict[str, bytes] = {}
        self._undo: list[tuple[bytes | int | str, bytes | None]] | None = None

    def snapshot(self) -> MemoryStore:
        """Return a copy of the committed content that later writes do not change."""
        check(self._undo is None, "a snapshot is taken between transactions")
        copy = MemoryStore()
        copy._entries = dict(self._entries)
        copy._keys = list(self._keys)
        copy._requests = dict(self._requests)
        copy._meta = dict(self._meta)
        return copy

    def become(self, other: MemoryStore) -> None:
        """Take over another store's content."""
        check(self._undo is None, "a store is replaced between transactions")
        self._entries, self._keys = other._entries, other._keys
        self._requests, self._meta = other._requests, other._meta

    def flush(self) -> None:
        """Have nothing unwritten: memory has nothing behind it."""

    def begin(self) -> None:
        """Open the write transaction."""
        check(self._undo is None, "a write transaction is open already")
        self._undo = []

    def commit(self, *, flush: bool = False) -> None:  # noqa: ARG002 - memory has nothing behind it
        """Keep all writes since :meth:`begin`."""
        check(self._undo is not None, "no write transaction is open")
        self._undo = None

    def abort(self) -> None:
        """Take back all writes since :meth:`begin`, the latest first."""
        check(self._undo is not None, "no write transaction is open")
        undo, self._undo = self._undo or [], None
        for name, old in reversed(undo):
            match name:
                case bytes():
                    self._set_entry(name, old)
                case int():
                    _restore(self._requests, name, old)
                case str():
                    _restore(self._meta, name, old)

    def _note(self, name: bytes | int | str, old: bytes | None) -> None:
        check(self._undo is not None, "a write needs an open transaction")
        if self._undo is not None:
            self._undo.append((name, old))

    def _set_entry(self, key: bytes, entry: bytes | None) -> None:
        if entry is None:
            if self._entries.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        else:
            if key not in self._entries:
                insort(self._keys, key)
            self._entries[key] = entry

    def get(self, key: bytes) -> bytes | None:
        """Return the entry of ``key``."""
        return self._entries.get(key)

    def put(self, key: bytes, entry: bytes) -> None:
        """Write an entry."""
        self._note(key, self._entries.get(key))
        self._set_entry(key, entry)

    def delete(self, key: bytes) -> None:
        """Remove an entry; an absent one is no error."""
        self._note(key, self._entries.get(key))
        self._set_entry(key, None)

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``(key, entry)`` in key order for keys that start with ``prefix`` and are greater than ``after``."""
        keys = self._keys
        at = bisect_left(keys, prefix)
        if after is not None:
            at = max(at, bisect_right(keys, after))
        while at < len(keys) and keys[at].startswith(prefix):
            key = keys[at]
            yield key, self._entries[key]
            at = bisect_right(keys, key)  # the position anew: the caller may have written meanwhile

    def put_requests(self, slot: int, record: bytes) -> None:
        """Keep the request record of one slot."""
        self._note(slot, self._requests.get(slot))
        self._requests[slot] = record

    def delete_requests(self, slot: int) -> None:
        """Drop the request record of one slot."""
        self._note(slot, self._requests.get(slot))
        self._requests.pop(slot, None)

    def scan_requests(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(slot, record)`` in slot order."""
        yield from sorted(self._requests.items())

    def get_meta(self, name: str) -> bytes | None:
        """Return a meta value."""
        return self._meta.get(name)

    def put_meta(self, name: str, value: bytes) -> None:
        """Write a meta value."""
        self._note(name, self._meta.get(name))
        self._meta[name] = value

    def clear(self) -> None:
        """Remove everything, meta values included."""
        for key in list(self._entries):
            self.delete(key)
        for slot in list(self._requests):
            self.delete_requests(slot)
        for name in list(self._meta):
            self._note(name, self._meta.pop(name))


def _restore(table: dict[_Name, bytes], name: _Name, old: bytes | None) -> None:
    if old is None:
        table.pop(name, None)
    else:
        table[name] = old
