"""HTTP by hand: exactly these bytes out, and what comes back taken apart. Clients would tidy up the paths we test."""

import asyncio
import json
from dataclasses import dataclass, field


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes
    closed: bool = field(default=False)

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


async def read_answer(reader, *, head=False):
    """Read one answer; raises IncompleteReadError if it breaks off."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    status = int(lines[0].split(" ")[1])
    headers = dict(line.split(": ", 1) for line in lines[1:])
    if head or status == 100:
        return Answer(status, headers, b"")
    if headers.get("Transfer-Encoding") == "chunked":
        parts = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        await reader.readexactly(2)
        return Answer(status, headers, b"".join(parts))
    return Answer(status, headers, await reader.readexactly(int(headers["Content-Length"])))


def encode(method, path, headers=(), body=b"", version="1.1"):
    """Return the bytes of a request; a Content-Length is added unless the headers frame the body themselves."""
    headers = dict(headers)
    if body and not {"Content-Length", "Transfer-Encoding"} & set(headers):
        headers["Content-Length"] = len(body)
    lines = [f"{method} {path} HTTP/{version}".encode("utf-8", "surrogateescape"), b"Host: x"]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", body])


class Client:
    """One connection."""

    def __init__(self, port):
        self.port = port
        self.reader = self.writer = None

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def ask(self, method, path, headers=(), body=b"", version="1.1"):
        """Send one request and return its answer."""
        self.writer.write(encode(method, path, headers, body, version))
        return await read_answer(self.reader, head=method == "HEAD")

    async def at_end(self):
        """Return whether the server closed the connection, reading nothing else."""
        return await self.reader.read(1) == b""


async def until(condition):
    """Let the loop turn until the condition holds (the test's own timeout ends it otherwise)."""
    while not condition():  # noqa: ASYNC110 - what happens elsewhere sets no event
        await asyncio.sleep(0.001)
