"""A native client by hand: bytes out, payloads in."""

import asyncio
import struct

import msgpack

HELLO, REQUEST, ANSWER, FAILED, CLUSTER, CLOSING = range(6)
GET, PUT, DELETE = range(3)


def framed(fields):
    """Return the frame of a payload."""
    payload = msgpack.packb(fields)
    return struct.pack(">I", len(payload)) + payload


async def until(condition):
    """Wait until something that nobody announces is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.005)


class Raw:
    """One connection; use it as ``async with Raw(port) as raw``. It says hello unless told otherwise."""

    def __init__(self, port, *, hello=True):
        self.port = port
        self.hello = hello
        self.about = None
        self.pushed = []
        self.number = 0

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
        if self.hello:
            self.send([HELLO, "replicad", 1, 1, {}])
            self.about = (await self.receive())[3]
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    def send(self, fields):
        self.writer.write(framed(fields))

    def ask(self, *operations, group="default", options=None):
        """Send a request and return its number."""
        self.number += 1
        self.send([REQUEST, self.number, group, options or {}, list(operations)])
        return self.number

    async def receive(self):
        """Return the next payload; pushed ones, too."""
        async with asyncio.timeout(10):
            (length,) = struct.unpack(">I", await self.reader.readexactly(4))
            return msgpack.unpackb(await self.reader.readexactly(length), use_list=False)

    async def next(self):
        """Return the next payload that is an answer; what is pushed goes to ``pushed``."""
        while True:
            fields = await self.receive()
            if fields[0] in {ANSWER, FAILED}:
                return fields
            self.pushed.append(fields)

    async def results(self, *operations, **more):
        """Send a request and return its results."""
        number = self.ask(*operations, **more)
        answer = await self.next()
        assert answer[:2] == (ANSWER, number), answer
        return answer[5]

    async def failure(self, *operations, **more):
        """Send a request that is refused as a whole, and return its error."""
        number = self.ask(*operations, **more)
        answer = await self.next()
        assert answer[:2] == (FAILED, number), answer
        return answer[2]

    async def ended(self):
        """Return the error of the last frame before the connection ends, "" if there is none."""
        last = ""
        while True:
            try:
                fields = await self.receive()
            except (asyncio.IncompleteReadError, ConnectionError):
                return last
            if fields[0] == FAILED:
                assert fields[1] == 0, fields
                last = fields[2]
