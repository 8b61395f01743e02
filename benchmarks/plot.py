"""Pictures of a run (SVG): the ratios of the rows with their bounds, and the rates of all workloads."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.results import Run
from benchmarks.rows import ROWS, work_out
from benchmarks.scenarios import WORKLOADS

OURS, OTHERS = "#1f77b4", ("#7f7f7f", "#bcbd22", "#ff7f0e", "#d62728")
"""Colours of replicad, and of the other contenders in the order of their appearance."""

TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Ratios that have a line."""


def ratios(run: Run, file: Path) -> None:
    """Draw the median ratio of each row with its smallest and largest, and both bounds."""
    found = [each for row in ROWS if row.peers and (each := work_out(row, run.measurements)).value is not None]
    figure, axes = _axes(len(found))
    for place, each in enumerate(found):
        assert each.value is not None and each.low is not None and each.high is not None  # noqa: PT018, S101 - see above
        axes.barh(place, each.value, height=0.5, color=OURS, zorder=2)
        axes.plot([each.low, each.high], [place, place], color="black", linewidth=1.5, zorder=3)
        for bound, style in ((each.row.least, "-"), (each.row.hoped, ":")):
            axes.plot([bound, bound], [place - 0.4, place + 0.4], color="#d62728", linestyle=style, zorder=4)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick:g} ×" for tick in TICKS])
    axes.minorticks_off()
    _label(
        axes,
        [
            f"{each.row.title}\nagainst {each.row.peer}" + ("" if each.row.more else " (less is better)")
            for each in found
        ],
        "replicad over the other: median, black: smallest to largest, red: at least (line) and hoped for (dots)",
    )
    _save(figure, file)


def rates(run: Run, file: Path) -> None:
    """Draw the rates of each workload, a bar for each contender."""
    bars = []
    for name, workload in WORKLOADS.items():
        for contender in workload.contenders:
            mine = [each.value for each in run.measurements if (each.row, each.contender) == (name, contender)]
            if mine:
                bars.append((f"{workload.title}: {contender}", contender, mine))
    others = [name for name in dict.fromkeys(name for _, name, _ in bars) if not name.startswith("replicad")]
    colours = dict(zip(others, OTHERS, strict=False))
    figure, axes = _axes(len(bars), each=0.3)
    for place, (_, contender, mine) in enumerate(bars):
        axes.barh(place, median(mine), height=0.7, color=colours.get(contender, OURS), zorder=2)
        axes.plot([min(mine), max(mine)], [place, place], color="black", linewidth=1.5, zorder=3)
    _label(axes, [text for text, _, _ in bars], "requests a second: median of the rounds, black: smallest to largest")
    _save(figure, file)


def _axes(bars: int, each: float = 0.7) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - a second, and the reports need none of it

    figure = Figure(figsize=(11, 1.2 + each * max(bars, 1)), layout="constrained")
    return figure, figure.subplots()


def _label(axes: Any, names: list[str], text: str) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(text, fontsize=8)
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, format="svg", metadata={"Date": None})
