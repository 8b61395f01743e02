"""The Python client of the native port (``docs/native.md``): many operations at once over one connection.

async with Client(["127.0.0.1:7001", "127.0.0.1:7002"]) as client:
    await client.put("color", b"red")
    print(await client.get("color"))
"""

from replicad.client.client import Client, Entry, Written
from replicad.client.connection import Answer, Connection
from replicad.client.errors import ClientError, DefiniteError, PartlyDoneError, UnknownOutcomeError

__all__ = [
    "Answer",
    "Client",
    "ClientError",
    "Connection",
    "DefiniteError",
    "Entry",
    "PartlyDoneError",
    "UnknownOutcomeError",
    "Written",
]
