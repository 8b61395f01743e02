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

            meant = self._inner(ctx, names, args[0]) or get_close_matches(args[0], names, 1)
            hint = f"did you mean {' or '.join(map(repr, meant))}?" if meant else f"there is: {', '.join(names)}"
            of = ctx.command_path.partition(" ")[2]
            raise Failure(f"there is no command {f'{of} {args[0][:40]}'.strip()!r}; {hint}", EXIT_USAGE)
        return super().resolve_command(ctx, args)

    def _inner(self, ctx: click.Context, names: list[str], name: str) -> list[str]:
        """Return the commands of that name in the groups among ``names``."""
        groups = [found for each in names if isinstance(found := self.get_command(ctx, each), click.Group)]
        return [f"{found.name} {name}" for found in groups if name in found.commands]
