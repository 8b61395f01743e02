"""Drill: under a load of many writers a node is killed or stopped again and again; how long do writes stand still?"""

from __future__ import annotations

import argparse
import asyncio
import time
from bisect import bisect_left
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import chain, pairwise
from statistics import median

from drills.harness import Report, cluster_for, milliseconds, note, parser, progress, run, table
from tests.node.cluster import Cluster, Node
from tests.node.load import Load, verify

SETTLE_SECONDS = 1.0
"""Load before each fault, and after the node is back."""
FAULTS = {
    "remote-write": (("kill -9", "primary"), ("kill -9", "follower"), ("SIGSTOP", "primary"), ("SIGSTOP", "follower")),
    "active": (
        ("kill -9", "sequencer"),
        ("kill -9", "contact"),
        ("SIGSTOP", "sequencer"),
        ("SIGSTOP", "contact"),
        ("kill -9", "both"),
        ("SIGSTOP", "both"),
    ),
}
"""Protocol -> what is done to whom. A contact is a node that is not the sequencer and that clients write through."""
CONTACT_WRITERS = 8
"""Writers through the victims themselves, so that they have writes under way when they are hurt."""
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

    @property
    def name(self) -> str:
        """What ``--only`` calls it."""
        return f"{self.fault.split()[0]}-{self.role}"

    @property
    def nodes(self) -> int:
        """Nodes of the cluster: a majority must be left."""
        return 5 if self.role == "both" else 3

    def __str__(self) -> str:
        return f"{self.fault} of {'sequencer and contact' if self.role == 'both' else f'the {self.role}'}"

    async def victims(self, cluster: Cluster) -> list[Node]:
        """Choose who is hurt now."""
        coordinator = await cluster.primary()
        other = next(name for name in cluster.nodes if name != coordinator)
        chosen = {"both": [coordinator, other], "contact": [other], "follower": [other]}.get(self.role, [coordinator])
        return [cluster[name] for name in chosen]


async def strike(cluster: Cluster, load: Load, victims: list[Node], fault: str, stop_seconds: float) -> float:
    """Hurt nodes, wait until they are back, and return the longest gap in writes that were acknowledged meanwhile.

    ``load`` writes through nodes that are not hurt.
    """
    await asyncio.sleep(SETTLE_SECONDS)
    begin = time.monotonic()
    for victim in victims:
        if fault == "kill -9":
            victim.kill()
        else:
            victim.pause()
    await asyncio.sleep(stop_seconds)
    for victim in victims:
        if fault == "kill -9":
            victim.start()
        else:
            victim.resume()
    await cluster.ready(*(victim.name for victim in victims))
    await asyncio.sleep(SETTLE_SECONDS)
    await load.more(1)
    times = load.times[max(0, bisect_left(load.times, begin) - 1) :]
    return max(later - sooner for sooner, later in pairwise(times))


async def one_series(cluster: Cluster, series: Series, options: argparse.Namespace, loads: list[Load]) -> None:
    """Repeat one fault. The writers of each turn use the nodes that stay, evenly; some more use the victims."""
    with progress() as bar:
        for number in bar.track(range(options.times), description=str(series)):
            await cluster.ready()
            victims = await series.victims(cluster)
            others = [node for node in cluster.nodes.values() if node not in victims]
            prefix = f"{series.name}-{number}"
            load = Load(others, options.writers, prefix=prefix, pause=options.pause)
            used = [load]
            if options.protocol == "active":
                used.append(Load(victims, CONTACT_WRITERS, prefix=f"{prefix}-victims", pause=options.pause))
            async with AsyncExitStack() as stack:
                for each in used:
                    await stack.enter_async_context(each)
                series.gaps.append(await strike(cluster, load, victims, series.fault, options.stop))
            loads += used
            for each in used:
                series.acknowledged += each.count
                series.indefinite += len(each.indefinite)
                series.refused += each.refused


async def one_cluster(count: int, chosen: list[Series], options: argparse.Namespace) -> int:
    """Run the series that need so many nodes, then read everything back; returns the last slot."""
    loads: list[Load] = []
    settings = {"groups.default": {"protocol": f'"{options.protocol}"'}}
    data = options.data and options.data / f"{count}-nodes"
    async with cluster_for(argparse.Namespace(data=data), count, settings) as cluster:
        for series in chosen:
            note(f"{series}, {options.times} times, {options.writers} writers, {count} nodes")
            await one_series(cluster, series, options, loads)
        note("reading every acknowledged write at every node")
        await verify(cluster, *loads)
        slot: int = (await cluster["n1"].group())["applied_slot"]
        return slot


async def failover(options: argparse.Namespace) -> Report:
    """Run all series, each in a cluster of the size that it needs."""
    wanted = [Series(fault, role) for fault, role in FAULTS[options.protocol]]
    wanted = [series for series in wanted if options.only in {None, series.name}]
    for count in sorted({series.nodes for series in wanted}):
        await one_cluster(count, [series for series in wanted if series.nodes == count], options)
    failures: list[str] = []
    rows = []
    for series in wanted:
        middle, worst = median(series.gaps), max(series.gaps)
        counts = (series.acknowledged, series.indefinite, series.refused)
        times = (milliseconds(middle), milliseconds(worst))
        rows.append((str(series), series.nodes, len(series.gaps), *times, *counts))
        if middle > MEDIAN_SECONDS or worst > MAXIMUM_SECONDS:
            failures.append(f"{series}: the gap's median is {middle:.2f} s (at most {MEDIAN_SECONDS}), its maximum "
                            f"{worst:.2f} s (at most {MAXIMUM_SECONDS})")  # fmt: skip
    columns = ("fault", "nodes", "times", "gap, median", "gap, maximum", "acknowledged", "indefinite", "refused")
    title = f"Gaps in writes, {options.protocol}; all acknowledged writes found at every node, digests equal"
    table(options, title, columns, rows)
    return {"protocol": options.protocol, "series": [vars(series) for series in wanted], "failures": failures}


def main() -> None:
    """Run the drill."""
    options = parser(
        "Kills or stops nodes again and again under load: the primary or a follower, or with --protocol active the\n"
        "sequencer, a contact (with clients of its own), or both of five. Prints the longest gap in acknowledged\n"
        "writes that each fault brought, as seen through the other nodes, and reads every acknowledged write back.",
        ".venv/bin/python -m drills.failover --times 10",
    )
    names = {protocol: [Series(*fault).name for fault in faults] for protocol, faults in FAULTS.items()}
    options.add_argument("--protocol", choices=list(FAULTS), default="remote-write", help="default: %(default)s")
    options.add_argument("--times", type=int, default=10, help="faults of each kind (default: %(default)s)")
    options.add_argument("--writers", type=int, default=32, help="default: %(default)s")
    options.add_argument("--stop", type=float, default=2.0, help="seconds that a node is down or stopped (default: 2)")
    options.add_argument("--pause", type=float, default=0.0, help="seconds between two writes of a writer (default: 0)")
    options.add_argument("--only", help=f"one kind of fault only: {', '.join(chain(*names.values()))}")
    chosen = options.parse_args()
    if chosen.only is not None and chosen.only not in names[chosen.protocol]:
        options.error(f"--only: with {chosen.protocol} there is {', '.join(names[chosen.protocol])}")
    run(failover, chosen)


if __name__ == "__main__":
    main()
