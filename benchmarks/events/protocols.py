"""Large values, clients at all nodes: ``active`` against ``remote-write``."""

from __future__ import annotations

from benchmarks.contenders import REPLICAD, SPREAD, Workload, drive
from benchmarks.events.context import Context, rotated
from benchmarks.generators.loads import GeneratorError
from benchmarks.results import Measurement
from benchmarks.turns import Turns

PROTOCOLS = ("active", "remote-write")
PUTS = Workload(
    "protocols",
    "PUT of 64 KiB at all nodes, 30 connections",
    "put",
    (REPLICAD,),
    connections=30,
    place=SPREAD,
    value_bytes=64 * 1024,
    keys=256,  # few, so that the checkpoints, which so many bytes bring about, are small
)
WARM_SECONDS = 1


async def measure(ctx: Context) -> list[Measurement]:
    """Row ``protocols``: writes/s of the contenders ``active`` and ``remote-write``; three nodes each, one loaded."""
    found: list[Measurement] = []
    clusters = [(protocol, ctx.cluster("replicad", protocol=protocol)) for protocol in PROTOCOLS]
    async with Turns([cluster for _, cluster in clusters]) as turns:
        with ctx.bar("protocols", ctx.rounds * len(PROTOCOLS)) as advance:
            for number in range(ctx.rounds):
                for protocol, cluster in rotated(clusters, number):
                    what = f"protocols {number + 1}/{ctx.rounds}: {protocol}"
                    await turns.give(cluster)
                    try:
                        await drive(REPLICAD, cluster, PUTS, WARM_SECONDS)
                        load = await drive(REPLICAD, cluster, PUTS, ctx.seconds)
                    except GeneratorError as error:
                        ctx.fail(f"{what}: {error}")
                    else:
                        extra = {"median_us": load.median_us, "p99_us": load.p99_us}
                        found.append(Measurement("protocols", protocol, number, load.per_second, "1/s", extra))
                        ctx.note(f"{what} {load.per_second:,.0f} writes/s of 64 KiB")
                    advance(1)
    return found
