"""What the scenarios make of what they see, with clusters that do not run."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager

import pytest

from benchmarks import turns
from benchmarks.events import catch_up, failover, protocols, slope
from benchmarks.generators.loads import GeneratorError, Load
from tests.benchmarks.fake_nodes import FakeCluster


class FakeContext:
    """A run that only listens."""

    quick = True
    rounds = 2
    seconds = 3

    def __init__(self, make=FakeCluster) -> None:
        self.make = make
        self.made: dict[tuple[str, int, str], FakeCluster] = {}
        self.notes: list[str] = []
        self.failures: list[str] = []
        self.steps: list[int] = []
        self.totals: list[int] = []

    def note(self, text):
        self.notes.append(text)

    def fail(self, sentence):
        self.failures.append(sentence)

    @contextmanager
    def bar(self, what, total):
        self.totals.append(total)
        yield self.steps.append

    def cluster(self, contender, nodes=3, protocol="remote-write"):
        made = self.made[contender, nodes, protocol] = self.make(nodes)
        made.name = contender
        return made


def load(per_second):
    return Load(requests=int(per_second), per_second=per_second, failed=0, median_us=1000, p99_us=2000, max_us=9000)


async def test_slopes_are_shares_of_the_rate_at_three_nodes_in_the_same_round(monkeypatch):
    asked = []

    async def drive(contender, cluster, workload, seconds):
        asked.append((contender, cluster.nodes, seconds))
        if (contender, cluster.nodes) == ("etcd v2", 7):
            raise GeneratorError("3 of 4 requests failed")
        second_round = len(asked) > 11
        return load({"replicad": 9000, "etcd v2": 6000}[contender] * (2 if second_round else 1) / cluster.nodes)

    monkeypatch.setattr(slope, "drive", drive)
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0)
    ctx = FakeContext()
    found = await slope.measure(ctx)
    rows = {(each.row, each.contender, each.round): each.value for each in found}
    assert rows["nodes-3", "replicad", 0] == 3000
    assert rows["nodes-3", "replicad", 1] == 6000
    for number in range(2):
        assert rows["slope-5", "replicad", number] == rows["slope-5", "etcd", number] == pytest.approx(3 / 5)
        assert rows["slope-7", "replicad", number] == pytest.approx(3 / 7)
        assert ("slope-7", "etcd", number) not in rows
    assert len(ctx.failures) == 2
    assert "7 nodes: etcd: 3 of 4 requests failed" in ctx.failures[0]
    assert asked[:2] == [("replicad", 3, 1), ("replicad", 3, 3)], "the first second does not count"
    assert asked[11][:2] != asked[0][:2], "the order changes from round to round"
    assert sum(ctx.steps) == ctx.totals[0]


async def test_protocols_are_loaded_at_all_nodes_in_turn(monkeypatch):
    asked = []

    async def drive(contender, cluster, workload, seconds):
        asked.append((cluster, workload.place, workload.value_bytes, seconds))
        return load(100 + len(asked))

    monkeypatch.setattr(protocols, "drive", drive)
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0)
    ctx = FakeContext()
    found = await protocols.measure(ctx)
    assert [(each.contender, each.round, each.value) for each in found] == [
        ("active", 0, 102),
        ("remote-write", 0, 104),
        ("remote-write", 1, 106),
        ("active", 1, 108),
    ]
    assert {each.row for each in found} == {"protocols"}
    active, remote = ctx.made["replicad", 3, "active"], ctx.made["replicad", 3, "remote-write"]
    assert [each[0] for each in asked] == [active, active, remote, remote, remote, remote, active, active]
    assert {each[1:] for each in asked} == {("spread", 65536, 1), ("spread", 65536, 3)}
    assert sum(ctx.steps) == ctx.totals[0]


class Failing(FakeCluster):
    """A cluster whose other nodes take over when the coordinator is hurt."""

    forgets = False
    """Whether a write is lost then."""

    def __init__(self, nodes: int) -> None:
        super().__init__(nodes)
        self.chief = 0
        self.frozen = False

    async def coordinator(self):
        return self.chief

    async def kill(self, i, number=signal.SIGKILL):
        await super().kill(i, number)
        if number != signal.SIGKILL:
            return
        refuse = 503, b"no coordinator"
        self.behaviour = [lambda *_: refuse] * self.nodes
        self.chief = (i + 1) % self.nodes
        if self.forgets:
            self.store.pop(next(iter(self.store)))

        def elected():
            self.behaviour = [self.serve] * self.nodes
            self.behaviour[i] = lambda *_: refuse

        asyncio.get_running_loop().call_later(0.1, elected)

    async def start_node(self, i):
        self.behaviour = [self.serve] * self.nodes


class Forgetful(Failing):
    """It loses a write with every coordinator."""

    forgets = True


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(failover, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(failover, "DOWN_SECONDS", 0.3)
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0)


async def test_failover_kills_whoever_coordinates_and_takes_the_gap(hurried):
    ctx = FakeContext(Failing)
    found = await failover.measure(ctx)
    turn = ["replicad", "etcd", "etcd", "replicad", "replicad", "etcd"]
    assert [(each.contender, each.round) for each in found] == list(zip(turn, (0, 0, 1, 1, 2, 2), strict=True))
    assert {(each.row, each.unit) for each in found} == {("failover", "s")}
    assert all(each.value > 0 and each.extra["failed_attempts"] for each in found)
    for cluster in ctx.made.values():
        killed = [node for node, number in cluster.signals if number == signal.SIGKILL]
        assert killed == [0, 1, 2]
    assert sum(ctx.steps) == ctx.totals[0] == 6


async def test_a_coordinator_that_was_stopped_goes_on(hurried):
    ctx = FakeContext(Failing)
    found = await failover.measure_stop(ctx)
    assert {(each.row, each.round) for each in found} == {("failover-stop", number) for number in range(3)}
    for cluster in ctx.made.values():
        of_first = [number for node, number in cluster.signals if node == 0]
        assert of_first.count(signal.SIGSTOP) == of_first.count(signal.SIGCONT) + (of_first[-1] == signal.SIGSTOP)
        assert signal.SIGKILL not in of_first


async def test_failover_notices_an_acknowledged_write_that_is_not_there(hurried):
    with pytest.raises(AssertionError, match=r"replicad: 3 of \d+ acknowledged writes are not there"):
        await failover.measure(FakeContext(Forgetful))


class Returning(FakeCluster):
    """A cluster of which a node that was away lacks the newest keys when it is asked for the first times."""

    lacks = 3

    async def kill(self, i, number=signal.SIGKILL):
        await super().kill(i, number)
        if number == signal.SIGKILL:
            self.behaviour[i] = lambda *_: (503, b"away")

    async def start_node(self, i):
        left = iter(range(self.lacks))
        self.behaviour[i] = lambda *request: (404, b"") if next(left, None) is not None else self.serve(*request)


async def test_a_member_has_caught_up_when_it_holds_the_last_write_itself(monkeypatch):
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(catch_up, "WRITES", 20)
    ctx = FakeContext(Returning)
    found = await catch_up.measure(ctx)
    assert [(each.row, each.contender, each.round) for each in found] == [
        ("catch-up", "replicad", 0),
        ("catch-up", "etcd", 0),
        ("catch-up", "etcd", 1),
        ("catch-up", "replicad", 1),
    ]
    for cluster in ctx.made.values():
        polls = [request for request in cluster.asked[1] if request.startswith("GET")]
        assert polls == ["GET /v1/kv/absence-0/last?raw&stale"] * 4 + ["GET /v1/kv/absence-1/last?raw&stale"] * 4
        assert sum(key.startswith("absence-1/") for key in cluster.store) == 21
