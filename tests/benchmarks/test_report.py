"""Tables, pages and pictures of a run."""

from dataclasses import replace
from io import StringIO
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from benchmarks import plot
from benchmarks.report import PAGES, PageError, cells, figure, filled, markdown, show, workload_rows, write_pages
from benchmarks.results import Machine, Measurement, Run
from benchmarks.rows import ROWS, work_out

LATENCIES = {"median_us": 1500.0, "p99_us": 4000.0, "max_us": 9000.0}


def put(contender, number, rate):
    return Measurement("put-64", contender, number, rate, "1/s", LATENCIES)


RUN = Run(
    "2026-01-01T00:00",
    90.0,
    "python -m benchmarks --quick",
    True,
    2,
    Machine(2, "a processor", 3 << 30, "6.1", "ext4", {"etcd": "3.4.23", "wrk": "4.1.0"}),
    (
        *(put("replicad", number, rate) for number, rate in enumerate((3500.0, 4200.0))),
        *(put("etcd v2", number, 1000.0) for number in range(2)),
        *(put("etcd gRPC", number, 2000.0) for number in range(2)),
        *(Measurement("stall", "replicad", number, value, "ms") for number, value in enumerate((12.0, 150.0))),
        *(Measurement("failover", "replicad", number, 0.35, "s") for number in range(2)),
        *(Measurement("failover", "etcd", number, 1.6, "s") for number in range(2)),
    ),
    ("put-1, round 1, etcd v2: 3 of 40 requests failed",),
)


def row(name):
    return next(cells(work_out(each, RUN.measurements)) for each in ROWS if each.name == name)


def test_a_row_with_a_peer():
    assert row("put-http")[2:] == ("3,850/s", "1,000/s", "3.85 ×", "3.50–4.20", "3 ×", "4 ×", "reached")
    assert row("failover")[2:] == ("350 ms", "1.60 s", "0.22 ×", "0.22–0.22", "≤ 0.3 ×", "≤ 0.2 ×", "reached")
    assert row("put-grpc")[-1] == "not reached"
    assert row("put-p99")[2:5] == ("4.00 ms", "4.00 ms", "1.00 ×")


def test_a_row_without_a_peer():
    assert row("stall")[1:] == ("–", "81.00 ms", "–", "–", "12–150 ms", "≤ 100 ms", "≤ 30 ms", "reached")


def test_a_row_that_was_not_measured():
    assert row("restart")[2:] == ("–", "–", "–", "–", "≤ 0.6 ×", "≤ 0.3 ×", "not measured")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", "–"),
        (0.0421, "s", "42 ms"),
        (5.04, "s", "5.04 s"),
        (775.4, "MB", "775 MB"),
        (12.5, "1/s", "12.50/s"),
    ],
)
def test_figures_have_units(value, unit, text):
    assert figure(value, unit) == text


def test_workloads_in_their_own_order_by_contender():
    assert workload_rows(RUN.measurements) == [
        ("PUT at the coordinator, 64 connections", name, rate, span, "1.50 ms", "4.00 ms", "9.00 ms")
        for name, rate, span in (
            ("replicad", "3,850", "3,500–4,200"),
            ("etcd v2", "1,000", "1,000–1,000"),
            ("etcd gRPC", "2,000", "2,000–2,000"),
        )
    ]


def test_the_terminal_shows_what_was_measured_and_what_failed():
    console = Console(file=StringIO(), width=220)
    show(RUN, console)
    text = console.file.getvalue()
    assert "3.85 ×" in text
    assert "not measured" not in text
    assert "Failed: put-1, round 1, etcd v2: 3 of 40 requests failed" in text


def test_markdown_of_the_rows_has_a_line_for_each():
    lines = markdown(RUN, "rows").splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    assert lines[2].startswith("| durable PUT/s over HTTP, 100 B, 64 connections | etcd's fastest HTTP API | 3,850/s |")


def test_markdown_of_the_machine():
    assert markdown(RUN, "machine").splitlines()[:4] == [
        "- Command: `python -m benchmarks --quick`, 2026-01-01T00:00, 2 minutes",
        "- Machine: 2 cores of a processor, 3 GiB",
        "- System: Linux 6.1, data on ext4",
        "- Programs: etcd 3.4.23, wrk 4.1.0",
    ]


def page(*names):
    return "before\n" + "".join(f"<!-- bench: {name} -->\nold\n<!-- bench: end -->\nbetween\n" for name in names)


def test_a_page_keeps_everything_around_its_tables():
    text = filled("PAGE.md", page("rows", "machine"), RUN, ("rows",))
    assert "old" not in text
    assert text.startswith("before\n<!-- bench: rows -->\n| what |")
    assert text.endswith("requests failed\n<!-- bench: end -->\nbetween\n")
    assert filled("PAGE.md", text, RUN, ("rows",)) == text


def test_a_page_without_a_place_is_refused():
    with pytest.raises(PageError, match=r"PAGE\.md has no place for a table: <!-- bench: rows -->"):
        filled("PAGE.md", page("machine"), RUN, ("rows",))


def test_all_pages_are_written_or_none(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(page("rows"), encoding="utf-8")
    with pytest.raises(PageError, match=r"docs/performance\.md cannot be read"):
        write_pages(RUN, tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == page("rows")
    (tmp_path / "docs/performance.md").write_text(page(*PAGES["docs/performance.md"]), encoding="utf-8")
    write_pages(RUN, tmp_path)
    for name in PAGES:
        assert "old" not in (tmp_path / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("draw", [plot.ratios, plot.rates])
@pytest.mark.parametrize("run", [RUN, replace(RUN, measurements=())], ids=["measured", "empty"])
def test_pictures_are_svg(draw, run, tmp_path):
    draw(run, tmp_path / "picture.svg")
    assert ET.parse(tmp_path / "picture.svg").getroot().tag.endswith("svg")
