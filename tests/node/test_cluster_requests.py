"""What a client may rely on at any node: it reads its writes, and a retried write takes effect once."""

from __future__ import annotations

import asyncio

import pytest

from tests.node.cluster import running
from tests.node.load import Load, verify
from tests.node.wire import LostError, NotSentError

pytestmark = pytest.mark.xdist_group("processes")


async def test_writes_are_read_back_at_other_nodes(tmp_path):
    """A value put at n2 is what the next read at n1 and at n3 finds, 200 times in a row, under load."""
    async with running(tmp_path) as cluster:
        async with Load(list(cluster.nodes.values())) as load:
            for round_number in range(200):
                value = b"%d" % round_number
                answer = await cluster["n2"].client.put("shared", value)
                assert answer.status == 200, answer
                for name in ("n1", "n3"):
                    assert await cluster[name].client.value("shared") == value
        await verify(cluster, load)


async def test_retried_writes_take_effect_once_across_a_failover(tmp_path):
    """Create-only writes, retried with their Idempotency-Key through other nodes until answered, are never refused."""
    async with running(tmp_path) as cluster:
        nodes = list(cluster.nodes.values())
        done: dict[str, int] = {}
        stopping = False

        async def put(who, key):
            """Write, and try again through the next node until it is answered; returns the index."""
            turn = who
            while True:
                try:
                    answer = await nodes[turn % 3].client_of(f"writer {who}").put(key, b"1", "cas=0", idempotency=key)
                    if answer.status == 200:
                        assert answer.body == b"true", f"{key} was refused: it took effect twice"
                        return answer.index
                except (NotSentError, LostError):
                    pass
                turn += 1
                await asyncio.sleep(0.02)

        async def writer(number):
            step = 0
            while not stopping:
                key = f"once/{number}-{step}"
                done[key] = await put(number, key)
                step += 1

        writers = [asyncio.create_task(writer(number)) for number in range(8)]
        async with Load(nodes, writers=2) as load:
            await load.more(20)
            first = await cluster.primary()
            cluster.kill(first)
            await load.more(50)
            second = await cluster.primary(other_than=first)
            cluster.start(first)
            await cluster.ready(first)
            cluster[second].pause()
            await cluster.primary(other_than=second)
            cluster[second].resume()
            await load.more(50)
        stopping = True
        await asyncio.gather(*writers)
        await verify(cluster, load)
        for node in nodes:
            entries = await node.entries("once/")
            assert {key: entry[:2] for key, entry in entries.items()} == {
                key: (index, index) for key, index in done.items()
            }
        key, index = next(iter(done.items()))
        for node in nodes:
            again = await node.client.put(key, b"1", "cas=0", idempotency=key)
            assert (again.status, again.body, again.index) == (200, b"true", index)
            other = await node.client.put(key, b"2", "cas=0", idempotency=key)
            assert other.status == 422
