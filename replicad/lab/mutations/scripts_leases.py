"""Scripts about leases, views, reads and disks: each comes to the one moment at which its rule matters."""

from __future__ import annotations

from replicad.lab.checks import Stuck, Violation
from replicad.lab.mutations.drama import Drama
from replicad.lab.mutations.registry import scripted

# --- L2, L3, L4 -------------------------------------------------------------------------------------------------------


def _leave_out(drama: Drama, name: str) -> None:
    """Cut a node from the coordinator and wait until the view goes on without it."""
    first = drama.order[0]
    drama.dropped |= {("*", first, name), ("*", name, first)}
    drama.until(lambda: name not in drama.replica(first).view, "drop it from the view")


def _renewed(drama: Drama, holder: str) -> None:
    """Wait until the holder has just got a grant."""
    acceptor = drama.replica(holder).acceptor
    before = acceptor.lease_until
    drama.until(lambda: acceptor.lease_until > before, "renew the lease")


@scripted("authority-from-receipt")
def authority_from_receipt() -> None:
    """An acknowledgement is long on its way, and says nothing of now."""
    drama = Drama()
    first, voter, third = drama.order
    drama.write(first)
    _leave_out(drama, third)
    drama.holding |= {("HeartbeatAck", voter, first)}
    drama.until(lambda: bool(drama.held), "acknowledge a heartbeat")
    drama.dropped |= {("*", first, voter), ("*", voter, first), ("PreVote", voter, "*")}
    drama.run_for(230_000)
    drama.release()
    drama.until(lambda: drama.loyal_for(voter) <= 0, "let time pass")
    drama.eager(third)
    drama.until(lambda: drama.leads(third), "elect the third", 100_000)
    drama.write(third)
    drama.read(first)
    drama.end()


@scripted("lease-from-receipt")
def lease_from_receipt() -> None:
    """A grant is long on its way; when it arrives the lease is over."""
    drama = Drama()
    first, holder, _ = drama.order
    drama.write(first)
    _renewed(drama, holder)
    drama.holding |= {("Heartbeat", first, holder)}
    drama.until(lambda: bool(drama.held), "grant")
    drama.run_for(1_000)
    _leave_out(drama, holder)
    drama.write(first)
    drama.release(1)
    drama.run_for(1_000)
    drama.read(holder)
    drama.held.clear()
    drama.end()


@scripted("grant-beyond-authority")
def grant_beyond_authority() -> None:
    """A coordinator whose majority fell silent goes on granting to the one holder that it hears."""
    drama = Drama(5)
    first, holder, third, fourth, fifth = drama.order
    drama.write(first)
    drama.part(first, holder)
    drama.dropped |= {("PreVote", fourth, "*"), ("PreVote", fifth, "*")}
    drama.until(lambda: drama.loyal_for(third) <= 0 and drama.loyal_for(fourth) <= 0, "let time pass")
    drama.eager(third)
    drama.until(lambda: drama.leads(third), "elect another", 200_000)
    drama.write(third)
    drama.read(holder)
    drama.end()


@scripted("grant-of-another-boot")
def grant_of_another_boot() -> None:
    """A grant to a process reaches the next one, whose machine's clock began anew."""
    drama = Drama(ahead=1_000_000_000)
    first, holder, _ = drama.order
    drama.write(first)
    _renewed(drama, holder)
    drama.holding |= {("Heartbeat", first, holder)}
    drama.until(lambda: bool(drama.held), "grant")
    drama.crash(holder, power=True)
    node = drama.nodes[holder]
    node.clock.restart(drama.queue.now, 1_000)
    drama.restart(holder)
    drama.release(1)
    drama.run_for(1_000)
    drama.held.clear()
    drama.run_for(20_000)
    _leave_out(drama, holder)
    drama.write(first)
    drama.read(holder)
    drama.end()


@scripted("rates-ignored")
def rates_ignored() -> None:
    """The coordinator's clock is as fast, and the holder's as slow, as the bound allows."""
    drama = Drama(lease_us=1_000_000, rate_bound_ppm=190_000)
    first, holder, _ = drama.order
    drama.rate(first, 90_000)
    drama.rate(holder, -90_000)
    drama.run_for(1_500_000)
    drama.write(first)
    _renewed(drama, holder)
    _leave_out(drama, holder)
    drama.write(first)
    drama.read(holder)
    drama.end()


@scripted("old-clock-sample")
def old_clock_sample() -> None:
    """A holder's process is stopped beyond its lease; on waking up it finds a read that came long after."""
    drama = Drama()
    first, holder, _ = drama.order
    drama.write(first)
    _renewed(drama, holder)
    drama.pause(holder)
    _leave_out(drama, holder)
    drama.write(first)
    acknowledged, seen = drama.acknowledged, drama.ask(holder)
    drama.resume(holder)
    drama.run_for(1_000)
    if seen and seen[0] < acknowledged:
        raise Violation("linearizable", f"{holder} reads {seen[0]} after {acknowledged} was acknowledged")
    drama.end()


# --- V1, V2 -----------------------------------------------------------------------------------------------------------


@scripted("joiner-granted-early")
def joiner_granted_early() -> None:
    """A member comes back a few slots behind, and does not get them yet."""
    drama = Drama()
    first, joiner, _ = drama.order
    drama.write(first)
    _leave_out(drama, joiner)
    for _ in range(3):
        drama.write(first)
    drama.join(first, joiner)
    drama.dropped |= {("Slots", first, joiner), ("Accept", first, joiner)}
    for _ in range(30):
        drama.run_for(10_000)
        drama.read(joiner, wait=1_000)
    drama.end()


@scripted("joiner-not-waited-for")
def joiner_not_waited_for() -> None:
    """A member that has just got its lease back does not hear of the next slot."""
    drama = Drama()
    first, joiner, _ = drama.order
    drama.write(first)
    _leave_out(drama, joiner)
    drama.write(first)
    drama.join(first, joiner)
    drama.until(lambda: drama.replica(joiner).holds_lease(drama.queue.now), "have a lease again")
    drama.dropped |= {("*", first, joiner), ("*", joiner, first)}
    drama.begin(first)
    for _ in range(60):
        drama.run_for(5_000)
        drama.read(joiner, wait=1_000)
    drama.end()


@scripted("stuck-disk-keeps-lease")
def stuck_disk() -> None:
    """A holder's disk hangs; writes go on without it."""
    drama = Drama()
    first, stuck, _ = drama.order
    drama.hang(stuck, 5_000_000)
    drama.begin(first)
    drama.write(first)
    drama.end()


@scripted("silent-holder-stays")
def silent_holder() -> None:
    """A holder dies; writes go on without it."""
    drama = Drama()
    first, silent, _ = drama.order
    drama.crash(silent)
    drama.write(first)
    drama.end()


# --- R1 ---------------------------------------------------------------------------------------------------------------


@scripted("read-waits-for-dead-epoch")
def read_waits_for_dead_epoch() -> None:
    """A follower holds slots that its dead coordinator alone had sent, and nobody proposes them again."""
    drama = Drama()
    first, second, third = drama.order
    drama.write(first)
    before = drama.node(first).disk.segments()
    drama.hang(first, 5_000_000)
    drama.dropped |= {("*", first, second), ("*", second, first), ("Accepted", third, first)}
    for _ in range(3):
        drama.begin(first)
    drama.run_for(10_000)
    drama.crash(first, power=True)
    drama.roll_back(first, before)
    drama.join()
    drama.part(third)
    drama.restart(first)
    drama.dropped |= {("PreVote", first, "*")}
    drama.until(lambda: drama.leads(second), "elect the second")
    drama.join()
    drama.until(lambda: drama.replica(third).holds_lease(drama.queue.now), "give the third a lease")
    if not drama.read(third, wait=600_000):
        raise Stuck(f"{third} holds a lease, and a read there gets no answer", rule="read")
    drama.end()


# --- disks ------------------------------------------------------------------------------------------------------------


@scripted("rolled-back-disk-stays")
def rolled_back_disk() -> None:
    """A machine comes back with the disk that it had earlier; what it acknowledged since then is gone."""
    drama = Drama()
    first, back, third = drama.order
    drama.write(first)
    before = drama.node(back).disk.segments()
    _leave_out(drama, third)
    drama.write(first)
    drama.crash(back, power=True)
    drama.roll_back(back, before)
    drama.dropped |= {("Slots", first, back)}
    drama.restart(back)
    drama.run_for(100_000)
    drama.crash(first)
    drama.join()
    drama.run_for(2_000_000)
    if drama.leads(back) or drama.leads(third):
        drama.write(third)
    drama.end()


@scripted("two-empty-nodes-form")
def two_empty_nodes() -> None:
    """Two of three are wiped while the third is away: the group refuses to invent a past."""
    drama = Drama()
    drama.write("n1")
    for name in drama.names:
        drama.crash(name)
    for name in ("n1", "n2"):
        drama.nodes[name].wipe()
        drama.restart(name)
    drama.run_for(2_000_000)
    drama.begin("n1")
    drama.run_for(1_000_000)


@scripted("send-before-durable")
def send_before_durable() -> None:
    """What a follower accepted is acknowledged, then lost in a power cut."""
    drama = Drama()
    first, voter, third = drama.order
    drama.write(first)
    _leave_out(drama, third)
    before = drama.node(voter).disk.segments()
    drama.hang(voter, 200_000)
    drama.begin(first)
    drama.run_for(20_000)
    drama.crash(first)
    drama.crash(voter, power=True)
    drama.roll_back(voter, before)
    drama.join()
    drama.restart(voter)
    drama.write(third)
    drama.end()


@scripted("durable-limit-ignored")
def durable_limit_ignored() -> None:
    """What a coordinator wrote is acknowledged, then lost in a power cut, while the other one that has it is away."""
    drama = Drama()
    first, voter, third = drama.order
    drama.write(first)
    _leave_out(drama, third)
    before = drama.node(first).disk.segments()
    drama.hang(first, 200_000)
    drama.begin(first)
    drama.run_for(20_000)
    drama.crash(voter)
    drama.crash(first, power=True)
    drama.roll_back(first, before)
    drama.join()
    drama.restart(first)
    drama.write(third)
    drama.end()


@scripted("checkpoint-of-one")
def checkpoint_of_one() -> None:
    """A coordinator whose state diverged takes a checkpoint; nobody must take it over."""
    drama = Drama()
    first = drama.order[0]
    drama.judge.differs = lambda name: drama.nodes[name].diverged
    drama.write(first)
    drama.node(first).diverge()
    process = drama.node(first).process
    if process is not None:
        process.step(process.replica.request_checkpoint)
    drama.run_for(2_000_000)
    others = [name for name in drama.order[1:] if drama.replica(name).state.rebuilding]
    for name in drama.order[1:]:
        drama.until(lambda name=name: drama.replica(name).state.rebuilding is False, f"rebuild {name}")  # type: ignore[misc]
        drama.judge.digest(name, drama.replica(name).applied, drama.replica(name).state.digest)
    if others:
        raise Violation("equal digests", f"{', '.join(others)} give up a state that was right")
