"""A node that is asked to stop (SIGTERM) hands over what it has: its office, or its lease."""

from __future__ import annotations

import pytest

from tests.node.cluster import running
from tests.node.load import Load, verify

pytestmark = pytest.mark.xdist_group("processes")


async def test_a_leaving_primary_hands_over(tmp_path):
    """Writers at another node see no write fail or stay in doubt, whoever is the primary; the exit code is 0."""
    async with running(tmp_path) as cluster:
        first = await cluster.primary()
        other = await cluster.follower()
        async with Load([cluster[other]]) as load:
            await load.more(200)
            assert await cluster[first].terminate() == 0
            await load.more(200)
        assert load.indefinite == {}
        assert load.refused == 0
        assert "[critical" not in cluster[first].printed()
        assert "lease_returned" in cluster[first].printed()  # it did not wait until they had run out
        cluster.start(first)
        await verify(cluster, load)


async def test_a_leaving_follower_gives_its_lease_back(tmp_path):
    """The coordinator drops it because it said so, not because it fell silent; writers elsewhere see nothing of it."""
    async with running(tmp_path) as cluster:
        first = await cluster.primary()
        follower = await cluster.follower()
        async with Load([cluster[first]]) as load:
            await load.more(200)
            assert await cluster[follower].terminate() == 0
            assert "lease_returned" in _of_member(cluster[first].printed(), follower)
            await load.more(200)
        assert load.indefinite == {}
        assert load.refused == 0
        cluster.start(follower)
        await verify(cluster, load)


def _of_member(printed: str, name: str) -> str:
    """Return the lines of the log that are about one member."""
    return "\n".join(line for line in printed.splitlines() if f"member={name}" in line)


async def test_all_nodes_leave_and_come_back(tmp_path):
    """Every node stopped in turn ends with exit code 0, and the group goes on when they are back."""
    async with running(tmp_path) as cluster:
        async with Load(list(cluster.nodes.values())) as load:
            await load.more(100)
        for node in cluster.nodes.values():
            assert await node.terminate() == 0
        cluster.start()
        await verify(cluster, load)
