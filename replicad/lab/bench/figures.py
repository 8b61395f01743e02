"""What was measured, cell by cell: rates, latencies, bytes; and the same as a table or as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from replicad.lab.bench.plan import Cell, size_label

BUCKET_GROWTH = 1.02
"""Latencies are kept to 2 %, so that a long run needs no more memory than a short one."""
_SCALE = 1 / math.log(BUCKET_GROWTH)
_SMALLEST_SECONDS = 1e-6

WRITE_COLUMNS = ("Writes/s", "min-max", "Median", "99 %")
READ_COLUMNS = ("Reads/s", "Read median", "Read 99 %")
SENT_COLUMNS = ("Coordinator sent/write", "Coordinator sent", "All sent/write")


class Latencies:
    """Durations, counted in buckets that grow by 2 %."""

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[int(math.log(max(seconds, _SMALLEST_SECONDS) / _SMALLEST_SECONDS) * _SCALE)] += 1
        self.count += 1

    def merge(self, other: Latencies) -> None:
        """Count everything that ``other`` has counted."""
        self.buckets.update(other.buckets)
        self.count += other.count

    def quantile(self, share: float) -> float | None:
        """Return the seconds that ``share`` of them did not exceed, None without any."""
        left = math.ceil(share * self.count)
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return float(_SMALLEST_SECONDS * BUCKET_GROWTH ** (bucket + 0.5))
        return None


@dataclass(slots=True)
class Tally:
    """What the clients of one load saw."""

    seconds: float = 0.0
    """How long they loaded; what was answered later is in ``written`` only."""
    writes: Latencies = field(default_factory=Latencies)
    reads: Latencies = field(default_factory=Latencies)
    written: int = 0
    """Acknowledged writes, those included whose answer came after the end."""
    errors: int = 0
    first_error: str = ""

    def error(self, what: str) -> None:
        """Count an operation that was refused or lost."""
        self.errors += 1
        self.first_error = self.first_error or what


@dataclass(frozen=True, slots=True)
class Round:
    """One cell in one round. Bytes are what nodes sent to each other meanwhile, None if a node did not say."""

    tally: Tally
    coordinator: str
    moved: bool
    """Whether the coordinator was another one at the end."""
    sent_coordinator: int | None
    sent_all: int | None


@dataclass(slots=True)
class Figures:
    """One cell, all rounds."""

    cell: Cell
    protocol: str
    rounds: list[Round] = field(default_factory=list)

    def rates(self, *, reads: bool = False) -> list[float]:
        """Return operations per second, one number for each round."""
        tallies = [each.tally for each in self.rounds]
        return [(tally.reads if reads else tally.writes).count / tally.seconds for tally in tallies]

    def latencies(self, *, reads: bool = False) -> Latencies:
        """Return the latencies of all rounds."""
        found = Latencies()
        for each in self.rounds:
            found.merge(each.tally.reads if reads else each.tally.writes)
        return found

    @property
    def coordinators(self) -> str:
        """Who coordinated; several in the order of the rounds."""
        return ",".join(dict.fromkeys(each.coordinator for each in self.rounds))

    @property
    def moved(self) -> bool:
        """Whether the coordinator changed while it was loaded: the bytes are then not one node's."""
        return any(each.moved for each in self.rounds)

    @property
    def errors(self) -> int:
        """Operations that were refused or lost."""
        return sum(each.tally.errors for each in self.rounds)

    @property
    def first_error(self) -> str:
        """What the first of them said."""
        return next((each.tally.first_error for each in self.rounds if each.tally.first_error), "")

    def sent(self, *, everyone: bool = False) -> tuple[int, float | None] | None:
        """Return the bytes that the coordinator (or every node) sent to peers, in all and per acknowledged write."""
        total = 0
        for each in self.rounds:
            sent = each.sent_all if everyone else each.sent_coordinator
            if sent is None:
                return None
            total += sent
        written = sum(each.tally.written for each in self.rounds)
        return total, total / written if written else None

    def as_json(self) -> dict[str, object]:
        """Return everything as plain values; milliseconds and bytes."""
        found: dict[str, object] = {
            "group": self.cell.group,
            "protocol": self.protocol,
            "coordinator": self.coordinators,
            "coordinator_moved": self.moved,
            "value_bytes": self.cell.value_bytes,
        }
        for what, reads in (("writes", False), ("reads", True)):
            rates, times = self.rates(reads=reads), self.latencies(reads=reads)
            found[what] = {
                "count": times.count,
                "per_second": {"median": round(median(rates), 1), "rounds": [round(rate, 1) for rate in rates]},
                "median_ms": _milliseconds(times.quantile(0.5)),
                "p99_ms": _milliseconds(times.quantile(0.99)),
            }
        for what, everyone in (("coordinator_sent_bytes", False), ("all_sent_bytes", True)):
            sent = self.sent(everyone=everyone)
            found[what] = None if sent is None else sent[0]
            found[f"{what}_per_write"] = None if sent is None or sent[1] is None else round(sent[1], 1)
        return found | {"errors": self.errors, "first_error": self.first_error}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def table(figures: Sequence[Figures]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of the table; writes and reads get columns only if there were any."""
    writes = any(each.latencies().count for each in figures)
    reads = any(each.latencies(reads=True).count for each in figures)
    columns = ["Group", "Protocol", "Coordinator", "Value", *(WRITE_COLUMNS if writes else ())]
    columns += [*(READ_COLUMNS if reads else ()), "Errors", *(SENT_COLUMNS if writes else SENT_COLUMNS[1:2])]
    return columns, [_row(each, writes=writes, reads=reads) for each in figures]


def _row(figures: Figures, *, writes: bool, reads: bool) -> list[str]:
    moved = " (moved)" if figures.moved else ""
    row = [figures.cell.group, figures.protocol, figures.coordinators + moved, size_label(figures.cell.value_bytes)]
    if writes:
        rates = figures.rates()
        row += [f"{median(rates):,.0f}", f"{min(rates):,.0f}-{max(rates):,.0f}"]
        row += _times(figures.latencies())
    if reads:
        row += [f"{median(figures.rates(reads=True)):,.0f}"]
        row += _times(figures.latencies(reads=True))
    row.append(str(figures.errors))
    sent, everyone = figures.sent(), figures.sent(everyone=True)
    total = "?" if sent is None else f"{sent[0] / 1e6:,.1f} MB"
    return [*row, _bytes(sent), total, _bytes(everyone)] if writes else [*row, total]


def _bytes(sent: tuple[int, float | None] | None) -> str:
    return "?" if sent is None or sent[1] is None else f"{sent[1]:,.0f} B"


def _times(latencies: Latencies) -> list[str]:
    times = (latencies.quantile(0.5), latencies.quantile(0.99))
    return ["-" if each is None else f"{each * 1000:.2f} ms" for each in times]
