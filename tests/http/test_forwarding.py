"""Requests for a group that has no member here: passed on unchanged, never done twice, never in circles."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from replicad.core.model.errors import RequestError
from replicad.http.server import HttpServer, ServerLimits
from tests.http.fake import FakeNode
from tests.http.raw import Client, encode, read_answer
from tests.http.test_server import until

DEAD = "127.0.0.1:1"


class Cluster:
    """Node ``n4``, which is no member of anything, two members behind it, and a client of ``n4``."""

    def __init__(self, stack):
        self.stack = stack
        self.nodes = {}
        self.servers = {}

    async def serve(self, name, addresses=None, **limits):
        """Serve a node; with ``addresses`` it is no member of the group, and knows these as its members'."""
        node = self.nodes[name] = FakeNode(name=name)
        if addresses is not None:
            node.groups = {}
            node.others = {"default": addresses}
        server = self.servers[name] = HttpServer(node, "127.0.0.1", 0, ServerLimits(**limits))
        await server.start()
        self.stack.push_async_callback(server.stop, 0.2)
        return f"127.0.0.1:{server.port}"

    async def client(self, name="n4"):
        """Return a connection to a node."""
        return await self.stack.enter_async_context(Client(self.servers[name].port))


@pytest.fixture
async def cluster():
    async with AsyncExitStack() as stack:
        yield Cluster(stack)


@asynccontextmanager
async def scripted(*answers):
    """Serve these answers, one a connection (b"": hang up), and give the address and the requests that came."""
    requests, left = [], list(answers)

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                head += await reader.readexactly(int(line.split(b":")[1]))
        requests.append(head.decode())
        writer.write(left.pop(0) if left else b"")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    finally:
        server.close()


def answer(status, body=b"", *headers):
    """The bytes of an answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_reads_and_writes_go_to_a_member(cluster):
    """Whatever a member answers, a client of another node gets: status, body, headers; and who served, by which way."""
    member = await cluster.serve("n1")
    await cluster.serve("n4", [member])
    client, direct = await cluster.client(), await cluster.client("n1")
    put = await client.ask("PUT", "/v1/kv/a?flags=7", {"X-Replicad-Bookmark": "other:3"}, b"value")
    assert (put.status, put.body, put.headers["X-Replicad-Index"]) == (200, b"true", "1")
    assert put.headers["X-Replicad-Bookmark"] == "default:1,other:3"
    for path in ("a", "a?raw", "a?stale&pretty", "none", "?recurse", "?keys&separator=/"):
        for method in ("GET", "HEAD"):
            got, same = await client.ask(method, f"/v1/kv/{path}"), await direct.ask(method, f"/v1/kv/{path}")
            assert (got.status, got.body) == (same.status, same.body)
            assert (got.headers["X-Replicad-Node"], got.headers.pop("X-Replicad-Via")) == ("n1", "n4")
            assert {**got.headers, "Date": ""} == {**same.headers, "Date": ""}
    assert (await client.ask("DELETE", "/v1/kv/a")).body == b"true"
    assert (await client.ask("GET", "/v1/kv/a")).status == 404
    assert cluster.nodes["n4"].default.index == 0


async def test_keys_arrive_as_they_were_spelt(cluster):
    """Paths and queries are not tidied up on the way."""
    member = await cluster.serve("n1")
    await cluster.serve("n4", [member])
    client, direct = await cluster.client(), await cluster.client("n1")
    paths = ["%25ff", "a//b", "a/./b", "a/../b", "a/", "a%3Fb", "a%23", "a+b", "a%20b", "%00", "%C3%A4", "%c3%a4x"]
    paths += ["a;b", "a,b", "a:b@c", "a|b", "[a]", "a%2Fb", "..%2f..", "a='\"b"]
    for number, path in enumerate(paths):
        assert (await client.ask("PUT", f"/v1/kv/{path}?flags=%31", body=b"%d" % number)).body == b"true"
    for number, path in enumerate(paths):
        assert (await direct.ask("GET", f"/v1/kv/{path}?raw")).body == b"%d" % number
    await client.ask("PUT", "http://elsewhere:80/v1/kv/a/../b", body=b"absolute")
    assert (await direct.ask("GET", "/v1/kv/a/../b?raw")).body == b"absolute"
    for path in ("a?ns=default#x", "a?keys&separator=#"):
        got = await client.ask("GET", f"/v1/kv/{path}")
        assert (got.status, "%23" in got.text) == (400, True) or got.status == 404


async def test_values_of_any_size(cluster):
    """Long values go through both ways; one beyond the limit is refused here."""
    member = await cluster.serve("n1")
    await cluster.serve("n4", [member])
    client = await cluster.client()
    value = bytes(range(250)) * 800
    assert (await client.ask("PUT", "/v1/kv/a", body=value)).body == b"true"
    assert (await client.ask("GET", "/v1/kv/a?raw")).body == value
    assert (
        await client.ask("PUT", "/v1/kv/b", {"Transfer-Encoding": "chunked"}, b"2\r\nab\r\n0\r\n\r\n")
    ).status == 200
    assert (await client.ask("GET", "/v1/kv/b?raw")).body == b"ab"
    assert (await client.ask("PUT", "/v1/kv/a", body=bytes(200_001))).status == 413


async def test_long_lists_are_streamed(cluster):
    """A list that a member sends in slices arrives whole."""
    member = await cluster.serve("n1")
    await cluster.serve("n4", [member])
    for number in range(3_000):
        cluster.nodes["n1"].default.write(1, b"k%06d" % number, b"v" * 50)
    client = await cluster.client()
    got = await client.ask("GET", "/v1/kv/?recurse")
    assert got.headers["Transfer-Encoding"] == "chunked"
    assert len(got.json) == 3_000
    assert (await client.ask("GET", "/v1/kv/k000001?raw")).body == b"v" * 50


async def test_only_end_to_end_headers_are_passed_on(cluster):
    """Headers that concern one connection stay there; nothing is added but the way."""
    async with scripted(answer(200, b"true", "X-Answer: yes", "Keep-Alive: timeout=5")) as (member, requests):
        await cluster.serve("n4", [member])
        client = await cluster.client()
        headers = {"Idempotency-Key": "k", "X-Own": "1", "Connection": "X-Own, keep-alive", "TE": "trailers"}
        got = await client.ask("PUT", "/v1/kv/a", {**headers, "X-Replicad-Via": "n9", "Accept": "text/plain"}, b"value")
        assert (got.headers["X-Answer"], "Keep-Alive" in got.headers) == ("yes", False)
        head, _, body = requests[0].partition("\r\n\r\n")
        assert body == "value"
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
        assert fields == {
            "host": member,
            "idempotency-key": "k",
            "accept": "text/plain",
            "x-replicad-via": "n9,n4",
            "content-length": "5",
        }
        assert client.reader.at_eof() is False


async def test_a_member_that_is_gone_is_passed_over(cluster):
    """Where nobody listens nothing is done: the next member is asked, and who failed comes last for a while."""
    member = await cluster.serve("n1")
    await cluster.serve("n4", [DEAD, member])
    client = await cluster.client()
    assert (await client.ask("PUT", "/v1/kv/a", body=b"1")).body == b"true"
    forwarder = cluster.servers["n4"].forwarder
    assert forwarder._order([DEAD, member]) == [member, DEAD]


async def test_no_member_in_reach(cluster):
    """If nobody listens anywhere, the error is definite, also for a write."""
    await cluster.serve("n4", [DEAD])
    client = await cluster.client()
    for method, body in (("GET", b""), ("PUT", b"1")):
        got = await client.ask(method, "/v1/kv/a", body=body)
        assert (got.status, got.headers["X-Replicad-Outcome"]) == (503, "definite")
        assert "No member of the group could be reached" in got.text


async def test_a_refusal_goes_to_the_next_member(cluster):
    """A member that did nothing and says so is no reason to fail while there is another."""
    first, second = await cluster.serve("n1"), await cluster.serve("n2")
    await cluster.serve("n4", [first, second])
    cluster.nodes["n1"].default.refusals = [RequestError("not_ready")]
    client = await cluster.client()
    assert (await client.ask("PUT", "/v1/kv/a", body=b"1")).headers["X-Replicad-Node"] == "n2"
    for name in ("n1", "n2"):
        cluster.nodes[name].default.refusals = [RequestError("not_ready")]
    got = await client.ask("PUT", "/v1/kv/a", body=b"1")
    assert (got.status, got.headers["X-Replicad-Outcome"]) == (503, "definite")
    assert (got.headers["X-Replicad-Node"], cluster.nodes["n2"].default.refusals) == ("n1", [])


async def test_a_write_that_broke_off_is_not_repeated(cluster):
    """A member that hung up after it got a write may have done it: the outcome is unknown, and nobody else is asked."""
    async with scripted(b"") as (first, requests), scripted(answer(200, b"true")) as (second, others):
        await cluster.serve("n4", [first, second])
        client = await cluster.client()
        got = await client.ask("PUT", "/v1/kv/a", body=b"1")
        assert (got.status, got.headers["X-Replicad-Outcome"]) == (504, "indefinite")
        assert (len(requests), len(others)) == (1, 0)


async def test_a_write_on_a_kept_connection_is_not_repeated(cluster):
    """Also when the connection had served a request before, at the same member."""
    seen = []

    async def serve(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n1"))
        if len(seen) == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue")
            seen.append(await reader.readuntil(b"\r\n\r\n1"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    await cluster.serve("n4", [f"127.0.0.1:{server.sockets[0].getsockname()[1]}"])
    client = await cluster.client()
    assert (await client.ask("PUT", "/v1/kv/a", body=b"1")).status == 200
    got = await client.ask("PUT", "/v1/kv/a", body=b"1")
    assert (got.status, got.headers["X-Replicad-Outcome"], len(seen)) == (504, "indefinite", 2)
    server.close()


@pytest.mark.parametrize("broken", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"no HTTP\r\n\r\n"])
async def test_what_may_be_repeated_is(cluster, broken):
    """A read, and a write with an Idempotency-Key, go on at the next member."""
    good = answer(200, b"true")
    for method, headers, body in (("GET", {}, b""), ("PUT", {"Idempotency-Key": "k"}, b"1")):
        async with scripted(broken) as (first, _), scripted(good) as (second, requests):
            node = f"n{method}"
            await cluster.serve(node, [first, second])
            client = await cluster.client(node)
            got = await client.ask(method, "/v1/kv/a", headers, body)
            assert (got.status, got.body, len(requests)) == (200, b"true", 1)


async def test_a_refusal_after_a_broken_write_says_nothing(cluster):
    """If an earlier member may have done the write, a later one's refusal does not make it undone."""
    refused = answer(503, b"Not ready.", "X-Replicad-Outcome: definite")
    async with scripted(b"") as (first, _), scripted(refused) as (second, requests):
        await cluster.serve("n4", [first, second])
        client = await cluster.client()
        got = await client.ask("PUT", "/v1/kv/a", {"Idempotency-Key": "k"}, b"1")
        assert (got.status, got.headers["X-Replicad-Outcome"], len(requests)) == (504, "indefinite", 1)
    async with scripted(b"") as (first, _):
        await cluster.serve("n5", [first, DEAD])
        got = await (await cluster.client("n5")).ask("PUT", "/v1/kv/a", {"Idempotency-Key": "k"}, b"1")
        assert (got.status, got.headers["X-Replicad-Outcome"]) == (504, "indefinite")


async def test_a_list_that_breaks_off_is_cut(cluster):
    """A long answer that a member does not finish is not taken for complete."""
    half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1,2,\r\n"
    async with scripted(half) as (member, _):
        await cluster.serve("n4", [member])
        client = await cluster.client()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.ask("GET", "/v1/kv/?recurse")


async def test_a_loop_ends(cluster):
    """Two nodes that take each other for the member give a definite error, and the second is asked no third time."""
    ports = []
    first = await cluster.serve("n4", ports)
    second = await cluster.serve("n5", [first])
    ports.append(second)
    client = await cluster.client()
    got = await client.ask("PUT", "/v1/kv/a", body=b"1")
    assert (got.status, got.headers["X-Replicad-Outcome"]) == (508, "definite")
    assert "came back to n4 by way of 'n4,n5'" in got.text


async def test_a_wrong_turn_is_taken_back(cluster):
    """A node that others still take for a member is passed over for one that is."""
    ports = []
    former = await cluster.serve("n5", ports)
    member = await cluster.serve("n1")
    ports += [await cluster.serve("n4", [former, member])]
    client = await cluster.client()
    got = await client.ask("PUT", "/v1/kv/a", body=b"1")
    assert (got.status, got.headers["X-Replicad-Node"]) == (200, "n1")
    await cluster.serve("n6", [ports[-1]])
    got = await (await cluster.client("n6")).ask("GET", "/v1/kv/a?raw")
    assert (got.body, got.headers["X-Replicad-Via"]) == (b"1", "n6,n4")


async def test_hops_are_counted(cluster):
    """A request that three nodes have passed on is passed on no more."""
    await cluster.serve("n4", [await cluster.serve("n1")])
    client = await cluster.client()
    assert (await client.ask("GET", "/v1/kv/?keys", {"X-Replicad-Via": "a,b"})).status == 200
    got = await client.ask("GET", "/v1/kv/?keys", {"X-Replicad-Via": "a, b,c"})
    assert (got.status, "passed on 3 times" in got.text) == (508, True)
    assert "X-Consul-Index" not in got.headers


async def test_a_member_serves_whatever_the_way(cluster):
    """Only who passes on looks at the way."""
    await cluster.serve("n1")
    assert (await (await cluster.client("n1")).ask("GET", "/v1/kv/?keys", {"X-Replicad-Via": "a,b,c,n1"})).status == 200


async def test_at_most_so_many_at_a_time(cluster):
    """One request too many to pass on gets 429 before any work."""
    member = await cluster.serve("n1")
    await cluster.serve("n4", [member], forwarded=1)
    cluster.nodes["n1"].default.held = held = []
    busy, other = await cluster.client(), await cluster.client()
    busy.writer.write(encode("PUT", "/v1/kv/a", body=b"1"))
    await until(lambda: held)
    got = await other.ask("PUT", "/v1/kv/a", body=b"1")
    assert (got.status, got.headers["X-Replicad-Outcome"], len(held)) == (429, "definite", 1)
    held[0].set_exception(RequestError("no_coordinator"))
    assert (await read_answer(busy.reader)).status == 503
    assert cluster.servers["n4"].forwarder.in_flight == 0


async def test_a_member_that_is_silent(cluster):
    """A member that does not answer in time leaves a write unknown, and a read without an answer."""
    member = await cluster.serve("n1")
    await cluster.serve("n4", [member], forward_seconds=0.05)
    cluster.nodes["n1"].default.held = []
    client = await cluster.client()
    got = await client.ask("PUT", "/v1/kv/a", body=b"1")
    assert (got.status, got.headers["X-Replicad-Outcome"]) == (504, "indefinite")


async def test_headers_that_cannot_be_passed_on(cluster):
    """Bytes that are no UTF-8 in a header are refused: leaving the header out could change what the request means."""
    await cluster.serve("n4", [await cluster.serve("n1")])
    client = await cluster.client()
    client.writer.write(b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \xff\r\nContent-Length: 0\r\n\r\n")
    got = await read_answer(client.reader)
    assert (got.status, "printable UTF-8" in got.text) == (400, True)


async def test_an_unknown_group_is_not_forwarded(cluster):
    """A group that nobody has is 404 here."""
    await cluster.serve("n4", [DEAD])
    assert (await (await cluster.client()).ask("GET", "/v1/kv/a?ns=none")).status == 404
