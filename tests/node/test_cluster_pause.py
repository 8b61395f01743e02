"""Real processes that are stopped for a while (SIGSTOP) and know nothing of it."""

from __future__ import annotations

import asyncio

import pytest

from tests.node.cluster import running, until
from tests.node.load import Load, verify

pytestmark = pytest.mark.xdist_group("processes")


async def test_a_paused_primary_is_replaced_and_serves_nothing_old(tmp_path):
    """The others go on under a new primary; the old one, woken with a read that waits, answers with the new value."""
    async with running(tmp_path) as cluster:
        async with Load(list(cluster.nodes.values())) as load:
            first = await cluster.primary()
            others = [node for node in cluster.nodes.values() if node.name != first]
            assert (await cluster[first].client.put("shared", b"old")).status == 200
            cluster[first].pause()
            await cluster.primary(other_than=first)
            await until("the new value is written", lambda: written(others[0], "shared", b"new"))
            reading = asyncio.create_task(cluster[first].client.value("shared"))
            await load.more(100)
            cluster[first].resume()
            assert await reading == b"new"
            await cluster.ready(first)
            await load.more(100)
        await verify(cluster, load)


async def test_a_paused_follower_holds_nobody_up_for_long(tmp_path):
    """Writes go on without a paused follower, which then answers with the new value."""
    async with running(tmp_path) as cluster:
        async with Load(list(cluster.nodes.values())) as load:
            follower = await cluster.follower()
            primary = cluster[await cluster.primary()]
            assert (await cluster[follower].client.put("shared", b"old")).status == 200
            assert await cluster[follower].client.value("shared") == b"old"
            cluster[follower].pause()
            await until("the new value is written", lambda: written(primary, "shared", b"new"))
            reading = asyncio.create_task(cluster[follower].client.value("shared"))
            await load.more(100)
            cluster[follower].resume()
            assert await reading == b"new"
            await cluster.ready(follower)
            await load.more(100)
        await verify(cluster, load)


async def written(node, key, value):
    """Whether the value is written through this node."""
    return (await node.client.put(key, value)).status == 200
