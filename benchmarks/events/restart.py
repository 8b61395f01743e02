"""A million keys are loaded, all nodes are killed and started again; and what a node's memory is before and after."""

from __future__ import annotations

import asyncio
import signal
import time

from benchmarks.clusters.base import HttpCluster, numbered, until, value_of
from benchmarks.events.context import Context, rotated
from benchmarks.events.processes import Memory, memory
from benchmarks.events.reading import check_all_there
from benchmarks.events.writers import Writers
from benchmarks.results import Measurement
from benchmarks.turns import Turns

KEYS = 1_000_000
VALUE_BYTES = 100
SETTLE_SECONDS = 10.0
"""Between the load and the look at the memory: what was only needed to load may be given back."""
WRITERS = 6
PAUSE_SECONDS = 0.05
ATTEMPT_SECONDS = 0.25
PREFIX = "million/"
SAMPLE_EVERY = 1009
"""Every so manieth key is read back after the restarts."""


async def restart(cluster: HttpCluster, prefix: str) -> tuple[float, float]:
    """Kill all nodes and start them; returns the seconds until a write was acknowledged, and until all are members."""
    await asyncio.gather(*(cluster.kill(node, signal.SIGKILL) for node in range(cluster.nodes)))
    begin = time.monotonic()
    for node in range(cluster.nodes):
        await cluster.start_node(node)
    async with Writers(cluster, writers=WRITERS, pause=PAUSE_SECONDS, attempt=ATTEMPT_SECONDS, prefix=prefix) as load:
        first = await load.first()
        await until(f"all nodes of {cluster.name} are members", cluster.whole)
        whole = time.monotonic()
    return first - begin, whole - begin


async def memory_of(cluster: HttpCluster, row: str) -> Measurement:
    """Return the resident memory of the coordinator in megabytes; the largest node's and its kinds are beside it."""
    coordinator = await cluster.coordinator()
    each = [memory(cluster.pid(node)) for node in range(cluster.nodes)]
    extra: dict[str, object] = {
        "largest": max(node.resident for node in each) / 1e6,
        "coordinator": coordinator,
        "nodes": [megabytes(node) for node in each],
    }
    return Measurement(row, cluster.name, 0, each[coordinator].resident / 1e6, "MB", extra)


def megabytes(found: Memory) -> dict[str, float]:
    """Return the kinds of memory in megabytes, by name."""
    return {kind: round(count / 1e6, 1) for kind, count in found._asdict().items()}


async def load(ctx: Context, cluster: HttpCluster) -> None:
    """Write the keys."""
    begin = time.monotonic()
    with ctx.bar(f"loading {KEYS:,} keys into {cluster.name}", KEYS) as advance:
        await cluster.load(numbered(PREFIX, KEYS), VALUE_BYTES, advance)
    ctx.note(f"{cluster.name}: {KEYS:,} keys of {VALUE_BYTES} bytes, {KEYS / (time.monotonic() - begin):,.0f} a second")


async def check(cluster: HttpCluster) -> None:
    """Read some of the keys back."""
    sample = [key for place, key in enumerate(numbered(PREFIX, KEYS)) if place % SAMPLE_EVERY == 0]
    await check_all_there(cluster, {key.decode(): value_of(key, VALUE_BYTES) for key in sample})


async def measure(ctx: Context) -> list[Measurement]:
    """Rows ``restart`` (seconds to the first write), ``memory`` and ``memory-restarted`` (MB of the coordinator).

    Each contender is loaded once; then all its nodes are killed and started once in every round. Its memory is taken
    once after the load, and once after the last restart.
    """
    found: list[Measurement] = []
    clusters = [ctx.cluster(name) for name in ("replicad", "etcd")]
    async with Turns(clusters) as turns:
        for cluster in clusters:
            await turns.give(cluster)
            await load(ctx, cluster)
            await asyncio.sleep(SETTLE_SECONDS)
            found.append(await memory_of(cluster, "memory"))
            ctx.note(f"{cluster.name}: {found[-1].value:.0f} MB")
        with ctx.bar("restart", ctx.rounds * len(clusters)) as advance:
            for number in range(ctx.rounds):
                for cluster in rotated(clusters, number):
                    await turns.give(cluster)
                    first, whole = await restart(cluster, f"restart-{number}")
                    extra = {"all_members": whole, "keys": KEYS}
                    found.append(Measurement("restart", cluster.name, number, first, "s", extra))
                    ctx.note(f"restart {number + 1}/{ctx.rounds}: {cluster.name} {first:.2f} s")
                    if number == ctx.rounds - 1:
                        await asyncio.sleep(SETTLE_SECONDS)
                        found.append(await memory_of(cluster, "memory-restarted"))
                        await check(cluster)
                    advance(1)
    return found
