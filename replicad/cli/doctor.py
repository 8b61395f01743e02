"""``replicad doctor``: what is wrong around a node, and what to do about it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicad.cli.output import (
    BAD,
    EXIT_NO,
    EXIT_USAGE,
    GOOD,
    WARN,
    Failure,
    coloured,
    examples,
    print_json,
    printable,
)

if TYPE_CHECKING:
    from replicad.cli.findings import Finding
    from replicad.node.settings import Settings


@click.command(
    epilog=examples(
        "replicad doctor --config data/cluster.toml",
        "replicad doctor --config /etc/replicad.toml --node n2 --json",
    )
)
@click.option(
    "--config",
    envvar="REPLICAD_CONFIG",
    type=click.Path(path_type=Path),
    required=True,
    help="Settings file of the node.",
)
@click.option("--node", help="Which node to look at.  [default: all that have data on this machine]")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(config: Path, node: str | None, *, as_json: bool) -> None:
    """Look for what is wrong with a node's surroundings: run it where the node runs, best while it runs.

    The clock's rate, the speed of a flush and the room at the data directory, the node's own addresses, both
    directions of every peer address, and settings that must be equal and are not.

    Exit codes: 0 nothing is wrong, 1 something is, 2 the settings cannot be used.
    """
    from replicad.cli.findings import WRONG, Findings
    from replicad.cli.machine_checks import check_clock, check_directory
    from replicad.cli.peer_checks import check_peers, check_self

    found: list[Finding] = []
    for number, settings in enumerate(_settings(config, node)):
        findings = Findings(settings.node)
        for warning in settings.warnings:
            findings.look(warning)
        if number == 0:
            check_clock(findings, settings)  # one machine, one clock
        check_directory(findings, settings)
        check_peers(findings, settings, runs=check_self(findings, settings))
        found += findings.items
    wrong = sum(finding.level == WRONG for finding in found)
    if as_json:
        print_json({"findings": [asdict(finding) for finding in found], "wrong": wrong})
    else:
        for finding in found:
            _print(finding)
        click.echo(f"{wrong} thing{'s are' if wrong > 1 else ' is'} wrong" if wrong else "nothing is wrong")
    if wrong:
        raise click.exceptions.Exit(EXIT_NO)


def _settings(config: Path, node: str | None) -> list[Settings]:
    """Return the settings of the nodes to look at; raises Failure."""
    from replicad.node.settings import SettingsError, load
    from replicad.node.settings_sources import read_toml

    try:
        if node or os.environ.get("REPLICAD_NODE"):
            return [load(config, node, os.environ)]
        tables = read_toml(config).get("nodes")
        names = list(tables) if isinstance(tables, dict) else []
        if len(names) < 2:
            return [load(config, None, os.environ)]
        local = [settings for name in names if (settings := load(config, name, os.environ)).data.is_dir()]
    except SettingsError as error:
        raise Failure("\n".join(error.sentences), EXIT_USAGE) from error
    if not local:
        raise Failure(
            f"{config}: none of its nodes has data on this machine; say --node NAME, one of {', '.join(names)}",
            EXIT_USAGE,
        )
    return local


def _print(finding: Finding) -> None:
    mark, colour = {"ok": ("ok   ", GOOD), "look": ("look ", WARN), "wrong": ("WRONG", BAD)}[finding.level]
    click.echo(f"{coloured(mark, colour)} {finding.node}: {printable(finding.sentence)}")
    if finding.advice:
        click.echo(f"      -> {printable(finding.advice)}")
