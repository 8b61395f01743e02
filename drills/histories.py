"""Clients in the background whose every operation is recorded, for the checker to judge."""

from __future__ import annotations

import asyncio
import random
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from replicad.lab.history import Get, Put, Recorder
from replicad.lab.linearizability import Verdict, check
from tests.node.cluster import Node, until
from tests.node.wire import Client, LostError, NotSentError

PREFIX = "history/"
SHARED_KEYS = 8
OPERATIONS_PER_GENERATION = 2000
"""After so many operations the clients go on to new shared keys: the checker's work grows with what one key saw."""
RETRY_SECONDS = 0.05


class Histories:
    """Writers, half on shared keys and half with a new key for each value, and readers of the shared keys."""

    def __init__(
        self, nodes: Callable[[], Sequence[Node]], writers: int = 8, readers: int = 4, pause: float = 0.01
    ) -> None:
        """``nodes`` says who may be talked to now; ``pause``: seconds between two operations of one client."""
        self.nodes = nodes
        self.writers = writers
        self.readers = readers
        self.pause = pause
        self.recorder = Recorder()
        self.acknowledged = 0
        self.read = 0
        self.refused = 0
        self.indefinite = 0
        self._generation = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def __aenter__(self) -> Self:
        clients = [*range(self.writers + self.readers)]
        self._tasks = [asyncio.create_task(self._client(number)) for number in clients]
        await self.more(self.writers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Wait until so many more writes are acknowledged."""
        target = self.acknowledged + count

        async def reached() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return self.acknowledged >= target

        await until(f"{count} more acknowledged writes", reached, pause=0.01)

    async def _client(self, number: int) -> None:
        chooser = random.Random(number)
        clients: dict[int, Client] = {}
        step = 0
        while not self._stopping:
            step += 1
            node = chooser.choice(self.nodes())
            client = clients.setdefault(node.http, Client(node.http))
            generation = (self.acknowledged + self.read) // OPERATIONS_PER_GENERATION
            key = f"{PREFIX}{generation}-{chooser.randrange(SHARED_KEYS)}"
            if number >= self.writers:
                await self._get(number, client, key)
            else:
                await self._put(number, client, f"{PREFIX}own-{number}-{step}" if number % 2 else key, step)
            await asyncio.sleep(self.pause)
        for client in clients.values():
            client.close()

    async def _put(self, number: int, client: Client, key: str, step: int) -> None:
        value = f"{number}:{step}"
        call = self.recorder.invoke(number, key, Put(value), time.monotonic_ns())
        try:
            answer = await client.put(key, value.encode())
        except NotSentError:
            self.recorder.fail(call)
            await self._refused()
            return
        except LostError:
            self.indefinite += 1
            return
        if answer.status == 200:
            self.recorder.complete(call, time.monotonic_ns())
            self.acknowledged += 1
        elif answer.definite:
            self.recorder.fail(call)
            await self._refused()
        else:
            self.indefinite += 1

    async def _get(self, number: int, client: Client, key: str) -> None:
        call = self.recorder.invoke(number, key, Get(), time.monotonic_ns())
        try:
            answer = await client.get(f"/v1/kv/{key}?raw")
        except (NotSentError, LostError):
            answer = None
        if answer is None or answer.status not in {200, 404}:
            self.recorder.fail(call)  # a read that failed changed nothing and saw nothing
            await self._refused()
            return
        self.recorder.complete(call, time.monotonic_ns(), answer.text if answer.status == 200 else None)
        self.read += 1

    async def _refused(self) -> None:
        self.refused += 1
        await asyncio.sleep(RETRY_SECONDS)

    async def read_everything(self, node: Node) -> None:
        """Read all keys at one node, linearizably, into the history: what was lost contradicts it."""
        keys = sorted({str(operation.key) for operation in self.recorder.operations()})
        calls = {key: self.recorder.invoke(f"all at {node.name}", key, Get(), time.monotonic_ns()) for key in keys}
        entries = await node.entries(PREFIX)
        now = time.monotonic_ns()
        for key, call in calls.items():
            found = entries.get(key)
            self.recorder.complete(call, now, None if found is None else b64decode(found[2]).decode())

    def judge(self) -> str:
        """Return "" for a linearizable history, else what is wrong with it."""
        report = check(self.recorder.operations())
        return "" if report.verdict is Verdict.OK else f"the history is not linearizable: {report}"
