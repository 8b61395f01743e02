import pytest

from replicad.core.group.executor import SLOTS_MAX, Executor
from replicad.core.kv.machine import Machine
from replicad.core.kv.memory_store import MemoryStore
from replicad.core.model.errors import InvariantError
from replicad.core.model.operations import APPLIED, CHECKPOINT_BATCH, NOOP_BATCH, Result
from tests.core.group.rigs import batch, operation

WINDOW = 1_000


class FullStore(MemoryStore):
    """A store whose commits fail while it is full."""

    full = False

    flushed = 0

    def commit(self, *, flush=False):
        if self.full:
            raise OSError("no space left")
        self.flushed += flush
        super().commit(flush=flush)


def executor(digest_slots=4, store=None):
    return Executor(Machine(store or MemoryStore(), WINDOW), digest_slots)


def slots(*values):
    return list(enumerate(values, 1))


def test_slots_are_applied_in_order_with_their_results():
    """One run returns the result of every operation, by request id, and where the state stands."""
    room = executor()
    room.feed(slots(batch(1, key=b"a"), NOOP_BATCH, batch(2, key=b"b")))
    run = room.run(100)
    assert run.slot == 3
    assert run.results == [(operation(1)[0], Result(APPLIED, 1)), (operation(2)[0], Result(APPLIED, 2))]
    assert run.digest == room.machine.digest
    assert room.run(100) is None


def test_a_run_stops_after_about_its_budget():
    """A slot is never split, and what is left waits for the next run."""
    room = executor()
    room.feed(slots(*[batch(number) for number in range(1, 6)]))
    assert [room.run(2).slot, room.run(2).slot, room.run(2).slot] == [2, 4, 5]


def test_empty_slots_are_bounded_too():
    """A long series of no-ops does not hold the loop for long."""
    room = executor()
    room.feed(slots(*[NOOP_BATCH] * (SLOTS_MAX + 1)))
    assert room.run(100).slot == SLOTS_MAX
    assert room.run(100).slot == SLOTS_MAX + 1


def test_it_stands_still_at_a_checkpoint_marker():
    """Nothing after a marker is applied before the state at the marker is pinned (K1)."""
    room = executor()
    room.feed(slots(batch(1), CHECKPOINT_BATCH, batch(2)))
    assert room.run(100).slot == 2
    assert room.marker == 2
    assert room.run(100) is None
    assert room.machine.applied_slot == 2
    room.resume()
    assert room.run(100).slot == 3
    assert room.marker == 0


def test_digests_are_marked_at_boundaries():
    """Every slot that is a multiple of `digest_slots` is marked with the digest right after it."""
    values = [batch(number, key=b"k%d" % number) for number in range(1, 10)]
    room, single = executor(4), executor(4)
    room.feed(slots(*values))
    single.feed(slots(*values))
    digests = {}
    for _ in values:
        run = single.run(1)
        digests[run.slot] = run.digest
    assert room.run(100).marks == [(4, digests[4]), (8, digests[8])]


def test_a_failed_commit_loses_nothing():
    """When the store is full, nothing was applied, and the same slots are applied later with the same results."""
    store = FullStore()
    room = executor(store=store)
    room.feed(slots(batch(1, key=b"a"), batch(2, key=b"b")))
    store.full = True
    with pytest.raises(OSError, match="no space"):
        room.run(100)
    assert room.machine.applied_slot == 0
    assert room.machine.read(b"a") is None
    store.full = False
    run = room.run(100)
    assert run.slot == 2
    assert [result for _, result in run.results] == [Result(APPLIED, 1), Result(APPLIED, 2)]


def test_a_marker_that_failed_to_commit_is_met_again():
    """The executor does not stand still at a marker that was not applied."""
    store = FullStore()
    room = executor(store=store)
    room.feed(slots(CHECKPOINT_BATCH))
    store.full = True
    with pytest.raises(OSError, match="no space"):
        room.run(100)
    assert room.marker == 0
    store.full = False
    assert room.run(100).slot == 1
    assert room.marker == 1


@pytest.mark.parametrize("first", [0, 2])
def test_a_gap_stops_the_process(first):
    """A slot that is not the next one stops the process before anything of it is applied."""
    room = executor()
    room.feed([(first, batch(1))])
    with pytest.raises(InvariantError, match="in order"):
        room.run(100)
    assert room.machine.applied_slot == 0


def test_remembered_operations_are_recalled():
    """After a checkpoint was installed, the pending operations that it contains get their first results."""
    room = executor()
    room.feed(slots(batch(1)))
    room.run(100)
    assert room.recall([operation(1), operation(2)]) == [(operation(1)[0], Result(APPLIED, 1))]


def test_a_reset_forgets_the_queue_and_the_marker():
    """On another state it starts with nothing."""
    room = executor()
    room.feed(slots(CHECKPOINT_BATCH, batch(1)))
    room.run(100)
    room.reset(Machine(MemoryStore(), WINDOW))
    assert room.marker == 0
    assert room.run(100) is None
    room.feed(slots(batch(2)))
    assert room.run(100).slot == 1
