"""Bookmarks and read levels: what a session has seen goes with it, and every answer says what it was."""

import pytest

from replicad.core.model.errors import RequestError
from replicad.core.model.operations import ACK_MAJORITY
from replicad.http import bookmarks
from tests.http.raw import encode, read_answer

NAME = "X-Replicad-Bookmark"
STATE = {"X-Consul-KnownLeader", "X-Consul-LastContact", "X-Consul-Effective-Consistency"}


def test_a_bookmark_is_a_version_vector():
    """Each group has its highest index, in a text whose order does not depend on how it came about."""
    bookmark = bookmarks.decode("b:7,a:3")
    assert (bookmark.index("a"), bookmark.index("b"), bookmark.index("c")) == (3, 7, 0)
    assert bookmark.moved("a", 2) == "a:3,b:7"
    assert bookmark.moved("a", 9) == "a:9,b:7"
    assert bookmark.moved("_meta", 1) == "_meta:1,a:3,b:7"
    assert bookmarks.decode(bookmark.moved("orders.1a2b", 2**64 - 1)).index("orders.1a2b") == 2**64 - 1


def test_a_full_bookmark_has_no_room():
    """What is accepted can always be answered: with 64 groups of 4096 bytes at most, indexes at their longest."""
    full = bookmarks.decode(",".join(f"g{number}:1" for number in range(64)))
    full.check_room("g5")
    with pytest.raises(RequestError, match="no room"):
        full.check_room("other")
    long = bookmarks.decode(",".join(f"{number:0>126}:1" for number in range(31)))
    with pytest.raises(RequestError, match="no room"):
        long.check_room(f"{31:0>126}")


async def test_answers_carry_the_index(client):
    """Writes give their own index, reads that of the state; 404, raw bytes and lists do, too."""
    put = await client.ask("PUT", "/v1/kv/a", body=b"1")
    assert put.headers[NAME] == "default:1"
    assert (await client.ask("DELETE", "/v1/kv/b")).headers[NAME] == "default:2"
    assert (await client.ask("PUT", "/v1/kv/a?cas=0", body=b"2")).headers[NAME] == "default:3"
    for path in ("a", "a?raw", "a?stale", "a?consistent", "none", "?recurse", "?keys", "none?recurse"):
        got = await client.ask("GET", f"/v1/kv/{path}")
        assert got.headers[NAME] == "default:3", path
        assert set(got.headers) >= STATE, path
        assert "X-Replicad-Read" not in got.headers
    assert (await client.ask("DELETE", "/v1/kv/?recurse")).headers[NAME] == "default:4"


async def test_bookmarks_are_merged(client):
    """What the session saw of other groups stays, and of this group the higher index."""
    for _ in range(3):
        await client.ask("PUT", "/v1/kv/a", body=b"1")
    for path in ("a", "none", "?keys"):
        got = await client.ask("GET", f"/v1/kv/{path}", {NAME: "zebra:4,alpha:2,default:1"})
        assert got.headers[NAME] == "alpha:2,default:3,zebra:4"
    got = await client.ask("PUT", "/v1/kv/a", {NAME: "alpha:2"}, b"2")
    assert got.headers[NAME] == "alpha:2,default:4"


async def test_no_bookmark_without_an_index(client, node):
    """Writes of a lower acknowledgement, and errors, tell nothing: the client keeps the bookmark that it has."""
    got = await client.ask("PUT", "/v1/kv/a?ack=majority", {NAME: "default:0"}, b"1")
    assert (got.status, NAME in got.headers) == (200, False)
    node.default.refusals = [RequestError("unknown_outcome")]
    assert NAME not in (await client.ask("PUT", "/v1/kv/a", {NAME: "default:1"}, b"1")).headers


@pytest.mark.parametrize(
    ("path", "headers"),
    [("a?stale", {NAME: "default:9"}), ("a?stale&min_index=9", {}), ("?keys&stale", {NAME: "default:9,other:100"})],
)
async def test_a_session_read_waits(client, node, path, headers):
    """A stale read with a bookmark asks no coordinator, waits for the bookmark's index, and says what it was."""
    await client.ask("PUT", "/v1/kv/a", body=b"1")
    node.default.ready = node.default.coordinator = False
    got = await client.ask("GET", f"/v1/kv/{path}", headers)
    assert (got.status, node.default.reaches, node.default.barriers) == (200, [9], [])
    assert got.headers["X-Consul-Effective-Consistency"] == "stale"
    assert got.headers["X-Replicad-Read"] == "session"


async def test_a_session_read_that_need_not_wait(client, node):
    """A replica that has what the session has seen answers at once."""
    await client.ask("PUT", "/v1/kv/a", body=b"1")
    got = await client.ask("GET", "/v1/kv/a?stale&min_index=1", {NAME: "default:1"})
    assert (got.status, node.default.reaches, got.headers["X-Replicad-Read"]) == (200, [], "session")


async def test_the_higher_of_min_index_and_bookmark_counts(client, node):
    """Both may be given."""
    await client.ask("GET", "/v1/kv/a?stale&min_index=5", {NAME: "default:9"})
    await client.ask("GET", "/v1/kv/a?stale&min_index=9", {NAME: "default:5"})
    assert node.default.reaches == [9, 9]


async def test_a_linearizable_read_with_a_bookmark(client, node):
    """Without stale the read stays linearizable, and is no older than the bookmark."""
    await client.ask("PUT", "/v1/kv/a", body=b"1")
    node.default.ready = False
    got = await client.ask("GET", "/v1/kv/a?min_index=7")
    assert (node.default.barriers, node.default.reaches) == ([False], [7])
    assert got.headers["X-Consul-Effective-Consistency"] == "leader"
    assert "X-Replicad-Read" not in got.headers
    await client.ask("GET", "/v1/kv/a?consistent", {NAME: "default:1"})
    assert (node.default.barriers, node.default.reaches) == ([False, True], [7])


async def test_behind(client, node):
    """A replica that does not catch up says so: definite, retry elsewhere; a write was not submitted."""
    node.default.age_ms = 700
    node.default.reach_error = RequestError("behind")
    for method, path in (("GET", "a?stale"), ("GET", "a"), ("GET", "?keys&stale"), ("PUT", "a"), ("DELETE", "a")):
        got = await client.ask(method, f"/v1/kv/{path}", {NAME: "default:9"}, b"1" if method == "PUT" else b"")
        assert (got.status, got.headers["X-Replicad-Outcome"], got.headers["Retry-After"]) == (503, "definite", "1")
        assert "not caught up" in got.text
        assert NAME not in got.headers
        if method == "GET":
            assert got.headers["X-Consul-LastContact"] == "700"
    assert node.default.index == 0
    assert node.default.acks == []


async def test_a_write_follows_what_its_session_has_seen(client, node):
    """A write waits until the contact has applied what the bookmark holds, then goes."""
    got = await client.ask("PUT", "/v1/kv/a", {NAME: "default:5"}, b"1")
    assert (got.status, node.default.reaches, got.headers[NAME]) == (200, [5], "default:5")
    await client.ask("DELETE", "/v1/kv/?recurse", {NAME: "default:6"})
    assert node.default.reaches == [5, 6]


async def test_max_stale_with_a_bookmark(client, node):
    """A state that is too old is not waited for: the read becomes a linearizable one."""
    node.default.age_ms = 5_000
    node.default.ready = False
    got = await client.ask("GET", "/v1/kv/a?max_stale=1s", {NAME: "default:0"})
    assert (node.default.barriers, got.headers["X-Consul-Effective-Consistency"]) == ([False], "leader")
    assert "X-Replicad-Read" not in got.headers


async def test_failed_reads_say_what_they_were(client, node):
    """Errors of reads carry the level that was tried, whether there is a coordinator, and how old the state here is."""
    group = node.default
    group.ready = group.coordinator = False
    group.age_ms, group.barrier_error = 5_000, RequestError("no_coordinator")
    levels = {"a": "leader", "a?consistent": "consistent", "a?max_stale=1s": "leader", "?recurse": "leader"}
    for path, level in levels.items():
        got = await client.ask("GET", f"/v1/kv/{path}", {"Accept": "application/json"})
        assert got.status == 503
        assert {name: got.headers[name] for name in STATE} == {
            "X-Consul-KnownLeader": "false",
            "X-Consul-LastContact": "5000",
            "X-Consul-Effective-Consistency": level,
        }


async def test_a_repeated_bookmark_header(client):
    """Two bookmarks are refused: neither wins."""
    client.writer.write(encode("GET", "/v1/kv/a")[:-2] + f"{NAME}: a:1\r\n{NAME}: a:2\r\n\r\n".encode())
    answer = await read_answer(client.reader)
    assert (answer.status, "given twice" in answer.text) == (400, True)


async def test_the_acknowledgement_of_the_group(client, node):
    """A plain write that names no level gets its group's; a conditional one needs its result."""
    node.default.default_ack = ACK_MAJORITY
    assert "X-Replicad-Index" not in (await client.ask("PUT", "/v1/kv/a", body=b"1")).headers
    assert "X-Replicad-Index" in (await client.ask("PUT", "/v1/kv/a?ack=all", body=b"1")).headers
    assert "X-Replicad-Index" in (await client.ask("PUT", "/v1/kv/b?cas=0", body=b"1")).headers
    assert "X-Replicad-Index" in (await client.ask("DELETE", "/v1/kv/?recurse")).headers
