"""Nodes and members of a real cluster: added, promoted, replaced and removed while it runs."""

import pytest

from tests.node.cluster import Cluster, running, until
from tests.node.test_groups import ask, put, read

pytestmark = pytest.mark.xdist_group("processes")

MEMBERS = "/v1/replicad/groups/default/members"


def newcomer(cluster, directory, name="n4"):
    """Return a node whose settings name itself and n1, to be started."""
    other = Cluster(directory / name, 1)["n1"]
    other.name, other.data, other.output = name, directory / name / name, directory / f"{name}.output"
    text = '[cluster]\nname = "trial"\n'
    for node in (cluster["n1"], other):
        listen = f'http_listen = "127.0.0.1:{node.http}"\npeer_listen = "127.0.0.1:{node.peer}"'
        text += f'[nodes.{node.name}]\n{listen}\ndata = "{node.name}"\n'
    other.config.write_text(text, encoding="utf-8")
    cluster.nodes[name] = other
    return other


def where(node):
    """Return a node's addresses as the cluster is told."""
    return {"peer": f"127.0.0.1:{node.peer}", "http": f"127.0.0.1:{node.http}"}


async def definition(node, name="default"):
    """Return a group's definition as a node knows it."""
    return await ask(node, "GET", f"/v1/replicad/groups/{name}")


async def test_a_new_node_becomes_a_member_and_another_one_leaves(tmp_path):
    """n4 is unknown, is added, catches up, votes, takes the office, and takes the place of n2; nothing is lost."""
    async with running(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes.values()
        for number in range(20):
            assert await put(n1, f"k{number}", b"v", "default")
        n4 = newcomer(cluster, tmp_path)
        n4.start()
        text = await ask(n2, "POST", MEMBERS, {"action": "add", "node": "n4"}, status=400)
        assert "no node 'n4'" in text
        assert "replicad member add n4" in text
        await ask(n3, "PUT", "/v1/replicad/nodes/n4", where(n4))
        steps = await ask(n2, "POST", MEMBERS, {"action": "add", "node": "n4", "as": "mirror"})
        assert steps == ["n4 is a mirror"]

        async def follows():
            return (await n4.client.get("/v1/kv/k19?raw&stale")).body == b"v"

        await until("the mirror has everything", follows)
        assert await ask(n4, "POST", MEMBERS, {"action": "add", "node": "n4"}) == ["n4 is a mirror", "n4 is a voter"]
        assert (await definition(n1))["members"] == ["n1", "n2", "n3", "n4"]
        steps = await ask(n1, "POST", "/v1/replicad/groups/default/primary", {"node": "n4"})
        assert steps == ["the office is at n4", "n4 is the preferred coordinator"]
        assert (await definition(n1))["preferred"] == "n4"

        steps = await ask(n3, "POST", MEMBERS, {"action": "remove", "node": "n2"})
        assert steps == ["n2 is removed"]

        async def left():
            status = (await n2.client.get("/v1/replicad/status")).json()
            return list(status["groups"]) == ["_meta"]

        await until("n2 has closed the group", left)
        assert await read(n2, "k7", "default") == b"v"  # a member is asked
        assert (await definition(n2))["members"] == ["n1", "n3", "n4"]
        n2.kill()
        n2.start()
        await cluster.ready()
        assert await left()
        await cluster.converged("n1", "n3", "n4")


async def test_a_dead_member_is_replaced(tmp_path):
    """A member that is down for good gives its place to a new node; what is unsafe is refused with the reason."""
    async with running(tmp_path) as cluster:
        n1, _, n3 = cluster.nodes.values()
        assert await put(n1, "k", b"v", "default")
        n4 = newcomer(cluster, tmp_path)
        n4.start()
        n3.kill()
        del cluster.nodes["n3"]
        await cluster.primary()
        text = await ask(n1, "POST", MEMBERS + "?timeout=20s", {"action": "demote", "node": "n2"}, status=409)
        assert "majority" in text
        assert "Step that failed: n2 is a mirror" in text
        await until("n4 is told of", lambda: ask(n1, "PUT", "/v1/replicad/nodes/n4", where(n4)))
        steps = await ask(n1, "POST", MEMBERS, {"action": "replace", "node": "n3", "with": "n4"})
        assert steps == ["n4 is a mirror", "n4 is a voter", "n3 is removed"]
        assert (await definition(n4))["members"] == ["n1", "n2", "n4"]
        assert await read(n4, "k", "default") == b"v"
        await cluster.converged("n1", "n2", "n4")


@pytest.mark.parametrize("protocol", ["remote-write", "active"])
async def test_a_member_that_left_comes_back_in_the_same_process(tmp_path, monkeypatch, protocol):
    """Its requests and tickets are new ones: none is taken for a repetition of what it asked for before it left."""
    monkeypatch.setattr(Cluster, "protocol", protocol)
    async with running(tmp_path) as cluster:
        n1, _, n3 = cluster.nodes.values()
        await ask(n1, "POST", "/v1/replicad/groups/default/primary", {"node": "n1"})
        for number in range(80):
            assert await put(n3, f"before{number}", b"old", "default")
        assert await ask(n1, "POST", MEMBERS, {"action": "remove", "node": "n3"}) == ["n3 is removed"]
        await ask(n1, "POST", MEMBERS, {"action": "add", "node": "n3"})
        await cluster.ready("n3")
        for number in range(20):

            async def written(number=number):
                return await put(n3, f"after{number}", b"new", "default")

            await until("n3 takes writes again", written)
            assert await read(n1, f"after{number}", "default") == b"new"
        await cluster.converged()
