"""``replicad node``: maintenance of one node. Draining is asked of the node itself, wherever the command is run."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from replicad.cli.commands import CommandGroup
from replicad.cli.group import ASK_SECONDS, call, json_option
from replicad.cli.member import NODES
from replicad.cli.nodes import Address, Answer, UnreachedError, addr_option, ask, parse_addresses
from replicad.cli.output import EXIT_NO, EXIT_UNREACHED, EXIT_USAGE, Failure, examples, on_terminal, print_json
from replicad.cli.seconds import Seconds

DRAIN = "/v1/replicad/drain"
POLL_SECONDS = 0.1
DOWN_TO_DRAIN = "A node that is down holds no office and no lease"
DOWN_TO_UNDRAIN = "While it is down, to remove the file `drained` in its data directory ends a drain"
TOO_OLD_TO_DRAIN = "stop it with SIGTERM, which hands over as well"
TOO_OLD_TO_UNDRAIN = "it has leases and offices as ever"


@click.group(cls=CommandGroup, epilog=examples("replicad node drain n2", "replicad node undrain n2"))
def node() -> None:
    """Drain a node for maintenance, and take it back.

    A drained node holds no lease and no office, and other nodes pass nothing on to it: to stop it then stops no write,
    as long as the others are a majority. It stays a voter and keeps its copy up to date, and it stays drained, restarts
    included, until undrain.
    """


@node.command(epilog=examples("replicad node drain n2", "replicad node drain n2 --timeout 300 --json"))
@click.argument("name", metavar="NODE")
@click.option(
    "--timeout",
    "seconds",
    type=Seconds(0, 3600),
    default=30.0,
    show_default=True,
    help="Seconds to wait until NODE holds no office and no lease; 0: do not wait.",
)
@addr_option
@json_option
def drain(name: str, seconds: float, addresses: list[Address], *, as_json: bool) -> None:
    """Drain NODE, and wait until it can be stopped: it holds no office and no lease. Again: wait again.

    An office that no other member can take stays where it is until one can, for without it the group would stand still:
    then this says why, and NODE stays drained. So it does where other nodes are down and a group would have no majority
    without NODE. Its /readyz answers 503 from now on, so that load balancers avoid it. Ctrl-C ends the waiting only.

    Exit codes: 0 it holds nothing and can be stopped, 1 not within the timeout, 2 there is no such node or its release
    is too old, 4 it does not answer (then nothing was done).
    """
    where = _find(name, addresses)
    said = _said(ask_node(where, "PUT", name), name, TOO_OLD_TO_DRAIN)
    try:
        said = _wait(where, name, said, seconds, as_json=as_json)
    except KeyboardInterrupt:
        raise Failure(f"{name} stays drained: replicad node undrain {name} takes it back", EXIT_NO) from None
    if as_json:
        print_json(said)
    elif said["done"]:
        click.echo(f"{name} is drained: it holds no office and no lease")
    after = f" after {seconds:g} s" if seconds else ""
    again = f"replicad node drain {name} waits again, undrain takes it back"
    if not said["done"]:
        held = "\n".join(f"  {line}" for line in _holds(said))
        raise Failure(
            f"{name} is drained, and{after} holds still\n{held}\n  it gives that up as soon as it can; {again}",
            EXIT_NO,
        )
    if _needs(said):
        needed = "\n".join(f"  {line}" for line in _needs(said))
        raise Failure(
            f"{name} is drained, but to stop it now would stop\n{needed}\n  start the others first; {again}",
            EXIT_NO,
        )


@node.command(epilog=examples("replicad node undrain n2"))
@click.argument("name", metavar="NODE")
@addr_option
@json_option
def undrain(name: str, addresses: list[Address], *, as_json: bool) -> None:
    """Take a drained NODE back: it may have leases and offices again. One that is not drained stays as it is."""
    where = _find(name, addresses, DOWN_TO_UNDRAIN)
    said = _said(ask_node(where, "DELETE", name), name, TOO_OLD_TO_UNDRAIN)
    if as_json:
        print_json(said)
    else:
        click.echo(f"{name} is not drained")


def _wait(where: Address, name: str, said: dict[str, Any], seconds: float, *, as_json: bool) -> dict[str, Any]:
    """Ask again and again until the node can be stopped, or the time is over; returns what it said last."""
    deadline = time.monotonic() + seconds
    shown = ""
    while (not said["done"] or _needs(said)) and time.monotonic() < deadline:
        shown = _progress(said, shown, as_json=as_json)
        time.sleep(POLL_SECONDS)
        said = _said(ask_node(where, "GET", name), name, TOO_OLD_TO_DRAIN)
        if not said["drained"]:
            raise Failure(f"{name} is not drained any more: somebody else ended that", EXIT_NO)
    return said


def _find(name: str, addresses: list[Address], down: str = DOWN_TO_DRAIN) -> Address:
    """Return where a node answers: where the cluster says, or at one of ``addresses``; raises Failure."""
    nodes = {each["name"]: each for each in call(addresses, "GET", NODES)}
    if name not in nodes:
        raise Failure(f"there is no node {name!r}; the nodes are {', '.join(nodes)}", EXIT_USAGE)
    told = parse_addresses(nodes[name]["http"]) if nodes[name]["http"] else []
    problems = []
    for address in dict.fromkeys([*told, *addresses]):  # nodes may be found elsewhere from here than they say
        try:
            answer = ask(address, "GET", "/v1/replicad/status", seconds=ASK_SECONDS)
            if answer.status == 200 and json.loads(answer.body).get("node") == name:
                return address
            if address in told:
                problems.append(f"{address} is not {name}")
        except UnreachedError as error:
            problems.append(str(error))
        except (ValueError, AttributeError):
            problems.append(f"{address} answers, but not as a node does")
    why = "\n".join(f"  {problem}" for problem in problems)
    raise Failure(
        f"{name} does not answer, and only {name} itself can do this; nothing was done. {down}\n{why}",
        EXIT_UNREACHED,
    )


def ask_node(address: Address, method: str, name: str) -> Answer:
    """Ask a node about its drain; raises Failure if it gives no answer."""
    try:
        return ask(address, method, DRAIN, seconds=ASK_SECONDS)
    except UnreachedError as error:
        done = "" if method == "GET" or not error.sent else "; it may or may not be done: ask again"
        raise Failure(f"{name} does not answer: {error}{done}", EXIT_UNREACHED) from error


def _said(answer: Answer, name: str, too_old: str) -> dict[str, Any]:
    if answer.status == 404:
        raise Failure(f"{name} runs a release that cannot be drained: {too_old}", EXIT_USAGE)
    if answer.status != 200:
        raise Failure(answer.text or f"{answer.address} answered {answer.status}", EXIT_NO)
    said: dict[str, Any] = json.loads(answer.body)
    return said


def _holds(said: dict[str, Any]) -> list[str]:
    return [f"the {held['what']} of group {held['group']}: {held['why']}" for held in said["holds"]]


def _needs(said: dict[str, Any]) -> list[str]:
    return [f"group {need['group']}: {need['why']}" for need in said.get("needed", ())]


def _progress(said: dict[str, Any], shown: str, *, as_json: bool) -> str:
    """Tell a person what is waited for, once; returns what was told."""
    text = "\n".join(f"  {line}" for line in _holds(said) or _needs(said))
    if text != shown and on_terminal() and not as_json:
        head = "holds still" if _holds(said) else "holds nothing, and to stop it would stop"
        click.echo(f"{said['node']} is drained, and {head}\n{text} …", err=True)
    return text
