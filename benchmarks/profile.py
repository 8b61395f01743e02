"""``make profile``: a flame graph per role under load, and what one write costs, in microseconds, and where.

py-spy samples which code holds the interpreter; the CPU time that the kernel charged to the process is divided among
the parts in proportion. Both are disturbed by the sampling, which stops the process each time: read the shares, and
take the sums from a run without it (``make bench``).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks.arguments import TargetError, positive, prepare
from benchmarks.clusters.processes import MissingProgramsError, require
from benchmarks.clusters.replicad import ReplicadCluster
from benchmarks.generators.wrk import REPLICAD, wrk

TABLE = Console(highlight=False, markup=False, soft_wrap=True)
NOTES = Console(highlight=False, stderr=True, soft_wrap=True)

PARTS = (
    ("message log (its thread)", r"MessageLog\._(run|turn)"),
    ("apply: state machine and store", r"Executor\.run|write_behind"),
    ("answers: format and socket write", r"Writes\.on_results"),
    ("replica: commit, announce, feed", r"core/group/"),
    ("HTTP: parse and submit", r"replicad/http/|native/"),
    ("batch: encode and hand over", r"Writes\._submit_batch"),
    ("peers: frames and sockets", r"Link\.|Transport\.|framing"),
    ("ticks", r"NodeRuntime\._tick"),
    ("message log (the loop's side)", r"MessageLog\.|NodeRuntime\._on_durable"),
    ("event loop, socket reads, rest", r""),
)
"""Part of the path and what its frames look like; a sample belongs to the first part that one of its frames fits."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def divide(raw: str, microseconds: float) -> list[tuple[str, float]]:
    """Divide the CPU time of one write among the parts; ``raw``: py-spy's samples, a stack and a count a line."""
    found: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        part = next(name for name, pattern in PARTS if re.search(pattern, stack))
        found[part] += int(count)
    total = sum(found.values()) or 1
    return [(name, microseconds * found[name] / total) for name, _ in PARTS]


async def sample(pid: int, seconds: int, kind: str, target: Path) -> None:
    """Have py-spy watch a process."""
    spy = str(Path(sys.executable).with_name("py-spy"))
    command = (spy, "record", "--gil", "-r", "250", "-d", str(seconds), "-p", str(pid), "-f", kind, "-o", str(target))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"py-spy failed (it needs the right to trace processes): {printed.decode().strip()}")


async def measure(options: argparse.Namespace) -> dict[str, list[tuple[str, float]]]:
    """Return what one write costs at the coordinator and at a follower; the flame graphs go to ``options.output``."""
    found = {}
    async with ReplicadCluster(3, protocol=options.protocol) as cluster:
        coordinator = await cluster.coordinator()
        roles = {"coordinator": coordinator, "follower": (coordinator + 1) % 3}
        for role, node in roles.items():
            pid = cluster.pid(node)
            before = cpu_seconds(pid)
            load = asyncio.create_task(
                wrk(
                    [cluster.http(coordinator)],
                    REPLICAD,
                    "put",
                    connections=options.connections,
                    seconds=2 * options.seconds + 3,
                    keys=10_000,
                    value_bytes=100,
                )
            )
            await asyncio.sleep(1)
            graph = options.output / f"flame-{role}.svg"
            await sample(pid, options.seconds, "flamegraph", graph)
            with tempfile.TemporaryDirectory() as directory:
                raw = Path(directory) / "raw"
                await sample(pid, options.seconds, "raw", raw)
                text = raw.read_text(encoding="utf-8")
            done = await load
            found[role] = divide(text, 1e6 * (cpu_seconds(pid) - before) / done.requests)
            NOTES.print(f"{role}: {graph}", markup=False)
    return found


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=positive, default=8, help="how long each role is watched, twice (default: 8)")
    parser.add_argument("--connections", type=positive, default=64, help="of wrk (default: 64)")
    parser.add_argument("--protocol", choices=("remote-write", "active"), default="remote-write")
    parser.add_argument("--output", type=Path, default=Path("data/bench"), help="directory (default: data/bench)")
    options = parser.parse_args()
    try:
        require(("wrk",))
        prepare(options.output)
    except (MissingProgramsError, TargetError) as error:
        NOTES.print(str(error), markup=False)
        return 2
    found = uvloop.run(measure(options))
    width = max(len(name) for name, _ in PARTS)
    TABLE.print(f"CPU time of one write in microseconds, {options.connections} connections at the coordinator")
    TABLE.print(f"{'':{width}}  " + "  ".join(f"{role:>11}" for role in found))
    for at, (name, _) in enumerate(PARTS):
        TABLE.print(f"{name:{width}}  " + "  ".join(f"{parts[at][1]:11.1f}" for parts in found.values()))
    TABLE.print(
        f"{'together':{width}}  " + "  ".join(f"{sum(cost for _, cost in parts):11.1f}" for parts in found.values())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
