"""``replicad member``: the members of a group, and the nodes of the cluster."""

from __future__ import annotations

from urllib.parse import quote

import click

from replicad.cli.group import ASK_SECONDS, call, change, json_option, path, timeout_option
from replicad.cli.nodes import Address, addr_option
from replicad.cli.output import EXIT_USAGE, Failure, examples, print_json, print_table

NODES = "/v1/replicad/nodes"
COLUMNS = ("Node", "State", "Matched", "Disk")

group_option = click.option("--group", "group", default="default", show_default=True, help="The group.")


@click.group(
    epilog=examples(
        "replicad member list",
        "replicad member add n4 --peer 10.0.0.4:9001 --http 10.0.0.4:8001",
        "replicad member replace n2 --with n4",
    )
)
def member() -> None:
    """Show and change who is a member of a group, one voter at a time.

    A new voter is a mirror until it has caught up. What would be unsafe is refused, with the reason. A command that was
    cut short is continued by running it again.
    """


@member.command("list", epilog=examples("replicad member list", "replicad member list --group orders"))
@group_option
@addr_option
@json_option
def list_members(group: str, addresses: list[Address], *, as_json: bool) -> None:
    """List the members of a group."""
    found = call(addresses, "GET", path(group, "members"))
    if as_json:
        print_json(found)
        return
    rows = [(each["node"], each["state"], each.get("matched_slot", "-"), each.get("disk") or "-") for each in found]
    print_table(COLUMNS, rows, right=("Matched",))


@member.command(
    "add",
    epilog=examples(
        "replicad member add n4",
        "replicad member add n4 --peer 10.0.0.4:9001 --http 10.0.0.4:8001",
        "replicad member add n4 --group orders --as mirror",
    ),
)
@click.argument("node")
@group_option
@click.option("--as", "role", type=click.Choice(["voter", "mirror"]), default="voter", show_default=True)
@click.option("--peer", metavar="HOST:PORT", help="Where the other nodes find a node that is new to the cluster,")
@click.option("--http", metavar="HOST:PORT", help="and where clients do.")
@timeout_option
@addr_option
@json_option
def add(
    node: str,
    group: str,
    role: str,
    peer: str | None,
    http: str | None,
    seconds: float,
    addresses: list[Address],
    *,
    as_json: bool,
) -> None:
    """Make NODE a member: a mirror first and, unless --as mirror, a voter once it has caught up.

    With --peer and --http the node is first made known to the cluster.
    """
    if (peer is None) != (http is None):
        raise Failure("--peer and --http go together: both say where a new node is found", EXIT_USAGE)
    if peer is not None:
        call(addresses, "PUT", f"{NODES}/{quote(node, safe='')}", {"peer": peer, "http": http}, ASK_SECONDS)
    body = {"action": "add", "node": node, "as": role}
    change(addresses, path(group, "members"), body, seconds, as_json=as_json, doing=f"adding {node} to {group}")


def _simple(action: str, doing: str, explanation: str, example: str) -> None:
    """Register a command that takes a node and nothing else."""

    @member.command(action, help=explanation, epilog=examples(example))
    @click.argument("node")
    @group_option
    @timeout_option
    @addr_option
    @json_option
    def command(node: str, group: str, seconds: float, addresses: list[Address], *, as_json: bool) -> None:
        body = {"action": action, "node": node}
        change(addresses, path(group, "members"), body, seconds, as_json=as_json, doing=f"{doing} {node} of {group}")


_simple(
    "remove",
    "removing",
    "Remove NODE, voter or mirror; it deletes what it holds of the group. A coordinator first hands its office over.",
    "replicad member remove n2",
)
_simple(
    "promote",
    "promoting",
    "Make a mirror a voter, once it has caught up.",
    "replicad member promote n4 --group orders",
)
_simple(
    "demote",
    "demoting",
    "Make a voter a mirror: it follows, and no write waits for it any more.",
    "replicad member demote n3 --group orders",
)


@member.command("replace", epilog=examples("replicad member replace n2 --with n4"))
@click.argument("node")
@click.option("--with", "other", required=True, help="The node that takes its place.")
@group_option
@timeout_option
@addr_option
@json_option
def replace(node: str, other: str, group: str, seconds: float, addresses: list[Address], *, as_json: bool) -> None:
    """Replace NODE, dead or alive: add the other one, promote it, and remove NODE."""
    body = {"action": "replace", "node": node, "with": other}
    doing = f"replacing {node} of {group} with {other}"
    change(addresses, path(group, "members"), body, seconds, as_json=as_json, doing=doing)


@member.command("nodes", epilog=examples("replicad member nodes"))
@addr_option
@json_option
def list_nodes(addresses: list[Address], *, as_json: bool) -> None:
    """List the nodes of the cluster, where they are found, and the groups that use them."""
    found = call(addresses, "GET", NODES)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each["name"],
            each["peer"],
            each["http"],
            "yes" if each["connected"] else "no",
            ",".join(each["groups"]) or "-",
        )
        for each in found
    ]
    print_table(("Node", "Peer", "HTTP", "Connected", "Groups"), rows)


@member.command("forget", epilog=examples("replicad member forget n4"))
@click.argument("node")
@addr_option
@json_option
def forget(node: str, addresses: list[Address], *, as_json: bool) -> None:
    """Remove a node from the cluster that no group uses any more."""
    done = call(addresses, "DELETE", f"{NODES}/{quote(node, safe='')}")
    if as_json:
        print_json(done)
    else:
        click.echo(f"node {node} is removed from the cluster")
