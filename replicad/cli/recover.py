"""``replicad recover``: a group that has lost a majority of its disks for good goes on from what a survivor holds."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replicad.cli import locks
from replicad.cli.nodes import Address, UnreachedError, ask
from replicad.cli.output import (
    BAD,
    EXIT_NO,
    EXIT_USAGE,
    WARN,
    Failure,
    coloured,
    examples,
    print_json,
    print_table,
    printable,
)

if TYPE_CHECKING:
    from replicad.core.cluster.disaster_recovery import Plan, Witness
    from replicad.node.identity import Identity
    from replicad.node.settings import Settings
    from replicad.node.survivor import Survivor

ASK_SECONDS = 2.0
ASK_AT_ONCE = 64
COLUMNS = ("Node", "Answers", "Disk", "Role", "Committed", "Highest")


@click.command(
    epilog=examples(
        "replicad recover --config cluster.toml --node n3 --all-groups --dry-run",
        "replicad recover --config cluster.toml --node n3 --all-groups",
        "replicad recover --config cluster.toml --node n3 --group orders --also /mnt/n2/data",
    )
)
@click.option(
    "--config",
    envvar="REPLICAD_CONFIG",
    type=click.Path(path_type=Path),
    required=True,
    help="Settings file of the survivor.",
)
@click.option("--node", help="The survivor. Its data must be on this machine, and the node stopped.")
@click.option("--group", default="default", show_default=True, help="The group.")
@click.option("--all-groups", is_flag=True, help="Every group here that has lost its majority, _meta too.")
@click.option(
    "--also",
    "others",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Data directory of another survivor, stopped: to compare. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan, and change nothing.")
@click.option("--yes-i-lose-data", "consent", metavar="CLUSTER", help="Do not ask: the name of the cluster.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON; with --yes-i-lose-data or --dry-run.")
def recover(
    config: Path,
    node: str | None,
    group: str,
    others: tuple[Path, ...],
    consent: str | None,
    *,
    all_groups: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let a group that has lost a majority of its disks FOR GOOD go on from what one survivor holds. Data may be lost.

    Run it where the survivor's data is, with its node stopped. It shows who holds what and what may be lost, and asks.
    It refuses where anything better can be done: a majority that can be started, a survivor that holds more. Then the
    survivor is the only voter; start it, and add the other nodes, empty, with "replicad member add".

    Exit codes: 0 done (or shown), 1 refused or not confirmed, 2 it cannot be tried like this.
    """
    from replicad.core.cluster.disaster_recovery import recovered
    from replicad.node.disaster_recovery import write_configurations
    from replicad.node.identity import DirectoryError

    settings = _settings(config, node)
    if consent is not None and consent != settings.cluster:
        raise Failure(
            f"--yes-i-lose-data names {printable(consent, 60)!r}, and the cluster is {settings.cluster!r}; nothing was "
            f"changed",
            EXIT_USAGE,
        )
    if as_json and consent is None and not dry_run:
        raise Failure("--json does not ask: add --dry-run, or --yes-i-lose-data CLUSTER", EXIT_USAGE)
    try:
        with _locked(settings.data):
            survivor, witnesses = _look(settings, others)
            plans = _plans(survivor, witnesses)
            chosen = _choose(plans, group, all_groups=all_groups, where=settings.data)
            if not as_json:
                _show(settings, survivor, chosen)
                _show_left(plans, chosen, all_groups=all_groups)
            _refuse(chosen)
            if not dry_run and consent is None:
                _confirm(settings.cluster)
            configurations = recovered(survivor, chosen)
            if not dry_run:
                write_configurations(
                    settings, survivor.identity, {name: found.encode() for name, found in configurations.items()}
                )
    except DirectoryError as error:
        raise Failure(str(error), EXIT_NO) from error
    except OSError as error:
        place = error.filename or settings.data
        raise Failure(f"{place}: {(error.strerror or str(error)).lower()}; nothing was changed") from error
    if as_json:
        versions = {plan.group: configurations[plan.holding.id].version for plan in chosen}
        print_json({"done": not dry_run, "configurations": versions, "plans": [_plan_json(plan) for plan in plans]})
    elif dry_run:
        click.echo("nothing was changed (--dry-run)")
    else:
        _show_next(settings, chosen)


def _settings(config: Path, node: str | None) -> Settings:
    from replicad.node.settings import SettingsError, load

    try:
        return load(config, node, os.environ)
    except SettingsError as error:
        raise Failure("\n".join(error.sentences), EXIT_USAGE) from error


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Keep the node from starting meanwhile; raises Failure if it runs, or if there is nothing."""
    if not (data / "identity.json").is_file():
        raise Failure(f"{data} holds no data of a node (no identity.json); run this where a survivor's data is")
    try:
        descriptor = locks.take(data)
    except BlockingIOError:
        raise Failure(f"a node is running on {data}; stop it first") from None
    try:
        yield
    finally:
        os.close(descriptor)


# --- looking ----------------------------------------------------------------------------------------------------------


def _look(settings: Settings, others: Sequence[Path]) -> tuple[Survivor, list[Witness]]:
    """Read the directories and ask the other nodes; raises DirectoryError, Failure."""
    from replicad.core.cluster.disaster_recovery import Witness
    from replicad.node.identity import DirectoryError
    from replicad.node.settings import parse_address
    from replicad.node.survivor import read_survivor

    survivor = read_survivor(settings.data, settings.cluster, settings.limits)
    if survivor.identity.node != settings.node:
        raise DirectoryError(
            f"{settings.data} belongs to node {survivor.identity.node!r}, and this is {settings.node!r}"
        )
    read = []
    for path in others:
        if path.resolve() == settings.data.resolve():
            raise Failure(f"{path} is node {settings.node}'s own; --also is for directories of other nodes", EXIT_USAGE)
        if locks.running(path):
            raise Failure(f"a node is running on {path}; stop it first, or leave it out: running nodes are asked")
        other = read_survivor(path, settings.cluster, settings.limits)
        ids = (survivor.identity.cluster_id, other.identity.cluster_id)
        if all(ids) and ids[0] != ids[1]:
            raise DirectoryError(
                f"{path} belongs to the cluster {ids[1]}, and {settings.data} to {ids[0]}: these are two clusters of "
                f"one name, and nothing that one holds says anything of the other. Leave {path} out"
            )
        read.append(Witness.of_survivor(other))
    # The catalog's address and that of the settings may differ, and a node that is alive at either is not lost.
    addresses = {name: [Address(*address)] for name, address in settings.http_addresses.items()}
    for name, entry in survivor.nodes.items():
        with suppress(ValueError):
            addresses.setdefault(name, []).insert(0, Address(*parse_address(entry.http)))
    addresses.pop(settings.node, None)
    asked = _ask_everywhere(addresses, survivor.identity)
    offline = {witness.node for witness in read}
    return survivor, [*read, *(witness for witness in asked if witness.disk or witness.node not in offline)]


def _ask_everywhere(addresses: Mapping[str, Sequence[Address]], survivor: Identity) -> list[Witness]:
    """Ask the nodes, each at every address it is known by, all at once: nobody waits for an address that is dead."""
    places = [(node, address) for node, known in addresses.items() for address in dict.fromkeys(known)]
    with ThreadPoolExecutor(max_workers=max(1, min(ASK_AT_ONCE, len(places)))) as pool:
        asked = list(pool.map(lambda place: _ask(place[0], place[1], survivor), places))
    heard: dict[str, list[Witness]] = {}
    for witness in asked:
        heard.setdefault(witness.node, []).append(witness)
    return [_the_one(heard[node]) for node in addresses]


def _the_one(heard: Sequence[Witness]) -> Witness:
    """Return what one node said: the first answer as that node, else all silences together."""
    for witness in heard:
        if not witness.silence:
            return witness
    where = ", ".join(witness.where for witness in heard)
    return replace(heard[0], where=where, silence="; ".join(dict.fromkeys(witness.silence for witness in heard)))


def _ask(node: str, address: Address, survivor: Identity) -> Witness:
    from replicad.core.cluster.disaster_recovery import Witness

    try:
        answer = ask(address, "GET", "/v1/replicad/status", seconds=ASK_SECONDS)
        status = json.loads(answer.body)
        return Witness.of_status(node, str(address), survivor.cluster, status, survivor.cluster_id)
    except UnreachedError as error:
        return Witness(node, str(address), silence=str(error))
    except ValueError:
        return Witness(node, str(address), silence=f"{address} does not answer as a node does")


def _plans(survivor: Survivor, witnesses: Sequence[Witness]) -> list[Plan]:
    from replicad.core.cluster.disaster_recovery import make_plan

    return [make_plan(survivor, name, witnesses) for name in sorted(survivor.groups, key=_order)]


def _order(name: str) -> tuple[bool, bool, str]:
    return name != "_meta", name != "default", name


def _choose(plans: Sequence[Plan], group: str, *, all_groups: bool, where: Path) -> list[Plan]:
    """Return the plans that are meant: with ``all_groups`` those of all groups without a majority."""
    from replicad.core.cluster.disaster_recovery import Verdict

    if all_groups:
        lost = [plan for plan in plans if plan.verdict is Verdict.RECOVER]
        return lost or list(plans)
    chosen = [plan for plan in plans if group in {plan.group, plan.holding.id}]
    if not chosen:
        known = ", ".join(plan.group for plan in plans) or "none"
        raise Failure(f"group {printable(group, 60)!r} is not in {where}; there is: {known}")
    return chosen


def _refuse(chosen: Sequence[Plan]) -> None:
    from replicad.core.cluster.disaster_recovery import Verdict

    refused = [plan for plan in chosen if plan.verdict is not Verdict.RECOVER]
    if refused or not chosen:
        said = [f"group {plan.group} is not recovered: {plan.reason}" for plan in refused]
        raise Failure("\n".join([*said, "nothing was changed"]))


# --- asking -----------------------------------------------------------------------------------------------------------


def at_terminal() -> bool:
    """Return whether a person can be asked."""
    return sys.stdin.isatty()


def _confirm(cluster: str) -> None:
    """Have the cluster's name typed; raises Failure for anything else."""
    if not at_terminal():
        raise Failure("nothing was changed: nobody can be asked here; add --yes-i-lose-data CLUSTER if you mean it")
    typed = click.prompt(
        f"Type the name of the cluster ({cluster}) to give up what may be lost",
        default="",
        show_default=False,
        err=True,
    )
    if typed.strip() != cluster:
        raise Failure("nothing was changed: that is not the name of the cluster")


# --- showing ----------------------------------------------------------------------------------------------------------


def _show(settings: Settings, survivor: Survivor, chosen: Sequence[Plan]) -> None:
    from replicad.core.cluster.disaster_recovery import Verdict

    identity = survivor.identity
    click.echo(f"cluster {settings.cluster}, survivor {identity.node}, disk {identity.disk}, {survivor.path}")
    click.echo(f"its message log was last written at {_moment(survivor.written_at)}")
    for plan in chosen:
        click.echo(f"\ngroup {plan.group}: {plan.reason}")
        rows = [
            (row.node, row.answers, row.disk, row.role, _slot(row.committed), _slot(row.highest)) for row in plan.rows
        ]
        if rows:
            print_table(COLUMNS, rows, right=("Committed", "Highest"))
        if plan.verdict is Verdict.RECOVER:
            click.echo(coloured("What may be lost:", BAD))
            for sentence in plan.losses:
                click.echo(f"- {sentence}")
    silent = list(dict.fromkeys(node for plan in chosen for node in plan.silent))
    if silent:
        names = ", ".join(silent)
        click.echo("\n" + coloured(f"Nothing was heard of {names}.", WARN))
        click.echo(
            "If they run somewhere with their old disks, the group would go on twice: make sure that they do not."
        )


def _show_left(plans: Sequence[Plan], chosen: Sequence[Plan], *, all_groups: bool) -> None:
    """Say what is not done with the other groups."""
    from replicad.core.cluster.disaster_recovery import Verdict

    left = [plan for plan in plans if plan not in chosen]
    lost = ", ".join(plan.group for plan in left if plan.verdict is Verdict.RECOVER)
    if lost:
        click.echo(f"\nalso without a majority: {lost}; --all-groups recovers them together. No member can be added")
        click.echo("to any group before _meta has a majority.")
    for plan in left if all_groups else ():
        click.echo(f"\ngroup {plan.group} stays as it is: {plan.reason}")
    click.echo("")


def _slot(slot: int | None) -> str:
    return "-" if slot is None else str(slot)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def _plan_json(plan: Plan) -> dict[str, Any]:
    said = asdict(plan)
    said["holding"] = {
        name: value for name, value in said["holding"].items() if name not in {"configuration", "name", "logged"}
    }
    return said


def _show_next(settings: Settings, chosen: Sequence[Plan]) -> None:
    names = " and ".join(plan.group for plan in chosen)
    node = settings.node
    first = next((name for name in settings.nodes if name != node), "NODE")
    click.echo(f"group{'s' if len(chosen) > 1 else ''} {names}: {node} is the only voter now. What to do next:")
    steps = [
        f"1. Start {node}. It serves alone, in a new epoch. Make a backup: replicad kv list --json",
        "2. Start the other nodes with empty data directories. One that comes back with its old disk sets all that",
        "   it holds aside, of other groups too, once it hears of this. Never let old disks meet where they cannot.",
        "3. Make each of them a member again:",
        *(f"   replicad member add {first} --group {plan.group}" for plan in chosen),
    ]
    for step in steps:
        click.echo(step)
