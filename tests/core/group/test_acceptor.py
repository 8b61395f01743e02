import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.group.log import value_digest
from replicad.core.journal.records import PromiseRecord
from replicad.core.model import messages as m
from replicad.core.model.errors import InvariantError
from tests.core.group.rigs import (
    BEGIN,
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
    heartbeat,
)

N2, N3 = epoch_of("n2"), epoch_of("n3", 2)
"""Two epochs of two coordinators, the second one higher."""


def accept(epoch, first, *values, committed=0, start=1):
    return m.Accept(epoch, start, first, committed, values)


def prepare(epoch, from_slot=1, predecessor=0):
    return m.Prepare(epoch, 5, from_slot, predecessor)


# --- accepting (A1, A2) ---------------------------------------------------------------------------------------------


def test_acceptance_is_told_only_when_it_is_durable():
    """Nothing of an Accept leaves the node before its records are on disk."""
    rig = Rig(flushing=False)
    assert rig.step("n2", accept(N2, 1, batch(1), batch(2))) == []
    assert rig.slots() == [(1, N2, batch(1)), (2, N2, batch(2))]
    assert rig.flush() == [("n2", m.Accepted(N2, 2, False))]


def test_another_value_at_an_equal_ballot_stops_the_process():
    """A coordinator never proposes two values for one slot in one epoch: whoever sees it stops (A1)."""
    rig = Rig()
    rig.step("n2", accept(N2, 1, batch(1)))
    with pytest.raises(InvariantError, match="same ballot"):
        rig.step("n2", accept(N2, 1, batch(2)))


def test_a_repeated_accept_is_answered_and_not_logged_again():
    """A duplicate changes nothing and gets the same answer."""
    rig = Rig()
    rig.step("n2", accept(N2, 1, batch(1)))
    assert rig.step("n2", accept(N2, 1, batch(1))) == [("n2", m.Accepted(N2, 1, False))]
    assert len(rig.slots()) == 1


def test_an_old_epochs_accept_is_refused():
    """A coordinator below one's promise is told of it, and nothing is accepted."""
    rig = Rig()
    rig.step("n3", accept(N3, 1, batch(1)))
    assert rig.step("n2", accept(N2, 2, batch(2))) == [("n2", m.Rejected(N2, N3))]
    assert rig.slots() == [(1, N3, batch(1))]


def test_a_higher_epoch_overwrites_what_was_only_accepted():
    """Accepting at a higher ballot promises its epoch and replaces the value."""
    rig = Rig()
    rig.step("n2", accept(N2, 1, batch(1)))
    rig.step("n3", accept(N3, 1, batch(9)))
    assert rig.slots()[-1] == (1, N3, batch(9))
    assert rig.records.index(PromiseRecord(N3)) < len(rig.records) - 1
    assert rig.replica.coordinator == "n3"


def test_a_gap_is_asked_for():
    """What comes out of order is kept; the answer counts what is complete, and says that something is missing."""
    rig = Rig()
    rig.step("n2", accept(N2, 1, batch(1)))
    assert rig.step("n2", accept(N2, 3, batch(3))) == [("n2", m.Accepted(N2, 1, True))]
    assert rig.step("n2", accept(N2, 2, batch(2), batch(3))) == [("n2", m.Accepted(N2, 3, False))]
    assert [slot for slot, *_ in rig.slots()] == [1, 3, 2]


def test_a_full_disk_accepts_nothing():
    """A member whose disk is full neither logs nor answers."""
    rig = Rig()
    rig.take(rig.replica.set_full(full=True, now=rig.now))
    assert rig.step("n2", accept(N2, 1, batch(1))) == []
    assert rig.slots() == []


def test_an_old_disk_counts_for_nothing():
    """A message from a disk that is not the member's current one is ignored (M4)."""
    rig = Rig()
    assert rig.step("n2", accept(N2, 1, batch(1)), disk="an older disk") == []
    assert rig.step("n2", prepare(N2), disk="an older disk") == []
    assert rig.records == []


def test_a_member_that_was_not_yet_admitted_keeps_silent():
    """A disk that the configuration does not name neither accepts, promises nor votes (M4)."""
    rig = Rig(disk="a new disk")
    rig.wait(2 * LEASE)
    rig.take_sent()
    for message in (accept(N2, 1, batch(1)), prepare(N3), m.PreVote(N3, 1, 0), heartbeat(N2)):
        assert rig.step("n2", message) == []
    assert rig.records == []


@given(st.lists(st.tuples(st.sampled_from([N2, N3]), st.integers(1, 6), st.integers(1, 3)), max_size=12))
def test_acceptances_are_always_a_prefix_at_the_newest_epoch(accepts):
    """Whatever Accepts arrive in whatever order, `matched` counts a gapless run, accepted at the answer's epoch."""
    rig = Rig()
    for epoch, first, count in accepts:
        values = [batch(epoch + slot) for slot in range(first, first + count)]
        sender = "n2" if epoch == N2 else "n3"
        for _, answer in rig.step(sender, accept(epoch, first, *values)):
            if isinstance(answer, m.Accepted):
                newest = {slot: held for slot, held, _ in rig.slots()}
                assert all(newest.get(slot) == answer.epoch for slot in range(1, answer.matched + 1))
                assert answer.gap == (first > answer.matched + 1)
            else:
                assert answer == m.Rejected(N2, N3)


# --- promising (E2) -------------------------------------------------------------------------------------------------


def settled(**fields):
    """A voter whose loyalty since its start has run out."""
    rig = Rig(**fields)
    rig.now += LEASE
    return rig


def test_a_promise_leaves_only_when_it_is_durable():
    """The promise is on disk before the candidate hears of it."""
    rig = settled(flushing=False)
    assert rig.step("n3", prepare(N3)) == []
    assert rig.records == [PromiseRecord(N3)]
    [(to, answer)] = rig.flush()
    assert (to, answer.epoch, answer.attempt) == ("n3", N3, 5)


def test_a_promise_reports_what_is_still_being_flushed():
    """A candidate hears of every accepted slot, also of those that are not on disk yet (E2)."""
    rig = settled(flushing=False)
    rig.step("n2", accept(N2, 1, batch(1), batch(2)))
    rig.step("n3", prepare(N3))
    promises = [message for _, message in rig.flush() if isinstance(message, m.Promise)]
    assert promises == [
        m.Promise(N3, 5, 0, 0, 2, 1, 2, ((1, N2, 0, value_digest(batch(1))), (2, N2, 0, value_digest(batch(2)))))
    ]


def test_a_long_report_comes_in_pages_without_holes():
    """The pages of a promise together report every slot once."""
    entries = [(slot, N2, batch(slot)) for slot in range(1, 2 * LIMITS.page_entries + 6)]
    rig = settled(entries=entries)
    reported, first = [], 1
    while True:
        [(_, page)] = rig.step("n3", prepare(N3, from_slot=first))
        assert page.from_slot == first
        reported += [entry[0] for entry in page.entries]
        if page.to_slot >= page.highest:
            break
        first = page.to_slot + 1
    assert reported == [slot for slot, *_ in entries]
    assert rig.records == [PromiseRecord(N3)]


def test_a_lower_epoch_gets_no_promise():
    """A candidate below one's promise is told of it."""
    rig = settled(promised=N3)
    assert rig.step("n2", prepare(N2)) == [("n2", m.Rejected(N2, N3))]
    assert rig.records == []


def test_values_go_to_the_candidate_that_holds_the_promise_only():
    """A candidate of another epoch gets no values."""
    rig = settled(entries=[(1, N2, batch(1))])
    rig.step("n3", prepare(N3))
    assert rig.step("n2", m.FetchValues(N2, (1,))) == []
    assert rig.step("n3", m.FetchValues(N3, (1, 7))) == [("n3", m.Values(N3, ((1, N2, 0, batch(1)),)))]


# --- loyalty (L1) ---------------------------------------------------------------------------------------------------


def promises(rig, epoch=N3, predecessor=0):
    """Return whether the rig promises this epoch now."""
    sent = rig.step("n3", prepare(epoch, predecessor=predecessor))
    return any(isinstance(message, m.Promise) for _, message in sent)


@pytest.mark.parametrize(("passed", "granted"), [(0, False), (LEASE - 1, False), (LEASE, True)])
def test_nothing_is_promised_for_a_lease_length_after_a_start(passed, granted):
    """A voter may have acknowledged a heartbeat just before it restarted, so it waits."""
    rig = Rig()
    rig.now = BEGIN + passed
    assert promises(rig) is granted
    assert (PromiseRecord(N3) in rig.records) is granted


@pytest.mark.parametrize(("passed", "granted"), [(0, False), (LEASE - 1, False), (LEASE, True)])
def test_nothing_is_promised_for_a_lease_length_after_a_heartbeat(passed, granted):
    """Whoever acknowledged a heartbeat stays with its coordinator for a lease length."""
    rig = settled()
    rig.now += 12_345
    rig.follow("n2")
    rig.now += passed
    pre_vote = rig.step("n3", m.PreVote(N3, 1, 0))
    assert pre_vote == [("n3", m.PreVoteAnswer(N3, 1, granted, N2))]
    assert promises(rig) is granted


def test_a_pre_vote_promises_nothing():
    """A pre-vote that is granted leaves nothing behind."""
    rig = settled()
    assert rig.step("n3", m.PreVote(N3, 1, 0)) == [("n3", m.PreVoteAnswer(N3, 1, True, 0))]
    assert rig.records == []


def test_the_coordinators_own_next_epoch_overrides_loyalty():
    """A coordinator that stands again above a promise gets it at once, another candidate does not (E5)."""
    rig = settled()
    rig.follow("n2")
    assert not promises(rig, epoch_of("n3", 2))
    assert not promises(rig, epoch_of("n3", 2), predecessor=epoch_of("n3"))
    assert promises(rig, epoch_of("n2", 2), predecessor=N2)


def test_a_release_ends_loyalty_to_its_epoch_only():
    """Only the coordinator that one is loyal to can release one."""
    rig = settled()
    rig.follow("n2")
    rig.step("n2", m.Release(N2 + 1, ""))
    rig.step("n3", m.Release(N2, ""))
    assert not promises(rig)
    rig.step("n2", m.Release(N2, ""))
    assert promises(rig)


def test_the_successor_named_by_a_release_stands_at_once():
    """After a hand-over nobody waits for a lease length, the successor not even for its next tick."""
    rig = settled()
    rig.follow("n2")
    sent = rig.step("n2", m.Release(N2, "n1"))
    assert [to for to, message in sent if isinstance(message, m.PreVote)] == ["n2", "n3"]


def test_who_is_not_named_by_a_release_leaves_the_successor_time():
    """The others stand by their rank, so that the successor rarely meets a rival."""
    rig = settled(node="n3")
    rig.follow("n2")
    rig.step("n2", m.Release(N2, "n1"))
    assert not any(isinstance(message, m.PreVote) for _, message in rig.wait(LIMITS.stagger_us))


# --- watermarks (C3) ------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([N2, N3]), min_size=1, max_size=6), st.integers(0, 8))
def test_a_watermark_vouches_only_for_values_of_its_ballot(epochs, committed):
    """Only a gapless run of values accepted at the watermark's ballot or higher is committed by it."""
    entries = [(slot, epoch, batch(slot)) for slot, epoch in enumerate(epochs, 1)]
    rig = Rig(entries=entries)
    rig.step("n3", m.Committed(N3, 1, committed))
    expected = 0
    while expected < min(committed, len(epochs)) and epochs[expected] == N3:
        expected += 1
    assert rig.replica.committed == expected
    assert [slot for slot, _ in rig.applied] == list(range(1, expected + 1))


def test_a_watermark_that_overtakes_its_slots_is_remembered():
    """Accepts travel on another connection; slots are committed as soon as they arrive."""
    rig = Rig()
    rig.step("n2", m.Committed(N2, 1, 2))
    rig.step("n2", accept(N2, 1, batch(1), batch(2), batch(3)))
    assert rig.replica.committed == 2


def test_a_committed_slot_is_applied_once_it_is_durable_here():
    """What the own disk might lose is not applied."""
    rig = Rig(flushing=False)
    rig.step("n2", accept(N2, 1, batch(1), committed=1))
    assert rig.applied == []
    rig.flush()
    assert rig.applied == [(1, batch(1))]


# --- heartbeats and leases (L3, R1, V2) -----------------------------------------------------------------------------


def granted(rig, *, request=None, duration=LEASE, boot=7, slot=0, **fields):
    if rig.replica.coordinator != "n2":
        rig.follow("n2")  # following a new epoch drops the lease, so the request must be later
        rig.now += 1
    rig.follow("n2", grant_boot=boot, grant_request=request or rig.now, grant_us=duration, grant_slot=slot, **fields)


def test_heartbeats_are_answered_at_once_and_count_what_is_durable():
    """A stuck disk does not delay the answer, and is not hidden by it."""
    rig = Rig(flushing=False)
    rig.follow("n2")
    rig.flush()
    rig.step("n2", accept(N2, 1, batch(1)))
    [(_, answer)] = rig.follow("n2")
    assert answer.matched == 0
    rig.flush()
    [(_, answer)] = rig.follow("n2")
    assert answer.matched == 1


def test_a_lease_ends_counted_from_the_own_request():
    """However late a grant arrives, the lease ends d(1-ρ) after the request for it (L3)."""
    rig = Rig()
    rig.follow("n2")
    rig.now += 1
    request = rig.now
    rig.now += 100_000
    granted(rig, request=request, duration=200_000)
    end = request + LIMITS.shortened(200_000)
    assert rig.replica.read_slot(end - 1) == 0
    assert rig.replica.read_slot(end) is None


@pytest.mark.parametrize("fields", [{"boot": 8}, {"duration": 0}])
def test_a_grant_for_another_process_is_none(fields):
    """A grant for an earlier process of this node, or of no length, gives no lease."""
    rig = Rig()
    granted(rig, **fields)
    assert rig.replica.read_slot(rig.now) is None


def test_a_read_waits_for_the_grants_slot_and_for_what_was_accepted():
    """A local read waits for b, and for everything accepted in this epoch (R1)."""
    rig = Rig()
    granted(rig, slot=4)
    assert rig.replica.read_slot(rig.now) == 4
    rig.step("n2", accept(N2, 1, *[batch(slot) for slot in range(1, 8)]))
    assert rig.replica.read_slot(rig.now) == 7


def test_a_read_does_not_wait_for_what_a_dead_epoch_left():
    """A slot accepted in an older epoch may never be decided, so no read waits for it (R1)."""
    rig = Rig(entries=[(1, N2, batch(1))])
    rig.step("n3", heartbeat(N3))
    rig.now += 1
    rig.step("n3", heartbeat(N3, grant_boot=7, grant_request=rig.now, grant_us=LEASE))
    assert rig.replica.read_slot(rig.now) == 0


def test_a_promise_to_another_epoch_ends_the_lease():
    """After a promise above its epoch a holder reads no more, whatever its lease said (A1)."""
    rig = Rig()
    granted(rig)
    rig.step("n3", accept(N3, 1, batch(1)))
    assert rig.replica.read_slot(rig.now) is None


def test_a_lease_that_was_given_back_is_not_taken_again():
    """A grant for a request made before the lease was given back gives no new lease (V2)."""
    rig = Rig()
    request = rig.now
    rig.take(rig.replica.set_full(full=True, now=rig.now))
    [(_, answer)] = rig.follow("n2")
    assert answer.lease_request == 0
    rig.take(rig.replica.set_full(full=False, now=rig.now))
    rig.now += 1_000
    granted(rig, request=request)
    assert rig.replica.read_slot(rig.now) is None
    granted(rig, request=rig.now)
    assert rig.replica.read_slot(rig.now) == 0


def test_a_hanging_disk_gives_the_lease_back():
    """A flush that takes longer than `stall_after` costs the lease; heartbeats go on (V2)."""
    rig = Rig(flushing=False)
    rig.follow("n2")
    rig.step("n2", accept(N2, 1, batch(1)))
    rig.now += LIMITS.stall_after_us
    assert rig.follow("n2")[-1][1].lease_request == rig.now
    rig.now += 1
    assert rig.follow("n2")[-1][1].lease_request == 0
    rig.flush()
    rig.now += HEARTBEAT
    assert rig.follow("n2")[-1][1].lease_request == 0
    rig.now += 4 * LIMITS.stall_after_us
    assert rig.follow("n2")[-1][1].lease_request == rig.now


def test_a_disk_older_than_its_acknowledgements_is_given_up():
    """A member that is said to have acknowledged more than its log holds is not the member it was (M4)."""
    rig = Rig(entries=[(1, N2, batch(1))])
    assert rig.follow("n2", acknowledged=1) != []
    assert rig.forgotten == ""
    rig.follow("n2", acknowledged=2)
    assert "slot 2 was acknowledged by this disk" in rig.forgotten


def test_an_epoch_with_two_coordinators_stops_the_process():
    """Two coordinators of one epoch are impossible; seeing them stops the process."""
    rig = Rig()
    rig.follow("n2")
    with pytest.raises(InvariantError, match="at most one coordinator"):
        rig.step("n3", heartbeat(N2))


def test_disks_are_told_apart():
    """The rig's disks are those of the configuration, so that the tests above test what they say."""
    configuration = Rig().replica.state.configuration
    assert [member.disk for member in configuration.members] == [disk_of(name) for name in ("n1", "n2", "n3")]


# --- offices and newcomers ------------------------------------------------------------------------------------------


def test_the_coordinator_that_one_followed_is_refused_after_a_promise():
    """Once another epoch is promised, nothing of the old one is accepted, although one followed it just before (A1)."""
    rig = settled()
    rig.step("n2", accept(N2, 1, batch(1)))
    rig.now += LEASE
    assert promises(rig)
    assert rig.step("n2", accept(N2, 2, batch(2))) == [("n2", m.Rejected(N2, N3))]
    assert [slot for slot, *_ in rig.slots()] == [1]


def test_a_promise_reports_what_is_decided():
    """A candidate hears how far the voter's committed prefix goes, and of decided slots from where it asks (E2)."""
    rig = settled(entries=[(1, N2, batch(1)), (2, N2, batch(2))], committed=2)
    rig.wait(TICK)
    rig.step("n3", m.DigestCompared(7, 2, bytes(16)))
    [(_, answer)] = rig.step("n3", prepare(N3, from_slot=2))
    assert answer.committed == 2
    assert [entry[0] for entry in answer.entries] == [2]


def test_a_coordinator_promises_nobody_under_its_own_authority():
    """Its own grants and its authority bind it like any voter (L1)."""
    rig = Rig()
    rig.elect()
    rig.serve(2 * LEASE)
    later = epoch_of("n3", 9)
    assert not promises(rig, later)
    assert rig.replica.role == "coordinator"
    rig.now += LEASE
    assert promises(rig, later)


def test_a_coordinator_that_promises_another_leaves_its_office():
    """A promise above the own epoch drops the role (A1)."""
    rig = Rig()
    rig.elect()
    assert rig.replica.role == "coordinator"
    rig.now += LEASE
    assert promises(rig, epoch_of("n3", 9))
    assert rig.replica.role == "follower"


def admitted(since, **fields):
    """A durable state that knows its disk's admission at slot ``since``."""
    durable = durable_state(**fields)
    durable.formation = configuration_of().with_disk("n1", "a new disk", since).encode()
    return durable


def test_a_disk_that_lacks_its_own_admission_keeps_silent():
    """A newcomer that knows the configuration, but not all slots up to it, neither accepts nor promises (M4)."""
    rig = Rig(disk="a new disk", durable=admitted(5, entries=[(1, N2, batch(1))], committed=1))
    rig.now += LEASE
    assert rig.replica.role == "learner"
    assert not promises(rig)
    assert rig.step("n2", accept(N2, 2, batch(2))) == []
    assert rig.records == []


def test_a_new_voter_waits_for_a_lease_length():
    """A disk that has just become a voter promises nothing for as long as the one before it may be bound (L1)."""
    rig = Rig(disk="a new disk", durable=admitted(2, entries=[(1, N2, batch(1))], committed=1))
    rig.now += 2 * LEASE
    rig.step("n2", m.Slots(2, 2, ((2, N2, 0, batch(2)),)))
    assert rig.replica.role == "follower"
    rig.now += LEASE - 1
    assert not promises(rig)
    rig.now += 1
    assert promises(rig)
