import os
import subprocess
import sys

import pytest

from replicad.lab.mutations import MUTATIONS, mutated, register
from replicad.lab.runner import run_seeds
from replicad.lab.swarm import draw
from replicad.lab.trial import Kind, run_trial

SCRIPT = "from replicad.lab.trial import run_trial; r = run_trial(5, 3); print(r.digest, r.events, r.slots)"


def test_a_seed_gives_the_same_transcript_in_every_process():
    """Two processes with different string hashing give the same hash of the whole transcript."""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].split()[0]) == 32


def test_different_seeds_try_different_things():
    """Seeds draw different mixes, and a seed always draws the same one."""
    assert draw(7, 3) == draw(7, 3)
    assert len({draw(seed, 3).limits for seed in range(20)}) > 10
    assert len({draw(seed, 3).nemesis for seed in range(20)}) == 20


def test_a_series_counts_what_happened_on_both_cores():
    """A summary of several processes equals the one of a single process."""
    alone = run_seeds(1, 6, 3, jobs=1)
    together = run_seeds(1, 6, 3, jobs=2)
    assert alone.trials == together.trials == 6
    assert alone.counts == together.counts
    assert alone.slots == together.slots


@pytest.mark.parametrize("name", ["apply-out-of-order", "majority-off-by-one", "request-ids-not-in-checkpoint"])
def test_a_mutation_is_noticed(name):
    """With the rule switched off some seed fails, and reports how to repeat it."""
    with mutated(name):
        results = (run_trial(seed, 3) for seed in range(1, 40))
        failed = next(result for result in results if result.kind is not Kind.OK)
    assert failed.reason
    assert failed.tail
    assert failed.command == f"replicad simulate --seeds 1 --seed {failed.seed} --nodes 3"


def test_a_mutation_ends_with_its_block():
    """After the block the original method is back."""
    patch = MUTATIONS["majority-off-by-one"].patches[0]
    owner = patch.owner()
    original = owner.__dict__[patch.method]
    with mutated("majority-off-by-one"):
        assert owner.__dict__[patch.method] is not original
    assert owner.__dict__[patch.method] is original


def test_names_of_mutations_are_unique():
    """A name cannot be registered twice."""
    with pytest.raises(ValueError, match="already"):
        register("majority-off-by-one", "C1", "", "core", "x")


def test_a_failing_process_is_a_crash_not_an_error_of_the_runner(monkeypatch):
    """An exception inside a node ends the trial as a crash with its place, it does not escape."""
    from replicad.core.group.replica import Replica

    def fail(self, now):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(Replica, "tick", fail)
    summary = run_seeds(1, 1, 3, jobs=1)
    assert summary.failures[0].kind is Kind.CRASH
    assert "ZeroDivisionError: on purpose" in summary.failures[0].reason
    assert summary.exit_code == 4


def test_a_cluster_that_cannot_elect_is_stuck(monkeypatch):
    """A cluster without progress is reported as a liveness failure, with every node's state."""
    from replicad.core.group.election import Election

    monkeypatch.setattr(Election, "tick", lambda self: None)
    result = run_trial(1, 3)
    assert result.kind is Kind.LIVENESS
    assert "n1: " in result.reason
