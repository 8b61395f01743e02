"""``replicad group``: the groups of a cluster, created, looked at, moved, switched and dropped."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import click

from replicad.cli.commands import CommandGroup
from replicad.cli.nodes import Address, addr_option, request
from replicad.cli.output import EXIT_USAGE, Failure, examples, on_terminal, print_json, print_table
from replicad.cli.seconds import Seconds
from replicad.core.cluster.definitions import not_to_be_dropped

GROUPS = "/v1/replicad/groups"
ASK_SECONDS = 10.0
COLUMNS = ("Group", "Protocol", "Ack", "Coordinator", "Members", "Mirrors")

json_option = click.option("--json", "as_json", is_flag=True, help="Print what the node answers as JSON.")
timeout_option = click.option(
    "--timeout",
    "seconds",
    type=Seconds(1, 600),
    default=60.0,
    show_default=True,
    help="Seconds that it may take.",
)


@click.group(
    cls=CommandGroup, epilog=examples("replicad group list", "replicad group create orders --members n1,n2,n3")
)
def group() -> None:
    """Create, show, change and drop groups. A group is a keyspace of its own; --ns NAME selects it (HTTP: ns=NAME)."""


def path(name: str, what: str = "") -> str:
    """Return the page of a group, or of something about it."""
    return f"{GROUPS}/{quote(name, safe='')}" + (f"/{what}" if what else "")


def call(addresses: list[Address], method: str, target: str, body: object = None, seconds: float = ASK_SECONDS) -> Any:
    """Send a request to the first node that answers, and return what it says; raises Failure.

    A change that was answered is not made again: whether it goes on is for whoever reads the answer to decide.
    """
    data = None if body is None else json.dumps(body).encode()
    answer = request(addresses, method, target, data, seconds=seconds, attempt_seconds=seconds, repeat=method == "GET")
    if answer.status != 200:
        raise Failure(answer.text or f"{answer.address} answered {answer.status}", EXIT_USAGE)
    return json.loads(answer.body)


def change(addresses: list[Address], target: str, body: object, seconds: float, *, as_json: bool, doing: str) -> None:
    """Have a change of one or more steps made, and print the steps."""
    if on_terminal() and not as_json:
        click.echo(f"{doing} …", err=True)
    steps = call(addresses, "POST", f"{target}?timeout={seconds:g}s", body, seconds + ASK_SECONDS)
    if as_json:
        print_json(steps)
        return
    for step in steps:
        click.echo(step)


def names(text: str) -> list[str]:
    """Return names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


@group.command("list", epilog=examples("replicad group list", "replicad group list --json"))
@addr_option
@json_option
def list_groups(addresses: list[Address], *, as_json: bool) -> None:
    """List all groups."""
    found = call(addresses, "GET", GROUPS)
    if as_json:
        print_json(found)
        return
    print_table(COLUMNS, [_row(each) for each in found])


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    coordinator = each.get("coordinator") or ("none" if each.get("leaderless") else "?")
    return (
        each["name"],
        each["protocol"],
        each["ack"],
        coordinator,
        ",".join(each["members"]),
        ",".join(each["mirrors"]) or "-",
    )


@group.command("show", epilog=examples("replicad group show orders"))
@click.argument("name")
@addr_option
@json_option
def show(name: str, addresses: list[Address], *, as_json: bool) -> None:
    """Show one group."""
    found = call(addresses, "GET", path(name))
    if as_json:
        print_json(found)
        return
    for field, value in found.items():
        if isinstance(value, list):
            value = ", ".join(map(str, value))  # noqa: PLW2901 - the same thing, in words
        elif isinstance(value, dict):
            value = ", ".join(f"{key} {each}" for key, each in value.items())  # noqa: PLW2901 - as above
        click.echo(f"{field:<12} {value if value not in ('', None) else '-'}")


@group.command(
    "create",
    epilog=examples(
        "replicad group create orders", "replicad group create orders --members n1,n2,n3 --protocol active --ack all"
    ),
)
@click.argument("name")
@click.option("--members", help="Names of its initial members, separated by commas.  [default: all nodes]")
@click.option("--protocol", type=click.Choice(["remote-write", "active"]), default="remote-write", show_default=True)
@click.option(
    "--ack",
    type=click.Choice(["all", "majority", "one"]),
    default="all",
    show_default=True,
    help="When a write that does not say so itself is acknowledged.",
)
@click.option("--preferred", default="", help="The node that should be its coordinator.  [default: any]")
@click.option("--checkpoint-slots", type=click.IntRange(1), help="Slots between checkpoints.  [default: the cluster's]")
@click.option("--checkpoint-bytes", type=click.IntRange(1), help="Bytes between checkpoints.  [default: the cluster's]")
@click.option("--value-bytes-max", type=click.IntRange(1), help="Largest value.  [default: the cluster's]")
@timeout_option
@addr_option
@json_option
def create(
    name: str,
    members: str | None,
    protocol: str,
    ack: str,
    preferred: str,
    checkpoint_slots: int | None,
    checkpoint_bytes: int | None,
    value_bytes_max: int | None,
    seconds: float,
    addresses: list[Address],
    *,
    as_json: bool,
) -> None:
    """Create a group. The same command again changes nothing; another one under the same name is refused."""
    limits = {
        "checkpoint_slots": checkpoint_slots,
        "checkpoint_bytes": checkpoint_bytes,
        "value_bytes_max": value_bytes_max,
    }
    body: dict[str, object] = {"protocol": protocol, "ack": ack, "preferred": preferred}
    body["limits"] = {limit: value for limit, value in limits.items() if value is not None}
    if members is not None:
        body["members"] = names(members)
    target = f"{path(name)}?timeout={seconds:g}s"
    made = call(addresses, "PUT", target, body, seconds + ASK_SECONDS)
    if as_json:
        print_json(made)
        return
    where = f", coordinator {made['coordinator']}" if made.get("coordinator") else ""
    click.echo(f"group {made['name']}: members {', '.join(made['members'])}{where}")


@group.command("drop", epilog=examples("replicad group drop orders --yes"))
@click.argument("name")
@click.option("--force", is_flag=True, help="Also if it is the group that clients use who name none.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@addr_option
@json_option
def drop(name: str, addresses: list[Address], *, force: bool, yes: bool, as_json: bool) -> None:
    """Drop a group and everything in it, on all nodes."""
    if why := not_to_be_dropped(name, force=force):
        raise Failure(why, EXIT_USAGE)
    if not yes:
        call(addresses, "GET", path(name))  # nobody confirms what there is not
    if not yes and not click.confirm(f"Drop group {name} and all of its keys?", err=True):
        raise Failure("nothing was done")
    done = call(addresses, "DELETE", path(name) + ("?force" if force else ""))
    if as_json:
        print_json(done)
    else:
        click.echo(f"group {name} is dropped")


@group.command("protocol", epilog=examples("replicad group protocol orders active"))
@click.argument("name")
@click.argument("protocol", metavar="PROTOCOL", type=click.Choice(["remote-write", "active"]))
@timeout_option
@addr_option
@json_option
def switch(name: str, protocol: str, seconds: float, addresses: list[Address], *, as_json: bool) -> None:
    """Switch a live group to another protocol, remote-write or active, without losing or reordering a write."""
    body = {"protocol": protocol}
    change(addresses, path(name, "protocol"), body, seconds, as_json=as_json, doing=f"switching {name} to {protocol}")


@group.command("move-primary", epilog=examples("replicad group move-primary orders n2"))
@click.argument("name")
@click.argument("node")
@timeout_option
@addr_option
@json_option
def move_primary(name: str, node: str, seconds: float, addresses: list[Address], *, as_json: bool) -> None:
    """Move a group's coordinator to NODE, and have it there whenever that is possible."""
    body = {"node": node}
    change(addresses, path(name, "primary"), body, seconds, as_json=as_json, doing=f"moving {name} to {node}")
