"""Changes of a group: what is refused and why, and what happens to those that are not."""

import pytest

from replicad.core.detection.patience import Patience
from replicad.core.group.changes import MIRRORS_MAX, WAITING_MAX
from replicad.core.journal.records import FormationRecord
from replicad.core.model import messages as m
from replicad.core.model.configuration import GENERATION_STRIDE, Configuration
from replicad.core.model.operations import CONFIGURATION, decode_batch, encode_batch
from replicad.core.model.refusals import Refusal, RefusalCode
from tests.core.group.rigs import (
    HEARTBEAT,
    LEASE,
    LIMITS,
    TICK,
    Rig,
    batch,
    configuration_of,
    disk_of,
    durable_state,
    epoch_of,
    operation,
)


def version(rig):
    """Of the configuration that the rig knows."""
    return rig.replica.state.configuration.version


def coordinator(count=3, live=None, configuration=None):
    """n1 in office, with these voters (by default all) answering."""
    durable = durable_state(count=count)
    if configuration is not None:
        durable.formation = configuration.encode()
    rig = Rig(count=count, durable=durable)
    rig.live = rig.peers if live is None else list(live)
    if count == 1:
        rig.wait(2 * LEASE)
        return rig
    rig.elect()
    rig.acknowledge(*rig.live)
    rig.serve(3 * HEARTBEAT, *rig.live)
    return rig


def with_mirror(count=3, mirror="n9"):
    return configuration_of(count).with_mirror(mirror, 0)


DONE = "done"


def said(refusal):
    """Return an answer in words."""
    return DONE if refusal is None else refusal.sentence


def ask(rig, kind, argument):
    """Ask the rig, which is in office, for a change; returns the answer if there is one at once, else None."""
    number, effects = rig.replica.request_change(kind, argument, rig.now)
    rig.take(effects)
    answers = dict(rig.changes)
    return said(answers[number]) if number in answers else None


def follow(rig, first=1, disk=None, mirror="n9"):
    """A mirror asks for the slots from ``first`` on; returns what was sent because of it."""
    return rig.step(mirror, m.FetchSlots(first), disk=disk)


def proposals(rig):
    """Return ``(slot, configuration)`` of every configuration entry in the log."""
    found = []
    for slot, _, value in rig.slots():
        kind, payload = decode_batch(value)
        if kind == CONFIGURATION:
            found.append((slot, Configuration.decode(payload)))
    return found


def carry_out(rig, patience=20 * HEARTBEAT):
    """Let the live voters answer and accept until the change that was asked for is answered."""
    before = len(rig.changes)
    end = rig.now + patience
    while len(rig.changes) == before:
        assert rig.now < end, "the change was not answered"
        rig.serve(TICK, *rig.live)
        rig.accept_all(*rig.live)
    return said(rig.changes[-1][1])


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "argument", "code", "sentence"),
    [
        (
            "rename",
            "n2",
            RefusalCode.MALFORMED,
            "there is no change 'rename'; there are add, promote, demote, remove, protocol, move",
        ),
        ("add", "", RefusalCode.MALFORMED, "add needs a name of 1 to 255 characters"),
        ("add", "n" * 256, RefusalCode.MALFORMED, "add needs a name of 1 to 255 characters"),
        ("add", "n2", RefusalCode.ALREADY_VOTER, "n2 is a voter already: demote it if it shall be a mirror"),
        (
            "promote",
            "n8",
            RefusalCode.NOT_MIRROR,
            "n8 is no mirror of this group: add it first, and promote it once it has caught up",
        ),
        ("promote", "n9", RefusalCode.SILENT, "n9 was not heard of lately: see that it runs and reaches n1"),
        ("demote", "n8", RefusalCode.NOT_VOTER, "n8 is no voter of this group"),
        ("demote", "n1", RefusalCode.COORDINATES, "n1 is the coordinator: move the office to another voter first"),
        ("remove", "n1", RefusalCode.COORDINATES, "n1 is the coordinator: move the office to another voter first"),
        (
            "protocol",
            "flat",
            RefusalCode.UNKNOWN_PROTOCOL,
            "there is no protocol 'flat'; there are remote-write and active",
        ),
        (
            "protocol",
            "ask again",
            RefusalCode.UNKNOWN_PROTOCOL,
            "there is no protocol 'ask again'; there are remote-write and active",
        ),
        ("move", "n9", RefusalCode.NOT_VOTER, "n9 is no voter of this group: only a voter can be its coordinator"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_at_once(kind, argument, code, sentence):
    """The answer says what is wrong and, where there is something to do, what; names that it repeats mean nothing."""
    rig = coordinator(configuration=with_mirror())
    assert ask(rig, kind, argument) == sentence
    assert rig.changes == [(1, Refusal(code, sentence))]
    assert proposals(rig) == []


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        ("add", "n9"),
        ("demote", "n9"),
        ("promote", "n2"),
        ("remove", "n8"),
        ("protocol", "remote-write"),
        ("move", "n1"),
    ],
)
def test_what_is_so_already_is_done(kind, argument):
    """A request that comes again after its change was made is no error, and changes nothing."""
    rig = coordinator(configuration=with_mirror())
    assert ask(rig, kind, argument) == DONE
    assert proposals(rig) == []


def test_one_change_at_a_time():
    """Another change waits for nobody: it is refused, and the same one is answered with the first."""
    rig = coordinator()
    assert ask(rig, "add", "n4") is None
    assert ask(rig, "add", "n5") == "another change is under way (add n4): ask again when it is done"
    assert ask(rig, "add", "n4") is None
    rig.changes.clear()
    assert carry_out(rig) == DONE
    assert rig.changes == [(1, None), (3, None)]
    assert len(proposals(rig)) == 1


def test_no_change_while_a_disk_is_re_admitted():
    """The entry of a re-admission is a change under way as well."""
    rig = coordinator(live=["n2"])
    said = m.Introduce(3, 7, "a new disk", "empty", 0, 0, b"")
    rig.step("n3", said, disk="a new disk")
    rig.serve(TICK, "n2", matched=0)
    assert len(proposals(rig)) == 1
    assert ask(rig, "add", "n4") == "another change is under way (a disk is re-admitted): ask again when it is done"


def test_a_group_has_so_many_mirrors_at_most():
    """The list of mirrors is bounded."""
    configuration = configuration_of(1)
    for number in range(MIRRORS_MAX):
        configuration = configuration.with_mirror(f"m{number}", 0)
    rig = coordinator(1, configuration=configuration)
    assert ask(rig, "add", "n4") == f"the group has {MIRRORS_MAX} mirrors, and that is the most: remove one first"


def test_a_mirror_that_fell_silent_is_not_promoted():
    """Only who asked for slots lately may become a voter."""
    rig = coordinator(configuration=with_mirror())
    follow(rig)
    rig.serve(Patience.CHANGE.heartbeats * HEARTBEAT + TICK)
    assert ask(rig, "promote", "n9") == "n9 was not heard of lately: see that it runs and reaches n1"


def test_a_mirror_that_is_behind_is_not_promoted():
    """The answer says by how many slots."""
    rig = coordinator(configuration=with_mirror())
    for number in range(LIMITS.join_lag_slots + 2):
        rig.submit(operation(number))
    rig.accept_all()
    follow(rig, 2)
    behind = LIMITS.join_lag_slots + 1
    assert ask(rig, "promote", "n9") == f"n9 is {behind} slots behind: promote it once it has caught up"


def test_a_node_that_does_not_follow_yet_is_not_promoted():
    """An empty group is caught up with by anybody: a mirror must have begun to follow all the same."""
    rig = coordinator(configuration=with_mirror())
    rig.step("n9", m.Introduce(3, 0, "disk-n9", "empty", 0, 0, b""))
    assert ask(rig, "promote", "n9") == "n9 has not begun to follow the group: promote it once it has caught up"


def test_a_promotion_must_not_need_a_voter_that_is_silent():
    """With one of three silent a fourth may come: three of four answer. With two silent it may not."""
    rig = coordinator(live=["n2"], configuration=with_mirror())
    follow(rig)
    assert ask(rig, "promote", "n9") is None
    rig = coordinator(configuration=with_mirror())
    rig.wait(4 * HEARTBEAT)
    follow(rig)
    assert ask(rig, "promote", "n9") == (
        "with n9 a majority would be 3 of 4 voters, and only 2 answer: bring back or remove those that are silent first"
    )


@pytest.mark.parametrize("kind", ["remove", "demote"])
def test_a_voter_that_the_others_need_stays(kind):
    """With n3 silent, n1 and n2 are all that there is: without n2 there is no majority of the two that are left."""
    rig = coordinator(live=["n2"])
    assert ask(rig, kind, "n2") == (
        "without n2 a majority would be 2 of 2 voters, and only 1 answer: bring back those that are silent first"
    )


@pytest.mark.parametrize("kind", ["remove", "demote"])
def test_the_last_voter_stays(kind):
    """A group without voters would be gone."""
    rig = coordinator(1)
    assert ask(rig, kind, "n1") == "n1 is the last voter: promote another first, and move the office there"


def test_an_office_goes_only_to_who_could_take_it():
    """A voter outside the view is behind or silent."""
    rig = coordinator(live=["n2"])
    refusal = "n3 is not in the view: it must answer and have caught up before it takes the office"
    assert ask(rig, "move", "n3") == refusal


def test_a_change_that_became_unsafe_meanwhile_is_given_up():
    """Before the entry is proposed, the reasons to refuse it are looked for again."""
    rig = coordinator()
    assert ask(rig, "remove", "n3") is None  # it is in the view, and its grant must end first
    rig.wait(4 * HEARTBEAT)
    assert [said(refusal) for _, refusal in rig.changes] == [
        "without n3 a majority would be 2 of 2 voters, and only 1 answer: bring back those that are silent first"
    ]
    assert proposals(rig) == []
    assert rig.replica.office is None or rig.replica.office.view.barred == ""


# --- carrying out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "argument", "expected"),
    [
        ("add", "n8", with_mirror().with_mirror("n8", 1)),
        ("promote", "n9", with_mirror().with_voter("n9", disk_of("n9"), 1)),
        ("demote", "n3", with_mirror().with_demoted("n3", 1)),
        ("remove", "n3", with_mirror().without("n3", 1)),
        ("remove", "n9", with_mirror().without("n9", 1)),
        ("protocol", "active", with_mirror().with_protocol("active", 1)),
    ],
)
def test_a_change_is_one_entry_and_is_answered_when_it_is_committed(kind, argument, expected):
    """The requester hears nothing before the group has the new configuration."""
    rig = coordinator(configuration=with_mirror())
    follow(rig)
    assert ask(rig, kind, argument) is None
    while not proposals(rig):
        rig.serve(TICK, matched=0)
    assert proposals(rig) == [(1, expected)]
    assert rig.changes == []
    rig.accept_all()
    assert rig.changes == [(1, None)]
    assert rig.replica.state.configuration == expected


def test_the_cluster_is_to_be_told_of_another_coordinator_and_other_members():
    """Whoever drives the replica learns it by an effect; nothing else makes what is known of the group stale."""
    rig = coordinator()
    assert rig.catalog_stale == 1
    rig.serve(4 * HEARTBEAT)
    assert rig.catalog_stale == 1
    assert ask(rig, "add", "n4") is None
    assert carry_out(rig) == DONE
    assert rig.catalog_stale == 2


def test_a_voter_leaves_the_view_before_it_loses_its_vote():
    """It still answers, but gets no more grants; the entry is proposed after the last one has ended (M3)."""
    rig = coordinator()
    peer = rig.replica.office.authority.peers["n3"]
    assert "n3" in rig.replica.view
    granted_until = peer.granted_until
    assert ask(rig, "remove", "n3") is None
    while not proposals(rig):
        assert peer.granted_until == granted_until
        rig.serve(TICK, matched=0)
    assert rig.now >= granted_until
    assert "n3" not in rig.replica.view


def test_a_change_waits_for_the_slots_below_it_and_lets_none_in_above():
    """Slots below are committed first (M1), nothing is assigned above before it is committed."""
    rig = coordinator()
    rig.submit(operation(1))
    assert ask(rig, "protocol", "active") is None
    rig.wait(TICK)
    rig.submit(operation(2))
    assert [slot for slot, *_ in rig.slots()] == [1]
    rig.accept_all()
    rig.serve(TICK, matched=1)
    assert [slot for slot, _ in proposals(rig)] == [2]
    rig.accept_all()
    assert rig.changes == [(1, None)]


def test_those_who_lost_their_vote_learn_of_it():
    """Nobody announces to a removed voter that its removal is committed: it gets the configuration instead.

    But not before a majority of the others has applied the entry: until then its vote may be needed to find it again.
    """
    rig = coordinator()
    rig.take_sent()
    assert ask(rig, "remove", "n3") is None
    assert carry_out(rig) == DONE
    rig.serve(2 * HEARTBEAT, "n2", applied=0)
    assert [message for to, message in rig.sent if to == "n3" and isinstance(message, m.Introduce)] == []
    rig.serve(2 * HEARTBEAT, "n2", applied=rig.replica.committed)
    said = [message for to, message in rig.sent if to == "n3" and isinstance(message, m.Introduce)]
    assert Configuration.decode(said[-1].configuration).nodes() == ("n1", "n2")


def test_a_second_voter_does_not_cost_the_office():
    """One voter becomes two: the newcomer cannot have answered yet, and the office goes on while it begins to."""
    rig = coordinator(1, configuration=with_mirror(1))
    follow(rig)
    assert ask(rig, "promote", "n9") is None
    rig.wait(2 * TICK)
    assert rig.changes == [(1, None)]
    rig.wait(LEASE // 2)
    assert rig.replica.role == "coordinator"
    rig.wait(LEASE)
    assert rig.replica.role != "coordinator"


def test_an_office_is_moved_to_the_voter_that_was_named():
    """Grants end, the office is released to the successor, and the process stays in the group."""
    rig = coordinator()
    assert ask(rig, "move", "n3") is None
    epoch = rig.replica.epoch
    assert carry_out(rig) == DONE
    assert m.Release(epoch, "n3") in rig.of(m.Release)
    assert rig.replica.role == "follower"
    assert not rig.replica.state.leaving


def test_requests_wait_for_slots_while_an_office_is_about_to_be_moved():
    """Until the last grants have ended the office goes on as before."""
    rig = coordinator()
    assert ask(rig, "move", "n3") is None
    rig.serve(TICK)
    rig.submit(operation(1))
    assert [slot for slot, *_ in rig.slots()] == [1]


def test_a_change_that_loses_its_office_is_not_answered():
    """The next coordinator is asked again, by whoever wants to know."""
    rig = coordinator()
    assert ask(rig, "remove", "n3") is None
    rig.step("n2", m.Heartbeat(epoch_of("n2", 9), 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, b"", 0, b""))
    rig.wait(TICK)
    assert rig.changes == []
    assert ("n2", m.ChangeRequest(7, 1, 1, "remove", "n3")) in rig.sent


def test_a_copy_of_a_request_from_before_another_change_is_refused():
    """It was dealt with by another coordinator, which nobody here remembers; what came after it stays."""
    rig = coordinator(configuration=with_mirror())
    late = m.ChangeRequest(5, 1, version(rig) - 1, "remove", "n9")
    ((to, answer),) = rig.step("n2", late)
    assert to == "n2"
    assert answer.code == "outdated"
    assert "has changed since" in answer.sentence


def test_a_change_that_came_true_meanwhile_is_done():
    """An entry of the coordinator before can do what this one was asked for: nothing is proposed twice."""
    rig = coordinator()
    assert ask(rig, "add", "n9") is None
    rig.replica.state.configuration = rig.replica.state.configuration.with_mirror("n9", 0)
    rig.serve(2 * TICK, matched=0)
    assert proposals(rig) == []
    assert rig.changes == [(1, None)]


# --- from other nodes -------------------------------------------------------------------------------------------------


def test_a_request_that_comes_twice_is_carried_out_once():
    """A duplicate that arrives after the refusal must not begin what was refused."""
    rig = coordinator(configuration=with_mirror())
    request = m.ChangeRequest(5, 1, version(rig), "promote", "n9")
    answers = rig.step("n2", request)
    assert answers == [
        ("n2", m.ChangeOutcome(5, 1, "silent", "n9 was not heard of lately: see that it runs and reaches n1"))
    ]
    follow(rig)
    assert rig.step("n2", request) == answers
    rig.serve(4 * HEARTBEAT)
    assert proposals(rig) == []


def test_mirrors_may_ask_and_strangers_may_not():
    """Whoever the configuration does not name is not heard."""
    rig = coordinator(configuration=with_mirror())
    assert rig.step("n9", m.ChangeRequest(5, 1, version(rig), "add", "n9")) == [("n9", m.ChangeOutcome(5, 1, "", ""))]
    assert rig.step("n8", m.ChangeRequest(5, 1, version(rig), "add", "n8")) == []


def test_a_follower_asks_the_coordinator_until_it_answers():
    """A request is sent again after a while, and at once to a new coordinator; the answer ends it."""
    rig = Rig()
    rig.follow("n2")
    rig.take_sent()
    number, effects = rig.replica.request_change("add", "n4", rig.now)
    rig.take(effects)
    request = m.ChangeRequest(7, number, 1, "add", "n4")
    assert rig.take_sent(m.ChangeRequest) == [("n2", request)]
    rig.follow("n2", sequence=2)
    rig.wait(LEASE + TICK)
    rig.follow("n3", epoch=epoch_of("n3", 2))
    rig.wait(TICK)
    assert rig.take_sent(m.ChangeRequest) == [("n2", request), ("n3", request)]
    rig.step("n3", m.ChangeOutcome(8, number, "", ""))
    assert rig.changes == []  # it was meant for another process
    rig.step("n3", m.ChangeOutcome(7, number, "behind", "because"))
    rig.step("n3", m.ChangeOutcome(7, number, "", ""))
    assert rig.changes == [(number, Refusal(RefusalCode.BEHIND, "because"))]


@pytest.mark.parametrize(
    ("sentence", "refusal"),
    [("", None), ("n4 is the last voter", Refusal(RefusalCode.LAST_VOTER, "n4 is the last voter"))],
)
def test_a_coordinator_that_is_not_yet_upgraded_answers_in_words(sentence, refusal):
    """Its sentence gets the code that it means."""
    rig = Rig()
    rig.follow("n2")
    number, effects = rig.replica.request_change("add", "n4", rig.now)
    rig.take(effects)
    rig.step("n2", m.ChangeAnswer(8, number, sentence))
    assert rig.changes == []
    rig.step("n2", m.ChangeAnswer(7, number, sentence))
    assert rig.changes == [(number, refusal)]


def test_requests_that_wait_are_bounded():
    """Without a coordinator requests wait, and no more than so many."""
    rig = Rig()
    for _ in range(WAITING_MAX):
        assert ask(rig, "add", "n4") is None
    assert ask(rig, "add", "n4") == f"{WAITING_MAX} changes wait here for the coordinator already: ask again later"


# --- those who change -------------------------------------------------------------------------------------------------


def entry(configuration):
    return encode_batch(CONFIGURATION, configuration.encode())


def test_a_voter_that_is_demoted_is_a_mirror_and_follows_on():
    """It votes no more, and fetches from the coordinator."""
    rig = Rig("n3")
    epoch = epoch_of("n1")
    demoted = configuration_of().with_demoted("n3", 1)
    rig.step("n1", m.Accept(epoch, 1, 1, 0, (entry(demoted),)))
    rig.step("n1", m.Committed(epoch, 1, 1))
    assert rig.replica.role == "mirror"
    rig.take_sent()
    rig.step("n1", m.Accept(epoch, 1, 2, 1, (batch(1),)))
    assert rig.take_sent(m.Accepted) == []
    rig.step("n1", m.MirrorHeartbeat(epoch, demoted.version, 2, 0, b"", 0, b""))
    assert rig.take_sent(m.FetchSlots) == [("n1", m.FetchSlots(2))]


def test_a_mirror_that_is_promoted_votes_from_its_entry_on():
    """It promises the epoch that admitted it, and accepts what comes after its entry."""
    durable = durable_state(formed=False)
    durable.formation = with_mirror().encode()
    rig = Rig("n9", durable=durable)
    assert rig.replica.role == "mirror"
    promoted = with_mirror().with_voter("n9", disk_of("n9"), 1)
    epoch = epoch_of("n1", 4)
    rig.step("n1", m.Slots(1, 1, ((1, epoch, 0, entry(promoted)),)))
    assert rig.replica.role == "follower"
    assert rig.replica.state.promised == epoch
    rig.step("n1", m.Accept(epoch, 1, 2, 1, (batch(1),)))
    assert rig.of(m.Accepted) == [m.Accepted(epoch, 2, False)]


def test_a_voter_that_was_removed_while_it_was_away_learns_so():
    """A voter's answer to its introduction names the configuration; it stands for election no more."""
    rig = Rig("n3")
    removed = configuration_of().without("n3", 5)
    rig.step("n1", m.Introduce(3, 7, disk_of("n1"), "formed", 5, 5, removed.encode()))
    assert rig.replica.role == "removed"
    assert FormationRecord(removed.encode()) in rig.records
    rig.take_sent()
    sent = rig.wait(5_000_000)
    assert 3 <= len([to for to, message in sent if to == "n1" and isinstance(message, m.Introduce)]) <= 6
    assert {type(message) for _, message in sent} == {m.Introduce}


def test_a_configuration_that_gives_a_vote_is_taken_from_the_log_only():
    """A new voter must have the slots that its admission follows (M4)."""
    durable = durable_state(formed=False)
    durable.formation = with_mirror().encode()
    rig = Rig("n9", durable=durable)
    promoted = with_mirror().with_voter("n9", disk_of("n9"), 3)
    rig.step("n1", m.Introduce(3, 7, disk_of("n1"), "formed", 5, 5, promoted.encode()))
    assert rig.replica.role == "mirror"
    assert rig.replica.state.configuration == with_mirror()


def test_a_configuration_that_the_log_refutes_is_not_learnt():
    """A branch of this group goes on elsewhere, without this disk; its slot holds something else here."""
    entries = [(slot, epoch_of("n1"), batch(slot)) for slot in (1, 2)]
    rig = Rig("n3", entries=entries, committed=2)
    branch = configuration_of().without("n3", 2)
    rig.step("n2", m.Introduce(3, 7, disk_of("n2"), "formed", 5, 5, branch.encode()))
    assert rig.replica.role == "follower"
    assert rig.replica.state.configuration == configuration_of()


@pytest.mark.parametrize("true", [False, True])
def test_who_finds_something_else_in_the_slot_of_what_it_learnt_gives_its_disk_up(true):
    """The configuration, or the log, is of another past: it cannot tell which, and would have no vote for ever."""
    rig = Rig("n3", entries=[(1, epoch_of("n1"), batch(1))], committed=1)
    learnt = configuration_of().without("n3", 2)
    rig.step("n2", m.Introduce(3, 7, disk_of("n2"), "formed", 5, 5, learnt.encode()))
    assert rig.replica.role == "removed"
    entry = encode_batch(CONFIGURATION, learnt.encode()) if true else batch(2)
    rig.step("n2", m.Slots(2, 2, ((2, epoch_of("n1"), 0, entry),)))
    assert rig.replica.committed == 2
    assert ("slot 2 does not hold the configuration" in rig.forgotten) is not true


def test_the_first_configuration_of_a_generation_is_in_no_slot():
    """It was settled outside the log: the slot that it names holds what was logged before (M5)."""
    heard = configuration_of().recovered("n2", disk_of("n2"), 2)
    durable = durable_state(entries=[(1, epoch_of("n1"), batch(1))], committed=1, formed=False)
    durable.formation = heard.encode()
    rig = Rig("n3", durable=durable)
    rig.step("n2", m.Slots(2, 2, ((2, epoch_of("n1"), 0, batch(2)),)))
    assert rig.replica.committed == 2
    assert not rig.forgotten


# --- a past that was given up -----------------------------------------------------------------------------------------


def test_a_disk_of_a_past_that_was_given_up_forgets_all():
    """A voter that hears of a recovered group without it holds slots that may never have been."""
    rig = Rig("n3")
    recovered = configuration_of().recovered("n1", disk_of("n1"), 5)
    rig.step("n1", m.Introduce(3, 7, disk_of("n1"), "formed", 5, 5, recovered.encode()))
    assert f"configuration {GENERATION_STRIDE}" in rig.forgotten
    assert rig.replica.state.configuration == configuration_of()


def test_a_mirror_compares_configurations_before_it_follows_a_recovered_group():
    """A heartbeat of another generation is answered with an introduction only."""
    durable = durable_state(formed=False)
    durable.formation = with_mirror().encode()
    rig = Rig("n9", durable=durable)
    rig.take_sent()
    rig.step("n1", m.MirrorHeartbeat(epoch_of("n1", 9), GENERATION_STRIDE + 1, 8, 0, b"", 0, b""))
    [(to, said)] = rig.take_sent()
    assert (to, type(said), said.configuration) == ("n1", m.Introduce, with_mirror().encode())
    rig.wait(10 * HEARTBEAT)
    assert rig.of(m.FetchSlots) == []


def test_the_recovered_node_fetches_nothing_from_the_past():
    """Slots that a node of an older generation calls committed are not this group's any more."""
    durable = durable_state()
    durable.formation = configuration_of().recovered("n1", disk_of("n1"), 0).encode()
    rig = Rig(durable=durable)
    rig.step("n2", m.Introduce(3, 7, disk_of("n2"), "formed", 50, 50, configuration_of().encode()))
    rig.wait(5 * HEARTBEAT)
    assert rig.of(m.FetchSlots) == []
    assert rig.replica.coordinator in {"", "n1"}


def test_a_recovered_group_serves_alone():
    """Its one voter is a majority."""
    durable = durable_state()
    durable.formation = configuration_of().recovered("n1", disk_of("n1"), 0).encode()
    rig = Rig(durable=durable)
    rig.wait(10 * LEASE)
    assert rig.replica.role == "coordinator"
    rig.submit(operation(1))
    assert rig.replica.committed == 1
