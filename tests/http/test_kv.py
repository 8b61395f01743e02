"""/v1/kv in Consul's shapes, and what replicad adds."""

import base64
import json

import pytest

from replicad.core.model.errors import RequestError
from replicad.core.model.operations import ACK_MAJORITY, ACK_ONE, DELETE_SLICE


async def test_put_then_get(client):
    """A value reads back in Consul's shape, with its indexes and the index headers."""
    put = await client.ask("PUT", "/v1/kv/a/b?flags=42", body=b"value")
    assert (put.status, put.body) == (200, b"true")
    assert put.headers["X-Replicad-Index"] == "1"
    assert put.headers["X-Replicad-Node"] == "n1"
    got = await client.ask("GET", "/v1/kv/a/b")
    assert got.status == 200
    assert got.headers["Content-Type"] == "application/json"
    assert got.json == [
        {
            "LockIndex": 0,
            "Key": "a/b",
            "Flags": 42,
            "Value": base64.b64encode(b"value").decode(),
            "CreateIndex": 1,
            "ModifyIndex": 1,
        }
    ]
    assert got.headers["X-Consul-Index"] == "1"
    assert got.headers["X-Consul-KnownLeader"] == "true"
    assert got.headers["X-Consul-LastContact"] == "0"
    assert got.headers["X-Consul-Effective-Consistency"] == "leader"
    assert "Date" in got.headers


async def test_missing_key(client):
    """A missing key gets 404 with an empty body and an index that is never 0."""
    got = await client.ask("GET", "/v1/kv/none")
    assert (got.status, got.body, got.headers["X-Consul-Index"]) == (404, b"", "1")
    await client.ask("PUT", "/v1/kv/a", body=b"1")
    await client.ask("PUT", "/v1/kv/b", body=b"1")
    got = await client.ask("GET", "/v1/kv/none", {"Accept": "application/json"})
    assert (got.status, got.body, got.headers["X-Consul-Index"]) == (404, b"", "2")
    assert got.headers["X-Replicad-Outcome"] == "definite"


async def test_raw(client):
    """?raw gives the bytes alone, harmless in a browser."""
    value = bytes(range(256))
    await client.ask("PUT", "/v1/kv/a", body=value)
    got = await client.ask("GET", "/v1/kv/a?raw")
    assert got.body == value
    assert got.headers["Content-Type"] == "text/plain"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Content-Security-Policy"] == "sandbox"


async def test_empty_value_is_null(client):
    """An empty value reads back as null."""
    await client.ask("PUT", "/v1/kv/a")
    assert (await client.ask("GET", "/v1/kv/a")).json[0]["Value"] is None
    assert (await client.ask("GET", "/v1/kv/a?raw")).body == b""


async def test_large_value(client):
    """A value that takes many packets to arrive and to leave is whole."""
    value = bytes(range(250)) * 800
    assert (await client.ask("PUT", "/v1/kv/a", body=value)).body == b"true"
    assert (await client.ask("GET", "/v1/kv/a?raw")).body == value
    assert base64.b64decode((await client.ask("GET", "/v1/kv/a")).json[0]["Value"]) == value


async def test_head_gives_the_head_of_get(client):
    """HEAD gives GET's headers without its body, also for a listing and a missing key; the connection goes on."""
    await client.ask("PUT", "/v1/kv/a", body=b"value")
    for path in ("/v1/kv/a", "/v1/kv/a?raw", "/v1/kv/?recurse", "/v1/kv/?keys", "/v1/kv/b"):
        got = await client.ask("GET", path)
        head = await client.ask("HEAD", path)
        assert (head.status, head.body) == (got.status, b"")
        assert {**head.headers, "Date": ""} == {**got.headers, "Date": ""}
    assert (await client.ask("GET", "/v1/kv/a")).status == 200


async def test_options(client):
    """OPTIONS lists the methods."""
    got = await client.ask("OPTIONS", "/v1/kv/a")
    assert (got.status, got.headers["Allow"]) == (200, "GET, HEAD, PUT, DELETE, OPTIONS")


async def test_cas(client):
    """cas=0 creates only, cas=N compares the modify index, and a failed condition answers false."""
    assert (await client.ask("PUT", "/v1/kv/a?cas=0", body=b"1")).body == b"true"
    refused = await client.ask("PUT", "/v1/kv/a?cas=0", body=b"2")
    assert (refused.status, refused.body, refused.headers["X-Replicad-Index"]) == (200, b"false", "2")
    assert (await client.ask("PUT", "/v1/kv/a?cas=1", body=b"3")).body == b"true"
    assert (await client.ask("DELETE", "/v1/kv/a?cas=1")).body == b"false"
    assert (await client.ask("DELETE", "/v1/kv/a?cas=3")).body == b"true"
    assert (await client.ask("DELETE", "/v1/kv/a?cas=3")).body == b"true"
    assert (await client.ask("GET", "/v1/kv/a")).status == 404


async def test_keys_are_opaque(client):
    """Keys are what the raw path spells, decoded once: no two spellings meet, none is tidied up."""
    paths = ["%25ff", "a//b", "a/./b", "a/../b", "a/", "a", "a%3Fb", "a%23", "a+b", "a%20b", "%00", "%C3%A4", "A"]
    for number, path in enumerate(paths):
        assert (await client.ask("PUT", f"/v1/kv/{path}", body=b"%d" % number)).body == b"true"
    for number, path in enumerate(paths):
        assert (await client.ask("GET", f"/v1/kv/{path}?raw")).body == b"%d" % number
    listed = (await client.ask("GET", "/v1/kv/?keys")).json
    assert listed == ["\0", "%ff", "A", "a", "a b", "a#", "a+b", "a/", "a/../b", "a/./b", "a//b", "a?b", "ä"]
    assert (await client.ask("GET", "/v1/kv/%61?raw")).body == b"5"


async def test_absolute_form(client):
    """A proxy's absolute form of a path leads to the same key."""
    await client.ask("PUT", "http://example:80/v1/kv/a", body=b"1")
    assert (await client.ask("GET", "/v1/kv/a?raw")).body == b"1"


async def test_recurse(client):
    """?recurse gives the entries under a prefix in key order, 404 if there are none."""
    for key in ("b", "a/2", "a/1", "a"):
        await client.ask("PUT", f"/v1/kv/{key}", body=key.encode())
    got = await client.ask("GET", "/v1/kv/a?recurse")
    assert [entry["Key"] for entry in got.json] == ["a", "a/1", "a/2"]
    assert got.headers["X-Consul-Index"] == "4"
    assert len((await client.ask("GET", "/v1/kv?recurse")).json) == 4
    missing = await client.ask("GET", "/v1/kv/z?recurse")
    assert (missing.status, missing.body, missing.headers["X-Consul-Index"]) == (404, b"", "4")


async def test_keys(client):
    """?keys folds at the separator behind the prefix; none is 404, but [] at the root."""
    assert (await client.ask("GET", "/v1/kv/?keys")).json == []
    for key in ("a/1", "a/2/x", "a/2/y", "a/3", "b", "b/1", "c/"):
        await client.ask("PUT", f"/v1/kv/{key}", body=b"v")
    assert (await client.ask("GET", "/v1/kv/a/?keys")).json == ["a/1", "a/2/x", "a/2/y", "a/3"]
    assert (await client.ask("GET", "/v1/kv/?keys&separator=/")).json == ["a/", "b", "b/", "c/"]
    assert (await client.ask("GET", "/v1/kv/a/?keys&seperator=%2F")).json == ["a/1", "a/2/", "a/3"]
    assert (await client.ask("GET", "/v1/kv/a?keys&separator=2/")).json == ["a/1", "a/2/", "a/3"]
    assert (await client.ask("GET", "/v1/kv/z?keys")).status == 404


async def test_pretty(client):
    """?pretty means the same, laid out for people."""
    for key in ("a", "b"):
        await client.ask("PUT", f"/v1/kv/{key}", body=b"v")
    for path in ("/v1/kv/a", "/v1/kv/?recurse", "/v1/kv/?keys"):
        plain = await client.ask("GET", path)
        pretty = await client.ask("GET", f"{path}{'&' if '?' in path else '?'}pretty")
        assert pretty.json == plain.json
        assert pretty.text.strip() == json.dumps(plain.json, indent=4)


async def test_delete_recurse(client):
    """DELETE ?recurse deletes in parts until nothing under the prefix is left."""
    for number in range(DELETE_SLICE + 10):
        await client.ask("PUT", f"/v1/kv/a/{number}", body=b"v")
    await client.ask("PUT", "/v1/kv/b", body=b"v")
    assert (await client.ask("DELETE", "/v1/kv/a/?recurse")).body == b"true"
    assert (await client.ask("GET", "/v1/kv/?keys")).json == ["b"]
    assert (await client.ask("DELETE", "/v1/kv/?recurse")).body == b"true"
    assert (await client.ask("GET", "/v1/kv/?keys")).json == []


async def test_delete_recurse_that_breaks_off(client, node):
    """A recursive delete that fails on the way is indefinite and says that some keys are gone."""
    for number in range(DELETE_SLICE + 1):
        await client.ask("PUT", f"/v1/kv/a/{number}", body=b"v")
    node.default.refusals = [None, RequestError("no_coordinator")]
    got = await client.ask("DELETE", "/v1/kv/a/?recurse")
    assert (got.status, got.headers["X-Replicad-Outcome"]) == (504, "indefinite")
    assert "Some keys are deleted" in got.text
    node.default.refusals = [RequestError("no_coordinator")]
    got = await client.ask("DELETE", "/v1/kv/a/?recurse")
    assert (got.status, got.headers["X-Replicad-Outcome"]) == (503, "definite")


async def test_delete_recurse_waits_for_room(client, node):
    """A full queue in the middle of a recursive delete is waited for."""
    for number in range(DELETE_SLICE + 1):
        await client.ask("PUT", f"/v1/kv/a/{number}", body=b"v")
    node.default.refusals = [None, RequestError("overloaded")]
    assert (await client.ask("DELETE", "/v1/kv/a/?recurse")).body == b"true"


async def test_idempotency_key(client):
    """A repeated write gives the first answer, and does nothing; another write with that key gets 422."""
    key = {"Idempotency-Key": "order-7"}
    first = await client.ask("PUT", "/v1/kv/a?cas=0", key, b"1")
    again = await client.ask("PUT", "/v1/kv/a?cas=0", key, b"1")
    assert first.body == again.body == b"true"
    assert first.headers["X-Replicad-Index"] == again.headers["X-Replicad-Index"] == "1"
    other = await client.ask("PUT", "/v1/kv/a", {**key, "Accept": "application/json"}, b"2")
    assert other.status == 422
    assert other.json["definite"] is True
    assert other.json["idempotency_key"] == "order-7"
    assert (await client.ask("GET", "/v1/kv/a?raw")).body == b"1"


async def test_idempotent_recursive_delete(client):
    """A repeated recursive delete does not touch what was written after the first, in none of its parts."""
    key = {"Idempotency-Key": "clean-up"}
    for number in range(DELETE_SLICE + 10):
        await client.ask("PUT", f"/v1/kv/a/{number}", body=b"v")
    assert (await client.ask("DELETE", "/v1/kv/a/?recurse", key)).body == b"true"
    await client.ask("PUT", "/v1/kv/a/new", body=b"v")
    assert (await client.ask("DELETE", "/v1/kv/a/?recurse", key)).body == b"true"
    assert (await client.ask("GET", "/v1/kv/a/?keys")).json == ["a/new"]


@pytest.mark.parametrize(("level", "code"), [("majority", ACK_MAJORITY), ("one", ACK_ONE)])
async def test_lower_acknowledgement(client, node, level, code):
    """Writes with ack=majority and ack=one pass the level on and answer without an index."""
    put = await client.ask("PUT", f"/v1/kv/a?ack={level}", body=b"1")
    assert put.body == b"true"
    assert "X-Replicad-Index" not in put.headers
    assert (await client.ask("DELETE", f"/v1/kv/a?ack={level}")).body == b"true"
    assert node.default.acks == [code, code]


async def test_read_levels(client, node):
    """The default waits only without a lease, ?consistent always, ?stale never, and each says what it was."""
    await client.ask("PUT", "/v1/kv/a", body=b"1")
    group = node.default
    group.age_ms = 1500
    await client.ask("GET", "/v1/kv/a")
    assert group.barriers == []
    group.ready = False
    got = await client.ask("GET", "/v1/kv/a")
    assert group.barriers == [False]
    assert got.headers["X-Consul-LastContact"] == "0"
    group.ready = True
    got = await client.ask("GET", "/v1/kv/a?consistent")
    assert (group.barriers, got.headers["X-Consul-Effective-Consistency"]) == ([False, True], "consistent")
    group.ready, group.coordinator = False, False
    got = await client.ask("GET", "/v1/kv/a?stale")
    assert group.barriers == [False, True]
    assert got.headers["X-Consul-LastContact"] == "1500"
    assert got.headers["X-Consul-Effective-Consistency"] == "stale"
    assert got.headers["X-Consul-KnownLeader"] == "false"
    got = await client.ask("GET", "/v1/kv/a?stale&max_stale=2s")
    assert got.headers["X-Consul-LastContact"] == "1500"
    got = await client.ask("GET", "/v1/kv/a?max_stale=100ms")
    assert got.headers["X-Consul-Effective-Consistency"] == "leader"
    assert group.barriers == [False, True, False]


async def test_errors_say_what_happened(client, node):
    """Every error says whether anything happened, in a header and, where it is asked for, in JSON."""
    node.default.refusals = [RequestError("no_coordinator"), RequestError("unknown_outcome")]
    plain = await client.ask("PUT", "/v1/kv/a", body=b"1")
    assert (plain.status, plain.headers["Retry-After"], plain.headers["X-Replicad-Outcome"]) == (503, "1", "definite")
    assert plain.headers["Content-Type"].startswith("text/plain")
    got = await client.ask("PUT", "/v1/kv/a", {"Accept": "application/json", "Idempotency-Key": "k"}, b"1")
    assert (got.status, got.headers["X-Replicad-Outcome"]) == (504, "indefinite")
    assert (plain.headers["X-Replicad-Error"], got.headers["X-Replicad-Error"]) == ("no_coordinator", "unknown_outcome")
    assert got.json == {
        "error": "The write was sent, and its outcome is not known.",
        "kind": "unknown_outcome",
        "definite": False,
        "retry_after_ms": 200,
        "idempotency_key": "k",
    }
    node.default.ready, node.default.barrier_error = False, RequestError("timeout")
    assert (await client.ask("GET", "/v1/kv/a")).status == 504
    assert (await client.ask("GET", "/v1/kv/?recurse")).status == 504


async def test_ns(client):
    """?ns= names the group; the default one has a name, too."""
    await client.ask("PUT", "/v1/kv/a?ns=default&dc=test&token=x", body=b"1")
    assert (await client.ask("GET", "/v1/kv/a?raw")).body == b"1"
