"""A small HTTP client that never retries by itself and says of every failure whether the request may have been done."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NamedTuple

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
INDEX = re.compile(rb"\r\nx-replicad-index: *(\d+)", re.IGNORECASE)


class NotSentError(Exception):
    """Nobody listens there: the request was never sent."""


class LostError(Exception):
    """The connection ended, or the time was up, after the request was sent: its outcome is unknown."""


class Answer(NamedTuple):
    """One complete answer; ``head`` is the status line and the header lines as they came."""

    status: int
    head: bytes
    body: bytes

    @property
    def index(self) -> int:
        """Index of a write, 0 if the answer has none."""
        found = INDEX.search(self.head)
        return int(found[1]) if found else 0

    @property
    def definite(self) -> bool:
        """Whether an error says that nothing happened."""
        return self.header("x-replicad-outcome") == "definite"

    def header(self, name: str) -> str:
        """Return a header's value, "" if it is not there."""
        found = re.search(rb"\r\n%b: *([^\r]*)" % name.encode(), self.head, re.IGNORECASE)
        return found[1].decode() if found else ""

    def json(self) -> Any:
        """Return the body's value."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self.alive = True
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None
        self._part = 0
        self._body: bytearray | None = None
        """The body so far of a chunked answer; ``_part`` is where its next chunk begins."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Keep the transport."""
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits never learns the outcome."""
        self.alive = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(LostError(f"the connection ended: {error or 'closed by the node'}"))

    def data_received(self, data: bytes) -> None:
        """Take in a part of an answer."""
        self._received += data
        answer = self._parse()
        if answer is None or self._waiter is None or self._waiter.done():
            return
        self._received.clear()
        self._body = None
        if b"\r\nConnection: close" in answer.head:
            self.close()
        self._waiter.set_result(answer)

    def _parse(self) -> Answer | None:
        received = self._received
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(received[: end + 2])
        status = int(head[9:12])
        if CHUNKED.search(head):
            body = self._chunks(end + 4)
            return None if body is None else Answer(status, head, body)
        found = LENGTH.search(head)
        length = int(found[1]) if found else 0
        if len(received) < end + 4 + length:
            return None
        return Answer(status, head, bytes(received[end + 4 : end + 4 + length]))

    def _chunks(self, begin: int) -> bytes | None:
        """Take the chunks that are complete; returns the whole body after the last one."""
        if self._body is None:
            self._body, self._part = bytearray(), begin
        received = self._received
        while (line := received.find(b"\r\n", self._part)) >= 0:
            size = int(received[self._part : line], 16)
            if len(received) < line + 2 + size + 2:
                return None
            self._body += received[line + 2 : line + 2 + size]
            self._part = line + 2 + size + 2
            if not size:
                return bytes(self._body)
        return None

    def send(self, request: bytes) -> asyncio.Future[Answer]:
        """Send one request, given as bytes."""
        if self._transport is None or not self.alive:
            raise NotSentError("the connection is closed")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    @property
    def waiting(self) -> bool:
        """Whether the last request has had no answer."""
        return self._waiter is not None and (not self._waiter.done() or self._waiter.cancelled())

    def close(self) -> None:
        """End it at once."""
        self.alive = False
        if self._transport is not None:
            self._transport.abort()


def encode(method: str, target: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return a request's bytes."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {target} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


class Client:
    """Talks to one node, over one connection, which is opened again when it was lost."""

    def __init__(self, port: int, seconds: float = 15.0) -> None:
        """``seconds``: how long to wait for an answer (longer than a node's own deadline)."""
        self.port = port
        self.seconds = seconds
        self._connection: Connection | None = None

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, seconds: float = 0
    ) -> Answer:
        """Send one request and wait for its answer; raises NotSentError, LostError."""
        connection = await self._connect()
        try:
            async with asyncio.timeout(seconds or self.seconds):
                return await connection.send(encode(method, target, body, headers or {}))
        except TimeoutError:
            raise LostError("no answer in time") from None
        finally:
            if connection.waiting:
                connection.close()  # the late answer must not be taken for the next one's

    async def _connect(self) -> Connection:
        if self._connection is None or not self._connection.alive:
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(5):
                    _, self._connection = await loop.create_connection(Connection, "127.0.0.1", self.port)
            except OSError as error:  # TimeoutError is one
                raise NotSentError(f"nobody answers at port {self.port}: {error}") from None
        return self._connection

    async def get(self, target: str, seconds: float = 0) -> Answer:
        """GET."""
        return await self.request("GET", target, seconds=seconds)

    async def put(self, key: str, value: bytes, query: str = "", idempotency: str = "") -> Answer:
        """PUT a key; ``query`` without its question mark."""
        headers = {"Idempotency-Key": idempotency} if idempotency else {}
        return await self.request("PUT", f"/v1/kv/{key}" + (f"?{query}" if query else ""), value, headers)

    async def value(self, key: str, query: str = "") -> bytes | None:
        """Return a key's value, None if it is missing."""
        answer = await self.get(f"/v1/kv/{key}?raw" + (f"&{query}" if query else ""))
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise AssertionError(f"GET {key} at port {self.port}: {answer.status} {answer.text}")
        return answer.body

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
