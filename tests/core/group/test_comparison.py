"""A replica serves nothing before its digest was compared (K3, M4)."""

from collections import deque

import pytest

from replicad.core.group.state import REBUILT, STARTED
from replicad.core.model import messages as m
from replicad.core.model.operations import APPLIED, Result
from tests.core.group.rigs import (
    BEGIN,
    HEARTBEAT,
    LEASE,
    LIMITS,
    TICK,
    Rig,
    SlowRig,
    batch,
    configuration_of,
    disk_of,
    durable_state,
    epoch_of,
    names,
    operation,
    promise,
)

N2 = epoch_of("n2")
OWN = bytes(16)
OTHER = b"another digest.."


def started(**fields):
    """A voter that starts with two committed slots."""
    rig = Rig("n1", entries=[(1, N2, batch(1)), (2, N2, batch(2))], committed=2, **fields)
    rig.wait(LEASE)
    rig.follow("n2", committed=2, assigned=2)
    return rig


def lease_requests(rig):
    return [message.lease_request for message in rig.of(m.HeartbeatAck)]


def test_a_start_asks_every_voter_about_the_applied_slot():
    """No traffic is needed: the slot applied last is asked about."""
    rig = started()
    questions = [(to, message) for to, message in rig.sent if isinstance(message, m.CompareDigest)]
    assert {to for to, _ in questions} == {"n2", "n3"}
    assert {(message.slot, message.digest) for _, message in questions} == {(2, OWN)}


def test_no_lease_is_asked_for_before_the_digest_was_equal():
    """One equal answer makes two of three."""
    rig = started()
    assert set(lease_requests(rig)) == {0}
    rig.step("n3", m.DigestCompared(7, 2, OWN))
    assert rig.replica.state.serves
    rig.follow("n2", committed=2, assigned=2, sequence=2)
    assert lease_requests(rig)[-1] > 0


@pytest.mark.parametrize(
    "answer", [m.DigestCompared(8, 2, OWN), m.DigestCompared(7, 1, OWN), m.DigestCompared(7, 2, b"")]
)
def test_an_answer_to_another_process_about_another_slot_or_without_a_digest_is_none(answer):
    """Such an answer proves nothing."""
    rig = started()
    rig.step("n3", answer)
    assert not rig.replica.state.serves


def test_an_answer_of_a_disk_that_has_no_vote_is_none():
    """Another directory runs under a voter's name: what it holds may be of any past."""
    rig = started()
    rig.step("n3", m.DigestCompared(7, 2, OWN), disk="another disk")
    assert not rig.replica.state.serves


def test_one_other_digest_is_no_majority_and_two_are():
    """Then the state is fetched from the others."""
    rig = started()
    rig.step("n3", m.DigestCompared(7, 2, OTHER))
    assert not rig.replica.state.rebuilding
    rig.step("n2", m.DigestCompared(7, 2, OTHER))
    assert rig.replica.state.rebuilding


def test_operations_and_read_points_wait_for_the_comparison():
    """What is answered is computed here."""
    rig = started()
    rig.submit(operation(1))
    rig.wait(HEARTBEAT)
    assert not rig.of(m.Forward)
    number, effects = rig.replica.probe(confirmed=True, now=rig.now)
    rig.take(effects)
    rig.step("n2", m.ReadPoint(7, number, 2))
    assert rig.read_points == []
    rig.step("n2", m.DigestCompared(7, 2, OWN))
    assert rig.read_points == [(number, 2)]
    rig.wait(HEARTBEAT)
    assert rig.of(m.Forward)


def test_a_read_point_of_a_reader_that_went_away_is_not_kept():
    """A replica may have to wait long for the comparison, and readers come and go meanwhile."""
    rig = started()
    numbers = []
    for _ in range(3):
        number, effects = rig.replica.probe(confirmed=True, now=rig.now)
        rig.take(effects)
        rig.step("n2", m.ReadPoint(7, number, 2))
        numbers.append(number)
    for number in numbers[:2]:
        rig.replica.contact.forget_probe(number)
    assert list(rig.replica.contact.points) == numbers[2:]
    rig.step("n2", m.DigestCompared(7, 2, OWN))
    assert rig.read_points == [(numbers[2], 2)]


def test_a_digest_below_what_is_doubted_proves_nothing():
    """A disk without a vote asks as it comes by; what its log called committed before is not part of that digest."""
    durable = durable_state(entries=[(1, N2, batch(1)), (2, N2, batch(2))], committed=2)
    rig = Rig("n1", durable=durable, disk="a new disk")
    assert rig.replica.role == "learner"
    comparison = rig.replica.comparison
    comparison.doubt(STARTED, 3)
    rig.wait(2 * HEARTBEAT)
    for peer in ("n2", "n3"):
        rig.step(peer, m.DigestCompared(7, 2, OWN))
    assert not rig.replica.state.serves
    rig.step("n2", m.Welcome(N2, 3))
    rig.step("n2", m.Slots(3, 3, ((3, N2, 0, batch(3)),)))
    rig.wait(2 * HEARTBEAT)
    for peer in ("n2", "n3"):
        rig.step(peer, m.DigestCompared(7, 3, OWN))
    assert rig.replica.state.serves


def test_a_rebuilt_voter_asks_about_no_slot_below_what_its_log_called_committed():
    """The log led to the wrong state, or may have: a digest from before that part of it says nothing."""
    rig = started()
    for peer in ("n2", "n3"):
        rig.step(peer, m.DigestCompared(7, 2, OTHER))
    rig.take(rig.replica.installed(0, OWN, b"", [], rig.now))
    rig.take_sent()
    rig.step("n2", m.Slots(1, 2, ((1, N2, 0, batch(1)),)))
    rig.wait(2 * HEARTBEAT)
    assert rig.replica.applied == 1
    assert rig.of(m.CompareDigest) == []
    rig.step("n2", m.Slots(2, 2, ((2, N2, 0, batch(2)),)))
    rig.wait(2 * HEARTBEAT)
    assert {message.slot for message in rig.of(m.CompareDigest)} == {2}


def test_a_new_disk_whose_state_is_not_the_groups_is_rebuilt():
    """It knows no configuration, and would be given no vote for ever."""
    rig = Rig("n3", disk="a new disk", lost=True, formed=False)
    rig.step("n2", m.Welcome(N2, 2))
    rig.wait(2 * HEARTBEAT)
    rig.step("n2", m.Slots(1, 2, ((1, N2, 0, batch(1)), (2, N2, 0, batch(2)))))
    rig.wait(2 * HEARTBEAT)
    assert ("n1", m.CompareDigest(7, 2, OWN)) in rig.sent
    rig.step("n1", m.DigestCompared(7, 2, OTHER))
    rig.step("n9", m.DigestCompared(7, 2, OTHER))
    assert not rig.replica.state.rebuilding
    rig.step("n2", m.DigestCompared(7, 2, OTHER))
    assert rig.replica.state.rebuilding


def test_a_new_disk_asks_about_one_slot_until_the_source_and_a_majority_have_answered():
    """They may apply more slowly, and never come to the newest slot in time; or not remember an older one."""
    rig = Rig("n3", disk="a new disk", lost=True, formed=False)
    rig.step("n2", m.Welcome(N2, 3))
    rig.wait(2 * HEARTBEAT)
    for peer in ("n1", "n2"):
        rig.step(peer, m.DigestCompared(7, 0, OWN))
    rig.step("n2", m.Slots(1, 3, ((1, N2, 0, batch(1)),)))
    rig.wait(2 * HEARTBEAT)
    rig.step("n2", m.Slots(2, 3, ((2, N2, 0, batch(2)),)))

    def asked():
        rig.take_sent()
        rig.wait(2 * HEARTBEAT)
        return {message.slot for message in rig.of(m.CompareDigest)}

    assert asked() == {1, 2}
    rig.step("n1", m.DigestCompared(7, 1, OWN))
    assert asked() == {1, 2}
    rig.step("n2", m.DigestCompared(7, 1, OWN))
    assert asked() == {2}
    rig.step("n2", m.Slots(3, 3, ((3, N2, 0, batch(3)),)))
    rig.step("n2", m.DigestCompared(7, 2, OWN))
    assert asked() == {2, 3}
    rig.replica.comparison.digests = deque([OWN])  # it remembers that slot no more
    assert asked() == {3}


def test_a_voter_asks_about_one_slot_until_it_is_answered():
    """The others may apply more slowly: under load it would have no lease for as long as that lasts."""
    rig = started()
    rig.step("n2", m.Slots(3, 3, ((3, N2, 0, batch(3)),)))
    rig.take_sent()
    rig.wait(2 * HEARTBEAT)
    assert {message.slot for message in rig.of(m.CompareDigest)} == {2, 3}


def test_peers_of_version_1_are_not_waited_for():
    """They cannot be asked: all is as it was with them, and an event says so."""
    rig = Rig("n1", entries=[(1, N2, batch(1))], committed=1)
    for peer in ("n2", "n3"):
        rig.replica.on_peer(peer, 1)
    rig.wait(HEARTBEAT)
    assert rig.replica.state.serves
    assert "digest_not_compared" in rig.event_names()


def test_a_voter_answers_at_once_and_for_a_slot_to_come_later():
    """An empty answer says that it has nothing to prove; the digest follows."""
    rig = started()
    rig.step("n2", m.DigestCompared(7, 2, OWN))
    rig.take_sent()
    assert rig.step("n3", m.CompareDigest(9, 2, OTHER)) == [("n3", m.DigestCompared(9, 2, OWN))]
    assert rig.step("n3", m.CompareDigest(9, 3, OTHER)) == [("n3", m.DigestCompared(9, 3, b""))]
    rig.step("n2", m.Slots(3, 3, ((3, N2, 0, batch(3)),)))
    assert ("n3", m.DigestCompared(9, 3, OWN)) in rig.sent


def test_a_new_disk_that_goes_on_beyond_this_state_has_shown_nothing_by_what_was_equal_below():
    """It may be of another past that began in the same way, or is empty of state with a log of its own."""
    rig = Rig("n1", entries=[(1, N2, batch(1))], committed=1)
    rig.follow("n2", committed=1, assigned=1)
    for peer in ("n2", "n3"):
        rig.replica.on_peer(peer, 3)
        rig.step(peer, m.DigestCompared(7, 1, OWN))
    admissible = rig.replica.comparison.admissible
    rig.step("n3", m.CompareDigest(9, 1, OWN), disk="a new disk")
    assert admissible("n3", "a new disk")
    rig.step("n3", m.CompareDigest(9, 2, OTHER), disk="a new disk")
    assert not admissible("n3", "a new disk")
    rig.step("n3", m.CompareDigest(9, 2, OWN), disk="a new disk")
    assert not admissible("n3", "a new disk")
    rig.step("n2", m.Slots(2, 2, ((2, N2, 0, batch(2)),)))
    assert admissible("n3", "a new disk")


def test_who_must_prove_its_state_does_not_vote_while_others_have_nothing_to_prove():
    """The others elect without it if they are a majority; after four lease lengths it votes."""
    rig = started()
    rig.step("n3", m.DigestCompared(7, 2, b""))
    rig.wait(2 * LEASE)
    prepare = m.Prepare(epoch_of("n3", 9), 1, 3, 0)
    assert rig.step("n3", prepare) == []
    rig.wait(3 * LEASE)
    assert [type(message) for _, message in rig.step("n3", prepare)] == [m.Promise]


def test_who_has_not_applied_its_log_yet_cannot_ask_and_neither_promises_nor_serves_slots():
    """What it has beyond the others may be of another past; after four lease lengths it votes all the same."""
    rig = SlowRig("n1", entries=[(1, N2, batch(1)), (2, N2, batch(2))], committed=2)
    rig.wait(2 * LEASE)
    assert rig.of(m.CompareDigest) == []
    prepare = m.Prepare(epoch_of("n3", 9), 1, 1, 0)
    assert rig.step("n3", prepare) == rig.step("n3", m.FetchSlots(1)) == []
    rig.wait(3 * LEASE)
    assert [type(message) for _, message in rig.step("n3", m.FetchSlots(1))] == [m.Slots]
    assert [type(message) for _, message in rig.step("n3", prepare)] == [m.Promise]


def test_who_finds_out_late_that_it_is_ahead_yields_from_then_on():
    """Its log took it longer to apply than four lease lengths."""
    rig = SlowRig("n1", entries=[(1, N2, batch(1)), (2, N2, batch(2))], committed=2)
    rig.wait(5 * LEASE)
    while rig.waiting:
        rig.apply()
    rig.wait(TICK)
    rig.step("n3", m.DigestCompared(7, 2, b""))
    rig.wait(2 * LEASE)
    assert rig.step("n3", m.Prepare(epoch_of("n3", 9), 1, 3, 0)) == []


def test_a_rebuild_applies_of_its_own_log_only_what_the_source_has_too():
    """The log led to the wrong state, or may have."""
    rig = started()
    for peer in ("n2", "n3"):
        rig.step(peer, m.DigestCompared(7, 2, OTHER))
    rig.take(rig.replica.installed(0, OWN, b"", [], rig.now))
    assert rig.replica.applied == 0
    assert rig.replica.state.comparing == REBUILT
    rig.applied.clear()
    rig.step("n2", m.Slots(1, 2, ((1, N2, 0, batch(1)),)))
    assert [slot for slot, _ in rig.applied] == [1]
    rig.step("n2", m.Slots(2, 2, ((2, N2, 0, batch(9)),)))
    assert "slot 2 here holds another value" in rig.forgotten


def test_what_was_accepted_in_the_epoch_that_is_followed_must_be_part_of_the_digest():
    """A branch may have had an election of its own with that epoch: what it accepted passes for the coordinator's."""
    rig = Rig("n1", entries=[(1, N2, batch(1)), (2, N2, batch(2)), (3, N2, batch(9))], committed=2)
    rig.wait(LEASE)
    rig.follow("n2", committed=2, assigned=3)
    rig.step("n3", m.DigestCompared(7, 2, OWN))
    assert not rig.replica.state.serves
    assert not rig.replica.state.yielding()
    rig.follow("n2", committed=3, assigned=3, sequence=2)
    rig.wait(HEARTBEAT)
    rig.step("n3", m.DigestCompared(7, 3, OWN))
    assert rig.replica.state.serves


def test_what_was_accepted_in_an_epoch_that_is_over_need_not_be():
    """The next coordinator proposes it anew, or something else; in an idle group it may stay for ever."""
    rig = Rig("n1", entries=[(1, N2, batch(1)), (2, N2, batch(2)), (3, N2, batch(9))], committed=2)
    rig.wait(LEASE)
    rig.follow("n3", epoch=epoch_of("n3", 2), committed=2, assigned=2)
    rig.wait(2 * HEARTBEAT)
    rig.step("n2", m.DigestCompared(7, 2, OWN))
    assert rig.replica.state.serves


def contradicted(**fields):
    """A voter that starts with two committed slots, and is to be rebuilt."""
    rig = started(**fields)
    for peer in rig.peers:
        rig.step(peer, m.DigestCompared(7, 2, OTHER))
    assert rig.replica.state.rebuilding
    return rig


PREPARE = m.Prepare(epoch_of("n3", 9), 1, 1, 0)


def test_who_is_being_rebuilt_promises_nothing_for_four_lease_lengths():
    """What it has accepted may be of another past; the others elect without it if they are a majority."""
    rig = contradicted()
    rig.wait(3 * LEASE)
    assert rig.step("n3", PREPARE) == []
    rig.wait(2 * LEASE)
    assert [type(message) for _, message in rig.step("n3", PREPARE)] == [m.Promise]


def test_a_rebuilt_voter_promises_nothing_until_it_was_compared_or_for_four_lease_lengths():
    """As long as it was rebuilt from another checkpoint, its log above that may still be of another past."""
    rig = contradicted()
    rig.wait(3 * LEASE)
    rig.take(rig.replica.installed(0, OWN, b"", [], rig.now))
    rig.wait(3 * LEASE)
    assert rig.step("n3", PREPARE) == rig.step("n3", m.FetchSlots(1)) == []
    rig.wait(2 * LEASE)
    assert [type(message) for _, message in rig.step("n3", PREPARE)] == [m.Promise]


def test_a_rebuilt_voter_never_serves_slots_that_it_has_not_verified():
    """Whoever took them for decided would spread another past."""
    rig = contradicted()
    rig.take(rig.replica.installed(0, OWN, b"", [], rig.now))
    rig.wait(5 * LEASE)
    assert rig.step("n3", m.FetchSlots(1)) == []
    rig.follow("n2", epoch=epoch_of("n2", 9), committed=2, assigned=2)
    rig.step("n2", m.Slots(1, 2, ((1, N2, 0, batch(1)),)))
    assert rig.step("n3", m.FetchSlots(1)) == [("n3", m.Slots(1, 1, ((1, N2, 0, batch(1)),)))]
    assert rig.step("n3", m.FetchSlots(2)) == []


@pytest.mark.parametrize(("checkpoint", "applied"), [(0, 4), (2, 2)])
def test_a_log_that_is_the_others_up_to_where_the_state_was_wrong_was_not_to_blame(checkpoint, applied):
    """It goes on from there, be it the only one that knows the rest; below a checkpoint nothing can be verified."""
    rig = Rig("n1", entries=[(slot, N2, batch(slot)) for slot in (1, 2, 3, 4)], committed=4)
    rig.wait(LEASE)
    rig.replica.digests.marks = {2: OWN}
    rig.follow("n2", committed=4, assigned=4, digest_slot=2, digest=OTHER)
    assert rig.replica.state.rebuilding
    rig.take(rig.replica.installed(checkpoint, OWN, b"", [], rig.now))
    assert rig.replica.applied == checkpoint
    rig.step("n2", m.Slots(1, 2, ((1, N2, 0, batch(1)), (2, N2, 0, batch(2)))))
    assert rig.replica.applied == applied
    rig.wait(5 * LEASE)
    served = [entry[0] for _, message in rig.step("n3", m.FetchSlots(3)) for entry in message.entries]
    assert served == ([3, 4] if applied == 4 else [])


def test_who_waits_for_slots_of_a_coordinator_that_is_gone_looks_for_another_source():
    """It cannot stand for election itself, and its directory may be needed for one."""
    rig = contradicted()
    rig.take(rig.replica.installed(0, OWN, b"", [], rig.now))
    assert rig.replica.coordinator == "n2"
    rig.wait(6 * LEASE)
    assert rig.replica.coordinator == ""
    rig.take_sent()
    rig.step("n3", m.Introduce(3, 7, disk_of("n3"), "formed", 1, 1, rig.replica.state.configuration.encode()))
    rig.wait(6 * HEARTBEAT)
    assert ("n3", m.FetchSlots(1)) in rig.sent


def test_who_is_being_rebuilt_fetches_from_a_voter_while_nobody_is_in_office():
    """An election may need its vote, and its vote a state that was compared: neither waits for the other for ever."""
    rig = contradicted()
    rig.wait(2 * LEASE)
    rig.step("n2", m.Release(N2, "n2"))
    configuration = rig.replica.state.configuration.encode()
    rig.step("n3", m.Introduce(3, 7, disk_of("n3"), "formed", 1, 1, configuration))
    rig.take_sent()
    rig.wait(6 * HEARTBEAT)
    assert ("n3", m.FetchSlots(0)) in rig.sent


def test_two_voters_need_each_other_and_yield_to_nobody():
    """There is no majority that could elect without this one."""
    rig = started(count=2)
    rig.wait(2 * LEASE)
    assert not rig.replica.state.serves
    prepare = m.Prepare(epoch_of("n2", 9), 1, 1, 0)
    assert [type(message) for _, message in rig.step("n2", prepare)] == [m.Promise]


def test_a_digest_that_is_not_remembered_is_not_answered():
    """An empty answer would say that this voter has yet to come to that slot."""
    rig = started()
    rig.step("n2", m.DigestCompared(7, 2, OWN))
    rig.replica.comparison.digests.popleft()
    assert rig.step("n3", m.CompareDigest(9, 0, OTHER)) == []


def test_a_coordinator_that_is_ahead_of_its_followers_does_not_refuse_them_its_slots():
    """It had to be elected before it was compared; they must come to its slot for that."""
    rig = Rig("n1", entries=[(1, N2, batch(1)), (2, N2, batch(2))], committed=2)
    rig.elect({"n2": {"committed": 0}, "n3": {"committed": 0}})
    assert rig.replica.state.comparing
    rig.step("n3", m.DigestCompared(7, 2, b""))
    assert [type(message) for _, message in rig.step("n3", m.FetchSlots(1))] == [m.Slots]


def test_a_candidate_that_is_found_ahead_and_elected_serves_its_followers_at_once():
    """It yields as a candidate, and has nobody to yield to in office."""
    rig = Rig("n1", entries=[(1, N2, batch(1)), (2, N2, batch(2))], committed=2)
    rig.until(m.PreVote)
    rig.step("n3", m.DigestCompared(7, 2, b""))
    prepare = rig.vote()
    for peer in rig.peers:
        rig.step(peer, promise(prepare, committed=0))
    assert rig.replica.role == "coordinator"
    assert [type(message) for _, message in rig.step("n3", m.FetchSlots(1))] == [m.Slots]


def test_a_rebuilt_voter_reports_what_it_doubts_as_accepted():
    """A candidate need not fetch it, and who knows that it is committed may be gone."""
    rig = contradicted()
    rig.wait(5 * LEASE)
    [(_, answer)] = rig.step("n3", PREPARE)
    assert (answer.committed, [entry[0] for entry in answer.entries]) == (0, [1, 2])
    rig.take(rig.replica.installed(0, OWN, b"", [], rig.now))
    rig.wait(5 * LEASE)
    rig.step("n2", m.Slots(1, 2, ((1, N2, 0, batch(1)),)))
    [(_, answer)] = rig.step("n3", m.Prepare(epoch_of("n3", 10), 1, 2, 0))
    assert (answer.committed, [entry[0] for entry in answer.entries]) == (1, [2])


def test_who_is_being_rebuilt_lets_a_coordinator_go_that_is_gone():
    """It would ask that one for ever, and nobody could be elected without it; promises to candidates do not count."""
    rig = contradicted()
    for counter in range(9, 19):
        rig.wait(LEASE)
        rig.step("n3", m.Prepare(epoch_of("n3", counter), 1, 1, 0))
    assert rig.replica.coordinator == ""


def test_a_mirror_need_not_reach_what_it_accepted_as_a_voter():
    """The epoch is over, and a mirror promises no other one: in an idle group it would never be compared."""
    durable = durable_state(entries=[(1, N2, batch(1)), (2, N2, batch(2)), (6, N2, batch(6))], committed=2)
    durable.formation = configuration_of().with_demoted("n1", 2).encode()
    rig = Rig("n1", durable=durable)
    assert rig.replica.role == "mirror"
    assert rig.replica.comparison.must_reach() == 2


def test_those_that_have_waited_for_the_same_moment_stand_one_after_the_other():
    """All were started at once, and yield until the same moment."""
    stood = {}
    for node in names(3):
        rig = Rig(node, entries=[(1, N2, batch(1))], committed=1)
        rig.until(m.PreVote)
        stood[node] = rig.now - 4 * LEASE - BEGIN
    first, second, third = sorted(stood.values())
    assert 0 <= first < LIMITS.stagger_us <= second < 2 * LIMITS.stagger_us <= third


def test_a_second_contradiction_gives_the_disk_up():
    """There is no endless loop."""
    rig = started()
    for peer in ("n2", "n3"):
        rig.step(peer, m.DigestCompared(7, 2, OTHER))
    rig.take(rig.replica.installed(0, OWN, b"", [], rig.now))
    rig.step("n2", m.Slots(1, 2, ((1, N2, 0, batch(1)), (2, N2, 0, batch(2)))))
    rig.wait(HEARTBEAT)
    for peer in ("n2", "n3"):
        rig.step(peer, m.DigestCompared(7, 2, OTHER))
    assert "not trusted" in rig.forgotten


def test_slots_above_all_that_was_assigned_are_of_another_past():
    """All that was chosen before an epoch is below what its coordinator has assigned (E3)."""
    rig = Rig("n1", entries=[(1, N2, batch(1)), (2, N2, batch(2))], committed=2)
    rig.wait(LEASE)
    rig.follow("n3", epoch=epoch_of("n3", 9), committed=1, assigned=1)
    assert "another past" in rig.halted
    assert not rig.forgotten


def test_a_result_that_nobody_waits_for_any_more_is_not_kept_until_the_comparison():
    """Its client's deadline passed: a replica that is never compared would keep the results of ever."""
    rig = started()
    contact = rig.replica.contact
    request_id, _ = operation(1)
    rig.submit(operation(1))
    contact.vouch([(request_id, Result(APPLIED, 3))])
    assert list(contact.results) == [request_id]
    contact.abandon(request_id)
    assert contact.results == {}
