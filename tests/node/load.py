"""Writers in the background that remember what was acknowledged, and the check that it is all there."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import NamedTuple, Self

from tests.node.cluster import Cluster, Node, until
from tests.node.wire import Client, LostError, NotSentError

RETRY_SECONDS = 0.02


class Written(NamedTuple):
    """An acknowledged write."""

    value: bytes
    index: int


class Load:
    """Writers, each with a connection of its own, that write until the block ends.

    A writer with an odd number writes a new key each time; an even one overwrites its key, and takes a new one when the
    outcome of a write is unknown (that write may take effect later). On an error a writer goes on at the next node.
    With ``grows`` false all overwrite, so that the state stays small however long the load lasts.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        writers: int = 8,
        prefix: str = "load",
        value_bytes: int = 100,
        pause: float = 0.002,
        grows: bool = True,
    ) -> None:
        """``pause``: seconds between two writes of one writer."""
        self.nodes = nodes
        self.writers = writers
        self.prefix = prefix
        self.value_bytes = value_bytes
        self.pause = pause
        self.grows = grows
        self.acknowledged: dict[str, Written] = {}
        self.indefinite: dict[str, bytes] = {}
        """Key -> value of the one write to it whose outcome is unknown."""
        self.count = 0
        """Acknowledged writes."""
        self.refused = 0
        """Writes that certainly were not done."""
        self.times: list[float] = []
        """When each write was acknowledged (monotonic clock, seconds)."""
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(self.writers)]
        await self.more(self.writers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Let every writer finish its write."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Wait until ``count`` more writes are acknowledged."""
        target = self.count + count

        async def reached() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return self.count >= target

        await until(f"{count} more acknowledged writes", reached, pause=0.01)

    async def _write(self, number: int) -> None:
        clients = [Client(node.http) for node in self.nodes]
        turn, step, generation = number, 0, 0
        while not self._stopping:
            step += 1
            if self.grows and number % 2:
                generation = step
            key = f"{self.prefix}/{number}-{generation}"
            value = f"{number}:{step}:".encode().ljust(self.value_bytes, b".")
            try:
                answer = await clients[turn % len(clients)].put(key, value)
            except NotSentError:
                self.refused += 1
                turn += 1
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except LostError:
                answer = None
            if answer is not None and answer.status == 200:
                assert answer.body == b"true"
                self.acknowledged[key] = Written(value, answer.index)
                self.count += 1
                self.times.append(time.monotonic())
                await asyncio.sleep(self.pause)
                continue
            if answer is not None and answer.definite:
                self.refused += 1
            else:
                self.indefinite[key] = value
                generation = step
            turn += 1
            await asyncio.sleep(RETRY_SECONDS)
        for client in clients:
            client.close()

    def check(self, entries: dict[str, tuple[int, int, str]], where: str) -> None:
        """Compare a listing of the prefix with what was acknowledged."""
        for key, (value, index) in self.acknowledged.items():
            assert key in entries, f"{where}: the acknowledged key {key} (index {index}) is lost"
            _, modify, text = entries[key]
            if text == b64encode(value).decode():
                assert modify == index, f"{where}: {key} was acknowledged at index {index} and is at {modify}"
            else:
                maybe = self.indefinite.get(key)
                assert maybe is not None, f"{where}: {key} has {text[:40]}"
                assert text == b64encode(maybe).decode(), f"{where}: {key} has {text[:40]}"
                assert modify > index, f"{where}: {key} went back from index {index} to {modify}"
        for key in entries:
            assert key in self.acknowledged or key in self.indefinite, f"{where}: nobody wrote {key}"

    def gaps(self) -> list[float]:
        """Return the seconds between one acknowledged write and the next."""
        return [later - sooner for sooner, later in pairwise(self.times)]


async def verify(cluster: Cluster, *loads: Load) -> None:
    """Every acknowledged write is readable at every node, linearizably at once and stale when all have caught up."""
    await cluster.ready()
    for node in cluster.nodes.values():
        for load in loads:
            load.check(await node.entries(f"{load.prefix}/"), f"linearizable at {node.name}")
    await cluster.converged()
    for node in cluster.nodes.values():
        for load in loads:
            load.check(await node.entries(f"{load.prefix}/", "stale"), f"stale at {node.name}")
            for key in list(load.acknowledged)[-20:]:
                for query in ("", "stale", "consistent"):
                    value = await node.client.value(key, query)
                    assert value in {load.acknowledged[key].value, load.indefinite.get(key)}, (node.name, key, query)
