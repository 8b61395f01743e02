"""The entry point of the `replicad` command."""

import click

from replicad import __version__


@click.group()
@click.version_option(__version__, prog_name="replicad")
def main() -> None:
    """Run and inspect a replicated key-value server."""
