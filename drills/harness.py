"""What every drill needs: its options, its progress, its table, and a cluster in a directory of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.node.cluster import Cluster, running

Report = dict[str, Any]
"""What a drill found, as plain values; ``failures`` is a list of sentences, empty if all is well."""

screen = Console(stderr=True, highlight=False)


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all drills have."""
    found = argparse.ArgumentParser(
        prog=example.partition(" --")[0],
        description=description,
        epilog=f"Example (at the top of the repository):  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--json", action="store_true", help="print the result as JSON")
    found.add_argument("--data", type=Path, help="directory for the cluster, kept afterwards (default: temporary)")
    return found


def run(drill: Callable[[argparse.Namespace], Coroutine[Any, Any, Report]], options: argparse.Namespace) -> None:
    """Run a drill, print what it found, and exit: 0 all is well, 1 it found a fault."""
    logging.disable(logging.CRITICAL)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(drill(options))
    except AssertionError as error:
        report = {"failures": [str(error) or "an assertion failed"]}
    except KeyboardInterrupt:
        sys.exit(130)
    if options.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    for sentence in report["failures"]:
        screen.print(f"[red]failed[/red]: {sentence}", soft_wrap=True)
    sys.exit(1 if report["failures"] else 0)


def table(options: argparse.Namespace, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, unless JSON was asked for."""
    if options.json:
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(f"\n[bold]{title}[/bold]", soft_wrap=True)
    found = Table()
    for number, column in enumerate(columns):
        found.add_column(column, justify="right" if number else "left")
    for row in rows:
        found.add_row(*map(str, row))
    console.print(found)


def expect(condition: object, sentence: str) -> None:
    """End the drill with this sentence unless the condition holds."""
    if not condition:
        raise AssertionError(sentence)


def note(text: str) -> None:
    """Say on the screen what is done now."""
    screen.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {text}", soft_wrap=True)


def progress() -> Progress:
    """Return a progress bar; it shows on a terminal only."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"))
    return Progress(*columns, TimeElapsedColumn(), console=screen, transient=True)


@asynccontextmanager
async def cluster_for(
    options: argparse.Namespace, count: int = 3, settings: dict[str, dict[str, int]] | None = None
) -> AsyncIterator[Cluster]:
    """Run a cluster of ``count`` nodes for one drill."""
    with tempfile.TemporaryDirectory(prefix="replicad-drill-") as temporary:
        directory = options.data or Path(temporary)
        if directory.exists() and any(directory.iterdir()):
            screen.print(f"[red]The directory {directory} is not empty; a drill starts with a new cluster.[/red]")
            sys.exit(2)
        async with running(directory.absolute(), count, settings) as cluster:
            yield cluster


def milliseconds(seconds: float) -> str:
    """Return a duration for a table."""
    return f"{seconds * 1000:.1f} ms"
