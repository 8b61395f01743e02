import asyncio

import pytest

from replicad.client import (
    Client,
    Connection,
    DefiniteError,
    Entry,
    PartlyDoneError,
    UnknownOutcomeError,
    Written,
    operation,
    route,
)
from replicad.client.wire import ANSWER, HELLO, pack
from replicad.core.model.errors import RequestError
from replicad.core.model.operations import ACK_ONE, PUT, Result
from tests.native.raw import until


@pytest.fixture
async def client(pair):
    async with Client(pair.addresses) as client:
        yield client


# --- what it offers -----------------------------------------------------------------------------------------------


async def test_put_get_delete(client):
    assert await client.put("color", b"red") == Written(True, 1)
    assert await client.get(b"color") == b"red"
    assert await client.get_entry("color") == Entry(b"red", 1, 0, 1)
    assert await client.put("color", b"blue", flags=3, cas=7) == Written(False, 2)
    assert await client.put("color", b"blue", flags=3, cas=1) == Written(True, 3)
    assert await client.get_entry("color") == Entry(b"blue", 3, 3, 1)
    assert await client.delete("color", cas=1) == Written(False, 4)
    assert await client.delete("color") == Written(True, 5)
    assert await client.get("color") is None


async def test_many(client):
    items = [(f"k{number}", b"%d" % number) for number in range(3_000)]
    written = await client.put_many(items)
    assert [index for _, index in written] == list(range(1, 3_001))
    entries = await client.get_many([*(key for key, _ in items), "none"])
    assert [entry and entry.value for entry in entries] == [*(value for _, value in items), None]


async def test_many_may_be_none(client):
    assert await client.put_many([]) == []
    assert await client.get_many([]) == []


async def test_many_with_one_that_fails(client):
    """The others are done, so the error does not say that nothing happened: it says what became of each."""
    with pytest.raises(
        PartlyDoneError, match=r"of 3 writes 2 are done, 1 are not, and 0 may be; .*leading slash"
    ) as info:
        await client.put_many([("a", b"1"), ("/b", b"1"), ("c", b"1")])
    assert not info.value.definite
    first, refused, last = info.value.results
    assert {first, last} == {Written(True, 1), Written(True, 2)}
    assert isinstance(refused, DefiniteError)
    assert await client.get("c") == b"1"


async def test_many_that_all_fail(client):
    """Nothing happened, and the error says so."""
    with pytest.raises(DefiniteError, match="leading slash"):
        await client.put_many([("/a", b"1"), ("/b", b"1")])
    with pytest.raises(DefiniteError, match="leading slash"):
        await client.get_many(["a", "/b"])


async def test_many_wait_for_room(pair):
    """Others are under way: many are not refused in their midst, they go on as room comes."""
    pair.group.held = []
    async with Client(pair.addresses, queue_max=10) as client:
        singles = [asyncio.create_task(client.put(f"k{number}", b"1")) for number in range(4)]
        await until(lambda: len(pair.group.held) == 4)
        many = asyncio.create_task(client.put_many([(f"m{number}", b"1") for number in range(10)]))
        await until(lambda: len(pair.group.held) == 10)
        assert not many.done()
        held, pair.group.held = pair.group.held, None
        for future in held:
            future.set_result(Result(1, 1))
        await asyncio.gather(*singles)
        assert [done for done, _ in await many] == [True] * 10


async def test_many_that_wait_for_room_when_the_client_closes(pair):
    """What was sent may be done, the others are not: no error claims the one of all of them."""
    pair.group.held = []
    async with Client(pair.addresses, queue_max=2) as client:
        many = asyncio.create_task(client.put_many([(f"m{number}", b"1") for number in range(5)]))
        await until(lambda: len(pair.group.held) == 2)
    with pytest.raises(PartlyDoneError, match="of 5 writes 0 are done, 3 are not, and 2 may be"):
        await many


async def test_many_that_are_given_up_while_they_wait_for_room(pair):
    pair.group.held = []
    async with Client(pair.addresses, queue_max=2) as client:
        many = asyncio.create_task(client.put_many([(f"m{number}", b"1") for number in range(5)]))
        await until(lambda: len(pair.group.held) == 2)
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        pair.group.held = None
        assert (await client.put("k", b"1")).done  # there is room again


async def test_what_is_awaited_together_travels_together(client, pair):
    """Operations of one turn of the loop are one frame."""
    (connection,) = pair.connections(0)
    frames = []
    take = connection.take
    connection.take = lambda fields, started: (frames.append(len(fields[4])), take(fields, started))
    await asyncio.gather(*(client.put(f"k{number}", b"1") for number in range(10)), client.get("k1"))
    assert frames == [11]


async def test_levels_of_acknowledgement(client, pair):
    assert await client.put("k", b"1", ack="one") == Written(True, 0)
    assert pair.group.acks == [ACK_ONE]


async def test_a_stale_read_shows_at_least_what_the_client_has_seen(client, pair):
    await client.put("k", b"1")
    pair.group.ready = False
    assert await client.get("k", consistency="stale") == b"1"
    assert pair.group.barriers == []
    pair.group.machine.index -= 1  # the client moves to a replica that is behind
    assert await client.get("k", consistency="stale") == b"1"
    assert pair.group.reaches == [1]
    pair.group.age_ms = 100
    assert await client.get("k", consistency="stale", max_stale_ms=50) == b"1"
    assert await client.get("k", consistency="consistent") == b"1"
    assert pair.group.barriers[-1] is True


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda client: client.put("k", "text"), TypeError),
        (lambda client: client.put(7, b"v"), TypeError),
        (lambda client: client.get("k", consistency="strong"), ValueError),
        (lambda client: client.get("k", max_stale_ms=7), ValueError),
        (lambda client: client.put("k", b"v", ack="some"), ValueError),
        (lambda client: client.put("k", b"v", flags=2**64), ValueError),
        (lambda client: client.put("k", b"v", flags=-1), ValueError),
        (lambda client: client.put("k", b"v", flags=None), TypeError),
        (lambda client: client.put("k", b"v", cas=2**64), ValueError),
        (lambda client: client.put("k", b"v", cas="1"), TypeError),
        (lambda client: client.delete("k", cas=-1), ValueError),
        (lambda client: client.delete("k", cas=True), TypeError),
        (lambda client: client.get("k", consistency="stale", max_stale_ms=-1), ValueError),
        (lambda client: client.get_many(["k"], consistency="stale", max_stale_ms=2**64), ValueError),
        (lambda client: client.get("k", consistency="stale", max_stale_ms=0.5), TypeError),
        (lambda client: client.put("k" * 501, b"v"), DefiniteError),
        (lambda client: client.put("k", b"v" * 200_001), DefiniteError),
        (lambda client: client.put("k", b"v" * 2_000_000), DefiniteError),
    ],
)
async def test_what_cannot_be(client, call, error):
    with pytest.raises(error):
        await call(client)
    assert await client.get("k") is None


async def test_one_that_cannot_be_harms_no_other(client):
    """Of one turn of the loop, only the one with the bad number fails, and its error names what is wrong."""
    good, bad, more = await asyncio.gather(
        client.put("a", b"1"), client.put("b", b"1", flags=2**64), client.put("c", b"1"), return_exceptions=True
    )
    assert (good, more) == (Written(True, 1), Written(True, 2))
    assert str(bad) == f"flags must be from 0 to {2**64 - 1}, not {2**64}"


async def test_the_greatest_numbers_travel(client):
    assert await client.put("k", b"1", flags=2**64 - 1) == Written(True, 1)
    assert await client.get_entry("k") == Entry(b"1", 1, 2**64 - 1, 1)
    assert not (await client.put("k", b"1", cas=2**64 - 1)).done
    assert await client.get("k", consistency="stale", max_stale_ms=2**64 - 1) == b"1"


async def test_it_must_be_open(pair):
    client = Client(pair.addresses)
    with pytest.raises(RuntimeError, match="not open"):
        await client.get("k")
    for addresses in ("127.0.0.1:7001", []):
        with pytest.raises(ValueError, match="must be a list"):
            Client(addresses)
    with pytest.raises(ValueError, match="queue_max must be 1 or more, not 0"):
        Client(pair.addresses, queue_max=0)
    async with client:
        assert client.address == pair.addresses[0]
        await until(lambda: client.coordinator == "n1")
    with pytest.raises(DefiniteError, match="closed"):
        await client.get("k")


async def test_the_queue_is_bounded(pair):
    pair.group.held = []
    async with Client(pair.addresses, queue_max=10) as client:
        tasks = [asyncio.create_task(client.put(f"k{number}", b"1")) for number in range(10)]
        await until(lambda: len(pair.group.held) == 10)
        with pytest.raises(DefiniteError, match="10 operations under way"):
            await client.put("k", b"1")
        for future in pair.group.held:
            future.set_result(Result(1, 1))
        assert len(await asyncio.gather(*tasks)) == 10
        pair.group.held = None
        await client.put_many([(f"m{number}", b"1") for number in range(35)])


async def test_more_than_the_connection_takes_waits_its_turn(client, pair):
    """The bound of the node on operations in flight is kept by the client, not run into."""
    (connection,) = pair.connections(0)
    assert connection.server.limits.in_flight == 4_096
    written = await asyncio.gather(*(client.put(f"k{number}", b"1") for number in range(9_000)))
    assert sorted(index for _, index in written) == list(range(1, 9_001))
    text = pair.nodes[0].metrics.render().decode()
    assert 'native_errors_total{error="overloaded"}' not in text


async def test_one_that_is_not_awaited_any_more_harms_nobody(client, pair):
    pair.group.held = []
    task = asyncio.create_task(client.put("k", b"1"))
    await until(lambda: pair.group.held)
    task.cancel()
    held, pair.group.held = pair.group.held, None
    held[0].set_result(Result(1, 1))
    assert await client.put("l", b"1") == Written(True, 1)


async def test_what_is_finished_is_not_kept(client, pair):
    """One that waits long keeps itself only, not the values of all that came after it."""
    pair.group.held = []
    slow = asyncio.create_task(client.put("slow", b"1"))
    await until(lambda: pair.group.held)
    held, pair.group.held = pair.group.held, None
    kept = client._route._deadlines
    (first,) = kept
    await client.put_many([(f"k{number}", b"v" * 1_000) for number in range(100)])
    await client.get_many([f"k{number}" for number in range(100)])
    await until(lambda: client._route.under_way == 1)
    assert list(kept) == [first]
    held[0].set_result(Result(1, 1))
    await slow
    await until(lambda: not kept)
    assert first.fields == ()


async def test_what_nobody_waits_for_leaves_the_queue_while_there_is_no_node(pair):
    async with Client(pair.addresses, timeout_s=60.0) as client:
        pair.cut(1)
        pair.cut(0)
        await until(lambda: not client.address)
        tasks = [asyncio.create_task(client.put(f"k{number}", b"1")) for number in range(5)]
        await until(lambda: len(client._route._pending) == 5)
        for task in tasks:
            task.cancel()
        await until(lambda: not client._route._pending)


async def test_closing_ends_what_is_under_way(pair):
    pair.group.held = []
    async with Client(pair.addresses) as client:
        task = asyncio.create_task(client.put("k", b"1"))
        await until(lambda: pair.group.held)
    with pytest.raises(UnknownOutcomeError, match="the client was closed"):
        await task


# --- opening ------------------------------------------------------------------------------------------------------


async def test_the_first_that_answers_is_taken(pair):
    async with Client(["127.0.0.1:1", *pair.addresses]) as client:
        assert client.address == pair.addresses[0]


async def test_nobody_there():
    with pytest.raises(DefiniteError, match=r"no node answered in time \(127.0.0.1:1: "):
        async with Client(["127.0.0.1:1"], timeout_s=0.1):
            pass


async def test_another_cluster(pair):
    with pytest.raises(DefiniteError, match="a node of the cluster 'test', not of 'mine'"):
        async with Client(pair.addresses, cluster="mine"):
            pass


async def test_a_group_of_other_nodes_is_found(pair):
    """A node that has no part in the group says who has."""
    pair.nodes[1].groups = {"far": pair.group}
    async with Client(pair.addresses[:1], group="far") as client:
        assert await client.put("k", b"1") == Written(True, 1)
        assert client.address == pair.addresses[1]


async def test_no_such_group(pair):
    async with Client(pair.addresses, group="never") as client:
        with pytest.raises(DefiniteError, match="no group 'never'"):
            await client.get("k")


# --- trouble ------------------------------------------------------------------------------------------------------


async def test_refusals_that_pass_are_tried_again(client, pair):
    """Definite errors after which a retry makes sense do not reach the caller."""
    pair.group.refusals = [RequestError("overloaded"), RequestError("expired"), None]
    assert await client.put("k", b"1", safe=False) == Written(True, 1)
    pair.group.barrier_error = RequestError("timeout")
    pair.group.ready = False
    task = asyncio.create_task(client.get("k"))
    await until(lambda: len(pair.group.barriers) > 1)
    pair.group.barrier_error = None
    assert await task == b"1"


async def test_a_node_that_cannot_serve_is_left(client, pair):
    pair.group.refusals = [RequestError("not_ready")]
    assert await client.put("k", b"1") == Written(True, 1)
    assert client.address == pair.addresses[1]


async def test_a_write_whose_answer_is_lost_is_repeated_under_its_id(client, pair):
    """The first attempt is done, its answer is lost; the second one, at another node, gets the same result."""
    group = pair.group
    write = group.write

    def lose_the_answer(*arguments):
        group.write = write
        write(*arguments)
        pair.cut(0)
        return asyncio.get_running_loop().create_future()

    group.write = lose_the_answer
    assert await client.put("k", b"1", cas=0) == Written(True, 1)
    assert client.address == pair.addresses[1]
    assert group.index == 2  # it was asked for twice,
    assert (await client.get_entry("k")).modify_index == 1  # and done once


async def test_a_write_without_an_id_is_not_repeated(client, pair):
    pair.group.held = []
    task = asyncio.create_task(client.put("k", b"1", safe=False))
    await until(lambda: pair.group.held)
    pair.cut(0)
    with pytest.raises(UnknownOutcomeError, match="lost"):
        await task
    assert len(pair.group.held) == 1


async def test_after_an_unknown_attempt_nothing_is_definite(client, pair):
    """A refusal of the second attempt says nothing of the first one."""
    pair.group.held = []
    task = asyncio.create_task(client.put("k", b"1"))
    await until(lambda: pair.group.held)
    pair.group.held[0].set_exception(RequestError("unknown_outcome"))
    pair.group.refusals = [RequestError("too_large")]
    with pytest.raises(UnknownOutcomeError, match="an earlier attempt may have been done"):
        await task


async def test_a_write_that_may_be_done_is_not_repeated_too_late(client, pair, monkeypatch):
    """The group forgets ids after a while: later than that, unknown is the answer."""
    monkeypatch.setattr(operation, "REPEAT_SECONDS", 0.0)
    pair.group.held = []
    task = asyncio.create_task(client.put("k", b"1"))
    await until(lambda: pair.group.held)
    pair.group.held[0].set_exception(RequestError("unknown_outcome"))
    with pytest.raises(UnknownOutcomeError):
        await task
    assert len(pair.group.held) == 1


async def test_the_time_of_an_operation_ends(pair):
    """A write that was sent has an unknown outcome, a read and what was never sent a definite one."""
    pair.group.held = []
    async with Client(pair.addresses, timeout_s=0.2) as client:
        with pytest.raises(UnknownOutcomeError, match=r"no answer came: no result within 0\.2 s"):
            await client.put("k", b"1")
        pair.cut(1)
        pair.cut(0)
        await until(lambda: not client.address)
        with pytest.raises(DefiniteError, match=r"no result within 0\.2 s"):
            await client.put("k", b"1")
        with pytest.raises(DefiniteError, match=r"no result within 0\.2 s"):
            await client.get("k")


async def test_a_node_that_stops_is_left_before_it_does(client, pair):
    """What is under way there is finished there; what is new goes to the other node."""
    pair.group.held = []
    task = asyncio.create_task(client.put("k", b"1"))
    await until(lambda: pair.group.held)
    held, pair.group.held = pair.group.held, None
    pair.servers[0].announce("this node stops", 5.0)
    await until(lambda: client.address == pair.addresses[1])
    assert await client.put("l", b"1") == Written(True, 1)
    held[0].set_result(Result(1, 9))
    assert await task == Written(True, 9)
    await until(lambda: not pair.connections(0))


async def test_an_idle_client_moves_when_its_node_dies(client, pair):
    pair.cut(0)
    await until(lambda: client.address == pair.addresses[1])
    assert await client.put("k", b"1") == Written(True, 1)


async def test_a_silent_node_is_asked_for_a_sign_of_life_and_left(client, pair, monkeypatch):
    """A node that is alive and slow is not left; one that says nothing at all is."""
    monkeypatch.setattr(route, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(route, "SILENCE_SECONDS", 0.5)
    pair.group.held = []
    task = asyncio.create_task(client.put("k", b"1"))
    await until(lambda: pair.group.held)
    (connection,) = pair.connections(0)
    asked = []
    finish = connection.finish
    connection.finish = lambda frame: (asked.append(len(frame.results)), finish(frame))
    await until(lambda: len(asked) >= 8)  # it has been silent for longer than the bound, but for these
    assert set(asked) == {0}
    assert client.address == pair.addresses[0]
    connection.take = lambda fields, started: None
    pair.group.held = None
    assert await task == Written(True, 1)
    assert client.address == pair.addresses[1]


async def test_a_server_that_makes_no_sense_is_left(pair):
    """Something that greets as a node and then answers what nobody asked is one failed address among others."""

    async def serve(reader, writer):
        about = {"in_flight": 10, "operations": 10, "frame_bytes": 100_000}
        writer.write(pack((HELLO, "replicad", 1, about)) + pack((ANSWER, 99, "g", 0, 0, ())))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as strange:
        port = strange.sockets[0].getsockname()[1]
        async with Client([f"127.0.0.1:{port}", *pair.addresses]) as client:
            assert await client.put("k", b"1") == Written(True, 1)
            assert client.address in pair.addresses


# --- the connection below -----------------------------------------------------------------------------------------


async def test_a_connection_by_itself(pair):
    connection = await Connection.open(pair.addresses[0])
    answer = await connection.request([(PUT, b"k%d" % number, b"v") for number in range(16)])
    assert answer.results == tuple((1, number) for number in range(1, 17))
    assert (answer.group_id, answer.index, answer.age_ms) == ("default", 16, 0)
    with pytest.raises(DefiniteError, match="no group"):
        await connection.request([(PUT, b"k", b"v")], "never")
    with pytest.raises(OverflowError):
        connection.request([(PUT, b"k", b"v", 2**64, None, None)])
    assert connection.in_flight == 0
    assert not connection.waits()
    with pytest.raises(DefiniteError, match="0 operations are under way"):
        connection.request([(PUT, b"k", b"v")] * 5_000)
    await connection.close()
    with pytest.raises(DefiniteError, match="was closed here"):
        connection.request([])


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:port"])
async def test_an_address_that_does_not_do(address):
    with pytest.raises(DefiniteError, match=f"unreachable: {address}"):
        await Connection.open(address)
