"""Scripts about drained nodes; :class:`Drainer` looks on."""

from __future__ import annotations

from replicad.core.model.operations import ACTIVE
from replicad.lab.checks import Stuck, Violation
from replicad.lab.drainer import Drainer
from replicad.lab.mutations.drama import Drama
from replicad.lab.mutations.registry import scripted


def _drained(drama: Drama, name: str) -> Drainer:
    """Drain a node, and watch it."""
    drainer = Drainer(drama)
    drainer.set(name, drained=True)
    if name not in drainer.drained:
        raise Stuck(f"{name} was not drained")
    drainer.watch()
    return drainer


def _end(drama: Drama, drainer: Drainer, name: str) -> None:
    drainer.set(name, drained=False)
    drama.end()


@scripted("drained-keeps-lease")
def drained_keeps_lease() -> None:
    """A follower is drained while others write."""
    drama = Drama()
    first, _, third = drama.order
    drama.write(first)
    drainer = _drained(drama, third)
    for _ in range(5):
        drama.write(first)
        drama.run_for(100_000)
    _end(drama, drainer, third)


@scripted("drained-stands")
def drained_stands() -> None:
    """The coordinator dies; the drained one of the others would be the first by its random delay."""
    drama = Drama()
    first, second, third = drama.order
    drama.write(first)
    drainer = _drained(drama, third)
    drama.run_for(200_000)
    drama.replica(second).election.delay = 50_000
    drama.replica(third).election.delay = 0
    drama.crash(first)
    drama.until(lambda: drama.leads(second) or drama.leads(third), "elect a coordinator")
    if drama.leads(third):
        raise Violation("drained", f"{third} is drained, and took the office although {second} could")
    drama.write(second)
    drama.restart(first)
    _end(drama, drainer, third)


@scripted("drained-keeps-office")
def drained_keeps_office() -> None:
    """The coordinator is drained."""
    drama = Drama()
    first, second, _ = drama.order
    drama.write(first)
    drainer = _drained(drama, first)
    drama.run_for(4_000_000)
    drama.write(second)
    _end(drama, drainer, first)


@scripted("drain-forgotten")
def drain_forgotten() -> None:
    """A drained node is killed, and started again."""
    drama = Drama()
    first, _, third = drama.order
    drama.write(first)
    drainer = _drained(drama, third)
    drama.crash(third)
    drama.write(first)
    drama.restart(third)
    drama.run_for(2_000_000)
    _end(drama, drainer, third)


@scripted("drained-handed-to")
def drained_handed_to() -> None:
    """The sequencer has the members propose its clients' large operations in turn."""
    drama = Drama(protocol=ACTIVE, hand_on_bytes=1)
    first, _, third = drama.order
    drama.write(first)
    drainer = _drained(drama, third)
    drama.run_for(100_000)
    for _ in range(6):
        drama.write(first)
    _end(drama, drainer, third)
