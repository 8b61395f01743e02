"""A light constant load by clients that know all addresses, and when each of its writes was acknowledged."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import NamedTuple, Self

from benchmarks.clusters.base import HttpCluster, Request
from tests.node.wire import Client, LostError, NotSentError

RETRY_SECONDS = 0.02
"""Pause of a writer before it tries the next node."""
ACKNOWLEDGED = 200
PATIENCE_SECONDS = 60.0
"""How long the first write after a fault is awaited."""


class LoadError(Exception):
    """A load did not do what it must do for a figure to mean anything."""


class Put(NamedTuple):
    """An acknowledged write: when its first attempt began and when it was acknowledged (monotonic clock, seconds)."""

    begin: float
    end: float


def port_of(cluster: HttpCluster, node: int) -> int:
    """Return the HTTP port of a node."""
    return int(cluster.http(node).rpartition(":")[2])


def longest_gap(times: Sequence[float], begin: float, end: float) -> float:
    """Return the longest distance of two neighbours of which the later one is within ``begin`` to ``end``; 0 if none.

    ``times``: ascending.
    """
    first = max(0, bisect_left(times, begin) - 1)
    return max((later - sooner for sooner, later in pairwise(times[first:]) if later <= end), default=0.0)


class Writers:
    """Writers, each with a connection to every node, that write new keys until the block ends.

    A writer stays with a node as long as that acknowledges, and tries the same write at the next one otherwise: after
    an error, and after ``attempt`` seconds without an answer. A write that is tried twice has the same key and value,
    so that the second attempt changes nothing.
    """

    def __init__(
        self, cluster: HttpCluster, *, writers: int, pause: float, attempt: float, prefix: str, value_bytes: int = 100
    ) -> None:
        """``pause``: seconds between two writes of one writer."""
        self.cluster = cluster
        self.writers = writers
        self.pause = pause
        self.attempt = attempt
        self.prefix = prefix
        self.value_bytes = value_bytes
        self.acknowledged: dict[str, bytes] = {}
        """Key -> value."""
        self.puts: list[Put] = []
        """In the order of their acknowledgement."""
        self.failed_attempts = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(self.writers)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=kind is not None)

    async def acknowledged_after(self, moment: float) -> float:
        """Wait for a write that was begun after ``moment`` and acknowledged; returns when that was."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            for task in self._tasks:
                if task.done():
                    task.result()
            for put in reversed(self.puts[self._first_since(moment) :]):
                if put.begin > moment:
                    return put.end
            await asyncio.sleep(0.005)
        raise LoadError(f"{self.cluster.name} acknowledged no write for {PATIENCE_SECONDS:.0f} s")

    async def first(self) -> float:
        """Wait for the very first acknowledged write; returns when that was."""
        await self.acknowledged_after(0.0)
        return self.puts[0].end

    def gap(self, begin: float, end: float) -> float:
        """Return the longest time without an acknowledged write, in seconds, of those gaps that end in this span."""
        return longest_gap([put.end for put in self.puts], begin, end)

    def slowest(self, begin: float, end: float, *, begun: bool = False) -> float:
        """Return the longest time that a write of this span took, in seconds; raises LoadError if there was none.

        A write is of the span if any moment of it is; with ``begun``, if it began within it.
        """
        puts = [put for put in self.puts[self._first_since(begin) :] if put.begin <= end]
        taken = [put.end - put.begin for put in puts if not begun or put.begin >= begin]
        if not taken:
            raise LoadError(f"{self.cluster.name} acknowledged no write in {end - begin:.1f} s")
        return max(taken)

    def _first_since(self, moment: float) -> int:
        return bisect_left(self.puts, moment, key=lambda put: put.end)

    async def _write(self, number: int) -> None:
        clients = [Client(port_of(self.cluster, node), self.attempt) for node in range(self.cluster.nodes)]
        turn, step = number, 0
        try:
            while not self._ended.is_set():
                step += 1
                key = f"{self.prefix}/{number}-{step}"
                value = f"{number}:{step}:".encode().ljust(self.value_bytes, b".")
                request = self.cluster.put_request(key.encode(), value)
                begin = time.monotonic()
                while not await self._acknowledges(clients[turn % len(clients)], request):
                    turn += 1
                    await asyncio.sleep(RETRY_SECONDS)
                    if self._ended.is_set():
                        return
                self.puts.append(Put(begin, time.monotonic()))
                self.acknowledged[key] = value
                await asyncio.sleep(self.pause)
        finally:
            for client in clients:
                client.close()

    async def _acknowledges(self, client: Client, request: Request) -> bool:
        try:
            answer = await client.request(request.method, request.path, request.body, dict(request.headers))
        except (NotSentError, LostError):
            self.failed_attempts += 1
            return False
        if answer.status == ACKNOWLEDGED:
            return True
        self.failed_attempts += 1
        return False
