"""Drill: one group of each protocol in one cluster, loaded at all nodes with small and large values; who sends what?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from drills.cluster_requests import coordinated_by, create_group, replicad
from drills.harness import Report, cluster_for, expect, note, parser, run, table
from tests.node.cluster import Cluster

PAGE = Path(__file__).resolve().parent.parent / "docs" / "choosing.md"
BEGIN, END = "<!-- drills: begin (drills.protocols) -->", "<!-- drills: end -->"
GROUPS = {"remote": "remote-write", "active": "active"}
COORDINATOR = "n1"
SIZES = "100,4KiB,64KiB"
LARGE = 64 * 1024
SHARE = 1 / 3
"""At ``LARGE``, the sequencer sends less than this of what the primary sends for a write."""
COLUMNS = ("protocol", "value", "writes/s", "min-max", "median", "99 %", "coordinator sent, per write", "in all",
           "all nodes sent, per write")  # fmt: skip


def rows(cells: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the table's rows."""
    found = []
    for cell in cells:
        writes, rates = cell["writes"], cell["writes"]["per_second"]
        size = cell["value_bytes"]
        found.append((
            cell["protocol"],
            f"{size // 1024} KiB" if size % 1024 == 0 else f"{size} B",
            f"{rates['median']:,.0f}",
            f"{min(rates['rounds']):,.0f}-{max(rates['rounds']):,.0f}",
            f"{writes['median_ms']:.1f} ms",
            f"{writes['p99_ms']:.1f} ms",
            f"{cell['coordinator_sent_bytes_per_write']:,.0f} B",
            f"{cell['coordinator_sent_bytes'] / 1e6:,.1f} MB",
            f"{cell['all_sent_bytes_per_write']:,.0f} B",
        ))  # fmt: skip
    return found


def large(cells: list[dict[str, Any]]) -> dict[str, float]:
    """Return group -> bytes that its coordinator sent for a write of 64 KiB."""
    return {cell["group"]: cell["coordinator_sent_bytes_per_write"] for cell in cells if cell["value_bytes"] == LARGE}


def sentences(cells: list[dict[str, Any]], elsewhere: list[dict[str, Any]]) -> list[str]:
    """Return what the figures say of 64 KiB, with clients at all nodes and with clients everywhere but at n1."""
    found = []
    for where, sent in (("at all three nodes", large(cells)), ("at the other two nodes", large(elsewhere))):
        found.append(
            f"64 KiB, clients {where}: the sequencer sends {sent['active']:,.0f} bytes for a write, the primary "
            f"{sent['remote']:,.0f}; that is {sent['active'] / sent['remote']:.3f} of it."
        )
    return found


def write_page(text: str) -> None:
    """Put the table into the docs, between its markers."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    expect(begin and end, f"{PAGE} has no place for the table: {BEGIN} … {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def markdown(command: str, cells: list[dict[str, Any]], said: list[str]) -> str:
    """Return the table as the docs have it."""
    lines = [" | ".join(COLUMNS), " | ".join(["---", *["---:"] * (len(COLUMNS) - 1)])]
    lines += [" | ".join(row) for row in rows(cells)]
    body = "".join(f"| {line} |\n" for line in lines)
    figures = "".join(f"- {sentence}\n" for sentence in said)
    return f"\n`{command}`; three nodes and the load on one machine:\n\n{body}\n{figures}\n"


async def bench(cluster: Cluster, *arguments: str) -> list[dict[str, Any]]:
    """Run ``replicad bench`` and return its cells."""
    note("replicad bench " + " ".join(arguments))
    code, printed = await replicad(cluster, "bench", *arguments, "--json", quiet=False)
    expect(code in {0, 1} and printed, f"replicad bench ended with code {code}")
    cells: list[dict[str, Any]] = json.loads(printed)["cells"]
    return cells


async def protocols(options: argparse.Namespace) -> Report:
    """Create the groups, run ``replicad bench``, compare."""
    common = ("--group", ",".join(GROUPS), "--clients", str(options.clients), "--seconds", f"{options.seconds:g}")
    arguments = (*common, "--value-bytes", SIZES, "--rounds", str(options.rounds))
    async with cluster_for(options) as cluster:
        for name, protocol in GROUPS.items():
            # Both have their coordinator at one node, so that nothing but the protocol differs.
            await create_group(cluster["n1"], name, protocol=protocol, preferred=COORDINATOR)
        for name in GROUPS:
            await coordinated_by(cluster["n1"], name, COORDINATOR)
        cells = await bench(cluster, *arguments)
        elsewhere = await bench(cluster, *common, "--value-bytes", str(LARGE), "--rounds", "1", "--at", "n2,n3")
    failures = []
    for cell in (*cells, *elsewhere):
        what = f"{cell['group']}, {cell['value_bytes']} bytes"
        if cell["errors"]:
            failures.append(f"{what}: {cell['errors']} operations failed, the first: {cell['first_error']}")
        if cell["coordinator_moved"] or cell["coordinator"] != COORDINATOR:
            failures.append(f"{what}: the coordinator moved while it was measured ({cell['coordinator']})")
    sent = large(cells)
    share = sent["active"] / sent["remote"]
    if share >= SHARE:
        failures.append(f"at 64 KiB the sequencer sends {share:.3f} of what the primary sends, not less than a third")
    said = sentences(cells, elsewhere)
    table(options, said[0], COLUMNS, rows(cells))
    table(options, said[1], COLUMNS, rows(elsewhere))
    if options.write:
        write_page(markdown("replicad bench " + " ".join(arguments), cells, said))
    return {"share": share, "cells": cells, "cells_elsewhere": elsewhere, "failures": failures}


def main() -> None:
    """Run the drill."""
    options = parser(
        "A group with remote-write and one with active in one cluster of three nodes, both coordinated by n1, are\n"
        "loaded at all nodes by `replicad bench`. At 64 KiB the sequencer must send less than a third of the bytes\n"
        "for a write that the primary sends.",
        ".venv/bin/python -m drills.protocols --seconds 5",
    )
    options.add_argument("--seconds", type=float, default=5.0, help="each measurement (default: %(default)s)")
    options.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options.add_argument("--clients", type=int, default=30, help="connections, at all nodes (default: %(default)s)")
    options.add_argument("--write", action="store_true", help="write the table to docs/choosing.md")
    run(protocols, options.parse_args())


if __name__ == "__main__":
    main()
