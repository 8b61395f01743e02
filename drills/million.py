"""Drill: a million keys are loaded, all nodes are killed, and the time until they serve again is taken."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import time
from collections.abc import Iterator

from drills.harness import Report, cluster_for, expect, note, parser, progress, run, table
from drills.loader import load
from tests.node.cluster import Cluster, Node, until

SERVE_SECONDS = 10.0
NO_CHECKPOINTS = {"cluster.limits": {"checkpoint_slots": 10**12, "checkpoint_bytes": 10**15}}


def items(count: int, value_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield ``(key, value)``."""
    for number in range(count):
        yield f"million/{number:07d}", b"%d:" % number + b"." * (value_bytes - len(b"%d:" % number))


async def fill(cluster: Cluster, options: argparse.Namespace) -> float:
    """Load all keys at the primary; returns puts per second."""
    port = cluster[await cluster.primary()].http
    begin = time.monotonic()
    with progress() as bar:
        task = bar.add_task("loading", total=options.keys)
        await load(port, options.connections, items(options.keys, options.value_bytes), lambda: bar.advance(task))
    await cluster.converged()
    return float(options.keys / (time.monotonic() - begin))


async def restart(cluster: Cluster, *, without_stores: bool) -> dict[str, float]:
    """Kill all nodes, start them, and return the seconds until each answered a linearizable read and took a write."""
    cluster.kill()
    if without_stores:
        for node in cluster.nodes.values():
            shutil.rmtree(node.data / "store")
    begin = time.monotonic()
    cluster.start()

    async def serves(node: Node) -> float:
        async def both() -> bool:
            read = await node.client.get("/v1/kv/million/0000000")
            return read.status == 200 and (await node.client.put(f"alive/{node.name}", b"x")).status == 200

        await until(f"{node.name} serves", both, seconds=600)
        return time.monotonic() - begin

    times = await asyncio.gather(*map(serves, cluster.nodes.values()))
    return dict(zip(cluster.nodes, times, strict=True))


async def check(cluster: Cluster, options: argparse.Namespace) -> None:
    """Count the keys at every node, and compare some values."""
    expected = dict(items(options.keys, options.value_bytes))
    some = random.sample(sorted(expected), min(2000, len(expected)))
    await cluster.converged()
    for node in cluster.nodes.values():
        answer = await node.client.request("GET", "/v1/kv/million/?keys", seconds=120)
        expect(answer.json() == sorted(expected), f"{node.name} does not have exactly the keys that were loaded")
        for key in some:
            expect(await node.client.value(key) == expected[key], f"{key} at {node.name}")


async def trial(options: argparse.Namespace, *, log_only: bool) -> Report:
    """Load, kill, restart and check once."""
    async with cluster_for(options, settings=NO_CHECKPOINTS if log_only else None) as cluster:
        note(f"loading {options.keys} keys of {options.value_bytes} bytes" + (", no checkpoints" if log_only else ""))
        speed = await fill(cluster, options)
        memory = {name: node.memory_bytes() for name, node in cluster.nodes.items()}
        slots = {name: (await node.group())["checkpoint_slot"] for name, node in cluster.nodes.items()}
        if log_only:
            expect(not any(slots.values()), f"checkpoints were taken: {slots}")
        note("kill -9 of all nodes" + (", their stores are removed" if log_only else ""))
        times = await restart(cluster, without_stores=log_only)
        after = {name: node.memory_bytes() for name, node in cluster.nodes.items()}
        note("comparing the keys at every node")
        await check(cluster, options)
        size = sum(path.stat().st_blocks * 512 for path in cluster["n1"].data.rglob("*") if path.is_file())
    title = "Restart from log alone" if log_only else "Restart after kill -9 of all nodes"
    title += f"; loaded at {speed:.0f} PUT/s; {size / 1e6:.0f} MB on n1's disk; all keys found at every node"
    rows = [
        (name, f"{times[name]:.2f} s", f"{memory[name] / 1e6:.0f} MB", f"{after[name] / 1e6:.0f} MB", slots[name])
        for name in times
    ]
    columns = ("node", "serves after", "memory, loaded", "memory, restarted", "checkpoint's slot")
    table(options, title, columns, rows)
    return {
        "puts_per_second": speed, "serves_after_seconds": times, "memory_bytes_loaded": memory,
        "memory_bytes_restarted": after, "checkpoint_slots": slots, "disk_bytes": size,
    }  # fmt: skip


async def million(options: argparse.Namespace) -> Report:
    """With checkpoints; then from the log alone."""
    report: Report = {"keys": options.keys, "failures": []}
    if options.only != "log":
        found = report["checkpoints"] = await trial(options, log_only=False)
        slowest = max(found["serves_after_seconds"].values())
        if slowest > SERVE_SECONDS:
            report["failures"].append(f"the last node served after {slowest:.1f} s (at most {SERVE_SECONDS:.0f})")
    if options.only != "checkpoints":
        if options.data is not None and options.only is None:
            shutil.rmtree(options.data)
        report["log_only"] = await trial(options, log_only=True)
    return report


def main() -> None:
    """Run the drill."""
    options = parser(
        "Loads a million keys of 100 bytes, kills all nodes, and prints how long each takes to serve again, and its\n"
        "memory. Then the same with checkpoints off and the stores removed: a restart from the log alone.",
        ".venv/bin/python -m drills.million --keys 1000000",
    )
    options.add_argument("--keys", type=int, default=1_000_000, help="default: %(default)s")
    options.add_argument("--value-bytes", type=int, default=100, help="default: %(default)s")
    options.add_argument("--connections", type=int, default=128, help="default: %(default)s")
    options.add_argument("--only", choices=("checkpoints", "log"), help="one of the two trials")
    run(million, options.parse_args())


if __name__ == "__main__":
    main()
