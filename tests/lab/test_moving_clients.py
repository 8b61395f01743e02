from random import Random

from replicad.core.engine.reads import Reads
from replicad.core.kv.entries import make_entry
from replicad.core.model.operations import APPLIED, REFUSED, Result
from replicad.lab.contact import Level, Outcome
from replicad.lab.events import EventQueue
from replicad.lab.history import Read, Write
from replicad.lab.moving_clients import MovingClients
from replicad.lab.swarm import Load, draw
from replicad.lab.trial import Kind, run_trial

SEEDS = [seed for seed in range(1, 40) if draw(seed, 3).load.session_ppm]


class Servers:
    """Two nodes that answer at once: ``n2`` is always behind."""

    names = ("n1", "n2")

    def __init__(self):
        self.queue = EventQueue()
        self.index = 0
        self.reads = []

    def request_write(self, node, request, cas, idempotency, answer):
        self.index += 1
        status = REFUSED if self.index % 5 == 0 else APPLIED
        self.queue.after(1, answer, Outcome(result=Result(status, self.index)))
        return True

    def request_read(self, node, key, level, answer, bookmark=0):
        self.reads.append((node, level, bookmark))
        if node == "n2" and level is Level.SESSION and bookmark:
            self.queue.after(1, answer, Outcome(error="behind"))
        else:
            entry = make_entry(key, 1, 1, b"value", 0)
            self.queue.after(1, answer, Outcome(entry=entry, applied=self.index if node == "n1" else 0))
        return True

    def note(self, node, text):
        pass

    def committed(self):
        return self.index


def moving(session_ppm):
    servers = Servers()
    return servers, MovingClients(servers, Load(session_ppm=session_ppm), 200, Random(1))


def test_without_a_share_there_are_no_moving_clients():
    """They add nothing to a run that has none, not even an event."""
    servers, clients = moving(0)
    clients.start()
    servers.queue.run_until(10_000_000)
    assert servers.queue.done == 0
    assert clients.sessions == {}


def test_sessions_hold_what_was_acknowledged_and_seen():
    """Applied writes with their index, and reads with their node, its index, and whether a bookmark was sent."""
    servers, clients = moving(500_000)
    clients.start()
    servers.queue.run_until(5_000_000)
    clients.stop()
    servers.queue.run_until(6_000_000)
    assert clients.idle
    assert list(clients.sessions) == ["s1", "s2", "s3"]
    seen = [operation for session in clients.sessions.values() for operation in session]
    assert all(operation.index % 5 for operation in seen if isinstance(operation, Write))
    reads = [operation for operation in seen if isinstance(operation, Read)]
    assert {read.server for read in reads if not read.promised} == {"n1", "n2"}
    assert {read.promised for read in reads} == {True, False}
    assert clients.counts["session_bookmark_ok"] == sum(read.promised for read in reads)
    assert clients.counts["session_no_bookmark_ok"] == sum(not read.promised for read in reads)


def test_bookmarks_never_go_back_and_are_sent_with_session_reads_only():
    """A stale read carries none; a session read the highest index that its client knows of."""
    servers, clients = moving(500_000)
    clients.start()
    servers.queue.run_until(5_000_000)
    bookmarks = [bookmark for _, level, bookmark in servers.reads if level is Level.SESSION]
    assert {bookmark for _, level, bookmark in servers.reads if level is Level.STALE} == {0}
    assert max(bookmarks) > 10
    for session in clients.sessions.values():
        floor = 0
        for operation in session:
            index = operation.index if isinstance(operation, Write) else operation.applied
            if isinstance(operation, Read) and operation.promised:
                assert operation.applied >= floor
            floor = max(floor, index)


def test_about_half_of_the_seeds_have_moving_clients():
    """The share is drawn from a stream of its own."""
    assert 10 <= len(SEEDS) <= 30
    assert all(500_000 <= draw(seed, 3).load.session_ppm <= 900_000 for seed in SEEDS)


def test_a_bookmark_that_is_ignored_is_noticed(monkeypatch):
    """A node that serves session reads at once is caught, by the state that it served or by what the sessions saw."""
    original = Reads.reach
    monkeypatch.setattr(Reads, "reach", lambda self, _index, ready: original(self, 0, ready))
    results = (run_trial(seed, 3) for seed in SEEDS)
    failed = next(result for result in results if result.kind is not Kind.OK)
    assert failed.kind is Kind.CORRECTNESS
    assert failed.reason.startswith("bookmark: ")


def test_sessions_are_judged_by_what_they_saw(monkeypatch):
    """The four checkers notice an ignored bookmark also if nobody looks at the state that was served."""
    from replicad.lab.checks import Judge

    original = Reads.reach
    monkeypatch.setattr(Judge, "bookmark", lambda self, node, bookmark, slot: None)
    monkeypatch.setattr(Reads, "reach", lambda self, _index, ready: original(self, 0, ready))
    results = (run_trial(seed, 3) for seed in SEEDS)
    failed = next(result for result in results if result.kind is not Kind.OK)
    assert failed.reason.startswith("session: ")
