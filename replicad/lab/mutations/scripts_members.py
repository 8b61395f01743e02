"""Scripts about changes of the members: each comes to the one moment at which its rule matters."""

from __future__ import annotations

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
