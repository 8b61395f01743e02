"""Finds for each mutation without a script a seed that notices it, and writes ``mutations/recorded.py`` anew.

``python -m replicad.lab.record``: to be run after a change of the protocol or of the mix of faults, which moves what
seeds come to. A recorded seed stays as long as it does what it is there for: without the rule the check that is meant
for it fails, and with the rule the trial is clean. For the others seeds are tried in their order until one does both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from replicad.lab import mutations
from replicad.lab.mutations import mutated
from replicad.lab.mutations.recorded import RECORDED
from replicad.lab.runner import registered
from replicad.lab.trial import Kind, TrialResult, run_trial

HEADING = "Mutation -> (seed, nodes) of a trial that notices it; ``python -m replicad.lab.record`` keeps them."
SEEDS = 400
NODES = 3


@dataclass(frozen=True, slots=True)
class Found:
    """The seed of a mutation (0: none), how many were tried for it, and what the failing check said."""

    name: str
    seed: int
    nodes: int
    tried: int
    reason: str


def shows(name: str, seed: int, nodes: int) -> TrialResult | None:
    """Return how a trial ends without the rule, if its check notices, and with the rule the trial is clean."""
    with mutated(name) as mutation:
        result = run_trial(seed, nodes)
    if result.rule in mutation.noticed_by and run_trial(seed, nodes).kind is Kind.OK:
        return result
    return None


def find(name: str, seeds: int, nodes: int, first: int = 1) -> Found:
    """Return the recorded seed of a mutation if it still shows it, else the first one that does."""
    known = RECORDED.get(name)
    if known is not None and (result := shows(name, *known)) is not None:
        return Found(name, *known, 0, result.reason)
    for seed in range(first, first + seeds):
        result = shows(name, seed, nodes)
        if result is not None:
            return Found(name, seed, nodes, seed - first + 1, result.reason)
    return Found(name, 0, nodes, seeds, "")


def write(found: dict[str, tuple[int, int]]) -> None:
    """Write the table, in the order of the registry."""
    names = [mutation.name for mutation in registered() if mutation.name in found]
    lines = [f'    "{name}": {found[name]},\n' for name in names]
    text = f'"""{HEADING}"""\n\nRECORDED: dict[str, tuple[int, int]] = {{\n{"".join(lines)}}}\n'
    (Path(mutations.__file__).parent / "recorded.py").write_text(text)


def main() -> int:
    """Record; returns the exit status: 1 if some mutation was not noticed (its row stays as it was)."""
    parser = argparse.ArgumentParser(prog="python -m replicad.lab.record", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutations (all, if none is named)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="try so many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the first one (%(default)s)")
    parser.add_argument("--nodes", type=int, default=NODES, help="of so many nodes (%(default)s)")
    parser.add_argument("--jobs", type=int, default=0, help="so many processes (0: one for each core)")
    given = parser.parse_args()
    names = [m.name for m in registered() if m.script is None and not m.covered_by]
    names = [name for name in names if not given.names or name in given.names]
    table = {name: row for name, row in RECORDED.items() if name in {m.name for m in registered()}}
    missed = 0
    with multiprocessing.get_context("spawn").Pool(given.jobs or multiprocessing.cpu_count()) as pool:
        search = partial(find, seeds=given.seeds, nodes=given.nodes, first=given.seed)
        for found in pool.imap_unordered(search, names):
            said = f"{found.seed} ({found.nodes} nodes)" if found.seed else "NOT NOTICED"
            tried = f" after {found.tried} seeds" if found.tried else ", as recorded"
            sys.stderr.write(f"{found.name}: {said}{tried} {found.reason[:100]!r}\n")
            missed += not found.seed
            if found.seed:
                table[found.name] = (found.seed, found.nodes)
    write(table)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
