"""The process that writes checkpoint files: ``python -m replicad.node.checkpoint_worker``.

A process of its own, because a thread would hold the interpreter that answers requests. It speaks msgpack over stdin
and stdout with :class:`~replicad.node.checkpoint.Checkpointer`, and ends when stdin does, that is, with its parent.

====================================================  =============================================================
the node says                                         the worker answers
====================================================  =============================================================
``("open", store path, map size, directory, rate)``   nothing; comes first
``("write", job, cluster, group, machine version,     ``("pinned", job)`` as soon as a read transaction holds
slot)``                                               exactly that slot, later ``("written", job, digest, bytes)``
``("cancel", group)``                                 nothing; the group's job ends and its file is deleted
====================================================  =============================================================

A write may instead be answered by ``("failed", job, damaged, reason)``; ``damaged`` says that the store's content does
not add up to its own digest. The main thread listens and pins, at the node's own priority, because the node applies
nothing until a pin is answered. Another thread, at a lower priority, writes the files of all groups in turn, a frame at
a time, and rests in between, so that the message log's flushes get the disk.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import lmdb
import msgpack

from replicad.core.journal.checkpoints import CheckpointDecoder, CheckpointEncoder, CheckpointHeader, header_of
from replicad.core.kv.digest import StateDigest
from replicad.core.kv.machine import read_state
from replicad.core.model.errors import DamageError
from replicad.node.lmdb_store import StoreEnvironment, StoreView

READ_BYTES = 256 * 1024
SYNC_BYTES = 4 * 1024 * 1024
"""Written bytes are flushed this often: one flush of a whole file would make the message log wait for all of it."""
NICENESS = 10
"""What the writing thread adds to its nice value: requests come first."""
SWITCH_SECONDS = 0.0005
"""How long the writing thread may keep the interpreter while the main thread has something to pin."""


class PinError(Exception):
    """The store is not at the slot that was asked for."""


@dataclass(slots=True, eq=False)
class Job:
    """One checkpoint to write: its number at the node, what it will claim, and the view that it reads."""

    number: int
    header: CheckpointHeader
    view: StoreView
    cancelled: threading.Event = field(default_factory=threading.Event)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_steps(view: StoreView, header: CheckpointHeader, path: Path) -> Iterator[int]:
    """Write a checkpoint file at ``path`` and make it durable, yielding the number of bytes after each step."""
    unsynced = 0
    with path.open("wb", buffering=0) as file:
        for piece in CheckpointEncoder(header, view):
            file.write(piece)
            unsynced += len(piece)
            if unsynced >= SYNC_BYTES:
                os.fdatasync(file.fileno())
                unsynced = 0
            yield len(piece)
        os.fsync(file.fileno())
        # What is verified next should come from the disk, not from the memory that it was written from.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def verify_steps(path: Path, decoder: CheckpointDecoder) -> Iterator[int]:
    """Read a checkpoint file and recompute its digest, yielding after each step; raises DamageError."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            decoder.feed(piece)
            yield len(piece)
    decoder.finish()


class Worker:
    """The worker's state: the jobs at hand. :meth:`begin` and :meth:`cancel` are the main thread's."""

    def __init__(self, store: Path, map_size: int, directory: Path, rate: int) -> None:
        self._store = store
        self._map_size = map_size
        self._directory = directory
        self._rate = rate
        self._lock = threading.Lock()
        """Guards the environment, the jobs, and answers."""
        self._environment: StoreEnvironment | None = None
        self._jobs: list[Job] = []
        self._queue: SimpleQueue[Job] = SimpleQueue()
        threading.Thread(target=self._write_all, daemon=True).start()

    def begin(
        self, number: int, cluster: str, group: str, machine_version: int, slot: int, ids: tuple[str, str]
    ) -> None:
        """Pin the store at ``slot`` and queue the writing; answers pinned or failed."""
        with self._lock:
            try:
                job = self._pin(number, cluster, group, machine_version, slot, ids)
            except (lmdb.Error, KeyError, ValueError, DamageError, PinError, OSError) as error:
                self._answer("failed", number, isinstance(error, DamageError), str(error))
                self._rest()
                return
            self._jobs.append(job)
            self._answer("pinned", number)
        self._queue.put(job)

    def cancel(self, group: str) -> None:
        """Have the group's job end; what it has written goes."""
        with self._lock:
            for job in self._jobs:
                if job.header.group == group:
                    job.cancelled.set()

    def _pin(self, number: int, cluster: str, group: str, machine_version: int, slot: int, ids: tuple[str, str]) -> Job:
        if self._environment is None:
            self._environment = StoreEnvironment(self._store, map_size=self._map_size, readonly=True)
        with ExitStack() as on_error:
            view = on_error.enter_context(self._environment.view(group))
            try:
                header = header_of(read_state(view), cluster, group, slot, machine_version, ids)
            except ValueError as error:
                raise PinError(str(error)) from error
            on_error.pop_all()
        return Job(number, header, view)

    # --- the writing thread ---

    def _write_all(self) -> None:
        os.nice(NICENESS)  # of this thread only, on Linux
        turns: deque[tuple[Job, Generator[int, None, int]]] = deque()
        while True:
            while not turns or not self._queue.empty():
                job = self._queue.get()
                turns.append((job, self._steps(job)))
            job, steps = turns.popleft()
            started = time.monotonic()
            try:
                size = 0 if job.cancelled.is_set() else next(steps)
            except StopIteration as done:
                self._end(job, "written", job.number, job.header.digest, done.value)
            except (DamageError, OSError, lmdb.Error) as error:
                self._end(job, "failed", job.number, isinstance(error, DamageError), str(error))
            else:
                if job.cancelled.wait(max(0.0, size / self._rate - (time.monotonic() - started))):
                    steps.close()
                    self._end(job)
                else:
                    turns.append((job, steps))

    def _end(self, job: Job, *answer: object) -> None:
        with self._lock:
            job.view.close()
            self._jobs.remove(job)
            if answer:
                self._answer(*answer)
            self._rest()

    def _steps(self, job: Job) -> Generator[int, None, int]:
        """Write one file, yielding the bytes of each step; returns its size. If it is closed early, the file goes."""
        path = self._directory / f"{job.header.group}-{job.header.slot}.ckpt"
        part = path.with_suffix(".part")
        try:
            yield from write_steps(job.view, job.header, part)
            job.view.close()  # before the second reading: as long as it is open the store's file grows
            yield from verify_steps(part, CheckpointDecoder(StateDigest()))
            size = part.stat().st_size
            part.replace(path)
            sync_directory(self._directory)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return size

    # --- both threads, under the lock ---

    def _rest(self) -> None:
        # Closed while idle, so that the node may delete the store and make a new one.
        if not self._jobs and self._environment is not None:
            self._environment.close()
            self._environment = None

    def _answer(self, *parts: object) -> None:
        data = msgpack.packb(parts)
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]


def main() -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the node's business; the worker goes when the node does
    sys.setswitchinterval(SWITCH_SECONDS)
    unpacker = msgpack.Unpacker(use_list=False)
    worker: Worker | None = None
    while data := os.read(sys.stdin.fileno(), 65536):
        unpacker.feed(data)
        for kind, *arguments in unpacker:
            if kind == "open":
                store, map_size, directory, rate = arguments
                worker = Worker(Path(store), map_size, Path(directory), rate)
            elif worker is not None and kind == "write":
                worker.begin(*arguments)
            elif worker is not None and kind == "cancel":
                worker.cancel(*arguments)
    # Nobody is left to be answered; an ordinary exit would tear the store down under the thread that reads it.
    os._exit(0)


if __name__ == "__main__":
    main()
