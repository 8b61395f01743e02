"""A recovered group meets a coordinator of the past that was given up."""

import pytest

from replicad.core.model import messages as m
from tests.core.group.rigs import LEASE, Rig, configuration_of, disk_of, durable_state, epoch_of, heartbeat


def recovered(node="n1"):
    """n1 after a recovery, in office."""
    durable = durable_state()
    durable.formation = configuration_of().recovered(node, disk_of(node), 0).encode()
    rig = Rig(durable=durable)
    rig.wait(10 * LEASE)
    rig.take_sent()
    return rig


def test_a_coordinator_of_the_past_is_told_that_it_is_one():
    """Old disks that had met elsewhere introduce themselves no more; their heartbeat gets the newer configuration."""
    rig = recovered()
    epoch = rig.replica.epoch
    rig.step("n2", heartbeat(epoch_of("n2", 99)))
    [(to, said)] = rig.take_sent(m.Introduce)
    assert (to, said.configuration) == ("n2", rig.replica.state.configuration.encode())
    assert (rig.replica.role, rig.replica.epoch) == ("coordinator", epoch)
    past = Rig("n2")
    past.step("n1", said)
    assert "a past that was given up" in past.forgotten


@pytest.mark.parametrize("message", [m.PreVote(epoch_of("n2", 99), 1, 500), m.Prepare(epoch_of("n2", 99), 1, 1, 0)])
def test_a_candidate_of_the_past_gets_no_promise(message):
    """Its disk has no vote, and none is given to it."""
    rig = recovered()
    promised = rig.replica.state.promised
    rig.step("n2", message)
    assert rig.take_sent(m.PreVoteAnswer) == rig.take_sent(m.Promise) == []
    assert rig.replica.state.promised == promised


def test_a_stranger_in_office_is_told_what_is_known_here():
    """Its heartbeat does not count; one of the two has missed a configuration, and comparing them tells which."""
    rig = Rig()
    rig.take_sent()
    rig.step("n9", heartbeat(epoch_of("n2", 99)))
    rig.step("n9", heartbeat(epoch_of("n2", 99)))
    assert [(to, type(message)) for to, message in rig.take_sent()] == [("n9", m.Introduce)]
