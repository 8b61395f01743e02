import asyncio

import pytest
import uvloop

from replicad.native.server import NativeServer
from tests.native.fake import NativeNode


def pytest_asyncio_loop_factories(config, item):
    """Every test here runs on both event loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Pair:
    """Two nodes with one state: what a client may move between."""

    def __init__(self):
        self.nodes = [NativeNode("n1"), NativeNode("n2")]
        self.group = self.nodes[0].default
        self.nodes[1].groups["default"] = self.group
        self.servers = [NativeServer(node, "127.0.0.1", 0) for node in self.nodes]

    async def start(self):
        for server in self.servers:
            await server.start()
        for node in self.nodes:
            node.found_at(n1=self.servers[0].port, n2=self.servers[1].port)

    @property
    def addresses(self):
        return [f"127.0.0.1:{server.port}" for server in self.servers]

    def connections(self, number):
        return list(self.servers[number].connections)

    def cut(self, number):
        """Break every connection of a node, and let nobody in any more: a crash, as its clients see it."""
        self.servers[number]._listener.close()
        for connection in self.connections(number):
            connection.transport.abort()


@pytest.fixture
async def pair():
    pair = Pair()
    await pair.start()
    yield pair
    for server in pair.servers:
        await server.stop(0.1)
