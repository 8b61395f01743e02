"""Replicad with the defaults that users get; every node is a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.clusters.base import HttpCluster, NotAcknowledgedError, Request, until, value_of
from benchmarks.clusters.processes import Server
from replicad.client import Connection
from replicad.core.model.operations import PUT
from tests.node.cluster import free_ports

LOAD_CONNECTIONS, LOAD_FRAME_PUTS, LOAD_FRAME_BYTES = 4, 64, 1 << 20
LOAD_TRIES, LOAD_PAUSE_SECONDS = 50, 0.1
NOT_FOUND = 404


class ReplicadCluster(HttpCluster):
    """A cluster whose group ``default`` has all nodes as members and acknowledges with ``ack=all``."""

    name = "replicad"
    programs = ()

    def __init__(self, nodes: int = 3, directory: Path | None = None, *, protocol: str = "remote-write") -> None:
        """``protocol``: ``remote-write`` or ``active``."""
        super().__init__(nodes, directory)
        self.protocol = protocol
        self._natives: list[int] = []

    def native(self, i: int) -> str:
        """Return ``host:port`` of the native client port of node ``i``."""
        return f"127.0.0.1:{self._natives[i]}"

    def _arrange(self, root: Path) -> list[Server]:
        found = free_ports(3 * self.nodes)
        self._ports, self._natives, peers = (found[kind::3] for kind in range(3))
        lines = ['[cluster]\nname = "benchmark"', f'[groups.default]\nprotocol = "{self.protocol}"']
        names = [f"n{number + 1}" for number in range(self.nodes)]
        for name, *places in zip(names, self._ports, self._natives, peers, strict=True):
            kinds = zip(("http", "native", "peer"), places, strict=True)
            listen = "\n".join(f'{kind}_listen = "127.0.0.1:{port}"' for kind, port in kinds)
            lines.append(f'[nodes.{name}]\n{listen}\ndata = "{name}"')
        settings = root / "cluster.toml"
        settings.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
        command = (sys.executable, "-m", "replicad.cli.main", "serve", "--config", str(settings))
        return [
            Server(
                f"replicad {name}",
                (*command, "--node", name, "--tied-to", str(os.getpid())),
                root / name,
                root / f"{name}.output",
            )
            for name in names
        ]

    async def status(self, i: int) -> dict[str, Any]:
        """Return what node ``i`` says of the group ``default``."""
        url = f"http://{self.http(i)}/v1/replicad/status"
        async with self.session.get(url) as answer:
            if answer.status != 200:
                raise NotAcknowledgedError(f"{self.name} node {i}: status got {answer.status}")
            found: dict[str, Any] = (await answer.json())["groups"]["default"]
            return found

    async def coordinator(self) -> int:
        """Return which node is the coordinator."""
        found = []

        async def known() -> bool:
            for i in range(self.nodes):
                try:
                    role = (await self.status(i))["role"] if self.running(i) else ""
                except (aiohttp.ClientError, NotAcknowledgedError, TimeoutError):
                    continue
                if role == "coordinator":
                    found.append(i)
                    return True
            return False

        await until("a coordinator of replicad", known)
        return found[-1]

    async def whole(self) -> bool:
        """Whether every node is ready, and in the coordinator's view."""
        for i in range(self.nodes):
            async with self.session.get(f"http://{self.http(i)}/readyz") as answer:
                if answer.status != 200:
                    return False
        return len((await self.status(await self.coordinator()))["view"]) == self.nodes

    def put_request(self, key: bytes, value: bytes) -> Request:
        """Return ``PUT /v1/kv/KEY``."""
        return Request("PUT", f"/v1/kv/{urllib.parse.quote(key)}", {}, value)

    async def get(self, session: aiohttp.ClientSession, i: int, key: bytes) -> bytes | None:
        """Return the value, read linearizably."""
        async with session.get(f"http://{self.http(i)}/v1/kv/{urllib.parse.quote(key)}?raw") as answer:
            found = await answer.read()
            if answer.status == NOT_FOUND:
                return None
            if answer.status != 200:
                raise NotAcknowledgedError(f"{self.name} node {i}: GET got {answer.status} {found[:200]!r}")
            return found

    async def load(self, keys: Iterable[bytes], value_bytes: int, on_done: Callable[[int], None]) -> None:
        """Write at the coordinator over its native port, frames of many puts on several connections."""
        address = self.native(await self.coordinator())
        left = iter(keys)
        puts_each = max(1, min(LOAD_FRAME_PUTS, LOAD_FRAME_BYTES // (value_bytes + 256)))

        async def work() -> None:
            connection = await Connection.open(address)
            try:
                while part := list(islice(left, puts_each)):
                    await put_all(connection, [(PUT, key, value_of(key, value_bytes)) for key in part])
                    on_done(len(part))
            finally:
                await connection.close()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(LOAD_CONNECTIONS):
                tasks.create_task(work())


async def put_all(connection: Connection, puts: list[tuple[int, bytes, bytes]]) -> None:
    """Put them, those that are refused for now again; raises NotAcknowledgedError for what stays refused."""
    refused: object = None
    for _ in range(LOAD_TRIES):
        answer = await connection.request(puts)
        missed = [place for place, result in enumerate(answer.results) if result[0] != 1]
        if not missed:
            return
        refused = answer.results[missed[0]]
        puts = [puts[place] for place in missed]
        await asyncio.sleep(LOAD_PAUSE_SECONDS)
    raise NotAcknowledgedError(f"{connection.address} refused {len(puts)} puts: {refused}")
