"""Messages of right shapes and wrong values: what they can do to a replica, by who sends them."""

from dataclasses import replace
from random import Random

import pytest

from replicad.core.group.effects import EVERYONE
from replicad.core.group.state import COMPLAINTS_MAX
from replicad.core.model import messages as m
from replicad.core.model.errors import InvariantError
from replicad.core.model.operations import ACTIVE, REMOTE_WRITE
from tests.core.group.rigs import (
    HEARTBEAT,
    TICK,
    Rig,
    batch,
    configuration_of,
    disk_of,
    durable_state,
    epoch_of,
    operation,
)
from tests.core.group.typed_nonsense import KINDS, Nonsense

HELD = 5
"""Slots that were committed before."""
ROLES = ("follower", "coordinator", "candidate", "mirror", "learner")
ROUNDS, MESSAGES = 12, 60


def replica_in(role, protocol, seed):
    """A replica of a group of three that has its ids, in this role."""
    known = configuration_of(3, protocol).identified("our cluster", "our life")
    if role == "mirror":
        known = replace(known, members=known.members[1:], mirrors=("n1",), version=2)
    entries = [(slot, epoch_of("n2"), batch(slot)) for slot in range(1, HELD + 1)]
    durable = durable_state(epoch_of("n2"), entries, HELD)
    durable.formation = known.encode()
    rig = Rig("n1", durable=durable, seed=seed, **({"disk": "another", "lost": True} if role == "learner" else {}))
    for peer in rig.peers:
        rig.replica.on_peer(peer, 3)
    if role == "follower":
        rig.follow("n2", epoch=epoch_of("n2", 2), committed=HELD, assigned=HELD)
    elif role in {"coordinator", "candidate"}:
        prepare = rig.until(m.PreVote) and rig.vote()
        if role == "coordinator":
            for peer in rig.peers:
                rig.step(peer, m.Promise(prepare.epoch, prepare.attempt, HELD, 0, HELD, prepare.from_slot, HELD, ()))
            rig.acknowledge()
            rig.accept_all()
    assert rig.replica.role == role
    return rig


def meaningful(rig):
    """Numbers that the replica compares others with."""
    replica = rig.replica
    state = replica.state
    numbers = [
        state.log.committed,
        state.log.highest,
        state.promised,
        state.epoch,
        state.boot,
        state.now,
        state.matched,
    ]
    return [
        *numbers,
        replica.election.epoch,
        replica.catch_up.transfer_slot,
        replica.office.assigned if replica.office else 0,
    ]


def check_sendable(rig):
    """Everything that was sent and logged fits the wire, and means something to a peer."""
    for to, message in rig.take_sent():
        assert to != EVERYONE
        assert m.decode_message(m.encode_message(message)) == message


def held(rig):
    """What no stranger may change."""
    state = rig.replica.state
    slots = {slot: state.log.get(slot) for slot in range(1, HELD + 1)}
    return state.configuration, state.cluster_id, state.log.committed, slots, rig.halted, rig.forgotten


@pytest.mark.parametrize("protocol", [REMOTE_WRITE, ACTIVE])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("who", ["another disk", "nobody"])
def test_who_has_no_vote_changes_nothing(who, role, protocol):
    """Neither a member's name with another disk nor a name that is no member's ends, empties or misleads a replica.

    Pages of slots are left out: who has offered itself as the source is believed, whoever it is.
    """
    kinds = tuple(kind for kind in KINDS if kind is not m.Slots)
    for seed in range(ROUNDS):
        random = Random(f"{seed}/{who}/{role}/{protocol}")
        rig = replica_in(role, protocol, seed)
        before = held(rig)
        nonsense = Nonsense(random, kinds)
        for _ in range(MESSAGES):
            nonsense.near = meaningful(rig)
            sender = random.choice(("n2", "n3") if who == "another disk" else ("n4", "n9"))
            rig.step(sender, nonsense.message(), random.choice(("some disk", disk_of("n1"))))
            if random.random() < 0.3:
                rig.wait(random.randrange(1, 30) * TICK)
            if random.random() < 0.1:
                rig.submit(operation(random.randrange(1000)))
            check_sendable(rig)
            assert held(rig) == before


@pytest.mark.parametrize("protocol", [REMOTE_WRITE, ACTIVE])
@pytest.mark.parametrize("role", ROLES)
def test_a_member_that_talks_nonsense_meets_a_rule_or_nothing(role, protocol):
    """A member is believed, and may so end another; but by a rule that says what is wrong, not by just any error."""
    for seed in range(ROUNDS):
        random = Random(f"{seed}/{role}/{protocol}")
        rig = replica_in(role, protocol, seed)
        nonsense = Nonsense(random)
        for _ in range(MESSAGES):
            nonsense.near = meaningful(rig)
            try:
                rig.step(random.choice(rig.peers), nonsense.message())
                if random.random() < 0.3:
                    rig.wait(random.randrange(1, 30) * TICK)
            except InvariantError:
                break
            for _, message in rig.take_sent():
                m.encode_message(message)
            if rig.halted or rig.forgotten:
                break


def lines_of(rig, name):
    """What the event log has of one kind."""
    return [fields for event, fields in rig.events if event == name]


def test_a_peer_that_sends_no_operations_costs_a_line_a_second():
    """However many there are in a message, and however many messages: the next line says how many were left out."""
    rig = replica_in("coordinator", REMOTE_WRITE, 1)
    for _ in range(50):
        rig.step("n3", m.Forward(0, (b"none",) * 100))
    assert [set(fields) for fields in lines_of(rig, "bad_operation")] == [{"sender", "reason"}]
    rig.step("n2", m.Forward(0, (b"none",)))
    assert [fields["sender"] for fields in lines_of(rig, "bad_operation")] == ["n3", "n2"]
    rig.serve(1_000_000)
    rig.step("n3", m.Forward(0, (b"none",)))
    assert lines_of(rig, "bad_operation")[-1]["unsaid"] == 50 * 100 - 1


def test_a_peer_of_another_past_costs_a_line_a_second():
    """It may call its disk something else each time, and something long."""
    rig = replica_in("follower", REMOTE_WRITE, 1)
    foreign = Nonsense(Random(1)).configurations[0]
    for number in range(50):
        rig.step("n3", m.Introduce(1, 1, f"{number}" * 1000, "formed", 1, 1, foreign), "some disk")
    assert [fields["disk"] for fields in lines_of(rig, "foreign_configuration")] == ["0" * 64]


@pytest.mark.parametrize("role", ["candidate", "follower", "coordinator"])
def test_slots_that_nobody_asked_for_are_not_taken(role):
    """Whoever offers itself is fetched from while nobody leads; a page that was not asked for counts for nothing."""
    rig = replica_in(role, REMOTE_WRITE, 1)
    before = held(rig)
    rig.step("n9", m.Welcome(1, 100), "any")
    rig.step("n9", m.Slots(HELD + 1, 100, ((HELD + 1, epoch_of("n2"), 0, batch(666)),)), "any")
    assert held(rig) == before


def test_who_follows_a_coordinator_takes_no_slots_of_an_earlier_source():
    """It was asked while nobody led; the coordinator that is followed by now vouches for what it sends alone."""
    rig = replica_in("candidate", REMOTE_WRITE, 1)
    rig.replica.become_follower("nobody leads")
    rig.step("n9", m.Welcome(1, 100), "any")
    rig.wait(8 * HEARTBEAT)
    assert ("n9", m.FetchSlots(HELD + 1)) in rig.take_sent(m.FetchSlots)
    rig.follow("n2", epoch=epoch_of("n2", 9), committed=HELD, assigned=HELD)
    before = held(rig)
    rig.step("n9", m.Slots(HELD + 1, 100, ((HELD + 1, epoch_of("n2"), 0, batch(666)),)), "any")
    assert held(rig) == before


def test_complaints_of_ever_new_names_are_forgotten():
    """One name is told of once a second, whatever it sends; a thousand names cost no more memory than a few."""
    state = replica_in("follower", REMOTE_WRITE, 1).replica.state
    for number in range(1000):
        state.complaint("bad_operation", f"n{number}", sender=f"n{number}")
        state.complaint("bad_operation", f"n{number}", sender=f"n{number}")
    assert len(state.out.events) == 1000
    assert len(state._complaints) == COMPLAINTS_MAX
