import asyncio

import pytest

from replicad.core.model.operations import PUT
from replicad.native import wire
from replicad.native.server import NativeLimits, NativeServer
from tests.native.fake import held_done
from tests.native.raw import CLOSING, GET, HELLO, Raw, framed, until


@pytest.fixture
async def small(node):
    """A server whose bounds are within easy reach."""
    server = NativeServer(node, "127.0.0.1", 0, NativeLimits(connections=2, in_flight=8, waiting=2))
    await server.start()
    yield server
    await server.stop(0.2)


async def test_connections_are_bounded(small):
    async with Raw(small.port), Raw(small.port), Raw(small.port, hello=False) as third:
        error = await third.ended()
        assert error[0] == "overloaded"
    await until(lambda: not small.connections)
    async with Raw(small.port) as raw:
        assert await raw.results([GET, b"k"]) == ((0,),)


async def test_operations_in_flight_are_bounded(small, node):
    """A frame beyond the bound is refused; there is room again when answers have left."""
    node.default.held = []
    async with Raw(small.port) as raw:
        raw.ask(*[[PUT, b"k", b"1"]] * 6)
        assert (await raw.failure(*[[PUT, b"k", b"1"]] * 3))[0] == "overloaded"
        raw.ask(*[[PUT, b"k", b"1"]] * 2)
        await until(lambda: len(node.default.held) == 8)
        for number in range(8):
            held_done(node, number)
        assert {(await raw.next())[1], (await raw.next())[1]} == {1, 3}
        node.default.held = None
        assert len(await raw.results(*[[PUT, b"k", b"1"]] * 8)) == 8


async def test_waiting_requests_are_bounded(small, node):
    gate = asyncio.Event()

    async def barrier(*, consistent):
        await gate.wait()

    node.default.read_barrier = barrier
    async with Raw(small.port) as raw:
        for _ in range(2):
            raw.ask([GET, b"k"], options={"level": 1})
        await until(lambda: small.waiting == 2)
        assert (await raw.results([GET, b"k"], options={"level": 1}))[0][0] == "overloaded"
        gate.set()
        assert {(await raw.next())[1], (await raw.next())[1]} == {1, 2}
    await until(lambda: small.waiting == 0)


async def test_a_client_that_leaves_frees_its_place_among_the_waiting(small, node):
    async def barrier(*, consistent):
        await asyncio.Event().wait()

    node.default.read_barrier = barrier
    async with Raw(small.port) as raw:
        raw.ask([GET, b"k"], options={"level": 1})
        await until(lambda: small.waiting == 1)
    await until(lambda: small.waiting == 0 and not small.connections)


async def test_an_answer_is_bounded(raw):
    """Values beyond the bound of one answer are refused, and can be asked again."""
    value = b"x" * 200_000
    for start in range(0, 24, 4):
        await raw.results(*[[PUT, b"k%d" % number, value] for number in range(start, start + 4)])
    results = await raw.results(*[[GET, b"k%d" % number] for number in range(24)])
    served = [result for result in results if result[0] == 1]
    assert len(served) == wire.ANSWER_BYTES_MAX // 200_000 + 1
    assert all(result[0] == "overloaded" and "another frame" in result[1] for result in results[len(served) :])


async def test_a_client_that_does_not_read_is_served_no_more(server, node):
    """Its requests wait unread; when it reads, all are answered; one that never does is dropped."""
    node.default.write(PUT, b"big", b"x" * 200_000)
    async with Raw(server.port) as raw:
        for _ in range(400):
            raw.ask([GET, b"big"])
        (connection,) = server.connections
        await until(lambda: connection.stuffed)
        assert connection.transport.get_write_buffer_size() < 2_000_000
        for number in range(1, 401):
            assert (await raw.next())[1] == number
        for _ in range(400):
            raw.ask([GET, b"big"])
        await until(lambda: connection.stuffed)
        server.seconds += server.limits.unread_seconds + 1
        server._judge(connection)
        await until(lambda: not server.connections)


@pytest.mark.parametrize(
    ("data", "seconds", "sentence"),
    [
        (b"", "hello_seconds", "no hello within 5 s"),
        (framed([HELLO, "replicad", 1, 1, {}]) + b"\0\0", "frame_seconds", "a frame that did not arrive within 30 s"),
    ],
)
async def test_patience_ends(server, data, seconds, sentence):
    async with Raw(server.port, hello=False) as raw:
        raw.writer.write(data)
        await until(lambda: [bool(data)] == [each.inbox.partial() for each in server.connections])
        (connection,) = server.connections
        server.seconds += getattr(server.limits, seconds)
        server._judge(connection)
        assert server.connections
        server.seconds += 1
        server._judge(connection)
        assert sentence in (await raw.ended())[1]


async def test_an_idle_connection_is_closed_with_a_word(raw, server, node):
    """A frame, even an empty one, is a sign of life; a request under way is no idleness."""
    (connection,) = server.connections
    server.seconds += 120
    await raw.results()
    server.seconds += 120
    server._judge(connection)
    node.default.held = []
    raw.ask([PUT, b"k", b"1"])
    await until(lambda: connection.in_flight)
    server.seconds += 500
    server._judge(connection)
    held_done(node)
    await raw.next()
    server._judge(connection)
    kinds = [(await raw.receive())[0]]
    assert kinds == [CLOSING]
    assert await raw.ended() == ""
