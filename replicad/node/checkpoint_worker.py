"""The process that writes checkpoint files: ``python -m replicad.node.checkpoint_worker``.

A process of its own, because a thread would hold the interpreter that answers requests. It speaks msgpack over stdin
and stdout with :class:`~replicad.node.checkpoint.Checkpointer`, and ends when stdin does, that is, with its parent.

====================================================  =============================================================
the node says                                         the worker answers
====================================================  =============================================================
``("open", store path, map size, directory, rate)``   nothing; comes first
``("write", job, cluster, group, machine version,     ``("pinned", job)`` as soon as a read transaction holds
slot)``                                               exactly that slot, later ``("written", job, digest, bytes)``
====================================================  =============================================================

Any job may instead be answered by ``("failed", job, damaged, reason)``; ``damaged`` says that the store's content does
not add up to its own digest. Work is done a frame at a time; between frames the worker listens and rests, so that a
new pin never waits for an old file, and the message log's flushes get the disk.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import lmdb
import msgpack

from replicad.core.journal.checkpoints import CheckpointDecoder, CheckpointEncoder, CheckpointHeader
from replicad.core.kv.digest import StateDigest
from replicad.core.kv.machine import read_state
from replicad.core.model.errors import DamageError
from replicad.node.lmdb_store import StoreEnvironment, StoreView

READ_BYTES = 256 * 1024
SYNC_BYTES = 4 * 1024 * 1024
"""Written bytes are flushed this often: one flush of a whole file would make the message log wait for all of it."""


class PinError(Exception):
    """The store is not at the slot that was asked for."""


class Job(NamedTuple):
    """One checkpoint that is being written: its number, its steps, and the view that it reads."""

    number: int
    steps: Iterator[int]
    view: StoreView


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
    """The worker's state: the jobs at hand. ``answer`` sends one answer."""

    def __init__(self, store: Path, map_size: int, directory: Path, rate: int) -> None:
        self._store = store
        self._map_size = map_size
        self._directory = directory
        self._rate = rate
        self._environment: StoreEnvironment | None = None
        self._jobs: deque[Job] = deque()

    @property
    def busy(self) -> bool:
        """Whether there is a file to write."""
        return bool(self._jobs)

    def begin(self, number: int, cluster: str, group: str, machine_version: int, slot: int) -> None:
        """Pin the store at ``slot`` and queue the writing; answers pinned or failed."""
        try:
            view, header = self._pin(cluster, group, machine_version, slot)
        except (lmdb.Error, KeyError, DamageError, PinError, OSError) as error:
            self._answer("failed", number, isinstance(error, DamageError), str(error))
            self._rest()
            return
        self._jobs.append(Job(number, self._steps(number, view, header), view))
        self._answer("pinned", number)

    def _pin(self, cluster: str, group: str, machine_version: int, slot: int) -> tuple[StoreView, CheckpointHeader]:
        if self._environment is None:
            self._environment = StoreEnvironment(self._store, map_size=self._map_size, readonly=True)
        with ExitStack() as on_error:
            view = on_error.enter_context(self._environment.view(group))
            applied, index, digest, configuration = read_state(view)
            if applied != slot:
                raise PinError(f"the store is at slot {applied}, not {slot}")
            on_error.pop_all()
        return view, CheckpointHeader(machine_version, cluster, group, slot, index, digest, configuration)

    def _steps(self, number: int, view: StoreView, header: CheckpointHeader) -> Iterator[int]:
        path = self._directory / f"{header.group}-{header.slot}.ckpt"
        part = path.with_suffix(".part")
        try:
            yield from write_steps(view, header, part)
            view.close()  # before the second reading: as long as it is open the store's file grows
            decoder = CheckpointDecoder(StateDigest())
            yield from verify_steps(part, decoder)
            size = part.stat().st_size
            part.replace(path)
            sync_directory(self._directory)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._answer("written", number, header.digest, size)

    def step(self) -> float:
        """Do one step of the oldest job; return how many seconds to rest after it."""
        job = self._jobs.popleft()
        started = time.monotonic()
        try:
            size = next(job.steps)
        except StopIteration:
            self._rest()
            return 0.0
        except (DamageError, OSError, lmdb.Error) as error:
            job.view.close()
            self._answer("failed", job.number, isinstance(error, DamageError), str(error))
            self._rest()
            return 0.0
        self._jobs.append(job)
        return max(0.0, size / self._rate - (time.monotonic() - started))

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
    os.nice(10)
    unpacker = msgpack.Unpacker(use_list=False)
    worker: Worker | None = None
    pause: float | None = None
    while True:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], pause)
        if readable:
            data = os.read(sys.stdin.fileno(), 65536)
            if not data:
                return
            unpacker.feed(data)
            for kind, *arguments in unpacker:
                if kind == "open":
                    store, map_size, directory, rate = arguments
                    worker = Worker(Path(store), map_size, Path(directory), rate)
                elif worker is not None:
                    worker.begin(*arguments)
        pause = worker.step() if worker is not None and worker.busy else None


if __name__ == "__main__":
    main()
