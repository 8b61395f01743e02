"""The store on LMDB: one environment per node, three named databases per group.

Written in one transaction per applied run of slots and never synced: the store is what a process may lose with its
machine, since checkpoint and message log rebuild it. So it is trusted only on the boot of the machine on which it was
written (what a killed process wrote is still in the page cache), which a small file beside it tells *before* LMDB maps
a file that a power cut may have torn.

Never ``writemap``: on a full disk a store through the map is a SIGBUS, a failed ``pwrite`` is an error. The map size is
address space, not disk space: fixed far above need, so that it never has to grow under readers.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import lmdb

from replicad.core.model.errors import RequestError, check
from replicad.core.model.limits import KEY_BYTES_MAX

MAP_SIZE = 64 * 1024**3
DATABASES_MAX = 1024
"""Three a group: what is not open costs nothing."""
VIEWS_MAX = 32
"""Long read transactions that one store hands out at a time: each keeps the pages it sees from being reused."""

CROWDED_BYTES = 1024 * 1024

_TRUST = "trust"
_LOADING = "loading"


class StoreFullError(Exception):
    """The disk (or the map) is full. The transaction is lost, what was committed before is intact: abort, and wait."""


class StoreFailedError(Exception):
    """A write failed for another reason: this store is not trusted any more, and is rebuilt at the next start."""


class StoreEnvironment:
    """The LMDB files of one node in ``path``, shared by its groups.

    ``disk`` and ``machine_boot`` say who trusts them: files that were written by another disk id, or on another boot
    of the machine, are deleted before they are opened. A reader (``readonly``) takes them as they are. One that knows
    that nobody writes can leave not even the trace of a reader (``locked`` False).
    """

    def __init__(
        self,
        path: Path,
        *,
        disk: str = "",
        machine_boot: str = "",
        map_size: int = MAP_SIZE,
        readonly: bool = False,
        locked: bool = True,
    ) -> None:
        """Open or create the files; raises lmdb.Error if they cannot be opened."""
        self.path = path
        self.identity = f"{disk} {machine_boot}".encode()
        self.readonly = readonly
        self.fresh = False
        """Nothing that was here before could be trusted: the store starts empty."""
        if not readonly:
            path.mkdir(parents=True, exist_ok=True)
            self._discard_foreign()
        self.lmdb = lmdb.open(
            str(path),
            map_size=map_size,
            max_dbs=DATABASES_MAX,
            readonly=readonly,
            create=not readonly,
            sync=False,
            metasync=False,
            readahead=False,  # what is hot was written by this process and is in the page cache
            lock=locked,
        )
        self.lmdb.reader_check()  # readers that were killed must not keep old pages alive

    def _discard_foreign(self) -> None:
        trust = self.path / _TRUST
        try:
            trusted = trust.read_bytes() == self.identity
        except FileNotFoundError:
            trusted = False
        if trusted:
            return
        self.fresh = True
        _delete_files(self.path)
        # Not synced: if the machine dies now, its next boot has another id, and this file says nothing to it.
        aside = trust.with_suffix(".new")
        aside.write_bytes(self.identity)
        aside.replace(trust)

    def distrust(self) -> None:
        """Make the next start begin with an empty store."""
        (self.path / _TRUST).unlink(missing_ok=True)

    def groups(self) -> list[str]:
        """Return the names of the groups that have databases here."""
        with self.lmdb.begin() as transaction:
            names = [bytes(key).decode() for key in transaction.cursor().iternext(values=False)]
        return sorted(name.removesuffix("/meta") for name in names if name.endswith("/meta"))

    def view(self, group: str) -> StoreView:
        """Return a view of a group's databases as they are now; raises KeyError if there are none. Close it."""
        try:
            databases = _open_databases(self.lmdb, group, create=False)
        except lmdb.NotFoundError as error:
            raise KeyError(f"there is no group {group!r} in {self.path}") from error
        return StoreView(self.lmdb.begin(db=databases[0]), databases)

    def drop(self, group: str) -> None:
        """Delete a group's databases; no store or view of it may be used any more. A failure leaves them behind."""
        with suppress(lmdb.Error):
            databases = _open_databases(self.lmdb, group, create=False)
            with self.lmdb.begin(write=True) as transaction:
                for database in databases:
                    transaction.drop(database, delete=True)

    def size(self) -> int:
        """Return the bytes of the data file that are in use (free pages inside it included)."""
        return int(self.lmdb.info()["last_pgno"] + 1) * int(self.lmdb.stat()["psize"])

    def crowded(self) -> bool:
        """Return whether the file system has next to no space: LMDB reports a short write as an I/O error."""
        return shutil.disk_usage(self.path).free < CROWDED_BYTES

    def close(self) -> None:
        """Close the files; every view and store must be closed before."""
        self.lmdb.close()

    def destroy(self) -> None:
        """Close and delete the files."""
        self.close()
        _delete_files(self.path)


def _delete_files(path: Path) -> None:
    # Trust goes first: half-deleted files must not be believed.
    for name in (_TRUST, "data.mdb", "lock.mdb"):
        (path / name).unlink(missing_ok=True)


def _open_databases(environment: lmdb.Environment, group: str, *, create: bool) -> tuple[lmdb._Database, ...]:
    names = (f"{group}/{kind}".encode() for kind in ("kv", "requests", "meta"))
    return tuple(environment.open_db(name, create=create) for name in names)


class StoreView:
    """A group's content at one moment: what a read transaction sees. The ``StoreReader`` protocol."""

    def __init__(self, transaction: lmdb.Transaction, databases: tuple[lmdb._Database, ...]) -> None:
        self._transaction = transaction
        self._kv, self._requests, self._meta = databases

    def get(self, key: bytes) -> bytes | None:
        """Return the entry of ``key``."""
        return cast("bytes | None", self._transaction.get(key, None, self._kv))

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``(key, entry)`` in key order for keys that start with ``prefix`` and are greater than ``after``."""
        return scan(self._transaction, self._kv, prefix, after)

    def scan_requests(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(slot, record)`` in slot order."""
        for key, record in cast("Iterator[tuple[bytes, bytes]]", iter(self._transaction.cursor(self._requests))):
            yield int.from_bytes(key, "big"), record

    def get_meta(self, name: str) -> bytes | None:
        """Return a meta value."""
        return cast("bytes | None", self._transaction.get(name.encode(), None, self._meta))

    def entries(self) -> int:
        """Return how many keys there are."""
        return int(self._transaction.stat(self._kv)["entries"])

    def close(self) -> None:
        """End the read transaction."""
        self._transaction.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def scan(
    transaction: lmdb.Transaction, database: lmdb._Database, prefix: bytes, after: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    """Yield ``(key, entry)`` from one database of a transaction; see ``Store.scan``."""
    if len(prefix) > KEY_BYTES_MAX:
        return
    start = prefix if after is None else max(prefix, after + b"\0")
    cursor = transaction.cursor(database)
    if not cursor.set_range(start):
        return
    for key, entry in cast("Iterator[tuple[bytes, bytes]]", iter(cursor)):
        if not key.startswith(prefix):
            return
        yield key, entry


class LmdbStore:
    """The :class:`~replicad.core.kv.store.Store` protocol on three named databases of an environment."""

    def __init__(self, environment: StoreEnvironment, group: str) -> None:
        """Open (or create) the group's databases."""
        self.environment = environment
        self.group = group
        self._lmdb = environment.lmdb
        self._databases = _open_databases(self._lmdb, group, create=True)
        self._kv, self._requests, self._meta = self._databases
        self._write: lmdb.Transaction | None = None
        self._read: lmdb.Transaction | None = None
        self._views = 0
        self._marked = self.get_meta(_TRUST) == environment.identity

    # --- transactions ---

    def begin(self) -> None:
        """Open the write transaction; raises StoreFailedError if LMDB refuses one."""
        check(self._write is None, "a write transaction is open already")
        self._end_read()
        try:
            self._write = self._lmdb.begin(write=True, db=self._kv)
        except lmdb.Error as error:
            raise self._failure(error) from error
        if not self._marked:
            self.put_meta(_TRUST, self.environment.identity)

    def commit(self) -> None:
        """Make all writes since :meth:`begin` visible; raises StoreFullError or StoreFailedError: then call abort."""
        try:
            self._writer().commit()
        except lmdb.Error as error:
            raise self._failure(error) from error
        self._write = None
        self._marked = True

    @property
    def writing(self) -> bool:
        """Whether a write transaction is open."""
        return self._write is not None

    def abort(self) -> None:
        """Forget all writes since :meth:`begin`."""
        transaction, self._write = self._writer(), None
        with suppress(lmdb.Error):  # a failed commit has ended it already
            transaction.abort()

    def _writer(self) -> lmdb.Transaction:
        if self._write is None:
            check(condition=False, message="a write needs an open transaction")
            raise AssertionError
        return self._write

    def _reader(self) -> lmdb.Transaction:
        """Return the open write transaction, or a read transaction kept for all reads until the next write."""
        if self._write is not None:
            return self._write
        if self._read is None:
            self._read = self._lmdb.begin(db=self._kv)
        return self._read

    def _end_read(self) -> None:
        # An idle read transaction would keep every page that is replaced meanwhile from being reused.
        if self._read is not None:
            self._read.abort()
            self._read = None

    def _failure(self, error: lmdb.Error) -> Exception:
        full = isinstance(error, lmdb.MapFullError) or os.strerror(errno.ENOSPC) in str(error)
        if full or (os.strerror(errno.EIO) in str(error) and self.environment.crowded()):
            return StoreFullError(f"the store of group {self.group!r} cannot grow: {error}")
        self.environment.distrust()
        return StoreFailedError(f"the store of group {self.group!r} failed: {error}")

    # --- entries, request records, meta values ---

    def get(self, key: bytes) -> bytes | None:
        """Return the entry of ``key`` (inside a write transaction: as written so far)."""
        # The write transaction and the cached read transaction both have the entries as their own database.
        transaction = self._write or self._read or self._reader()
        return transaction.get(key)  # type: ignore[return-value] # without `buffers` it is bytes

    def put(self, key: bytes, entry: bytes) -> None:
        """Write an entry; raises StoreFullError."""
        try:
            self._write.put(key, entry)  # type: ignore[union-attr] # no call for a check on the hottest path
        except lmdb.Error as error:
            raise self._failure(error) from error

    def delete(self, key: bytes) -> None:
        """Remove an entry; an absent one is no error. Raises StoreFullError (a removal needs pages, too)."""
        try:
            self._writer().delete(key)
        except lmdb.Error as error:
            raise self._failure(error) from error

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``(key, entry)`` in key order for keys that start with ``prefix`` and are greater than ``after``.

        Read it to the end, or stop, before the next write; use :meth:`view` for what takes longer.
        """
        return scan(self._reader(), self._kv, prefix, after)

    def put_requests(self, slot: int, record: bytes) -> None:
        """Keep the request record of one slot."""
        try:
            self._writer().put(slot.to_bytes(8, "big"), record, db=self._requests)
        except lmdb.Error as error:
            raise self._failure(error) from error

    def delete_requests(self, slot: int) -> None:
        """Drop the request record of one slot."""
        try:
            self._writer().delete(slot.to_bytes(8, "big"), db=self._requests)
        except lmdb.Error as error:
            raise self._failure(error) from error

    def scan_requests(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(slot, record)`` in slot order."""
        return StoreView(self._reader(), self._databases).scan_requests()

    def get_meta(self, name: str) -> bytes | None:
        """Return a meta value."""
        return cast("bytes | None", self._reader().get(name.encode(), None, self._meta))

    def put_meta(self, name: str, value: bytes) -> None:
        """Write a meta value."""
        try:
            self._writer().put(name.encode(), value, db=self._meta)
        except lmdb.Error as error:
            raise self._failure(error) from error

    def clear(self) -> None:
        """Remove everything, meta values included (inside a write transaction); the trust marker comes back."""
        transaction = self._writer()
        try:
            for database in self._databases:
                transaction.drop(database, delete=False)
        except lmdb.Error as error:
            raise self._failure(error) from error
        self.put_meta(_TRUST, self.environment.identity)

    # --- beyond the protocol ---

    def load_entries(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Write ``(key, entry)`` pairs in key order, all above what is there: many times faster than single puts."""
        try:
            with self._writer().cursor(self._kv) as cursor:
                cursor.putmulti(pairs, append=True)
        except lmdb.Error as error:
            raise self._failure(error) from error

    def set_loading(self, *, loading: bool) -> None:
        """Note (inside a write transaction) that a checkpoint is being loaded: until it is, nothing here is true."""
        try:
            if loading:
                self.put_meta(_LOADING, b"1")
            else:
                self._writer().delete(_LOADING.encode(), db=self._meta)
        except lmdb.Error as error:
            raise self._failure(error) from error

    def trusted(self, disk: str, machine_boot: str) -> bool:
        """Return whether this group's content was committed by this disk on this boot, and no load was cut short."""
        return self.get_meta(_TRUST) == f"{disk} {machine_boot}".encode() and self.get_meta(_LOADING) is None

    @contextmanager
    def view(self) -> Iterator[StoreView]:
        """Give a view of the committed content, for long listings; raises RequestError(overloaded) over VIEWS_MAX."""
        if self._views >= VIEWS_MAX:
            raise RequestError("overloaded", f"{VIEWS_MAX} long listings are being read already; try again shortly")
        self._views += 1
        try:
            with StoreView(self._lmdb.begin(db=self._kv), self._databases) as view:
                yield view
        finally:
            self._views -= 1

    def close(self) -> None:
        """End the transactions; uncommitted writes are lost."""
        if self._write is not None:
            self.abort()
        self._end_read()
