"""Real processes that are killed at any moment."""

from __future__ import annotations

import pytest

from tests.node.cluster import running
from tests.node.load import Load, verify

pytestmark = pytest.mark.xdist_group("processes")


async def test_kill_the_primary_under_load(tmp_path):
    """Writes go on under another primary, the old one comes back, and nothing acknowledged is lost."""
    async with running(tmp_path) as cluster:
        async with Load(list(cluster.nodes.values())) as load:
            await load.more(200)
            first = await cluster.primary()
            cluster.kill(first)
            await load.more(200)
            second = await cluster.primary(other_than=first)
            cluster.start(first)
            await cluster.ready(first)
            await load.more(200)
            cluster.kill(second)
            await load.more(200)
            cluster.start(second)
        await verify(cluster, load)


async def test_kill_a_follower_under_load(tmp_path):
    """Writes go on without the follower, and it has everything when it is back."""
    async with running(tmp_path) as cluster:
        async with Load(list(cluster.nodes.values())) as load:
            for _ in range(2):
                follower = await cluster.follower()
                cluster.kill(follower)
                await load.more(200)
                cluster.start(follower)
                await cluster.ready(follower)
                await load.more(100)
        await verify(cluster, load)


async def test_kill_everything_under_load(tmp_path):
    """All nodes are killed at once, and started again: the group goes on with all that it acknowledged."""
    async with running(tmp_path) as cluster:
        nodes = list(cluster.nodes.values())
        async with Load(nodes, prefix="before") as before:
            await before.more(300)
            cluster.kill()
        cluster.start()
        await cluster.ready()
        async with Load(nodes, prefix="after") as after:
            await after.more(100)
        await verify(cluster, before, after)


async def test_one_node_alone_restarts_with_its_data(tmp_path):
    """A cluster of one is a full citizen: killed under load, it has everything when it is back."""
    async with running(tmp_path, count=1) as cluster:
        async with Load([cluster["n1"]], prefix="before") as before:
            await before.more(200)
            cluster.kill("n1")
        cluster.start("n1")
        async with Load([cluster["n1"]], prefix="after") as after:
            await after.more(50)
        assert await cluster["n1"].terminate() == 0
        cluster.start("n1")
        await verify(cluster, before, after)
