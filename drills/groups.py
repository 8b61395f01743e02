"""Drill: many groups on three nodes. What do they cost in flushes, processor time and memory, and in log?"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from drills.cluster_requests import counters, create_group
from drills.harness import Report, cluster_for, expect, note, parser, progress, run, table
from tests.node.cluster import Cluster, Node
from tests.node.wire import Client, LostError, NotSentError

FLUSHES, SENT = "replicad_flush_seconds_count", "replicad_peer_sent_bytes_total"
FLUSHES_PER_WRITE_MAX = 1.0
"""A write alone takes a flush at each of the three nodes. Writes to many groups at once must share theirs."""
SEGMENT_BYTES = 5 * 1024**2
CHECKPOINT_BYTES = 2 * 1024**2
SEGMENTS_MAX = 16
VALUE_BYTES = 16 * 1024
SETTLE_SECONDS = 2.0


class Idle(NamedTuple):
    """One node that serves nobody: per cent of one core, resident bytes, flushes and bytes sent per second."""

    cpu: float
    memory: int
    flushes: float
    sent: float


class Loaded(NamedTuple):
    """One load: writes, writes per second, and flushes of all nodes."""

    writes: int
    per_second: float
    flushes: float

    @property
    def flushes_per_write(self) -> float:
        """Flushes of all three nodes for one write."""
        return self.flushes / self.writes


def cpu_seconds(node: Node) -> float:
    """Return the processor time that a node's process has used."""
    if node.process is None:
        raise AssertionError(f"{node.name} does not run")
    fields = Path(f"/proc/{node.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def idle(cluster: Cluster, seconds: float) -> list[Idle]:
    """Measure every node while nothing is asked of it."""
    nodes = list(cluster.nodes.values())
    before = [(cpu_seconds(node), await counters(node, FLUSHES, SENT)) for node in nodes]
    begin = time.monotonic()
    await asyncio.sleep(seconds)
    used = [cpu_seconds(node) for node in nodes]
    took = time.monotonic() - begin
    found = []
    for node, (cpu, old), later in zip(nodes, before, used, strict=True):
        new = await counters(node, FLUSHES, SENT)
        rates = ((new[name] - old[name]) / took for name in (FLUSHES, SENT))
        found.append(Idle((later - cpu) / took * 100, node.memory_bytes(), *rates))
    return found


async def load(cluster: Cluster, groups: list[str], options: argparse.Namespace, *, together: bool) -> Loaded:
    """Write at a fixed pace, spread over these groups and over the nodes; each client at its own moments or all
    ``together``, one write each.
    """
    before = [(await counters(node, FLUSHES))[FLUSHES] for node in cluster.nodes.values()]
    end = time.monotonic() + options.seconds
    counts = [0] * options.clients
    nodes = list(cluster.nodes.values())

    async def client(number: int) -> None:
        connection = Client(nodes[number % len(nodes)].http)
        turn = number
        interval = options.clients / options.rate
        due = time.monotonic() + (0.0 if together else interval * random.random())
        await asyncio.sleep(due - time.monotonic())
        while time.monotonic() < end:
            group = groups[turn % len(groups)]
            turn += options.clients
            answer = await connection.put(f"drill/{number}-{turn % 16}", b"%0100d" % turn, f"ns={group}")
            expect(answer.status == 200, f"group {group}: {answer.status} {answer.text}")
            counts[number] += 1
            due += interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        connection.close()

    await asyncio.gather(*(client(number) for number in range(options.clients)))
    after = [(await counters(node, FLUSHES))[FLUSHES] for node in cluster.nodes.values()]
    writes = sum(counts)
    return Loaded(writes, writes / options.seconds, sum(after) - sum(before))


async def busy_beside_idle(cluster: Cluster, group: str, bytes_max: int) -> tuple[int, int]:
    """Load one group with many segments' worth of values while the others are idle; returns the most segments that a
    node's log had in the second half, and the segments that went through it.
    """
    nodes = list(cluster.nodes.values())
    written = 0
    most = 0
    value = b"." * VALUE_BYTES

    async def client(number: int) -> None:
        nonlocal written
        connection = Client(nodes[number % len(nodes)].http)
        step = 0
        while written < bytes_max:
            step += 1
            try:
                answer = await connection.put(f"busy/{number}-{step % 64}", b"%012d" % step + value, f"ns={group}")
            except (NotSentError, LostError) as error:
                raise AssertionError(f"a write was lost: {error}") from error
            if answer.status == 200:
                written += VALUE_BYTES
            else:
                await asyncio.sleep(0.05)
        connection.close()

    async def watch() -> None:
        nonlocal most
        while written < bytes_max:
            if written > bytes_max // 2:
                most = max([most, *(len(node.segments()) for node in nodes)])
            await asyncio.sleep(0.1)

    await asyncio.gather(watch(), *(client(number) for number in range(16)))
    return most, written // SEGMENT_BYTES


async def groups(options: argparse.Namespace) -> Report:
    """Measure with one group, create the others, measure again."""
    settings = {"node": {"segment_bytes": SEGMENT_BYTES}, "cluster.limits": {"checkpoint_bytes": CHECKPOINT_BYTES}}
    names = [f"g{number}" for number in range(1, options.groups + 1)]
    async with cluster_for(options, 3, settings) as cluster:
        await create_group(cluster["n1"], names[0])
        await asyncio.sleep(SETTLE_SECONDS)
        note("idle with 1 group")
        few = await idle(cluster, options.idle)
        note(f"creating {options.groups - 1} more groups")
        begin = time.monotonic()
        with progress() as bar:
            for number, name in enumerate(bar.track(names[1:], description="groups")):
                await create_group(list(cluster.nodes.values())[number % 3], name)
        created = time.monotonic() - begin
        await asyncio.sleep(SETTLE_SECONDS)
        note(f"idle with {options.groups} groups")
        many = await idle(cluster, options.idle)
        loads: dict[str, list[Loaded]] = {}
        for together in (True, False):
            how = "together" if together else "apart"
            note(f"the same load on one group and on all, writes {how}")
            for _ in range(options.rounds):
                for what, chosen in (("one", names[:1]), ("all", names)):
                    found = await load(cluster, chosen, options, together=together)
                    loads.setdefault(f"{what}_{how}", []).append(found)
        note("one group loaded, the others idle: does the log stay bounded?")
        most, through = await busy_beside_idle(cluster, names[0], options.log_bytes)
    return report(options, Measured(created, few, many, loads, most, through))


class Measured(NamedTuple):
    """Everything that was measured: idle nodes with one group and with all, loads by name, segments of the log."""

    created: float
    few: list[Idle]
    many: list[Idle]
    loads: dict[str, list[Loaded]]
    segments_most: int
    segments_through: int

    def flushes_per_write(self, load: str) -> float:
        """Return the flushes of all nodes for a write, the median of the rounds."""
        return median(each.flushes_per_write for each in self.loads[load])


def _listed(values: Iterable[float], form: str) -> str:
    return ", ".join(form.format(value) for value in values)


def report(options: argparse.Namespace, found: Measured) -> Report:
    """Print the figures, and say what is wrong with them."""
    few, many, count = found.few, found.many, options.groups
    per_group = [(after.memory - before.memory) / (count - 1) for before, after in zip(few, many, strict=True)]
    rows: list[tuple[str, str, str]] = []
    for what, form, value in (
        ("processor, idle, of one core (n1, n2, n3)", "{:.1f} %", lambda node: node.cpu),
        ("resident memory (n1, n2, n3)", "{:.1f} MB", lambda node: node.memory / 1e6),
        ("flushes a second, idle (n1, n2, n3)", "{:.1f}", lambda node: node.flushes),
        ("bytes sent to peers a second, idle", "{:,.0f}", lambda node: node.sent),
    ):
        rows.append((what, _listed(map(value, few), form), _listed(map(value, many), form)))
    rows.append(
        ("memory for each group more (n1, n2, n3)", "", _listed([each / 1e3 for each in per_group], "{:.0f} kB"))
    )
    for how, meaning in (("together", "all clients write at once"), ("apart", "each at its own moments")):
        pair = [found.loads[f"one_{how}"], found.loads[f"all_{how}"]]
        rates = [median(each.per_second for each in loads) for loads in pair]
        flushes = [median(each.flushes / options.seconds / 3 for each in loads) for loads in pair]
        rows.append((f"{meaning}: writes a second", *(f"{rate:.0f}" for rate in rates)))
        rows.append((f"{meaning}: flushes a second and node", *(f"{each:.0f}" for each in flushes)))
        per_write = [found.flushes_per_write(f"{what}_{how}") for what in ("one", "all")]
        rows.append((f"{meaning}: flushes of all nodes for a write", *(f"{each:.2f}" for each in per_write)))
    rows.append(("segments of the log, at most (of so many)", "", f"{found.segments_most} ({found.segments_through})"))
    title = f"{count} groups on three nodes, created in {found.created:.1f} s"
    table(options, title, ("what", "1 group", f"{count} groups"), rows)
    failures = []
    together = found.flushes_per_write("all_together")
    if together > FLUSHES_PER_WRITE_MAX:
        failures.append(f"writes to {count} groups at once need {together:.2f} flushes each: they do not share flushes")
    if found.segments_most > SEGMENTS_MAX:
        failures.append(f"the log had {found.segments_most} segments while the other groups were idle "
                        f"(at most {SEGMENTS_MAX})")  # fmt: skip
    return {
        "groups": count,
        "created_seconds": found.created,
        "idle_one": [each._asdict() for each in few],
        "idle_all": [each._asdict() for each in many],
        "memory_per_group_bytes": per_group,
        "loads": {
            name: [each._asdict() | {"flushes_per_write": each.flushes_per_write} for each in loads]
            for name, loads in found.loads.items()
        },
        "segments_most": found.segments_most,
        "segments_through": found.segments_through,
        "failures": failures,
    }


def main() -> None:
    """Run the drill."""
    options = parser(
        "Three nodes with 1 group, then with 50: processor time and memory of idle nodes, flushes of the same load on\n"
        "one group and spread over all, and the length of the log while one group is loaded and the others are idle.",
        ".venv/bin/python -m drills.groups --groups 50",
    )
    options.add_argument("--groups", type=int, default=50, help="default: %(default)s")
    options.add_argument("--idle", type=float, default=20.0, help="seconds of idleness measured (default: %(default)s)")
    options.add_argument("--seconds", type=float, default=5.0, help="of each load (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=3, help="of both loads (default: %(default)s)")
    options.add_argument("--rate", type=int, default=300, help="writes a second (default: %(default)s)")
    options.add_argument("--clients", type=int, default=50, help="default: %(default)s")
    options.add_argument("--log-bytes", type=int, default=320_000_000, help="values for one group (default: 320 MB)")
    chosen = options.parse_args()
    if chosen.groups < 2:
        options.error("--groups must be 2 or more: one is compared with many")
    run(groups, chosen)


if __name__ == "__main__":
    main()
