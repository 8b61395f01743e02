import asyncio

import pytest
import uvloop

from replicad.http.server import HttpServer
from tests.http.fake import FakeNode
from tests.http.raw import Client


def pytest_asyncio_loop_factories(config, item):
    """Every test here runs on both event loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def node():
    return FakeNode()


@pytest.fixture
async def server(node):
    server = HttpServer(node, "127.0.0.1", 0)
    await server.start()
    yield server
    await server.stop(0.2)


@pytest.fixture
async def client(server):
    async with Client(server.port) as client:
        yield client
