"""Two hundred random runs of whole clusters, in chunks that both cores can share, and seeds that failed once."""

import pytest

from replicad.lab.trial import Kind, run_trial

CHUNK = 10
CHUNKS = [(nodes, first) for nodes in (3, 5) for first in range(1, 101, CHUNK)]


def failure(seed, nodes):
    """Return what went wrong in this run and how to repeat it, or nothing."""
    result = run_trial(seed, nodes)
    return "" if result.kind is Kind.OK else f"{result.command}: {result.kind}: {result.reason}"


@pytest.mark.parametrize(("nodes", "first"), CHUNKS)
def test_random_runs_keep_every_promise_and_converge(nodes, first):
    """Under any mix of faults nothing acknowledged is lost, every read is right, and after healing all are equal."""
    failures = [failure(seed, nodes) for seed in range(first, first + CHUNK)]
    assert [line for line in failures if line] == []


def test_a_newcomer_that_votes_holds_its_admission_durably():
    """A re-admitted disk voted, lost power, and came back without the slot that had admitted it (63, three nodes)."""
    assert failure(63, 3) == ""


@pytest.mark.parametrize("seed", [59, 105])
def test_survivors_with_an_older_configuration_fetch_the_slot_that_admits_a_peer(seed):
    """The majority was one of a configuration that some survivors had not heard of (59 and 105, five nodes)."""
    assert failure(seed, 5) == ""


def test_a_checkpoint_is_installed_before_its_record_is_logged():
    """A process died after it had installed a checkpoint and before it had logged that (71, five nodes)."""
    assert failure(71, 5) == ""


def test_a_disk_without_its_newest_checkpoint_is_not_whole_again():
    """One that was rebuilt from an older checkpoint than its log begins at counted as whole, so that another disk was
    damaged before the next checkpoint (233, three nodes).
    """
    assert failure(233, 3) == ""


@pytest.mark.parametrize("seed", [266, 393])
def test_what_was_once_accepted_around_a_transferred_checkpoint_stays_undecided(seed):
    """A process died between the load of a checkpoint and the flush of its record; its start took slots that had never
    been chosen for decided, since the store was above them, or had a healthy disk set aside (266, 393).
    """
    assert failure(seed, 3) == ""


def test_a_write_is_not_acknowledged_by_a_majority_beyond_its_window():
    """A write with ack=majority got a slot above its window and was never applied (283, three nodes)."""
    assert failure(283, 3) == ""


def test_a_voter_with_an_older_configuration_takes_a_welcome():
    """It ignored the heartbeats of a disk that it had not heard of, and the welcome too (31, five nodes)."""
    assert failure(31, 5) == ""


def test_a_log_over_its_bound_can_still_be_shortened():
    """A new coordinator found the log too long for any new slot, also for a checkpoint's marker (56, five nodes)."""
    assert failure(56, 5) == ""


def test_an_initial_member_that_caught_up_before_it_was_formed_is_formed_later():
    """The message that forms it was lost, a welcome was not: with slots in its log it got none again (868, three)."""
    assert failure(868, 3) == ""


def test_a_rebuild_asks_again_while_the_group_goes_on():
    """Under load the first missing slot moved at every tick, so that nothing was ever asked for (333, three nodes)."""
    assert failure(333, 3) == ""


@pytest.mark.parametrize("seed", [461, 597])
def test_a_slow_executor_catches_up_before_it_is_judged(seed):
    """Requests after healing met a queue of slots left from the traffic before (461 and 597, three nodes)."""
    assert failure(seed, 3) == ""


def test_two_that_do_not_know_each_other_do_not_talk_for_ever():
    """Each answered the other's introduction with its own, millions of times a second (3817, three)."""
    assert failure(3817, 3) == ""


def test_a_late_page_of_slots_does_not_leave_a_coordinator_with_the_peers_of_before():
    """A page that came when its asker was in office by then brought a change of the voters (187, five nodes)."""
    assert failure(187, 5) == ""


def test_who_only_learnt_a_configuration_is_no_source():
    """A directory of another past had been told of the configuration that admitted a new disk: that disk, for want of a
    coordinator, took its slots (96, five nodes).
    """
    assert failure(96, 5) == ""


def test_a_group_that_applies_slowly_does_not_commit_without_end():
    """Slots were committed faster than applied, so that a member got its lease back after minutes (60479, three)."""
    assert failure(60479, 3) == ""


@pytest.mark.parametrize(("seed", "nodes"), [(100287, 3), (200055, 5)])
def test_who_applies_faster_than_the_others_is_compared_all_the_same(seed, nodes):
    """Asked about the newest slot each time, they never came there; about an older one only, they did not remember it
    (200055, five nodes; 100287, three).
    """
    assert failure(seed, nodes) == ""


def test_a_log_that_was_not_to_blame_goes_on_without_who_could_verify_the_rest():
    """A rebuilt voter alone knew the last slots, and waited for a coordinator whose disk was lost (300504, three)."""
    assert failure(300504, 3) == ""


def test_a_checkpoint_that_is_about_to_be_installed_is_not_removed_by_a_newer_one():
    """Its own newer one was committed while a replica was being rebuilt from an older one (60717, three nodes)."""
    assert failure(60717, 3) == ""
