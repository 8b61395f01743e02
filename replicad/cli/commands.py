"""A group of commands that helps who misspells one."""

from __future__ import annotations

import click

from replicad.cli.output import EXIT_USAGE, Failure


class CommandGroup(click.Group):
    """A click group whose refusal of an unknown command names the one that was meant, or all."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; raises Failure."""
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(names)}"
            of = ctx.command_path.partition(" ")[2]
            raise Failure(f"there is no command {f'{of} {args[0][:40]}'.strip()!r}; {hint}", EXIT_USAGE)
        return super().resolve_command(ctx, args)
