"""Bad requests and what each gets: data for the tests and for the table in the docs."""

from typing import NamedTuple

VALUE_BYTES_MAX = 200_000
"""The limit of the node that the rows are tried on."""


class BadInput(NamedTuple):
    """One row. ``phrase`` stands in the answer's sentence; ``gets`` says in words what the request gets."""

    what: str
    method: str
    path: str
    headers: dict
    body: bytes
    status: int
    phrase: str
    gets: str


BAD_INPUTS = (
    BadInput(
        "a bad percent escape", "GET", "/v1/kv/a%zz", {}, b"", 400, "bad percent escape, '%zz'", "the escape is shown"
    ),
    BadInput("a percent sign at the end", "GET", "/v1/kv/a%", {}, b"", 400, "bad percent escape", "write %25 for '%'"),
    BadInput(
        "a key that is not UTF-8", "PUT", "/v1/kv/%ff", {}, b"1", 400, "not UTF-8: byte 1 (0xff)", "the byte is named"
    ),
    BadInput("an overlong UTF-8 form", "GET", "/v1/kv/%c0%af", {}, b"", 400, "not UTF-8", "one spelling per key"),
    BadInput(
        "a surrogate in a key", "GET", "/v1/kv/%ed%a0%80", {}, b"", 400, "not UTF-8", "surrogates are not characters"
    ),
    BadInput(
        "a key of 501 bytes",
        "PUT",
        "/v1/kv/" + "k" * 501,
        {},
        b"1",
        413,
        "501 bytes; at most 500",
        "the limit is named",
    ),
    BadInput(
        "500 characters, 1000 bytes", "GET", "/v1/kv/" + "%C3%A4" * 500, {}, b"", 413, "1000 bytes", "bytes count"
    ),
    BadInput(
        "a leading slash",
        "PUT",
        "/v1/kv//a",
        {},
        b"1",
        400,
        "leave out the leading slash",
        "keys do not begin with '/'",
    ),
    BadInput("a leading slash, escaped", "GET", "/v1/kv/%2Fa", {}, b"", 400, "leading slash", "the same"),
    BadInput("a bare '#'", "GET", "/v1/kv/a#b", {}, b"", 400, "write it as %23", "a fragment is not sent to servers"),
    BadInput("no key", "GET", "/v1/kv/", {}, b"", 400, "the key is missing", "needs recurse or keys"),
    BadInput("no key to write", "PUT", "/v1/kv/", {}, b"1", 400, "the key is missing", "name it after /v1/kv/"),
    BadInput("no key to delete", "DELETE", "/v1/kv/", {}, b"", 400, "the key is missing", "only with recurse"),
    BadInput(
        "a misspelt parameter", "GET", "/v1/kv/a?recurs", {}, b"", 400, "did you mean 'recurse'?", "a near one is named"
    ),
    BadInput(
        "a parameter of another method", "GET", "/v1/kv/a?cas=1", {}, b"", 400, "no parameter 'cas'", "not ignored"
    ),
    BadInput("a repeated parameter", "PUT", "/v1/kv/a?cas=1&cas=2", {}, b"1", 400, "'cas' is given twice", "none wins"),
    BadInput(
        "a switch with a value", "GET", "/v1/kv/a?raw=false", {}, b"", 400, "leave it out", "no guess what false means"
    ),
    BadInput(
        "a bad escape in a query",
        "GET",
        "/v1/kv/?keys&separator=%2",
        {},
        b"",
        400,
        "bad percent escape",
        "the parameter is named",
    ),
    BadInput(
        "stale and consistent", "GET", "/v1/kv/a?stale&consistent", {}, b"", 400, "Conflicting flags", "both are named"
    ),
    BadInput("recurse and keys", "GET", "/v1/kv/a?recurse&keys", {}, b"", 400, "Conflicting flags", "both are named"),
    BadInput(
        "a separator without keys",
        "GET",
        "/v1/kv/a?separator=/",
        {},
        b"",
        400,
        "together with 'keys'",
        "it would do nothing",
    ),
    BadInput(
        "a bad duration", "GET", "/v1/kv/a?max_stale=10", {}, b"", 400, "20ms, 10s or 1m30s", "examples are given"
    ),
    BadInput("cas that is no number", "PUT", "/v1/kv/a?cas=abc", {}, b"1", 400, "'cas' is 'abc'", "the range is named"),
    BadInput("a negative cas", "PUT", "/v1/kv/a?cas=-1", {}, b"1", 400, "whole number from 0", "the range is named"),
    BadInput(
        "flags beyond 64 bits", "PUT", f"/v1/kv/a?flags={2**64}", {}, b"1", 400, str(2**64 - 1), "the range is named"
    ),
    BadInput("empty flags", "PUT", "/v1/kv/a?flags=", {}, b"1", 400, "'flags' is ''", "the range is named"),
    BadInput("an unknown ack", "PUT", "/v1/kv/a?ack=two", {}, b"1", 400, "all, majority or one", "the three are named"),
    BadInput(
        "ack=one with cas",
        "PUT",
        "/v1/kv/a?ack=one&cas=1",
        {},
        b"1",
        400,
        "'cas' needs one",
        "a condition needs a result",
    ),
    BadInput(
        "ack=majority with recurse", "DELETE", "/v1/kv/a?ack=majority&recurse", {}, b"", 400, "use ack=all", "the same"
    ),
    BadInput(
        "recurse and cas", "DELETE", "/v1/kv/a?recurse&cas=1", {}, b"", 400, "Conflicting flags", "both are named"
    ),
    BadInput("cas and acquire", "PUT", "/v1/kv/a?cas=1&acquire=x", {}, b"1", 400, "Conflicting flags", "as in Consul"),
    BadInput("a lock", "PUT", "/v1/kv/a?acquire=x", {}, b"1", 400, "sessions and locks are not built", "not ignored"),
    BadInput(
        "a blocking query",
        "GET",
        "/v1/kv/a?index=1&wait=1s",
        {},
        b"",
        400,
        "blocking queries are not built",
        "not ignored",
    ),
    BadInput(
        "min_index that is no number", "GET", "/v1/kv/a?min_index=x", {}, b"", 400, "'min_index' is 'x'", "the range"
    ),
    BadInput(
        "min_index beyond 64 bits", "GET", f"/v1/kv/a?min_index={2**64}", {}, b"", 400, str(2**64 - 1), "the range"
    ),
    BadInput(
        "min_index of a write", "PUT", "/v1/kv/a?min_index=1", {}, b"1", 400, "no parameter 'min_index'", "not ignored"
    ),
    BadInput(
        "a made-up bookmark",
        "GET",
        "/v1/kv/a",
        {"X-Replicad-Bookmark": "yesterday"},
        b"",
        400,
        "no bookmark of replicad",
        "send what the last answer carried",
    ),
    BadInput(
        "an empty bookmark",
        "PUT",
        "/v1/kv/a",
        {"X-Replicad-Bookmark": ""},
        b"1",
        400,
        "leave the header out to begin a new session",
        "the same",
    ),
    BadInput(
        "a bookmark with an index beyond 64 bits",
        "DELETE",
        "/v1/kv/a",
        {"X-Replicad-Bookmark": f"default:{2**64}"},
        b"",
        400,
        "an index above",
        "the same",
    ),
    BadInput(
        "a bookmark that names a group twice",
        "GET",
        "/v1/kv/a",
        {"X-Replicad-Bookmark": "a:1,a:2"},
        b"",
        400,
        "names a group twice",
        "the same",
    ),
    BadInput(
        "a bookmark of 65 groups",
        "GET",
        "/v1/kv/a",
        {"X-Replicad-Bookmark": ",".join(f"g{n}:1" for n in range(65))},
        b"",
        400,
        "more than 64 groups",
        "the same",
    ),
    BadInput(
        "a bookmark of 64 other groups",
        "PUT",
        "/v1/kv/a",
        {"X-Replicad-Bookmark": ",".join(f"g{n}:1" for n in range(64))},
        b"1",
        400,
        "no room for another group",
        "refused before it is written",
    ),
    BadInput(
        "a bookmark of 4097 bytes",
        "GET",
        "/v1/kv/a",
        {"X-Replicad-Bookmark": "g" * 4095 + ":1"},
        b"",
        400,
        "longer than 4096 bytes",
        "the same",
    ),
    BadInput(
        "a write to the cluster's own group",
        "PUT",
        "/v1/kv/group/a?ns=_meta",
        {},
        b"1",
        400,
        "the cluster's own",
        "/v1/replicad/groups changes groups",
    ),
    BadInput("an unknown group", "GET", "/v1/kv/a?ns=other", {}, b"", 404, "no group 'other'", "the group is named"),
    BadInput("an empty group", "GET", "/v1/kv/a?ns=", {}, b"", 400, "'ns' is empty", "leave it out instead"),
    BadInput(
        "another datacenter", "GET", "/v1/kv/a?dc=other", {}, b"", 500, "No path to datacenter", "500, as in Consul"
    ),
    BadInput(
        "an announced body that is too large",
        "PUT",
        "/v1/kv/a",
        {"Content-Length": "200001"},
        b"",
        413,
        "larger than 200000 bytes",
        "answered before the body is read",
    ),
    BadInput(
        "a chunked body that is too large",
        "PUT",
        "/v1/kv/a",
        {"Transfer-Encoding": "chunked"},
        b"30d41\r\n" + b"x" * (VALUE_BYTES_MAX + 1) + b"\r\n",
        413,
        "larger than 200000 bytes",
        "read up to the limit only",
    ),
    BadInput(
        "a broken chunk",
        "PUT",
        "/v1/kv/a",
        {"Transfer-Encoding": "chunked"},
        b"zz\r\nab\r\n0\r\n\r\n",
        400,
        "",
        "nothing is written",
    ),
    BadInput(
        "an idempotency key with a space",
        "PUT",
        "/v1/kv/a",
        {"Idempotency-Key": "a b"},
        b"1",
        400,
        "visible ASCII",
        "1 to 255 characters",
    ),
    BadInput("an empty idempotency key", "PUT", "/v1/kv/a", {"Idempotency-Key": ""}, b"1", 400, "1 to 255", "the same"),
    BadInput(
        "a long idempotency key", "PUT", "/v1/kv/a", {"Idempotency-Key": "k" * 256}, b"1", 400, "1 to 255", "the same"
    ),
    BadInput(
        "an unknown expectation",
        "PUT",
        "/v1/kv/a",
        {"Expect": "cake", "Content-Length": "5"},
        b"",
        400,
        "only 100-continue",
        "the header is shown",
    ),
    BadInput(
        "a method that keys do not take", "POST", "/v1/kv/a", {}, b"1", 405, "takes GET, HEAD", "Allow lists them"
    ),
    BadInput("a made-up method", "BREW", "/v1/kv/a", {}, b"", 400, "not a valid HTTP request", "the connection ends"),
    BadInput(
        "a method that a page does not take", "PUT", "/metrics", {}, b"", 405, "takes GET, HEAD, OPTIONS", "Allow"
    ),
    BadInput("an unknown page", "GET", "/v1/nothing", {}, b"", 404, "no page '/v1/nothing'", "the page at / helps"),
    BadInput("a page that comes later", "PUT", "/v1/session/create", {}, b"", 404, "sessions are not built", "says so"),
    BadInput(
        "an unknown parameter of a page",
        "GET",
        "/v1/replicad/status?x",
        {},
        b"",
        400,
        "no parameter 'x'",
        "not ignored",
    ),
    BadInput(
        "a path of 9000 bytes",
        "GET",
        "/v1/kv/" + "k" * 9000,
        {},
        b"",
        400,
        "longer than 8190 bytes",
        "the connection ends",
    ),
    BadInput("a space in a path", "GET", "/v1/kv/a b", {}, b"", 400, "not a valid HTTP request", "the connection ends"),
    BadInput("raw bytes in a path", "GET", "/v1/kv/ä", {}, b"", 400, "not a valid HTTP request", "percent-encode them"),
    BadInput(
        "a group's name with a space",
        "PUT",
        "/v1/replicad/groups/a%20b",
        {},
        b"{}",
        400,
        "letters, digits and hyphens",
        "says what a name is",
    ),
    BadInput(
        "a group's name that is the cluster's own",
        "PUT",
        "/v1/replicad/groups/_mine",
        {},
        b"{}",
        400,
        "names that begin with '_'",
        "the same",
    ),
    BadInput("a group without a name", "PUT", "/v1/replicad/groups/", {}, b"{}", 400, "the name is missing", "says so"),
    BadInput(
        "a definition that is no JSON",
        "PUT",
        "/v1/replicad/groups/g",
        {},
        b"{",
        400,
        "the body is not JSON",
        "says where",
    ),
    BadInput(
        "a definition that is no object",
        "PUT",
        "/v1/replicad/groups/g",
        {},
        b"[]",
        400,
        "must be a JSON object",
        "an example",
    ),
    BadInput(
        "an unknown field of a definition",
        "PUT",
        "/v1/replicad/groups/g",
        {},
        b'{"member": ["n1"]}',
        400,
        "no field 'member'; the fields are members",
        "the fields are listed",
    ),
    BadInput(
        "a group of nobody",
        "PUT",
        "/v1/replicad/groups/g",
        {},
        b'{"members": []}',
        400,
        "members: it is empty",
        "name a node",
    ),
    BadInput(
        "a member named twice",
        "PUT",
        "/v1/replicad/groups/g",
        {},
        b'{"members": ["n1", "n1"]}',
        400,
        "names a node twice",
        "once each",
    ),
    BadInput(
        "an unknown protocol",
        "PUT",
        "/v1/replicad/groups/g",
        {},
        b'{"protocol": "magic"}',
        400,
        'protocol is "magic": it must be one of',
        "the protocols are listed",
    ),
    BadInput(
        "a limit of a group that is no number",
        "PUT",
        "/v1/replicad/groups/g",
        {},
        b'{"limits": {"value_bytes_max": "1"}}',
        400,
        "limits.value_bytes_max",
        "the field is named",
    ),
    BadInput(
        "a definition of 70000 bytes",
        "PUT",
        "/v1/replicad/groups/g",
        {},
        b" " * 70_000,
        413,
        "65536 bytes",
        "the limit is named",
    ),
    BadInput(
        "a timeout of nothing",
        "PUT",
        "/v1/replicad/groups/g?timeout=0s",
        {},
        b"{}",
        400,
        "'timeout' is '0s'",
        "at most 10m",
    ),
    BadInput(
        "an unknown parameter of a group's page",
        "DELETE",
        "/v1/replicad/groups/g?forse",
        {},
        b"",
        400,
        "did you mean 'force'?",
        "not ignored",
    ),
    BadInput(
        "a change of members without a node",
        "POST",
        "/v1/replicad/groups/default/members",
        {},
        b'{"action": "add"}',
        400,
        "the field 'node' is missing",
        "the field is named",
    ),
    BadInput(
        "an unknown change of members",
        "POST",
        "/v1/replicad/groups/default/members",
        {},
        b'{"action": "grow", "node": "n4"}',
        400,
        "must be one of",
        "the actions are listed",
    ),
    BadInput(
        "a replacement by nobody",
        "POST",
        "/v1/replicad/groups/default/members",
        {},
        b'{"action": "replace", "node": "n1"}',
        400,
        '"with" names the node that takes the place',
        "says what is missing",
    ),
    BadInput(
        "a replacement by itself",
        "POST",
        "/v1/replicad/groups/default/members",
        {},
        b'{"action": "replace", "node": "n1", "with": "n1"}',
        400,
        "is the same node",
        "says so",
    ),
    BadInput(
        "a group that is not there",
        "POST",
        "/v1/replicad/groups/none/primary",
        {},
        b'{"node": "n1"}',
        404,
        "no group 'none'",
        "says so",
    ),
    BadInput(
        "a node without an address",
        "PUT",
        "/v1/replicad/nodes/n4",
        {},
        b'{"peer": "h:1", "http": ""}',
        400,
        "http",
        "host:port",
    ),
    BadInput(
        "a node that nobody can connect to",
        "PUT",
        "/v1/replicad/nodes/n4",
        {},
        b'{"peer": "0.0.0.0:1", "http": "h:1"}',
        400,
        "wildcard",
        "name the host",
    ),
    BadInput(
        "a method that a group's page does not take",
        "POST",
        "/v1/replicad/groups",
        {},
        b"{}",
        405,
        "takes GET, HEAD, OPTIONS",
        "Allow",
    ),
)
