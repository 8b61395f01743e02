"""Checkpoint files of a node: written by a worker process, kept, sent in chunks, received, verified and loaded.

Files are ``DIR/<group>-<slot>.ckpt`` (complete and verified), ``.part`` (being written by the worker), ``.in`` (being
received) and ``.old`` (being deleted). A file is called ``.ckpt`` only after its digest was recomputed from the bytes
on disk.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgpack

from replicad.core.journal.checkpoints import (
    CheckpointDecoder,
    CheckpointHeader,
    Entries,
    Part,
    check_owner,
    write_part,
)
from replicad.core.journal.kept_checkpoints import KeptCheckpoints
from replicad.core.kv.digest import StateDigest
from replicad.core.kv.machine import write_state
from replicad.core.model.errors import DamageError
from replicad.core.model.limits import STATE_MACHINE_VERSION
from replicad.node.checkpoint_worker import sync_directory
from replicad.node.lmdb_store import MAP_SIZE, LmdbStore, StoreFullError

RATE_BYTES_PER_SECOND = 64 * 1024 * 1024
PIN_TIMEOUT_SECONDS = 2.0
"""The node applies nothing while it waits for a pin, so a worker that takes longer is ended."""
RESPAWN_SECONDS = (0.2, 10.0)
"""Shortest and longest pause before a worker that ended is replaced; it doubles with each that wrote nothing."""
SLICE_BYTES = 32 * 1024
SLICE_SECONDS = 0.002
"""Bytes of a checkpoint that are read at a time when it is loaded, and time after which the loop gets its turn."""


class CheckpointError(Exception):
    """A checkpoint was not written; the store is not to blame. Try again at the next marker."""


class Written(NamedTuple):
    """A checkpoint file that was written and verified: slot, digest, size in bytes."""

    slot: int
    digest: bytes
    size: int


class Writing(NamedTuple):
    """What the worker is at: the future is told the file, or why there is none."""

    group: str
    slot: int
    written: asyncio.Future[Written]


class Checkpointer:
    """The node's side of the worker process; one for all groups. Runs on one event loop."""

    def __init__(
        self,
        directory: Path,
        store: Path,
        cluster: str,
        *,
        map_size: int = MAP_SIZE,
        rate: int = RATE_BYTES_PER_SECOND,
        machine_version: int = STATE_MACHINE_VERSION,
    ) -> None:
        """Write files to ``directory`` from the store at ``store``, at most ``rate`` bytes a second."""
        self._opening = ("open", str(store), map_size, str(directory), rate)
        self._cluster = cluster
        self._machine_version = machine_version
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._jobs = 0
        self._pins: dict[int, asyncio.Future[None]] = {}
        self._writes: dict[int, Writing] = {}
        self._pause = RESPAWN_SECONDS[0]
        self.workers_started = 0
        directory.mkdir(parents=True, exist_ok=True)

    async def start(self) -> None:
        """Start the worker; from now on one that ends is replaced."""
        await self._spawn()
        self._task = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """End the worker; what it was writing fails."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._end()

    async def pin(self, group: str, slot: int, ids: tuple[str, str] = ("", "")) -> asyncio.Future[Written]:
        """Hold the store's content at ``slot``, which it must have committed, and start to write it.

        ``ids``: those of the cluster and of the group's incarnation, as far as they are known.
        Returns when the content is held: only then may the store be committed to again. The future gives the file
        that was written, or raises CheckpointError, or DamageError if the store contradicts its own digest.
        Raises CheckpointError at once if nothing can be held. An older checkpoint of the group that is still being
        written is cancelled.
        """
        self.cancel(group, f"superseded by the checkpoint at slot {slot}")
        process = self._process
        if process is None or process.stdin is None:
            raise CheckpointError("the checkpoint worker is not running; it is started again shortly")
        loop = asyncio.get_running_loop()
        self._jobs += 1
        job = self._jobs
        pinned: asyncio.Future[None] = loop.create_future()
        written: asyncio.Future[Written] = loop.create_future()
        # A caller that gave up must not make the loop complain about an error that nobody fetched.
        written.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._pins[job] = pinned
        self._writes[job] = Writing(group, slot, written)
        try:
            process.stdin.write(msgpack.packb(("write", job, self._cluster, group, self._machine_version, slot, ids)))
            async with asyncio.timeout(PIN_TIMEOUT_SECONDS):
                await pinned
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            raise CheckpointError(f"the checkpoint worker did not answer within {PIN_TIMEOUT_SECONDS} s") from None
        finally:
            self._pins.pop(job, None)
        return written

    def cancel(self, group: str, why: str) -> None:
        """Stop writing the group's checkpoint, if one is being written: it fails with the reason ``why``."""
        jobs = [job for job, writing in self._writes.items() if writing.group == group]
        for job in jobs:
            self._fail(job, CheckpointError(why))
        if jobs and self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(msgpack.packb(("cancel", group)))

    async def _spawn(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "replicad.node.checkpoint_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        if process.stdin is not None:
            process.stdin.write(msgpack.packb(self._opening))
        self.workers_started += 1
        self._process = process

    async def _supervise(self) -> None:
        while True:
            await self._listen()
            await self._end()
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, RESPAWN_SECONDS[1])
            with suppress(OSError):
                await self._spawn()

    async def _listen(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        unpacker = msgpack.Unpacker(use_list=False)
        while data := await process.stdout.read(65536):
            unpacker.feed(data)
            for answer in unpacker:
                self._on_answer(*answer)

    def _on_answer(self, kind: str, job: int, *rest: object) -> None:
        match kind, rest:
            case "pinned", _:
                pinned = self._pins.get(job)
                if pinned is not None and not pinned.done():
                    pinned.set_result(None)
            case "written", (bytes(digest), int(size)):
                self._pause = RESPAWN_SECONDS[0]
                writing = self._writes.pop(job, None)  # None: it was cancelled when it was as good as written
                if writing is not None and not writing.written.done():
                    writing.written.set_result(Written(writing.slot, digest, size))
            case "failed", (bool(damaged), str(reason)):
                self._fail(job, DamageError(reason) if damaged else CheckpointError(reason))

    def _fail(self, job: int, error: Exception) -> None:
        writing = self._writes.pop(job, None)
        if writing is None:
            return
        for future in (self._pins.pop(job, None), writing.written):
            if future is not None and not future.done():
                future.set_exception(error)

    async def _end(self) -> None:
        process, self._process = self._process, None
        for job in list(self._writes):
            self._fail(job, CheckpointError("the checkpoint worker ended"))
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class CheckpointFiles:
    """The checkpoint files of one group in a directory. Times are microseconds, given by the caller."""

    def __init__(self, directory: Path, cluster: str, group: str) -> None:
        """Look into ``directory`` (created if absent); what was being written or received before is deleted."""
        self._directory = directory
        self._cluster = cluster
        self._group = group
        self.ids: Callable[[], tuple[str, str]] = lambda: ("", "")
        """Cluster id and incarnation of the group as far as they are known: a received file must have the same."""
        self._kept = KeptCheckpoints()
        self._deleting: asyncio.Future[None] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        for suffix in ("part", "in", "old"):
            for path in self._paths(suffix).values():
                path.unlink(missing_ok=True)

    def path(self, slot: int, suffix: str = "ckpt") -> Path:
        """Return the path of a file."""
        return self._directory / f"{self._group}-{slot}.{suffix}"

    def slots(self) -> list[int]:
        """Return the slots of the complete files, the newest first."""
        return sorted(self._paths("ckpt"), reverse=True)

    def _paths(self, suffix: str) -> dict[int, Path]:
        found = {}
        for path in self._directory.glob(f"*.{suffix}"):
            group, _, slot = path.stem.rpartition("-")
            if group == self._group and slot.isdecimal():
                found[int(slot)] = path
        return found

    def remove(self) -> None:
        """Delete all files: the group is gone from this node."""
        for suffix in ("ckpt", "part", "in", "old"):
            for path in self._paths(suffix).values():
                path.unlink(missing_ok=True)

    # --- keeping and sending ---

    def committed(self, slot: int, now: int) -> None:
        """Note that the group committed the checkpoint at ``slot``: older files go, unless they are being sent."""
        self._kept.commit(slot)
        self.sweep(now)

    def sweep(self, now: int) -> None:
        """Delete older files whose transfer has ended meanwhile; call it now and then, on the event loop.

        They lose their names at once, and the disk space in a thread.
        """
        paths = self._paths("ckpt")
        for slot in self._kept.removable(paths, now):
            self._set_aside(paths[slot])
        self._delete_old()

    def _set_aside(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            path.replace(path.with_suffix(".old"))

    def _delete_old(self) -> None:
        """Delete what was set aside; what comes meanwhile, or fails, has its turn at the next sweep."""
        old = list(self._paths("old").values())
        if old and (self._deleting is None or self._deleting.done()):
            # Freeing a large file takes a good part of a second, in which the loop would answer nobody.
            self._deleting = asyncio.get_running_loop().run_in_executor(None, _delete, old)

    async def deleted(self) -> None:
        """Wait until what is being deleted is gone."""
        if self._deleting is not None:
            await self._deleting

    def read_chunk(self, slot: int, offset: int, size: int, now: int) -> tuple[int, bytes]:
        """Return ``(length of the file, bytes from offset on)`` and keep the file a while; (0, b"") if it is gone."""
        try:
            with self.path(slot).open("rb", buffering=0) as file:
                total = os.fstat(file.fileno()).st_size
                data = os.pread(file.fileno(), size, offset) if offset < total else b""  # a peer's word: any number
        except FileNotFoundError:
            return 0, b""
        self._kept.read(slot, now)
        return total, data

    # --- receiving ---

    def begin(self, slot: int) -> None:
        """Drop any half-received file; the bytes of the one at ``slot`` follow from offset 0."""
        for path in self._paths("in").values():
            path.unlink(missing_ok=True)
        self.path(slot, "in").write_bytes(b"")
        self._kept.begin(slot)

    def write(self, slot: int, offset: int, data: bytes) -> None:
        """Write received bytes at the end; raises DamageError if they do not follow, StoreFullError if no space."""
        self._kept.expect(slot, offset)
        try:
            with self.path(slot, "in").open("ab", buffering=0) as file:
                file.write(data)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StoreFullError(f"no space to receive the checkpoint at slot {slot}") from error
            raise
        self._kept.receive(slot, offset, len(data))

    async def keep(self, slot: int, digest: bytes = b"") -> CheckpointHeader:
        """Verify the received file at ``slot`` and keep it, durably; return its header.

        Works in slices of a few milliseconds. A file that is not what it should be (or not the one with ``digest``, if
        that is given) is deleted, and DamageError is raised.
        """
        path = self.path(slot, "in")
        self._kept.end()
        try:
            for _ in _paced(self._verify_slices(path, slot, digest)):
                await asyncio.sleep(0)
            # A replica that rebuilds itself may be given an older one than was committed here: that file must stay.
            self._kept.install(slot)
            # In a thread: it waits for the disk, and only that, for as long as the file is large.
            header = await asyncio.to_thread(self._keep, path, slot)
        except DamageError:
            path.unlink(missing_ok=True)
            raise
        return header

    async def install(self, slot: int, store: LmdbStore) -> None:
        """Replace the store's content by the file at ``slot``, in slices of a few milliseconds.

        A file that fails now is deleted, the store is left empty, and DamageError is raised. A full disk raises
        StoreFullError and leaves a store that is not ``trusted``: install again. Nothing may be read from the store
        meanwhile, and its machine must reload afterwards.
        """
        try:
            for _ in _paced(_load_slices(self.path(slot), store)):
                await asyncio.sleep(0)
        except DamageError:
            self.path(slot).unlink(missing_ok=True)
            raise

    def _keep(self, path: Path, slot: int) -> CheckpointHeader:
        with path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
        path.replace(self.path(slot))
        sync_directory(self._directory)
        return read_header(self.path(slot))

    def _verify_slices(self, path: Path, slot: int, digest: bytes = b"") -> Iterator[None]:
        decoder = CheckpointDecoder(StateDigest())
        for _ in _parts(path, decoder):
            yield
        header = decoder.finish()
        try:
            check_owner(header, self._cluster, self._group, slot, self.ids())
        except DamageError as error:
            raise DamageError(f"{path.name} is not what was asked for: {error}") from error
        if header.machine_version > STATE_MACHINE_VERSION:
            raise DamageError(f"{path.name} is of state machine version {header.machine_version}: upgrade this node")
        if digest and header.digest != digest:
            raise DamageError(f"{path.name} has digest {header.digest.hex()}, the group's is {digest.hex()}")

    # --- starting ---

    def newest_valid(self, slots: Iterable[int] | None = None) -> int:
        """Return the newest of ``slots`` (default: all files) whose file is there and verifies in full, or 0."""
        wanted = self.slots() if slots is None else sorted(slots, reverse=True)
        for slot in wanted:
            with suppress(DamageError, FileNotFoundError):
                for _ in self._verify_slices(self.path(slot), slot):
                    pass
                return slot
        return 0

    def load(self, slot: int, store: LmdbStore) -> CheckpointHeader:
        """Replace the store's content by the file at ``slot``, verifying on the way; blocks (for start-up).

        Raises DamageError, and leaves the store empty, if the file is not what was written.
        """
        for _ in _load_slices(self.path(slot), store):
            pass
        return read_header(self.path(slot))


def _delete(paths: list[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def read_header(path: Path) -> CheckpointHeader:
    """Return the header of a checkpoint file without reading the rest; raises DamageError."""
    decoder = CheckpointDecoder(StateDigest())
    with path.open("rb", buffering=0) as file:
        while decoder.header is None and (piece := file.read(4096)):
            decoder.feed(piece)
    if decoder.header is None:
        raise DamageError(f"{path.name} is cut short")
    return decoder.header


def _paced(slices: Iterator[None]) -> Iterator[None]:
    """Yield only when a few milliseconds of work are done: an empty turn of the loop has its price, too."""
    started = time.monotonic()
    for _ in slices:
        if time.monotonic() - started >= SLICE_SECONDS:
            yield
            started = time.monotonic()


def _parts(path: Path, decoder: CheckpointDecoder) -> Iterator[list[Part]]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(SLICE_BYTES):
            yield decoder.feed(piece)
    decoder.finish()


def _load_slices(path: Path, store: LmdbStore) -> Iterator[None]:
    """Replace the store's content, one transaction a slice. A load that was cut short leaves the store untrusted."""
    decoder = CheckpointDecoder(StateDigest())
    with _transaction(store):
        store.clear()
        store.set_loading(loading=True)
    try:
        for parts in _parts(path, decoder):
            with _transaction(store):
                for part in parts:
                    if type(part) is Entries:
                        store.load_entries(part.pairs)
                    else:
                        write_part(store, part)
            yield
        header = decoder.finish()
    except DamageError:
        with _transaction(store):
            store.clear()
        raise
    with _transaction(store):
        write_state(store, header.slot, header.last_index, header.digest, header.configuration)
        store.set_loading(loading=False)


@contextmanager
def _transaction(store: LmdbStore) -> Iterator[None]:
    store.begin()
    try:
        yield
        store.commit()
    except BaseException:
        store.abort()
        raise
