"""The `replicad` command: a table of subcommands, each imported only when it is used, so that all start fast."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

import click

from replicad import __version__
from replicad.cli.commands import CommandGroup
from replicad.cli.output import examples

COMMANDS = {
    "up": ("up", "Run a cluster on this machine, in the foreground."),
    "serve": ("node", "Run one node in the foreground."),
    "kv": ("kv", "Read and write keys."),
    "status": ("status", "Show all nodes and where they stand."),
    "group": ("group", "Create, show, change and drop groups."),
    "member": ("member", "Add, remove, promote, demote and replace members of a group."),
    "node": ("drain", "Drain a node for maintenance, and take it back."),
    "checkpoint": ("checkpoint", "Take a checkpoint now."),
    "config": ("config", "Check a settings file."),
    "doctor": ("doctor", "Look for what is wrong with a node's surroundings."),
    "recover": ("recover", "Go on from a survivor when a majority of disks is lost for good."),
    "inspect": ("inspect", "Show a node's files: message log, store, checkpoints."),
    "bench": ("bench", "Measure a running cluster: rates, latencies, bytes."),
    "simulate": ("simulate", "Try whole clusters under random faults, in virtual time."),
}
"""Subcommand -> (module in replicad.cli that has it under the same name, what it does)."""


class LazyGroup(CommandGroup):
    """A group that imports a command when it is run, and none to list them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module; None for a name that is not in the table."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _ = COMMANDS[cmd_name]
        return cast("click.Command", getattr(import_module(f"replicad.cli.{module}"), cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Write the list for --help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("replicad up", "replicad kv put greeting hello", "replicad kv get greeting", "replicad status"),
)
@click.version_option(__version__, prog_name="replicad", message="%(prog)s %(version)s")
def main() -> None:
    """Run and inspect a replicated key-value server."""


if __name__ == "__main__":
    main(prog_name="replicad" if Path(__file__).name == "main.py" else None)
