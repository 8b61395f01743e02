"""``replicad simulate``: whole clusters under random faults, in virtual time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from replicad.cli.output import EXIT_NO, EXIT_USAGE, Failure, examples, print_json, print_table

if TYPE_CHECKING:
    from replicad.lab.runner import MutationResult, Summary
    from replicad.lab.trial import TrialResult

PLAIN_LINES = 10
"""Lines of progress where there is no terminal for a bar."""
MUTATION_SEEDS = 200
"""Seeds that a mutation gets unless --seeds says otherwise."""

Step = Callable[[str], None]
"""Called when one more is done, with what there is to say of it ("": nothing)."""


@click.command(
    epilog=examples(
        "replicad simulate --seeds 1000",
        "replicad simulate --seeds 1 --seed 4711 --trace",
        "replicad simulate --mutations",
    )
)
@click.option("--seeds", type=click.IntRange(1, 100_000_000), help="How many.  [default: 100; --mutations: 200 each]")
@click.option("--seed", type=click.IntRange(0, 2**63), default=0, show_default=True, help="The first one.")
@click.option("--nodes", type=click.Choice(["3", "5"]), default="3", show_default=True, help="Nodes of each cluster.")
@click.option("--jobs", type=click.IntRange(0, 1024), default=0, help="Processes.  [default: one for each core]")
@click.option("--trace", is_flag=True, help="Print the transcript of every seed, in this one process.")
@click.option("--mutations", is_flag=True, help="Switch each safety rule off in turn: some seed must notice.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def simulate(
    seeds: int | None, seed: int, nodes: str, jobs: int, *, trace: bool, mutations: bool, as_json: bool
) -> None:
    """Run whole clusters of the real protocol, log and key-value code under random faults, in virtual time.

    A seed that fails prints what was wrong and the one command that repeats it.

    Exit codes: 0 no seed failed (with --mutations: every one was noticed), 1 a mutation was not noticed, 2 the
    protocol broke a promise (or the command is wrong), 3 a cluster did not recover, 4 a node crashed.
    """
    if mutations:
        if trace:
            raise Failure("--trace and --mutations cannot be given together", EXIT_USAGE)
        _simulate_mutations(seed, seeds or MUTATION_SEEDS, int(nodes), jobs, as_json=as_json)
    else:
        _simulate_seeds(seed, seeds or 100, int(nodes), jobs, trace=trace, as_json=as_json)


def _simulate_seeds(first: int, count: int, nodes: int, jobs: int, *, trace: bool, as_json: bool) -> None:
    from replicad.lab.runner import run_seeds

    started = time.monotonic()
    with progress(count, "seeds", shown=not trace) as step:
        summary = run_seeds(
            first,
            count,
            nodes,
            jobs=jobs,
            trace=click.echo if trace else None,
            progress=lambda result: step(_failure_text(result)),
        )
    seconds = time.monotonic() - started
    if as_json:
        print_json(_summary_json(summary, seconds))
    else:
        _print_summary(summary, seconds, tails=not trace)
    sys.exit(summary.exit_code)


def _failure_text(result: TrialResult) -> str:
    if result.kind == "ok":
        return ""
    return f"seed {result.seed} failed ({result.kind}): {result.reason}\n  repeat: {result.command}"


def _print_summary(summary: Summary, seconds: float, *, tails: bool) -> None:
    for failure in summary.failures[:1] if tails else ():
        click.echo(f"\nthe last lines of seed {failure.seed} (all of them: {failure.command} --trace):")
        for line in failure.tail:
            click.echo(f"  {line}")
    failed = len(summary.failures)
    click.echo(
        f"{summary.trials} seeds, {failed or 'none'} failed; {summary.slots} slots, "
        f"{summary.virtual_us / 1e6:.0f} s of virtual time in {seconds:.1f} s"
    )
    # the rest of the counts, a message a kind, is for machines: --json has it
    faults = {name.removeprefix("fault "): at for name, at in summary.counts.items() if name.startswith("fault ")}
    for title, counts in (("requests", summary.requests), ("faults", faults)):
        if counts:
            click.echo(f"{title}: " + ", ".join(f"{name} {number}" for name, number in sorted(counts.items())))


def _summary_json(summary: Summary, seconds: float) -> dict[str, Any]:
    return {
        "seeds": summary.trials,
        "failures": [asdict(failure) | {"command": failure.command} for failure in summary.failures],
        "requests": dict(summary.requests),
        "events": dict(summary.counts),
        "slots": summary.slots,
        "virtual_us": summary.virtual_us,
        "seconds": round(seconds, 3),
    }


def _simulate_mutations(first: int, count: int, nodes: int, jobs: int, *, as_json: bool) -> None:
    from replicad.lab.runner import registered, try_mutations

    all_mutations = registered()
    with progress(len(all_mutations), "mutations") as step:
        results = try_mutations(
            first, count, nodes, jobs=jobs, progress=lambda result: step(_missed(result) if result.missed else "")
        )
    if as_json:
        print_json({"mutations": [asdict(result) | {"noticed": result.kind != "ok"} for result in results]})
    else:
        rules = {mutation.name: mutation for mutation in all_mutations}
        rows = [
            (
                result.name,
                rules[result.name].rule,
                _needed(result),
                _noticed_by(result),
                rules[result.name].description,
            )
            for result in results
        ]
        styles = {number: "red" for number, result in enumerate(results) if result.missed}
        print_table(("Mutation", "Rule", "Seeds", "Noticed by", "What it does"), rows, right=("Seeds",), styles=styles)
        for result in results:
            if result.covered_by:
                click.echo(f"{result.name} need not be noticed, because of {result.covered_by}")
    if any(result.missed for result in results):
        sys.exit(EXIT_NO)


def _needed(result: MutationResult) -> str:
    return "script" if not result.seeds_tried and not result.covered_by else str(result.seeds_tried or "-")


def _noticed_by(result: MutationResult) -> str:
    return "NOT NOTICED" if result.missed else "covered" if result.covered_by else result.rule


def _missed(result: MutationResult) -> str:
    from replicad.lab.mutations import MUTATIONS

    where = f"in {result.seeds_tried} seeds" if result.seeds_tried else "by its script"
    rules = " or ".join(f'"{rule}"' for rule in MUTATIONS[result.name].noticed_by)
    otherwise = f", but: {result.otherwise}" if result.otherwise else ""
    return f"{result.name} was not noticed {where} by {rules}{otherwise}"


@contextmanager
def progress(total: int, what: str, *, shown: bool = True) -> Iterator[Step]:
    """Show progress on standard error: a bar on a terminal, a few lines otherwise, nothing unless ``shown``."""
    if not shown:
        yield lambda _: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total)

            def advance(text: str) -> None:
                bar.advance(task)
                if text:
                    bar.console.print(text, markup=False, highlight=False)

            yield advance
    else:
        yield _Lines(total, what)


class _Lines:
    """Progress in plain lines, at each tenth."""

    def __init__(self, total: int, what: str) -> None:
        self.total = total
        self.what = what
        self.done = 0

    def __call__(self, text: str) -> None:
        self.done += 1
        if text:
            click.echo(text, err=True)
        if self.done * PLAIN_LINES // self.total > (self.done - 1) * PLAIN_LINES // self.total:
            click.echo(f"{self.done} of {self.total} {self.what}", err=True)
