"""Each session guarantee, without a bookmark and with one: a client that moves to a node that is cut off."""

from __future__ import annotations

import pytest

from replicad.core.model.operations import NO_CAS, PUT
from replicad.lab.clients import Request
from replicad.lab.contact import Level
from replicad.lab.history import Read, Write
from replicad.lab.scenario import Scenario
from replicad.lab.sessions import (
    MONOTONIC_READS,
    MONOTONIC_WRITES,
    READ_YOUR_WRITES,
    WRITES_FOLLOW_READS,
    check,
)

AWAY = "n1>n3 n3>n1 n2>n3 n3>n2"
"""The links that make ``n3`` a follower that hears of nothing new."""


class Cluster:
    """Three nodes, of which ``n3`` is cut off after ``a`` and ``b`` were written, and sessions that talk to them."""

    def __init__(self) -> None:
        self._scenario = Scenario()
        self._scenario.run(["form"])
        self.stage = self._scenario.stage
        self.sessions: dict[str, list[Read | Write]] = {}
        self.bookmarks: dict[str, int] = {}
        self.write("before", "a", "old")
        self.write("before", "b", "old")
        self.stage.run_for(1_000_000)
        self._scenario.run(["cut", *AWAY.split()])

    def join(self) -> None:
        """Let ``n3`` hear of everything again."""
        self._scenario.run(["join", *AWAY.split()])
        self._scenario.run(["wait", "until", "ready"])

    def write(self, session: str, key: str, value: str) -> None:
        """Write at ``n1`` and wait for the acknowledgement."""
        outcomes = []
        request = Request(session, key.encode(), PUT, value.encode())
        self.stage.request_write("n1", request, NO_CAS, b"", outcomes.append)
        outcome = self._wait(outcomes)
        assert outcome.error == ""
        self._advance(session, outcome.result.index)
        self.sessions[session].append(Write(request.key, outcome.result.index, request.value))

    def read(self, session: str, key: str, node: str, *, bookmark: bool) -> str:
        """Read ``?stale`` or with the session's bookmark; returns the value or the error."""
        outcomes = []
        level, index = (Level.SESSION, self.bookmarks.get(session, 0)) if bookmark else (Level.STALE, 0)
        self.stage.request_read(node, key.encode(), level, outcomes.append, index)
        outcome = self._wait(outcomes)
        if outcome.error:
            assert outcome.definite
            return outcome.error
        self._advance(session, outcome.applied)
        value = outcome.entry.value
        self.sessions[session].append(Read(key.encode(), value, node, outcome.applied))
        return value.decode()

    def broken(self) -> set[str]:
        """The guarantees that some session did not get, judged from values and from what servers say of themselves."""
        return {anomaly.guarantee for anomaly in check(self.sessions, self.stage.judge.order())}

    def broken_by_values(self) -> set[str]:
        """The same, from values alone."""
        blind = {
            session: [Read(o.key, o.value, o.server) if isinstance(o, Read) else o for o in operations]
            for session, operations in self.sessions.items()
        }
        return {anomaly.guarantee for anomaly in check(blind, self.stage.judge.order())}

    def _advance(self, session: str, index: int) -> None:
        self.bookmarks[session] = max(self.bookmarks.get(session, 0), index)
        self.sessions.setdefault(session, [])

    def _wait(self, outcomes):
        assert self.stage.run_while(lambda: not outcomes, 5_000_000)
        return outcomes[0]


def read_your_writes(cluster: Cluster, *, bookmark: bool) -> str:
    """A client writes, moves, and reads."""
    cluster.write("s", "a", "new")
    return cluster.read("s", "a", "n3", bookmark=bookmark)


def monotonic_reads(cluster: Cluster, *, bookmark: bool) -> str:
    """A client reads what somebody else wrote, moves, and reads again."""
    cluster.write("other", "a", "new")
    assert cluster.read("s", "a", "n1", bookmark=bookmark) == "new"
    return cluster.read("s", "a", "n3", bookmark=bookmark)


def monotonic_writes(cluster: Cluster, *, bookmark: bool) -> str:
    """An observer sees the second of two writes, moves, and looks for the first."""
    cluster.write("other", "a", "new")
    cluster.write("other", "b", "new")
    assert cluster.read("s", "b", "n1", bookmark=bookmark) == "new"
    return cluster.read("s", "a", "n3", bookmark=bookmark)


def writes_follow_reads(cluster: Cluster, *, bookmark: bool) -> str:
    """An observer sees the answer to a question, moves, and looks for the question."""
    cluster.write("first", "a", "new")
    assert cluster.read("second", "a", "n1", bookmark=bookmark) == "new"
    cluster.write("second", "b", "new")
    assert cluster.read("s", "b", "n1", bookmark=bookmark) == "new"
    return cluster.read("s", "a", "n3", bookmark=bookmark)


STORIES = {
    READ_YOUR_WRITES: read_your_writes,
    MONOTONIC_READS: monotonic_reads,
    MONOTONIC_WRITES: monotonic_writes,
    WRITES_FOLLOW_READS: writes_follow_reads,
}


@pytest.mark.parametrize("guarantee", STORIES)
def test_without_a_bookmark_the_node_that_is_cut_off_shows_the_anomaly(guarantee):
    """A stale read answers with what was there before, and the checker of this guarantee says so from values alone."""
    cluster = Cluster()
    assert STORIES[guarantee](cluster, bookmark=False) == "old"
    assert cluster.broken_by_values() == {guarantee}
    assert guarantee in cluster.broken()


@pytest.mark.parametrize("guarantee", STORIES)
def test_with_a_bookmark_the_node_says_that_it_is_behind_until_it_is_not(guarantee):
    """The same client gets a definite error, goes elsewhere if it likes, and gets the right value once n3 is back."""
    cluster = Cluster()
    assert STORIES[guarantee](cluster, bookmark=True) == "behind"
    assert cluster.read("s", "a", "n2", bookmark=True) == "new"
    cluster.join()
    assert cluster.read("s", "a", "n3", bookmark=True) == "new"
    assert cluster.broken() == set()


def test_a_read_with_a_bookmark_waits_for_a_node_that_is_catching_up():
    """The deadline has not passed when the node hears of the write: the answer comes then, and is right."""
    cluster = Cluster()
    cluster.write("s", "a", "new")
    outcomes = []
    cluster.stage.request_read("n3", b"a", Level.SESSION, outcomes.append, cluster.bookmarks["s"])
    cluster.stage.run_for(100_000)
    assert outcomes == []
    cluster.join()
    assert outcomes[0].error == ""
    assert outcomes[0].entry.value == b"new"
