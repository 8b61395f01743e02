"""What is measured, in which order, and what is said if a program or a name is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.clusters.processes import PACKAGES, MissingProgramsError, require
from benchmarks.contenders import CLUSTERS, PROGRAMS, REPLICAD, Workload, query
from benchmarks.scenarios import EVENTS, WORKLOADS, UnknownNamesError, select
from benchmarks.throughput import steps
from benchmarks.workloads import MORE, TABLE, chosen

ROOT = Path(__file__).resolve().parents[2]


def test_a_missing_program_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgramsError, match=r"^etcd is not installed\. .*: apt install etcd-server$"):
        require(["etcd"])


def test_missing_programs_are_named_once_with_all_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    sentence = r"^wrk, redis-benchmark, redis-cli are not installed\. .*: apt install wrk redis-tools$"
    with pytest.raises(MissingProgramsError, match=sentence):
        require(["wrk", "redis-benchmark", "wrk", "redis-cli"])


def test_programs_that_are_there_are_not_missed(monkeypatch, tmp_path):
    (tmp_path / "wrk").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    require(["wrk"])


def test_every_program_that_may_be_missing_has_a_package():
    asked = select([], full=True, quick=False).programs()
    assert set(asked) == {"wrk", "etcd", "h2load", "redis-server", "redis-benchmark"}
    assert set(asked) <= set(PACKAGES)


def test_nothing_starts_without_the_programs(tmp_path):
    command = (sys.executable, "-m", "benchmarks", "--only", "put-16x16", "--output", str(tmp_path / "out"))
    found = subprocess.run(
        command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 2
    assert found.stderr == (
        "Error: etcd, h2load, redis-server, redis-benchmark are not installed. On Debian and Ubuntu: "
        "apt install etcd-server nghttp2-client redis-server redis-tools\n"
    )
    assert not (tmp_path / "out").exists()


def test_only_replicad_alone_needs_no_peer():
    assert set(select(["put-64-one"], full=False, quick=False).programs()) == {"wrk"}


def test_unknown_names_are_refused_with_a_hint():
    with pytest.raises(UnknownNamesError, match=r"^--only: nothing has the names putt, gett; --help lists the names$"):
        select(["putt", "put-64", "gett"], full=False, quick=False)


def test_what_the_sizes_of_a_run_have():
    table = {workload.name for group in TABLE for workload in group}
    usual, quick, full = (
        select([], full=full, quick=quick) for full, quick in ((False, False), (False, True), (True, False))
    )
    assert usual.workloads == quick.workloads == table
    assert full.workloads == set(WORKLOADS)
    assert full.events == tuple(EVENTS)
    assert set(quick.events) < set(usual.events) < set(EVENTS)


def test_single_names():
    found = select(["failover", "put-64"], full=False, quick=True)
    assert (found.workloads, found.events) == ({"put-64"}, ("failover",))


def test_workloads_have_names_of_their_own_and_contenders_that_exist():
    every = [workload for group in (*TABLE, *MORE) for workload in group]
    assert len(every) == len(WORKLOADS)
    assert {name for workload in every for name in workload.contenders} == set(CLUSTERS) == set(PROGRAMS)
    assert not set(WORKLOADS) & set(EVENTS)


def test_stores_only_grow():
    needs = [max(workload.keys for workload in group) for group in chosen(frozenset(WORKLOADS))]
    assert needs == sorted(needs)
    assert needs[-1] == 1_000_000


def test_in_every_round_each_contender_has_each_workload_once_and_the_first_changes():
    rounds = [steps(TABLE, number) for number in range(3)]
    wanted = {(name, workload.name) for group in TABLE for workload in group for name in workload.contenders}
    for each in rounds:
        assert len(each) == len(wanted)
        assert {(contender, workload.name) for _, contender, workload in each} == wanted
        assert all(CLUSTERS[contender] == cluster for cluster, contender, _ in each)
    assert [each[0][0] for each in rounds] == ["replicad", "etcd", "replicad"]
    of_etcd = [next(contender for _, contender, _ in each if contender.startswith("etcd")) for each in rounds]
    assert of_etcd == ["etcd v2", "etcd v3 JSON", "etcd gRPC"]


def test_a_cluster_has_one_turn_in_a_group():
    group = (Workload("a", "a", "put", (REPLICAD, "etcd v2")), Workload("b", "b", "put", (REPLICAD, "etcd v2")))
    assert [(cluster, workload.name) for cluster, _, workload in steps([group], 1)] == [
        ("etcd", "a"),
        ("etcd", "b"),
        ("replicad", "a"),
        ("replicad", "b"),
    ]


@pytest.mark.parametrize(
    ("contender", "values", "wanted"),
    [
        (REPLICAD, {"kind": "get"}, ""),
        (REPLICAD, {"kind": "get", "level": "local"}, "?stale"),
        (REPLICAD, {"kind": "put", "acknowledgement": "one"}, "?ack=one"),
        ("etcd v2", {"kind": "get"}, "?quorum=true"),
        ("etcd v2", {"kind": "get", "level": "local"}, ""),
        ("etcd v2", {"kind": "put"}, ""),
        ("etcd v3 JSON", {"kind": "get", "level": "local"}, "?stale"),
    ],
)
def test_levels_of_reads_are_asked_for(contender, values, wanted):
    assert query(contender, Workload("a", "a", contenders=(contender,), **values)) == wanted
