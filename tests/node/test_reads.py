"""What a read that waits leaves behind."""

import asyncio
import gc
import weakref

import pytest

from replicad.core.model.errors import RequestError
from replicad.node.group_runtime import GroupRuntime
from tests.core.engine.test_reads import Group


class Runtime(GroupRuntime):
    """As much of a group's runtime as its readers see."""

    def __init__(self, group):
        self.group = group
        self.loop = asyncio.get_running_loop()


class Body:
    """A large request."""


async def fails_with_a_body(wait, gone):
    """Wait with a request in hand; note when it goes."""
    body = Body()
    weakref.finalize(body, gone.append, 1)
    await wait


@pytest.mark.parametrize("kind", ["index", "slot", "probe"])
async def test_a_read_that_fails_leaves_no_cycle(kind):
    """Its error holds the frames that the request is in, and must not be held by one of them."""
    group = Group()
    runtime = Runtime(group)
    group.slot = None if kind == "probe" else 9
    gone = []
    gc.disable()
    try:
        for _ in range(3):
            wait = runtime.reach(9) if kind == "index" else runtime.read_barrier(consistent=False)
            task = asyncio.create_task(fails_with_a_body(wait, gone))
            del wait
            await asyncio.sleep(0)
            group.turn()
            group.run_out()
            with pytest.raises(RequestError):
                await task
            del task
        await asyncio.sleep(0)
        assert len(gone) == 3
    finally:
        gc.enable()


async def test_a_reader_that_goes_away_is_told_nothing():
    """A request that was cancelled waits for nothing any more."""
    group = Group()
    task = asyncio.create_task(Runtime(group).reach(9))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    group.apply(9)
    group.run_out()
