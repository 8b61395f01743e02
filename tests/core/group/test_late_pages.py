"""Pages of committed slots that reach a replica when it is in office by now."""

import pytest

from replicad.core.model import messages as m
from replicad.core.model.operations import CONFIGURATION, encode_batch
from tests.core.group.rigs import TICK, Rig, ack, configuration_of, disk_of, durable_state, epoch_of, operation

OLD = epoch_of("n2", 1)


def in_office(configuration):
    """A coordinator that found the entry open, and hears from a late page that it is committed."""
    entry = encode_batch(CONFIGURATION, configuration.encode())
    rig = Rig(durable=durable_state(entries=[(1, OLD, entry)]))
    rig.elect()
    assert rig.replica.committed == 0
    rig.step("n2", m.Slots(1, 1, ((1, OLD, 0, entry),)))
    assert rig.replica.state.configuration == configuration
    return rig


def test_a_voter_that_a_late_page_admits_is_a_peer():
    """Its coordinator once died of its first word; with two promises of four voters the office ends in order (M2)."""
    rig = in_office(configuration_of().with_voter("n4", disk_of("n4"), 1))
    rig.step("n4", m.Accepted(rig.replica.epoch, 1, False))
    rig.step("n4", ack(rig.of(m.Heartbeat)[-1]))
    assert rig.replica.office.authority.peers["n4"].matched == 1
    rig.wait(TICK)
    assert rig.replica.office is None
    assert "no majority of the new configuration" in dict(rig.events)["left_office"]["why"]


@pytest.mark.parametrize("change", ["without", "with_demoted"])
def test_a_voter_that_a_late_page_takes_out_counts_no_more(change):
    """With two voters left both must accept: what the third one accepted is nothing to the majority."""
    rig = in_office(getattr(configuration_of(), change)("n3", 1))
    rig.submit(operation(1))
    rig.step("n3", m.Accepted(rig.replica.epoch, 2, False))
    assert rig.replica.committed == 1
    rig.step("n2", m.Accepted(rig.replica.epoch, 2, False))
    assert rig.replica.committed == 2


def test_a_disk_that_a_late_page_replaces_takes_its_word_along():
    """What the old disk had accepted says nothing of the new one (M4)."""
    rig = in_office(configuration_of().with_disk("n3", "new", 1))
    peer = rig.replica.office.authority.peers["n3"]
    assert (peer.disk, peer.matched) == ("new", 0)


def test_who_lost_its_vote_since_does_not_elect():
    """A pre-vote of a node that has left the configuration is not counted by a candidate that goes on."""
    rig = Rig()
    rig.until(m.PreVote)
    pre_vote = rig.of(m.PreVote)[-1]
    rig.step("n3", m.PreVoteAnswer(pre_vote.epoch, pre_vote.attempt, False, 0))
    entry = encode_batch(CONFIGURATION, configuration_of().without("n3", 1).encode())
    rig.step("n2", m.Slots(1, 1, ((1, OLD, 0, entry),)))
    rig.step("n2", m.PreVoteAnswer(pre_vote.epoch, pre_vote.attempt, False, 0))
    assert rig.replica.role == "follower"
