"""A fast loader: many connections, each putting the next key as soon as its last one is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from tests.node.wire import encode

RETRY_SECONDS = 0.1
AGAIN = (b"429", b"503", b"504")
"""Statuses after which a put is repeated: the loader's writes may be done twice."""


class _Loading(asyncio.Protocol):
    def __init__(
        self, items: Iterator[tuple[str, bytes]], done: asyncio.Future[None], on_put: Callable[[], None]
    ) -> None:
        self._items = items
        self._done = done
        self._on_put = on_put
        self._request = b""
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._next()

    def _next(self) -> None:
        for key, value in self._items:
            self._request = encode("PUT", f"/v1/kv/{key}", value, {})
            self._send()
            return
        self._finish()

    def _send(self) -> None:
        if self._transport is not None:
            self._transport.write(self._request)

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        status = head[9:12]
        if status == b"200":
            if len(body) < 4:
                return
            self._received = b""
            self._on_put()
            self._next()
        elif status in AGAIN:
            self._received = b""
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._send)
        elif not self._done.done():
            self._done.set_exception(AssertionError(f"a put was answered {self._received.decode(errors='replace')}"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(AssertionError(f"a connection ended while loading: {error}"))


async def load(port: int, connections: int, items: Iterator[tuple[str, bytes]], on_put: Callable[[], None]) -> None:
    """Put all ``(key, value)`` at one node; ``on_put`` is called for each that is acknowledged."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        waiting.append(done)
        await loop.create_connection(lambda done=done: _Loading(items, done, on_put), "127.0.0.1", port)
    await asyncio.gather(*waiting)
