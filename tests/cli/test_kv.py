import json

import pytest

from replicad.cli.nodes import parse_addresses
from replicad.cli.output import Failure
from replicad.core.model.errors import RequestError
from tests.cli.served import Scripted, answer, served

DEAD = "127.0.0.1:1"


@pytest.fixture
def one():
    with served() as (node, address):
        node.address = address
        yield node


def test_write_read_delete(replicad, one):
    """A value comes back byte for byte, and a deleted key is missing, with exit code 1."""
    assert replicad("kv", "put", "a/ b%", "héllo", addr=one.address).output == "done at index 1\n"
    assert replicad("kv", "get", "a/ b%", addr=one.address).stdout_bytes == "héllo".encode()
    assert replicad("kv", "delete", "a/ b%", addr=one.address).exit_code == 0
    result = replicad("kv", "get", "a/ b%", addr=one.address)
    assert (result.exit_code, result.stderr) == (1, "replicad: there is no key 'a/ b%'\n")


def test_values_from_files_and_standard_input(replicad, one, tmp_path):
    """@FILE and - take any bytes."""
    data = bytes(range(256)) * 40
    (tmp_path / "file").write_bytes(data)
    assert replicad("kv", "put", "f", f"@{tmp_path}/file", addr=one.address).exit_code == 0
    assert replicad("kv", "put", "s", "-", addr=one.address, input=data).exit_code == 0
    for key in "fs":
        assert replicad("kv", "get", key, addr=one.address).stdout_bytes == data


def test_conditions_and_flags(replicad, one):
    """--cas that fails changes nothing and exits with 1; --flags is stored."""
    assert replicad("kv", "put", "k", "1", "--cas", "0", "--flags", "7", addr=one.address).exit_code == 0
    again = replicad("kv", "put", "k", "2", "--cas", "0", addr=one.address)
    assert again.exit_code == 1
    assert "nothing was changed" in again.stderr
    entry = json.loads(replicad("kv", "get", "k", "--json", addr=one.address).output)
    assert (entry["Flags"], entry["Value"], entry["ModifyIndex"]) == (7, "MQ==", 1)


def test_listing(replicad, one):
    """A list is a table, keys alone, or JSON; an empty one is no failure."""
    for key in ("a/1", "a/2", "b"):
        replicad("kv", "put", key, "v" + key, addr=one.address)
    table = replicad("kv", "list", "--prefix", "a/", addr=one.address).output.splitlines()
    assert [line.split() for line in table] == [
        ["key", "index", "flags", "bytes", "value"],
        ["a/1", "1", "0", "4", "va/1"],
        ["a/2", "2", "0", "4", "va/2"],
    ]
    assert replicad("kv", "list", "--keys-only", addr=one.address).output == "a/1\na/2\nb\n"
    assert replicad("kv", "list", "--keys-only", "--separator", "/", addr=one.address).output == "a/\nb\n"
    assert json.loads(replicad("kv", "list", "nope", "--json", addr=one.address).output) == []
    assert replicad("kv", "delete", "--recurse", "a/", addr=one.address).exit_code == 0
    assert replicad("kv", "list", "--keys-only", addr=one.address).output == "b\n"


def test_consistency_and_acknowledgement_are_passed_on(replicad, one):
    """--consistent asks a majority; --ack goes with the write."""
    replicad("kv", "put", "k", "v", "--ack", "one", addr=one.address)
    assert one.default.acks == [2]
    replicad("kv", "get", "k", "--consistent", addr=one.address)
    assert one.default.barriers == [True]


def test_read_levels_and_groups_are_passed_on(replicad, one):
    """--stale asks no coordinator, --min-index waits for an index, --ns names the group."""
    replicad("kv", "put", "k", "v", "--ns", "default", addr=one.address)
    one.default.ready = False
    assert replicad("kv", "get", "k", "--stale", addr=one.address).output == "v"
    assert one.default.barriers == []
    assert replicad("kv", "get", "k", "--stale", "--min-index", "8", addr=one.address).output == "v"
    assert replicad("kv", "list", "--min-index", "9", addr=one.address).exit_code == 0
    assert (one.default.reaches, one.default.barriers) == ([8, 9], [False])
    other = replicad("kv", "get", "k", "--ns", "a/ b", addr=one.address)
    assert (other.exit_code, "There is no group 'a/ b'" in other.stderr) == (2, True)


def test_a_bookmark_file_is_a_session(replicad, one, tmp_path):
    """The file is made by the first command, goes with the next one, and grows with what is seen."""
    file = tmp_path / "session"
    here = ("--bookmark-file", str(file))
    assert replicad("kv", "put", "k", "v", *here, addr=one.address).exit_code == 0
    assert file.read_text() == "default:1\n"
    replicad("kv", "put", "k", "w", addr=one.address)
    assert replicad("kv", "get", "k", "--stale", *here, addr=one.address).output == "w"
    assert file.read_text() == "default:2\n"
    file.write_text("other:7,default:5")
    assert replicad("kv", "get", "none", *here, addr=one.address).exit_code == 1
    replicad("kv", "list", *here, addr=one.address)
    replicad("kv", "delete", "k", *here, addr=one.address)
    assert one.default.reaches == [5, 5, 5]
    assert file.read_text() == "default:5,other:7\n"
    assert [path.name for path in tmp_path.iterdir()] == ["session"]


def test_the_next_node_may_have_caught_up(replicad, one, tmp_path):
    """A node that is behind the bookmark is passed over for one that is not."""
    (tmp_path / "session").write_text("default:9")
    behind = answer(503, b"Behind.", "X-Replicad-Outcome: definite")
    with Scripted(behind) as first:
        addresses = f"{first.address},{one.address}"
        result = replicad("kv", "list", "--stale", "--bookmark-file", f"{tmp_path}/session", addr=addresses)
        assert result.exit_code == 0
        assert "X-Replicad-Bookmark: default:9" in first.heads[0]
    assert one.default.reaches == [9]


@pytest.mark.parametrize(
    ("content", "path", "sentence"),
    [
        (b"not a bookmark", "session", "holds no bookmark"),
        (b"x" * 5000, "session", "holds no bookmark"),
        (b"yesterday", "session", "holds no bookmark of replicad"),
        (b"", "none/session", "there is no directory"),
        (b"", "", "is a directory"),
    ],
)
def test_bad_bookmark_files(replicad, one, tmp_path, content, path, sentence):
    """A file that cannot be a bookmark's is said to be so before anything is done."""
    (tmp_path / "session").write_bytes(content)
    result = replicad("kv", "put", "k", "v", "--bookmark-file", str(tmp_path / path), addr=one.address)
    assert (result.exit_code, sentence in result.stderr) == (2, True), result.stderr
    assert one.default.index == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("kv", "get", "k", "--stale", "--consistent"), "--consistent and --stale cannot be given together"),
        (("kv", "put", "k", "@/no/such/file"), "the file '/no/such/file' cannot be read"),
        (("kv", "put", "k", "v", "--cas", "1", "--ack", "one"), "use --ack all"),
        (("kv", "delete", "k", "--recurse", "--cas", "1"), "--recurse and --cas cannot be given together"),
        (("kv", "list", "--separator", "/"), "together with --keys-only"),
        (("kv", "put", "k", "v", "--cas", "-1"), "Invalid value for '--cas'"),
        (("kv", "put", "k", "v", "--idempotency-key", "a b"), "--idempotency-key must be"),
        (("kv", "put", "k", "v", "--idempotency-key", "a\nb"), "--idempotency-key must be"),
        (("kv", "get", "/k"), "leave out the leading slash"),
        (("kv", "get", b"\xff".decode("utf-8", "surrogateescape")), "not UTF-8"),
        (("kv", "put", "k" * 501, "v"), "at most 500 are allowed"),
    ],
)
def test_wrong_requests(replicad, one, arguments, sentence):
    """What cannot be right is refused with a sentence and exit code 2, and is not retried."""
    result = replicad(*arguments, addr=one.address)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_a_value_that_is_too_long(replicad, one):
    """A value beyond the node's limit is refused with the node's sentence."""
    result = replicad("kv", "put", "k", "-", addr=one.address, input=b"x" * 3_000_000)
    assert result.exit_code == 2
    assert "larger than 200000 bytes" in result.stderr


def test_the_next_node_is_tried(replicad, one):
    """A node that is gone is passed over."""
    assert replicad("kv", "put", "k", "v", addr=f"{DEAD},{one.address}").exit_code == 0


def test_a_retry_carries_the_same_key(replicad):
    """A write whose first node hangs up after it got it goes through the next one under the same idempotency key."""
    with Scripted(b"") as first, Scripted(answer(200, b"true", "X-Replicad-Index: 9")) as second:
        result = replicad("kv", "put", "k", "v", addr=f"{first.address},{second.address}")
        assert result.output == "done at index 9\n"
        assert first.keys() == second.keys()
        assert len(first.keys()[0]) == 32


def test_an_unknown_outcome(replicad):
    """If some node may have done it and none says so, the exit code is 3, and the key to ask again is told."""
    unknown = answer(504, b"sent", "X-Replicad-Outcome: indefinite")
    refused = answer(503, b"Nobody.", "X-Replicad-Outcome: definite")
    with Scripted(unknown, *[refused] * 9) as node:
        result = replicad("kv", "put", "k", "v", "--timeout", "0.3", addr=node.address)
        assert result.exit_code == 3
        assert "it may or may not have taken effect" in result.stderr
        assert f"--idempotency-key {node.keys()[0]}" in result.stderr


def test_a_definite_refusal(replicad, one):
    """If every node refused before anything was done, the exit code is 4 and says so."""
    one.default.refusals = [RequestError("no_coordinator")] * 50
    result = replicad("kv", "put", "k", "v", "--timeout", "0.3", addr=f"{DEAD},{one.address}")
    assert result.exit_code == 4
    assert result.stderr.startswith("replicad: no node could answer; nothing was done\n")
    assert "127.0.0.1:1 refuses connections" in result.stderr
    assert "No majority of members is in touch" in result.stderr


def test_a_refusal_that_passes(replicad, one):
    """Overload and elections are waited out."""
    one.default.refusals = [RequestError("overloaded"), RequestError("no_coordinator")]
    assert replicad("kv", "put", "k", "v", addr=one.address).exit_code == 0


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("a:1", ["a:1"]),
        ("a:1,2, b:3 ,", ["a:1", "a:2", "b:3"]),
        ("http://a:1/,[::1]:2", ["a:1", "[::1]:2"]),
        ("a:1,a:1", ["a:1"]),
    ],
)
def test_addresses(text, addresses):
    """Addresses are separated by commas; a bare port takes the host before it."""
    assert list(map(str, parse_addresses(text))) == addresses


@pytest.mark.parametrize("text", ["", ",", "a", "8001", "a:0", "a:65536", ":1", "a:x"])
def test_bad_addresses(text):
    """What is no address gets a sentence with an example."""
    with pytest.raises(Failure, match=r"127\.0\.0\.1:8001"):
        parse_addresses(text)


def test_a_file_with_something_else_than_a_bookmark_is_named(replicad, one, tmp_path):
    """What the node refuses came from the file."""
    file = tmp_path / "session"
    file.write_text("garbage")
    result = replicad("kv", "put", "k", "v", "--bookmark-file", file, addr=one.address)
    assert result.exit_code == 2
    assert "holds no bookmark" in result.stderr
    assert str(file)[:40] in result.stderr
