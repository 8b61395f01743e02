"""Reading back at replicad and etcd: linearizable, or what one node holds by now."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping

from benchmarks.clusters.base import HttpCluster
from benchmarks.clusters.etcd import EtcdCluster
from benchmarks.events.writers import port_of
from tests.node.wire import Client, LostError, NotSentError

Request = tuple[str, str, bytes]
"""Method, path with query, body."""

ETCD_RANGE = "/v3/kv/range"
READERS_PER_NODE = 6
READ_SECONDS = 10.0
ATTEMPTS = 5
RETRY_SECONDS = 0.2
NAMED_MAX = 3
"""Lost keys that a sentence names."""


class ReadError(Exception):
    """A node did not answer a read."""


def read_request(cluster: HttpCluster, key: str, *, stale: bool) -> Request:
    """Return the read of a key; ``stale``: of what the node itself holds by now, otherwise linearizable."""
    if isinstance(cluster, EtcdCluster):
        wish = {"key": b64encode(key.encode()).decode(), "serializable": stale}
        return "POST", ETCD_RANGE, json.dumps(wish).encode()
    return "GET", f"/v1/kv/{key}?raw" + ("&stale" if stale else ""), b""


def value_of(path: str, status: int, body: bytes) -> bytes | None:
    """Return the value in an answer to ``read_request``, None if the key is not there; raises ReadError."""
    if status == 404:
        return None
    if status != 200:
        raise ReadError(f"{path}: {status} {body[:200].decode(errors='replace')}")
    if path == ETCD_RANGE:
        found = json.loads(body).get("kvs")
        return b64decode(found[0].get("value", "")) if found else None
    return body


class Reader:
    """One connection to one node."""

    def __init__(self, cluster: HttpCluster, node: int) -> None:
        self.cluster = cluster
        self.client = Client(port_of(cluster, node), READ_SECONDS)

    async def read(self, key: str, *, stale: bool) -> bytes | None:
        """Return a key's value, None if it is not there.

        Raises ReadError, NotSentError, LostError.
        """
        method, path, body = read_request(self.cluster, key, stale=stale)
        answer = await self.client.request(method, path, body)
        return value_of(path, answer.status, answer.body)

    async def read_patiently(self, key: str) -> bytes | None:
        """Return what a linearizable read gives, tried several times."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await self.read(key, stale=False)
            except (ReadError, NotSentError, LostError):
                await asyncio.sleep(RETRY_SECONDS)
        try:
            return await self.read(key, stale=False)
        except (NotSentError, LostError) as error:
            raise ReadError(f"{self.cluster.name} did not answer a read of {key}: {error}") from None

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


async def missing(cluster: HttpCluster, acknowledged: Mapping[str, bytes]) -> list[str]:
    """Read every acknowledged write, linearizably, at the nodes in turn; returns the keys that have another value."""
    items = iter(acknowledged.items())
    wrong: list[str] = []
    readers = [Reader(cluster, node) for node in range(cluster.nodes) for _ in range(READERS_PER_NODE)]
    try:
        await asyncio.gather(*(_compare(reader, items, wrong) for reader in readers))
    finally:
        for reader in readers:
            reader.close()
    return sorted(wrong)


async def _compare(reader: Reader, items: Iterator[tuple[str, bytes]], wrong: list[str]) -> None:
    for key, value in items:
        if await reader.read_patiently(key) != value:
            wrong.append(key)


async def check_all_there(cluster: HttpCluster, acknowledged: Mapping[str, bytes]) -> None:
    """Raise AssertionError with a sentence if an acknowledged write is not there."""
    wrong = await missing(cluster, acknowledged)
    if wrong:
        some = ", ".join(wrong[:NAMED_MAX])
        raise AssertionError(
            f"{cluster.name}: {len(wrong)} of {len(acknowledged)} acknowledged writes are not there, such as {some}"
        )
