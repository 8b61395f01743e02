"""Drill: a value put at one node is what the next read at every other node finds, again and again, under load."""

from __future__ import annotations

import argparse
import time
from statistics import median, quantiles

from drills.harness import Report, cluster_for, milliseconds, note, parser, progress, run, table
from tests.node.load import Load, verify


async def read_back(options: argparse.Namespace) -> Report:
    """Put at n2, read at n1 and n3 at the default consistency."""
    failures: list[str] = []
    puts: list[float] = []
    gets: dict[str, list[float]] = {"n1": [], "n3": []}
    async with cluster_for(options) as cluster:
        note(f"{options.rounds} rounds under a load of {options.writers} writers")
        async with Load(list(cluster.nodes.values()), options.writers, pause=options.pause) as load:
            with progress() as bar:
                for number in bar.track(range(options.rounds), description="rounds"):
                    value = b"round %d" % number
                    begin = time.perf_counter()
                    answer = await cluster["n2"].client.put("read-back", value)
                    puts.append(time.perf_counter() - begin)
                    if answer.status != 200:
                        failures.append(f"round {number}: PUT at n2 answered {answer.status} {answer.text}")
                        continue
                    for name, times in gets.items():
                        begin = time.perf_counter()
                        found = await cluster[name].client.value("read-back")
                        times.append(time.perf_counter() - begin)
                        if found != value:
                            failures.append(f"round {number}: {name} answered {found!r}")
        await verify(cluster, load)
    rows = {"PUT at n2": puts} | {f"GET at {name}": times for name, times in gets.items()}
    shown = [
        (what, milliseconds(median(times)), milliseconds(quantiles(times, n=100)[98])) for what, times in rows.items()
    ]
    table(options, f"{options.rounds} rounds, {load.count} other writes meanwhile", ("what", "median", "99 %"), shown)
    return {
        "rounds": options.rounds,
        "other_writes": load.count,
        "median_seconds": {what: median(times) for what, times in rows.items()},
        "failures": failures,
    }


def main() -> None:
    """Run the drill."""
    options = parser(
        "A PUT at n2 is read back by the next GET at n1 and at n3, at the default consistency, under load.",
        ".venv/bin/python -m drills.read_back --rounds 1000",
    )
    options.add_argument("--rounds", type=int, default=1000, help="default: %(default)s")
    options.add_argument("--writers", type=int, default=8, help="writers in the background (default: %(default)s)")
    options.add_argument("--pause", type=float, default=0.0, help="seconds between two writes of a writer (default: 0)")
    run(read_back, options.parse_args())


if __name__ == "__main__":
    main()
