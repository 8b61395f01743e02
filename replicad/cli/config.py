"""``replicad config check``: what is wrong with a settings file, without starting anything."""

from __future__ import annotations

import os
from pathlib import Path

import click

from replicad.cli.commands import CommandGroup
from replicad.cli.output import EXIT_NO, WARN, Failure, coloured, examples, print_json


@click.group(cls=CommandGroup, epilog=examples("replicad config check configs/local.toml"))
def config() -> None:
    """Check a settings file."""


@config.command(epilog=examples("replicad config check data/cluster.toml"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print errors and warnings as JSON.")
def check(file: Path, *, as_json: bool) -> None:
    """Check FILE for all of its nodes, together with REPLICAD_… from the environment.

    Exit codes: 0 the file can be used (there may be warnings), 1 it cannot.
    """
    from replicad.node.settings import SettingsError
    from replicad.node.settings import check as check_settings

    errors: list[str] = []
    warnings: list[str] = []
    try:
        warnings = check_settings(file, os.environ)
    except SettingsError as error:
        errors = error.sentences
    if as_json:
        print_json({"file": str(file), "errors": errors, "warnings": warnings})
        if errors:
            raise click.exceptions.Exit(EXIT_NO)
        return
    if errors:
        raise Failure("\n".join(errors), EXIT_NO)
    for warning in warnings:
        click.echo(f"{coloured('warning:', WARN)} {warning}")
    click.echo(f"{file} can be used" + (", with the warnings above" if warnings else ""))
