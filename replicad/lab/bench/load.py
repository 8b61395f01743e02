"""The load: connections that are kept open, each sending its next request as soon as the last one is answered."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from replicad.lab.bench.figures import Tally

KEYS_PER_CLIENT = 8
RETRY_SECONDS = 0.1
"""Pause of a client after an error, so that a node that refuses is not hammered."""
GRACE_SECONDS = 6.0
"""How long the last answers are awaited: a little more than a node's own deadline."""
CONNECT_SECONDS = 5.0
COUNTER_DIGITS = 12
ERROR_TEXT_MAX = 200
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Target(NamedTuple):
    """Where a node serves HTTP."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Work:
    """What every client does: operations on its own keys below ``prefix``, of which ``put_percent`` are writes."""

    prefix: str
    group: str
    value_bytes: int
    put_percent: int = 100
    ack: str = ""


class _Requests:
    """One client's requests, one after another."""

    def __init__(self, work: Work, number: int, host: str) -> None:
        self.work = work
        self.count = 0
        self.random = Random(number)
        self.filling = b"." * max(0, work.value_bytes - COUNTER_DIGITS)
        query = f"?ns={work.group}"
        ack = f"&ack={work.ack}" if work.ack else ""
        paths = [f"/v1/kv/{work.prefix}{number}-{each}{query}" for each in range(KEYS_PER_CLIENT)]
        length = f"Content-Length: {work.value_bytes}\r\n\r\n"
        self.puts = [f"PUT {path}{ack} HTTP/1.1\r\nHost: {host}\r\n{length}".encode() for path in paths]
        self.gets = [f"GET {path}&raw HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() for path in paths]

    def put(self) -> bytes:
        """Return a write of a value that this key did not have."""
        self.count += 1
        counter = b"%0*d" % (COUNTER_DIGITS, self.count)
        return self.puts[self.count % KEYS_PER_CLIENT] + counter[-self.work.value_bytes :] + self.filling

    def next(self) -> tuple[bool, bytes]:
        """Return whether the next request is a write, and its bytes."""
        percent = self.work.put_percent
        if percent == 100 or self.random.randrange(100) < percent:
            return True, self.put()
        return False, self.random.choice(self.gets)


class _Client(asyncio.Protocol):
    """One connection at a time; opened again when it was lost."""

    def __init__(self, requests: _Requests, target: Target, tally: Tally, end: float, puts_left: int) -> None:
        """``puts_left``: 0 for requests until ``end``, else so many writes and no more."""
        self.requests = requests
        self.target = target
        self.tally = tally
        self.end = end
        self.puts_left = puts_left
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.transport: asyncio.Transport | None = None
        self.received = bytearray()
        self.connecting: asyncio.Task[None] | None = None
        self.sent_at = 0.0
        self.writing = False
        self.waiting = False

    def connect(self) -> None:
        """Open a connection; the first request follows."""
        if not self.done.done():
            self.connecting = self.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.loop.create_connection(lambda: self, self.target.host, self.target.port)
        except OSError as error:  # TimeoutError is one
            self.tally.error(f"{self.target.host}:{self.target.port} cannot be reached: {error}")
            self._later(self.connect)

    def _later(self, action: Callable[[], None]) -> None:
        """Go on after a pause, or end if the time is up."""
        if time.perf_counter() >= self.end:
            self.finish()
        elif not self.done.done():
            self.loop.call_later(RETRY_SECONDS, action)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Send the first request."""
        self.transport = transport
        self.received.clear()
        self.send()

    def send(self) -> None:
        """Send the next request, or end."""
        now = time.perf_counter()
        if now >= self.end or self.done.done():
            self.finish()
            return
        if self.transport is None:
            return  # lost while it paused: the new connection sends
        self.writing, data = (True, self.requests.put()) if self.puts_left else self.requests.next()
        self.waiting, self.sent_at = True, now
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Take in a part of an answer."""
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.received[: end + 2])
        found = _LENGTH.search(head)
        begin = end + 4
        if len(self.received) < begin + (int(found[1]) if found else 0):
            return
        body = bytes(self.received[begin:]) if head[9:12] != b"200" else b""
        self.received.clear()
        self.waiting = False
        self._answered(head[9:12], body)

    def _answered(self, status: bytes, body: bytes) -> None:
        now = time.perf_counter()
        if status != b"200":
            text = " ".join(body[:ERROR_TEXT_MAX].decode(errors="replace").split())
            self.tally.error(f"{status.decode(errors='replace')} {text}")
            self._later(self.send)
            return
        if self.writing:
            self.tally.written += 1
        if now < self.end:
            (self.tally.writes if self.writing else self.tally.reads).add(now - self.sent_at)
        if self.puts_left:
            self.puts_left -= 1
            if not self.puts_left:
                self.finish()
                return
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits never learns the outcome."""
        self.transport = None
        if self.done.done():
            return
        if self.waiting:
            self.tally.error(f"the connection to {self.target.host}:{self.target.port} ended: {exc or 'closed'}")
        self.waiting = False
        self._later(self.connect)

    def finish(self) -> None:
        """End this client."""
        if not self.done.done():
            self.done.set_result(None)
        if self.transport is not None:
            self.transport.abort()


async def drive(targets: Sequence[Target], clients: int, work: Work, seconds: float) -> Tally:
    """Load for so many seconds with ``clients`` connections, spread evenly over the targets."""
    if work.put_percent < 100:
        await _run(targets, clients, work, GRACE_SECONDS, KEYS_PER_CLIENT)
    return await _run(targets, clients, work, seconds, 0)


async def _run(targets: Sequence[Target], clients: int, work: Work, seconds: float, puts: int) -> Tally:
    tally = Tally(seconds=seconds)
    end = time.perf_counter() + seconds
    running = []
    for number in range(clients):
        target = targets[number % len(targets)]
        running.append(_Client(_Requests(work, number, target.host), target, tally, end, puts))
    for client in running:
        client.connect()
    _, late = await asyncio.wait([client.done for client in running], timeout=seconds + GRACE_SECONDS)
    for client in running:
        if client.done in late:
            tally.error("an answer did not come in time")
        client.finish()
        if client.connecting is not None:
            client.connecting.cancel()
    return tally
