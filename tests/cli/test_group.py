import json

import pytest

from tests.cli.served import Scripted, answer, served

GROUP = {
    "name": "orders",
    "members": ["n1", "n2"],
    "mirrors": ["n4"],
    "protocol": "active",
    "ack": "one",
    "coordinator": "",
    "leaderless": True,
    "limits": {"value_bytes_max": 9},
}


def body(head):
    """Return the first line of a request."""
    return head.split("\r\n", 1)[0]


def test_groups_are_listed(replicad):
    """Each group is a row; one without a coordinator says so."""
    with Scripted(answer(200, json.dumps([GROUP]).encode())) as node:
        result = replicad("group", "list", addr=node.address)
    assert result.exit_code == 0
    assert result.output.splitlines()[1].split() == ["orders", "active", "one", "none", "n1,n2", "n4"]


def test_a_group_is_shown(replicad):
    """Every field is a line; --json prints what the node said."""
    reply = answer(200, json.dumps(GROUP).encode())
    with Scripted(reply, reply) as node:
        shown = replicad("group", "show", "orders", addr=node.address).output
        as_json = replicad("group", "show", "orders", "--json", addr=node.address).output
    assert "limits       value_bytes_max 9" in shown
    assert "members      n1, n2" in shown
    assert json.loads(as_json) == GROUP


def test_a_group_is_created(replicad):
    """What the options say is what the node is asked for."""
    with served() as (node, address):
        options = ("--members", "n1, n2", "--protocol", "active", "--ack", "one", "--value-bytes-max", 9)
        reply = replicad("group", "create", "orders", *options, "--timeout", 7, addr=address)
        assert reply.output == "group orders: members n1, n2, coordinator n1\n"
        ((_, wish, seconds),) = node.administration.asked
    assert (wish.name, wish.founders, wish.protocol, wish.ack) == ("orders", ("n1", "n2"), "active", "one")
    assert (wish.limits, seconds) == ({"value_bytes_max": 9}, 7.0)


def test_a_drop_asks_first(replicad):
    """Without --yes nothing is dropped before the answer; a refusal is one sentence and exit code 2."""
    with Scripted(answer(200, json.dumps(GROUP).encode())) as node:
        result = replicad("group", "drop", "orders", addr=node.address, input="n\n")
        assert (result.exit_code, "nothing was done" in result.output) == (1, True)
        assert [body(head).split()[0] for head in node.heads] == ["GET"]
    with Scripted(answer(409, b"Others keep changing it.", "X-Replicad-Outcome: definite")) as node:
        result = replicad("group", "drop", "orders", "--yes", addr=node.address)
        assert (result.exit_code, result.output) == (2, "replicad: Others keep changing it.\n")
    with Scripted(answer(200, b"{}")) as node:
        result = replicad("group", "drop", "default", "--yes", "--force", addr=node.address)
        assert result.output == "group default is dropped\n"
        assert body(node.heads[0]).startswith("DELETE /v1/replicad/groups/default?force ")


def test_what_cannot_be_dropped_is_not_asked_about(replicad):
    """An unknown name, `_meta`, and `default` without --force: the reason, and no question."""
    with Scripted(answer(400, b"There is no group 'ordres'.", "X-Replicad-Outcome: definite")) as node:
        result = replicad("group", "drop", "ordres", addr=node.address, input="y\n")
        assert (result.exit_code, result.output) == (2, "replicad: There is no group 'ordres'.\n")
        assert len(node.heads) == 1
    with Scripted() as node:
        for name, words in (("_meta", "cannot be dropped"), ("default", "replicad group drop default --force")):
            result = replicad("group", "drop", name, addr=node.address, input="y\n")
            assert (result.exit_code, words in result.output, "?" in result.output) == (2, True, False)
        assert node.heads == []


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("add", "n4"), ("add", "default", "n4", "", 60.0, False)),
        (("add", "n4", "--as", "mirror"), ("add", "default", "n4", "", 60.0, True)),
        (("remove", "n2", "--timeout", 5), ("remove", "default", "n2", "", 5.0, False)),
        (("promote", "n4"), ("promote", "default", "n4", "", 60.0, False)),
        (("demote", "n4"), ("demote", "default", "n4", "", 60.0, False)),
        (("replace", "n2", "--with", "n4"), ("replace", "default", "n2", "n4", 60.0, False)),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value[0], str) else "",
)
def test_changes_of_members(replicad, arguments, asked):
    """Each command asks for one change, and prints the steps that were done."""
    with served() as (node, address):
        result = replicad("member", *arguments, addr=address)
        assert (result.exit_code, result.output) == (0, "done\n")
        assert node.administration.asked == [asked]


def test_a_new_node_is_made_known_first(replicad):
    """--peer and --http go together, and are sent before the change."""
    with served() as (node, address):
        result = replicad("member", "add", "n4", "--peer", "h:9001", "--http", "h:8001", addr=address)
        assert result.exit_code == 0
        assert [asked[0] for asked in node.administration.asked] == ["node", "add"]
        result = replicad("member", "add", "n4", "--peer", "h:9001", addr=address)
        assert (result.exit_code, "go together" in result.output) == (2, True)


def test_a_node_is_forgotten(replicad):
    """The time that it may take reaches the node: it may have a vote to lose first."""
    with served() as (node, address):
        result = replicad("member", "forget", "n4", "--timeout", 5, addr=address)
        assert (result.exit_code, result.output) == (0, "node n4 is removed from the cluster\n")
        assert node.administration.asked == [("remove node", "n4", 5.0)]


GROUPS = [
    {"name": "default", "members": ["n1", "n2"], "mirrors": []},
    {"name": "orders", "members": ["n1", "n3"], "mirrors": ["n2"]},
    {"name": "users", "members": ["n1", "n3"], "mirrors": []},
]


@pytest.mark.parametrize(
    ("arguments", "groups"),
    [
        (("replace", "n2", "--with", "n4"), ["default", "orders"]),
        (("remove", "n2"), ["default", "orders"]),
        (("add", "n2"), ["orders", "users"]),
        (("add", "n2", "--as", "mirror"), ["users"]),
    ],
    ids=" ".join,
)
def test_changes_in_all_groups(replicad, arguments, groups):
    """Each group that is concerned is changed in turn; each step is printed with its group."""
    listed = answer(200, json.dumps(GROUPS).encode())
    with Scripted(listed, *[answer(200, b'["done"]')] * len(groups)) as node:
        result = replicad("member", *arguments, "--all-groups", addr=node.address)
    assert (result.exit_code, result.output) == (0, "".join(f"{group}: done\n" for group in groups))
    assert [body(head).split()[1] for head in node.heads[1:]] == [
        f"/v1/replicad/groups/{group}/members?timeout=60s" for group in groups
    ]


def test_a_change_in_all_groups_stops_where_it_fails(replicad):
    """What was done is printed, and what is left is named; a node in no group is no failure."""
    listed = answer(200, json.dumps(GROUPS).encode())
    refused = answer(409, b"It is behind.", "X-Replicad-Outcome: definite")
    with Scripted(listed, answer(200, b'["done"]'), refused) as node:
        result = replicad("member", "remove", "n1", "--all-groups", addr=node.address)
    assert result.exit_code == 2
    assert result.output == "default: done\nreplicad: group orders: It is behind. (groups not done: orders, users)\n"
    with Scripted(listed) as node:
        result = replicad("member", "remove", "n9", "--all-groups", addr=node.address)
    assert (result.exit_code, result.output) == (0, "n9 is in no group that would change\n")


def test_every_command_has_an_example(replicad):
    """--help of each command ends with an example."""
    for name, commands in (
        ("group", ("list", "show", "create", "drop", "protocol", "move-primary")),
        ("member", ("list", "add", "remove", "promote", "demote", "replace", "nodes", "forget")),
    ):
        for command in commands:
            assert "Example" in replicad(name, command, "--help").output


@pytest.mark.parametrize("status", [409, 504])
@pytest.mark.parametrize("arguments", [("member", "add", "n4"), ("group", "create", "orders")], ids=" ".join)
def test_a_change_that_was_answered_is_not_repeated(replicad, arguments, status):
    """The answer's sentence is the last word, and the exit code says that the outcome is open."""
    open_end = answer(status, b"Group orders: n4 is silent.", "X-Replicad-Outcome: indefinite")
    with Scripted(open_end, answer(200, b"[]")) as node:
        result = replicad(*arguments, addr=node.address)
    assert (result.exit_code, result.output) == (3, "replicad: Group orders: n4 is silent.\n")
    assert len(node.heads) == 1


def test_members_are_those_that_the_coordinator_knows(replicad):
    """Another node cannot tell how the members are: it says who can."""
    rows = [{"node": "n1", "state": "coordinator", "disk": "d1"}, {"node": "n2", "state": "unknown", "disk": "d2"}]
    seen = [rows[0], rows[1] | {"state": "silent"}]
    with Scripted(answer(200, json.dumps(seen).encode())) as coordinator:
        nodes = [{"name": "n1", "http": coordinator.address}]
        with Scripted(answer(200, json.dumps(rows).encode()), answer(200, json.dumps(nodes).encode())) as node:
            result = replicad("member", "list", "--json", addr=node.address)
    assert json.loads(result.output) == seen


@pytest.mark.parametrize(
    "arguments",
    [
        ("bench", "--seconds"),
        ("status", "--interval"),
        ("kv", "get", "k", "--timeout"),
        ("group", "create", "orders", "--timeout"),
    ],
    ids=" ".join,
)
def test_seconds_are_a_number(replicad, arguments):
    """NaN is in no range."""
    result = replicad(*arguments, "nan")
    assert result.exit_code == 2
    assert "'nan' is not a number of seconds" in result.output
