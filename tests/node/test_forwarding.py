"""A node that is no member of a group serves its clients all the same, through the members."""

from __future__ import annotations

import pytest

from tests.node.cluster import running, until
from tests.node.load import Load

pytestmark = pytest.mark.xdist_group("processes")

MEMBERS = {"groups.default": {"members": '["n1", "n2", "n3"]'}}


async def test_a_node_that_is_no_member_serves_every_request(tmp_path):
    """Writes and reads through the fourth node are those of the group, also while a member is killed and comes back."""
    async with running(tmp_path, 4, MEMBERS) as cluster:
        outsider, members = cluster["n4"], [cluster[name] for name in ("n1", "n2", "n3")]
        async with Load([outsider, *members], writers=4) as load:
            for number in range(20):
                answer = await outsider.client.put("a%2Fb/../c", b"%d" % number)
                assert (answer.status, answer.header("x-replicad-via")) == (200, "n4")
                assert answer.header("x-replicad-node") in {"n1", "n2", "n3"}
                for node in members:
                    assert await node.client.value("a%2Fb/../c") == b"%d" % number
            first = await cluster.primary()
            cluster.kill(first)
            await load.more(100)
            cluster.start(first)
            await cluster.ready(first)
            await load.more(100)
        for node in (outsider, *members):
            load.check(await node.entries("load/"), f"at {node.name}")
            load.check(await node.entries("load/", "consistent"), f"consistent at {node.name}")


async def test_without_members_the_answer_is_definite(tmp_path):
    """With every member gone, the fourth node says that nothing was done, and goes on when they are back."""
    async with running(tmp_path, 4, MEMBERS) as cluster:
        outsider = cluster["n4"]
        assert (await outsider.client.put("a", b"1")).status == 200
        cluster.kill("n1", "n2", "n3")
        for answer in (await outsider.client.put("a", b"2"), await outsider.client.get("/v1/kv/a?stale")):
            assert (answer.status, answer.definite) in {(503, True), (504, False)}, answer
        cluster.start("n1", "n2", "n3")

        async def back():
            return (await outsider.client.put("b", b"3")).status == 200

        await until("the members serve through n4", back)
        assert await outsider.client.value("b") == b"3"
        assert (await outsider.client.get("/v1/kv/a?ns=none")).status == 404
