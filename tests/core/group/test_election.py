import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.group.log import value_digest
from replicad.core.journal.records import PromiseRecord
from replicad.core.model import messages as m
from replicad.core.model.ids import epoch_number, make_epoch
from replicad.core.model.operations import CONFIGURATION, NOOP_BATCH, encode_batch
from tests.core.group.rigs import HEARTBEAT, LEASE, TICK, Rig, batch, configuration_of, epoch_of, operation, promise

EPOCHS = [make_epoch(counter, number) for counter in (1, 2, 3) for number in (1, 2, 3)]


def summary(slot, epoch, value):
    return (slot, epoch, 0, value_digest(value))


def value_at(slot, epoch):
    """The one value that could have been proposed for a slot in an epoch."""
    return batch(slot, value=b"%d" % epoch)


def candidate(**fields):
    """A rig that has asked all others to promise, and its Prepare."""
    rig = Rig(**fields)
    rig.until(m.PreVote)
    return rig, rig.vote()


def proposed(rig):
    """Return ``slot -> value`` of everything proposed in the rig's own epoch."""
    return {slot: value for slot, epoch, value in rig.slots() if epoch == rig.replica.epoch}


def serve_values(rig, voters):
    """Answer every FetchValues and FetchSlots from what the voters hold: ``name -> {slot: epoch}``."""
    for _ in range(30):
        asked = [(to, message) for to, message in rig.take_sent() if isinstance(message, m.FetchValues)]
        if not asked:
            return
        for to, message in asked:
            entries = [(s, voters[to][s], 0, value_at(s, voters[to][s])) for s in message.slots if s in voters[to]]
            rig.step(to, m.Values(message.epoch, tuple(entries)))


# --- choosing (E3) --------------------------------------------------------------------------------------------------

HELD = st.dictionaries(st.integers(1, 5), st.sampled_from(EPOCHS), max_size=5)


@settings(max_examples=60)
@given(HELD, HELD, HELD, st.sampled_from([("n2", "n3"), ("n3", "n2")]))
def test_the_value_of_the_highest_ballot_is_proposed_again(own, second, third, answering):
    """For every open slot the candidate proposes what the highest ballot of its majority had, or a no-op."""
    voters = {"n2": second, "n3": third}
    rig, prepare = candidate(entries=[(slot, epoch, value_at(slot, epoch)) for slot, epoch in own.items()])
    rig.take_sent()
    for name in answering:
        held = sorted(voters[name].items())
        rig.step(name, promise(prepare, entries=[summary(slot, epoch, value_at(slot, epoch)) for slot, epoch in held]))
    serve_values(rig, voters)
    assert rig.replica.role == "coordinator"
    # Its own report and the first answer are a majority; what comes later changes nothing any more.
    reports = [own, voters[answering[0]]]
    highest = max([0, *(slot for report in reports for slot in report)])
    expected = {}
    for slot in range(1, highest + 1):
        ballots = [report[slot] for report in reports if slot in report]
        expected[slot] = value_at(slot, max(ballots)) if ballots else NOOP_BATCH
    assert proposed(rig) == expected


def test_two_reports_of_one_slot_are_settled_by_the_ballot():
    """The higher ballot wins, whoever reported it, and whatever the candidate itself holds."""
    low, high = epoch_of("n2", 1), epoch_of("n3", 2)
    rig, prepare = candidate(count=5, entries=[(1, low, value_at(1, low))])
    rig.step("n4", promise(prepare, entries=[summary(1, low, value_at(1, low))]))
    rig.step("n5", promise(prepare, entries=[summary(1, high, value_at(1, high))]))
    assert rig.of(m.FetchValues) == [m.FetchValues(prepare.epoch, (1,))]
    assert rig.replica.role == "candidate"
    rig.step("n5", m.Values(prepare.epoch, ((1, high, 0, value_at(1, high)),)))
    assert rig.replica.role == "coordinator"
    assert proposed(rig) == {1: value_at(1, high)}


def test_a_value_that_was_not_reported_is_not_taken():
    """A candidate takes only the value whose digest the promise named."""
    high = epoch_of("n3", 2)
    rig, prepare = candidate()
    rig.step("n3", promise(prepare, entries=[summary(1, high, value_at(1, high))]))
    rig.step("n3", m.Values(prepare.epoch, ((1, high, 0, batch(77)),)))
    assert rig.replica.role == "candidate"
    assert rig.slots() == []


def test_holes_are_filled_with_no_ops():
    """A slot that nobody of a majority accepted is decided as a no-op, so that nothing waits for it."""
    high = epoch_of("n3", 2)
    rig, prepare = candidate()
    rig.step("n3", promise(prepare, entries=[summary(3, high, value_at(3, high))]))
    rig.step("n3", m.Values(prepare.epoch, ((3, high, 0, value_at(3, high)),)))
    assert proposed(rig) == {1: NOOP_BATCH, 2: NOOP_BATCH, 3: value_at(3, high)}


def test_new_writes_come_after_everything_that_was_found():
    """The first new slot is the one above the highest reported one."""
    high = epoch_of("n3", 2)
    rig, prepare = candidate()
    rig.step("n3", promise(prepare, entries=[summary(1, high, value_at(1, high))]))
    rig.step("n3", m.Values(prepare.epoch, ((1, high, 0, value_at(1, high)),)))
    rig.submit(operation(5))
    assert proposed(rig) == {1: value_at(1, high), 2: batch(5)}


def test_decided_slots_are_fetched_before_anything_is_proposed():
    """A candidate that lacks committed slots gets them first; it does not reopen them."""
    rig, prepare = candidate()
    rig.step("n3", promise(prepare, committed=2))
    assert rig.of(m.FetchSlots) == [m.FetchSlots(1)]
    assert rig.replica.role == "candidate"
    entries = tuple((slot, epoch_of("n3"), 0, batch(slot)) for slot in (1, 2))
    rig.step("n3", m.Slots(1, 2, entries))
    assert rig.replica.role == "coordinator"
    assert rig.replica.committed == 2
    assert proposed(rig) == {}


def test_who_lacks_truncated_slots_gives_up():
    """A candidate that would need a checkpoint first lets another stand."""
    rig, prepare = candidate()
    rig.step("n3", promise(prepare, committed=9, base=5))
    assert rig.replica.role == "follower"


def test_reads_wait_until_everything_found_is_applied():
    """A new coordinator serves no read before it has applied the highest reported slot (E3)."""
    high = epoch_of("n3", 2)
    rig, prepare = candidate(entries=[(1, high, value_at(1, high))])
    rig.step("n3", promise(prepare))
    rig.acknowledge(matched=0)
    assert rig.replica.role == "coordinator"
    assert rig.replica.read_slot(rig.now) is None
    rig.accept_all()
    assert rig.replica.read_slot(rig.now) == 1


# --- standing (E1, L1) ----------------------------------------------------------------------------------------------


def test_a_candidate_promises_to_itself_before_it_asks():
    """No Prepare leaves before the own promise is on disk (E1)."""
    rig = Rig(flushing=False)
    rig.until(m.PreVote)
    pre_vote = rig.of(m.PreVote)[-1]
    rig.step("n2", m.PreVoteAnswer(pre_vote.epoch, pre_vote.attempt, True, 0))
    assert rig.records == [PromiseRecord(pre_vote.epoch)]
    assert rig.of(m.Prepare) == []
    rig.flush()
    assert {prepare.epoch for prepare in rig.of(m.Prepare)} == {pre_vote.epoch}


def test_an_epoch_is_above_the_own_promise_and_ones_own():
    """A candidate's epoch is above everything it promised, and carries its disk's number."""
    promised = make_epoch(7, 3)
    rig = Rig(promised=promised)
    epoch = rig.until(m.PreVote).epoch
    assert epoch > promised
    assert epoch_number(epoch) == 1


def test_nobody_stands_while_a_coordinator_is_heard():
    """Heartbeats keep elections away."""
    rig = Rig()
    for sequence in range(1, 40):
        rig.follow("n2", sequence=sequence)
        rig.wait(HEARTBEAT)
    assert rig.of(m.PreVote) == []


def test_nobody_stands_within_a_lease_length_of_the_last_heartbeat():
    """The own loyalty binds candidates too, and then it takes no longer than the stagger."""
    rig = Rig()
    rig.wait(2 * TICK)
    rig.follow("n2")
    assert not any(isinstance(message, m.PreVote) for _, message in rig.wait(LEASE - TICK))
    rig.until(m.PreVote, patience=LEASE)


@pytest.mark.parametrize("lever", ["full", "rebuild", "leaving"])
def test_who_could_not_serve_does_not_stand(lever):
    """A full disk, a state that is being rebuilt, or a hand-over: others stand."""
    rig = Rig(rebuild=lever == "rebuild")
    if lever == "full":
        rig.take(rig.replica.set_full(full=True, now=rig.now))
    elif lever == "leaving":
        rig.take(rig.replica.hand_over(rig.now))
    rig.wait(5 * LEASE)
    assert rig.of(m.PreVote) == []


def test_a_pre_vote_without_a_majority_promises_nothing():
    """A node that is cut off stands again and again and raises nobody's epoch, not even its own."""
    rig = Rig()
    rig.wait(5_000_000)
    assert len({message.attempt for message in rig.of(m.PreVote)}) > 2
    assert len({message.epoch for message in rig.of(m.PreVote)}) == 1
    assert rig.records == []


def test_answers_to_an_earlier_attempt_do_not_count():
    """A late answer to an older candidacy gives no majority."""
    rig = Rig()
    first = rig.until(m.PreVote)
    rig.until(m.PreVote)
    assert rig.of(m.PreVote)[-1].attempt != first.attempt
    for peer in rig.peers:
        rig.step(peer, m.PreVoteAnswer(first.epoch, first.attempt, True, 0))
    assert rig.of(m.Prepare) == []


# --- counting (M2, M4) ----------------------------------------------------------------------------------------------


def test_one_promise_of_five_is_no_majority():
    """With two of five promises there is no office, with three there is."""
    rig, prepare = candidate(count=5)
    rig.step("n2", promise(prepare))
    assert rig.replica.role == "candidate"
    rig.step("n2", promise(prepare))
    assert rig.replica.role == "candidate"
    rig.step("n3", promise(prepare))
    assert rig.replica.role == "coordinator"


def test_the_promise_of_an_old_disk_does_not_count():
    """A disk that is not the member's current one promises nothing that counts (M4)."""
    rig, prepare = candidate()
    rig.step("n2", promise(prepare), disk="an older disk")
    assert rig.replica.role == "candidate"


def test_a_promise_counts_once_it_is_complete():
    """A voter whose report has another page is asked for it, and counts only after that."""
    high = epoch_of("n3", 2)
    rig, prepare = candidate()
    pages = [m.Promise(prepare.epoch, prepare.attempt, 0, 0, 2, s, s, (summary(s, high, batch(s)),)) for s in (1, 2)]
    sent = rig.step("n3", pages[0])
    assert [(to, message.from_slot) for to, message in sent if isinstance(message, m.Prepare)] == [("n3", 2)]
    assert rig.of(m.FetchValues) == []
    rig.step("n3", pages[1])
    assert rig.of(m.FetchValues) == [m.FetchValues(prepare.epoch, (1, 2))]


def test_a_rejection_makes_the_next_epoch_higher():
    """A candidate that meets a higher promise tries again above it."""
    rig, prepare = candidate()
    higher = make_epoch(9, 3)
    rig.step("n2", m.Rejected(prepare.epoch, higher))
    assert rig.replica.role == "follower"
    assert rig.until(m.PreVote).epoch > higher


def test_a_coordinator_that_is_rejected_stands_again_above():
    """A voter that promised a failed candidate is not locked out for ever (E5)."""
    rig = Rig()
    rig.elect()
    epoch = rig.replica.epoch
    rig.acknowledge("n2")
    higher = make_epoch(5, 3)
    rig.step("n3", m.Rejected(epoch, higher))
    rig.serve(2 * LEASE, "n2")
    prepares = [message for message in rig.of(m.Prepare) if message.epoch > higher]
    assert prepares
    assert {message.predecessor for message in prepares} == {epoch}


def test_a_coordinator_without_answers_leaves_its_office():
    """Whoever hears no majority for a lease length stops to send heartbeats (E4)."""
    rig = Rig()
    rig.elect()
    rig.acknowledge()
    rig.wait(LEASE + 2 * HEARTBEAT)
    assert rig.replica.role != "coordinator"
    rig.take_sent()
    rig.wait(2 * HEARTBEAT)
    assert rig.of(m.Heartbeat) == []


def test_a_coordinator_whose_disk_hangs_leaves_its_office():
    """A flush that takes longer than `stall_after` costs the office, although heartbeats are answered (E4)."""
    rig = Rig()
    rig.elect()
    rig.acknowledge()
    rig.flushing = False
    rig.submit(operation(1))
    rig.serve(LEASE)
    assert "left_office" in rig.event_names()


def test_a_group_of_one_elects_itself():
    """A single member needs nobody."""
    rig = Rig(count=1)
    rig.wait(2 * LEASE)
    assert rig.replica.role == "coordinator"
    rig.submit(operation(1))
    assert rig.replica.committed == 1


def test_a_coordinator_stands_again_only_after_its_grants_have_ended():
    """Nobody may still read under the old epoch when the next one begins, although it is the same node's (E5)."""
    rig = Rig()
    rig.elect()
    rig.acknowledge()
    rig.serve(3 * HEARTBEAT)
    rig.step("n3", m.Rejected(rig.replica.epoch, make_epoch(5, 3)))
    authority = rig.replica.office.authority
    granted_until = authority.grants_until()
    assert granted_until > rig.now + HEARTBEAT
    rig.take_sent()
    while not rig.of(m.Prepare):
        assert authority.grants_until() == granted_until
        rig.serve(TICK)
        assert rig.now < granted_until + 2 * TICK
    assert rig.now >= granted_until


def test_promises_of_a_disk_that_left_do_not_count():
    """A candidate that learns of a new configuration on its way needs a majority of that one (M2)."""
    rig, prepare = candidate()
    rig.step("n3", promise(prepare, committed=1))
    assert rig.of(m.FetchSlots) == [m.FetchSlots(1)]
    entry = encode_batch(CONFIGURATION, configuration_of().with_disk("n3", "a new disk", 1).encode())
    rig.step("n2", m.Slots(1, 1, ((1, epoch_of("n2"), 0, entry),)))
    assert rig.replica.role == "follower"
