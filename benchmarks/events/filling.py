"""Separate durable writes at one node, over many connections, each sending its next as soon as it may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from benchmarks.clusters.base import HttpCluster
from benchmarks.events.writers import ACKNOWLEDGED, port_of
from tests.node.wire import Client, LostError, NotSentError

CONNECTIONS = 64
ANSWER_SECONDS = 30.0
AGAIN = (429, 503, 504)
"""Statuses after which a write is tried again: it may be done twice, with the same value."""
AGAIN_SECONDS = 0.1


class FillError(Exception):
    """A write was not acknowledged."""


async def fill(
    cluster: HttpCluster,
    node: int,
    items: Iterator[tuple[str, bytes]],
    *,
    on_put: Callable[[], object],
    connections: int = CONNECTIONS,
) -> None:
    """Put all ``(key, value)``; ``on_put`` is called for each that is acknowledged. Raises FillError."""
    clients = [Client(port_of(cluster, node), ANSWER_SECONDS) for _ in range(connections)]
    try:
        await asyncio.gather(*(_put_all(cluster, client, items, on_put) for client in clients))
    finally:
        for client in clients:
            client.close()


async def _put_all(
    cluster: HttpCluster, client: Client, items: Iterator[tuple[str, bytes]], on_put: Callable[[], object]
) -> None:
    for key, value in items:
        method, path, headers, body = cluster.put_request(key.encode(), value)
        status, text = AGAIN[0], ""
        while status in AGAIN:
            try:
                answer = await client.request(method, path, body, dict(headers))
            except (NotSentError, LostError) as error:
                raise FillError(f"{cluster.name}: the put of {key} was not answered: {error}") from None
            status, text = answer.status, answer.text[:200]
            if status in AGAIN:
                await asyncio.sleep(AGAIN_SECONDS)
        if status != ACKNOWLEDGED:
            raise FillError(f"{cluster.name}: the put of {key} was answered {status} {text}")
        on_put()
