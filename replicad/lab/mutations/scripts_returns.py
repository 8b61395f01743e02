"""Scripts about leases that are given back before they have run out, and about who is too slow for one."""

from __future__ import annotations

from replicad.lab.checks import Stuck
from replicad.lab.mutations.drama import Drama
from replicad.lab.mutations.registry import scripted
from replicad.lab.quiet import SlowDisk, rolling, slow_cluster, slow_member


def _hand_over(drama: Drama, successor: str) -> None:
    """Let the coordinator leave, and see to it that the office goes to this node."""
    first = drama.order[0]
    office = drama.replica(first).office
    if office is None:
        raise Stuck(f"{first} has no office")
    office.successor = successor
    process = drama.nodes[first].process
    if process is not None:
        process.leave()


def _renewed(drama: Drama, holder: str) -> None:
    """Wait until the holder has just got a grant."""
    acceptor = drama.replica(holder).acceptor
    before = acceptor.lease_until
    drama.until(lambda: acceptor.lease_until > before, "renew the lease")


def _deliver_late(drama: Drama, holder: str) -> None:
    """Cut the holder off, deliver the return that was held, and see whether a write then passes the holder by."""
    first = drama.order[0]
    drama.part(holder)
    drama.run_for(60_000)  # the last grant is made, and lost
    drama.release(1)
    drama.held.clear()
    drama.run_for(110_000)
    drama.begin(first)
    drama.run_for(20_000)
    drama.read(holder)
    drama.end()


@scripted("returned-lease-still-read")
def returned_lease_still_read() -> None:
    """A holder gives its lease back to a coordinator that hands over, and is cut off from whoever comes next."""
    drama = Drama()
    first, holder, successor = drama.order
    drama.write(first)
    _renewed(drama, holder)
    drama.dropped |= {("Release", first, holder)}
    _hand_over(drama, successor)
    drama.until(lambda: not drama.leads(first), "hand over")
    drama.part(holder)
    drama.until(lambda: drama.leads(successor), "elect the successor", 100_000)
    drama.write(successor)
    drama.read(holder)
    drama.end()


@scripted("released-before-all-returned")
def released_before_all_returned() -> None:
    """A holder does not hear that its lease is asked back."""
    drama = Drama()
    first, holder, successor = drama.order
    drama.write(first)
    _renewed(drama, holder)
    drama.part(holder)
    _hand_over(drama, successor)
    drama.run_for(50_000)
    if drama.leads(successor):
        drama.write(successor)
    drama.read(holder)
    drama.until(lambda: drama.leads(successor), "elect the successor")
    drama.end()


@scripted("stale-return-ends-lease")
def stale_return_ends_lease() -> None:
    """A return is long on its way; when it arrives its sender has got another lease, and is cut off."""
    drama = Drama()
    first, holder, _ = drama.order
    drama.write(first)
    drama.holding |= {("LeaseReturn", holder, first)}
    drama.node(holder).set_full(full=True)
    drama.until(lambda: bool(drama.held) and holder not in drama.replica(first).view, "give its lease back")
    drama.node(holder).set_full(full=False)
    drama.until(drama.ready, "get its lease again")
    _renewed(drama, holder)
    _deliver_late(drama, holder)


@scripted("return-of-another-boot")
def return_of_another_boot() -> None:
    """A return of a process outlives it; the next one's clock began anew, so that all its requests look older."""
    drama = Drama(ahead=1_000_000_000)
    first, holder, _ = drama.order
    drama.write(first)
    drama.holding |= {("LeaseReturn", holder, first)}
    drama.node(holder).set_full(full=True)
    drama.until(lambda: bool(drama.held), "give its lease back")
    drama.crash(holder, power=True)
    node = drama.node(holder)
    node.set_full(full=False)
    node.clock.restart(drama.queue.now, 1_000)
    drama.restart(holder)
    drama.until(drama.ready, "get a lease again")
    _renewed(drama, holder)
    _deliver_late(drama, holder)


@scripted("leases-waited-out")
def leases_waited_out() -> None:
    """Every node of a cluster under load is stopped in order, one after the other."""
    rolling(2)


@scripted("probation-not-kept")
def probation_not_kept() -> None:
    """A disk that flushes once in a third of a second, and few writers: in between it looks like any other."""
    slow_member(1, SlowDisk(slow_us=300_000, writers=1, pause_us=10_000))


@scripted("patience-fixed")
def patience_fixed() -> None:
    """All disks are equally slow."""
    slow_cluster(1)


@scripted("slow-coordinator-stays")
def slow_coordinator_stays() -> None:
    """The coordinator's disk is slow, but not so slow that it stalls."""
    slow_member(2, SlowDisk(slow_us=150_000, writers=1, pause_us=2_000), coordinator=True)


@scripted("slow-member-stays")
def slow_member_stays() -> None:
    """A follower's disk is slow, but not so slow that it stalls."""
    slow_member(1, SlowDisk(slow_us=150_000, writers=1, pause_us=2_000))
