"""``replicad member``: the members of a group, and the nodes of the cluster."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import quote

import click

from replicad.cli.commands import CommandGroup
from replicad.cli.group import ASK_SECONDS, GROUPS, call, change, json_option, path, timeout_option
from replicad.cli.nodes import Address, addr_option, parse_addresses
from replicad.cli.output import EXIT_USAGE, Failure, examples, on_terminal, print_json, print_table

NODES = "/v1/replicad/nodes"
COLUMNS = ("Node", "State", "Matched", "Disk")
COORDINATOR_SECONDS = 2.0
"""So long a group's coordinator is asked how the members are, before another node's answer must do."""

group_option = click.option("--group", "group", default="default", show_default=True, help="The group.")
all_groups_option = click.option(
    "--all-groups", is_flag=True, help="Each group that it concerns, one after another, instead of --group."
)


@click.group(
    cls=CommandGroup,
    epilog=examples(
        "replicad member list",
        "replicad member add n4 --peer 10.0.0.4:9001 --http 10.0.0.4:8001",
        "replicad member replace n2 --with n4",
    ),
)
def member() -> None:
    """Show and change who is a member of a group, one voter at a time.

    A new voter is a mirror until it has caught up. What would be unsafe is refused, with the reason. A command that was
    cut short is continued by running it again; a replace whose new node is a voter already, by removing the old one.

    If a node is dead for good, here n2: add another one to the cluster (member add n4 --peer --http --as mirror), give
    it every place of the dead one (member replace n2 --with n4 --all-groups), then take the dead one out of the
    cluster (member forget n2). With no other node at hand: member remove n2 --all-groups, then forget.
    """


@member.command("list", epilog=examples("replicad member list", "replicad member list --group orders"))
@group_option
@addr_option
@json_option
def list_members(group: str, addresses: list[Address], *, as_json: bool) -> None:
    """List the members of a group, as its coordinator sees them."""
    found = members_at_coordinator(addresses, group)
    if as_json:
        print_json(found)
        return
    rows = [(each["node"], each["state"], each.get("matched_slot", "-"), each.get("disk") or "-") for each in found]
    print_table(COLUMNS, rows, right=("Matched",))


def members_at_coordinator(addresses: list[Address], group: str) -> list[dict[str, Any]]:
    """Return the members of a group as its coordinator knows them, or as any node does if that one cannot be asked."""
    found: list[dict[str, Any]] = call(addresses, "GET", path(group, "members"))
    coordinator = next((each["node"] for each in found if each["state"] == "coordinator"), "")
    others = [each for each in found if each["node"] != coordinator]
    if not coordinator or not others:
        return found
    with suppress(Failure):  # nodes may be found elsewhere from here than they say
        where = next((each["http"] for each in call(addresses, "GET", NODES) if each["name"] == coordinator), "")
        if where:
            found = call(parse_addresses(where), "GET", path(group, "members"), seconds=COORDINATOR_SECONDS)
    return found


@member.command(
    "add",
    epilog=examples(
        "replicad member add n4",
        "replicad member add n4 --peer 10.0.0.4:9001 --http 10.0.0.4:8001",
        "replicad member add n4 --group orders --as mirror",
        "replicad member add n4 --all-groups",
    ),
)
@click.argument("node")
@group_option
@all_groups_option
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
    all_groups: bool,
    as_json: bool,
) -> None:
    """Make NODE a member: a mirror first and, unless --as mirror, a voter once it has caught up.

    With --peer and --http the node is first made known to the cluster. Every node that the cluster knows follows
    _meta, the group that holds what groups and nodes there are, and gets a vote there by itself when the number of
    voters stays odd by that (at most 5; not where the setting cluster.meta names them).
    """
    if (peer is None) != (http is None):
        raise Failure("--peer and --http go together: both say where a new node is found", EXIT_USAGE)
    if peer is not None:
        call(addresses, "PUT", f"{NODES}/{quote(node, safe='')}", {"peer": peer, "http": http}, ASK_SECONDS)
    body = {"action": "add", "node": node, "as": role}
    if all_groups:
        groups = [
            each["name"]
            for each in call(addresses, "GET", GROUPS)
            if node not in each["members"] and (role == "voter" or node not in each["mirrors"])
        ]
        change_groups(addresses, groups, body, seconds, as_json=as_json, doing=f"adding {node} as a {role}")
        return
    change(addresses, path(group, "members"), body, seconds, as_json=as_json, doing=f"adding {node} to {group}")


def change_groups(
    addresses: list[Address], groups: list[str], body: dict[str, str], seconds: float, *, as_json: bool, doing: str
) -> None:
    """Make the same change in several groups, one after another; raises Failure at the first that does not go."""
    done: dict[str, list[str]] = {}
    for name in groups:
        if on_terminal() and not as_json:
            click.echo(f"{doing} of {name} …", err=True)
        try:
            done[name] = call(
                addresses, "POST", f"{path(name, 'members')}?timeout={seconds:g}s", body, seconds + ASK_SECONDS
            )
        except Failure as failure:
            left = ", ".join(groups[len(done) :])
            raise Failure(f"group {name}: {failure.message} (groups not done: {left})", failure.exit_code) from None
        if not as_json:
            for step in done[name]:
                click.echo(f"{name}: {step}")
    if as_json:
        print_json(done)
    elif not groups:
        click.echo(f"{body['node']} is in no group that would change")


def groups_of(addresses: list[Address], node: str) -> list[str]:
    """Return the names of the groups that a node is a member or mirror of."""
    return [each["name"] for each in call(addresses, "GET", GROUPS) if node in (*each["members"], *each["mirrors"])]


def _simple(action: str, doing: str, explanation: str, example: str) -> None:
    """Register a command that takes a node and nothing else."""

    @member.command(action, help=explanation, epilog=examples(example, f"{example.partition(' --')[0]} --all-groups"))
    @click.argument("node")
    @group_option
    @all_groups_option
    @timeout_option
    @addr_option
    @json_option
    def command(
        node: str, group: str, seconds: float, addresses: list[Address], *, all_groups: bool, as_json: bool
    ) -> None:
        body = {"action": action, "node": node}
        doing_it = f"{doing} {node}"
        if all_groups:
            groups = groups_of(addresses, node)
            change_groups(addresses, groups, body, seconds, as_json=as_json, doing=doing_it)
            return
        change(addresses, path(group, "members"), body, seconds, as_json=as_json, doing=f"{doing_it} of {group}")


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


@member.command(
    "replace",
    epilog=examples("replicad member replace n2 --with n4", "replicad member replace n2 --with n4 --all-groups"),
)
@click.argument("node")
@click.option("--with", "other", required=True, help="The node that takes its place.")
@group_option
@all_groups_option
@timeout_option
@addr_option
@json_option
def replace(
    node: str, other: str, group: str, seconds: float, addresses: list[Address], *, all_groups: bool, as_json: bool
) -> None:
    """Replace NODE, dead or alive: add the other one, promote it, and remove NODE.

    If NODE is dead for good, do so with --all-groups and then run replicad member forget NODE: that replaces it among
    the voters of _meta, too.
    """
    body = {"action": "replace", "node": node, "with": other}
    doing = f"replacing {node} with {other}"
    if all_groups:
        groups = groups_of(addresses, node)
        change_groups(addresses, groups, body, seconds, as_json=as_json, doing=doing)
        return
    change(addresses, path(group, "members"), body, seconds, as_json=as_json, doing=f"{doing} in {group}")


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
            ", ".join(word for word in ("drained", "leaving") if each.get(word)) or "-",
        )
        for each in found
    ]
    print_table(("Node", "Peer", "HTTP", "Connected", "Groups", "State"), rows)


@member.command("forget", epilog=examples("replicad member forget n4"))
@click.argument("node")
@timeout_option
@addr_option
@json_option
def forget(node: str, seconds: float, addresses: list[Address], *, as_json: bool) -> None:
    """Remove a node, dead or alive, from the cluster.

    No group may use it any more: first replicad member replace or remove, with --all-groups.

    If it votes on _meta, it first loses that vote, and its office there if it has it; another node takes its place if
    one has caught up. Refused if too few voters of _meta would answer.
    """
    target = f"{NODES}/{quote(node, safe='')}?timeout={seconds:g}s"
    done = call(addresses, "DELETE", target, None, seconds + ASK_SECONDS)
    if as_json:
        print_json(done)
    else:
        click.echo(f"node {node} is removed from the cluster")
