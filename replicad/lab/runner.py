"""Many seeds on all cores: what `replicad simulate` runs."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from replicad.lab.mutations import MUTATIONS, Mutation, mutated
from replicad.lab.mutations.registry import Script
from replicad.lab.trial import Ending, Kind, TrialResult, run_trial, verdict

EXIT_CODES = {Kind.OK: 0, Kind.CORRECTNESS: 2, Kind.LIVENESS: 3, Kind.CRASH: 4}
"""Exit status by the worst outcome of all seeds, correctness before liveness before crash."""


@dataclass(slots=True)
class Summary:
    """What a series of seeds gave."""

    trials: int = 0
    failures: list[TrialResult] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """What happened in all of them together: messages, events, faults."""
    requests: Counter[str] = field(default_factory=Counter)
    slots: int = 0
    virtual_us: int = 0

    @property
    def exit_code(self) -> int:
        """The exit status for the command line."""
        kinds = [failure.kind for failure in self.failures]
        return next((EXIT_CODES[kind] for kind in (Kind.CORRECTNESS, Kind.LIVENESS, Kind.CRASH) if kind in kinds), 0)

    def add(self, result: TrialResult) -> None:
        """Count one more trial."""
        self.trials += 1
        self.counts.update(result.counts)
        self.requests.update(result.requests)
        self.slots += result.slots
        self.virtual_us += result.virtual_us
        if result.kind is not Kind.OK:
            self.failures.append(result)


Progress = Callable[[TrialResult], None]


def run_seeds(
    first: int,
    count: int,
    nodes: int,
    *,
    jobs: int = 0,
    trace: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Run the seeds ``first`` … ``first + count - 1`` on ``jobs`` processes (0: one for each core).

    ``trace`` gets the transcripts line by line, and keeps everything in this one process. ``progress`` is called after
    each trial, in the order of the seeds.
    """
    summary = Summary()
    seeds = range(first, first + count)
    jobs = min(jobs or multiprocessing.cpu_count(), count)
    for result in _results(seeds, nodes, jobs, trace):
        summary.add(result)
        if progress is not None:
            progress(result)
    return summary


def _results(seeds: range, nodes: int, jobs: int, trace: Callable[[str], None] | None) -> Iterator[TrialResult]:
    if trace is not None or jobs <= 1:
        for seed in seeds:
            yield run_trial(seed, nodes, sink=trace)
        return
    # Spawned, not forked: a child then owes nothing to what the parent had imported or was running.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(partial(run_trial, nodes=nodes), seeds, chunksize=4)


@dataclass(frozen=True, slots=True)
class MutationResult:
    """How a mutation was noticed: at which seed (0: by its script), as what (OK: it was not), by which rule's check."""

    name: str
    seed: int
    seeds_tried: int
    kind: Kind
    reason: str
    covered_by: str = ""
    """Why it need not be noticed ("": it must be)."""
    rule: str = ""
    otherwise: str = ""
    """What first went wrong by another rule than those that must notice it, or by none."""

    @property
    def missed(self) -> bool:
        """Whether nobody noticed what had to be noticed."""
        return self.kind is Kind.OK and not self.covered_by


def run_script(script: Script) -> Ending:
    """Return how a script ended, and why."""
    try:
        script()
    except Exception as error:  # noqa: BLE001 - whatever a process dies of is the script's result
        return verdict(error)
    return Ending()


def try_mutation(name: str, first: int, count: int, nodes: int) -> MutationResult:
    """Switch one rule off: run its script, or seeds until the check that is meant for it notices."""
    otherwise = ""
    with mutated(name) as mutation:
        if mutation.script is not None:
            kind, reason, rule = run_script(mutation.script)
            if rule in mutation.noticed_by:
                return MutationResult(name, 0, 0, kind, reason, rule=rule)
            return MutationResult(name, 0, 0, Kind.OK, "", otherwise=reason)
        if mutation.covered_by:
            return MutationResult(name, 0, 0, Kind.OK, "", mutation.covered_by)
        for seed in range(first, first + count):
            result = run_trial(seed, nodes)
            if result.rule in mutation.noticed_by:
                return MutationResult(name, seed, seed - first + 1, result.kind, result.reason, rule=result.rule)
            if result.kind is not Kind.OK:
                otherwise = otherwise or f"seed {seed}: {result.reason}"
    return MutationResult(name, 0, count, Kind.OK, "", otherwise=otherwise)


def try_mutations(
    first: int, count: int, nodes: int, *, jobs: int = 0, progress: Callable[[MutationResult], None] | None = None
) -> list[MutationResult]:
    """Try every registered mutation with at most so many seeds; results in the order of the registry."""
    names = [mutation.name for mutation in registered()]
    results = []
    with multiprocessing.get_context("spawn").Pool(jobs or multiprocessing.cpu_count()) as pool:
        for result in pool.imap(partial(try_mutation, first=first, count=count, nodes=nodes), names):
            results.append(result)
            if progress is not None:
                progress(result)
    return results


def registered() -> list[Mutation]:
    """Return all mutations in the order of their registration."""
    return list(MUTATIONS.values())
