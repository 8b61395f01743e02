"""Interleavings that a review of the protocol found, each of which broke a rule once."""

import pytest

from replicad.core.group.log import SlotLog
from replicad.core.journal.records import EntryRecord, FormationRecord, WatermarkRecord
from replicad.core.journal.recovery import DurableState
from replicad.core.model import messages as m
from replicad.core.model.configuration import Configuration
from replicad.core.model.operations import ACK_ONE, ACTIVE, CONFIGURATION, encode_batch
from replicad.lab.scenario import play
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


def entry(configuration):
    """The batch of a configuration entry."""
    return encode_batch(CONFIGURATION, configuration.encode())


def stands_while_n1_takes_office():
    """n3 waits for pre-votes; n1's epoch, which n3 promised, begins with a batch that overtakes the first heartbeat."""
    rig = Rig("n3", protocol=ACTIVE)
    rig.wait(LEASE + TICK)
    epoch = epoch_of("n1")
    rig.step("n1", m.Prepare(epoch, 5, 1, 0))
    pre_vote = rig.until(m.PreVote)
    rig.step("n1", m.SlotAccept(epoch, 0, 1, batch(1)))
    return rig, epoch, pre_vote


def test_a_candidate_gives_up_when_a_batch_of_another_epoch_arrives():
    """What it accepts there makes it a follower, before any heartbeat does (L1)."""
    rig, _, _ = stands_while_n1_takes_office()
    assert rig.replica.role == "follower"
    assert rig.replica.coordinator == "n1"


def test_a_late_pre_vote_does_not_break_loyalty():
    """A pre-vote that was long on its way must not make a loyal voter promise itself (L1, E1)."""
    rig, epoch, pre_vote = stands_while_n1_takes_office()
    rig.follow("n1", epoch=epoch, assigned=1)
    rig.step("n2", m.PreVoteAnswer(pre_vote.epoch, pre_vote.attempt, True, 0))
    assert rig.replica.state.promised == epoch
    assert rig.of(m.Prepare) == []


def test_an_entry_below_other_open_slots_is_open():
    """With tickets a later slot may lie above an undecided configuration entry: nothing is assigned (M1)."""
    log = SlotLog(durable_state())
    epoch = epoch_of("n1")
    log.put(1, epoch, 0, entry(configuration_of().with_mirror("n4", 1)))
    log.put(2, epoch, 0, batch(1))
    assert log.open_configuration()
    log.advance(1)
    assert not log.open_configuration()


def test_adding_a_mirror_twice_changes_nothing():
    """An entry that names a node twice would stop every replica for good."""
    once = configuration_of().with_mirror("n4", 1)
    assert Configuration.decode(once.with_mirror("n4", 2).encode()).mirrors == ("n4",)


def test_an_entry_is_known_to_be_committed_before_it_names_the_members():
    """A log that is cut between the two records must not end with members that need an entry nobody may serve."""
    one = Configuration.initial({"n1": disk_of("n1")}).with_mirror("n2", 0)
    two = one.with_voter("n2", disk_of("n2"), 1)
    epoch = epoch_of("n2")
    rig = Rig("n2", 2, durable=DurableState(formation=one.encode()))
    rig.step("n1", m.Welcome(epoch, 1))
    rig.wait(4 * HEARTBEAT)
    rig.step("n1", m.Slots(1, 1, ((1, epoch, 0, entry(two)),)))
    kinds = [type(record) for record in rig.records]
    assert kinds.index(WatermarkRecord) < kinds.index(FormationRecord)
    assert kinds.index(EntryRecord) < kinds.index(WatermarkRecord)


def test_a_coordinator_takes_no_slots_of_a_newer_epoch():
    """After a pause its sockets are read before its timers: it has not noticed yet that its office is over."""
    rig = Rig("n1", protocol=ACTIVE)
    rig.elect()
    rig.serve(4 * HEARTBEAT)
    rig.now += 2_000_000
    newer = epoch_of("n2", 9)
    first = rig.replica.committed + 1
    rig.step("n2", m.Slots(first, 3, tuple((slot, newer, 0, batch(slot)) for slot in range(first, 4))))
    rig.wait(TICK)
    assert rig.replica.role != "coordinator"


def test_no_early_answer_where_the_operation_has_expired():
    """The window counts from the base that the operation carries, not from when it was submitted (C5, D2)."""
    epoch = epoch_of("n2")
    limits = LIMITS.__class__(request_window_slots=3)
    rig = Rig("n1", protocol=ACTIVE, limits=limits, entries=[(1, epoch, batch(8)), (2, epoch, batch(9))], committed=2)
    rig.wait(LEASE)
    rig.follow("n2", committed=2, assigned=2)
    rig.step("n2", m.DigestCompared(7, 2, bytes(16)))
    rig.submit(operation(1, base=0), ack=ACK_ONE)
    request = rig.of(m.TicketRequest)[-1]
    rig.step("n2", m.Ticket(request.boot, request.ticket, epoch, 4, 1, 1, ("n2", "n1", "n3")))
    assert rig.durable_requests == []


def test_a_wiped_voter_of_a_recovered_group_reads_its_past_and_keeps_its_disk():
    """Entries from before the recovery come by on its way; it never belonged to that past."""
    second = configuration_of().with_protocol("active", 1)
    recovered = second.recovered("n1", disk_of("n1"), 1)
    grown = [recovered.with_mirror("n3", 2)]
    grown.append(grown[-1].with_voter("n3", "disk-n3-old", 3))
    rig = Rig("n3", formed=False, disk="disk-n3-new")
    rig.step("n1", m.Introduce(7, 0, disk_of("n1"), "formed", 3, 3, grown[-1].encode()))
    rig.step("n1", m.Welcome(epoch_of("n1", 9), 3))
    rig.wait(6 * HEARTBEAT)
    newer = epoch_of("n1", 9)
    slots = ((1, epoch_of("n1"), 0, entry(second)), *((n, newer, 0, entry(c)) for n, c in enumerate(grown, 2)))
    rig.step("n1", m.Slots(1, 3, slots))
    assert rig.forgotten == ""
    assert rig.replica.role == "learner"


@pytest.mark.parametrize("cut", ["n3>n1 n1>n3 n3>n2 n2>n3 n3>n4 n4>n3"])
def test_a_voter_that_was_away_accepts_a_coordinator_it_has_never_heard_of(cut):
    """A node that was made a voter meanwhile, and then the coordinator, is no stranger for long."""
    played = play(
        f"""A voter comes back.
> cluster nodes=4 founders=3
> form
> cut {cut}
> wait 1000
> start n4
> change n2 add n4
> wait 200
> change n2 promote n4
> wait until view n1,n2,n4
> change n1 move n4
> wait 1000
> join {cut}
> wait until view n1,n2,n3,n4
> state
"""
    )
    assert "n4 coordinator" in played.rpartition("> state")[2]


def test_what_a_dead_coordinator_added_is_not_added_again():
    """Its entry lies below a batch when the next coordinator is asked for the same (M1)."""
    played = play(
        """A mirror is asked for twice.
> cluster nodes=4 founders=3 protocol=active
> form
> start n4
> lose Committed n1>n2 100
> lose Committed n1>n3 100
> lose Heartbeat n1>n2 100
> lose Heartbeat n1>n3 100
> lose ChangeOutcome n1>n3 100
> begin change n3 add n4
> wait 20
> begin put n3 color=red
> wait 5
> kill n1
> wait until n2 is coordinator
> hang n3 60
> wait 3000
> state
"""
    )
    state = played.rpartition("> state")[2]
    assert "n2 coordinator" in state
    assert "n4 mirror" in state
