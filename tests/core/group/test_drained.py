"""A drained member: no lease, no office that another can have, and still a voter (V3)."""

from replicad.core.group.election import DRAINED_LEASES
from replicad.core.model import messages as m
from replicad.core.model.operations import ACTIVE
from tests.core.group.rigs import HEARTBEAT, LEASE, LIMITS, TICK, Rig, epoch_of, operation
from tests.core.group.test_lease_return import BOOT, give_back, holder, returned


def drain(rig, *, drained=True):
    """Drain the replica's node, or end that; returns what was sent because of it."""
    before = len(rig.sent)
    rig.take(rig.replica.set_drained(drained, rig.now))
    return rig.sent[before:]


def coordinator(**fields):
    """n1 in office with both others in the view."""
    rig = Rig(**fields)
    rig.elect()
    rig.serve(3 * HEARTBEAT, boot=BOOT)
    assert rig.replica.view == ("n1", "n2", "n3")
    return rig


def test_a_drained_holder_gives_its_lease_back_and_asks_for_none():
    """It says that it would take no office; it goes on answering heartbeats; it is done once that is confirmed."""
    rig = holder()
    ((to, message),) = drain(rig)
    assert (to, message) == ("n2", m.LeaseReturn(epoch_of("n2"), 7, rig.now, False))
    assert not rig.replica.holds_lease(rig.now)
    assert not rig.replica.may_end
    rig.step("n2", returned(message.request))
    assert rig.replica.may_end
    rig.wait(TICK)
    rig.take_sent()
    rig.follow(sequence=5)
    ((_, answer),) = rig.take_sent(m.HeartbeatAck)
    assert answer.lease_request == 0
    drain(rig, drained=False)
    rig.follow(sequence=6)
    ((_, answer),) = rig.take_sent(m.HeartbeatAck)
    assert answer.lease_request == rig.now


def test_it_tells_each_new_coordinator():
    """What one has confirmed another does not know."""
    rig = holder()
    ((_, message),) = drain(rig)
    rig.step("n2", returned(message.request))
    rig.take_sent()
    rig.follow("n3", epoch=epoch_of("n3", 2))
    rig.wait(HEARTBEAT // 2)
    ((to, again),) = rig.take_sent(m.LeaseReturn)
    assert (to, again.epoch, again.willing) == ("n3", epoch_of("n3", 2), False)


def test_it_stands_after_all_others():
    """Not at its usual time, nor at once when it is named as the successor; but at last, as nobody else may be left."""
    for release in (False, True):
        rig = holder()
        drain(rig)
        if release:
            rig.step("n2", m.Release(epoch_of("n2"), "n1"))
        rig.take_sent()
        rig.wait(DRAINED_LEASES * LEASE)
        assert not rig.take_sent(m.PreVote)
        rig.until(m.PreVote)


def test_its_office_goes_to_whom_would_take_it():
    """It calls the leases in, and names a member that is not drained as well."""
    rig = coordinator()
    rig.serve(LEASE, boot=BOOT)
    epoch = rig.replica.epoch
    peers = rig.replica.office.authority.peers
    give_back(rig, "n3", peers["n3"].request_granted, willing=False)
    sent = drain(rig)
    assert [(to, type(message)) for to, message in sent] == [("n2", m.LeaseRecall)]
    assert rig.replica.office.successor == "n2"
    sent = give_back(rig, "n2", peers["n2"].request_granted)
    assert ("n2", m.Release(epoch, "n2")) in sent
    assert rig.replica.office is None


def test_the_heir_stays_the_same_while_leases_come_back():
    """It leaves the view as its own comes back, and is the one that is released to all the same."""
    rig = coordinator()
    rig.serve(LEASE, boot=BOOT)
    epoch = rig.replica.epoch
    drain(rig)
    assert rig.replica.office.successor == "n3"
    give_back(rig, "n3", rig.now)
    rig.wait(TICK)
    assert rig.replica.view == ("n1", "n2")
    give_back(rig, "n2", rig.now)
    assert {message for _, message in rig.take_sent(m.Release)} == {m.Release(epoch, "n3")}


def test_nothing_new_is_assigned_while_leases_come_back():
    """Otherwise the last slots would be open when the office ends, and their clients would wait for the next one."""
    rig = coordinator()
    rig.serve(LEASE, boot=BOOT)
    drain(rig)
    rig.submit(operation(1))
    rig.wait(TICK)
    assert rig.highest == 0


def test_it_stays_in_office_while_nobody_else_can():
    """Both others are drained, too: writes and grants go on, and the first that comes back gets the office."""
    rig = coordinator()
    rig.serve(LEASE, boot=BOOT)
    peers = rig.replica.office.authority.peers
    for name in ("n2", "n3"):
        give_back(rig, name, peers[name].request_granted, willing=False)
    drain(rig)
    rig.serve(3 * LEASE, boot=BOOT, lease_request=0)
    assert rig.replica.office is not None
    assert rig.replica.holds_lease(rig.now)
    rig.submit(operation(1))
    assert rig.highest == 1
    rig.accept_all()
    rig.until(m.Heartbeat)
    rig.acknowledge("n3", boot=BOOT, lease_request=0)
    rig.acknowledge("n2", boot=BOOT, lease_request=rig.now)
    rig.wait(TICK)
    rig.wait(TICK)
    assert rig.replica.office is None
    assert rig.of(m.Release)[-1].successor == "n2"


def test_an_office_is_not_moved_to_it():
    """The refusal says what to do."""
    rig = coordinator()
    rig.serve(LEASE, boot=BOOT)
    give_back(rig, "n3", rig.replica.office.authority.peers["n3"].request_granted, willing=False)
    number, effects = rig.replica.request_change("move", "n3", rig.now)
    rig.take(effects)
    ((answered, refusal),) = rig.changes
    assert answered == number
    assert refusal.sentence == "n3 takes no office: it is drained (replicad node undrain n3), or about to stop"


def test_it_takes_no_operations_of_the_sequencers_clients():
    """Those that were on their way go back, to be proposed by others."""
    rig = Rig(limits=LIMITS, protocol=ACTIVE)
    rig.follow()
    drain(rig)
    request_id, encoded = operation(1)
    sent = rig.step("n2", m.Forward(2, (encoded,)))
    assert sent == [("n2", m.ForwardRefused(True, (request_id,)))]
