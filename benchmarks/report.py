"""The tables of a run: on the terminal, and as Markdown in the pages.

    python -m benchmarks.report data/bench/results.json           show them
    python -m benchmarks.report data/bench/results.json --write   put them into README.md and docs/performance.md

A table stands between ``<!-- bench: NAME -->`` and ``<!-- bench: end -->``; NAME is rows, workloads or machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.results import Measurement, ResultsError, Run, read
from benchmarks.rows import HOPED, NOT, REACHED, ROWS, UNKNOWN, Found, work_out
from benchmarks.scenarios import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": ("rows",), "docs/performance.md": ("rows", "workloads", "machine")}
"""Page -> the tables it must have a place for."""
MARKED = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- bench: end -->)", re.DOTALL)

COLUMNS = ("what", "against", "replicad", "the other", "ratio", "min–max", "at least", "hoped for", "")
COLOURS = {HOPED: "green", REACHED: "green", NOT: "red"}
WORKLOAD_COLUMNS = ("workload", "contender", "per second", "min–max", "median", "99 %", "slowest")


class PageError(Exception):
    """A page has no place for a table."""


def figure(value: float | None, unit: str) -> str:
    """Return a figure with its unit, three digits of it at least."""
    if value is None:
        return "–"
    if unit == "µs":
        return f"{value / 1000:,.2f} ms"
    if unit == "s" and value < 1:
        return f"{value * 1000:,.0f} ms"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
    return f"{text} {unit}".replace(" 1/s", "/s")


def bound(found: Found, value: float) -> str:
    """Return a bound as the table has it."""
    sign = "" if found.row.more else "≤ "
    return f"{sign}{value:g} {'×' if found.row.peers else found.row.unit}"


def cells(found: Found) -> tuple[str, ...]:
    """Return the cells of a row."""
    row = found.row
    if found.value is None or found.low is None or found.high is None:
        ratio, span = "–", "–"
    elif row.peers:
        ratio, span = f"{found.value:.2f} ×", f"{found.low:.2f}–{found.high:.2f}"
    else:
        ratio, span = "–", f"{found.low:.0f}–{found.high:.0f} {row.unit}"
    return (
        row.title,
        row.peer or "–",
        figure(found.ours, row.unit),
        figure(found.peer, row.unit),
        ratio,
        span,
        bound(found, row.least),
        bound(found, row.hoped),
        found.verdict,
    )


def workload_rows(measurements: Sequence[Measurement]) -> list[tuple[str, ...]]:
    """Return a row for each workload and contender: medians over the rounds."""
    found = []
    pairs = dict.fromkeys((each.row, each.contender) for each in measurements if each.row in WORKLOADS)
    order = list(WORKLOADS)
    for name, contender in sorted(pairs, key=lambda pair: order.index(pair[0])):
        mine = [each for each in measurements if (each.row, each.contender) == (name, contender)]
        rates = [each.value for each in mine]
        times = [median(each.extra[f"{which}_us"] for each in mine) for which in ("median", "p99", "max")]
        found.append((
            WORKLOADS[name].title,
            contender,
            f"{median(rates):,.0f}",
            f"{min(rates):,.0f}–{max(rates):,.0f}",
            *(figure(time, "µs") for time in times),
        ))  # fmt: skip
    return found


def machine_lines(run: Run) -> list[str]:
    """Return what the figures were taken on and with, one thing a line."""
    machine = run.machine
    programs = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return [
        f"Command: `{run.command}`, {run.begun}, {run.seconds / 60:.0f} minutes",
        f"Machine: {machine.cores} cores of {machine.processor}, {machine.memory_bytes / 2**30:.0f} GiB",
        f"System: Linux {machine.kernel}, data on {machine.filesystem}",
        f"Programs: {programs}",
        *(f"Failed: {sentence}" for sentence in run.failures),
    ]


def show(run: Run, console: Console) -> None:
    """Print all tables; of the rows those that were measured."""
    table = Table(title="medians of the rounds", title_justify="left")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < 2 or not column else "right", overflow="fold")
    measured = [found for row in ROWS if (found := work_out(row, run.measurements)).verdict != UNKNOWN]
    for each in measured:
        *plain, verdict = cells(each)
        table.add_row(*plain, f"[{COLOURS[verdict]}]{verdict}[/]")
    if measured:
        console.print(table)
    rows = workload_rows(run.measurements)
    if rows:
        table = Table(title="workloads", title_justify="left")
        for number, column in enumerate(WORKLOAD_COLUMNS):
            table.add_column(column, justify="left" if number < 2 else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in machine_lines(run):
        console.print(line, markup=False, soft_wrap=True)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """Return a table as Markdown; the first ``texts`` columns are text, the others numbers."""
    rule = ["---" if number < texts or not column else "---:" for number, column in enumerate(columns)]
    lines = [columns, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown(run: Run, name: str) -> str:
    """Return one of the tables of the pages: rows, workloads or machine."""
    match name:
        case "rows":
            found = [cells(work_out(row, run.measurements)) for row in ROWS]
            return markdown_table(COLUMNS, found, 2)
        case "workloads":
            return markdown_table(WORKLOAD_COLUMNS, workload_rows(run.measurements), 2)
        case _:
            return "".join(f"- {line}\n" for line in machine_lines(run))


def filled(page: str, text: str, run: Run, names: Sequence[str]) -> str:
    """Return a page with the tables of this run; raises PageError if it has no place for one of ``names``."""
    places = [found[2] for found in MARKED.finditer(text)]
    for name in names:
        if name not in places:
            raise PageError(f"{page} has no place for a table: <!-- bench: {name} --> and <!-- bench: end -->")
    return MARKED.sub(lambda found: f"{found[1]}{markdown(run, found[2])}{found[3]}", text)


def write_pages(run: Run, root: Path) -> None:
    """Put the tables into all pages, or into none; raises PageError."""
    texts = {}
    for page, names in PAGES.items():
        try:
            text = (root / page).read_text(encoding="utf-8")
        except OSError as error:
            raise PageError(f"{page} cannot be read: {(error.strerror or str(error)).lower()}") from None
        texts[page] = filled(page, text, run, names)
    for page, text in texts.items():
        (root / page).write_text(text, encoding="utf-8")


def main() -> None:
    """Show the tables of a run, and write them if that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="The tables of a run.")
    parser.add_argument("file", type=Path, help="what `python -m benchmarks --json FILE` has written")
    parser.add_argument("--write", action="store_true", help="put the tables into README.md and docs/performance.md")
    options = parser.parse_args()
    try:
        run = read(options.file)
        if options.write:
            write_pages(run, ROOT)
    except (ResultsError, PageError) as error:
        sys.exit(f"Error: {error}")
    show(run, Console(highlight=False, width=None if sys.stdout.isatty() else 200))


if __name__ == "__main__":
    main()
