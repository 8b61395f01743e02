"""What every cluster under measurement can do, whatever it runs: start, stop, kill, write, load."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Self

import aiohttp
from yarl import URL

from benchmarks.clusters.processes import Server, ServerError, require

READY_SECONDS = 120.0
"""How long a cluster may take to serve before it counts as broken; a million keys are read back in less."""
POLL_SECONDS = 0.01
REQUEST_SECONDS = 5.0
PROBE_SECONDS = 0.5
"""A node without a leader lets a write wait; another one may have found the new leader meanwhile."""

PROBE = b"benchmark/ready"
"""The key that ``ready`` writes."""


class NotAcknowledgedError(Exception):
    """A write that was not acknowledged; it may have been done all the same."""


class Request(NamedTuple):
    """One HTTP request: method, path with query, headers, body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def numbered(prefix: str, count: int) -> Iterable[bytes]:
    """Return ``count`` keys: the prefix and seven digits."""
    return (b"%s%07d" % (prefix.encode(), number) for number in range(count))


def value_of(key: bytes, value_bytes: int) -> bytes:
    """Return a value of this length that belongs to the key and that cannot be compressed."""
    return hashlib.shake_128(key).digest(value_bytes)


async def until(
    what: str, condition: Callable[[], Awaitable[bool]], seconds: float = READY_SECONDS, pause: float = POLL_SECONDS
) -> None:
    """Poll until the condition holds; no answer means "not yet". Raises ServerError when the time is up."""
    last: object = "nothing"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if await condition():
                return
        except (NotAcknowledgedError, OSError, aiohttp.ClientError, TimeoutError) as error:
            last = f"{type(error).__name__}: {error}"
        await asyncio.sleep(pause)
    raise ServerError(f"{what}: not within {seconds:.0f} s; seen last: {last}")


class Cluster(ABC):
    """Processes of one kind on 127.0.0.1, with free ports and a fresh data directory that ``stop`` removes.

    Nodes are numbered from 0. ``async with cluster:`` starts and stops it.
    """

    name: str
    """The contender, as reports call it."""
    programs: tuple[str, ...]
    """What must be installed."""

    def __init__(self, nodes: int, directory: Path | None = None) -> None:
        """``directory``: where the temporary data directory is made; by default where the system makes them."""
        self.nodes = nodes
        self._below = directory
        self._servers: list[Server] = []
        self._root: Path | None = None
        self._http: aiohttp.ClientSession | None = None

    @property
    def root(self) -> Path:
        """The directory of everything that this cluster writes."""
        if self._root is None:
            raise ServerError(f"{self.name} was not started")
        return self._root

    @property
    def session(self) -> aiohttp.ClientSession:
        """A session for questions to the cluster; also for ``put``, if one asks a few things only."""
        if self._http is None:
            raise ServerError(f"{self.name} was not started")
        return self._http

    @abstractmethod
    def _arrange(self, root: Path) -> list[Server]:
        """Choose ports, write settings below ``root``, and return the servers, not started."""

    @abstractmethod
    def http(self, i: int) -> str:
        """Return ``host:port`` where clients reach node ``i`` (for Redis its own protocol is spoken there)."""

    @abstractmethod
    async def coordinator(self) -> int:
        """Return which node is primary, leader or master; raises ServerError if nobody says so within 120 s."""

    @abstractmethod
    async def whole(self) -> bool:
        """Whether every node is a working member right now."""

    @abstractmethod
    async def put(self, session: aiohttp.ClientSession, i: int, key: bytes, value: bytes) -> None:
        """Write at node ``i``; returns when acknowledged, raises NotAcknowledgedError or an aiohttp error otherwise."""

    @abstractmethod
    async def get(self, session: aiohttp.ClientSession, i: int, key: bytes) -> bytes | None:
        """Return what node ``i`` serves as the current value (linearizable where it can be), None for no such key."""

    @abstractmethod
    async def load(self, keys: Iterable[bytes], value_bytes: int, on_done: Callable[[int], None]) -> None:
        """Write these keys as fast as the cluster takes them.

        Each gets a value of its own, ``value_of(key, value_bytes)``; ``on_done`` gets how many more are acknowledged.
        """

    def pid(self, i: int) -> int:
        """Return the process id of node ``i``."""
        return self._servers[i].pid

    def data(self, i: int) -> Path:
        """Return the data directory of node ``i``."""
        return self._servers[i].data

    def running(self, i: int) -> bool:
        """Whether the process of node ``i`` is there."""
        return self._servers[i].running

    async def start(self) -> None:
        """Start every node on an empty directory, and wait until all are members and writes are served."""
        require((*self.programs, "setpriv"))
        root = Path(tempfile.mkdtemp(prefix=f"benchmark-{self.name}-", dir=self._below))
        self._root = root
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        )
        try:
            self._servers = self._arrange(root)
            for server in self._servers:
                server.start()
            await until(f"all nodes of {self.name} are members", self._begun)
            await self.ready()
        except BaseException as error:
            if isinstance(error, ServerError):
                for server in self._servers:
                    error.add_note(f"--- {server.name} printed last:\n{server.printed()}")
            await self.stop()
            raise

    async def _begun(self) -> bool:
        for server in self._servers:
            if not server.running:
                raise ServerError(f"{server.name} ended while it was starting")
        return await self.whole()

    async def stop(self) -> None:
        """End every node and remove its data."""
        for server in self._servers:
            await server.stop()
        if self._http is not None:
            await self._http.close()
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    async def kill(self, i: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to node ``i``; after SIGKILL and SIGTERM wait until it has ended."""
        await self._servers[i].kill(number)

    async def start_node(self, i: int) -> None:
        """Start node ``i`` again on its old data; returns at once, see ``ready`` and ``whole``."""
        self._servers[i].start()

    async def ready(self) -> None:
        """Wait until some node acknowledges a durable write; all nodes that run are asked in turn."""

        async def served() -> bool:
            for i in range(self.nodes):
                if self.running(i):
                    with contextlib.suppress(NotAcknowledgedError, OSError, aiohttp.ClientError, TimeoutError):
                        async with asyncio.timeout(PROBE_SECONDS):
                            await self.put(self.session, i, PROBE, str(time.monotonic_ns()).encode())
                        return True
            return False

        await until(f"{self.name} serves a write", served)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class HttpCluster(Cluster):
    """A cluster that takes writes over HTTP."""

    def __init__(self, nodes: int, directory: Path | None = None) -> None:
        super().__init__(nodes, directory)
        self._ports: list[int] = []

    def http(self, i: int) -> str:
        """Return ``host:port`` of node ``i``."""
        return f"127.0.0.1:{self._ports[i]}"

    @abstractmethod
    def put_request(self, key: bytes, value: bytes) -> Request:
        """Return the request that writes a key; it is acknowledged when the status is 200."""

    async def put(self, session: aiohttp.ClientSession, i: int, key: bytes, value: bytes) -> None:
        """Write at node ``i``; returns when acknowledged."""
        await self.ask(session, i, self.put_request(key, value))

    async def ask(self, session: aiohttp.ClientSession, i: int, request: Request) -> bytes:
        """Send a request to node ``i``, and return the body of a 200; other statuses raise NotAcknowledgedError."""
        method, path, headers, body = request
        url = URL(f"http://{self.http(i)}{path}", encoded=True)
        async with session.request(method, url, data=body or None, headers=headers) as answer:
            found = await answer.read()
            if answer.status != 200:
                raise NotAcknowledgedError(
                    f"{self.name} node {i}: {method} {path[:80]} got {answer.status} {found[:200]!r}"
                )
            return found
