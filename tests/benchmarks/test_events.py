from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from base64 import b64encode

import pytest

from benchmarks.clusters.etcd import EtcdCluster
from benchmarks.events import stall
from benchmarks.events.catch_up import items
from benchmarks.events.context import rotated
from benchmarks.events.filling import FillError, fill
from benchmarks.events.processes import Memory, memory, parse_status
from benchmarks.events.reading import ReadError, check_all_there, missing, read_request, value_of
from benchmarks.events.writers import LoadError, Put, Writers, longest_gap
from tests.benchmarks.fake_nodes import Answer, FakeCluster, status_page
from tests.node.cluster import until
from tests.node.wire import Client

STATUS = """\
Name:	python
VmPeak:	  900000 kB
VmRSS:	  139640 kB
RssAnon:	   85600 kB
RssFile:	   54030 kB
RssShmem:	      10 kB
Threads:	3
"""


@pytest.mark.parametrize(
    ("begin", "end", "gap"),
    [
        (0.0, 9.0, 3.0),  # from 2 to 5
        (2.5, 9.0, 3.0),  # a gap that has begun before the span
        (5.0, 9.0, 3.0),  # it ends just where the span begins
        (5.1, 9.0, 2.0),  # from 6 to 8
        (0.0, 4.9, 1.0),  # one that ends after the span is not of it
        (8.1, 9.0, 0.0),  # nothing was acknowledged
    ],
)
def test_the_longest_gap_is_of_those_that_end_in_the_span(begin, end, gap):
    assert longest_gap([1.0, 2.0, 5.0, 6.0, 8.0], begin, end) == gap


def test_writes_of_a_span_are_those_of_which_any_moment_is_in_it():
    writers = Writers(FakeCluster(1), writers=1, pause=0, attempt=1, prefix="w")
    writers.puts = [Put(0, 1), Put(1.5, 6.0), Put(5.5, 7.5), Put(7, 8), Put(8.5, 18)]
    assert writers.slowest(5, 7) == 4.5
    assert writers.slowest(5, 7, begun=True) == 2.0
    with pytest.raises(LoadError):
        writers.slowest(19, 20)


def test_each_contender_comes_first_equally_often():
    assert [rotated("ab", number) for number in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]


def test_memory_is_read_by_kind():
    assert parse_status(STATUS) == Memory(139640 * 1024, 85600 * 1024, 54030 * 1024, 10 * 1024)
    assert parse_status("Name:\tzombie\n") == Memory(0, 0, 0, 0)


def test_memory_of_a_process_holds_that_of_its_child():
    held = 64 * 1024 * 1024
    child = f"import sys; held = b'x' * {held}; print('there', flush=True); sys.stdin.read()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        found = memory(parent.pid)
        parent.stdin.close()
    assert found.resident > held
    assert found.anonymous > held


def test_reads_are_asked_of_each_contender_in_its_own_words():
    fake = FakeCluster(1)
    assert read_request(fake, "a/b", stale=False) == ("GET", "/v1/kv/a/b?raw", b"")
    assert read_request(fake, "a/b", stale=True) == ("GET", "/v1/kv/a/b?raw&stale", b"")
    method, path, body = read_request(EtcdCluster(), "a/b", stale=True)
    assert (method, path) == ("POST", "/v3/kv/range")
    assert json.loads(body) == {"key": b64encode(b"a/b").decode(), "serializable": True}


def test_values_are_taken_out_of_each_answer():
    found = json.dumps({"header": {}, "kvs": [{"key": "YQ==", "value": b64encode(b"held").decode()}]}).encode()
    assert value_of("/v3/kv/range", 200, found) == b"held"
    assert value_of("/v3/kv/range", 200, b'{"header":{}}') is None
    assert value_of("/v1/kv/a?raw", 200, b"held") == b"held"
    assert value_of("/v1/kv/a?raw", 404, b"") is None
    with pytest.raises(ReadError, match="503 no coordinator"):
        value_of("/v1/kv/a?raw", 503, b"no coordinator")


def silent(method: str, path: str, body: bytes) -> None:
    """Never answer."""


def refusing(method: str, path: str, body: bytes) -> Answer:
    """Refuse."""
    return 503, b"not now"


@pytest.mark.parametrize("broken", [silent, refusing])
async def test_writers_go_to_the_next_node_with_the_same_write(broken):
    async with FakeCluster(2) as cluster:
        cluster.behaviour[0] = broken
        async with Writers(cluster, writers=2, pause=0, attempt=0.05, prefix="w") as writers:

            async def first_is_there() -> bool:
                return "w/0-1" in writers.acknowledged

            await until("the first write of the first writer", first_is_there)
    assert writers.failed_attempts > 0
    assert writers.acknowledged.keys() <= cluster.store.keys()
    assert all(cluster.store[key] == value for key, value in writers.acknowledged.items())
    assert "PUT /v1/kv/w/0-1" in cluster.asked[0]
    assert "PUT /v1/kv/w/0-1" in cluster.asked[1]


async def test_a_write_that_began_before_the_moment_does_not_count_as_one_after_it():
    async with (
        FakeCluster(1) as cluster,
        Writers(cluster, writers=3, pause=0.01, attempt=1, prefix="w") as writers,
    ):
        await writers.first()
        moment = time.monotonic()
        end = await writers.acknowledged_after(moment)
    assert next(put for put in writers.puts if put.end == end).begin > moment
    assert writers.puts[0].end <= moment


async def test_a_lost_write_is_found():
    async with FakeCluster(3) as cluster:
        wanted = dict(items("kept", 40))
        await fill(cluster, 0, iter(wanted.items()), on_put=lambda: None, connections=4)
        assert cluster.store == wanted
        await check_all_there(cluster, wanted)
        del cluster.store["kept/0000007"]
        cluster.store["kept/0000011"] = b"older"
        assert await missing(cluster, wanted) == ["kept/0000007", "kept/0000011"]
        with pytest.raises(AssertionError, match="2 of 40 acknowledged writes are not there, such as kept/0000007"):
            await check_all_there(cluster, wanted)


async def test_filling_tries_again_what_was_refused_for_now_and_ends_at_what_was_refused_for_good():
    async with FakeCluster(1) as cluster:
        answers = iter([(429, b"busy"), (200, b"true"), (400, b"the key is too long")])
        cluster.behaviour[0] = lambda *_: next(answers)
        acknowledged: list[int] = []
        with pytest.raises(FillError, match="b was answered 400 the key is too long"):
            await fill(
                cluster, 0, iter([("a", b"1"), ("b", b"2")]), on_put=lambda: acknowledged.append(1), connections=1
            )
        assert acknowledged == [1]
        assert cluster.asked[0] == ["PUT /v1/kv/a", "PUT /v1/kv/a", "PUT /v1/kv/b"]


async def test_a_checkpoint_that_was_under_way_already_is_not_taken_for_the_one_asked_for(monkeypatch):
    monkeypatch.setattr(stall, "POLL_SECONDS", 0.001)
    async with FakeCluster(1) as cluster:
        # At first the highest slot is 50; the request is answered when the checkpoint at 40 is committed.
        pages = iter([(30, 50), (40, 55), (40, 60), (56, 70)])
        cluster.behaviour[0] = lambda method, *_: (
            (200, b'{"slot":40}') if method == "POST" else status_page(*next(pages))
        )
        client = Client(cluster._ports[0])
        await stall.take_checkpoint(client)
        assert list(pages) == []
        client.close()


async def test_a_quiet_time_in_which_a_checkpoint_was_taken_is_measured_again():
    async with FakeCluster(1) as cluster:
        pages = iter([(30, 50), (40, 55), (40, 60), (40, 70)])
        store = cluster.serve
        cluster.behaviour[0] = lambda method, path, body: (
            status_page(*next(pages)) if path == "/v1/replicad/status" else store(method, path, body)
        )
        client = Client(cluster._ports[0])
        async with Writers(cluster, writers=2, pause=0.001, attempt=1, prefix="w") as writers:
            await writers.first()
            assert await stall.without(writers, client, 0.05) > 0
        assert list(pages) == []
        client.close()


async def test_checkpoints_that_nobody_asked_for_end_the_measurement():
    async with FakeCluster(1) as cluster:
        slots = iter(range(100))
        store = cluster.serve
        cluster.behaviour[0] = lambda method, path, body: (
            status_page(next(slots), 100) if path == "/v1/replicad/status" else store(method, path, body)
        )
        client = Client(cluster._ports[0])
        async with Writers(cluster, writers=2, pause=0.001, attempt=1, prefix="w") as writers:
            await writers.first()
            with pytest.raises(stall.StallError, match="3 times"):
                await stall.without(writers, client, 0.05)
        client.close()


def test_large_values_differ_and_are_the_same_in_every_run():
    found, again = list(stall.values(3)), list(stall.values(3))
    assert found == again
    assert len({value for _, value in found}) == len({key for key, _ in found}) == 3
    assert {len(value) for _, value in found} == {64 * 1024}


async def test_lateness_notes_a_loop_that_was_held():
    lateness = stall.Lateness()
    watcher = asyncio.create_task(lateness.watch())
    await asyncio.sleep(0.02)
    lateness.take()
    time.sleep(0.1)  # noqa: ASYNC251 - it holds the loop, as the test wants
    await asyncio.sleep(0.02)
    assert lateness.take() >= 0.09
    assert lateness.take() == 0.0
    watcher.cancel()
