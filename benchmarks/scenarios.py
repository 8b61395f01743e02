"""Everything that can be measured, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from benchmarks.contenders import PROGRAMS
from benchmarks.context import Context
from benchmarks.events import catch_up, failover, protocols, restart, slope, stall
from benchmarks.results import Measurement
from benchmarks.workloads import MORE, TABLE

THROUGHPUT = "throughput"


class Event(NamedTuple):
    """A scenario of its own: what it is, what measures it, the programs it needs, and which runs have it.

    ``quick``: all; ``full``: only ``--full``; neither: all but ``--quick``.
    """

    title: str
    measure: Callable[[Context], Awaitable[list[Measurement]]]
    programs: tuple[str, ...]
    quick: bool = False
    full: bool = False


EVENTS: dict[str, Event] = {
    "failover": Event("the coordinator is killed", failover.measure, ("etcd",), quick=True),
    "failover-stop": Event("the coordinator is stopped (SIGSTOP)", failover.measure_stop, ("etcd",), full=True),
    "restart": Event("all nodes are killed and restarted; memory", restart.measure, ("etcd",)),
    "stall": Event("slowest write while a checkpoint is taken", stall.measure, ()),
    "catch-up": Event("a node that was away catches up", catch_up.measure, ("etcd",), full=True),
    "slope": Event("three, five and seven nodes", slope.measure, ("etcd", "wrk")),
    "protocols": Event("active against remote-write", protocols.measure, ("wrk",)),
}

WORKLOADS = {workload.name: workload for group in (*TABLE, *MORE) for workload in group}


class Selection(NamedTuple):
    """What one run measures: workloads by name (none: no throughput at all), and events by name."""

    workloads: frozenset[str]
    events: tuple[str, ...]

    def programs(self) -> list[str]:
        """Return the programs that must be installed."""
        of_workloads = [
            program
            for name in sorted(self.workloads)
            for contender in WORKLOADS[name].contenders
            for program in PROGRAMS[contender]
        ]
        return [*of_workloads, *(program for name in self.events for program in EVENTS[name].programs)]


class UnknownNamesError(Exception):
    """Names that nothing has; the message says which."""


def select(only: Sequence[str], *, full: bool, quick: bool) -> Selection:
    """Return what to measure: these names if there are some, otherwise what quick, default or full runs have.

    Raises UnknownNamesError.
    """
    table = frozenset(workload.name for group in TABLE for workload in group)
    if not only:
        events = tuple(
            name for name, event in EVENTS.items() if event.quick or (not quick and (full or not event.full))
        )
        return Selection(frozenset(WORKLOADS) if full else table, events)
    unknown = [name for name in only if name not in {THROUGHPUT, *WORKLOADS, *EVENTS}]
    if unknown:
        what = "names " if len(unknown) > 1 else "name "
        raise UnknownNamesError(f"--only: nothing has the {what}{', '.join(unknown)}; --help lists the names")
    workloads = frozenset(name for name in only if name in WORKLOADS)
    if THROUGHPUT in only:
        workloads |= frozenset(WORKLOADS) if full else table
    return Selection(workloads, tuple(name for name in EVENTS if name in only))
