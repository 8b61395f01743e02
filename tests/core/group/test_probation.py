"""Who was too slow must keep up before it is relied on again."""

from replicad.core.group.probation import DOUBLINGS_MAX, FIRST_STALLS, FORGOTTEN_STALLS, Probation
from replicad.core.model import messages as m
from tests.core.group.rigs import HEARTBEAT, LIMITS, Rig, names, operation

STALL = LIMITS.stall_after_us
FIRST = FIRST_STALLS * STALL


def test_it_is_doubled_each_time_bounded_and_forgotten():
    """A failure while it lasts begins it anew; one after it doubles it; after long good times it is short again."""
    probation = Probation(STALL)
    now = 10**9
    assert probation.over(now)
    probation.fail(now)
    assert not probation.over(now + FIRST - 1)
    probation.fail(now + FIRST - 1)
    assert probation.length() == FIRST
    now += 2 * FIRST - 1
    lengths = []
    for _ in range(DOUBLINGS_MAX + 2):
        assert probation.over(now)
        probation.fail(now)
        lengths.append(probation.length() // FIRST)
        now += probation.length()
    assert lengths == [2, 4, 8, 16, 32, 64, 64, 64]
    probation.fail(now + FORGOTTEN_STALLS * STALL + 1)
    assert probation.length() == FIRST


def test_who_keeps_up_comes_back_and_who_does_not_begins_anew():
    """A slot that was assigned a while ago must be there."""
    probation = Probation(STALL)
    probation.fail(1)
    probation.watch(1, 0, 5, STALL)
    probation.watch(1 + STALL // 2, 5, 9, STALL)
    assert probation.until == 1 + FIRST
    probation.watch(2 + STALL, 8, 12, STALL)
    assert probation.until == 2 + STALL + FIRST


def test_a_member_dropped_for_slowness_stays_out_until_it_has_kept_up():
    """Although it answers, has caught up, and asks for a lease."""
    rig = Rig()
    rig.elect()
    rig.acknowledge()
    rig.serve(2 * HEARTBEAT)
    assert sorted(rig.replica.view) == sorted(names(3))
    rig.submit(operation(1))
    rig.step("n2", m.Accepted(rig.replica.epoch, 1, False))
    for _ in range(20):
        if "n3" in rig.replica.view:
            rig.serve(HEARTBEAT, "n2", matched=1)
            rig.acknowledge("n3", matched=0)
    assert "n3" not in rig.replica.view
    assert any(name == "slow_member" for name, _ in rig.events)
    rig.serve(FIRST - 2 * HEARTBEAT, matched=1)
    assert "n3" not in rig.replica.view
    rig.serve(4 * HEARTBEAT, matched=1)
    assert "n3" in rig.replica.view
