"""What is wrong with a command line is said before anything is started."""

import argparse
import json
import os
import subprocess
import sys

import pytest

from benchmarks.arguments import TargetError, positive, prepare
from benchmarks.results import ResultsError, from_json


@pytest.mark.parametrize("text", ["0", "-3", "1001", "x", "1.5", ""])
def test_numbers_have_bounds(text):
    with pytest.raises(argparse.ArgumentTypeError, match="whole number from 1 to 1000"):
        positive(text)


def test_a_target_is_made_and_left_empty(tmp_path):
    prepare(tmp_path / "a" / "b", tmp_path / "more.json")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_a_target_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for directory, files in (
        (tmp_path / "file" / "x", ()),
        (tmp_path, (tmp_path / "none" / "x.json",)),
        (tmp_path, (tmp_path,)),
    ):
        with pytest.raises(TargetError, match=f"cannot be written: {files[0] if files else directory}: "):
            prepare(directory, *files)


@pytest.mark.parametrize("module", ["benchmarks", "benchmarks.profile"])
def test_nothing_is_measured_that_cannot_be_kept(module, tmp_path, monkeypatch):
    """Before a cluster is started; programs that are missing are another sentence, so they are there."""
    for name in ("wrk", "h2load", "etcd", "redis-server", "redis-benchmark"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", module, "--output", tmp_path / "file" / "x"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "the results cannot be written" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("broken", [{"value": "fast"}, {"extra": []}, {"value": None}])
def test_a_result_that_is_no_number_is_refused(broken):
    measurement = {"row": "a", "contender": "b", "round": 0, "value": 1.0, "unit": "s", "extra": {}} | broken
    machine = {"cores": 1, "processor": "", "memory_bytes": 1, "kernel": "", "filesystem": "", "versions": {}}
    run = {"begun": "", "seconds": 1, "command": "", "quick": True, "rounds": 1, "failures": []}
    text = json.dumps({"schema": 1, **run, "machine": machine, "measurements": [measurement]})
    with pytest.raises(ResultsError, match="a of b has no number"):
        from_json(text, "x.json")
