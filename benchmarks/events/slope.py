"""Writes a second at three, five and seven nodes: how much does each contender lose as it grows?"""

from __future__ import annotations

from benchmarks.clusters.base import HttpCluster
from benchmarks.contenders import ETCD_V2, REPLICAD, Workload, drive
from benchmarks.events.context import Context, rotated
from benchmarks.generators.loads import GeneratorError
from benchmarks.results import Measurement
from benchmarks.turns import Turns

SIZES = (3, 5, 7)
APIS = {"replicad": REPLICAD, "etcd": ETCD_V2}
"""What is loaded of each cluster; API v2 is the faster one of etcd over HTTP."""
PUTS = Workload("nodes", "PUT at the coordinator, 64 connections", "put", tuple(APIS.values()))
WARM_SECONDS = 1

Place = tuple[str, int]
"""Contender and number of nodes."""


def slopes(rates: dict[Place, float], number: int) -> list[Measurement]:
    """Return the shares of the rate at three nodes that each contender kept in one round."""
    found = []
    for contender in APIS:
        base = rates.get((contender, SIZES[0]))
        for nodes in SIZES[1:]:
            rate = rates.get((contender, nodes))
            if base and rate:
                found.append(Measurement(f"slope-{nodes}", contender, number, rate / base, "x"))
    return found


async def measure(ctx: Context) -> list[Measurement]:
    """Rows ``nodes-3``, ``-5``, ``-7`` (writes/s) and ``slope-5``, ``-7``: the share of the rate at three nodes."""
    found: list[Measurement] = []
    clusters: dict[Place, HttpCluster] = {
        (contender, nodes): ctx.cluster(contender, nodes=nodes) for nodes in SIZES for contender in APIS
    }
    ctx.note(f"starting clusters of {', '.join(map(str, SIZES))} nodes")
    async with Turns(list(clusters.values())) as turns:
        with ctx.bar("slope", ctx.rounds * len(clusters)) as advance:
            for number in range(ctx.rounds):
                rates: dict[Place, float] = {}
                for contender, nodes in rotated(list(clusters), number):
                    cluster = clusters[contender, nodes]
                    what = f"slope {number + 1}/{ctx.rounds}, {nodes} nodes: {contender}"
                    await turns.give(cluster)
                    try:
                        await drive(APIS[contender], cluster, PUTS, WARM_SECONDS)
                        load = await drive(APIS[contender], cluster, PUTS, ctx.seconds)
                    except GeneratorError as error:
                        ctx.fail(f"{what}: {error}")
                    else:
                        rates[contender, nodes] = load.per_second
                        extra = {"p99_us": load.p99_us}
                        found.append(Measurement(f"nodes-{nodes}", contender, number, load.per_second, "1/s", extra))
                        ctx.note(f"{what} {load.per_second:,.0f}/s")
                    advance(1)
                found += slopes(rates, number)
    return found
