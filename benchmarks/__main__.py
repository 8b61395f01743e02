"""``python -m benchmarks``, which is ``make bench``."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import logging
import shlex
import signal
import sys
import time
import traceback
from pathlib import Path

import aiohttp
import uvloop
from rich.console import Console

from benchmarks import plot, throughput
from benchmarks.arguments import TargetError, positive, prepare
from benchmarks.clusters.base import NotAcknowledgedError
from benchmarks.clusters.processes import MissingProgramsError, ServerError, require
from benchmarks.context import Context
from benchmarks.events.catch_up import CatchUpError
from benchmarks.events.filling import FillError
from benchmarks.events.reading import ReadError
from benchmarks.events.stall import StallError
from benchmarks.events.writers import LoadError
from benchmarks.generators.loads import GeneratorError
from benchmarks.machine import describe
from benchmarks.report import markdown, show
from benchmarks.results import Measurement, Run, to_json
from benchmarks.scenarios import EVENTS, WORKLOADS, Selection, UnknownNamesError, select
from benchmarks.workloads import chosen
from replicad.client import ClientError

DEFAULT_ROUNDS, QUICK_ROUNDS = 5, 2
DEFAULT_SECONDS, QUICK_SECONDS = 2, 1
OUTPUT = Path("data/bench")

EXPECTED = (
    *(AssertionError, OSError, aiohttp.ClientError, ClientError),
    *(ServerError, NotAcknowledgedError, GeneratorError, CatchUpError, FillError, LoadError, ReadError, StallError),
)
"""What a scenario may fail with because of the clusters; anything else is a fault of the benchmarks."""

DESCRIPTION = """\
Three nodes each of replicad, etcd and Redis on this machine, driven by wrk, h2load, redis-benchmark and replicad's
own native client, in interleaved rounds. Prints the ratios of replicad to the others in the same round: medians with
the smallest and the largest. Nothing else should run meanwhile.
"""
EPILOG = """\
Without options: the rows of the table, about 20 minutes. --quick: fewer and shorter rounds, and of the events failover
only; under 3 minutes. --full: all workloads and events, far more (about {minutes} minutes with 5 rounds for the
workloads alone).
Exit code: 0, or 1 if something could not be measured, or 2 if nothing could begin.
Names for --only: throughput (all its workloads), or any of these.

{names}
"""


def _parser() -> argparse.ArgumentParser:
    titles = {name: event.title for name, event in EVENTS.items()} | {
        name: workload.title for name, workload in WORKLOADS.items()
    }
    runs = sum(len(workload.contenders) for workload in WORKLOADS.values())
    minutes = 5 * round(runs * DEFAULT_ROUNDS * (DEFAULT_SECONDS + 1) / 60 / 5)
    names = "\n".join(f"  {name:<24} {title}" for name, title in titles.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=DESCRIPTION,
        epilog=EPILOG.format(minutes=minutes, names=names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} short rounds, a part of the table")
    size.add_argument("--full", action="store_true", help="all workloads")
    parser.add_argument("--only", metavar="NAME,…", default="", help="measure these only")
    parser.add_argument("--rounds", type=positive, help=f"default: {DEFAULT_ROUNDS}; with --quick {QUICK_ROUNDS}")
    parser.add_argument(
        "--seconds", type=positive, help=f"of one load; default: {DEFAULT_SECONDS}; with --quick {QUICK_SECONDS}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=OUTPUT,
        help="directory for results.json, report.md, ratios.svg and rates.svg (default: %(default)s)",
    )
    return parser


def _first(error: BaseException) -> BaseException:
    """Return what went wrong first, if several tasks failed."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _measure(ctx: Context, selection: Selection) -> list[Measurement]:
    found: list[Measurement] = []
    scenarios = [(name, EVENTS[name].measure) for name in selection.events]
    if selection.workloads:
        groups = chosen(selection.workloads)
        scenarios.insert(0, ("throughput", lambda ctx: throughput.measure(ctx, groups)))
    for number, (name, measure) in enumerate(scenarios):
        ctx.note(f"{name} ({number + 1} of {len(scenarios)})")
        begin = time.monotonic()
        try:
            found += await measure(ctx)
        except Exception as error:  # noqa: BLE001 - what the other scenarios found must not be lost
            cause = _first(error)
            if not isinstance(cause, EXPECTED):
                traceback.print_exc()
            ctx.fail(f"{name}: {type(cause).__name__}: {cause}")
            for note in getattr(cause, "__notes__", ()):
                ctx.note(note)
        ctx.note(f"{name} took {time.monotonic() - begin:.0f} s")
    return found


def _write(run: Run, output: Path, json_file: Path | None) -> None:
    for file in (output / "results.json", json_file):
        if file is not None:
            file.write_text(to_json(run), encoding="utf-8")
    report = "\n".join(markdown(run, name) for name in ("rows", "workloads", "machine"))
    (output / "report.md").write_text(report, encoding="utf-8")
    plot.ratios(run, output / "ratios.svg")
    plot.rates(run, output / "rates.svg")


def main() -> None:
    """Measure, print, write."""
    options = _parser().parse_args()
    logging.disable(logging.CRITICAL)
    only = [name.strip() for name in options.only.split(",") if name.strip()]
    try:
        selection = select(only, full=options.full, quick=options.quick)
        require(selection.programs())
        prepare(options.output, *([options.json] if options.json is not None else []))
    except (UnknownNamesError, MissingProgramsError, TargetError) as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else DEFAULT_ROUNDS)
    seconds = options.seconds or (QUICK_SECONDS if options.quick else DEFAULT_SECONDS)
    # Told to end, it ends as after Ctrl-C: clusters are stopped, and gigabytes of their data removed.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    begun, begin = dt.datetime.now(dt.UTC), time.monotonic()
    try:
        with (
            Context(quick=options.quick, rounds=rounds, seconds=seconds) as ctx,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            machine = runner.run(describe())
            measurements = runner.run(_measure(ctx, selection))
    except KeyboardInterrupt:
        sys.exit(130)
    run = Run(
        begun=begun.isoformat(timespec="minutes"),
        seconds=time.monotonic() - begin,
        command=shlex.join(("python", "-m", "benchmarks", *sys.argv[1:])),
        quick=options.quick,
        rounds=rounds,
        machine=machine,
        measurements=tuple(measurements),
        failures=tuple(ctx.failures),
    )
    show(run, Console(highlight=False, width=None if sys.stdout.isatty() else 200))
    try:
        _write(run, options.output, options.json)
    except OSError as error:
        sys.stderr.write(f"Error: the results cannot be written: {error.filename}: {(error.strerror or '').lower()}\n")
        sys.exit(1)
    sys.stderr.write(f"Written to {options.output}: results.json, report.md, ratios.svg, rates.svg\n")
    sys.exit(1 if run.failures else 0)


if __name__ == "__main__":
    main()
