"""Which messages are signs of life, of which disk; and that no lease, authority or loyalty hangs on them."""

import pytest

from replicad.core.detection.detector import PassiveHeartbeat
from replicad.core.detection.patience import Patience, Sign
from replicad.core.model import messages as m
from tests.core.group.rigs import HEARTBEAT, LEASE, TICK, Rig, ack, configuration_of, disk_of, durable_state

INTRODUCTION = m.Introduce(3, 7, "disk-new", "empty", 0, 0, b"")


def coordinator(configuration=None):
    """n1 in office, all voters answering."""
    durable = durable_state()
    if configuration is not None:
        durable.formation = configuration.encode()
    rig = Rig(durable=durable)
    rig.elect()
    rig.acknowledge()
    rig.serve(3 * HEARTBEAT)
    rig.wait(TICK)
    for name in ("n2", "n3", "n9"):
        for sign in Sign:
            rig.replica.state.detectors.forget(name, sign)
    return rig


def answer(rig, epoch=None):
    beat = next(message for _, message in reversed(rig.sent) if isinstance(message, m.Heartbeat))
    plain = ack(beat)
    return plain if epoch is None else m.HeartbeatAck(epoch, *(getattr(plain, name) for name in plain.__slots__[1:]))


def shown(rig, name):
    return {sign for sign in Sign if rig.replica.state.detectors.last_heard(name, sign) == rig.now}


def test_an_answer_of_the_disk_that_votes_is_a_sign():
    """Of this office: what was sent to an earlier one says nothing."""
    rig = coordinator()
    rig.step("n2", answer(rig))
    assert (shown(rig, "n2"), shown(rig, "n3")) == ({Sign.ANSWER}, set())
    rig.step("n3", answer(rig, epoch=1))
    assert shown(rig, "n3") == set()


def test_an_answer_of_another_disk_is_no_sign():
    """Whoever has the name and not the disk does not vote (M4)."""
    rig = coordinator()
    rig.step("n2", answer(rig), disk="disk-new")
    assert shown(rig, "n2") == set()


def test_what_a_node_says_of_itself_is_a_word_and_no_answer():
    """A new disk introduces itself while the old one is silent, and so can be admitted in its place."""
    rig = coordinator()
    rig.step("n2", INTRODUCTION, disk="disk-new")
    assert shown(rig, "n2") == {Sign.WORD}


@pytest.mark.parametrize(("sender", "disk", "signs"), [("n9", "any", {Sign.WORD}), ("n2", "disk-new", {Sign.WORD})])
def test_who_follows_without_a_vote_says_so_by_fetching(sender, disk, signs):
    """A mirror, or a disk that is to be admitted."""
    rig = coordinator(configuration_of().with_mirror("n9", 0))
    rig.step(sender, m.FetchSlots(1), disk=disk)
    assert shown(rig, sender) == signs


@pytest.mark.parametrize(
    ("message", "disk"),
    [
        (m.FetchSlots(1), disk_of("n2")),
        (m.PreVote(9_000_002, 1, 0), disk_of("n2")),
        (m.SlotAccepted(1, 1, 1), disk_of("n2")),
        (m.SlotAccepted(1, 0, 1), "disk-new"),
        (m.Accepted(1, 0, False), "disk-new"),
    ],
)
def test_other_messages_are_no_signs(message, disk):
    """Who cannot hear the coordinator may be heard by it, and must not stay in the view for that."""
    rig = coordinator()
    rig.step("n2", message, disk=disk)
    assert shown(rig, "n2") == set()


def test_an_acceptance_of_a_ticket_holders_proposal_is_a_sign():
    """Whatever the slot: who accepts others is only slow."""
    rig = coordinator()
    rig.step("n2", m.SlotAccepted(rig.replica.epoch, 0, 5))
    assert shown(rig, "n2") == {Sign.ACCEPTANCE}


def test_only_the_source_that_was_chosen_makes_an_offer():
    """Slots of somebody else do not keep a silent source alive."""
    rig = Rig("n9", durable=durable_state(), neighbours=("n1", "n2"))
    rig.step("n1", m.Welcome(1_000_001, 5))
    assert shown(rig, "n1") == {Sign.OFFER}
    rig.wait(TICK)
    rig.step("n2", m.Slots(1, 5, ()))
    assert (shown(rig, "n1"), shown(rig, "n2")) == (set(), set())


def test_a_new_office_begins_without_signs():
    """Nobody has answered its heartbeats yet."""
    rig = coordinator()
    rig.step("n2", answer(rig))
    rig.wait(2 * LEASE)
    assert rig.replica.office is None
    rig.elect()
    assert rig.replica.state.detectors.suspects("n2", rig.now, Patience.INCUMBENT)


@pytest.mark.parametrize("suspected", [True, False])
def test_leases_and_authority_ask_no_detector(monkeypatch, suspected):
    """With a detector that is always wrong: authority, loyalty and a grant end when they would end without it."""
    monkeypatch.setattr(PassiveHeartbeat, "suspects", lambda *_: suspected)
    rig = coordinator()
    office, now = rig.replica.office, rig.now
    assert now < office.authority.authority_until() <= now + LEASE
    rig.wait(2 * LEASE)
    assert rig.replica.office is None
    follower = Rig("n2")
    follower.follow("n1")
    assert follower.replica.acceptor.sticky_until() == follower.now + LEASE
