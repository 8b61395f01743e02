import asyncio
import gc
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicad.core.model.errors import RequestError
from replicad.core.model.operations import ACK_ALL, ACK_MAJORITY, Result
from replicad.native.frame import Frame
from replicad.native.server import NativeServer
from tests.native.fake import held_done
from tests.native.raw import ANSWER, CLOSING, CLUSTER, DELETE, FAILED, GET, HELLO, PUT, REQUEST, Raw, framed, until

# --- hello --------------------------------------------------------------------------------------------------------


async def test_hello_tells_who_this_is_and_its_bounds(raw, server):
    assert raw.about == server.about()
    assert raw.about["cluster"] == "test"
    assert raw.about["node"] == "n1"
    assert raw.about["value_bytes"] == 200_000
    assert raw.about["frame_bytes"] == 1 << 20


async def test_the_cluster_is_told_after_the_hello(raw):
    """Nodes that serve native clients, which of them are in touch, and the groups with coordinator and members."""
    nodes = {"n1": ("127.0.0.1:7001", True), "n2": ("127.0.0.1:7002", True), "n3": ("127.0.0.1:7003", False)}
    groups = {"default": ("n1", ("n1", "n2")), "far": ("", ("n2", "n3")), "nowhere": ("", ("n4",))}
    assert await raw.receive() == (CLUSTER, nodes, groups)


@pytest.mark.parametrize(
    ("first", "name", "sentence"),
    [
        ([HELLO, "replicad", 2, 3, {}], "bad_version", "speaks versions 2 to 3 of the native protocol, this node 1"),
        ([HELLO, "replicad", 1, 1, {"cluster": "other"}], "wrong_cluster", "the cluster 'test', not of 'other'"),
        ([HELLO, "redis", 1, 1, {}], "bad_frame", "something else than the hello"),
        ([HELLO, "replicad", 1, 1], "bad_frame", "something else than the hello"),
        ([HELLO, "replicad", "1", 1, {}], "bad_frame", "versions are no numbers"),
        ([HELLO, "replicad", 1, 1, None], "bad_frame", "no map"),
        ([REQUEST, 1, "default", {}, []], "bad_frame", "something else than the hello"),
        ({"hello": 1}, "bad_frame", "not an array that begins with its kind"),
        ([], "bad_frame", "not an array that begins with its kind"),
    ],
)
async def test_a_bad_hello_is_answered_and_the_connection_ends(server, first, name, sentence):
    async with Raw(server.port, hello=False) as raw:
        raw.send(first)
        error = await raw.ended()
        assert error[0] == name
        assert sentence in error[1]
        assert error[2] is True


async def test_versions_that_overlap_agree(server):
    async with Raw(server.port, hello=False) as raw:
        raw.send([HELLO, "replicad", 1, 99, {"cluster": "test", "later": "fields"}])
        assert (await raw.receive())[:3] == (HELLO, "replicad", 1)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n", "looks like HTTP"),
        (struct.pack(">I", 4097), "a frame of 4097 bytes, longer than the 4096"),
        (struct.pack(">I", 0), "an empty frame"),
        (struct.pack(">I", 3) + b"\xc1\xc1\xc1", "not msgpack"),
    ],
)
async def test_a_stranger_gets_one_sentence(server, data, sentence):
    async with Raw(server.port, hello=False) as raw:
        raw.writer.write(data)
        assert sentence in (await raw.ended())[1]


# --- operations ---------------------------------------------------------------------------------------------------


async def test_put_get_delete(raw):
    """Many operations in one frame, results in order."""
    first, second = await raw.results([PUT, b"a", b"1"], [PUT, b"b", b"2", 7])
    assert (first, second) == ((1, 1), (1, 2))
    found = await raw.results([GET, b"a"], [GET, b"b"], [GET, b"c"])
    assert found == ((1, b"1", 1, 0, 1), (1, b"2", 2, 7, 2), (0,))
    assert await raw.results([DELETE, b"a"]) == ((1, 3),)
    assert await raw.results([GET, b"a"]) == ((0,),)


async def test_conditions(raw):
    assert await raw.results([PUT, b"k", b"1", 0, 0]) == ((1, 1),)
    assert await raw.results([PUT, b"k", b"2", 0, 0]) == ((0, 2),)
    assert await raw.results([PUT, b"k", b"2", 0, 1]) == ((1, 3),)
    assert await raw.results([DELETE, b"k", 1]) == ((0, 4),)
    assert await raw.results([DELETE, b"k", 3]) == ((1, 5),)


async def test_an_id_makes_a_write_happen_once(raw):
    once = [PUT, b"k", b"1", 0, 0, bytes(16)]
    assert await raw.results(once) == await raw.results(once) == ((1, 1),)


async def test_the_answer_says_which_state_it_is_of(raw):
    await raw.results([PUT, b"k", b"1"])
    raw.ask([GET, b"k"])
    answer = await raw.next()
    assert answer[2:5] == ("default", 1, 0)


async def test_an_empty_request_is_answered(raw):
    assert await raw.results() == ()


async def test_bad_operations_get_an_error_each_and_the_others_go_on(raw, server):
    results = await raw.results(
        [PUT, b"good", b"1"],
        [PUT, b"/k", b"1"],
        [PUT, b"\xff", b"1"],
        [PUT, b"k" * 501, b"1"],
        [PUT, b"k", b"1" * 200_001],
        [GET, b""],
        [9, b"k"],
        7,
        {"1": 2},
        b"\x01ab",
        [],
        [GET, b"good"],
    )
    assert results[0] == (1, 1)
    names = [result[0] for result in results[1:11]]
    assert names == ["bad_request"] * 2 + ["too_large"] * 2 + ["bad_request"] * 6
    assert results[11] in {(0,), (1, b"1", 1, 0, 1)}
    assert all(result[2:] == (True, 0) for result in results[1:11])
    assert server.runtime.metrics.native.errors.labels("too_large")._value.get() == 2


async def test_levels_of_acknowledgement(raw, node):
    """Below `all` no index is told, and a condition is refused; the group's own level counts where none is given."""
    assert await raw.results([PUT, b"k", b"1"], options={"ack": 1}) == ((1, 0),)
    ((name, sentence, *_),) = await raw.results([PUT, b"k", b"1", 0, 0], options={"ack": 2})
    assert (name, "cas needs one" in sentence) == ("bad_request", True)
    node.default.default_ack = ACK_MAJORITY
    assert await raw.results([PUT, b"k", b"2"], [PUT, b"k", b"3", 0, 0]) == ((1, 0), (0, 3))
    assert node.default.acks == [1, ACK_MAJORITY, ACK_ALL]


async def test_writes_that_are_refused_at_once(raw, node):
    """Each refused write has its error; a status that is none of a success is one, too."""
    node.default.refusals = [None, RequestError("disk_full"), None]
    results = await raw.results([PUT, b"a", b"1"], [PUT, b"b", b"1"], [PUT, b"c", b"1"])
    assert [result[0] for result in results] == [1, "disk_full", 1]
    assert results[1][2:] == (True, 1000)
    node.default.held = []
    raw.ask([PUT, b"a", b"1"], [PUT, b"b", b"1"])
    await until(lambda: len(node.default.held) == 2)
    held_done(node, 0, Result(3, 0))
    held_done(node, 1, Result(4, 0))
    assert [result[0] for result in (await raw.next())[5]] == ["key_reused", "expired"]


async def test_the_clusters_own_group_is_read_only(raw, node):
    node.groups["_meta"] = node.default
    node.default.name = "_meta"
    written, found = await raw.results([PUT, b"k", b"1"], [GET, b"k"], group="_meta")
    assert written[0] == "bad_request"
    assert found == (0,)


# --- frames -------------------------------------------------------------------------------------------------------


async def test_answers_overtake_each_other(raw, node):
    """A read behind a write that is held up is answered first."""
    node.default.held = []
    slow = raw.ask([PUT, b"k", b"1"])
    quick = raw.ask([GET, b"k"])
    assert (await raw.next())[1] == quick
    held_done(node)
    assert (await raw.next())[:2] == (ANSWER, slow)


async def test_a_group_of_other_nodes(raw, node):
    """The refusal says where the group's members are, those in touch first; an unknown group is not found."""
    raw.ask([GET, b"k"], group="far")
    kind, _, error, addresses = await raw.next()
    assert (kind, error[0], addresses) == (FAILED, "elsewhere", ("127.0.0.1:7002", "127.0.0.1:7003"))
    error = await raw.failure([GET, b"k"], group="nowhere")
    assert error[0] == "elsewhere"
    assert "not known here" in error[1]
    assert (await raw.failure([GET, b"k"], group="never"))[0] == "not_found"
    assert await raw.results([GET, b"k"]) == ((0,),)


async def test_bad_options_refuse_the_frame_and_nothing_else(raw):
    assert (await raw.failure([PUT, b"k", b"1"], options={"acks": 1}))[0] == "bad_request"
    assert await raw.results([GET, b"k"]) == ((0,),)


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        ([REQUEST, 1, "default", {}], "not an array of kind, number"),
        ([REQUEST, 0, "default", {}, []], "number is not a whole number from 1"),
        ([REQUEST, "1", "default", {}, []], "number is not a whole number from 1"),
        ([REQUEST, 1, b"default", {}, []], "group is not text"),
        ([REQUEST, 1, "default", {}, {}], "operations are no array"),
        ([HELLO, "replicad", 1, 1, {}], "after the hello a client sends requests only"),
        ([ANSWER, 1], "after the hello a client sends requests only"),
        (["x" * 5000], "after the hello a client sends requests only"),
        ([True, 1, "default", {}, []], "after the hello a client sends requests only"),
        (7, "not an array"),
        ([REQUEST, 1, "default", {}, [[GET, b"k"]] * 1025], "not msgpack as this protocol uses it"),
    ],
)
async def test_a_bad_frame_ends_the_connection(server, frame, sentence):
    async with Raw(server.port) as raw, Raw(server.port) as other:
        raw.send(frame)
        error = await raw.ended()
        assert error[0] == "bad_frame"
        assert sentence in error[1]
        assert await other.results([GET, b"k"]) == ((0,),)


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
LEAVES |= st.binary(max_size=8) | st.sampled_from([HELLO, REQUEST, GET, PUT, DELETE, "default", b"k"])
THINGS = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=6), max_leaves=30)
REQUESTS = st.tuples(st.just(REQUEST), st.just(1), st.just("default"), st.just({}), st.lists(THINGS, max_size=8))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(REQUESTS | THINGS.map(lambda thing: thing), min_size=1, max_size=4), tail=st.binary(max_size=40))
def test_whatever_arrives_the_server_goes_on(frames, tail):
    """Any frames get answers, refusals or an end; no bug is reported, and another client is served."""

    async def attempt():
        from tests.native.fake import NativeNode

        bugs = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context))
        server = NativeServer(NativeNode(), "127.0.0.1", 0)
        await server.start()
        async with Raw(server.port) as raw, Raw(server.port) as other:
            raw.writer.write(b"".join(map(framed, frames)) + tail)
            raw.writer.write_eof()
            while await raw.reader.read(65_536):
                pass
            assert await other.results([GET, b"zz"]) == ((0,),)
        await server.stop(0.2)
        assert bugs == []

    asyncio.run(attempt())


# --- reads --------------------------------------------------------------------------------------------------------


async def test_a_default_read_waits_for_the_coordinators_word(raw, node):
    node.default.ready = False
    assert await raw.results([GET, b"k"]) == ((0,),)
    assert await raw.results([GET, b"k"], options={"level": 1}) == ((0,),)
    assert node.default.barriers == [False, True]
    node.default.barrier_error = RequestError("no_coordinator")
    assert [result[0] for result in await raw.results([GET, b"k"], [GET, b"l"])] == ["no_coordinator"] * 2


async def test_a_stale_read_says_how_old_its_state_is(raw, node):
    node.default.ready = False
    node.default.age_ms = 40
    raw.ask([GET, b"k"], options={"level": 2})
    assert (await raw.next())[4:] == (40, ((0,),))
    raw.ask([GET, b"k"], options={"level": 2, "max_stale_ms": 39})
    assert (await raw.next())[4:] == (0, ((0,),))
    assert node.default.barriers == [False]


async def test_a_session_is_waited_for(raw, node):
    """What the session has seen is here before anything of its frame is done; another group's index means nothing."""
    seen = {"seen": ["default", 9]}
    assert await raw.results([PUT, b"k", b"1"], [GET, b"k"], options={**seen, "level": 2}) != ()
    await raw.results([GET, b"k"], options={"seen": ["default.old", 99], "level": 2})
    assert node.default.reaches == [9]
    node.default.reach_error = RequestError("behind")
    assert [result[0] for result in await raw.results([PUT, b"k", b"1"], [GET, b"k"], options=seen)] == ["behind"] * 2
    assert node.default.index == 1


@pytest.mark.parametrize("operation", [[GET, b""], [PUT, b"", b"1"], [PUT, b"k"], [PUT, b"k", b"1"]])
async def test_operations_that_fail_leave_no_cycle(raw, node, operation):
    """An error that was raised holds the frame it is kept in, and that the operations; it must let go of it."""
    options = {"seen": ["default", 9]} if operation == [PUT, b"k", b"1"] else {}
    node.default.reach_error = RequestError("behind")
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            (result,) = await raw.results(operation, options=options)
            assert result[0] in {"bad_request", "behind"}
        assert not [each for each in gc.get_objects() if type(each) is Frame]
    finally:
        gc.enable()


@pytest.mark.parametrize("cluster", [{}, [], 5, {"a": 1}])
async def test_a_hello_with_a_cluster_that_is_no_name(server, cluster):
    async with Raw(server.port, hello=False) as raw:
        raw.send([HELLO, "replicad", 1, 1, {"cluster": cluster}])
        assert (await raw.receive())[2][0] == "wrong_cluster"


async def test_a_bug_in_a_read_costs_its_connection_and_is_reported(node, server):
    bugs = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context))
    node.default.read = lambda key: 1 / 0
    async with Raw(server.port) as raw:
        raw.ask([GET, b"k"])
        assert await raw.ended() == ""
        node.default.ready = False
    async with Raw(server.port) as raw:
        raw.ask([GET, b"k"])
        assert await raw.ended() == ""
    assert [(bug["message"], bug["request"]) for bug in bugs] == [
        ("a native frame failed", True),
        ("a native request failed", True),
    ]


# --- news and the end ---------------------------------------------------------------------------------------------


async def test_changes_of_the_cluster_are_pushed(raw, node, server):
    await raw.receive()
    node.default.replica.coordinator = "n2"
    node.up.add("n3")
    kind, nodes, groups = await raw.receive()
    assert (kind, nodes["n3"], groups["default"][0]) == (CLUSTER, ("127.0.0.1:7003", True), "n2")
    assert not server.news.look()


async def test_clients_of_a_drained_node_are_sent_away_once(raw, node, server):
    """They hear that it is no place to go, and are served if they stay."""
    await raw.receive()
    node.directory.drained.add("n1")
    kind, reason, grace = await raw.receive()
    assert (kind, reason, grace) == (CLOSING, "this node is drained for maintenance", 0)
    kind, nodes, _ = await raw.receive()
    assert (kind, nodes["n1"], nodes["n2"][1]) == (CLUSTER, ("127.0.0.1:7001", False), True)
    server.spread_news()
    assert len(await raw.results([PUT, b"a", b"1"])) == 1
    assert raw.pushed == []


async def test_news_wait_for_a_client_that_does_not_read(server, node):
    node.default.write(PUT, b"big", b"x" * 200_000)
    async with Raw(server.port) as raw:
        (connection,) = server.connections
        for _ in range(100):
            raw.ask([GET, b"big"])
        await until(lambda: connection.stuffed)
        node.default.replica.coordinator = "n2"
        server.spread_news()
        assert connection.news_due
        for _ in range(100):
            await raw.next()
        await raw.results()
        assert raw.pushed[-1][2]["default"][0] == "n2"


async def test_stop_lets_what_is_in_flight_finish(server, node):
    """Clients are told first; answers that come within the grace time still leave; nobody new gets in."""
    node.default.held = []
    async with Raw(server.port) as raw, Raw(server.port) as idle:
        raw.ask([PUT, b"k", b"1"])
        await until(lambda: node.default.held)
        server.announce("this node stops", 5.0)
        assert await idle.results([GET, b"k"]) == ((0,),)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        stopping = asyncio.create_task(server.stop(10))
        assert await idle.ended() == ""
        assert not stopping.done()
        held_done(node)
        assert (await raw.next())[5] == ((1, 7),)
        assert (CLOSING, "this node stops", 5000) in raw.pushed
        assert await raw.ended() == ""
        await stopping


async def test_stop_does_not_wait_for_ever(node):
    server = NativeServer(node, "127.0.0.1", 0)
    await server.start()
    node.default.held = []
    async with Raw(server.port) as raw:
        raw.ask([PUT, b"k", b"1"])
        await until(lambda: node.default.held)
        await server.stop(0.05)
        assert await raw.ended() == ""
    held_done(node)  # a result that comes when nobody is left is nobody's trouble
    await asyncio.sleep(0)


async def test_a_port_that_is_taken_is_a_plain_sentence(server, node):
    with pytest.raises(OSError, match=f"cannot listen for native clients on 127.0.0.1:{server.port}: another process"):
        await NativeServer(node, "127.0.0.1", server.port).start()


async def test_counting(raw, server, node):
    await raw.results([PUT, b"a", b"1"], [PUT, b"b", b"1", 5], [GET, b"a"], [DELETE, b"a"])
    text = node.metrics.render().decode()
    for line in (
        'replicad_native_operations_total{operation="put"} 2.0',
        'replicad_native_operations_total{operation="get"} 1.0',
        'replicad_native_operations_total{operation="delete"} 1.0',
        "replicad_native_frame_seconds_count 1.0",
        "replicad_native_connections 1.0",
        "replicad_native_in_flight 0.0",
    ):
        assert line in text
