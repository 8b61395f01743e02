import json

from replicad.core.cluster.definitions import NodeEntry

MEMBERS = "/v1/replicad/groups/default/members"


async def test_a_definition_reaches_the_node(client, node):
    """What the body says is what is created; what it leaves out is the default."""
    body = {"members": ["n1", "n2"], "protocol": "active", "ack": "one", "preferred": "n2", "limits": {}}
    answer = await client.ask("PUT", "/v1/replicad/groups/orders?timeout=5s", {}, json.dumps(body).encode())
    assert (answer.status, answer.json["members"]) == (200, ["n1", "n2"])
    ((_, wish, seconds),) = node.administration.asked
    assert (wish.name, wish.founders, wish.protocol, wish.ack) == ("orders", ("n1", "n2"), "active", "one")
    assert (wish.preferred, wish.limits, seconds) == ("n2", {}, 5.0)


async def test_changes_of_members_reach_the_node(client, node):
    """Action, nodes and time arrive as they were given."""
    for body in ({"action": "add", "node": "n4", "as": "mirror"}, {"action": "replace", "node": "n1", "with": "n2"}):
        answer = await client.ask("POST", MEMBERS, {}, json.dumps(body).encode())
        assert (answer.status, answer.json) == (200, ["done"])
    assert node.administration.asked == [
        ("add", "default", "n4", "", 60.0, True),
        ("replace", "default", "n1", "n2", 60.0, False),
    ]


async def test_a_node_that_knows_no_members_says_so(client, node):
    """It has not heard of them yet; an empty list would be taken for an answer."""
    members = []
    node.default.status = lambda: {"members": members}
    answer = await client.ask("GET", MEMBERS)
    assert (answer.status, "has not heard yet who the members" in answer.text) == (503, True)
    members.append({"node": "n1", "state": "coordinator"})
    answer = await client.ask("GET", MEMBERS)
    assert (answer.status, answer.json) == (200, members)


async def test_nodes_are_added_with_both_addresses(client, node):
    """PUT of a node passes both addresses on."""
    answer = await client.ask("PUT", "/v1/replicad/nodes/n4", {}, b'{"peer": "h:9001", "http": "h:8001"}')
    assert answer.status == 200
    assert node.administration.asked == [("node", "n4", NodeEntry("h:9001", "h:8001"))]


async def test_pages_of_groups_say_what_they_take(client):
    """OPTIONS lists the methods of each page; HEAD has no body."""
    answer = await client.ask("OPTIONS", "/v1/replicad/groups/default")
    assert answer.headers["Allow"] == "GET, PUT, DELETE, HEAD, OPTIONS"
    answer = await client.ask("HEAD", "/v1/replicad/groups")
    assert (answer.status, answer.text) == (200, "")
    answer = await client.ask("GET", "/v1/replicad/groups?pretty")
    assert answer.json == [{"name": "default"}]


async def test_a_node_is_drained_and_taken_back(client, node):
    """PUT and DELETE ask it, GET does not; another method is told which there are."""
    page = "/v1/replicad/drain"
    assert (await client.ask("GET", page)).json == {"node": "n1", "drained": False}
    assert (await client.ask("PUT", page)).json == {"node": "n1", "drained": True}
    assert (await client.ask("HEAD", page)).text == ""
    assert (await client.ask("DELETE", page)).status == 200
    assert node.administration.asked == [("drain", True), ("drain", False)]
    answer = await client.ask("POST", page)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS, PUT, DELETE")
    assert (await client.ask("PUT", f"{page}?timeout=5s")).status == 400
