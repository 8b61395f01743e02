"""The server around the pages: bounds, start and stop, slow clients, health, metrics."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest

from replicad.core.kv.entries import make_entry
from replicad.core.model.errors import ERROR_KINDS, RequestError
from replicad.core.model.operations import APPLIED, Result
from replicad.http.listing import Bounds
from replicad.http.server import HttpServer, ServerLimits
from replicad.node.metrics import LoopDelaySampler
from tests.http.fake import FakeNode
from tests.http.raw import Client, encode, read_answer, until


class Serving:
    """A server with limits of its own, for one test."""

    def __init__(self, node, **limits):
        self.server = HttpServer(node, "127.0.0.1", 0, ServerLimits(**limits))

    async def __aenter__(self):
        await self.server.start()
        return self.server

    async def __aexit__(self, *_):
        await self.server.stop(0.2)


def fill(node, count, value=b"v"):
    """Write entries past HTTP."""
    for number in range(count):
        node.default.write(1, b"k%06d" % number, value)


async def test_keep_alive_and_pipelining(client):
    """Requests written at once on one connection are answered in order."""
    client.writer.write(b"".join(encode("PUT", f"/v1/kv/{n}", body=b"%d" % n) for n in range(50)))
    client.writer.write(b"".join(encode("GET", f"/v1/kv/{n}?raw") for n in range(50)))
    answers = [await read_answer(client.reader) for _ in range(100)]
    assert [answer.body for answer in answers[50:]] == [b"%d" % n for n in range(50)]


async def test_http_1_0_and_connection_close(server):
    """An HTTP/1.0 client and one that says close get their answer and the end of the connection."""
    for version, headers in (("1.0", {}), ("1.1", {"Connection": "close"})):
        async with Client(server.port) as client:
            answer = await client.ask("GET", "/v1/kv/a", headers, version=version)
            assert (answer.status, answer.headers["Connection"]) == (404, "close")
            assert await client.at_end()
    async with Client(server.port) as client:
        for _ in range(2):
            answer = await client.ask("GET", "/livez", {"Connection": "keep-alive"}, version="1.0")
            assert (answer.status, answer.headers["Connection"]) == (200, "keep-alive")


async def test_in_flight_bound(node):
    """One request too many gets 429 before any work; health pages still answer."""
    node.default.held = []
    async with Serving(node, in_flight=2) as server, Client(server.port) as a, Client(server.port) as b:
        for client in (a, b):
            client.writer.write(encode("PUT", "/v1/kv/a", body=b"1"))
        await until(lambda: len(node.default.held) == 2)
        async with Client(server.port) as c:
            answer = await c.ask("PUT", "/v1/kv/a", body=b"1")
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
            assert answer.headers["X-Replicad-Outcome"] == "definite"
            assert (await c.ask("GET", "/livez")).status == 200
            assert len(node.default.held) == 2
        for future in node.default.held:
            future.set_result(Result(APPLIED, 1))
        assert [(await read_answer(client.reader)).status for client in (a, b)] == [200, 200]
        assert server.in_flight == 0


async def test_connection_bound(node):
    """One connection too many is told so and closed; a closed one makes room."""
    async with Serving(node, connections=1) as server:
        async with Client(server.port) as first:
            assert (await first.ask("GET", "/livez")).status == 200
            async with Client(server.port) as second:
                answer = await read_answer(second.reader)
                assert (answer.status, answer.headers["Connection"]) == (503, "close")
                assert await second.at_end()
        await until(lambda: server.server.open_count == 0)
        async with Client(server.port) as third:
            assert (await third.ask("GET", "/livez")).status == 200


async def test_stop_finishes_what_is_in_flight(node):
    """stop() lets a request in flight be answered, and closes idle connections."""
    node.default.held = []
    server = HttpServer(node, "127.0.0.1", 0)
    await server.start()
    async with Client(server.port) as busy, Client(server.port) as idle:
        assert (await idle.ask("GET", "/livez")).status == 200
        busy.writer.write(encode("PUT", "/v1/kv/a", body=b"1"))
        await until(lambda: node.default.held)
        stopping = asyncio.create_task(server.stop())
        assert await idle.at_end()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        node.default.held[0].set_result(Result(APPLIED, 1))
        assert (await read_answer(busy.reader)).status == 200
        await stopping
    await server.stop()


async def test_stop_does_not_wait_for_ever(node):
    """stop() cuts off a request that is not answered within the bound."""
    node.default.held = []
    server = HttpServer(node, "127.0.0.1", 0)
    await server.start()
    async with Client(server.port) as client:
        client.writer.write(encode("PUT", "/v1/kv/a", body=b"1"))
        await until(lambda: node.default.held)
        await server.stop(0.05)
        assert await client.at_end()


async def test_taken_port(server, node):
    """A taken port is said in a plain sentence."""
    with pytest.raises(OSError, match=f"cannot listen for HTTP on 127.0.0.1:{server.port}: another process"):
        await HttpServer(node, "127.0.0.1", server.port).start()


async def test_expect_continue(client):
    """A client that waits for 100-continue is invited, or refused without sending its body."""
    client.writer.write(encode("PUT", "/v1/kv/a", {"Expect": "100-continue", "Content-Length": "5"}))
    assert (await read_answer(client.reader)).status == 100
    client.writer.write(b"value")
    assert (await read_answer(client.reader)).status == 200
    assert (await client.ask("GET", "/v1/kv/a?raw")).body == b"value"
    client.writer.write(encode("PUT", "/v1/kv/a", {"Expect": "100-continue", "Content-Length": "9999999"}))
    assert (await read_answer(client.reader)).status == 413


async def test_slow_body(node):
    """A body that does not arrive in time gets a definite 504."""
    async with Serving(node, body_seconds=0.02) as server, Client(server.port) as client:
        answer = await client.ask("PUT", "/v1/kv/a", {"Content-Length": "5"}, b"abc")
        assert (answer.status, answer.headers["X-Replicad-Outcome"]) == (504, "definite")
    assert node.default.index == 0


async def test_long_listing_is_streamed_in_slices(node):
    """A long listing leaves room for other requests between its slices, and closes its read transaction."""
    fill(node, 5_000)
    async with Serving(node, listing=Bounds(slice_bytes=2_000)) as server:
        async with Client(server.port) as slow, Client(server.port) as other:
            slow.writer.write(encode("GET", "/v1/kv/?recurse"))
            await until(lambda: node.default.open_listings)
            assert (await other.ask("GET", "/livez")).status == 200
            assert node.default.open_listings == 1
            answer = await read_answer(slow.reader)
            assert answer.headers["Transfer-Encoding"] == "chunked"
            assert answer.headers["X-Consul-Index"] == "5000"
            assert [entry["Key"] for entry in answer.json] == [f"k{n:06d}" for n in range(5_000)]
            assert (await slow.ask("GET", "/livez")).status == 200
        await until(lambda: node.default.open_listings == 0)


async def test_listing_to_an_http_1_0_client(node):
    """An HTTP/1.0 client gets a long listing without chunks, ended by the connection."""
    fill(node, 100)
    async with Serving(node, listing=Bounds(slice_bytes=500)) as server, Client(server.port) as client:
        client.writer.write(encode("GET", "/v1/kv/?keys", version="1.0"))
        head, _, body = (await client.reader.read(-1)).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert len(json.loads(body)) == 100


async def test_listing_to_a_client_that_does_not_read(node):
    """A client that stops reading is cut off, and cannot take what it has for complete."""
    fill(node, 500, b"x" * 100_000)
    bounds = Bounds(stall_seconds=0.05)
    async with Serving(node, listing=bounds) as server, Client(server.port) as client:
        client.writer.transport.pause_reading()
        client.writer.write(encode("GET", "/v1/kv/?recurse"))
        await until(lambda: node.default.open_listings)
        await until(lambda: node.default.open_listings == 0)
        client.writer.transport.resume_reading()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await read_answer(client.reader)


async def test_bug_is_reported_and_indefinite(server, node, client):
    """An unexpected exception gets an indefinite 500, is reported to the loop's handler, and harms nothing else."""
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context["exception"]))
    node.default.refusals = [KeyError("bug")]
    answer = await client.ask("PUT", "/v1/kv/a", body=b"1")
    assert (answer.status, answer.headers["X-Replicad-Outcome"]) == (500, "indefinite")
    assert "bug" not in answer.text.replace("a bug", "").replace("A bug", "")
    assert [type(error) for error in seen] == [KeyError]
    assert (await client.ask("PUT", "/v1/kv/a", body=b"1")).status == 200


async def test_status_pages(client, node):
    """The status pages give Consul's and our shapes."""
    assert (await client.ask("GET", "/v1/status/leader")).json == "127.0.0.1:8001"
    assert (await client.ask("GET", "/v1/status/peers")).json == ["127.0.0.1:8001", "127.0.0.1:8002"]
    assert (await client.ask("GET", "/v1/replicad/status?pretty")).json == node.status()
    node.default.coordinator = False
    assert (await client.ask("GET", "/v1/status/leader")).json == ""


async def test_checkpoint(client, node):
    """PUT and POST take a checkpoint; its errors are ours."""
    for method in ("PUT", "POST"):
        assert (await client.ask(method, "/v1/replicad/checkpoint")).json["slot"] == 0

    async def refused():
        raise RequestError("no_coordinator")

    node.default.checkpoint = refused
    assert (await client.ask("PUT", "/v1/replicad/checkpoint")).status == 503


async def test_health(client, node):
    """/livez answers always, /readyz names what is missing."""
    assert (await client.ask("GET", "/readyz")).status == 200
    node.missing = ["the group 'default' has no coordinator", "the store is being rebuilt"]
    answer = await client.ask("GET", "/readyz")
    assert (answer.status, answer.text.splitlines()) == (503, node.missing)
    assert answer.headers["Retry-After"] == "1"
    assert (await client.ask("GET", "/livez")).status == 200


async def test_front_page(client):
    """The page at / needs nothing from elsewhere, and no foreign text gets into it."""
    answer = await client.ask("GET", "/")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "<script" not in answer.text
    assert "https:" not in answer.text
    client.writer.write(b"GET / HTTP/1.1\r\nHost: <script>\r\n\r\n")
    assert "<script" not in (await read_answer(client.reader)).text


async def test_metrics(client, node):
    """/metrics counts requests by outcome, and asks those who know the gauges."""
    await client.ask("PUT", "/v1/kv/a", body=b"1")
    await client.ask("GET", "/v1/kv/a")
    await client.ask("GET", "/v1/kv/b")
    await client.ask("PUT", "/v1/kv/a?cas=9", body=b"1")
    await client.ask("GET", "/v1/kv/%zz")
    node.metrics.on_scrape(lambda: node.metrics.set_role("default", "coordinator"))
    text = (await client.ask("GET", "/metrics")).text
    for line in (
        'replicad_http_requests_total{method="PUT",outcome="ok",route="kv"} 1.0',
        'replicad_http_requests_total{method="GET",outcome="ok",route="kv"} 1.0',
        'replicad_http_requests_total{method="GET",outcome="missing",route="kv"} 1.0',
        'replicad_http_requests_total{method="PUT",outcome="refused",route="kv"} 1.0',
        'replicad_http_requests_total{method="GET",outcome="bad_request",route="kv"} 1.0',
        'replicad_http_request_seconds_count{method="GET",route="kv"} 3.0',
        'replicad_role{group="default",role="coordinator"} 1.0',
        'replicad_role{group="default",role="follower"} 0.0',
        "replicad_http_in_flight 1.0",
        "replicad_http_connections 1.0",
    ):
        assert line in text


async def test_session_is_shown():
    """An entry with a session shows it as a UUID."""
    from replicad.http.kv import entry_json

    entry = make_entry(b"k", 1, 2, b"", lock=3, session=bytes(range(16)))
    assert json.loads(entry_json(b"k", entry)) == {
        "LockIndex": 3,
        "Key": "k",
        "Flags": 0,
        "Value": None,
        "CreateIndex": 1,
        "ModifyIndex": 2,
        "Session": "00010203-0405-0607-0809-0a0b0c0d0e0f",
    }


async def test_nodes_do_not_share_metrics():
    """Two nodes in one process count apart."""
    a, b = FakeNode(), FakeNode()
    a.metrics.disk_full.set(1)
    assert "replicad_disk_full 1.0" in a.metrics.render().decode()
    assert "replicad_disk_full 0.0" in b.metrics.render().decode()


def test_alerts_name_metrics_that_exist():
    """Every metric and outcome in the sample alerts is one that a node exports, and the file is YAML in shape."""
    text = (Path(__file__).parents[2] / "configs" / "alerts.yml").read_text()
    rendered = FakeNode().metrics.render().decode()
    families = set(re.findall(r"^# TYPE (\w+)", rendered, re.MULTILINE))
    for name in sorted(set(re.findall(r"\breplicad_\w+", text))):
        assert name in families or name.removesuffix("_bucket") in families, name
    for outcomes in re.findall(r'outcome=~?"([^"]*)"', text):
        assert set(outcomes.split("|")) <= set(ERROR_KINDS)
    assert text.count("- alert:") == text.count("expr:") == text.count("summary:") == text.count("action:")


async def test_loop_delay_sampler(node):
    """A timer that runs late is observed as late as it was, and sampling goes on until it is stopped."""
    sampler = LoopDelaySampler(node.metrics.loop_delay_seconds, interval=0.001)
    sampler.sample(asyncio.get_running_loop(), time.monotonic() - 0.2)
    text = node.metrics.render().decode()
    assert 'replicad_loop_delay_seconds_bucket{le="0.1"} 0.0' in text
    assert "replicad_loop_delay_seconds_count 1.0" in text
    await until(lambda: "replicad_loop_delay_seconds_count 1.0" not in node.metrics.render().decode())
    sampler.stop()
    assert sampler.timer is None
