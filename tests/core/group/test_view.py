from hypothesis import given
from hypothesis import strategies as st

from replicad.core.group.acceptor import Acceptor
from replicad.core.group.office import Office
from replicad.core.model import messages as m
from tests.core.group.rigs import HEARTBEAT, LEASE, LIMITS, TICK, Rig, group_state, names, operation


def office(count):
    state = group_state(count=count)
    state.promise(1)
    slots = Acceptor(state, lambda _why: None, lambda: 0).slots
    return state, Office(state, slots, 1, 0, {})


def naive_committed(own, matched, joined, majority):
    """C1 slot by slot: a majority of all members, and every view member that joined below the slot, accepted it."""
    slot = 0
    while True:
        slot += 1
        accepted = [own >= slot, *(value >= slot for value in matched.values())]
        waited_for = [name for name, joined_at in joined.items() if joined_at < slot]
        if sum(accepted) < majority or own < slot or any(matched[name] < slot for name in waited_for):
            return slot - 1


@given(st.sampled_from([1, 3, 5]), st.data())
def test_a_commit_needs_a_majority_and_the_whole_view(count, data):
    """For any acceptances and any view exactly that is committed which rule C1 says, slot by slot."""
    state, primary = office(count)
    peers = names(count)[1:]
    slots = st.integers(0, 8)
    own = data.draw(slots)
    matched = {name: data.draw(slots) for name in peers}
    joined = {name: data.draw(slots) for name in peers if data.draw(st.booleans())}
    for number in range(own):
        primary.offer(operation(number)[1], "n1", 0, b"")
        primary.drain()
    state.durable_tickets = state.tickets
    state.finish()
    state.unflushed.clear()
    for name, value in matched.items():
        primary.authority.peers[name].matched = value
    primary.view.joined.update(joined)
    primary.advance()
    assert state.log.committed == naive_committed(own, matched, joined, state.majority())


def coordinator(count=3, **fields):
    rig = Rig(count=count, **fields)
    rig.elect()
    rig.acknowledge()
    rig.serve(2 * HEARTBEAT)
    assert sorted(rig.replica.view) == sorted(names(count))
    return rig


def test_the_own_flush_counts_like_any_other():
    """A coordinator whose own disk has not answered does not commit, although all others accepted."""
    rig = coordinator()
    rig.flushing = False
    rig.submit(operation(1))
    rig.accept_all()
    assert rig.replica.committed == 0
    rig.flush()
    assert rig.replica.committed == 1


def test_a_majority_alone_does_not_commit_past_a_lease_holder():
    """A write waits for every member that may still read locally."""
    rig = coordinator()
    rig.submit(operation(1))
    rig.accept_all("n2")
    assert rig.replica.committed == 0
    rig.accept_all("n3")
    assert rig.replica.committed == 1


def test_a_silent_holder_is_dropped_only_after_its_last_grant_ended():
    """Writes go on without a dead member once nothing can be read there any more, not before (V2)."""
    rig = coordinator()
    peer = rig.replica.office.authority.peers["n3"]
    rig.submit(operation(1))
    rig.accept_all("n2")
    while "n3" in rig.replica.view:
        assert rig.replica.committed == 0
        granted_until = peer.granted_until
        assert rig.now < granted_until + TICK
        rig.serve(TICK, "n2")
    assert rig.now >= granted_until > 0
    assert rig.replica.committed == 1


def test_a_view_of_one_commits_nothing():
    """However long the others are silent, the coordinator alone is no majority (C1)."""
    rig = coordinator()
    rig.submit(operation(1))
    rig.wait(LEASE + 5 * HEARTBEAT)
    assert rig.replica.committed == 0


def test_a_holder_that_answers_heartbeats_but_accepts_nothing_is_dropped():
    """A member with a stuck disk does not hold the group up while its heartbeats still flow (V2)."""
    rig = coordinator()
    rig.submit(operation(1))
    rig.accept_all("n2")
    for _ in range(40):
        rig.serve(HEARTBEAT, "n2")
        rig.acknowledge("n3", matched=0)
    assert rig.replica.committed == 1


def test_a_joiner_gets_no_grant_before_it_applied_the_slot_of_its_joining():
    """A member joins at b, the last assigned slot, and reads locally only after applying b (V1)."""
    rig = Rig()
    rig.elect()
    rig.acknowledge("n2")
    rig.serve(2 * HEARTBEAT, "n2")
    assert sorted(rig.replica.view) == ["n1", "n2"]
    rig.submit(operation(1))
    rig.accept_all("n2")
    assert rig.replica.committed == 1
    rig.take_sent()
    rig.until(m.Heartbeat)
    rig.acknowledge("n2")
    rig.acknowledge("n3", matched=1, applied=0)
    rig.until(m.Heartbeat)
    rig.acknowledge("n2")
    rig.acknowledge("n3", matched=1, applied=0)
    assert "n3" in rig.replica.view
    assert [b.grant_us for to, b in rig.take_sent(m.Heartbeat) if to == "n3"] == [0, 0]
    rig.until(m.Heartbeat)
    rig.acknowledge("n2")
    rig.acknowledge("n3", matched=1, applied=1)
    rig.take_sent()
    rig.until(m.Heartbeat)
    [grant] = [beat for to, beat in rig.take_sent(m.Heartbeat) if to == "n3"]
    assert 0 < grant.grant_us <= LIMITS.lease_us
    assert grant.grant_slot == 1


def test_a_member_far_behind_does_not_join():
    """A member that lacks more than `join_lag_slots` would make every write wait; it catches up first."""
    rig = Rig()
    rig.elect()
    rig.acknowledge("n2")
    rig.serve(2 * HEARTBEAT, "n2")
    for number in range(LIMITS.join_lag_slots + 1):
        rig.submit(operation(number))
    rig.accept_all("n2")
    for _ in range(3):
        rig.until(m.Heartbeat)
        rig.acknowledge("n2")
        rig.acknowledge("n3", matched=0, applied=0)
    assert "n3" not in rig.replica.view
    rig.until(m.Heartbeat)
    rig.acknowledge("n2")
    rig.acknowledge("n3", matched=1, applied=1)
    rig.wait(10_000)
    assert "n3" in rig.replica.view
