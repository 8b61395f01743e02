"""Scripts about elections and offices: each comes to the one moment at which its rule matters."""

from __future__ import annotations

from replicad.lab.checks import Stuck
from replicad.lab.contact import Level
from replicad.lab.mutations.drama import Drama
from replicad.lab.mutations.registry import scripted

FAST_AND_SLOW = 49_000
"""Clock rates that are wrong by this much either way are within a bound of 100,000 ppm."""


@scripted("prepare-before-promise")
def prepare_before_promise() -> None:
    """An epoch that a machine lost in a power cut is used once more, for other values."""
    drama = Drama()
    old, again, witness = drama.order
    drama.write(old)
    drama.crash(old)
    before = drama.node(again).disk.segments()
    drama.hang(again, 5_000_000)
    drama.dropped |= {("PreVote", witness, "*")}
    drama.eager(again)
    drama.run_for(340_000)
    drama.begin(again)
    drama.run_for(30_000)
    drama.crash(again, power=True)
    drama.roll_back(again, before)  # nothing of what was being flushed is left
    drama.part(witness)
    drama.restart(old)
    drama.restart(again)
    drama.dropped |= {("PreVote", old, "*")}
    drama.until(lambda: drama.leads(again), "elect the restarted node")
    drama.write(again)
    drama.write(again)
    drama.join()
    drama.run_for(1_000_000)
    drama.end()


def _leave_out_third(drama: Drama) -> None:
    """Let the third node leave the view, with nothing on its way."""
    first, _, third = drama.order
    drama.dropped |= {("*", first, third), ("*", third, first)}
    drama.until(lambda: third not in drama.replica(first).view, "drop it from the view")


def _last_moments() -> tuple[Drama, str, str, str]:
    """Return a cluster in which a slow coordinator's last acknowledged heartbeat is almost a lease length ago."""
    drama = Drama(rate_bound_ppm=100_000, lease_us=1_000_000)
    slow, voter, third = drama.order
    drama.rate(slow, -FAST_AND_SLOW)
    drama.rate(voter, FAST_AND_SLOW)
    drama.write(slow)
    _leave_out_third(drama)
    drama.dropped |= {("PreVote", voter, "*")}
    office = drama.replica(slow).office
    if office is None:
        raise Stuck(f"{slow} left its office too early")
    peer = office.authority.peers[voter]
    before = peer.acked_sequence
    drama.until(lambda: peer.acked_sequence > before, "acknowledge a heartbeat")
    drama.dropped |= {("Heartbeat", slow, voter)}
    drama.until(lambda: drama.loyal_for(voter) < 10_000, "let time pass")
    return drama, slow, voter, third


def _promise_third(drama: Drama, voter: str, third: str) -> None:
    epoch = drama.replica(voter).epoch
    drama.until(lambda: drama.loyal_for(voter) <= 0, "let time pass")
    drama.eager(third)
    drama.until(lambda: drama.replica(voter).state.promised > epoch, "promise the next epoch", 100_000)


@scripted("accept-below-promise")
def accept_below_promise() -> None:
    """With clocks as wrong as they may be, a voter promised the next epoch while the old one goes on."""
    drama, slow, voter, third = _last_moments()
    _promise_third(drama, voter, third)
    drama.begin(slow)
    drama.run_for(5_000)
    drama.begin(third)
    drama.run_for(100_000)
    drama.end()


@scripted("promise-forgotten")
def promise_forgotten() -> None:
    """The same, and the voter restarts between its promise and what the old coordinator sends."""
    drama, slow, voter, third = _last_moments()
    drama.dropped |= {("Heartbeat", third, voter)}
    _promise_third(drama, voter, third)
    drama.run_for(2_000)
    drama.crash(voter)
    drama.restart(voter)
    drama.begin(slow)
    drama.run_for(5_000)
    drama.begin(third)
    drama.run_for(100_000)
    drama.end()


@scripted("promise-omits-unflushed")
def promise_omits_unflushed() -> None:
    """The same, and the voter was still flushing what it accepted when it promised."""
    drama, slow, voter, third = _last_moments()
    drama.hang(voter, 45_000)
    drama.begin(slow)
    _promise_third(drama, voter, third)
    drama.until(lambda: drama.leads(third), "elect the next")
    drama.begin(third)
    drama.run_for(100_000)
    drama.end()


@scripted("confirmed-by-old-round")
def confirmed_by_old_round() -> None:
    """The same, and somebody asks the old coordinator for a read that trusts no clock."""
    drama, slow, voter, third = _last_moments()
    _promise_third(drama, voter, third)
    drama.part(slow)
    drama.until(lambda: drama.leads(third), "elect the next", 50_000)
    drama.write(third)
    drama.read(slow, Level.CONSISTENT)
    drama.end()


@scripted("prefix-not-fetched")
def prefix_not_fetched() -> None:
    """A candidate hears of decided slots only from a voter that has truncated them."""
    drama = Drama(5, retained_slots=1, retained_bytes=1)
    first, truncated, keeps, candidate, fifth = drama.order
    drama.write(first)
    for name in (candidate, fifth):
        drama.dropped |= {("*", first, name), ("*", name, first)}
        drama.until(lambda name=name: name not in drama.replica(first).view, "drop it")  # type: ignore[misc]
    for _ in range(5):
        drama.write(first)
    process = drama.node(first).process
    if process is not None:
        process.step(process.replica.request_checkpoint)
    drama.until(lambda: drama.replica(first).checkpoints.announced[0] > 0, "commit a checkpoint")
    drama.dropped |= {("*", first, keeps), ("*", keeps, first)}
    drama.until(lambda: drama.replica(truncated).state.log.base > 3, "truncate the log")
    drama.crash(first)
    for name in (truncated, keeps, fifth):
        drama.dropped |= {("PreVote", name, "*")}
    drama.dropped |= {("Promise", keeps, candidate), ("Slots", "*", candidate), ("Introduce", "*", candidate)}
    for name in (truncated, keeps, fifth):
        drama.dropped |= {("Introduce", name, "*")}
    drama.eager(candidate)
    drama.run_for(1_500_000)
    if drama.leads(candidate):
        drama.write(candidate)
    drama.end()


@scripted("deaf-coordinator-stays")
def deaf_coordinator() -> None:
    """A coordinator that can send but not hear makes way."""
    drama = Drama()
    deaf, other, third = drama.order
    drama.dropped |= {("*", other, deaf), ("*", third, deaf)}
    drama.write(other)
    drama.end()


@scripted("stalled-coordinator-stays")
def stalled_coordinator() -> None:
    """A coordinator whose disk hangs makes way."""
    drama = Drama()
    stalled, other, _ = drama.order
    drama.hang(stalled, 5_000_000)
    drama.begin(stalled)
    drama.write(other)
    drama.end()


def _promise_in_the_way(drama: Drama) -> None:
    """Let the third node promise itself an epoch that nobody hears of, under a coordinator that was elected anew."""
    first, second, third = drama.order
    drama.part(third)
    drama.dropped |= {("Heartbeat", first, second), ("PreVote", second, "*")}
    drama.dropped -= {("*", second, third), ("*", third, second)}
    drama.dropped |= {("Prepare", third, "*")}
    epoch = drama.replica(first).epoch
    drama.eager(third)
    drama.until(lambda: drama.replica(third).state.promised > epoch, "promise itself an epoch")
    drama.part(third)
    drama.dropped -= {("Heartbeat", first, second), ("PreVote", second, "*")}
    drama.dropped |= {("PreVote", second, "*")}
    drama.until(lambda: drama.leads(first) and second in drama.replica(first).view, "elect it again")
    drama.until(lambda: drama.replica(second).holds_lease(drama.queue.now), "have a lease")
    drama.write(first)


@scripted("rejection-ignored")
def rejection_ignored() -> None:
    """A voter that promised a candidate who failed comes back."""
    drama = Drama()
    _, _, third = drama.order
    _promise_in_the_way(drama)
    drama.dropped |= {("PreVoteAnswer", third, "*"), ("PreVote", third, "*"), ("Introduce", third, "*")}
    drama.join()
    drama.until(lambda: drama.replica(third).holds_lease(drama.queue.now), "take the voter back", rule="rejoin")
    drama.end()


@scripted("grants-not-waited-out")
def grants_not_waited_out() -> None:
    """A coordinator that stands again first lets its grants end: a holder may not hear of the new epoch."""
    drama = Drama()
    first, second, third = drama.order
    _promise_in_the_way(drama)
    drama.part(second)
    drama.dropped -= {("*", first, third), ("*", third, first), ("Prepare", third, "*")}
    drama.begin(first)
    for _ in range(60):
        drama.run_for(5_000)
        drama.read(second, wait=1_000)
    drama.end()


@scripted("loyal-to-the-past")
def loyal_to_the_past() -> None:
    """A coordinator that stands again is promised at once, so that the office is vacant for an instant only."""
    drama = Drama()
    first, _, third = drama.order
    _promise_in_the_way(drama)
    drama.dropped -= {("*", first, third), ("*", third, first)}
    drama.dropped |= {("Promise", third, first), ("HeartbeatAck", third, first)}
    drama.until(lambda: drama.replica(first).role == "candidate", "stand again")
    drama.until(lambda: drama.leads(first), "elect its coordinator again at once", 60_000, rule="election")
    drama.end()


@scripted("own-office-forgotten")
def own_office_forgotten() -> None:
    """A coordinator that left its office promises nobody while a holder reads under its grants."""
    drama = Drama()
    first, holder, third = drama.order
    drama.write(first)
    _leave_out_third(drama)
    drama.until(lambda: drama.replica(holder).acceptor.lease_until > drama.queue.now + 150_000, "renew the lease")
    drama.part(holder)
    drama.node(first).set_full(full=True)
    drama.run_for(15_000)
    drama.node(first).set_full(full=False)
    drama.join(first, third)
    drama.dropped |= {("PreVote", first, "*")}
    drama.eager(third)
    drama.until(lambda: drama.leads(third), "elect the third", 1_000_000)
    drama.write(third)
    drama.read(holder)
    drama.end()


@scripted("loyalty-lost-at-restart")
def loyalty_lost_at_restart() -> None:
    """A voter that restarts right after it acknowledged a heartbeat stays loyal."""
    drama = Drama()
    first, voter, third = drama.order
    drama.write(first)
    _leave_out_third(drama)
    drama.run_for(60_000)
    drama.crash(voter)
    drama.restart(voter)
    drama.dropped |= {("*", first, voter), ("*", voter, first), ("PreVote", voter, "*")}
    drama.eager(third)
    drama.until(lambda: drama.leads(third), "elect the third", 2_000_000)
    drama.write(third)
    drama.read(first)
    drama.end()


@scripted("loyalty-forgotten")
def loyalty_forgotten() -> None:
    """A voter is asked for a promise right after it acknowledged a heartbeat."""
    drama = Drama()
    first, voter, third = drama.order
    drama.write(first)
    _leave_out_third(drama)
    drama.run_for(60_000)
    drama.dropped |= {("*", first, voter), ("*", voter, first), ("PreVote", voter, "*")}
    drama.eager(third)
    drama.until(lambda: drama.leads(third), "elect the third", 2_000_000)
    drama.write(third)
    drama.read(first)
    drama.end()


@scripted("first-page-is-all")
def first_page_is_all() -> None:
    """A voter reports three slots, one to a page."""
    drama = Drama(page_entries=1)
    first, voter, third = drama.order
    drama.write(first)
    _leave_out_third(drama)
    drama.dropped |= {("Committed", first, voter), ("Heartbeat", first, voter), ("PreVote", voter, "*")}
    last = [drama.begin(first) for _ in range(3)][-1]
    drama.until(lambda: bool(last), "commit")
    drama.crash(first)
    drama.eager(third)
    drama.until(lambda: drama.leads(third), "elect the third", 2_000_000)
    drama.write(third)
    drama.end()


@scripted("office-reads-at-once")
def office_reads_at_once() -> None:
    """A new coordinator holds a slot that was committed, and does not know it yet."""
    drama = Drama()
    first, voter, third = drama.order
    drama.write(first)
    _leave_out_third(drama)
    drama.dropped |= {("Committed", first, voter), ("Heartbeat", first, voter), ("PreVote", third, "*")}
    drama.write(first)
    drama.crash(first)
    drama.dropped |= {("Accept", voter, third)}
    drama.eager(voter)
    drama.until(lambda: drama.leads(voter), "elect the voter", 2_000_000)
    drama.run_for(5_000)
    drama.read(voter)
    drama.end()
