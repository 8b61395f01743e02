"""Readers that wait until their replica has applied a slot or an index, or until the coordinator answers."""

from types import SimpleNamespace

import pytest

from replicad.core.engine.deadlines import Deadlines
from replicad.core.engine.reads import INDEX_WAITERS_MAX, Reads
from replicad.core.model.errors import RequestError


class Group:
    """A group whose index, read slot and clock are what the test says."""

    def __init__(self):
        self.index = 5
        self.slot = None
        self.due = []
        self.deadlines = Deadlines(1_000_000)
        machine = SimpleNamespace(applied_slot=0)
        self.executor = SimpleNamespace(machine=machine)
        self.transfers = SimpleNamespace(installing=False)
        ports = SimpleNamespace(now=lambda: 0, answer=lambda done, *arguments: done(*arguments))
        self.engine = SimpleNamespace(ports=ports, soon=self.due.append)
        self.forgotten = []
        self.replica = SimpleNamespace(
            role="follower",
            coordinator="n1",
            state=SimpleNamespace(rebuilding=False, serves=True),
            read_slot=lambda _now: self.slot,
            probe=lambda confirmed, _now: (7 + confirmed, ["asked", confirmed]),
            contact=SimpleNamespace(forget_probe=self.forgotten.append),
        )
        self.performed = []
        self.reads = Reads(self)

    def perform(self, effects):
        self.performed.append(effects)

    def forsaken(self):
        return False

    def check_open(self):
        pass

    draining = False

    def apply(self, index, slot=0):
        self.index = index
        self.executor.machine.applied_slot = slot
        self.reads.wake()

    def turn(self):
        due, self.due[:] = list(self.due), []
        for job in due:
            job()

    def run_out(self):
        """Let the patience of everyone who waits be over."""
        self.deadlines.run(2_000_000)


@pytest.fixture
def group():
    return Group()


def test_what_is_applied_is_not_waited_for(group):
    """An index that is there costs no waiting."""
    told = []
    assert group.reads.reach(5, told.append) == 0
    assert (told, len(group.deadlines)) == ([None], 0)


def test_a_reader_waits_for_its_index(group):
    """A reader goes on when its index is applied, and not before."""
    sooner, later = [], []
    group.reads.reach(7, sooner.append)
    group.reads.reach(9, later.append)
    group.apply(6)
    assert not sooner
    group.apply(8)
    assert (sooner, later) == ([None], [])
    group.apply(20)
    assert later == [None]


def test_a_replica_that_stays_behind_says_so(group):
    """At the deadline the answer is `behind`, definite, with both indexes."""
    told = []
    group.reads.reach(9, told.append)
    group.run_out()
    (error,) = told
    assert (error.kind.name, error.kind.definite, error.kind.status) == ("behind", True, 503)
    assert "at index 5 of the group and its session has seen index 9" in error.message


def test_waiting_readers_are_bounded(group):
    """One reader too many is refused at once; one that went away makes room, and is told nothing."""
    told = []
    readers = [group.reads.reach(9, told.append) for _ in range(INDEX_WAITERS_MAX)]
    with pytest.raises(RequestError, match="nothing was done") as caught:
        group.reads.reach(9, told.append)
    assert caught.value.kind.name == "overloaded"
    group.reads.forget(readers[3])
    group.reads.reach(9, told.append)
    group.apply(9)
    assert told == [None] * INDEX_WAITERS_MAX
    group.run_out()
    assert len(told) == INDEX_WAITERS_MAX


def test_a_replica_that_is_rebuilt_meanwhile_shows_nothing(group):
    """A state that became nobody's past while the reader waited is not read, whatever its index."""
    told = []
    group.reads.reach(9, told.append)
    group.replica.state.rebuilding = True
    group.apply(9)
    assert [error.kind.name for error in told] == ["not_ready"]


def test_an_index_of_a_state_that_is_in_doubt_is_waited_for(group):
    """The index is reached, and nobody knows yet whether by the group's operations: no answer, and no refusal."""
    told = []
    group.replica.state.serves = False
    assert group.reads.reach(5, told.append)
    group.apply(6)
    assert told == []
    group.replica.state.serves = True
    group.reads.wake()
    assert told == [None]


def test_a_node_that_stops_keeps_nobody_waiting(group):
    """Whoever waits when the node stops, or the group is closed, gets an error that says so; once."""
    told = []
    group.reads.reach(9, told.append)
    group.slot = 4
    group.reads.barrier(told.append, consistent=False)
    group.reads.barrier(told.append, consistent=True)
    group.reads.close("the group was closed here")
    group.turn()
    group.run_out()
    assert [error.message for error in told] == ["the group was closed here"] * 3


def test_readers_of_one_turn_share_one_question(group):
    """Two readers without a lease ask once; those who want a majority's word ask another question."""
    told = []
    for consistent in (False, True, False):
        group.reads.barrier(told.append, consistent=consistent)
    group.turn()
    assert group.performed == [["asked", False], ["asked", True]]
    group.reads.on_points([(7, 3)])
    assert told == []
    group.apply(5, slot=3)
    assert told == [None, None]
    group.reads.on_points([(8, 3)])
    assert told == [None] * 3


def test_a_question_that_nobody_answers_ends_with_a_sentence(group):
    """At the deadline every reader is told, and a late answer finds nobody."""
    told = []
    group.reads.barrier(told.append, consistent=True)
    group.turn()
    group.run_out()
    assert [(error.kind.name, error.message) for error in told] == [
        ("timeout", "no coordinator confirmed the read in time")
    ]
    assert group.forgotten == [8]
    group.reads.on_points([(8, 0)])
    assert len(told) == 1


def test_a_reader_with_a_lease_waits_for_the_slots_on_their_way(group):
    """The read slot is applied, or the time is over."""
    told = []
    group.slot = 4
    group.reads.barrier(told.append, consistent=False)
    group.apply(5, slot=3)
    assert told == []
    group.apply(5, slot=4)
    assert told == [None]
    assert group.reads.barrier(told.append, consistent=False) == 0
    group.slot = 6
    group.reads.barrier(told.append, consistent=False)
    group.run_out()
    assert told[2].kind.name == "timeout"


def test_a_reader_that_waited_while_the_state_was_replaced_reads_nothing_of_it(group):
    """The new state is not compared with the others' yet."""
    told = []
    group.slot = 4
    group.reads.barrier(told.append, consistent=False)
    group.replica.state.serves = False
    group.apply(5, slot=4)
    assert [error.kind.name for error in told] == ["not_ready"]
