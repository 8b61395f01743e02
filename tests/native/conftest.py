import asyncio

import pytest
import uvloop

from replicad.native.server import NativeServer
from tests.native.fake import NativeNode
from tests.native.raw import Raw


def pytest_asyncio_loop_factories(config, item):
    """Every test here runs on both event loops, but for those that start processes."""
    if "processes" in item.path.name:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def node():
    return NativeNode()


@pytest.fixture
async def server(node):
    server = NativeServer(node, "127.0.0.1", 0)
    await server.start()
    yield server
    await server.stop(0.2)


@pytest.fixture
async def raw(server):
    async with Raw(server.port) as raw:
        yield raw
