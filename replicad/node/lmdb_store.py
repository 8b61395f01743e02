"""The store on LMDB: three named databases of a node's environment per group, and what is not yet written to them."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import lmdb

from replicad.core.kv.machine import STATE, slot_of
from replicad.core.kv.store import StoreFullError
from replicad.core.model.errors import RequestError, check
from replicad.node.lmdb_environment import (
    LOADING,
    MAP_SIZE,
    TRUST,
    StoreEnvironment,
    StoreView,
    identity_of,
    open_databases,
    trusts,
)
from replicad.node.write_behind import Layer

__all__ = ["MAP_SIZE", "LmdbStore", "StoreEnvironment", "StoreFailedError", "StoreFullError", "StoreView"]

VIEWS_MAX = 32
"""Long read transactions that one store hands out at a time: each keeps the pages it sees from being reused."""
LAYER_KEYS = 4_096
LAYER_KEYS_MIN = 256
LAYER_KEYS_FIRST = 512
LAYER_BYTES = 4 * 1024 * 1024
LAYER_COMMITS = 256
"""A store's layer of unwritten changes is full, and written, when one of these is reached. The commits bound what a
restart applies again when few keys change often."""
FLUSH_SECONDS = 0.0015
"""Processor time that writing a layer should take at most, since it holds the loop, and that of the other replicas at
the same moment. Keys that lie far apart in a large store take five times as long as neighbours, so the number of keys
that make a layer full follows the last one's time.
"""
UNWRITTEN_BYTES = 32 * 1024 * 1024
"""Of all groups' unwritten changes together; then the largest layer is written."""


class StoreFailedError(Exception):
    """A write failed for another reason: this store is not trusted any more, and is rebuilt at the next start."""


class LmdbStore:
    """The :class:`~replicad.core.kv.store.Store` protocol on three named databases of an environment.

    What is committed goes to a layer in memory first (see ``write_behind``). A full layer is written to the databases
    in one transaction, so these always hold the state after some slot: what a killed process had not written yet is
    applied again from the message log. A commit with ``flush`` leaves nothing unwritten.
    """

    def __init__(self, environment: StoreEnvironment, group: str) -> None:
        """Open (or create) the group's databases."""
        self.environment = environment
        self.group = group
        self._lmdb = environment.lmdb
        self._databases = open_databases(self._lmdb, group, create=True)
        self._kv, self._requests, self._meta = self._databases
        self._pending: Layer | None = None
        """What the open transaction has written so far."""
        self._recent = Layer()
        self._keys_max = LAYER_KEYS_FIRST
        self._direct: lmdb.Transaction | None = None
        """LMDB's own transaction, if the open one goes there at once; then it holds the layer, too."""
        self._read: lmdb.Transaction | None = None
        self._views = 0
        self._marked = self.get_meta(TRUST) == environment.identity
        self.end_read()
        environment.stores.append(self)

    # --- transactions ---

    def begin(self) -> None:
        """Open the write transaction; raises StoreFullError or StoreFailedError if no more can be kept unwritten."""
        check(self._pending is None, "a write transaction is open already")
        recent = self._recent
        if len(recent.entries) >= self._keys_max or recent.size >= LAYER_BYTES or recent.commits >= LAYER_COMMITS:
            self.flush()
        elif self.environment.unwritten >= UNWRITTEN_BYTES:
            self.environment.relieve()
        self._pending = Layer()
        if not self._marked:
            self._pending.meta[TRUST] = self.environment.identity

    def commit(self, *, flush: bool = False) -> None:
        """Make all writes since :meth:`begin` visible; with ``flush`` also in the databases, for other processes.

        Only a flush, or the end of a load, raises StoreFullError or StoreFailedError: then call abort.
        """
        pending = self._open()
        if flush or self._direct is not None:
            self._write_through(pending)
        else:
            self.environment.unwritten += self._recent.absorb(pending)
        state = pending.meta.get(STATE)
        if state is not None:
            self.environment.note_reached(self.group, slot_of(state))
        self._marked = True
        self._pending = None

    @property
    def writing(self) -> bool:
        """Whether a write transaction is open."""
        return self._pending is not None

    def abort(self) -> None:
        """Forget all writes since :meth:`begin`."""
        self._open()
        self._pending = None
        self._end_direct()
        self._marked = self.get_meta(TRUST) == self.environment.identity

    def flush(self) -> None:
        """Write what is committed and not yet in the databases; raises StoreFullError (nothing is lost) or
        StoreFailedError.
        """
        check(self._pending is None, "a write transaction is open")
        if not self._recent:
            return
        keys = len(self._recent.entries)
        begin = time.thread_time()
        try:
            self._write_through(Layer())
        except (StoreFullError, StoreFailedError):
            self._end_direct()
            raise
        if keys >= LAYER_KEYS_MIN:
            wanted = int(keys * FLUSH_SECONDS / max(time.thread_time() - begin, 1e-6))
            self._keys_max = max(LAYER_KEYS_MIN, min(wanted, 2 * self._keys_max, LAYER_KEYS))

    def _open(self) -> Layer:
        if self._pending is None:
            check(condition=False, message="a write needs an open transaction")
            raise AssertionError
        return self._pending

    def _reader(self) -> lmdb.Transaction:
        """Return LMDB's own write transaction, or a read transaction kept until something was written."""
        if self._direct is not None:
            return self._direct
        if self._read is None:
            self._read = self._lmdb.begin(db=self._kv)
        return self._read

    def end_read(self) -> None:
        """End the kept read transaction: an idle one would keep every page that is replaced from being reused."""
        if self._read is not None:
            self._read.abort()
            self._read = None

    def _failure(self, error: lmdb.Error) -> Exception:
        code = getattr(error, "code", 0)  # errno, or LMDB's own negative number
        full = isinstance(error, lmdb.MapFullError) or code == errno.ENOSPC
        if full or (code == errno.EIO and self.environment.crowded()):  # LMDB's name of a write that was cut short
            return StoreFullError(f"the store of group {self.group!r} cannot grow: {error}")
        self.environment.distrust()
        return StoreFailedError(f"the store of group {self.group!r} failed: {error}")

    # --- writing to the databases ---

    @property
    def unwritten(self) -> int:
        """About how many bytes of memory the unwritten changes take."""
        return self._recent.size

    def _forget_layer(self) -> None:
        self.environment.unwritten -= self._recent.size
        self._recent = Layer()

    def _begin_direct(self, *, empty: bool = False) -> lmdb.Transaction:
        """Return LMDB's own write transaction with the layer in it, or with nothing at all; raises StoreFullError."""
        if self._direct is None:
            for store in (self, *self.environment.stores):  # a reader of another group pins the pages of all
                store.end_read()
            try:
                self._direct = self._lmdb.begin(write=True, db=self._kv)
                if not empty:
                    self._recent.write(self._direct, self._databases)
            except lmdb.Error as error:
                raise self._failure(error) from error
        return self._direct

    def _write_through(self, pending: Layer) -> None:
        """Commit the layer and ``pending`` to the databases."""
        transaction = self._begin_direct()
        try:
            pending.write(transaction, self._databases)
            transaction.commit()
        except lmdb.Error as error:
            raise self._failure(error) from error
        self._direct = None
        self._forget_layer()

    def _end_direct(self) -> None:
        if self._direct is not None:
            transaction, self._direct = self._direct, None
            with suppress(lmdb.Error):  # a failed commit has ended it already
                transaction.abort()

    def _now(self) -> StoreView:
        """Return everything as it is now; not to be closed."""
        below = self._recent if self._direct is None else None
        layers = [layer for layer in (below, self._pending) if layer]
        return StoreView(self._reader(), self._databases, layers)

    # --- entries, request records, meta values ---

    def get(self, key: bytes) -> bytes | None:
        """Return the entry of ``key`` (inside a write transaction: as written so far)."""
        pending = self._pending
        if pending is not None and key in pending.entries:
            return pending.entries[key]
        if self._direct is None and key in self._recent.entries:
            return self._recent.entries[key]
        # The write transaction and the cached read transaction both have the entries as their own database.
        transaction = self._direct or self._read or self._reader()
        return transaction.get(key)  # type: ignore[return-value] # without `buffers` it is bytes

    def put(self, key: bytes, entry: bytes) -> None:
        """Write an entry."""
        self._pending.entries[key] = entry  # type: ignore[union-attr] # no call for a check on the hottest path

    def delete(self, key: bytes) -> None:
        """Remove an entry; an absent one is no error."""
        self._open().entries[key] = None

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``(key, entry)`` in key order for keys that start with ``prefix`` and are greater than ``after``.

        Read it to the end, or stop, before the next write; use :meth:`view` for what takes longer.
        """
        return self._now().scan(prefix, after)

    def put_requests(self, slot: int, record: bytes) -> None:
        """Keep the request record of one slot."""
        self._open().records[slot] = record

    def delete_requests(self, slot: int) -> None:
        """Drop the request record of one slot."""
        self._open().records[slot] = None

    def scan_requests(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(slot, record)`` in slot order."""
        return self._now().scan_requests()

    def get_meta(self, name: str) -> bytes | None:
        """Return a meta value."""
        return self._now().get_meta(name)

    def put_meta(self, name: str, value: bytes) -> None:
        """Write a meta value."""
        self._open().meta[name] = value

    def clear(self) -> None:
        """Remove everything, meta values included (inside a write transaction); the trust marker comes back."""
        self._open()
        # First: were it the other way round, a process killed in between would be missing the slots that are named.
        self.environment.note_reached(self.group, 0)
        transaction = self._begin_direct(empty=True)
        try:
            for database in self._databases:
                transaction.drop(database, delete=False)
        except lmdb.Error as error:
            raise self._failure(error) from error
        self._pending = Layer()
        self.put_meta(TRUST, self.environment.identity)

    # --- beyond the protocol ---

    def load_entries(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Write ``(key, entry)`` pairs in key order, all above what is there: many times faster than single puts."""
        self._open()
        transaction = self._begin_direct()
        try:
            with transaction.cursor(self._kv) as cursor:
                cursor.putmulti(pairs, append=True)
        except lmdb.Error as error:
            raise self._failure(error) from error

    def set_loading(self, *, loading: bool) -> None:
        """Note (inside a write transaction) that a checkpoint is being loaded: until it is, nothing here is true.

        It is in the databases with this transaction's commit: a load that is cut short must be known to the next start.
        """
        self._open().meta[LOADING] = b"1" if loading else None
        self._begin_direct()

    def trusted(self, disk: str, machine_boot: str) -> bool:
        """Return whether this group's content was committed by this disk on this boot, and no load was cut short."""
        return trusts(self, identity_of(disk, machine_boot))

    @contextmanager
    def view(self) -> Iterator[StoreView]:
        """Give a view of the committed content, for long listings; raises RequestError(overloaded) over VIEWS_MAX."""
        if self._views >= VIEWS_MAX:
            raise RequestError("overloaded", f"{VIEWS_MAX} long listings are being read already; try again shortly")
        self._views += 1
        try:
            layers = [self._recent.copy()] if self._recent else []
            with StoreView(self._lmdb.begin(db=self._kv), self._databases, layers) as view:
                yield view
        finally:
            self._views -= 1

    def close(self) -> None:
        """Write what is committed, if that can be done, and end the transactions; uncommitted writes are lost."""
        if self not in self.environment.stores:
            return
        if self._pending is not None:
            self.abort()
        with suppress(StoreFullError, StoreFailedError):
            self.flush()
        self._forget_layer()
        self.end_read()
        self.environment.stores.remove(self)
