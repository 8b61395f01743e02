"""How the commands speak: tables on a terminal, plain lines when piped, JSON when asked, and one kind of failure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

import click

EXIT_NO = 1
"""The answer is no: a missing key, a failed condition, something that is wrong."""
EXIT_USAGE = 2
"""The command cannot be carried out as it was given."""
EXIT_UNKNOWN = 3
"""It may or may not have taken effect."""
EXIT_UNREACHED = 4
"""No node could do it, and nothing was done."""

FOLDED_MIN = 20
"""The last column of a table on a terminal may be folded to so many characters, and no other column at all."""

GOOD, WARN, BAD = "green", "yellow", "red"


class Failure(click.ClickException):
    """The end of a command: one plain sentence on standard error, and an exit code.

    ``kind`` is the node's name of the error ("": it comes from no node, or from one of an earlier release).
    """

    def __init__(self, sentence: str, code: int = EXIT_NO, kind: str = "") -> None:
        super().__init__(sentence)
        self.kind = kind
        self.__dict__["exit_code"] = code  # click declares one for the class

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the sentence (or several, one a line)."""
        for line in self.message.splitlines():
            click.echo(f"replicad: {line}", err=True, file=file)


def examples(*lines: str) -> str:
    """Return what stands at the end of a command's --help."""
    head = "Example:" if len(lines) == 1 else "Examples:"
    return "\n".join(("\b", head, *(f"  {line}" for line in lines)))


def on_terminal() -> bool:
    """Return whether a person is looking at standard output."""
    return sys.stdout.isatty()


def printable(text: str | bytes, width: int = 0) -> str:
    """Return foreign text as it may go to a terminal: control characters escaped, cut to ``width`` (0: not cut)."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if width and len(text) > width:
        text = text[: width - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def print_json(value: object) -> None:
    """Print a value as JSON, indented; bytes become hexadecimal digits."""
    import json

    click.echo(json.dumps(value, indent=2, default=_jsonable))


def _jsonable(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[str] = (),
    styles: Mapping[int, str] | None = None,
) -> None:
    """Print a table, see :func:`table_text`."""
    click.echo(table_text(columns, rows, right=right, styles=styles), nl=False)


def table_text(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[str] = (),
    styles: Mapping[int, str] | None = None,
) -> str:
    """Return a table as text: with colours on a terminal, as aligned columns under a header line otherwise.

    On a terminal that is too narrow for the columns a block of lines for each row: folded cells cannot be read.

    ``right`` names the columns that are aligned to the right; ``styles`` maps a row's number to its colour.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if not on_terminal():
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        lines = []
        for line in ([name.lower() for name in columns], *cells):
            parts = [
                cell.rjust(width) if name in right else cell.ljust(width)
                for name, cell, width in zip(columns, line, widths, strict=True)
            ]
            lines.append("  ".join(parts).rstrip() + "\n")
        return "".join(lines)

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if console.width < _least_width(columns, cells):
        return _blocks(columns, cells, styles or {})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for number, line in enumerate(cells):
        table.add_row(*map(Text, line), style=(styles or {}).get(number))
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def _least_width(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """Return how wide a terminal must be for every column but the last, which may be folded."""
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    return sum(widths[:-1]) + min(widths[-1], FOLDED_MIN) + 3 * len(widths)


def _blocks(columns: Sequence[str], cells: Sequence[Sequence[str]], styles: Mapping[int, str]) -> str:
    """Return a block of lines for each row, headed by its first cell."""
    width = max(map(len, columns))
    lines = []
    for number, (head, *rest) in enumerate(cells):
        style = styles.get(number)
        lines.append(click.style(head, fg=style, bold=True))
        lines += [f"  {name.ljust(width)}  {cell}" for name, cell in zip(columns[1:], rest, strict=True) if cell != "-"]
    return "\n".join(lines) + "\n"


def coloured(text: str, colour: str) -> str:
    """Return text in a colour; click leaves it out when standard output is no terminal."""
    return click.style(text, fg=colour)


def size_text(size: float) -> str:
    """Return a number of bytes in words, such as ``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
