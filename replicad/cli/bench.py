"""``replicad bench``: how many operations a running cluster does, how long one takes, and what nodes send for it."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from replicad.cli.group import path
from replicad.cli.nodes import Address, UnreachedError, addr_option, ask, parse_addresses, request
from replicad.cli.output import EXIT_NO, EXIT_UNREACHED, EXIT_USAGE, Failure, examples, print_json, print_table
from replicad.cli.seconds import Seconds

if TYPE_CHECKING:
    from replicad.lab.bench.figures import Figures, Round, Tally
    from replicad.lab.bench.plan import Cell, Plan

PREFIX = "bench"
ASK_SECONDS = 5.0
WRITE_SECONDS = 20.0
"""How long the first write of a group, and the removal of the keys at the end, may take."""
LATE_SECONDS = 1.0
"""Pause before the keys are deleted when some writes were not answered: they may still be on their way."""
ELSEWHERE = ("Group", "Protocol", "Coordinator", "Value")
SENT = re.compile(r"^replicad_peer_sent_bytes_total\{[^}]*\} (\S+)$", re.MULTILINE)


@click.command(
    epilog=examples(
        "replicad bench",
        "replicad bench --group orders,carts --value-bytes 100,4KiB,64KiB --rounds 5",
        "replicad bench --mix 90/10 --at n2 --clients 8 --json",
    )
)
@addr_option
@click.option("--group", "groups", default="default", show_default=True, metavar="NAME,…", help="Groups to load.")
@click.option("--value-bytes", "sizes", default="100", show_default=True, metavar="SIZE,…", help="As 100,4KiB,64KiB.")
@click.option("--clients", type=click.IntRange(1, 1024), default=32, show_default=True, help="Connections, in all.")
@click.option(
    "--seconds",
    type=Seconds(0.1, 600),
    default=5.0,
    show_default=True,
    help="How long each group is loaded with each size, in each round.",
)
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Rounds through all of it.")
@click.option("--at", default="all", show_default=True, metavar="NODE,…", help="Nodes that the clients talk to.")
@click.option("--mix", default="put", show_default=True, help="put, get, or percentages of puts and gets, as 90/10.")
@click.option(
    "--ack",
    type=click.Choice(["all", "majority", "one"]),
    default=None,
    help="When a write is acknowledged.  [default: as each group says]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(
    addresses: list[Address],
    groups: str,
    sizes: str,
    clients: int,
    seconds: float,
    rounds: int,
    at: str,
    mix: str,
    ack: str | None,
    *,
    as_json: bool,
) -> None:
    """Load a running cluster, and print operations per second, latencies, and the bytes that nodes send to each other.

    One group is loaded at a time, with values of one size; the others are idle meanwhile. All are measured in turn in
    each round, so that they meet the same conditions. Rates are medians of the rounds; latencies are of all rounds.
    It stops by itself, and deletes the keys that it has written: all begin with bench/ and a random name.

    The bytes are those that the group's coordinator sent to other nodes, from the counters of its /metrics before and
    after; those that other groups send to stay alive are among them. So do not run it beside other load.

    Exit codes: 0 measured, 1 measured and operations failed, 2 it cannot be done as it was given, 4 no node answers.
    """
    from replicad.lab.bench.plan import Plan, cells, parse_mix, parse_sizes

    named = [name.strip() for name in groups.split(",") if name.strip()]
    if not named:
        raise Failure("--group names no group", EXIT_USAGE)
    try:
        chosen = cells(list(dict.fromkeys(named)), _option("--value-bytes", parse_sizes, sizes))
        plan = Plan(chosen, rounds, seconds, clients, _option("--mix", parse_mix, mix), ack or "")
    except ValueError as error:
        raise Failure(str(error), EXIT_USAGE) from error
    cluster = _Cluster(addresses)
    figures = _measure(cluster, plan, cluster.chosen(at))
    _print(plan, figures, as_json=as_json)
    if any(each.errors for each in figures):
        raise click.exceptions.Exit(EXIT_NO)


def _option(name: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


class _Cluster:
    """The nodes of the cluster, and what they say of themselves."""

    def __init__(self, addresses: list[Address]) -> None:
        self.addresses = addresses
        said = json.loads(request(addresses, "GET", "/v1/replicad/nodes", seconds=ASK_SECONDS).body)
        self.nodes = {each["name"]: parse_addresses(each["http"])[0] for each in said if each["http"]}

    def chosen(self, names: str) -> list[Address]:
        """Return the addresses of these nodes, which must answer; of ``all``, those that do. Raises Failure."""
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        if wanted == ["all"]:
            wanted = list(self.nodes)
        for name in wanted:
            if name not in self.nodes:
                raise Failure(
                    f"--at: there is no node {name[:70]!r}; the nodes are {', '.join(self.nodes)}", EXIT_USAGE
                )
        if not wanted:
            raise Failure(f"--at names no node; it is all, or some of {', '.join(self.nodes)}", EXIT_USAGE)
        found = []
        for name in wanted:
            try:
                ask(self.nodes[name], "GET", "/livez", seconds=ASK_SECONDS)
            except UnreachedError as error:
                if names.strip() != "all":
                    raise Failure(f"--at: node {name} gives no answer: {error}", EXIT_UNREACHED) from error
                click.echo(f"{name} is left out: {error}", err=True)
            else:
                found.append(self.nodes[name])
        if not found:
            raise Failure("no node answers", EXIT_UNREACHED)
        return found

    def describe(self, group: str) -> dict[str, Any]:
        """Return what the cluster says of a group, by a node that knows its coordinator if there is one."""
        said = json.loads(request(self.addresses, "GET", path(group), seconds=ASK_SECONDS).body)
        for member in said["members"]:
            if said["coordinator"]:
                break
            if member in self.nodes:
                try:
                    answer = ask(self.nodes[member], "GET", path(group), seconds=ASK_SECONDS)
                except UnreachedError:
                    continue
                said = json.loads(answer.body) if answer.status == 200 else said
        found: dict[str, Any] = said
        return found

    def sent(self) -> dict[str, int | None]:
        """Return node -> bytes that it has sent to others; None if it does not say."""
        found: dict[str, int | None] = {}
        for name, address in self.nodes.items():
            try:
                answer = ask(address, "GET", "/metrics", seconds=ASK_SECONDS)
            except UnreachedError:
                found[name] = None
            else:
                found[name] = sum(int(float(value)) for value in SENT.findall(answer.body.decode()))
        return found


def _measure(cluster: _Cluster, plan: Plan, targets: list[Address]) -> list[Figures]:
    """Measure every cell in every round, and delete what was written."""
    from replicad.cli.simulate import progress
    from replicad.lab.bench.figures import Figures

    prefix = f"{PREFIX}/{secrets.token_hex(4)}/"
    groups = list(dict.fromkeys(cell.group for cell in plan.cells))
    found = {cell: Figures(cell, cluster.describe(cell.group)["protocol"]) for cell in plan.cells}
    answered = False
    try:
        for cell in plan.cells:
            _try_out(cluster, plan, cell, prefix)
        with progress(plan.rounds * len(plan.cells), "measurements") as step:
            for _, cell in plan.turns():
                found[cell].rounds.append(_one(cluster, plan, cell, targets, prefix))
                step("")
        answered = not any(each.errors for each in found.values())
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        raise click.exceptions.Exit(130) from None
    finally:
        if not answered:
            time.sleep(LATE_SECONDS)
        _delete(cluster, groups, prefix)
    return list(found.values())


def _try_out(cluster: _Cluster, plan: Plan, cell: Cell, prefix: str) -> None:
    """Write once as the load will: what is refused (a value too large) ends it before anything is measured."""
    target = f"/v1/kv/{prefix}first?ns={quote(cell.group)}" + (f"&ack={plan.ack}" if plan.ack else "")
    headers = {"Idempotency-Key": secrets.token_hex(16)}
    try:
        request(cluster.addresses, "PUT", target, b"." * cell.value_bytes, headers, seconds=WRITE_SECONDS)
    except Failure as failure:
        raise Failure(f"group {cell.group}, {cell.value_bytes} bytes: {failure.message}", failure.exit_code) from None


def _one(cluster: _Cluster, plan: Plan, cell: Cell, targets: list[Address], prefix: str) -> Round:
    """Measure one cell once."""
    from replicad.lab.bench.figures import Round

    coordinator = cluster.describe(cell.group)["coordinator"]
    before = cluster.sent()
    tally = _load(plan, cell, targets, prefix)
    after = cluster.sent()
    sent = {name: _difference(before[name], after[name]) for name in before}
    moved = cluster.describe(cell.group)["coordinator"] != coordinator
    counts = [count for count in sent.values() if count is not None]
    everyone = sum(counts) if len(counts) == len(sent) else None
    return Round(tally, coordinator, moved, sent.get(coordinator), everyone)


def _difference(before: int | None, after: int | None) -> int | None:
    """Return what was sent between; None also when the node was started anew and counts from 0."""
    return None if before is None or after is None or after < before else after - before


def _load(plan: Plan, cell: Cell, targets: list[Address], prefix: str) -> Tally:
    import uvloop

    from replicad.lab.bench.load import Target, Work, drive

    work = Work(prefix, quote(cell.group), cell.value_bytes, plan.put_percent, plan.ack)
    places = [Target(address.host, address.port) for address in targets]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(drive(places, plan.clients, work, plan.seconds))


def _delete(cluster: _Cluster, groups: list[str], prefix: str) -> None:
    for group in groups:
        target = f"/v1/kv/{prefix}?recurse&ns={quote(group)}"
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        try:
            request(cluster.addresses, "DELETE", target, headers=headers, seconds=WRITE_SECONDS)
        except Failure as failure:
            click.echo(f"the keys under {prefix} of group {group} may still be there: {failure.message}", err=True)


def _print(plan: Plan, figures: list[Figures], *, as_json: bool) -> None:
    from replicad.lab.bench.figures import table

    if as_json:
        settings = {name: getattr(plan, name) for name in ("rounds", "seconds", "clients", "put_percent", "ack")}
        print_json({"plan": settings, "cells": [each.as_json() for each in figures]})
        return
    columns, rows = table(figures)
    right = tuple(name for name in columns if name not in ELSEWHERE)
    print_table(columns, rows, right=right, styles={n: "yellow" for n, each in enumerate(figures) if each.errors})
    for each in figures:
        if each.errors:
            click.echo(f"{each.cell.group}, {each.cell.value_bytes} bytes: {each.errors} errors, the first: "
                       f"{each.first_error}", err=True)  # fmt: skip
