"""Readers that wait until their replica has applied an index."""

import asyncio
import gc
import weakref
from types import SimpleNamespace

import pytest

from replicad.core.model.errors import RequestError
from replicad.node.clock import now_us
from replicad.node.deadlines import Deadlines
from replicad.node.reads import INDEX_WAITERS_MAX, Reads


class Group:
    """A group whose index is what the test says."""

    def __init__(self):
        self.index = 5
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(1_000_000)
        self.executor = SimpleNamespace(machine=SimpleNamespace(applied_slot=0))
        self.transfers = SimpleNamespace(installing=False)
        self.replica = SimpleNamespace(role="follower", state=SimpleNamespace(rebuilding=False))
        self.reads = Reads(self)

    def apply(self, index):
        self.index = index
        self.reads.wake()

    def run_out(self):
        """Let the patience of everyone who waits be over."""
        self.deadlines.run(now_us() + 2_000_000)


@pytest.fixture
async def group():
    return Group()


async def waiting(group, index):
    """Start to wait, and return the task once it waits (or is done)."""
    task = asyncio.create_task(group.reads.reach(index))
    await asyncio.sleep(0)
    return task


async def test_what_is_applied_is_not_waited_for(group):
    """An index that is there costs no waiting."""
    await group.reads.reach(5)
    assert len(group.deadlines) == 0


async def test_a_reader_waits_for_its_index(group):
    """A reader goes on when its index is applied, and not before."""
    sooner, later = await waiting(group, 7), await waiting(group, 9)
    group.apply(6)
    await asyncio.sleep(0)
    assert not sooner.done()
    group.apply(8)
    await sooner
    assert not later.done()
    group.apply(20)
    await later


async def test_a_replica_that_stays_behind_says_so(group):
    """At the deadline the answer is `behind`, definite, with both indexes."""
    task = await waiting(group, 9)
    group.run_out()
    with pytest.raises(RequestError, match=r"at index 5 .* has seen index 9") as caught:
        await task
    assert (caught.value.kind.name, caught.value.kind.definite, caught.value.kind.status) == ("behind", True, 503)


async def test_waiting_readers_are_bounded(group):
    """One reader too many is refused at once; one that went away makes room."""
    tasks = [await waiting(group, 9) for _ in range(INDEX_WAITERS_MAX)]
    with pytest.raises(RequestError, match="nothing was done") as caught:
        await group.reads.reach(9)
    assert caught.value.kind.name == "overloaded"
    tasks[3].cancel()
    await asyncio.gather(tasks[3], return_exceptions=True)
    last = await waiting(group, 9)
    group.apply(9)
    await last
    await asyncio.gather(*tasks[:3], *tasks[4:])


async def test_a_replica_that_is_rebuilt_meanwhile_shows_nothing(group):
    """A state that became nobody's past while the reader waited is not read, whatever its index."""
    task = await waiting(group, 9)
    group.replica.state.rebuilding = True
    group.apply(9)
    with pytest.raises(RequestError) as caught:
        await task
    assert caught.value.kind.name == "not_ready"


async def test_a_node_that_stops_keeps_nobody_waiting(group):
    """Whoever waits when the node stops, or the group is closed, gets an error that says so."""
    task = await waiting(group, 9)
    group.reads.close("the group was closed here")
    with pytest.raises(RequestError, match="the group was closed here"):
        await task


class Body:
    """A large request."""


async def fails_with_a_body(wait, gone):
    """Wait with a request in hand; note when it goes."""
    body = Body()
    weakref.finalize(body, gone.append, 1)
    await wait


@pytest.mark.parametrize("kind", ["index", "slot", "probe"])
async def test_a_read_that_fails_leaves_no_cycle(group, kind):
    """Its error holds the frames that the request is in, and must not be held by one of them."""
    group.replica.read_slot = lambda _now: None if kind == "probe" else 9
    group.replica.probe = lambda _consistent, _now: (1, None)
    group.replica.coordinator = ""
    group.replica.contact = SimpleNamespace(forget_probe=lambda _number: None)
    group.forsaken = lambda: False
    group.perform = lambda _effects: None
    gone = []
    gc.disable()
    try:
        for _ in range(3):
            wait = group.reads.reach(9) if kind == "index" else group.reads.barrier(consistent=False)
            task = asyncio.create_task(fails_with_a_body(wait, gone))
            del wait
            for _ in range(3):
                await asyncio.sleep(0)
            group.run_out()
            with pytest.raises(RequestError):
                await task
            del task
        await asyncio.sleep(0)
        assert len(gone) == 3
    finally:
        gc.enable()
