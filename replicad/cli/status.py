"""``replicad status``: every node, where it stands, and what it lacks."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from replicad.cli.nodes import Address, UnreachedError, addr_option, ask, parse_addresses
from replicad.cli.output import (
    BAD,
    EXIT_NO,
    GOOD,
    WARN,
    Failure,
    examples,
    on_terminal,
    print_json,
    printable,
    table_text,
)
from replicad.cli.seconds import Seconds

ASK_SECONDS = 2.0
COLUMNS = ("Node", "HTTP", "Role", "Epoch", "View", "Committed", "Applied", "Index", "Digest", "Checkpoint", "Missing")
NUMBERS = ("Epoch", "Committed", "Applied", "Index", "Checkpoint")


@dataclass(slots=True)
class Row:
    """One node: its status, or why there is none. ``name`` is "" when nobody told it."""

    name: str
    address: str
    status: dict[str, Any] | None
    reason: str
    peers: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        """Whether it answers and misses nothing."""
        return (
            self.status is not None
            and not self.drained
            and not any(group.get("missing") for group in self.groups.values())
        )

    @property
    def drained(self) -> bool:
        """Whether it is drained for maintenance."""
        return bool((self.status or {}).get("drained"))

    @property
    def groups(self) -> dict[str, dict[str, Any]]:
        """The groups of its status, by name."""
        groups = (self.status or {}).get("groups") or {}
        # What begins with "_" is the cluster's own, and shown where there is nothing else.
        return {name: group for name, group in groups.items() if not name.startswith("_")} or groups


@click.command(
    epilog=examples(
        "replicad status",
        "replicad status --watch",
        "replicad status --json",
        "REPLICAD_ADDR=127.0.0.1:8001 replicad status --ready",
    )
)
@addr_option
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option("--interval", type=Seconds(0.1, 3600), default=1.0, show_default=True, help="Seconds, --watch.")
@click.option("--ready", is_flag=True, help="Only ask whether the nodes named are ready; for health checks.")
@click.option("--json", "as_json", is_flag=True, help="Print what the nodes say as JSON.")
@click.pass_context
def status(
    context: click.Context, addresses: list[Address], *, watch: bool, interval: float, ready: bool, as_json: bool
) -> None:
    """Show all nodes: role, view, slots, digest, and what is missing.

    Nodes that the named ones know of are asked too. A node that does not answer is a row.

    Exit codes: 0 every node answers, misses nothing and is not drained, and all are of one cluster, 1 otherwise.
    """
    if ready:
        _check_ready(addresses)
        return
    guessed = context.get_parameter_source("addresses") is ParameterSource.DEFAULT
    if watch:
        _watch(addresses, interval, guessed=guessed, as_json=as_json)
        return
    rows = gather(addresses, guessed=guessed)
    if as_json:
        print_json({"nodes": [_as_json(row) for row in rows]})
    else:
        click.echo(render(rows), nl=False)
    if not all(row.well for row in rows) or _strangers(rows):
        raise click.exceptions.Exit(EXIT_NO)


def _check_ready(addresses: list[Address]) -> None:
    """Raise Failure unless each node says that it is ready."""
    problems = []
    for address in addresses:
        try:
            answer = ask(address, "GET", "/readyz", seconds=ASK_SECONDS)
        except UnreachedError as error:
            problems.append(str(error))
        else:
            if answer.status != 200:
                problems.append(f"{address} is not ready: {answer.text or answer.status}")
    if problems:
        raise Failure("\n".join(problems), EXIT_NO)


def _watch(addresses: list[Address], interval: float, *, guessed: bool, as_json: bool) -> None:
    try:
        while True:
            rows = gather(addresses, guessed=guessed)
            if as_json:
                click.echo(json.dumps({"nodes": [_as_json(row) for row in rows]}))
            else:
                # Text first, then clear: nothing flickers while the nodes are asked.
                text = render(rows)
                if on_terminal():
                    click.clear()
                click.echo(text if on_terminal() else text + "\n", nl=False)
            time.sleep(interval)
    except KeyboardInterrupt:
        click.echo()


def _as_json(row: Row) -> dict[str, object]:
    if row.status is None:
        return {"node": row.name, "address": row.address, "reachable": False, "reason": row.reason}
    return {"node": row.name, "address": row.address, "reachable": True, "status": row.status}


def gather(addresses: list[Address], *, guessed: bool) -> list[Row]:
    """Ask all nodes at once and return their rows, in the order of the members.

    Nodes that these know of are asked in a second round. ``guessed``: the addresses are the defaults, and one that
    neither answers nor is known to a node that does is no node.
    """
    with ThreadPoolExecutor(max_workers=16) as pool:
        rows = list(pool.map(_ask_one, addresses))
        known = list(dict.fromkeys(peer for row in rows for peer in row.peers))
        asked = {row.address for row in rows}
        rows += pool.map(_ask_one, (parse_addresses(peer)[0] for peer in known if peer not in asked))
    names = _names(rows)
    named: dict[str, Row] = {}
    nameless: list[Row] = []
    for row in rows:
        row.name = row.name or names.get(row.address, "")
        if not row.name:
            if not known or not guessed:
                nameless.append(row)
        elif row.name not in named or (named[row.name].status is None and row.status is not None):
            named[row.name] = row
    order = _members(rows)
    for member in order:
        if member not in named and not nameless:
            named[member] = Row(member, "", None, "none of the nodes that answer knows its address")
    place = {name: number for number, name in enumerate(order)}
    return sorted(named.values(), key=lambda row: (place.get(row.name, len(place)), row.name)) + nameless


def _ask_one(address: Address) -> Row:
    try:
        answer = ask(address, "GET", "/v1/replicad/status", seconds=ASK_SECONDS)
        found = json.loads(answer.body) if answer.status == 200 else None
        if not isinstance(found, dict) or "node" not in found:
            return Row("", str(address), None, f"answers {answer.status}, but not as a node does")
        peers = json.loads(ask(address, "GET", "/v1/status/peers", seconds=ASK_SECONDS).body)
        return Row(str(found["node"]), str(address), found, "", tuple(map(str, peers)))
    except UnreachedError as error:
        return Row("", str(address), None, error.reason)
    except ValueError:
        return Row("", str(address), None, "answers, but not as a node does")


def _members(rows: list[Row]) -> list[str]:
    """Return the names of the members of any group, in their order."""
    return list(
        dict.fromkeys(
            str(member["node"]) for row in rows for group in row.groups.values() for member in group.get("members", ())
        )
    )


def _names(rows: list[Row]) -> dict[str, str]:
    """Return address -> name for nodes that do not answer, as those that do tell it."""
    names: dict[str, str] = {}
    for row in rows:
        addresses = (row.status or {}).get("addresses")
        if isinstance(addresses, dict):
            names.update({str(address): str(name) for name, address in addresses.items()})
    return names


def render(rows: list[Row]) -> str:
    """Return the table of all nodes."""
    lines: list[tuple[object, ...]] = []
    colours: dict[int, str] = {}
    several = len({name for row in rows for name in row.groups}) > 1
    for row in rows:
        if row.status is None or not row.groups:
            colours[len(lines)] = BAD
            lines.append((row.name or "?", row.address, "unreachable", *("-" for _ in COLUMNS[3:-1]), row.reason))
            continue
        for name, group in row.groups.items():
            missing = "; ".join([*(["drained"] if row.drained else []), *(group.get("missing") or ())]) or "-"
            if missing != "-" or group.get("role") == "coordinator":
                colours[len(lines)] = WARN if missing != "-" else GOOD
            lines.append(
                (
                    f"{row.name}/{name}" if several else row.name,
                    row.address,
                    group.get("role", "?"),
                    group.get("epoch", "?"),
                    ",".join(group.get("view") or ()) or "-",
                    group.get("committed_slot", "?"),
                    group.get("applied_slot", "?"),
                    group.get("index", "?"),
                    str(group.get("digest", "?"))[:12],
                    group.get("checkpoint_slot", "?"),
                    missing,
                )
            )
    return table_text(COLUMNS, lines, right=NUMBERS, styles=colours) + "".join(
        f"{printable(line)}\n" for line in (*_drained(rows), *_slow(rows), *_refused(rows), *_strangers(rows))
    )


def _drained(rows: list[Row]) -> list[str]:
    """Return how each drained node is taken back: whoever finds it so may not have drained it."""
    return [
        f"{row.name} is drained for maintenance: replicad node undrain {row.name} takes it back"
        for row in rows
        if row.drained
    ]


def _slow(rows: list[Row]) -> list[str]:
    """Return which members were too slow, a line for each, whoever says so: with all groups, and the longest time."""
    slow: dict[str, list[tuple[str, int]]] = {}
    for row in rows:
        for name, group in row.groups.items():
            for member in group.get("members") or ():
                if member.get("probation_ms"):
                    slow.setdefault(str(member["node"]), []).append((name, int(member["probation_ms"])))
    return [
        f"{node} was too slow in {', '.join(dict.fromkeys(name for name, _ in said))}, and answers no reads by itself "
        f"before it has kept up for {max(left for _, left in said) / 1000:.1f} s more: look at its disk, with replicad "
        f"doctor"
        for node, said in slow.items()
    ]


def _refused(rows: list[Row]) -> list[str]:
    """Return what nodes say of those that they do not speak with, the same sentence once."""
    said: dict[str, list[str]] = {}
    for row in rows:
        for line in (row.status or {}).get("refused") or ():
            said.setdefault(str(line), []).append(row.name)
    return [f"{', '.join(names)}: {line}" for line, names in said.items()]


def _strangers(rows: list[Row]) -> list[str]:
    """Return a line if the nodes that answer are not of one cluster; one that knows no id yet may be of any."""
    ids: dict[str, list[str]] = {}
    for row in rows:
        if row.status is not None and row.status.get("cluster_id"):
            ids.setdefault(str(row.status["cluster_id"]), []).append(row.name)
    if len(ids) < 2:
        return []
    told = "; ".join(f"{', '.join(names)}: cluster id {found}" for found, names in ids.items())
    return [f"these are nodes of {len(ids)} clusters: {told}"]
