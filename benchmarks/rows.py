"""The rows of the table: what is divided by what, and the bounds; and how they are worked out of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contenders import ETCD_GRPC, ETCD_V2, ETCD_V3, NATIVE, REDIS, REPLICAD
from benchmarks.results import Measurement

REACHED, HOPED, NOT, UNKNOWN = "reached", "hoped for", "not reached", "not measured"

Figures = dict[int, float]
"""Round -> a figure."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a measurement: its value, or one in its ``extra``."""

    row: str
    contender: str
    extra: str = ""

    def of(self, measurements: Sequence[Measurement]) -> Figures:
        """Return what was measured, by round."""
        return {
            each.round: float(each.extra[self.extra] if self.extra else each.value)
            for each in measurements
            if (each.row, each.contender) == (self.row, self.contender) and (not self.extra or self.extra in each.extra)
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the best of ``ours`` over the best of ``peers`` in the same round; without peers the figure itself.

    ``more`` says whether more is better; ``least`` and ``hoped`` are the bounds, ``unit`` is that of the figures.
    """

    name: str
    title: str
    peer: str
    ours: tuple[Figure, ...]
    peers: tuple[Figure, ...]
    least: float
    hoped: float
    unit: str = "1/s"
    more: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """What a row came to: the median of the rounds' ratios with the smallest and the largest, and the medians of both.

    All are None if there is no round with both.
    """

    row: Row
    rounds: int
    value: float | None
    low: float | None
    high: float | None
    ours: float | None
    peer: float | None

    @property
    def verdict(self) -> str:
        """Whether the bounds are reached."""
        if self.value is None:
            return UNKNOWN
        for bound, word in ((self.row.hoped, HOPED), (self.row.least, REACHED)):
            if self.value >= bound if self.row.more else self.value <= bound:
                return word
        return NOT


def best(figures: Sequence[Figures], *, more: bool) -> Figures:
    """Return the best figure of each round."""
    found: Figures = {}
    for each in figures:
        for number, value in each.items():
            if number not in found or (value > found[number]) == more:
                found[number] = value
    return found


def work_out(row: Row, measurements: Sequence[Measurement]) -> Found:
    """Return what a row comes to."""
    ours = best([figure.of(measurements) for figure in row.ours], more=row.more)
    peer = best([figure.of(measurements) for figure in row.peers], more=row.more)
    if row.peers:
        common = sorted(number for number in ours if peer.get(number))
        values = [ours[number] / peer[number] for number in common]
    else:
        common = sorted(ours)
        values = [ours[number] for number in common]
    if not values:
        return Found(row, 0, None, None, None, None, None)
    return Found(
        row,
        len(values),
        median(values),
        min(values),
        max(values),
        median(ours[number] for number in common),
        median(peer[number] for number in common) if row.peers else None,
    )


def _at(rows: Sequence[str], contenders: Sequence[str], extra: str = "") -> tuple[Figure, ...]:
    return tuple(Figure(row, contender, extra) for row in rows for contender in contenders)


_PUTS = ("put-64", "put-64-spread")
_MANY = ("put-16x16", "put-16x16-spread")
_ETCD_HTTP = (ETCD_V2, ETCD_V3)
_ETCD = (*_ETCD_HTTP, ETCD_GRPC)

ROWS: tuple[Row, ...] = (
    Row(
        "put-http",
        "durable PUT/s over HTTP, 100 B, 64 connections",
        "etcd's fastest HTTP API",
        _at(_PUTS, (REPLICAD,)),
        _at(_PUTS, _ETCD_HTTP),
        3.0,
        4.0,
    ),
    Row(
        "put-grpc",
        "durable PUT/s over HTTP, 100 B, 64 connections",
        "etcd gRPC, 64 connections",
        _at(_PUTS, (REPLICAD,)),
        _at(_PUTS, (ETCD_GRPC,)),
        3.0,
        4.0,
    ),
    Row(
        "put-median",
        "median latency of one client's PUT",
        "etcd's fastest API",
        _at(("put-1",), (REPLICAD,), "median_us"),
        _at(("put-1",), _ETCD, "median_us"),
        0.7,
        0.5,
        "µs",
        more=False,
    ),
    Row(
        "put-p99",
        "99 % of the PUTs at 64 connections took at most",
        "etcd's fastest API",
        _at(("put-64",), (REPLICAD,), "p99_us"),
        _at(("put-64",), _ETCD, "p99_us"),
        0.4,
        0.25,
        "µs",
        more=False,
    ),
    Row(
        "get-http",
        "linearizable GET/s over HTTP at one view member, 64 connections",
        "etcd's v2 HTTP GET",
        _at(("get-64",), (REPLICAD,)),
        _at(("get-64-local",), (ETCD_V2,)),
        1.0,
        1.2,
    ),
    Row(
        "get-grpc",
        "linearizable GET/s over HTTP at one view member, 64 connections",
        "etcd gRPC serializable range",
        _at(("get-64",), (REPLICAD,)),
        _at(("get-64-local",), (ETCD_GRPC,)),
        2.2,
        2.7,
    ),
    Row(
        "native-grpc",
        "native client, 16 connections × 16 in flight, PUT/s",
        "etcd gRPC, 16 × 16",
        _at(_MANY, (NATIVE,)),
        _at(_MANY, (ETCD_GRPC,)),
        5.0,
        9.0,
    ),
    Row(
        "native-redis",
        "native client, 16 connections × 16 in flight, PUT/s",
        "Redis SET, appendfsync always, two asynchronous replicas",
        _at(_MANY, (NATIVE,)),
        _at(("put-16x16",), (REDIS,)),
        0.5,
        1.0,
    ),
    Row(
        "failover",
        "no write acknowledged after kill -9 of the coordinator",
        "etcd with its defaults",
        _at(("failover",), ("replicad",)),
        _at(("failover",), ("etcd",)),
        0.3,
        0.2,
        "s",
        more=False,
    ),
    Row(
        "restart",
        "all nodes killed and restarted until the first write, 1,000,000 keys of 100 B",
        "etcd",
        _at(("restart",), ("replicad",)),
        _at(("restart",), ("etcd",)),
        0.6,
        0.3,
        "s",
        more=False,
    ),
    Row(
        "memory",
        "resident memory of a node with those keys",
        "etcd",
        _at(("memory",), ("replicad",)),
        _at(("memory",), ("etcd",)),
        0.6,
        0.3,
        "MB",
        more=False,
    ),
    Row(
        "stall",
        "slowest write while a checkpoint of 1 GiB is taken",
        "",
        _at(("stall",), ("replicad",)),
        (),
        100.0,
        30.0,
        "ms",
        more=False,
    ),
    *(
        Row(
            f"slope-{nodes}",
            f"writes/s at {nodes} nodes as a share of those at 3",
            "etcd's own share",
            _at((f"slope-{nodes}",), ("replicad",)),
            _at((f"slope-{nodes}",), ("etcd",)),
            1.0,
            1.05,
            "×",
        )
        for nodes in (5, 7)
    ),
    Row(
        "protocols",
        "`active`, 64 KiB values, clients at all nodes, writes/s",
        "`remote-write`",
        _at(("protocols",), ("active",)),
        _at(("protocols",), ("remote-write",)),
        1.2,
        1.6,
    ),
)
