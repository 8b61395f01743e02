"""Ratios are taken within a round, and their median is compared with the bounds."""

import pytest

from benchmarks.results import Machine, Measurement, ResultsError, Run, from_json, read, to_json
from benchmarks.rows import HOPED, NOT, REACHED, ROWS, UNKNOWN, Figure, Row, best, work_out
from benchmarks.scenarios import WORKLOADS

RATE = Row("rate", "PUT/s", "the peer", (Figure("put", "us"),), (Figure("put", "them"),), 3.0, 4.0)


def rates(contender, *values, row="put"):
    return [Measurement(row, contender, number, value, "1/s") for number, value in enumerate(values)]


def test_the_median_of_ratios_and_not_the_ratio_of_medians():
    found = work_out(RATE, [*rates("us", 300, 900, 1000), *rates("them", 100, 100, 500)])
    assert (found.rounds, found.value, found.low, found.high) == (3, 3.0, 2.0, 9.0)
    assert (found.ours, found.peer) == (900, 100)


def test_a_round_that_only_one_has_does_not_count():
    found = work_out(RATE, [*rates("us", 300, 900), *rates("them", 100)])
    assert (found.rounds, found.value, found.ours) == (1, 3.0, 300)


def test_nothing_was_measured():
    found = work_out(RATE, rates("us", 300))
    assert (found.rounds, found.value, found.verdict) == (0, None, UNKNOWN)


@pytest.mark.parametrize(("ours", "verdict"), [(299, NOT), (300, REACHED), (399, REACHED), (400, HOPED)])
def test_bounds_where_more_is_better(ours, verdict):
    assert work_out(RATE, [*rates("us", ours), *rates("them", 100)]).verdict == verdict


@pytest.mark.parametrize(("ours", "verdict"), [(71, NOT), (70, REACHED), (51, REACHED), (50, HOPED)])
def test_bounds_where_less_is_better(ours, verdict):
    row = Row("time", "time", "peer", (Figure("put", "us"),), (Figure("put", "them"),), 0.7, 0.5, "s", more=False)
    assert work_out(row, [*rates("us", ours), *rates("them", 100)]).verdict == verdict


@pytest.mark.parametrize(("worst", "verdict"), [(101, NOT), (100, REACHED), (30, HOPED)])
def test_a_row_without_a_peer_is_compared_itself(worst, verdict):
    row = Row("stall", "slowest", "", (Figure("stall", "us"),), (), 100.0, 30.0, "ms", more=False)
    found = work_out(row, rates("us", worst, row="stall"))
    assert (found.value, found.peer, found.verdict) == (worst, None, verdict)


def test_the_best_of_several_is_that_of_each_round():
    figures = [{0: 5.0, 1: 7.0}, {0: 6.0, 2: 1.0}]
    assert best(figures, more=True) == {0: 6.0, 1: 7.0, 2: 1.0}
    assert best(figures, more=False) == {0: 5.0, 1: 7.0, 2: 1.0}


def test_a_figure_beside_the_value():
    measurements = [Measurement("put", "us", 0, 1000.0, "1/s", {"median_us": 250})]
    assert Figure("put", "us", "median_us").of(measurements) == {0: 250.0}
    assert Figure("put", "us", "p99_us").of(measurements) == {}


def test_rows_of_the_table_ask_for_workloads_that_their_contenders_have():
    for row in ROWS:
        for figure in (*row.ours, *row.peers):
            if figure.row in WORKLOADS:
                assert figure.contender in WORKLOADS[figure.row].contenders, (row.name, figure)


def test_hoped_for_is_never_less_than_the_least():
    for row in ROWS:
        assert (row.hoped > row.least) == row.more, row.name


MACHINE = Machine(2, "a processor", 1 << 34, "6.1", "ext4", {"etcd": "3.4.23"})
RUN = Run("2026-01-01T00:00", 60.0, "python -m benchmarks", True, 2, MACHINE, tuple(rates("us", 1.5)), ("a failure",))


def test_a_run_comes_back_from_json():
    assert from_json(to_json(RUN), "here") == RUN


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "here is not JSON"),
        ("[]", "here has schema None, and 1 is what can be read"),
        ('{"schema": 2}', "here has schema 2, and 1 is what can be read"),
        ('{"schema": 1}', "here is not a whole result: 'machine'"),
        (to_json(RUN).replace('"cores"', '"kernels"'), "here is not a whole result"),
    ],
)
def test_what_is_not_a_run(text, sentence):
    with pytest.raises(ResultsError, match=sentence):
        from_json(text, "here")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ResultsError, match=r"none\.json cannot be read: no such file or directory"):
        read(tmp_path / "none.json")
