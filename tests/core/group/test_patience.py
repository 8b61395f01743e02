"""How slow is too slow is measured: nobody is blamed for what a majority, or the own disk, usually takes (V2)."""

from replicad.core.group.repair import LIVE_DOUBLINGS
from replicad.core.model import messages as m
from replicad.core.model.operations import ACTIVE
from tests.core.group.rigs import HEARTBEAT, LEASE, LIMITS, TICK, Rig, group_state, names, operation

STALL = LIMITS.stall_after_us
USUAL = STALL * 8 // 10
PATIENCE = 2 * USUAL


def coordinator(*, usual=0, **fields):
    """``n1`` in office, everybody in its view, in a group whose majority usually takes so long."""
    rig = Rig(**fields)
    rig.elect()
    rig.acknowledge()
    rig.serve(2 * HEARTBEAT)
    assert sorted(rig.replica.view) == sorted(names(3))
    pace = rig.replica.office.authority.pace
    for _ in range(100 if usual else 0):
        pace.observe(usual)
    if usual:
        assert PATIENCE <= pace.patience() < PATIENCE + TICK
    return rig


def lag(rig, duration):
    """Let time pass while n2 has everything, and n3, which answers, nothing."""
    end = rig.now + duration
    while rig.now < end:
        rig.serve(TICK, "n2")
        rig.accept_all("n2")
        rig.acknowledge("n3", matched=0)


def test_a_member_is_not_dropped_for_what_a_majority_usually_takes():
    """Longer than ``stall_after``, and yet usual; what is unusual here as well costs its place."""
    rig = coordinator(usual=USUAL)
    rig.submit(operation(1))
    office = rig.replica.office
    lag(rig, PATIENCE - HEARTBEAT)
    assert not office.view.unfit(office.authority.peers["n3"], *office.oldest_held())
    lag(rig, office.authority.pace.patience() - PATIENCE + LEASE + 2 * HEARTBEAT)
    assert "n3" not in rig.replica.view


def test_half_of_the_patience_holds_up_nobody():
    """What is counted against a member begins after what is usual, not after half of ``stall_after``."""
    rig = coordinator(usual=USUAL)
    rig.submit(operation(1))
    office = rig.replica.office
    lag(rig, PATIENCE // 2)
    assert office.oldest_held()[0] == 1
    assert office.drag.waited_for(*office.oldest_held()) == []
    lag(rig, (office.authority.pace.patience() - PATIENCE) // 2 + HEARTBEAT)
    assert office.drag.waited_for(*office.oldest_held()) == ["n3"]


def test_a_probation_asks_no_more_than_what_is_usual():
    """A slot of half of the patience ago must be there, not one of half of ``stall_after`` ago."""
    rig = coordinator(usual=USUAL)
    rig.submit(operation(1))
    while "n3" in rig.replica.view:
        lag(rig, HEARTBEAT)
    rig.accept_all()
    until = rig.replica.office.authority.peers["n3"].probation.until
    for number in range(2, 6):
        rig.submit(operation(number))
        rig.accept_all("n2")
        for _ in range(STALL * 6 // 10 // TICK):
            rig.serve(TICK, matched=number - 1)
        rig.accept_all()
    assert rig.replica.office.authority.peers["n3"].probation.until == until


def test_a_repair_may_take_as_long_as_any_slot():
    """Its proposal is left unanswered for longer than ``stall_after``, as slots of this group usually are."""
    rig = coordinator(usual=USUAL, protocol=ACTIVE)
    epoch = rig.replica.epoch
    rig.step("n2", m.TicketRequest(epoch, 9, 1))
    rig.serve((LIMITS.repair_after_us << LIVE_DOUBLINGS) + HEARTBEAT, matched=0)
    rig.step("n2", m.SlotPromise(epoch, 1, 1, 0, b""))
    repairs = rig.replica.office.repairs
    proposed = rig.now
    rig.serve(STALL + HEARTBEAT, matched=0)
    assert repairs.open[1].proposed_at == proposed
    assert not repairs.unanswered_by("n3")
    rig.serve(PATIENCE - STALL, matched=0)
    assert repairs.unanswered_by("n3")


def test_what_a_straggler_holds_up_teaches_no_patience():
    """Only how long a majority takes is learnt; a slot that it has is timed no more, though it is open still."""
    rig = coordinator()
    pace = rig.replica.office.authority.pace
    rig.submit(operation(1))
    rig.accept_all("n2")
    lag(rig, STALL * 9 // 10)
    rig.submit(operation(2))
    rig.accept_all("n2")
    lag(rig, 2 * TICK)
    assert rig.replica.office.oldest_held()[0] == 1
    assert pace.patience() == STALL


def test_the_own_disk_counts_for_the_majority_that_is_timed_once_it_has_flushed():
    """Two of three, and one of them is the coordinator: its memory is no acceptance."""
    rig = coordinator()
    pace = rig.replica.office.authority.pace
    for number in range(1, 6):
        rig.flushing = False
        rig.submit(operation(number))
        for peer in ("n2", "n3"):
            rig.step(peer, m.Accepted(rig.replica.epoch, number - (peer == "n3"), False))
        for _ in range(STALL * 4 // 10 // TICK):
            rig.serve(TICK, matched=number - 1)
        rig.flushing = True
        rig.flush()
        rig.wait(TICK)
        rig.accept_all()
    assert pace.patience() > STALL


def test_a_disk_is_stuck_when_it_takes_longer_than_it_usually_does():
    """What is usual is learnt from the flushes; a hang that is longer than all habits earn costs the lease."""
    state = group_state()

    def flush(duration):
        """One flush that takes so long; returns whether the disk counted as stuck just before its end."""
        state.promise(state.promised + 1)
        state.finish()
        state.now += duration
        stuck = state.stalled()
        state.flushed(state.tickets)
        return stuck

    assert flush(STALL + TICK)
    state = group_state()
    for _ in range(30):
        assert not flush(USUAL)
    assert not flush(STALL + TICK)
    assert flush(2 * STALL + TICK)
