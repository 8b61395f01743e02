"""Groups of one node: opened, closed, opened again, dropped; what the log, the store and the clients are told."""

from random import Random

import pytest

from replicad.core.cluster.catalog import OwnWord
from replicad.core.cluster.definitions import GroupDefinition, NodeEntry
from replicad.core.engine.node import Engine
from replicad.core.engine.ports import Opened
from replicad.core.journal.records import DroppedRecord
from replicad.core.journal.recovery import DurableState
from replicad.core.kv.machine import Machine
from replicad.core.kv.memory_store import MemoryStore
from replicad.core.kv.store import StoreFullError
from replicad.core.model.errors import InvariantError, RequestError
from replicad.core.model.limits import Limits


class Files:
    """Checkpoint files that are not there."""

    def sweep(self, now):
        pass

    def committed(self, slot, now):
        pass


class Store(MemoryStore):
    """A store that may be full when it is written to its databases."""

    full = False

    def flush(self):
        if self.full:
            raise StoreFullError("no space")


class Ports:
    """Writes down what the engine does, in order."""

    def __init__(self):
        self.time = 1_000_000
        self.calls, self.numbers, self.told, self.store = [], [], [], Store()

    def now(self):
        return self.time

    def append(self, records, number, *, reserved):
        self.numbers.append(number)
        self.calls += [type(record).__name__ for _, record in records if isinstance(record, DroppedRecord)]

    def answer(self, done, *arguments):
        done(*arguments)

    def event(self, group, name, fields):
        self.told.append(name)

    def open(self, definition, durable):
        return Opened(durable, Machine(self.store, 1_000), self.store, Files())

    def __getattr__(self, name):
        def noted(*_arguments):
            if name in {"delete_store", "delete_checkpoints", "closed", "admitted"}:
                self.calls.append(name)
            return (1, ()) if name == "segments" else ""

        return noted


def engine(ports, *, lost=False, held=None):
    """Return the engine of n1, alone in its world."""
    own = OwnWord("n1", NodeEntry("n1:1", "n1:2"), {}, ("n1",), False)
    observer = type("Observer", (), {"__getattr__": lambda *_: lambda *_: None})()
    made = Engine(
        name="n1", disk="d1", limits=Limits(), ports=ports, observer=observer, random=Random(1), patience_us=1_000_000,
        requests_max=9, neighbours=(), own=own, check_address=str, held=held, lost=lost,
    )  # fmt: skip
    made.join()
    return made


def definition(name, members=("n1",)):
    return GroupDefinition(name, f"{name}.1", members, members)


@pytest.fixture
def ports():
    return Ports()


def run(made, ports, microseconds):
    """Let time pass, every flush being done at once."""
    end = ports.time + microseconds
    while ports.time < end:
        ports.time += 10_000
        made.tick()
        while ports.numbers:
            made.on_durable(ports.numbers.pop(0))
        made.turn()


def test_a_sole_member_forms_its_group_and_serves(ports):
    """Writes are answered with an index, reads are ready."""
    made = engine(ports)
    group = made.open_group(definition("orders"))
    run(made, ports, 2_000_000)
    assert group.replica.role == "coordinator"
    told = []
    group.writes.submit((1, b"k", b"v", 0, -1), 0, lambda _, outcome: told.append(outcome), None)
    run(made, ports, 50_000)
    assert [outcome.status for outcome in told] == [1]
    assert group.reads.ready(ports.time)
    assert group.read(b"k").value == b"v"


def test_a_flush_of_a_closed_group_tells_the_one_that_was_opened_again_nothing(ports):
    """The new replica has appended nothing that could be durable."""
    made = engine(ports)
    group = made.open_group(definition("orders"))
    for _ in range(200):
        ports.time += 10_000
        made.tick()
        made.turn()
        if ports.numbers:
            break
    assert ports.numbers
    made.close(group, "closed")
    ports.store = Store()
    again = made.open_group(definition("orders"))
    made.on_durable(ports.numbers[-1])
    assert again.replica.state.durable_tickets == 0
    again.perform(again.replica.tick(ports.time))


def test_a_group_that_is_dropped_is_deleted_before_the_log_forgets_it(ports):
    """As long as the log holds it a start knows that there is something to delete."""
    made = engine(ports, held={"carts.7": DurableState()})
    group = made.open_group(definition("orders"))
    made.drop_group(group)
    order = ["closed", "delete_store", "delete_checkpoints", "DroppedRecord"]
    assert [call for call in ports.calls if call in order] == order
    made.forget_group("carts.7")
    assert made.held == {}


def test_a_disk_with_a_vote_is_lost_to_no_group(ports):
    """Groups that were opened before may form with it, and those that are opened later."""
    made = engine(ports, lost=True)
    first = made.open_group(definition("orders"))
    assert first.replica.state.lost
    made.admitted()
    assert not first.replica.state.lost
    assert not made.open_group(definition("carts")).replica.state.lost
    assert ports.calls.count("admitted") == 1


def test_what_was_applied_counts_though_the_store_is_full_when_it_is_written(ports):
    """The result is told, and the group waits for space."""
    made = engine(ports)
    group = made.open_group(GroupDefinition("_meta", "_meta", ("n1",), ("n1",)))
    run(made, ports, 2_000_000)
    told = []
    ports.store.full = True
    group.writes.submit((1, b"k", b"v", 0, -1), 0, lambda _, outcome: told.append(outcome), None)
    run(made, ports, 50_000)
    assert [outcome.status for outcome in told] == [1]
    assert group.replica.state.full
    ports.store.full = False
    run(made, ports, 2_000_000)
    assert not group.replica.state.full


def full_store(ports):
    """Return an engine and its only group, whose store has just turned out to be full."""
    made = engine(ports)
    group = made.open_group(GroupDefinition("_meta", "_meta", ("n1",), ("n1",)))
    run(made, ports, 2_000_000)
    ports.store.full = True
    group.writes.submit((1, b"k", b"v", 0, -1), 0, lambda *_: None, None)
    run(made, ports, 50_000)
    assert group.replica.state.full
    return made, group


def test_room_on_the_disk_is_none_in_the_store(ports):
    """The log has room again, the store has not: the group takes no writes until its store was written."""
    made, group = full_store(ports)
    made.on_full(full=True)
    made.on_full(full=False)
    assert group.replica.state.full
    run(made, ports, 3_000_000)
    assert group.replica.state.full
    ports.store.full = False
    run(made, ports, 2_000_000)
    assert not group.replica.state.full


def test_room_in_the_store_is_none_on_the_disk(ports):
    """The store was written, and the log has no room: the group waits for that."""
    made, group = full_store(ports)
    made.on_full(full=True)
    ports.store.full = False
    run(made, ports, 2_000_000)
    assert group.replica.state.full
    made.on_full(full=False)
    assert not group.replica.state.full


def test_a_store_that_stays_full_is_told_once(ports):
    """It is tried every second, and between two tries the group is not for a moment as if there were room."""
    made, group = full_store(ports)
    for _ in range(1000):
        run(made, ports, 10_000)
        assert group.replica.state.full
    assert ports.told.count("store_full") == 1


def test_a_group_is_opened_once(ports):
    """Two replicas of one group at one node would both speak for its disk."""
    made = engine(ports)
    made.open_group(definition("orders"))
    with pytest.raises(InvariantError, match="opened once"):
        made.open_group(definition("orders"))


def test_a_closed_group_keeps_nobody_waiting(ports):
    """Whoever waits is told why."""
    made = engine(ports)
    group = made.open_group(definition("orders"))
    run(made, ports, 2_000_000)
    told = []
    group.writes.submit((1, b"k", b"v", 0, -1), 0, lambda _, outcome: told.append(outcome), None)
    group.reads.reach(99, told.append)
    made.close(group, "the group was closed here")
    assert [error.message for error in told] == ["the group was closed here"] * 2


def test_a_closed_group_takes_nobody_who_would_wait_for_ever(ports):
    """It is ticked no more, so no deadline would end the wait."""
    made = engine(ports)
    group = made.open_group(definition("orders"))
    run(made, ports, 2_000_000)
    made.close(group, "closed")
    told = []
    for ask in (
        lambda: group.reads.barrier(told.append, consistent=True),
        lambda: group.reads.reach(99, told.append),
        lambda: group.changes.request("demote", "n1", 1_000, told.append),
        lambda: group.transfers.request(told.append, ports.time),
    ):
        with pytest.raises(RequestError, match="orders was closed at this node; nothing was done") as caught:
            ask()
        assert caught.value.kind.name == "not_ready"
    assert not group.reads.ready(ports.time)
    assert told == []


def test_a_catalog_that_was_replaced_must_be_confirmed_anew(ports):
    """The state that replaced it may be an older one, which calls a live group dropped."""
    made = engine(ports)
    made.follower.open(GroupDefinition("_meta", "_meta", ("n1",), ("n1",)))
    made.follower.start()
    run(made, ports, 3_000_000)
    assert made.follower.confirmed
    assert made.follower.loaded()
    made.groups["_meta"].on_replaced()
    assert not made.follower.confirmed
    assert not made.follower.loaded()
    run(made, ports, 3_000_000)
    assert made.follower.confirmed


def test_a_catalog_that_is_being_rebuilt_is_not_read(ports):
    """It is nobody's past: what it calls dropped may live, and what it does not name may be what is held here."""
    made = engine(ports)
    made.follower.open(GroupDefinition("_meta", "_meta", ("n1",), ("n1",)))
    made.follower.start()
    run(made, ports, 3_000_000)
    state = made.groups["_meta"].replica.state
    made.follower.replaced()
    state.rebuilding = True
    made.follower.look()
    assert not made.follower.loaded()
    state.rebuilding = False
    made.follower.look()
    assert made.follower.loaded()
