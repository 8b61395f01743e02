"""Checkpoints of a running group: taken on demand, started from, and what they allow to be removed."""

from __future__ import annotations

import shutil

import pytest

from tests.node.cluster import running, until
from tests.node.load import Load, verify

pytestmark = pytest.mark.xdist_group("processes")

SMALL_SEGMENTS = {"node": {"segment_bytes": 5 << 20}}


async def test_a_checkpoint_shortens_the_log_and_is_started_from(tmp_path):
    """Taken under load at all nodes; the old segments go, and a node without its store is rebuilt from it."""
    async with running(tmp_path, settings=SMALL_SEGMENTS) as cluster:
        nodes = list(cluster.nodes.values())
        # A state that grew with the load would take ever longer to write, on a busy disk longer than an office lasts.
        async with Load(nodes, writers=4, value_bytes=400_000, pause=0.05, grows=False) as load:
            await load.more(32)
            before = {node.name: node.segments() for node in nodes}
            assert all(len(segments) > 2 for segments in before.values()), before
            slot = await cluster[await cluster.follower()].checkpoint()

            async def shortened():
                return all(before[node.name][0] < node.segments()[0] for node in nodes)

            await until("every log is shortened", shortened)
        for node in nodes:
            assert (await node.group())["checkpoint_slot"] >= slot
            # The load may have made the next one due meanwhile: then a newer file has taken the place of this one.
            files = [path.stem.rpartition("-")[2] for path in (node.data / "checkpoints").glob("default-*.ckpt")]
            assert any(int(kept) >= slot for kept in files), (slot, files)
        cluster.kill()
        shutil.rmtree(cluster["n2"].data / "store")
        cluster.start()
        await verify(cluster, load)
        assert "store_rebuilding" in cluster["n2"].printed()
        assert "set_aside" not in cluster["n2"].printed()


async def test_a_log_without_checkpoint_rebuilds_the_store(tmp_path):
    """With its store removed and no checkpoint ever taken, a node has everything again from its log alone."""
    async with running(tmp_path, count=1) as cluster:
        async with Load([cluster["n1"]]) as load:
            await load.more(200)
        cluster.kill("n1")
        shutil.rmtree(cluster["n1"].data / "store")
        assert "store_rebuilding" not in cluster["n1"].printed()
        cluster.start("n1")
        await verify(cluster, load)
        assert "store_rebuilding" in cluster["n1"].printed()


async def test_a_wiped_node_comes_back_from_a_checkpoint(tmp_path):
    """What the others' logs no longer hold reaches an empty node as a checkpoint, under load."""
    async with running(tmp_path, settings=SMALL_SEGMENTS | {"cluster.limits": {"retained_slots": 16}}) as cluster:
        nodes = list(cluster.nodes.values())
        async with Load(nodes, value_bytes=20_000, pause=0.01) as load:
            await load.more(100)
            cluster.kill("n3")
            cluster["n3"].wipe()
            for _ in range(2):
                await load.more(100)
                await nodes[0].checkpoint()
            cluster.start("n3")
            await cluster.ready("n3")
            await load.more(100)
        await verify(cluster, load)
        assert list((cluster["n3"].data / "checkpoints").glob("*.ckpt"))
