"""Redis as one that must not lose writes runs it: append-only file flushed for every write, two replicas.

The replicas follow asynchronously: Redis acknowledges a write that only the master has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import aiohttp

from benchmarks.clusters.base import Cluster, NotAcknowledgedError, value_of
from benchmarks.clusters.processes import Server
from tests.node.cluster import free_ports

PIPELINE = 1_000
"""Commands on their way at once while loading."""

Reply = bytes | int | None


def command(*words: bytes) -> bytes:
    """Return a command as RESP: an array of bulk strings."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


async def reply(reader: asyncio.StreamReader) -> Reply:
    """Read one simple string, error, number or bulk string; an error raises NotAcknowledgedError."""
    line = await reader.readline()
    kind, rest = line[:1], line[1:].rstrip()
    match kind:
        case b"+":
            return rest
        case b":":
            return int(rest)
        case b"$":
            if int(rest) < 0:
                return None
            return (await reader.readexactly(int(rest) + 2))[:-2]
        case b"":
            raise NotAcknowledgedError("redis closed the connection")
        case _:
            raise NotAcknowledgedError(f"redis answered {line!r}")


class RedisCluster(Cluster):
    """One master, node 0, and its replicas."""

    name = "redis"
    programs = ("redis-server",)

    def __init__(self, nodes: int = 3, directory: Path | None = None) -> None:
        super().__init__(nodes, directory)
        self._ports: list[int] = []

    def _arrange(self, root: Path) -> list[Server]:
        self._ports = free_ports(self.nodes)
        servers = []
        for number, port in enumerate(self._ports):
            data = root / f"r{number + 1}"
            words = [
                "redis-server",
                *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(data), "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"),
            ]
            if number:
                words += ["--replicaof", f"127.0.0.1 {self._ports[0]}"]
            servers.append(Server(f"redis r{number + 1}", words, data, root / f"r{number + 1}.output"))
        return servers

    def http(self, i: int) -> str:
        """Return ``host:port`` of node ``i``, where RESP is spoken."""
        return f"127.0.0.1:{self._ports[i]}"

    async def ask(self, i: int, *words: bytes) -> Reply:
        """Send one command to node ``i`` over a connection of its own; raises NotAcknowledgedError for an error."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._ports[i])
        try:
            writer.write(command(*words))
            return await reply(reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def coordinator(self) -> int:
        """Return the master, always node 0."""
        return 0

    async def whole(self) -> bool:
        """Whether the master knows all its replicas as online."""
        found = await self.ask(0, b"INFO", b"replication")
        return isinstance(found, bytes) and found.count(b"state=online") == self.nodes - 1

    async def put(self, session: aiohttp.ClientSession, i: int, key: bytes, value: bytes) -> None:  # noqa: ARG002
        """SET at node ``i``; raises NotAcknowledgedError at a replica."""
        await self.ask(i, b"SET", key, value)

    async def get(self, session: aiohttp.ClientSession, i: int, key: bytes) -> bytes | None:  # noqa: ARG002
        """GET at node ``i``; a replica may lag behind."""
        found = await self.ask(i, b"GET", key)
        return found if isinstance(found, bytes) else None

    async def load(self, keys: Iterable[bytes], value_bytes: int, on_done: Callable[[int], None]) -> None:
        """Write at the master, a thousand commands at a time."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._ports[0])
        left = iter(keys)
        try:
            while part := list(islice(left, PIPELINE)):
                writer.write(b"".join(command(b"SET", key, value_of(key, value_bytes)) for key in part))
                await writer.drain()
                for _ in part:
                    await reply(reader)
                on_done(len(part))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
