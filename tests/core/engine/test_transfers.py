"""When a checkpoint is pinned, written, cancelled; who is told of it."""

from types import SimpleNamespace

import pytest

from replicad.core.engine.transfers import CHECKPOINT_US, LOOK_US, Transfers
from replicad.core.group.effects import CheckpointCommitted, InstallCheckpoint, KeepCheckpoint
from replicad.core.model.errors import RequestError


class Group:
    """As much of a group as its transfers see."""

    def __init__(self):
        self.id, self.name = "g1", "default"
        self.is_obsolete = False
        self.performed, self.resumed, self.calls = [], 0, []
        note = self.calls.append
        ports = SimpleNamespace(
            now=lambda: 0,
            pin=lambda group, slot: note(("pin", group, slot)),
            cancel_checkpoint=lambda group, why: note(("cancel", group, why)),
            keep=lambda group, slot: note(("keep", group, slot)),
            install=lambda group, slot: note(("install", group, slot)),
            truncate=lambda slots: note(("truncate", slots)),
            answer=lambda done, *arguments: done(*arguments),
        )
        self.engine = SimpleNamespace(ports=ports)
        self.check_open = lambda: None
        self.observer = SimpleNamespace(checkpoint=lambda group, slot, outcome: note((outcome, group, slot)))
        self.files = SimpleNamespace(committed=lambda slot, now: note(("keep", slot)))
        self.replica = SimpleNamespace(
            epoch=3,
            coordinator="n1",
            request_checkpoint=lambda _: (self.replica.epoch, self.replica.coordinator),
            checkpoints=SimpleNamespace(
                obsolete=lambda slot, epoch: self.is_obsolete and (slot, epoch) == (5, 3),
                committed=(7, b"d"),
                recorded=7,
                lacking=False,
            ),
            checkpoint_written=lambda slot, digest, now: (slot, digest),
        )
        self.executor = SimpleNamespace(resume=self._resume, marker=5)
        self.transfers = Transfers(self)

    def _resume(self):
        self.resumed += 1
        self.executor.marker = 0

    def wake_executor(self):
        pass

    def perform(self, effects):
        self.performed.append(effects)


@pytest.fixture
def group():
    return Group()


@pytest.mark.parametrize(("recorded", "length", "lacking"), [(7, 100, False), (7, 0, True), (0, 0, False)])
def test_a_start_looks_whether_the_checkpoint_is_here_that_the_log_begins_at(group, recorded, length, lacking):
    """The store may be whole, and the file gone: then the next restart of the machine had nothing to go on from."""
    group.replica.checkpoints.recorded = recorded
    group.files.read_chunk = lambda slot, offset, size, now: (length if slot == recorded else 0, b"")
    group.transfers.start(0)
    assert group.replica.checkpoints.lacking is lacking


def test_a_checkpoint_that_is_wanted_is_written(group):
    """The executor stands until the state is pinned, and the digest is reported."""
    group.transfers.take(5)
    group.transfers.tick(LOOK_US)
    assert (group.resumed, group.calls) == (0, [("pin", "g1", 5)])
    group.transfers.on_pinned(5)
    assert (group.resumed, group.performed) == (1, [])
    group.transfers.on_written(5, b"d" * 16, 0)
    assert (group.resumed, group.performed) == (1, [(5, b"d" * 16)])


def test_a_checkpoint_that_cannot_be_pinned_lets_the_executor_go_on(group):
    """It is reported as failed."""
    group.transfers.take(5)
    group.transfers.on_written(5, b"", 0)
    assert (group.resumed, group.performed) == (1, [(5, b"")])
    assert group.calls[-1] == ("failed", "default", 5)


def test_a_checkpoint_that_was_given_up_is_cancelled(group):
    """When nobody will commit it any more, its job must not take the disk from the next one."""
    group.transfers.take(5)
    group.transfers.on_pinned(5)
    group.is_obsolete = True
    group.transfers.tick(LOOK_US - 1)
    assert len(group.calls) == 1
    group.transfers.tick(LOOK_US)
    assert group.calls[-1] == ("cancel", "g1", "the coordinator gave it up, or left office")


def test_a_marker_that_is_obsolete_already_is_passed_over(group):
    """The executor goes on at once, nothing is pinned and nothing reported."""
    group.is_obsolete = True
    group.transfers.take(5)
    assert (group.calls, group.resumed, group.performed) == ([], 1, [])


def test_a_file_that_is_written_twice_is_reported_once(group):
    """A late report of a checkpoint that has ended says nothing."""
    group.transfers.take(5)
    group.transfers.on_written(5, b"", 0)
    group.transfers.on_written(5, b"d", 0)
    assert group.performed == [(5, b"")]


def test_an_installation_cancels_what_is_being_written(group):
    """The state that is being written aside is about to be replaced: nobody reads it from now on."""
    group.transfers.perform(KeepCheckpoint(9))
    assert group.transfers.installing
    group.transfers.perform(InstallCheckpoint(9))
    assert group.calls == [
        ("cancel", "g1", "the state is replaced by a checkpoint of the others"),
        ("keep", "g1", 9),
        ("install", "g1", 9),
    ]
    assert group.transfers.installing


def test_who_asked_is_told_of_the_next_committed_checkpoint(group):
    """It is told the slot and the digest; older files and segments go."""
    told = []
    group.transfers.request(told.append, 0)
    group.transfers.perform(CheckpointCommitted(7))
    assert told == [(7, b"d")]
    assert group.calls == [("keep", 7), ("truncate", {"g1": 7}), ("ok", "default", 7)]


def test_a_new_coordinator_is_asked_for_the_checkpoint_again(group):
    """The last one took with it what it had been asked for; while there is none, nobody is asked."""
    told = []
    group.transfers.request(told.append, 0)
    for turn, (epoch, coordinator) in enumerate(((4, ""), (4, "n2"), (4, "n2")), 1):
        group.replica.epoch, group.replica.coordinator = epoch, coordinator
        group.transfers.tick(turn * LOOK_US)
    assert group.performed == [(3, "n1"), (4, "n2")]
    group.transfers.tick(CHECKPOINT_US)
    assert [error.kind.name for error in told] == ["unknown_outcome"]


def test_a_group_that_closes_keeps_nobody_waiting(group):
    """A file that appeared after its group was dropped would stay for ever; who asked is told why there is none."""
    told = []
    group.transfers.request(told.append, 0)
    group.transfers.close("the group was closed here")
    assert group.calls == [("cancel", "g1", "the group was closed here")]
    assert [error.message for error in told] == ["the group was closed here"]


def test_without_a_coordinator_nobody_waits(group):
    """The request is refused at once."""
    group.replica.coordinator = ""
    with pytest.raises(RequestError) as caught:
        group.transfers.request(lambda _: None, 0)
    assert caught.value.kind.name == "no_coordinator"
