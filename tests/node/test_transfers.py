"""When a checkpoint that is being written is cancelled."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from replicad.core.group.effects import InstallCheckpoint
from replicad.node import transfers
from replicad.node.checkpoint import CheckpointError, Written
from replicad.node.transfers import Transfers


class Checkpointer:
    """Pins at once, and writes when the test says so."""

    def __init__(self):
        self.pinned = []
        self.begun = asyncio.Event()
        self.writing = None
        self.why = ""

    async def pin(self, group, slot):
        self.pinned.append((group, slot))
        self.writing = asyncio.get_running_loop().create_future()
        self.begun.set()
        return self.writing

    def cancel(self, group, why):
        assert group == "g1"
        self.why = why
        if self.writing is not None and not self.writing.done():
            self.writing.set_exception(CheckpointError(why))


class Group:
    """As much of a group as its transfers see."""

    def __init__(self):
        self.id, self.name = "g1", "default"
        self.loop = asyncio.get_running_loop()
        self.is_obsolete = False
        self.epoch = 3
        self.reported = []
        self.resumed = 0
        self.warnings = []
        self.checkpointer = Checkpointer()
        outcomes = SimpleNamespace(labels=lambda *_: SimpleNamespace(inc=lambda: None))
        self.node = SimpleNamespace(checkpointer=self.checkpointer, metrics=SimpleNamespace(checkpoints=outcomes))
        self.replica = SimpleNamespace(
            epoch=self.epoch,
            coordinator="n1",
            request_checkpoint=lambda _: (self.replica.epoch, self.replica.coordinator),
            checkpoints=SimpleNamespace(obsolete=lambda slot, epoch: self.is_obsolete and (slot, epoch) == (5, 3)),
            checkpoint_written=lambda slot, digest, now: (slot, digest),
        )
        self.executor = SimpleNamespace(resume=self._resume)
        self.log = SimpleNamespace(warning=lambda name, **fields: self.warnings.append((name, fields)))

    def _resume(self):
        self.resumed += 1

    def wake_executor(self):
        pass

    def perform(self, effects):
        self.reported.append(effects)

    def spawn(self, coroutine):
        coroutine.close()


@pytest.fixture
async def group(monkeypatch):
    monkeypatch.setattr(transfers, "OBSOLETE_SECONDS", 0.001)
    monkeypatch.setattr(transfers, "LOOK_SECONDS", 0.001)
    return Group()


async def begun(group):
    """Begin to take the checkpoint at slot 5."""
    taking = asyncio.create_task(Transfers(group).take(5))
    await group.checkpointer.begun.wait()
    return taking


async def test_a_checkpoint_that_is_wanted_is_written(group):
    """It is left alone until it is done, and its digest is reported."""
    taking = await begun(group)
    await asyncio.sleep(0.01)
    assert (group.resumed, group.reported, group.checkpointer.why) == (1, [], "")
    group.checkpointer.writing.set_result(Written(5, b"d" * 16, 9))
    await taking
    assert group.reported == [(5, b"d" * 16)]
    assert group.warnings == []


async def test_a_checkpoint_that_was_given_up_is_cancelled(group):
    """When nobody will commit it any more, its job must not take the disk from the next one."""
    taking = await begun(group)
    group.is_obsolete = True
    await taking
    assert group.checkpointer.why == "the coordinator gave it up, or left office"
    assert group.reported == [(5, b"")]
    assert [name for name, _ in group.warnings] == ["checkpoint_failed"]


async def test_a_marker_that_is_obsolete_already_is_passed_over(group):
    """The executor goes on at once, nothing is pinned and nothing reported."""
    group.is_obsolete = True
    await Transfers(group).take(5)
    assert (group.checkpointer.pinned, group.resumed, group.reported) == ([], 1, [])


async def test_an_installation_cancels_what_is_being_written(group):
    """The state that is being written aside is about to be replaced."""
    taking = await begun(group)
    Transfers(group).perform(InstallCheckpoint(9))
    await taking
    assert group.checkpointer.why == "the state is replaced by a checkpoint of the others"
    assert group.reported == [(5, b"")]


async def test_a_group_that_closes_writes_nothing_more(group):
    """A file that appeared after its group was dropped would stay for ever."""
    taking = await begun(group)
    Transfers(group).close("the group was closed here")
    await taking
    assert group.checkpointer.why == "the group was closed here"


async def test_a_new_coordinator_is_asked_for_the_checkpoint_again(group):
    """The last one took with it what it had been asked for; while there is none, nobody is asked."""
    moved = Transfers(group)
    asking = asyncio.create_task(moved.checkpoint())
    for epoch, coordinator in ((4, ""), (4, "n2"), (4, "n2")):
        await asyncio.sleep(0.02)
        group.replica.epoch, group.replica.coordinator = epoch, coordinator
    await asyncio.sleep(0.02)
    assert group.reported == [(3, "n1"), (4, "n2")]
    moved._waiting[0].set_result({"slot": 7})
    assert await asking == {"slot": 7}
