"""The decision what a data directory is gone on from, as a table of what is found and what is concluded."""

import pytest

from replicad.core.journal.records import CheckpointRecord, EntryRecord
from replicad.core.journal.recovery import DurableState, Recovery
from replicad.core.journal.segments import Ending
from replicad.core.journal.startup import (
    Action,
    DirectoryStart,
    GroupFound,
    GroupStart,
    IdentityFound,
    LogFound,
    Source,
    StoreFound,
    adopt_promises,
    judge_group,
    judge_identity,
    judge_log,
    unusable,
)


def durable(first, last, *, committed=0, checkpoint=0):
    """Return what a log holds that has the slots ``first`` to ``last``."""
    return DurableState(
        entries={slot: EntryRecord(slot, 1, 0, decided=False, value=b"v") for slot in range(first, last + 1)},
        committed=max(committed, checkpoint),
        checkpoint=CheckpointRecord(checkpoint, b"d" * 16) if checkpoint else None,
    )


# --- whose directory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "action", "phrase"),
    [
        (IdentityFound("d"), Action.BEGIN, ""),
        (IdentityFound("d", data_beside=True), Action.SET_ASIDE, "d/identity.json is gone, and there is data"),
        (IdentityFound("d", damage="broken", data_beside=True), Action.SET_ASIDE, "broken"),
        (IdentityFound("d", damage="broken"), Action.SET_ASIDE, "broken"),
        (IdentityFound("d", ("c", "n1"), data_beside=True), Action.GO_ON, ""),
        (IdentityFound("d", ("c", "n2")), Action.REFUSE, "belongs to node 'n2', and this is 'n1'"),
        (IdentityFound("d", ("b", "n1")), Action.REFUSE, "belongs to cluster 'b', and this is 'c'"),
    ],
)
def test_whose_directory_it_is(found, action, phrase):
    """Somebody else's is not touched; data without an identity counts for nothing."""
    decision = judge_identity(found, "c", "n1")
    assert decision.action is action
    assert phrase in decision.reason


# --- the log -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "phrase"),
    [
        (LogFound(damage="rotten"), "rotten"),
        (LogFound(damage="rotten", started_before=False), "rotten"),
        (LogFound(Recovery()), "the message log is gone"),
        (LogFound(Recovery(), started_before=False), ""),
        (LogFound(Recovery(segment=2)), "records are gone"),
        (LogFound(Recovery(segment=1)), ""),
        (LogFound(Recovery(segment=1), promises={"g": 5}), "records are gone"),
        (LogFound(Recovery(segment=1), promises={"g": 5}, rebooted=True), ""),
        (LogFound(Recovery(segment=1, ending=Ending.TORN), promises={"g": 5}), ""),
        (LogFound(Recovery(segment=1, records=1), promises={"g": 5}), ""),
        (LogFound(Recovery(segment=1), promises={"g": 5}, started_before=False), ""),
    ],
)
def test_whether_the_log_is_what_it_was(found, phrase):
    """A log that is gone, or lacks what the promise file proves to have been there, has the directory set aside."""
    decision = judge_log(found)
    assert decision.action is (Action.SET_ASIDE if phrase else Action.GO_ON)
    assert phrase in decision.reason


def test_the_promise_file_counts_beside_the_log():
    """The higher epoch of the two, and groups that only the file knows."""
    recovery = Recovery(states={"a": DurableState(promised=7), "b": DurableState(promised=2)})
    adopt_promises(recovery, {"a": 5, "b": 4, "c": 3})
    assert {group: state.promised for group, state in recovery.states.items()} == {"a": 7, "b": 4, "c": 3}


# --- a group -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "start"),
    [
        # A store that may be trusted, and is where the log says, or behind it.
        (GroupFound(durable(1, 9, committed=5), StoreFound(5)), GroupStart(Source.STORE, 5, 5, 5)),
        (GroupFound(durable(1, 9, committed=5), StoreFound(3)), GroupStart(Source.STORE, 3, 5, 5)),
        # What it had applied is committed, whether it was written to its files or not.
        (GroupFound(durable(1, 9, committed=5), StoreFound(7)), GroupStart(Source.STORE, 7, 7, 5)),
        (GroupFound(durable(1, 9, committed=5), StoreFound(3, 8)), GroupStart(Source.STORE, 3, 8, 5)),
        # No store: the checkpoint, or the log from its beginning; the others if the file is gone.
        (GroupFound(durable(1, 9, committed=5)), GroupStart(Source.LOG, 0, 5, 5)),
        (GroupFound(durable(5, 9, checkpoint=4, committed=6), files=[4]), GroupStart(Source.CHECKPOINT, 4, 6, 6)),
        (
            GroupFound(durable(5, 9, checkpoint=4), files=[2]),
            GroupStart(Source.OTHERS, 0, 4, 4, lacking="the file of checkpoint 4 is gone"),
        ),
        # A store that is behind the checkpoint, as after a crash before a transferred one was loaded.
        (GroupFound(durable(5, 9, checkpoint=4), StoreFound(2), [4]), GroupStart(Source.CHECKPOINT, 4, 4, 4)),
        # A store that contradicts itself says nothing.
        (
            GroupFound(durable(5, 9, checkpoint=4), StoreFound(damage="odd"), [4]),
            GroupStart(Source.CHECKPOINT, 4, 4, 4, distrusted="odd"),
        ),
    ],
)
def test_what_a_group_goes_on_from(found, start):
    """Each row: what is found, what is gone on from."""
    assert judge_group(found) == start
    assert start.directory == DirectoryStart(Action.GO_ON)


@pytest.mark.parametrize(
    ("found", "phrase"),
    [
        (GroupFound(durable(1, 8), StoreFound(10)), "has applied slot 10, and the message log lacks slot 9"),
        (GroupFound(DurableState(), StoreFound(1)), "has applied slot 1, and the message log lacks slot 1"),
        (GroupFound(durable(1, 8), StoreFound(5, 10)), "has applied slot 10, and the message log lacks slot 9"),
        (GroupFound(durable(3, 8, checkpoint=2), StoreFound(2, 9)), "lacks slot 9"),
        # Nor does a checkpoint's file bear witness to anything that the log does not.
        (GroupFound(durable(1, 4, committed=4), StoreFound(9), [9]), "lacks slot 5"),
        (GroupFound(durable(8, 12, committed=0), StoreFound(9), [9]), "lacks slot 1"),
    ],
)
def test_a_log_that_is_older_than_the_store(found, phrase):
    """Whatever was put back, or taken away: nothing of the directory counts any more."""
    start = judge_group(found)
    assert phrase in start.contradiction
    assert start.directory.action is Action.SET_ASIDE


def test_a_checkpoint_that_turns_out_to_be_no_good():
    """Then the others have the state, and the log goes on to count."""
    start = judge_group(GroupFound(durable(5, 9, checkpoint=4, committed=6), files=[4]))
    assert unusable(start, "rotten") == GroupStart(Source.OTHERS, 0, 6, 6, lacking="rotten")
