"""Rates and latencies: each workload, by each contender, in interleaved rounds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from benchmarks.clusters.base import Cluster
from benchmarks.clusters.etcd import EtcdCluster
from benchmarks.clusters.redis import RedisCluster
from benchmarks.contenders import CLUSTERS, Workload, create, drive
from benchmarks.context import Context
from benchmarks.events.context import rotated
from benchmarks.generators.loads import GeneratorError
from benchmarks.results import Measurement
from benchmarks.turns import Turns

V2_KEYS_MAX = 10_000
"""API v2 takes its keys one by one; no workload reads more from it."""


def clusters_of(workload: Workload) -> list[str]:
    """Return the clusters that a workload is put to, in the order of its contenders."""
    return list(dict.fromkeys(CLUSTERS[contender] for contender in workload.contenders))


def steps(groups: Sequence[Sequence[Workload]], number: int) -> list[tuple[str, str, Workload]]:
    """Return ``(cluster, contender, workload)`` in the order of round ``number``.

    Within a group of workloads a cluster has one turn; whose turn is first changes from round to round.
    """
    found = []
    for group in groups:
        clusters = list(dict.fromkeys(cluster for workload in group for cluster in clusters_of(workload)))
        for cluster in rotated(clusters, number):
            for workload in group:
                mine = [contender for contender in workload.contenders if CLUSTERS[contender] == cluster]
                if mine:
                    found += [(cluster, contender, workload) for contender in rotated(mine, number)]
    return found


async def fill(ctx: Context, name: str, cluster: Cluster, present: int, keys: int, value_bytes: int) -> None:
    """Write the keys that reads will ask for, from number ``present`` on."""
    if isinstance(cluster, RedisCluster):
        return
    ctx.note(f"loading keys up to {keys:,} into {name}")
    with ctx.bar(f"loading {name}", keys - present) as advance:
        await cluster.load((b"bench/%06d" % number for number in range(present, keys)), value_bytes, advance)
    if isinstance(cluster, EtcdCluster) and present < V2_KEYS_MAX:
        last = min(keys, V2_KEYS_MAX)
        with ctx.bar("loading etcd v2", last - present) as advance:
            names = (b"bench/%06d" % number for number in range(present, last))
            await cluster.load_v2(names, "x" * value_bytes, advance)


async def measure(ctx: Context, groups: Sequence[Sequence[Workload]]) -> list[Measurement]:
    """Return a figure for every workload, contender and round: requests a second, latencies beside it.

    Runs that failed are no figures; ``ctx`` keeps why. ``groups``: ordered by how many keys they need.
    """
    workloads = [workload for group in groups for workload in group]
    names = list(dict.fromkeys(cluster for workload in workloads for cluster in clusters_of(workload)))
    total = ctx.rounds * sum(len(workload.contenders) for workload in workloads)
    found: list[Measurement] = []
    clusters = {name: create(name) for name in names}
    ctx.note(f"starting {', '.join(names)}: three nodes each, one cluster runs at a time")
    async with Turns(list(clusters.values())) as turns:
        with ctx.bar("throughput", total) as advance:
            present = 0
            for keys, stage in groupby(groups, lambda group: max(workload.keys for workload in group)):
                parts = list(stage)
                if keys > present:
                    for name in {name: None for part in parts for workload in part for name in clusters_of(workload)}:
                        await turns.give(clusters[name])
                        await fill(ctx, name, clusters[name], present, keys, 100)
                    present = keys
                for number in range(ctx.rounds):
                    for name, contender, workload in steps(parts, number):
                        await turns.give(clusters[name])
                        found += await _one(ctx, clusters[name], contender, workload, number)
                        advance(1)
    return found


async def _one(ctx: Context, cluster: Cluster, contender: str, workload: Workload, number: int) -> list[Measurement]:
    before = time.monotonic()
    try:
        load = await drive(contender, cluster, workload, ctx.seconds)
    except GeneratorError as error:
        ctx.fail(f"{workload.name}, round {number + 1}, {contender}: {error}")
        return []
    ctx.note(
        f"{workload.name}, round {number + 1}: {contender} {load.per_second:,.0f}/s, median "
        f"{load.median_us / 1000:.2f} ms, 99 % {load.p99_us / 1000:.2f} ms"
    )
    extra = asdict(load) | {"wall_seconds": time.monotonic() - before}
    del extra["per_second"]
    return [Measurement(workload.name, contender, number, load.per_second, "1/s", extra)]
