import json

import pytest

from replicad.cli.simulate import progress
from replicad.lab import runner
from replicad.lab.trial import Kind, TrialResult


@pytest.fixture
def fake(monkeypatch):
    """The simulator replaced: seed 3 fails."""

    def run_seeds(first, count, nodes, *, jobs=0, trace=None, progress=None):
        summary = runner.Summary()
        for seed in range(first, first + count):
            result = TrialResult(seed, nodes)
            if seed == 3:
                result.kind, result.reason, result.tail = Kind.CORRECTNESS, "two batches at slot 5", ["12 n1 step"]
            if trace:
                trace(f"seed {seed}")
            summary.add(result)
            progress(result)
        return summary

    monkeypatch.setattr(runner, "run_seeds", run_seeds)


def test_seeds_that_pass(replicad, fake):
    """Progress goes to standard error in plain lines, the sum to standard output."""
    result = replicad("simulate", "--seeds", 2)
    assert result.exit_code == 0
    assert result.stdout.startswith("2 seeds, none failed;")
    assert result.stderr == "1 of 2 seeds\n2 of 2 seeds\n"


def test_a_seed_that_fails(replicad, fake):
    """A failing seed gives its reason, the command that repeats it, its last lines, and its exit code."""
    result = replicad("simulate", "--seeds", 3, "--seed", 2, "--nodes", 5)
    assert result.exit_code == 2
    assert "seed 3 failed (correctness): two batches at slot 5" in result.stderr
    assert "repeat: replicad simulate --seeds 1 --seed 3 --nodes 5" in result.stderr
    assert "12 n1 step" in result.stdout
    failures = json.loads(replicad("simulate", "--seeds", 3, "--seed", 2, "--json").stdout)["failures"]
    assert failures[0]["command"] == "replicad simulate --seeds 1 --seed 3 --nodes 3"


def test_a_trace(replicad, fake):
    """--trace prints the transcript, and no progress between its lines."""
    result = replicad("simulate", "--seeds", 1, "--trace")
    assert result.stdout.startswith("seed 0\n")
    assert result.stderr == ""


def test_mutations(replicad, monkeypatch):
    """The table shows what was noticed at which seed; one that was not makes the exit code 1."""
    first, second = runner.registered()[:2]
    monkeypatch.setattr(runner, "registered", lambda: [first, second])

    def try_mutations(start, count, nodes, *, jobs=0, progress=None):
        results = [
            runner.MutationResult(first.name, 4, 5, Kind.CORRECTNESS, "bad"),
            runner.MutationResult(second.name, 0, count, Kind.OK, ""),
        ]
        for result in results:
            progress(result)
        return results

    monkeypatch.setattr(runner, "try_mutations", try_mutations)
    result = replicad("simulate", "--mutations", "--seeds", 6)
    assert result.exit_code == 1
    assert f"{second.name} was not noticed in 6 seeds" in result.stderr
    assert "NOT NOTICED" in result.stdout
    found = json.loads(replicad("simulate", "--mutations", "--json").stdout)["mutations"]
    assert [mutation["noticed"] for mutation in found] == [True, False]


def test_a_real_seed(replicad):
    """The real simulator runs a seed, and gives the same transcript twice."""
    first, second = (replicad("simulate", "--seeds", 1, "--seed", 7, "--trace").stdout.splitlines() for _ in range(2))
    assert len(first) > 10
    assert [line for line in first if "virtual time" not in line] == [
        line for line in second if "virtual time" not in line
    ]


def test_trace_and_mutations_contradict_each_other(replicad):
    """The two cannot be had together."""
    assert replicad("simulate", "--trace", "--mutations").exit_code == 2


def test_progress_is_told_at_each_tenth(capsys):
    """A thousand seeds give ten lines."""
    with progress(1000, "seeds") as step:
        for _ in range(1000):
            step("")
    assert capsys.readouterr().err.splitlines() == [f"{number}00 of 1000 seeds" for number in range(1, 11)]
