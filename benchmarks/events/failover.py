"""The coordinator is killed or stopped under a light load: how long do clients that know all nodes get nothing done?"""

from __future__ import annotations

import asyncio
import signal
import time

from benchmarks.clusters.base import HttpCluster, until
from benchmarks.events.context import Context, rotated
from benchmarks.events.reading import check_all_there
from benchmarks.events.writers import Writers
from benchmarks.results import Measurement
from benchmarks.turns import Turns

WRITERS = 12
PAUSE_SECONDS = 0.02
"""Twelve writers with this pause write about 500 times a second: a gap is known to a few milliseconds."""
ATTEMPT_SECONDS = 0.25
"""Clients of both contenders give a node this long to answer; it is the most that a gap is taken for too long."""
SETTLE_SECONDS = 1.0
DOWN_SECONDS = 3.0
"""How long the node stays away, at the least: until writes have gone on for a second."""
TIMES_MIN, TIMES_QUICK = 5, 3


async def strike(cluster: HttpCluster, fault: signal.Signals, prefix: str) -> tuple[float, Writers]:
    """Hurt the coordinator once, and bring it back; returns the gap in seconds, and the load with what it wrote."""
    writers = Writers(cluster, writers=WRITERS, pause=PAUSE_SECONDS, attempt=ATTEMPT_SECONDS, prefix=prefix)
    async with writers:
        await writers.first()
        await asyncio.sleep(SETTLE_SECONDS)
        victim = await cluster.coordinator()
        begin = time.monotonic()
        await cluster.kill(victim, fault)
        await asyncio.sleep(DOWN_SECONDS)
        # An attempt that began before the fault may still be acknowledged after it: only one begun later ends the gap.
        end = await writers.acknowledged_after(time.monotonic())
        gap = writers.gap(begin, end)
        if fault == signal.SIGKILL:
            await cluster.start_node(victim)
        else:
            await cluster.kill(victim, signal.SIGCONT)
        await until(f"all nodes of {cluster.name} are members", cluster.whole)
        await asyncio.sleep(SETTLE_SECONDS)
    return gap, writers


async def measure(ctx: Context) -> list[Measurement]:
    """Row ``failover``: seconds without an acknowledged write after kill -9 of the coordinator."""
    return await _repeated(ctx, "failover", signal.SIGKILL)


async def measure_stop(ctx: Context) -> list[Measurement]:
    """Row ``failover-stop``: the same when it is stopped with SIGSTOP, and goes on seconds later."""
    return await _repeated(ctx, "failover-stop", signal.SIGSTOP)


async def _repeated(ctx: Context, row: str, fault: signal.Signals) -> list[Measurement]:
    """Hurt the coordinators of both contenders in turn.

    Raises AssertionError if an acknowledged write is not there afterwards.
    """
    times = TIMES_QUICK if ctx.quick else max(TIMES_MIN, ctx.rounds)
    found: list[Measurement] = []
    clusters = [ctx.cluster(name) for name in ("replicad", "etcd")]
    acknowledged: dict[str, dict[str, bytes]] = {cluster.name: {} for cluster in clusters}
    async with Turns(clusters) as turns:
        with ctx.bar(row, times * len(clusters)) as advance:
            for number in range(times):
                for cluster in rotated(clusters, number):
                    await turns.give(cluster)
                    gap, writers = await strike(cluster, fault, f"{row}-{number}")
                    acknowledged[cluster.name] |= writers.acknowledged
                    extra = {"writes": len(writers.acknowledged), "failed_attempts": writers.failed_attempts}
                    found.append(Measurement(row, cluster.name, number, gap, "s", extra))
                    ctx.note(f"{row} {number + 1}/{times}: {cluster.name} {gap * 1000:.0f} ms")
                    advance(1)
        for cluster in clusters:
            await turns.give(cluster)
            await check_all_there(cluster, acknowledged[cluster.name])
            ctx.note(f"{cluster.name}: all {len(acknowledged[cluster.name]):,} acknowledged writes are there")
    return found
