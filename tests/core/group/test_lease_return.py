"""Leases that end before they have run out, because they are given back."""

from replicad.core.group.lease_return import OLDER_HEARTBEATS
from replicad.core.model import messages as m
from tests.core.group.rigs import HEARTBEAT, LEASE, TICK, Rig, ack, epoch_of, names, operation

BOOT = 9


def holder():
    """A follower of n2 that may read, and whose coordinator speaks of returns."""
    rig = Rig()
    rig.replica.on_peer("n2", 2)
    rig.follow()
    rig.wait(TICK)
    rig.take_sent()
    rig.follow(sequence=2)
    request = next(message for _, message in rig.take_sent(m.HeartbeatAck)).lease_request
    rig.follow(sequence=3, grant_boot=7, grant_request=request, grant_us=LEASE)
    assert rig.replica.holds_lease(rig.now)
    rig.take_sent()
    return rig


def leave(rig):
    """SIGTERM; returns what was sent because of it."""
    before = len(rig.sent)
    rig.take(rig.replica.hand_over(rig.now))
    return rig.sent[before:]


def returned(request, boot=7, assigned=0):
    return m.LeaseReturned(epoch_of("n2"), boot, request, assigned)


def test_a_leaving_holder_reads_no_more_and_says_so_until_it_is_confirmed():
    """The return leaves with the lease gone; it is repeated; the process may end once it is confirmed."""
    rig = holder()
    ((to, message),) = leave(rig)
    assert (to, message) == ("n2", m.LeaseReturn(epoch_of("n2"), 7, rig.now, False))
    assert rig.replica.acceptor.read_slot() is None
    assert not rig.replica.may_end
    assert any(isinstance(sent, m.LeaseReturn) for _, sent in rig.wait(HEARTBEAT))
    rig.step("n2", returned(message.request - 1))
    rig.step("n2", returned(message.request, boot=8))
    rig.step("n3", returned(message.request))
    assert not rig.replica.may_end
    rig.step("n2", returned(message.request))
    assert rig.replica.may_end
    assert not [sent for sent in rig.wait(HEARTBEAT) if isinstance(sent[1], m.LeaseReturn)]


def test_a_leaving_holder_waits_for_slots_whose_tickets_may_name_it():
    """It ends only when they are committed: until then it accepts."""
    rig = holder()
    ((_, message),) = leave(rig)
    rig.step("n2", returned(message.request, assigned=1))
    assert not rig.replica.may_end
    rig.wait(LEASE)
    assert rig.replica.may_end


def test_a_grant_for_an_earlier_request_is_refused_after_the_return():
    """It was on its way when the lease was given back."""
    rig = holder()
    asked = rig.now
    leave(rig)
    rig.replica.state.leaving = False
    rig.follow(sequence=4, grant_boot=7, grant_request=asked, grant_us=LEASE)
    assert not rig.replica.holds_lease(rig.now)


def test_an_older_coordinator_learns_from_the_answer_to_a_heartbeat():
    """It knows no returns; two heartbeats later it has dropped the member."""
    rig = holder()
    rig.replica.on_peer("n2", 1)
    leave(rig)
    assert not rig.replica.may_end
    rig.wait(OLDER_HEARTBEATS * HEARTBEAT)
    assert rig.replica.may_end


def test_a_recall_ends_the_lease_it_speaks_of_and_no_newer_one():
    """One that was long on its way means a lease that is over."""
    rig = holder()
    request = rig.replica.acceptor.lease_request
    assert rig.step("n2", m.LeaseRecall(epoch_of("n2"), request - 1)) == []
    assert rig.step("n3", m.LeaseRecall(epoch_of("n2"), request)) == []
    assert rig.replica.holds_lease(rig.now)
    ((to, message),) = rig.step("n2", m.LeaseRecall(epoch_of("n2"), request))
    assert (to, message) == ("n2", m.LeaseReturn(epoch_of("n2"), 7, rig.now, True))
    assert not rig.replica.holds_lease(rig.now)


def coordinator(count=3):
    """A coordinator with everybody in its view, each with a grant."""
    rig = Rig(count=count)
    rig.elect()
    rig.acknowledge(boot=BOOT)
    rig.serve(2 * HEARTBEAT, boot=BOOT)
    assert sorted(rig.replica.view) == sorted(names(count))
    assert all(peer.granted_until > rig.now for peer in rig.replica.office.authority.peers.values())
    rig.take_sent()
    return rig


def give_back(rig, name, request, *, boot=BOOT, willing=True):
    return rig.step(name, m.LeaseReturn(rig.replica.epoch, boot, request, willing))


def granted(rig, name):
    return rig.replica.office.authority.peers[name].request_granted


def test_a_member_that_returns_its_lease_leaves_the_view_at_once():
    """And is told so, with the last slot that a ticket may wait for."""
    rig = coordinator()
    request = rig.replica.office.authority.peers["n2"].lease_request
    sent = give_back(rig, "n2", request, willing=False)
    assert ("n2", m.LeaseReturned(rig.replica.epoch, BOOT, request, 0)) in sent
    assert rig.replica.view == ("n1", "n3")


def test_a_return_ends_no_lease_that_was_asked_for_after_it():
    """Nor another process's: a late or doubled return changes nothing and is not confirmed."""
    rig = coordinator()
    request = granted(rig, "n2")
    assert give_back(rig, "n2", request - 1) == []
    assert give_back(rig, "n2", request + 10**9, boot=BOOT + 1) == []
    assert rig.replica.office.authority.peers["n2"].granted_until > rig.now
    assert "n2" in rig.replica.view


def test_an_answer_from_before_the_return_asks_for_nothing():
    """Its request was given up with the return, which overtook it."""
    rig = coordinator()
    request = granted(rig, "n2")
    beat = rig.until(m.Heartbeat)
    give_back(rig, "n2", request + 5)
    rig.step("n2", ack(beat, boot=BOOT, lease_request=request + 5))
    rig.serve(TICK, "n3", boot=BOOT)
    assert rig.replica.office.authority.peers["n2"].lease_request == 0
    assert "n2" not in rig.replica.view
    rig.acknowledge("n3", boot=BOOT)
    rig.until(m.Heartbeat)
    rig.acknowledge("n2", boot=BOOT, lease_request=request + 6)
    rig.wait(TICK)
    assert "n2" in rig.replica.view


def test_a_return_of_what_was_never_asked_for_bars_nobody_for_longer_than_a_round():
    """A number beyond all clocks, of a broken or lying member, speaks of what it asked for up to now, and no more."""
    rig = coordinator()
    give_back(rig, "n2", 1 << 62)
    assert "n2" not in rig.replica.view
    before = granted(rig, "n2")
    rig.serve(3 * HEARTBEAT, boot=BOOT)
    assert granted(rig, "n2") > before
    assert "n2" in rig.replica.view
    give_back(rig, "n2", granted(rig, "n2"), willing=False)
    assert not rig.replica.office.authority.peers["n2"].willing


def test_a_leaving_coordinator_releases_as_soon_as_all_leases_are_back():
    """It asks for them, and waits neither for a tick nor for their end; the successor is one that is willing."""
    rig = coordinator()
    epoch = rig.replica.epoch
    sent = leave(rig)
    assert {(to, type(message)) for to, message in sent} == {("n2", m.LeaseRecall), ("n3", m.LeaseRecall)}
    give_back(rig, "n3", granted(rig, "n3"), willing=False)
    assert not rig.replica.may_end
    sent = give_back(rig, "n2", granted(rig, "n2"))
    assert ("n3", m.Release(epoch, "n2")) in sent
    assert rig.replica.may_end


def test_a_lease_that_does_not_come_back_is_waited_out():
    """Its holder is down: nobody is released before it has run out."""
    rig = coordinator()
    ends = rig.replica.office.authority.peers["n3"].granted_until
    leave(rig)
    give_back(rig, "n2", granted(rig, "n2"))
    rig.wait(ends - rig.now - 1)
    assert not rig.take_sent(m.Release)
    rig.wait(TICK)
    assert rig.take_sent(m.Release)


def test_a_leaving_coordinator_sees_its_open_slots_through():
    """All leases are back, and a slot is on its way: whoever comes next would have to find it, and clients to wait."""
    rig = coordinator()
    rig.submit(operation(1))
    assert rig.replica.office.open
    leave(rig)
    for name in ("n2", "n3"):
        give_back(rig, name, granted(rig, name))
    assert not rig.of(m.Release)
    assert rig.replica.role == "coordinator"
    rig.accept_all()
    assert rig.of(m.Release)
    assert rig.replica.committed == 1


def test_a_leaving_coordinator_waits_for_an_open_slot_no_longer_than_a_lease_length():
    """Nobody accepts it; the next coordinator finds it, or it was never chosen."""
    rig = coordinator()
    rig.submit(operation(1))
    leave(rig)
    for name in ("n2", "n3"):
        give_back(rig, name, granted(rig, name))
    rig.serve(LEASE - TICK, boot=BOOT, matched=0, lease_request=0)
    assert not rig.of(m.Release)
    rig.serve(2 * TICK, boot=BOOT, matched=0, lease_request=0)
    assert rig.of(m.Release)


def test_an_answer_from_before_the_return_is_barred_also_after_a_later_answer_to_an_older_round():
    """Heartbeats came the other way round: the newer one was answered before the return, the older one after it."""
    rig = coordinator()
    older = rig.until(m.Heartbeat)
    newer = rig.until(m.Heartbeat)
    request = granted(rig, "n2")
    give_back(rig, "n2", request + 5)
    peer = rig.replica.office.authority.peers["n2"]
    rig.step("n2", ack(older, boot=BOOT, lease_request=request + 6))
    assert peer.lease_request == request + 6
    rig.step("n2", ack(newer, boot=BOOT, lease_request=request + 4))
    assert peer.lease_request == 0
