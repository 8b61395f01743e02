"""Who votes on ``_meta`` in a real cluster as it grows and loses nodes."""

import pytest

from tests.node.cluster import Cluster, running, until
from tests.node.test_groups import ask, put
from tests.node.test_members import MEMBERS, newcomer, where

pytestmark = pytest.mark.xdist_group("processes")

META_MEMBERS = "/v1/replicad/groups/_meta/members"


async def ask_if(node, method, target):
    """Send a request; true when it was done."""
    return (await node.client.request(method, target, seconds=70)).status == 200


async def voters(node):
    """Return who votes on ``_meta``, as a node knows it, with the states it tells of them."""
    members = await ask(node, "GET", META_MEMBERS)
    return {member["node"]: member["state"] for member in members if member["state"] != "mirror"}


async def join(cluster, directory, name):
    """Start a new node and make it a voter of ``default``."""
    node = newcomer(cluster, directory, name)
    node.start()
    n1 = cluster["n1"]
    await ask(n1, "PUT", f"/v1/replicad/nodes/{name}", where(node))
    await ask(n1, "POST", MEMBERS, {"action": "add", "node": name})
    return node


async def test_a_cluster_that_grew_survives_its_first_node(tmp_path):
    """Of one node three are made; without the first one groups are created, and a fourth node takes its place."""
    async with running(tmp_path, 1) as cluster:
        n1 = cluster["n1"]
        n2 = await join(cluster, tmp_path, "n2")
        assert list(await voters(n1)) == ["n1"]
        n3 = await join(cluster, tmp_path, "n3")

        async def three():
            return sorted(await voters(n1)) == ["n1", "n2", "n3"]

        await until("all three vote on _meta", three)
        n1.kill()

        async def created(name, members):
            answer = await n2.client.request(
                "PUT", f"/v1/replicad/groups/{name}", b'{"members": [%b]}' % members, seconds=70
            )
            return answer.status == 200

        await until("a group is created without n1", lambda: created("orders", b'"n2", "n3"'))
        await until("it takes writes", lambda: put(n3, "k", b"v", "orders"))

        text = await ask(n2, "DELETE", "/v1/replicad/nodes/n1", status=409)
        assert "member of default" in text
        n4 = newcomer(cluster, tmp_path, "n4")
        n4.config.write_text(n4.config.read_text().replace(f":{n1.peer}", f":{n2.peer}").replace("n1", "n2"))
        n4.start()
        await until("n4 is told of", lambda: ask(n2, "PUT", "/v1/replicad/nodes/n4", where(n4)))
        await ask(n2, "POST", MEMBERS, {"action": "replace", "node": "n1", "with": "n4"})
        assert await ask(n3, "DELETE", "/v1/replicad/nodes/n1") == {"name": "n1", "removed": True}

        async def replaced():
            return sorted(await voters(n4)) == ["n2", "n3", "n4"]

        await until("n4 votes instead of n1", replaced)
        assert [node["name"] for node in await ask(n4, "GET", "/v1/replicad/nodes")] == ["n2", "n4", "n3"]


async def test_a_node_leaves_with_its_vote_and_office(tmp_path):
    """What is unsafe is refused, and undone; else the node that coordinates ``_meta`` is removed from the cluster."""
    async with running(tmp_path) as cluster:
        n1, n2, _ = cluster.nodes.values()
        await ask(n2, "POST", "/v1/replicad/groups/_meta/primary", {"node": "n3"})
        await ask(n2, "POST", MEMBERS, {"action": "remove", "node": "n3"})
        n2.kill()
        text = await ask(n1, "DELETE", "/v1/replicad/nodes/n3", status=409)
        assert "n3 a majority would be 2 of 2 voters, and only 1 answer" in text
        assert not any(node["leaving"] for node in await ask(n1, "GET", "/v1/replicad/nodes"))
        n2.start()
        await cluster.ready()
        removed = {"name": "n3", "removed": True}
        await until("n3 may leave", lambda: ask_if(n1, "DELETE", "/v1/replicad/nodes/n3"))
        assert await ask(n2, "DELETE", "/v1/replicad/nodes/n3") == removed
        assert sorted(await voters(n1)) == ["n1", "n2"]


async def test_voters_that_the_settings_name_stay(tmp_path):
    """Nodes that the cluster began with tell ``_meta`` so: a node that comes later may have other settings."""
    cluster = Cluster(tmp_path, 3)
    text = cluster["n1"].config.read_text()
    cluster["n1"].config.write_text(text.replace('name = "trial"', 'name = "trial"\nmeta = ["n2"]'))
    try:
        cluster.start()
        await cluster.ready()

        async def fixed():
            return (await cluster["n3"].client.get("/v1/kv/voters?ns=_meta&raw&stale")).body == b'{"fixed": true}'

        await until("a mirror knows that the voters are fixed", fixed)
        # Another one may not have heard of any voter yet, and says so.
        await until("so does another one", lambda: ask_if(cluster["n1"], "GET", META_MEMBERS))
        assert list(await voters(cluster["n1"])) == ["n2"]
    finally:
        cluster.close()


async def test_the_only_voter_stays(tmp_path):
    """Without another node to take its place a node cannot leave."""
    async with running(tmp_path, 1) as cluster:
        n1 = cluster["n1"]
        await ask(n1, "DELETE", "/v1/replicad/groups/default?force")
        text = await ask(n1, "DELETE", "/v1/replicad/nodes/n1?timeout=2s", status=409)
        assert "no other node takes its place" in text
        assert "Not done: n1 does not vote on _meta; n1 is removed from the cluster" in text
