"""A member is killed, writes go on without it, it is started again: how long until it has applied them all?"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator

from benchmarks.clusters.base import HttpCluster, until
from benchmarks.events.context import Context, rotated
from benchmarks.events.filling import fill
from benchmarks.events.reading import Reader, ReadError
from benchmarks.results import Measurement
from benchmarks.turns import Turns
from tests.node.wire import LostError, NotSentError

WRITES = 20_000
VALUE_BYTES = 100
POLL_SECONDS = 0.01
CATCH_UP_SECONDS = 120.0


class CatchUpError(Exception):
    """A member did not catch up."""


def items(prefix: str, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield ``(key, value)``: new keys."""
    return ((f"{prefix}/{number:07d}", f"{number}:".encode().ljust(VALUE_BYTES, b".")) for number in range(count))


async def applied(cluster: HttpCluster, node: int, key: str) -> None:
    """Wait until a node itself holds a key; raises CatchUpError."""
    reader = Reader(cluster, node)
    end = time.monotonic() + CATCH_UP_SECONDS
    try:
        while time.monotonic() < end:
            try:
                if await reader.read(key, stale=True) is not None:
                    return
            except (NotSentError, LostError, ReadError):
                pass  # it is about to start
            await asyncio.sleep(POLL_SECONDS)
    finally:
        reader.close()
    raise CatchUpError(f"node {node} of {cluster.name} had not applied {key} after {CATCH_UP_SECONDS:.0f} s")


async def one_absence(cluster: HttpCluster, prefix: str) -> tuple[float, float]:
    """Return the seconds from a member's start until it has applied what it missed, and how long it was away."""
    coordinator = await cluster.coordinator()
    member = (coordinator + 1) % cluster.nodes
    gone = time.monotonic()
    await cluster.kill(member, signal.SIGKILL)
    await fill(cluster, coordinator, items(prefix, WRITES), on_put=lambda: None)
    last = f"{prefix}/last"
    # Everything is applied in order, and this is written after all else was acknowledged.
    await fill(cluster, coordinator, iter([(last, b"x")]), on_put=lambda: None, connections=1)
    begin = time.monotonic()
    await cluster.start_node(member)
    await applied(cluster, member, last)
    end = time.monotonic()
    await until(f"all nodes of {cluster.name} are members", cluster.whole)
    return end - begin, begin - gone


async def measure(ctx: Context) -> list[Measurement]:
    """Row ``catch-up``: seconds, the start of the process included."""
    found: list[Measurement] = []
    clusters = [ctx.cluster(name) for name in ("replicad", "etcd")]
    async with Turns(clusters) as turns:
        with ctx.bar("catch-up", ctx.rounds * len(clusters)) as advance:
            for number in range(ctx.rounds):
                for cluster in rotated(clusters, number):
                    await turns.give(cluster)
                    seconds, away = await one_absence(cluster, f"absence-{number}")
                    extra = {"writes": WRITES, "away_seconds": away}
                    found.append(Measurement("catch-up", cluster.name, number, seconds, "s", extra))
                    ctx.note(f"catch-up {number + 1}/{ctx.rounds}: {cluster.name} {seconds:.2f} s")
                    advance(1)
    return found
