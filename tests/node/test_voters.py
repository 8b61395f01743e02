"""Who votes on ``_meta``: what is chosen, and what a real cluster makes of it as it grows and loses nodes."""

from types import SimpleNamespace

import pytest

from replicad.core.group.configuration import Configuration
from replicad.node.voters import FIT_US, SURPLUS_US, MetaVoters, Standing, next_change
from tests.node.cluster import Cluster, running, until
from tests.node.test_groups import ask, put
from tests.node.test_members import MEMBERS, newcomer, where

pytestmark = pytest.mark.xdist_group("processes")

META_MEMBERS = "/v1/replicad/groups/_meta/members"


def change(voters, fit="", *, silent="", leaving="", removed="", fixed=False):
    """Return the next change as ``kind name``, nodes being letters and the first voter the coordinator."""
    gone = frozenset(leaving + removed)
    standing = Standing(voters[0], tuple(voters), tuple(fit), tuple(silent), gone, frozenset(removed))
    found = next_change(standing, fixed=fixed)
    return "" if found is None else " ".join(found)


def test_voters_grow_in_pairs():
    """One node more changes nothing while the number is odd; two do, and so does one while it is even; five is all."""
    assert change("a", "b") == ""
    assert change("a", "bc") == "promote b"
    assert change("ab", "c") == "promote c"
    assert change("abc", "d") == ""
    assert change("abc", "de") == "promote d"
    assert change("abcd", "e") == "promote e"
    assert change("abcde", "fg") == ""
    assert change("ab", "cd") == "promote c"
    assert change("a", "bc", fixed=True) == ""


def test_a_silent_voter_stays():
    """Silence is no reason to lose the vote; but if one too many votes, it is the silent one."""
    assert change("abc", silent="bc") == ""
    assert change("abc", "d", silent="c") == ""
    assert change("abcd", silent="b") == "demote b"
    assert change("abcd") == "demote d"
    assert change("ab", silent="b") == "demote b"
    assert change("abcdef") == "demote f"
    assert change("abcd", fixed=True) == ""


def test_a_leaving_voter_gets_a_successor():
    """Another one takes its place, if there is one; nobody else loses the vote before it has left."""
    assert change("abc", "d", leaving="c") == "promote d"
    assert change("a", "b", leaving="a") == "promote b"
    assert change("abc", leaving="c") == ""
    assert change("abc", removed="b") == "remove b"
    assert change("abc", removed="b", fixed=True) == "remove b"
    assert change("abc", removed="a") == ""


def tender(voters, mirrors, able, *, coordinator=True):
    """Return the voters' keeper of n1 in a cluster of n1 to n5; ``able`` may change."""
    peers = {name: SimpleNamespace() for name in voters}
    office = SimpleNamespace(authority=SimpleNamespace(peers=peers), view=SimpleNamespace(fresh=lambda _: True))
    desk = SimpleNamespace(unsafe=lambda _kind, name, _office: "" if name in able else "it is behind")
    configuration = Configuration.initial({name: name for name in voters})
    for name in mirrors:
        configuration = configuration.with_mirror(name, 1)
    state = SimpleNamespace(configuration=configuration, leaving=False)
    replica = SimpleNamespace(office=office if coordinator else None, state=state, change_desk=desk)
    directory = SimpleNamespace(
        leaving=list, removed=set(), nodes=lambda: [f"n{number}" for number in range(1, 6)], voters_fixed=False
    )
    groups = {"_meta": SimpleNamespace(replica=replica)}
    return MetaVoters(SimpleNamespace(name="n1", groups=groups, directory=directory))


def test_a_mirror_must_have_been_fit_for_a_while():
    """It is promoted after some time, which begins anew when it falls behind; only the coordinator acts."""
    able = {"n2", "n3"}
    keeper = tender(("n1",), ("n3", "n2"), able)
    assert keeper.choose(1) is None
    able.remove("n3")
    assert keeper.choose(FIT_US) is None
    able.add("n3")
    assert keeper.choose(FIT_US + 1) is None
    assert keeper.choose(2 * FIT_US) is None
    assert keeper.choose(2 * FIT_US + 1) == ("promote", "n2")
    assert tender(("n1",), ("n2", "n3"), able, coordinator=False).choose(9 * FIT_US) is None


def test_a_voter_too_many_stays_for_a_while():
    """Another node may be about to make the number odd."""
    able = set()
    keeper = tender(("n1", "n2", "n3", "n4"), ("n5",), able)
    assert keeper.choose(1) is None
    able.add("n5")
    assert keeper.choose(2) is None
    assert keeper.choose(FIT_US + 2) == ("promote", "n5")
    able.remove("n5")
    assert keeper.choose(SURPLUS_US) is None
    assert keeper.choose(2 * SURPLUS_US) == ("demote", "n4")


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
