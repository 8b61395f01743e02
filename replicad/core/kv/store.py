"""The store under the key-value machine: an interface with two forms, memory here and LMDB in ``node/``.

A store holds ordered ``key -> entry bytes``, one request record per slot, and a few named meta values. Writes happen
between :meth:`Store.begin` and :meth:`Store.commit`; all of them become visible together, or none.

A store may keep committed writes to itself for a while. What it holds after a crash is then an older state, but always
that after some commit: the slots that came later are applied again from the message log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class StoreFullError(Exception):
    """The disk (or the map) is full. The transaction is lost, what was committed before is intact: abort, and wait."""


class StoreReader(Protocol):
    """What can be read, from a store or from a view of it at one moment."""

    def get(self, key: bytes) -> bytes | None:
        """Return the entry of ``key`` (a store inside a write transaction: as written so far)."""

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``(key, entry)`` in key order for keys that start with ``prefix`` and are greater than ``after``."""

    def scan_requests(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(slot, record)`` in slot order."""

    def get_meta(self, name: str) -> bytes | None:
        """Return a meta value."""


class Store(StoreReader, Protocol):
    """What the machine needs from a store. Not thread-safe; one writer."""

    def begin(self) -> None:
        """Open the write transaction; may raise if there is no room to write to."""

    def commit(self, *, flush: bool = False) -> None:
        """Make all writes since :meth:`begin` visible at once; with ``flush`` also after a crash of the process.

        If it raises, nothing is visible: call :meth:`abort`.
        """

    def abort(self) -> None:
        """Forget all writes since :meth:`begin`."""

    def put(self, key: bytes, entry: bytes) -> None:
        """Write an entry."""

    def delete(self, key: bytes) -> None:
        """Remove an entry; an absent one is no error."""

    def put_requests(self, slot: int, record: bytes) -> None:
        """Keep the request record of one slot."""

    def delete_requests(self, slot: int) -> None:
        """Drop the request record of one slot."""

    def put_meta(self, name: str, value: bytes) -> None:
        """Write a meta value."""

    def clear(self) -> None:
        """Remove everything, meta values included (inside a write transaction)."""
