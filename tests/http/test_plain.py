"""Plain requests: answered as aiohttp's way would answer them, in order, within bounds."""

import asyncio
import random
import re

import pytest

from replicad.core.model.errors import RequestError
from replicad.core.model.operations import APPLIED, Result
from replicad.http import plain
from replicad.http.heads import BLOCKS_MAX, Heads
from replicad.http.server import HttpServer, ServerLimits
from tests.http.fake import FakeNode
from tests.http.raw import Client, encode, read_answer, until

NEVER = re.compile(rb"(?!)")
"""No request line is plain."""

REQUESTS = [
    ("PUT", "/v1/kv/a", {}, b"one"),
    ("GET", "/v1/kv/a", {}, b""),
    ("GET", "/v1/kv/a?raw", {}, b""),
    ("GET", "/v1/kv/a?stale", {}, b""),
    ("GET", "/v1/kv/a?consistent&raw", {}, b""),
    ("GET", "/v1/kv/a?pretty", {}, b""),
    ("GET", "/v1/kv/a?min_index=1", {}, b""),
    ("GET", "/v1/kv/missing", {}, b""),
    ("PUT", "/v1/kv/a?cas=77", {}, b"no"),
    ("PUT", "/v1/kv/a?flags=9", {"Accept": "application/json"}, b"two"),
    ("PUT", "/v1/kv/a?flags=-1", {}, b"two"),
    ("PUT", "/v1/kv/a?unknown=1", {"Accept": "application/json"}, b"two"),
    ("PUT", "/v1/kv/empty", {}, b""),
    ("PUT", "/v1/kv/a?ack=majority", {}, b"three"),
    ("PUT", "/v1/kv/a?ns=nowhere", {}, b"three"),
    ("PUT", "/v1/kv/large", {}, b"x" * 200_001),
    ("PUT", "/v1/kv/fits", {}, b"x" * 200_000),
    ("GET", "/v1/kv/fits?raw", {}, b""),
    ("DELETE", "/v1/kv/a", {}, b""),
    ("DELETE", "/v1/kv/a?cas=3", {}, b""),
    ("DELETE", "/v1/kv/?recurse", {}, b""),
    ("GET", "/v1/kv/a%20b", {}, b""),
    ("GET", "/v1/kv/", {}, b""),
    ("GET", "/v1/kv//a", {}, b""),
    ("GET", "/v1/kv/" + "k" * 500, {}, b""),
    ("GET", "/v1/kv/" + "k" * 501, {}, b""),
    ("GET", "/v1/kv/a", {"Connection": "close"}, b""),
]


async def two_servers():
    """Return two servers over nodes of their own, the second of which finds no request plain."""
    servers = []
    for pattern in (plain.REQUEST, NEVER):
        server = HttpServer(FakeNode(), "127.0.0.1", 0)
        await server.start()
        servers.append((server, pattern))
    return servers


def same(answer):
    """Return what must agree, whichever way an answer came."""
    return answer.status, {name: value for name, value in answer.headers.items() if name != "Date"}, answer.body


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: f"{request[0]} {request[1][:40]}")
async def test_both_ways_answer_alike(monkeypatch, request_):
    """The same request, once plain and once through aiohttp: the same status, headers and body."""
    answers = []
    for server, pattern in await two_servers():
        monkeypatch.setattr(plain, "REQUEST", pattern)
        async with Client(server.port) as client:
            await client.ask("PUT", "/v1/kv/a", body=b"before")
            answers.append(same(await client.ask(*request_)))
        await server.stop(0.2)
    assert answers[0] == answers[1]


class Wire(asyncio.Transport):
    """A transport without a network: what a server writes is kept."""

    def __init__(self, server):
        super().__init__()
        self.written = b""
        self.closed = False
        self.protocol = server()
        self.protocol.connection_made(self)

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True

    abort = close

    def is_closing(self):
        return self.closed

    def set_protocol(self, protocol):
        self.protocol = protocol

    def pause_reading(self):
        pass

    resume_reading = pause_reading


async def answered(server, data):
    """Return the statuses that a server answers to these bytes, and whether it then closed."""
    wire = Wire(server.server)
    wire.protocol.data_received(data)
    for _ in range(40):
        await asyncio.sleep(0)
    result = [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", wire.written)], wire.closed
    wire.protocol.connection_lost(None)
    return result


async def test_bytes_at_random_are_answered_alike(monkeypatch):
    """Requests with bytes changed, doubled and lost: the same answers both ways."""
    rng = random.Random(7)
    servers = await two_servers()
    seen = set()
    for number in range(1_000):
        data = bytearray(encode("PUT", f"/v1/kv/k{number}", {"X-A": "b"}, b"value") + encode("GET", "/v1/kv/z"))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            change = rng.choice(("byte", "cut", "double"))
            if change == "byte":
                data[at] = rng.randrange(256)
            elif change == "cut":
                del data[at]
            else:
                data[at:at] = data[at : at + rng.randrange(1, 9)]
        answers = []
        for server, pattern in servers:
            monkeypatch.setattr(plain, "REQUEST", pattern)
            answers.append(await answered(server, bytes(data)))
        if answers[1] == ([400], True):
            # aiohttp refuses whatever came in one piece with bytes that are no request, and closes.
            assert (answers[0][0][-1], answers[0][1]) == (400, True), bytes(data)
        else:
            assert answers[0] == answers[1], bytes(data)
        seen.add(str(answers[0]))
    assert len(seen) > 3  # served, refused, left waiting
    for server, _ in servers:
        await server.stop(0.2)


async def test_answers_keep_the_order_of_requests(node, client):
    """What is sent behind a write that waits is answered after it."""
    node.default.held = []
    client.writer.write(
        encode("PUT", "/v1/kv/a", body=b"1") + encode("GET", "/v1/kv/b") + encode("GET", "/v1/kv/c?raw")
    )
    client.writer.write(encode("GET", "/livez"))
    await until(lambda: node.default.held)
    node.default.held[0].set_result(Result(APPLIED, 1))
    node.default.held = None
    statuses = [(await read_answer(client.reader)).status for _ in range(4)]
    assert statuses == [200, 404, 404, 200]


@pytest.mark.parametrize("cut", [1, 10, 30, 45, 46, 47, 60])
async def test_a_request_in_pieces(client, cut):
    """Wherever a request is cut, it is served as a whole; the connection goes on."""
    data = encode("PUT", "/v1/kv/pieces", body=b"0123456789")
    client.writer.write(data[:cut])
    await asyncio.sleep(0.02)
    client.writer.write(data[cut:])
    assert (await read_answer(client.reader)).text == "true"
    assert (await client.ask("GET", "/v1/kv/pieces?raw")).text == "0123456789"


async def test_a_failed_write_says_so(node, client):
    """An error that comes later is told as ever, in JSON where it is asked for, and the connection goes on."""
    node.default.held = []
    client.writer.write(encode("PUT", "/v1/kv/a", {"Accept": "application/json"}, b"1"))
    await until(lambda: node.default.held)
    node.default.held[0].set_exception(RequestError("unknown_outcome"))
    answer = await read_answer(client.reader)
    assert (answer.headers["X-Replicad-Outcome"], answer.json["definite"]) == ("indefinite", False)
    assert (await client.ask("GET", "/v1/kv/a")).status == 404


async def test_a_client_that_sends_without_waiting_is_not_read(server, node, client):
    """What is kept behind a waiting write is bounded; in the end everything is answered."""
    node.default.held = []
    client.writer.write(encode("PUT", "/v1/kv/a", body=b"1"))
    await until(lambda: node.default.held)
    request = encode("GET", "/v1/kv/b")
    count = 8 * plain.KEPT_BYTES_MAX // len(request)
    client.writer.write(request * count)
    (connection,) = server.server.plain
    await until(lambda: connection.paused)
    assert len(connection.kept) < 5 * plain.KEPT_BYTES_MAX  # one read of the socket may come on top
    node.default.held[0].set_result(Result(APPLIED, 1))
    for expected in [200] + [404] * count:
        assert (await read_answer(client.reader)).status == expected


async def test_a_client_that_reads_nothing_is_served_no_more(server, node, client):
    """With its answers piling up, a client is served nothing more until it reads; nothing is lost then."""
    await client.ask("PUT", "/v1/kv/big", body=b"x" * 100_000)
    request, count = encode("GET", "/v1/kv/big?raw"), 400
    client.writer.write(request * count)
    (connection,) = server.server.plain
    await until(lambda: connection.stuffed)
    for _ in range(count):
        assert len((await read_answer(client.reader)).body) == 100_000


async def test_silent_connections_are_closed(node):
    """Idle ones are closed; a body that does not come is left to aiohttp, which answers in words."""
    server = HttpServer(node, "127.0.0.1", 0, ServerLimits(body_seconds=0.3, idle_seconds=60))
    await server.start()
    async with Client(server.port) as idle, Client(server.port) as slow:
        assert (await idle.ask("GET", "/v1/kv/a")).status == 404
        slow.writer.write(encode("PUT", "/v1/kv/a", {"Content-Length": 10}, b"12345"))
        await until(lambda: any(connection.kept for connection in server.server.plain))
        for connection in server.server.plain:
            connection.active_at -= 30
            connection.needed_since -= 30
        server.server.sweep(20.0, 1.0)
        assert await idle.at_end()
        answer = await read_answer(slow.reader)
        assert "did not arrive" in answer.text
        assert not server.server.plain
    await server.stop(0.2)


async def test_remembered_heads_are_bounded():
    """A client that makes up headers cannot fill the memory."""
    heads = Heads(asyncio.get_running_loop())
    for number in range(2 * BLOCKS_MAX):
        assert heads(b"Host: x\r\nX-Trace: %d" % number).length == 0
    assert len(heads.known) <= BLOCKS_MAX
    assert heads(b"X: " + b"y" * 5000) is None
    for special in (
        b"Idempotency-Key: a",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Connection: close",
    ):
        assert heads(b"Host: x\r\n" + special) is None
    for bad in (b"Content-Length: -1", b"Content-Length: 1\r\nContent-Length: 2", b"no colon", b"A : b", b"\0"):
        assert heads(b"Host: x\r\n" + bad) is None


async def test_plain_requests_are_counted(server, node, client):
    """Counters and times know the requests that were answered without aiohttp."""
    await client.ask("PUT", "/v1/kv/a", body=b"1")
    await client.ask("GET", "/v1/kv/a")
    text = node.metrics.render().decode()
    assert 'replicad_http_requests_total{method="PUT",outcome="ok",route="kv"} 1.0' in text
    assert 'replicad_http_request_seconds_count{method="GET",route="kv"} 1.0' in text
