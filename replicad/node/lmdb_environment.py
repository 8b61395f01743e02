"""The LMDB files of one node, and how they are read: opened only if they can be trusted.

Written in transactions of many applied slots and never synced: the store is what a process may lose with its
machine, since checkpoint and message log rebuild it. So it is trusted only on the boot of the machine on which it was
written (what a killed process wrote is still in the page cache), which a small file beside it tells *before* LMDB maps
a file that a power cut may have torn.

Never ``writemap``: on a full disk a store through the map is a SIGBUS, a failed ``pwrite`` is an error. The map size is
address space, not disk space: fixed far above need, so that it never has to grow under readers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

import lmdb

from replicad.core.journal.startup import StoreFound
from replicad.core.kv.machine import read_state
from replicad.core.kv.store import StoreReader
from replicad.core.model.errors import DamageError
from replicad.core.model.limits import KEY_BYTES_MAX
from replicad.node.reached import Reached
from replicad.node.write_behind import Databases, Layer, changes, merged

MAP_SIZE = 64 * 1024**3
DATABASES_MAX = 1024
"""Three a group: what is not open costs nothing."""
CROWDED_BYTES = 1024 * 1024
FORMAT_VERSION = 3
"""Of entries, request records and the names of the databases. Content of another format is made again.

Version 2 is written the same, but its store could be ahead of the message log, by a checkpoint whose record was lost.
"""

REACHED = "reached"
TRUST = "trust"
"""The file, and the meta value of a group, that say whose content this is."""
LOADING = "loading"
"""The meta value of a group that is there while a checkpoint is being loaded."""


class Writer(Protocol):
    """A store with changes that are not in the databases yet (``LmdbStore``)."""

    @property
    def unwritten(self) -> int:
        """About how many bytes of memory they take."""

    def flush(self) -> None:
        """Write them."""

    def end_read(self) -> None:
        """End the read transaction that it keeps."""


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
        self.identity = identity_of(disk, machine_boot)
        self.readonly = readonly
        self.stores: list[Writer] = []
        self.unwritten = 0
        """Bytes of memory that the stores' unwritten changes take together."""
        self.leftovers: dict[str, None] = {}
        """Groups that were dropped, and whose databases could not be deleted."""
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
        self.reached: Reached | None = None if readonly else Reached(path / REACHED)
        self.lmdb.reader_check()  # readers that were killed must not keep old pages alive

    def _discard_foreign(self) -> None:
        trust = self.path / TRUST
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
        (self.path / TRUST).unlink(missing_ok=True)

    def note_reached(self, group: str, slot: int) -> None:
        """Note how far a group's store has come, written to the databases or not; see ``reached``."""
        if self.reached is not None:
            self.reached.note(group, slot)

    def reached_by(self, group: str) -> int:
        """Return the slot that a group's store had applied when its process ended, however that was (0: unknown)."""
        return self.reached.slot(group) if self.reached is not None else 0

    def groups(self) -> list[str]:
        """Return the names of the groups that have databases here."""
        with self.lmdb.begin() as transaction:
            names = [bytes(key).decode() for key in transaction.cursor().iternext(values=False)]
        return sorted(name.removesuffix("/meta") for name in names if name.endswith("/meta"))

    def view(self, group: str) -> StoreView:
        """Return a view of a group's databases as they are now; raises KeyError if there are none. Close it."""
        try:
            databases = open_databases(self.lmdb, group, create=False)
        except lmdb.NotFoundError as error:
            raise KeyError(f"there is no group {group!r} in {self.path}") from error
        return StoreView(self.lmdb.begin(db=databases[0]), databases)

    def drop(self, group: str) -> None:
        """Delete a group's databases; no store or view of it may be used any more.

        A failure (a full disk) leaves them behind: they count for nothing, neither here nor at a later start.
        """
        if self.reached is not None:
            self.reached.forget(group)
        try:
            databases = open_databases(self.lmdb, group, create=False)
            with self.lmdb.begin(write=True) as transaction:
                for database in databases:
                    transaction.drop(database, delete=True)
        except lmdb.NotFoundError:
            pass
        except lmdb.Error:
            self.leftovers[group] = None
            self.distrust()

    def relieve(self) -> None:
        """Have the store with the most unwritten changes write them: an idle group must not keep memory for ever."""
        max(self.stores, key=lambda store: store.unwritten).flush()

    def size(self) -> int:
        """Return the bytes of the data file that are in use (free pages inside it included)."""
        return int(self.lmdb.info()["last_pgno"] + 1) * int(self.lmdb.stat()["psize"])

    def crowded(self) -> bool:
        """Return whether the file system has next to no space: LMDB reports a short write as an I/O error."""
        return shutil.disk_usage(self.path).free < CROWDED_BYTES

    def close(self) -> None:
        """Close the files; every view and store must be closed before."""
        if self.reached is not None:
            self.reached.close()
            self.reached = None
        self.lmdb.close()

    def destroy(self) -> None:
        """Close and delete the files."""
        self.close()
        _delete_files(self.path)


def _delete_files(path: Path) -> None:
    # Trust goes first: half-deleted files must not be believed.
    for name in (TRUST, REACHED, "data.mdb", "lock.mdb"):
        (path / name).unlink(missing_ok=True)


def identity_of(disk: str, machine_boot: str) -> bytes:
    """Return what says whose content this is; another format of entries or request records is another's."""
    return f"{FORMAT_VERSION} {disk} {machine_boot}".encode()


def trusts(content: StoreReader, identity: bytes) -> bool:
    """Return whether a group's content was committed by ``identity``, and no load was cut short."""
    return content.get_meta(TRUST) == identity and content.get_meta(LOADING) is None


def store_found(content: StoreReader, identity: bytes, reached: int) -> StoreFound | None:
    """Return what a start finds of a group's content; ``reached``: its applied watermark (0: unknown)."""
    if not trusts(content, identity):
        return None
    try:
        return StoreFound(read_state(content)[0], reached)
    except DamageError as error:
        return StoreFound(damage=str(error))


def open_databases(environment: lmdb.Environment, group: str, *, create: bool) -> Databases:
    """Return a group's databases: entries, request records, meta values; raises lmdb.NotFoundError, lmdb.Error."""
    names = (f"{group}/{kind}".encode() for kind in ("kv", "requests", "meta"))
    return tuple(environment.open_db(name, create=create) for name in names)


class StoreView:
    """A group's content at one moment. The ``StoreReader`` protocol.

    It is what a read transaction sees, as the ``layers`` above it, the newest last, change it.
    """

    def __init__(self, transaction: lmdb.Transaction, databases: Databases, layers: Sequence[Layer] = ()) -> None:
        self._transaction = transaction
        self._kv, self._requests, self._meta = databases
        self._layers = layers

    def get(self, key: bytes) -> bytes | None:
        """Return the entry of ``key``."""
        for layer in reversed(self._layers):
            if key in layer.entries:
                return layer.entries[key]
        return cast("bytes | None", self._transaction.get(key, None, self._kv))

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``(key, entry)`` in key order for keys that start with ``prefix`` and are greater than ``after``."""
        below = _scan(self._transaction, self._kv, prefix, after)
        return merged(below, changes(self._layers, prefix, after)) if self._layers else below

    def scan_requests(self) -> Iterator[tuple[int, bytes]]:
        """Yield ``(slot, record)`` in slot order."""
        above = {slot: record for layer in self._layers for slot, record in layer.records.items()}
        cursor = cast("Iterator[tuple[bytes, bytes]]", iter(self._transaction.cursor(self._requests)))
        below = ((int.from_bytes(key, "big"), record) for key, record in cursor)
        return merged(below, {slot: above[slot] for slot in sorted(above)})

    def get_meta(self, name: str) -> bytes | None:
        """Return a meta value."""
        for layer in reversed(self._layers):
            if name in layer.meta:
                return layer.meta[name]
        return cast("bytes | None", self._transaction.get(name.encode(), None, self._meta))

    def entries(self) -> int:
        """Return how many keys the databases hold."""
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


def _scan(
    transaction: lmdb.Transaction, database: lmdb._Database, prefix: bytes, after: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    """Yield ``(key, entry)`` from one database of a transaction; see ``StoreView.scan``."""
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
