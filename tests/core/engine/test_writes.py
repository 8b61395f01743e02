"""Writes that are refused at once, and the bytes of those that wait."""

from types import SimpleNamespace

import pytest

from replicad.core.engine.deadlines import Deadlines
from replicad.core.engine.writes import Writes
from replicad.core.model.errors import RequestError
from replicad.core.model.operations import Result


def writer(committed):
    """Return the writes of a group whose log is committed up to here, and that log."""
    log = SimpleNamespace(committed=committed)
    state = SimpleNamespace(boot=1, role="follower", full=False, log=log, configuration=SimpleNamespace(slot=7))
    replica = SimpleNamespace(state=state, abandon=lambda _: True, coordinator="n1")
    ports = SimpleNamespace(now=lambda: 0, answer=lambda done, *arguments: done(*arguments))
    group = SimpleNamespace(name="g", replica=replica, draining=False, forsaken=lambda: False)
    group.engine = SimpleNamespace(ports=ports, soon=lambda _: None)
    group.deadlines = Deadlines(1_000_000)
    group.observer = SimpleNamespace(replicated=lambda *_: None)
    return Writes(group, 9), log


def test_a_node_that_was_just_added_takes_no_writes():
    """Until it holds the entry that made it a member, it refuses at once."""
    writes, log = writer(committed=6)
    with pytest.raises(RequestError, match="not caught up") as caught:
        writes._check_writable()
    assert caught.value.kind.name == "not_ready"
    log.committed = 7
    writes._check_writable()


def test_the_bytes_of_waiting_writes_are_bounded(monkeypatch):
    """One write too many is refused, however they end there is room again, and a large one alone is always taken."""
    monkeypatch.setattr("replicad.core.engine.writes.WAITING_BYTES_MAX", 100)
    writes, _ = writer(committed=7)
    outcomes = []

    def put(size, idempotency=None):
        writes.submit((1, b"k", bytes(size), 0, -1), 0, lambda _, outcome: outcomes.append(outcome), None, idempotency)

    def full():
        with pytest.raises(RequestError, match="bytes wait at this node; nothing was done") as caught:
            put(60)
        return caught.value.kind.name == "overloaded"

    put(200)
    assert full()
    writes.on_results([(next(iter(writes._own)), Result(1, 1))])
    put(60)
    put(40, b"i" * 16)
    assert full()
    writes.on_durable([b"i" * 16])
    put(20)
    put(20, b"j" * 16)
    assert full()
    for request_id in [*writes._own, *writes._shared]:
        writes.refuse(request_id, RequestError("overloaded"))
    put(50, b"l" * 16)
    put(50, b"l" * 16)
    assert full()
    writes.group.deadlines.run(2_000_000)
    put(100)
    assert full()
    writes.close("the end")
    assert (len(outcomes), writes._bytes) == (8, 0)
