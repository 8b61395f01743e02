"""Drill: under a load of many writers a node is killed or stopped again and again; how long do writes stand still?"""

from __future__ import annotations

import argparse
import asyncio
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from drills.harness import Report, cluster_for, milliseconds, note, parser, progress, run, table
from tests.node.cluster import Cluster
from tests.node.load import Load, verify

SETTLE_SECONDS = 1.0
"""Load before each fault, and after the node is back."""
FAULTS = (("kill -9", "primary"), ("kill -9", "follower"), ("SIGSTOP", "primary"), ("SIGSTOP", "follower"))
MEDIAN_SECONDS, MAXIMUM_SECONDS = 0.5, 1.5


@dataclass
class Series:
    """One kind of fault, repeated: the longest gap in acknowledged writes that each brought, in seconds."""

    fault: str
    role: str
    gaps: list[float] = field(default_factory=list)
    acknowledged: int = 0
    indefinite: int = 0
    refused: int = 0


async def strike(cluster: Cluster, load: Load, series: Series, stop_seconds: float) -> float:
    """Hurt one node, wait until it is back, and return the longest gap in writes that were acknowledged meanwhile.

    ``load`` writes through a node that is not hurt.
    """
    victim = cluster[next(name for name in cluster.nodes if cluster[name] not in load.nodes)]
    await asyncio.sleep(SETTLE_SECONDS)
    begin = time.monotonic()
    if series.fault == "kill -9":
        victim.kill()
        await asyncio.sleep(stop_seconds)
        victim.start()
    else:
        victim.pause()
        await asyncio.sleep(stop_seconds)
        victim.resume()
    await cluster.ready(victim.name)
    await asyncio.sleep(SETTLE_SECONDS)
    await load.more(1)
    times = load.times[max(0, bisect_left(load.times, begin) - 1) :]
    return max(later - sooner for sooner, later in pairwise(times))


async def one_series(cluster: Cluster, series: Series, options: argparse.Namespace, loads: list[Load]) -> None:
    """Repeat one fault. The writers of each turn use the two nodes that stay, half of them each."""
    with progress() as bar:
        for number in bar.track(range(options.times), description=f"{series.fault} of the {series.role}"):
            await cluster.ready()
            victim = await (cluster.primary() if series.role == "primary" else cluster.follower())
            others = [node for node in cluster.nodes.values() if node.name != victim]
            prefix = f"{series.fault.split()[0]}-{series.role}-{number}"
            async with Load(others, options.writers, prefix=prefix, pause=options.pause) as load:
                series.gaps.append(await strike(cluster, load, series, options.stop))
            loads.append(load)
            series.acknowledged += load.count
            series.indefinite += len(load.indefinite)
            series.refused += load.refused


async def failover(options: argparse.Namespace) -> Report:
    """Run all series, then read everything back."""
    wanted = [Series(fault, role) for fault, role in FAULTS if options.only in {None, f"{fault.split()[0]}-{role}"}]
    loads: list[Load] = []
    async with cluster_for(options) as cluster:
        for series in wanted:
            note(f"{series.fault} of the {series.role}, {options.times} times, {options.writers} writers")
            await one_series(cluster, series, options, loads)
        note("reading every acknowledged write at every node")
        await verify(cluster, *loads)
        slot = (await cluster["n1"].group())["applied_slot"]
    failures: list[str] = []
    rows = []
    for series in wanted:
        what = f"{series.fault} of the {series.role}"
        middle, worst = median(series.gaps), max(series.gaps)
        counts = (series.acknowledged, series.indefinite, series.refused)
        rows.append((what, len(series.gaps), milliseconds(middle), milliseconds(worst), *counts))
        if middle > MEDIAN_SECONDS or worst > MAXIMUM_SECONDS:
            failures.append(f"{what}: the gap's median is {middle:.2f} s (at most {MEDIAN_SECONDS}), its maximum "
                            f"{worst:.2f} s (at most {MAXIMUM_SECONDS})")  # fmt: skip
    columns = ("fault", "times", "gap, median", "gap, maximum", "acknowledged", "indefinite", "refused")
    table(
        options, f"Gaps in writes; all acknowledged writes found at every node, digests equal at {slot}", columns, rows
    )
    return {"series": [vars(series) for series in wanted], "failures": failures}


def main() -> None:
    """Run the drill."""
    options = parser(
        "Kills or stops the primary or a follower again and again under load. Prints the longest gap in acknowledged\n"
        "writes that each fault brought, as seen through the two other nodes, and reads every acknowledged write back.",
        ".venv/bin/python -m drills.failover --times 10",
    )
    names = [f"{fault.split()[0]}-{role}" for fault, role in FAULTS]
    options.add_argument("--times", type=int, default=10, help="faults of each kind (default: %(default)s)")
    options.add_argument("--writers", type=int, default=32, help="default: %(default)s")
    options.add_argument("--stop", type=float, default=2.0, help="seconds that a node is down or stopped (default: 2)")
    options.add_argument("--pause", type=float, default=0.0, help="seconds between two writes of a writer (default: 0)")
    options.add_argument("--only", choices=names, help="one kind of fault only")
    run(failover, options.parse_args())


if __name__ == "__main__":
    main()
