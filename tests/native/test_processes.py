"""The native port of real nodes: what it writes is what HTTP reads, and nothing acknowledged is lost by a failure."""

import asyncio
import base64

import pytest

from replicad.client import Client, ClientError, Connection, UnknownOutcomeError
from replicad.core.model.configuration import PROTOCOLS
from replicad.core.model.operations import PUT
from tests.native.cluster import NativeCluster, running
from tests.node.cluster import until

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(params=PROTOCOLS, autouse=True)
def protocol(request, monkeypatch):
    """Every test here runs with both protocols."""
    monkeypatch.setattr(NativeCluster, "protocol", request.param)


def values(entries):
    """Return key -> value of what HTTP lists."""
    return {key: base64.b64decode(value) for key, (_, _, value) in entries.items()}


class Writer:
    """Writes keys of its own one after the other, and notes what was acknowledged and what is not known."""

    def __init__(self, client, number):
        self.client = client
        self.prefix = f"writer{number}/"
        self.stopping = False
        self.acknowledged = {}
        self.unknown = set()

    async def run(self):
        step = 0
        while not self.stopping:
            key = f"{self.prefix}{step}"
            step += 1
            try:
                written = await self.client.put(key, b"%d" % step, cas=0)
            except UnknownOutcomeError:
                self.unknown.add(key)
                continue
            except ClientError:
                await asyncio.sleep(0.02)
                continue
            assert written.done, f"{key} was refused: it was done twice"
            self.acknowledged[key] = (written.index, b"%d" % step)

    def verify(self, entries):
        """Compare with what a node holds below the prefix."""
        for key, (index, value) in self.acknowledged.items():
            create, modify, found = entries[key]
            assert (create, modify, base64.b64decode(found)) == (index, index, value), key
        assert entries.keys() - self.acknowledged.keys() <= self.unknown


async def more(writers, count):
    """Wait until every writer has got so many more acknowledgements."""
    goals = [len(writer.acknowledged) + count for writer in writers]

    async def reached():
        return all(len(writer.acknowledged) >= goal for writer, goal in zip(writers, goals, strict=True))

    await until(f"{count} more writes each", reached)


async def test_both_doors_lead_to_the_same_keys(tmp_path):
    """Pipelined native writes at every node are read back over HTTP and natively at every other node."""
    async with running(tmp_path) as cluster:
        clients = {}
        for name, address in cluster.native.items():
            clients[name] = await Client([address]).__aenter__()
        await asyncio.gather(
            *(
                client.put(f"both/{name}/{number}", f"{name} {number}".encode(), flags=number)
                for name, client in clients.items()
                for number in range(300)
            )
        )
        expected = {f"both/{name}/{number}": f"{name} {number}".encode() for name in clients for number in range(300)}
        for name, node in cluster.nodes.items():
            await node.client.get("/v1/kv/both/n1/0?consistent")
            assert values(await node.entries("both/")) == expected
            entries = await clients[name].get_many(expected)
            assert [entry.value for entry in entries] == list(expected.values())
            assert [entry.flags for entry in entries] == [*range(300)] * 3
        answer = await cluster["n1"].client.put("over-http", b"h")
        for client in clients.values():
            assert (await client.get_entry("over-http")).modify_index == answer.index
            assert await client.get("over-http", consistency="consistent") == b"h"
        assert (await clients["n2"].put("over-http", b"n", cas=answer.index)).done
        assert not (await clients["n3"].put("over-http", b"n", cas=answer.index)).done
        assert await clients["n1"].get("over-http", consistency="stale", max_stale_ms=60_000) in {b"h", b"n"}
        for client in clients.values():
            await client.__aexit__(None, None, None)
        await cluster.converged()


async def test_nothing_acknowledged_is_lost_by_a_failover(tmp_path):
    """Clients write while the coordinator is killed, and the next one hangs: what they were told holds everywhere."""
    async with running(tmp_path) as cluster:
        addresses = list(cluster.native.values())
        async with (
            Client(addresses) as first,
            Client([*addresses[1:], addresses[0]]) as second,
            Client(addresses[::-1]) as third,
        ):
            writers = [Writer(client, number) for number, client in enumerate([first, second, third] * 4)]
            tasks = [asyncio.create_task(writer.run()) for writer in writers]
            await more(writers, 20)
            killed = await cluster.primary()
            cluster.kill(killed)
            await more(writers, 20)
            hanging = await cluster.primary(other_than=killed)
            cluster.start(killed)
            await cluster.ready(killed)
            cluster[hanging].pause()
            await cluster.primary(other_than=hanging)
            await more(writers, 20)
            cluster[hanging].resume()
            await more(writers, 20)
            for writer in writers:
                writer.stopping = True
            await asyncio.gather(*tasks)
        await cluster.converged()
        for node in cluster.nodes.values():
            for writer in writers:
                writer.verify(await node.entries(writer.prefix))


async def test_an_orderly_stop_costs_a_client_nothing(tmp_path):
    """A node that is told to stop sends its clients away first: no write of theirs fails or stays unknown."""
    async with running(tmp_path) as cluster:
        addresses = list(cluster.native.values())
        async with Client(addresses) as client:
            writers = [Writer(client, number) for number in range(8)]
            tasks = [asyncio.create_task(writer.run()) for writer in writers]
            await more(writers, 10)
            served = next(name for name, address in cluster.native.items() if address == client.address)
            assert await cluster[served].terminate() == 0
            await more(writers, 10)
            assert client.address in addresses
            assert client.address != cluster.native[served]
            for writer in writers:
                writer.stopping = True
            await asyncio.gather(*tasks)
        assert [writer.unknown for writer in writers] == [set()] * 8
        cluster.start(served)
        await cluster.converged()
        for writer in writers:
            writer.verify(await cluster[served].entries(writer.prefix))


async def test_clients_are_told_of_the_cluster(tmp_path):
    """A connection hears where all nodes are, who coordinates, and soon after a failure who does now."""
    async with running(tmp_path) as cluster:
        first = await cluster.primary()
        watched = next(name for name in cluster.nodes if name != first)
        connection = await Connection.open(cluster.native[watched], cluster="trial")

        async def told(coordinator, *, up):
            async def condition():
                await connection.request([])
                nodes = {name: tuple(about) for name, about in connection.nodes.items()}
                expected = {name: (address, name in up) for name, address in cluster.native.items()}
                return nodes == expected and connection.groups["default"] == (coordinator, tuple(cluster.nodes))

            await until(f"told of {coordinator}", condition)

        await told(first, up=set(cluster.nodes))
        cluster.kill(first)
        await told(await cluster.primary(other_than=first), up=set(cluster.nodes) - {first})
        answer = await connection.request([(PUT, b"k%d" % number, b"v") for number in range(16)])
        assert all(status == 1 for status, _ in answer.results)
        await connection.close()
