"""Debian's etcd with its defaults: heartbeat 100 ms, election 1000 ms, every commit flushed.

The API v2 is switched on, and the store may grow to 8 GiB instead of 2: a million keys and their history must fit.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.clusters.base import HttpCluster, NotAcknowledgedError, Request, until, value_of
from benchmarks.clusters.processes import Server
from tests.node.cluster import free_ports

TRANSACTION_PUTS = 128
"""The most operations that etcd takes in one transaction by default."""
LOAD_CONNECTIONS, LOAD_CONNECTIONS_V2 = 16, 64
LOAD_TRIES = 5


def text(value: bytes) -> str:
    """Return bytes as the JSON gateway takes them."""
    return base64.b64encode(value).decode()


class EtcdCluster(HttpCluster):
    """A cluster of etcd; ``put``, ``get`` and ``load`` use the store of API v3 through its JSON gateway."""

    name = "etcd"
    programs = ("etcd",)

    def __init__(self, nodes: int = 3, directory: Path | None = None) -> None:
        super().__init__(nodes, directory)
        self._peers: list[int] = []

    def _arrange(self, root: Path) -> list[Server]:
        found = free_ports(2 * self.nodes)
        self._ports, self._peers = found[: self.nodes], found[self.nodes :]
        names = [f"e{number + 1}" for number in range(self.nodes)]
        members = ",".join(f"{name}=http://127.0.0.1:{peer}" for name, peer in zip(names, self._peers, strict=True))
        servers = []
        for name, port, peer in zip(names, self._ports, self._peers, strict=True):
            client, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
            command = (
                "etcd",
                *("--name", name, "--data-dir", str(root / name), "--enable-v2=true"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", other, "--initial-advertise-peer-urls", other),
                *("--initial-cluster", members, "--initial-cluster-token", root.name),
                "--quota-backend-bytes=8589934592",
            )
            servers.append(Server(f"etcd {name}", command, root / name, root / f"{name}.output"))
        return servers

    async def call(
        self, i: int, method: str, question: dict[str, Any], session: aiohttp.ClientSession | None = None
    ) -> dict[str, Any]:
        """Call a method of API v3 through the JSON gateway of node ``i``, for example ``kv/range``."""
        body = json.dumps(question).encode()
        request = Request("POST", f"/v3/{method}", {"content-type": "application/json"}, body)
        found: dict[str, Any] = json.loads(await self.ask(session or self.session, i, request))
        return found

    async def revision(self) -> int:
        """Return how many changes the store of API v3 has seen."""
        answer = await self.call(await self.coordinator(), "kv/range", {"key": text(b"benchmark/none")})
        return int(answer["header"]["revision"])

    async def applied(self, i: int) -> int:
        """Return the raft index up to which node ``i`` has applied."""
        return int((await self.call(i, "maintenance/status", {})).get("raftAppliedIndex", 0))

    async def coordinator(self) -> int:
        """Return which node is the leader by what itself says."""
        found = []

        async def known() -> bool:
            for i in range(self.nodes):
                try:
                    status = await self.call(i, "maintenance/status", {}) if self.running(i) else {}
                except (aiohttp.ClientError, NotAcknowledgedError, TimeoutError):
                    continue
                if status and status.get("leader", "0") == status["header"]["member_id"]:
                    found.append(i)
                    return True
            return False

        await until("a leader of etcd", known)
        return found[-1]

    async def whole(self) -> bool:
        """Whether every node is healthy by what itself says."""
        for i in range(self.nodes):
            answer = json.loads(await self.ask(self.session, i, Request("GET", "/health", {}, b"")))
            if answer.get("health") != "true":
                return False
        return True

    def put_request(self, key: bytes, value: bytes) -> Request:
        """Return ``POST /v3/kv/put``."""
        body = b'{"key":"%s","value":"%s"}' % (base64.b64encode(key), base64.b64encode(value))
        return Request("POST", "/v3/kv/put", {"content-type": "application/json"}, body)

    async def get(self, session: aiohttp.ClientSession, i: int, key: bytes) -> bytes | None:
        """Return the value, read linearizably."""
        found = (await self.call(i, "kv/range", {"key": text(key)}, session)).get("kvs", [])
        return base64.b64decode(found[0].get("value", "")) if found else None

    async def load(self, keys: Iterable[bytes], value_bytes: int, on_done: Callable[[int], None]) -> None:
        """Write transactions of up to 128 puts at the leader, several at a time."""
        leader = await self.coordinator()
        left = iter(keys)
        puts_each = max(1, min(TRANSACTION_PUTS, (1 << 20) // (value_bytes + 256)))  # requests end at 1.5 MiB

        async def work() -> None:
            while part := list(islice(left, puts_each)):
                puts = [{"request_put": {"key": text(key), "value": text(value_of(key, value_bytes))}} for key in part]
                for number in range(LOAD_TRIES):
                    try:
                        await self.call(leader, "kv/txn", {"success": puts})
                        break
                    except (NotAcknowledgedError, TimeoutError):  # "too many requests": it applies more slowly
                        if number + 1 == LOAD_TRIES:
                            raise
                        await asyncio.sleep(0.5)
                on_done(len(part))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(LOAD_CONNECTIONS):
                tasks.create_task(work())

    async def load_v2(self, keys: Iterable[bytes], value: str, on_done: Callable[[int], None]) -> None:
        """Write these keys into the store of API v2, which is another one, one by one on several connections."""
        leader = await self.coordinator()
        left = iter(keys)
        url = f"http://{self.http(leader)}/v2/keys/"

        async def work() -> None:
            for key in left:
                async with self.session.put(url + key.decode(), data={"value": value}) as answer:
                    if answer.status not in {200, 201}:
                        raise NotAcknowledgedError(f"etcd: v2 PUT got {answer.status} {await answer.text()}")
                on_done(1)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(LOAD_CONNECTIONS_V2):
                tasks.create_task(work())
