"""Each checker must reject what breaks its guarantee, and only that; none may raise a false alarm."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.lab.history import Read, Write
from replicad.lab.sessions import (
    MONOTONIC_READS,
    MONOTONIC_WRITES,
    READ_YOUR_WRITES,
    WRITES_FOLLOW_READS,
    check,
    monotonic_reads,
    monotonic_writes,
    read_your_writes,
    writes_follow_reads,
)

CHECKERS = {
    READ_YOUR_WRITES: read_your_writes,
    MONOTONIC_READS: monotonic_reads,
    MONOTONIC_WRITES: monotonic_writes,
    WRITES_FOLLOW_READS: writes_follow_reads,
}

A1, B2, A3, B4 = Write("a", 1, "a1"), Write("b", 2, "b2"), Write("a", 3, "a3"), Write("b", 4, "b4")
GONE = Write("a", 5)
ORDER = [A1, B2, A3, B4]


def read(key, value, server="n1", applied=None, *, promised=True):
    return Read(key, value, server, applied, promised)


REJECTED = {
    "an own write is missing": (READ_YOUR_WRITES, {"s": [A3, read("a", "a1")]}),
    "an own write of a key that was absent is missing": (READ_YOUR_WRITES, {"s": [A1, read("a", None)]}),
    "an own write of another key is missing, as the server says": (
        READ_YOUR_WRITES,
        {"s": [B4, read("a", "a3", "n3", 3)]},
    ),
    "a value goes back": (MONOTONIC_READS, {"s": [read("a", "a3"), read("a", "a1", "n3")]}),
    "a value goes back to nothing": (MONOTONIC_READS, {"s": [read("a", "a3"), read("a", None, "n3")]}),
    "a value goes back after a read without promise": (
        MONOTONIC_READS,
        {"s": [read("a", "a3", promised=False), read("a", "a1", "n3")]},
    ),
    "a server says that it lacks what was seen elsewhere": (
        MONOTONIC_READS,
        {"s": [read("b", "b4"), read("a", "a1", "n3", 2)]},
    ),
    "two writes of a session are in the wrong order": (MONOTONIC_WRITES, {"s": [B4, A3]}),
    "an observer at one server sees the second write and not the first": (
        MONOTONIC_WRITES,
        {"s": [A3, B4], "o": [read("b", "b4"), read("a", "a1")]},
    ),
    "an observer who moves sees the second write and not the first": (
        MONOTONIC_WRITES,
        {"s": [A3, B4], "o": [read("b", "b4", "n1"), read("a", "a1", "n3")]},
    ),
    "a server shows the second write and says that it lacks the first": (
        MONOTONIC_WRITES,
        {"s": [A3, B4], "o": [read("b", "b4", "n1", 2)]},
    ),
    "a write comes before what its session had read": (WRITES_FOLLOW_READS, {"s": [read("b", "b4"), A3]}),
    "an observer sees the answer and not the question": (
        WRITES_FOLLOW_READS,
        {"s": [read("a", "a3"), B4], "o": [read("b", "b4"), read("a", "a1")]},
    ),
    "an observer who moves sees the answer and not the question": (
        WRITES_FOLLOW_READS,
        {"s": [read("a", "a3"), B4], "o": [read("b", "b4", "n2"), read("a", None, "n3")]},
    ),
}

ACCEPTED = {
    "nothing": {},
    "all is seen": {"s": [A1, read("a", "a1"), B2, read("b", "b2"), A3, read("a", "a3", "n3", 3)]},
    "others' later writes are seen": {"s": [A1, read("a", "a3"), read("b", "b4")]},
    "stale, but nothing of the session's own is missing": {
        "s": [B2, read("a", "a1", "n3", 2), read("b", "b2", "n3", 2)]
    },
    "what another session wrote may be missing": {"s": [A3, B4], "o": [read("a", "a1"), read("b", "b2")]},
    "the first write without the second": {"s": [A3, B4], "o": [read("a", "a3"), read("b", "b2")]},
    "the answer was seen first, the question not asked for": {"s": [read("a", "a3"), B4], "o": [read("b", "b4")]},
    "a read without promise is never at fault": {
        "s": [A3, read("a", "a1", promised=False), read("a", "a3"), read("a", None, "n3", 0, promised=False)]
    },
    "an absence may be the later delete": {"s": [A3, read("a", None)], "o": [read("a", "a3"), read("a", None)]},
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_breaks_one_guarantee_breaks_that_one_only(name):
    """Exactly one checker objects, and names the operations, the one at fault last."""
    guarantee, sessions = REJECTED[name]
    found = {other: checker(sessions, ORDER) for other, checker in CHECKERS.items()}
    assert [other for other, anomalies in found.items() if anomalies] == [guarantee]
    (anomaly,) = found[guarantee]
    assert anomaly.guarantee == guarantee
    assert anomaly.operations[-1] == sessions[anomaly.session][-1]
    assert str(anomaly).startswith(f"{guarantee}, session {anomaly.session}: ")
    assert check(sessions, ORDER) == [anomaly]


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_breaks_nothing_is_accepted(name):
    """No checker objects."""
    order = [*ORDER, GONE] if "delete" in name else ORDER
    assert check(ACCEPTED[name], order) == []


def test_the_evidence_tells_the_whole_story():
    """An observer's anomaly names the first write, the second, the read that saw it, and the read at fault."""
    sessions = {"s": [A3, B4], "o": [read("b", "b4"), read("a", "a1", "n3")]}
    (anomaly,) = monotonic_writes(sessions, ORDER)
    assert anomaly.operations == (A3, B4, *sessions["o"])


def test_equal_values_prove_only_what_all_of_them_prove():
    """A value that came back may be its later version."""
    order = [Write("a", 1, "x"), Write("a", 2, "y"), Write("a", 3, "x")]
    assert check({"s": [order[1], read("a", "x")]}, order) == []
    assert check({"s": [order[1], read("a", "x", "n1", 1)]}, order) != []
    assert check({"s": [order[2], read("a", "y")]}, order) != []


def test_a_write_that_changed_nothing_stands_for_the_version_that_it_found():
    """It left no version of its own that a read could show."""
    again = Write("a", 5, "a3")
    assert check({"s": [again, read("a", "a3")]}, ORDER) == []
    assert check({"s": [again, read("a", "a1")]}, ORDER) != []


def test_a_delete_of_nothing_is_seen_by_nobody():
    """That a key is absent does not show that a delete was carried out there."""
    sessions = {"s": [A3, Write("c", 5)], "o": [read("c", None), read("a", "a1"), read("c", None, "n3")]}
    assert check(sessions, ORDER) == []


def test_an_impossible_order_or_value_is_refused():
    """The order must hold every write, each at a place of its own."""
    with pytest.raises(ValueError, match="no write in the given order"):
        check({"s": [read("a", "?")]}, ORDER)
    with pytest.raises(ValueError, match="another write of this key"):
        check({}, [A1, Write("a", 1, "b")])


class Cluster:
    """Replicas that apply one log in order, each as far as it happens to be, and clients that move between them."""

    def __init__(self, random, *, bookmarks):
        self.random = random
        self.bookmarks = bookmarks
        self.log = []
        self.applied = dict.fromkeys(("n1", "n2", "n3"), 0)
        self.sessions = {f"s{number}": [] for number in range(3)}
        self.bookmark = dict.fromkeys(self.sessions, 0)
        self.truth = {}

    def step(self):
        random = self.random
        server = random.choice(list(self.applied))
        self.applied[server] = random.randint(self.applied[server], len(self.log))
        session, key = random.choice(list(self.sessions)), random.choice("ab")
        if random.random() < 0.4:
            index = len(self.log) + 1
            self.log.append(Write(key, index, None if random.random() < 0.2 else f"v{index}"))
            self.sessions[session].append(self.log[-1])
            self.bookmark[session] = index
            return
        applied = self.applied[server]
        if self.bookmarks and applied < self.bookmark[session]:
            return
        self.bookmark[session] = max(applied, self.bookmark[session])
        values = [write.value for write in self.log[:applied] if write.key == key]
        said = random.choice((None, applied))
        self.sessions[session].append(Read(key, values[-1] if values else None, server, said))
        self.truth[id(self.sessions[session][-1])] = applied


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_clients_with_bookmarks_get_all_four(seed):
    """Whatever replicas lag behind, waiting for the bookmark leaves no anomaly."""
    cluster = Cluster(Random(seed), bookmarks=True)
    for _ in range(80):
        cluster.step()
    assert check(cluster.sessions, cluster.log) == []


def test_clients_without_bookmarks_meet_every_anomaly_that_lagging_replicas_can_cause():
    """All but a wrong order of writes, which one log rules out."""
    found = set()
    for seed in range(20):
        cluster = Cluster(Random(seed), bookmarks=False)
        for _ in range(80):
            cluster.step()
        found |= {anomaly.guarantee for anomaly in check(cluster.sessions, cluster.log)}
        orders = [a for a in check(cluster.sessions, cluster.log) if isinstance(a.operations[-1], Write)]
        assert orders == []
    assert found == set(CHECKERS)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_what_is_reported_is_true_and_what_servers_admit_is_reported(seed):
    """A read at fault came from a server that lacked a write; one that admits it after an own write is reported."""
    cluster = Cluster(Random(seed), bookmarks=False)
    for _ in range(80):
        cluster.step()
    for anomaly in read_your_writes(cluster.sessions, cluster.log):
        write, missed = anomaly.operations
        assert cluster.truth[id(missed)] < write.index
    for anomaly in monotonic_reads(cluster.sessions, cluster.log):
        first, second = anomaly.operations
        assert cluster.truth[id(second)] < cluster.truth[id(first)]
    for anomaly in monotonic_writes(cluster.sessions, cluster.log):
        first, second, seen, missed = anomaly.operations
        assert cluster.truth[id(missed)] < first.index < second.index <= cluster.truth[id(seen)]
    at_fault = {id(anomaly.operations[-1]) for anomaly in read_your_writes(cluster.sessions, cluster.log)}
    for operations in cluster.sessions.values():
        written = 0
        for operation in operations:
            if isinstance(operation, Write):
                written = operation.index
            elif operation.applied is not None and operation.applied < written:
                assert id(operation) in at_fault
