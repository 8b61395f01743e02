"""Drill: under load nodes are stopped in order, one at a time, and started again; how long do writes stand still?"""

from __future__ import annotations

import argparse
import asyncio
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from drills.harness import Report, cluster_for, expect, milliseconds, note, parser, progress, run, table
from tests.node.cluster import Cluster, Node
from tests.node.load import Load, verify

SETTLE_SECONDS = 1.0
"""Load before each stop, and after the node is back."""
ROLES = ("follower", "coordinator", "every node")
MEDIAN_SECONDS = {"follower": 0.05, "coordinator": 0.05, "every node": 0.05}
"""Aimed at, by who is stopped: the median of the longest gaps that each stop brought."""


@dataclass
class Series:
    """Stops of one role: the longest gap in acknowledged writes that each brought, in seconds."""

    role: str
    gaps: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    """The same, from the start of the node until it has settled."""
    before: list[float] = field(default_factory=list)
    """The same, in the second before each stop: what the machine itself does to writes."""
    acknowledged: int = 0
    indefinite: int = 0
    refused: int = 0

    async def victims(self, cluster: Cluster) -> list[Node]:
        """Choose who is stopped in this turn, one after the other."""
        coordinator = await cluster.primary()
        if self.role == "coordinator":
            return [cluster[coordinator]]
        others = [node for node in cluster.nodes.values() if node.name != coordinator]
        return others[:1] if self.role == "follower" else [*others, cluster[coordinator]]


def longest_gap(load: Load, begin: float, end: float) -> float:
    """Return the longest time without an acknowledged write between two times."""
    first, last = bisect_left(load.times, begin), bisect_left(load.times, end)
    return max(later - sooner for sooner, later in pairwise(load.times[max(0, first - 1) : last + 1]))


async def stop(victim: Node, cluster: Cluster, load: Load, down_seconds: float, series: Series) -> None:
    """Stop a node in order and start it again; note the longest gaps before, because of the stop, and afterwards."""
    begin = time.monotonic()
    await asyncio.sleep(SETTLE_SECONDS)
    stopped = time.monotonic()
    expect(await victim.terminate() == 0, f"{victim.name} did not stop in order")
    await asyncio.sleep(down_seconds)
    started = time.monotonic()
    victim.start()
    await cluster.ready(victim.name)
    await asyncio.sleep(SETTLE_SECONDS)
    await load.more(1)
    series.before.append(longest_gap(load, begin, stopped))
    series.gaps.append(longest_gap(load, stopped, started))
    series.back.append(longest_gap(load, started, time.monotonic()))


async def one_series(cluster: Cluster, series: Series, options: argparse.Namespace, loads: list[Load]) -> None:
    """Repeat the stops of one role; the writers use the nodes that stay."""
    with progress() as bar:
        for number in bar.track(range(options.times), description=f"stop of {series.role}"):
            await cluster.ready()
            for victim in await series.victims(cluster):
                others = [node for node in cluster.nodes.values() if node is not victim]
                load = Load(others, options.writers, prefix=f"{series.role.split()[0]}-{number}-{victim.name}")
                async with load:
                    await stop(victim, cluster, load, options.down, series)
                loads.append(load)
                series.acknowledged += load.count
                series.indefinite += len(load.indefinite)
                series.refused += load.refused


async def rolling(options: argparse.Namespace) -> Report:
    """Run all series in one cluster, then read everything back."""
    wanted = [Series(role) for role in ROLES]
    loads: list[Load] = []
    settings = {"groups.default": {"protocol": f'"{options.protocol}"'}}
    async with cluster_for(options, options.nodes, settings) as cluster:
        for series in wanted:
            note(f"SIGTERM of {series.role}, {options.times} times, {options.writers} writers, {options.nodes} nodes")
            await one_series(cluster, series, options, loads)
        note("reading every acknowledged write at every node")
        await verify(cluster, *loads)
    failures = []
    rows = []
    for series in wanted:
        middle, worst = median(series.gaps), max(series.gaps)
        counts = (series.acknowledged, series.indefinite, series.refused)
        gaps = (middle, worst, max(series.back), max(series.before))
        rows.append((f"SIGTERM of {series.role}", len(series.gaps), *map(milliseconds, gaps), *counts))
        if middle > MEDIAN_SECONDS[series.role]:
            failures.append(f"{series.role}: the gap's median is {milliseconds(middle)}, above "
                            f"{milliseconds(MEDIAN_SECONDS[series.role])}")  # fmt: skip
    gaps_of = ("gap, median", "gap, maximum", "as it comes back, max.", "before the stop, max.")
    columns = ("stop", "times", *gaps_of, "acknowledged", "indefinite", "refused")
    title = f"Gaps in writes, {options.protocol}; all acknowledged writes found at every node, digests equal"
    table(options, title, columns, rows)
    return {"protocol": options.protocol, "series": [vars(series) for series in wanted], "failures": failures}


def main() -> None:
    """Run the drill."""
    options = parser(
        "Stops nodes in order (SIGTERM) under load and starts them again: a follower, the coordinator, every node in\n"
        "turn. Prints the longest gap in acknowledged writes that each stop brought, as seen through the nodes that\n"
        "stayed, beside those before the stop and as the node came back; reads every acknowledged write back.",
        ".venv/bin/python -m drills.rolling --times 5",
    )
    protocols = ("remote-write", "active")
    options.add_argument("--protocol", choices=protocols, default=protocols[0], help="default: %(default)s")
    options.add_argument("--nodes", type=int, default=3, help="nodes of the cluster (default: %(default)s)")
    options.add_argument("--times", type=int, default=5, help="stops of each kind (default: %(default)s)")
    options.add_argument("--writers", type=int, default=16, help="default: %(default)s")
    options.add_argument("--down", type=float, default=0.5, help="seconds that a node is down (default: %(default)s)")
    run(rolling, options.parse_args())


if __name__ == "__main__":
    main()
