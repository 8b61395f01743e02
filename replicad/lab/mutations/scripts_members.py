"""Scripts about changes of the members: each comes to the one moment at which its rule matters."""

from __future__ import annotations

from replicad.core.model.refusals import Refusal, RefusalCode
from replicad.lab.checks import Stuck
from replicad.lab.mutations.drama import Drama
from replicad.lab.mutations.registry import scripted


@scripted("replaced-in-the-view")
def replaced_in_the_view() -> None:
    """A voter that holds a lease is removed while it cannot hear of it; it must not read what is old by then."""
    drama = Drama()
    first, _, holder = drama.order
    drama.write(first)
    acceptor = drama.replica(holder).acceptor
    before = acceptor.lease_until
    drama.until(lambda: acceptor.lease_until > before, "renew the lease")
    drama.part(holder)
    process = drama.nodes[first].process
    if process is None:
        raise Stuck(f"{first} is down")
    number = process.change("remove", holder)
    drama.run_while(lambda: number not in process.changes, 100_000, 1_000)
    outcome = drama.begin(first)
    drama.run_while(lambda: not outcome, 50_000, 1_000)
    drama.read(holder, wait=5_000)
    drama.join()
    drama.run_for(2_000_000)


@scripted("unsafe-changes-made")
def unsafe_changes() -> None:
    """Two of three voters answer, and one of these is to be removed: the other one and the silent one cannot go on."""
    drama = Drama()
    first, second, silent = drama.order
    drama.write(first)
    drama.part(silent)
    drama.until(lambda: silent not in drama.replica(first).view, "drop it from the view")
    _refused(drama.change("remove", second), RefusalCode.NO_MAJORITY)
    drama.write(first)


@scripted("promoted-while-behind")
def promoted_while_behind() -> None:
    """A mirror that answers and gets no slots is to be a voter; of four voters it would be the third that answers."""
    drama = Drama(spare=1, join_lag_slots=4)
    first, _, dead = drama.order
    mirror = drama.names[-1]
    drama.write(first)
    drama.nodes[mirror].start()
    drama.until(lambda: drama.change("add", mirror) is None, "add the mirror")
    drama.until(lambda: drama.replica(mirror).committed == drama.replica(first).committed, "let it catch up")
    drama.dropped |= {("Slots", name, mirror) for name in drama.order}
    for _ in range(10):
        drama.write(first)
    drama.crash(dead)
    drama.until(lambda: dead not in drama.replica(first).view, "drop the dead voter from the view")
    _refused(drama.change("promote", mirror), RefusalCode.BEHIND)
    drama.write(first)


@scripted("empty-disk-votes")
def empty_disk_votes() -> None:
    """A member that was wiped has fetched a configuration and no more; who was left out stands, and needs one vote."""
    drama = Drama(spare=1, page_bytes=1)
    first, wiped, behind = drama.order
    drama.write(first)
    drama.until(lambda: drama.change("add", drama.names[-1]) is None, "log a configuration")
    drama.until(lambda: drama.replica(behind).committed == drama.replica(first).committed, "tell all of it")
    drama.dropped |= {("*", first, behind), ("*", behind, first)}
    drama.until(lambda: behind not in drama.replica(first).view, "drop it from the view")
    drama.write(first)
    drama.crash(wiped)
    drama.nodes[wiped].wipe()
    drama.restart(wiped)
    drama.until(lambda: drama.replica(wiped).state.configuration is not None, "fetch the configuration")
    drama.crash(first)
    drama.join()
    drama.begin(behind)
    drama.run_for(3_000_000)
    drama.restart(first)
    drama.write(first)


def _refused(refusal: Refusal | None, code: RefusalCode) -> None:
    """See that what is refused is refused for this reason: otherwise the script is about something else."""
    if refusal is not None and refusal.code is not code:
        raise Stuck(f"the change is refused, but because {refusal.sentence}")
