"""Groups of a real cluster: created, used at every node, dropped, and kept over restarts."""

import json

import pytest

from tests.node.cluster import running, until

pytestmark = pytest.mark.xdist_group("processes")


async def ask(node, method, target, body=None, status=200):
    """Send a request to a node and return the JSON of its answer."""
    data = b"" if body is None else json.dumps(body).encode()
    answer = await node.client.request(method, target, data, seconds=70)
    assert answer.status == status, (answer.status, answer.text)
    return answer.json() if status == 200 else answer.text


async def put(node, key, value, group):
    """Write a key of a group; True when it was acknowledged."""
    answer = await node.client.request("PUT", f"/v1/kv/{key}?ns={group}", value)
    return answer.status == 200


async def read(node, key, group):
    """Return the value of a key of a group, None if it is not there (the group, or the key)."""
    answer = await node.client.get(f"/v1/kv/{key}?ns={group}&raw")
    return answer.body if answer.status == 200 else None


async def known(node):
    """Return the groups that a node knows, by name."""
    return {group["name"]: group for group in await ask(node, "GET", "/v1/replicad/groups")}


async def test_groups_are_created_used_and_dropped_at_any_node(tmp_path):
    """A group of two of three nodes is served by all three; a dropped one is gone, and its name is free."""
    async with running(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes.values()
        made = await ask(n3, "PUT", "/v1/replicad/groups/orders", {"members": ["n1", "n2"]})
        assert made["members"] == ["n1", "n2"]
        assert await ask(n1, "PUT", "/v1/replicad/groups/orders", {"members": ["n1", "n2"]})
        text = await ask(n2, "PUT", "/v1/replicad/groups/orders", {"members": ["n3"]}, status=409)
        assert "another one" in text
        await until("orders takes writes at n3", lambda: put(n3, "a", b"1", "orders"))
        for node in (n1, n2, n3):
            assert await read(node, "a", "orders") == b"1"
            assert await read(node, "a", "default") is None
        assert await ask(n2, "DELETE", "/v1/replicad/groups/orders") == {"name": "orders", "dropped": True}

        async def gone():
            return all([await read(node, "a", "orders") is None for node in (n1, n2, n3)])

        await until("orders is gone", gone)
        again = await ask(n1, "PUT", "/v1/replicad/groups/orders", {"members": ["n3", "n1"]})
        assert again["id"] != made["id"]
        await until("the new orders takes writes", lambda: put(n2, "b", b"2", "orders"))
        assert await read(n1, "a", "orders") is None


async def test_a_group_whose_members_are_not_all_there_is_unfinished(tmp_path):
    """Member or not, a node says who is missing and is ready all the same; the group forms when everyone is there."""
    async with running(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes.values()
        n3.kill()
        wish = {"members": ["n1", "n3"]}

        async def refused(node):
            text = await ask(node, "PUT", "/v1/replicad/groups/orders?timeout=1s", wish, status=409)
            assert text.startswith("The group is defined, but not formed")
            return "n3 is not in touch" in text

        for node in (n1, n2):
            await until("n3 is missed", lambda node=node: refused(node))
            assert await node.ready()
        n3.start()
        assert (await ask(n2, "PUT", "/v1/replicad/groups/orders", wish))["version"] == 1
        await until("orders takes writes", lambda: put(n2, "a", b"1", "orders"))


async def test_groups_survive_restarts_and_drops_too(tmp_path):
    """After all nodes were killed every group is as it was; a group dropped while a node was down is deleted there."""
    async with running(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes.values()
        for name in ("one", "two"):
            await ask(n1, "PUT", f"/v1/replicad/groups/{name}", {"limits": {"checkpoint_slots": 1000}})
            await until(f"{name} takes writes", lambda name=name: put(n2, "k", name.encode(), name))
        assert await put(n1, "k", b"default", "default")
        before = await known(n1)
        cluster.kill()
        cluster.start()
        await cluster.ready()
        for name in ("one", "two"):
            await until(f"{name} is read", lambda name=name: read(n3, "k", name))
            assert await read(n3, "k", name) == name.encode()
        after = await known(n1)
        assert {name: after[name]["id"] for name in after} == {name: before[name]["id"] for name in before}
        n3.kill()
        await until("one is dropped", lambda: dropped(n1, "one"))
        n3.start()
        await cluster.ready()

        async def deleted():
            status = (await n3.client.get("/v1/replicad/status")).json()
            return sorted(status["groups"]) == ["_meta", "default", "two"]

        await until("n3 has deleted one", deleted)
        assert await read(n3, "k", "two") == b"two"
        n3.kill()
        n3.start()  # its log has records of a group that is no more
        await cluster.ready()
        await cluster.converged()


async def dropped(node, name):
    """Drop a group, as often as it takes."""
    return (await node.client.request("DELETE", f"/v1/replicad/groups/{name}?force")).status == 200


async def test_coordinators_go_where_they_should_be(tmp_path):
    """A preferred node gets the office by itself; idle groups share flushes, and a closed one leaves no metrics."""
    async with running(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes.values()
        for name in ("one", "two"):
            await ask(n1, "PUT", f"/v1/replicad/groups/{name}", {"preferred": "n3"})

        async def moved():
            groups = await known(n3)
            return all(groups[name]["coordinator"] == "n3" for name in ("one", "two"))

        await until("both offices are at n3", moved)
        assert 'group="one"' in (await n2.client.get("/metrics")).text
        await ask(n2, "DELETE", "/v1/replicad/groups/one")

        async def forgotten():
            return 'group="one"' not in (await n2.client.get("/metrics")).text

        await until("the metrics of one are gone", forgotten)
        assert "replicad_peer_sent_bytes_total" in (await n2.client.get("/metrics")).text


async def test_a_dropped_group_of_the_settings_stays_dropped(tmp_path):
    """The mark that a drop leaves is stronger than the settings file."""
    async with running(tmp_path, settings={"groups.side": {"value_bytes_max": 1000}}) as cluster:
        n1, n2, _ = cluster.nodes.values()
        await until("side takes writes", lambda: put(n1, "k", b"v", "side"))
        assert (await ask(n1, "GET", "/v1/replicad/groups/side"))["limits"] == {"value_bytes_max": 1000}
        answer = await n1.client.request("PUT", "/v1/kv/big?ns=side", b"x" * 1001)
        assert answer.status == 413
        await until("side is dropped", lambda: dropped(n2, "side"))
        text = await ask(n1, "DELETE", "/v1/replicad/groups/default", status=409)
        assert "--force" in text
        await ask(n1, "DELETE", "/v1/replicad/groups/_meta", status=409)
        cluster.kill()
        cluster.start()
        await cluster.ready()

        async def only_default():
            return list(await known(n1)) == ["default"]

        await until("side stays dropped", only_default)
        assert await read(n1, "k", "side") is None


async def test_an_idle_group_does_not_pin_the_log(tmp_path):
    """The group that keeps the oldest segments takes a checkpoint, although nobody writes to it."""
    settings = {"node": {"segment_bytes": 4_200_000}, "cluster.limits": {"checkpoint_slots": 20, "retained_slots": 10}}
    async with running(tmp_path, settings=settings) as cluster:
        n1, n2, _ = cluster.nodes.values()
        await ask(n1, "PUT", "/v1/replicad/groups/quiet", {})
        await until("quiet takes writes", lambda: put(n2, "k", b"v", "quiet"))
        assert 1 in n1.segments()
        for number in range(80):
            assert await put(n1, f"k{number % 4}", bytes(300_000), "default")

        async def shorter():
            return 1 not in n1.segments() and len(n1.segments()) <= 6

        await until("the oldest segments are gone", shorter)
        cluster.kill()
        cluster.start()
        await cluster.ready()
        await until("quiet is read", lambda: read(n1, "k", "quiet"))


async def test_a_group_made_again_survives_a_kill_of_all(tmp_path):
    """What a node knew of the groups at its last clean stop is old: it must not delete what came after."""
    async with running(tmp_path, 1) as cluster:
        (node,) = cluster.nodes.values()
        await ask(node, "PUT", "/v1/replicad/groups/orders", {})
        await until("the group takes writes", lambda: put(node, "old", b"1", "orders"))
        await node.terminate()
        cluster.start()
        await cluster.ready()
        await ask(node, "DELETE", "/v1/replicad/groups/orders?force")
        await ask(node, "PUT", "/v1/replicad/groups/orders", {})
        await until("the new group takes writes", lambda: put(node, "new", b"2", "orders"))
        node.kill()
        cluster.start()
        await cluster.ready()

        async def there():
            return await read(node, "new", "orders") == b"2"

        await until("the group is back with its data", there)
