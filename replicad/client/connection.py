"""One connection to one node: request frames out, answers in, each matched by its number.

It is below :class:`~replicad.client.client.Client` and public: whoever wants no retries, no fail-over and as little
work per operation as there can be (a load generator, a bulk loader) uses it directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from replicad.client.errors import ClientError, DefiniteError, UnknownOutcomeError, make_error
from replicad.client.wire import (
    ANSWER,
    CLOSING,
    CLUSTER,
    FAILED,
    HELLO,
    PROTOCOL,
    REQUEST,
    VERSION_MAX,
    VERSION_MIN,
    Inbox,
    ProtocolError,
    pack,
)

NO_OPTIONS: dict[str, Any] = {}


class Answer(NamedTuple):
    """What one frame of operations brought.

    ``results`` has one element per operation, in order. Writes: ``(status, index)``, status 1: done, 0: its condition
    failed. Reads: ``(1, value, modify index, flags, create index)``, or ``(0,)`` for no such key. Failed ones:
    ``(name, message, definite, retry after ms)``, whose first element is text.
    """

    group_id: str
    index: int  # type: ignore[assignment]  # the domain's word, though tuples have a method of that name
    """Index of the last operation that the answering node had applied."""
    age_ms: int
    """How old the state was that answered stale reads, at most."""
    results: tuple[Any, ...]


class Connection(asyncio.Protocol):
    """An open connection; made by :meth:`open`. ``about`` is what the node's hello says of it and its bounds."""

    def __init__(
        self, cluster: str, on_news: Callable[[Connection], None], on_end: Callable[[Connection], None]
    ) -> None:
        self.address = ""
        self.about: dict[str, Any] = {}
        self.nodes: dict[str, tuple[str, bool]] = {}
        """Node -> where it serves native clients, and whether this connection's node is in touch with it."""
        self.groups: dict[str, tuple[str, tuple[str, ...]]] = {}
        """Group -> its coordinator ("" if that is not known), and its members and mirrors."""
        self.leaving = ""
        """Why the node wants no new requests; "" while it does."""
        self.in_flight = 0
        """Operations that are not answered."""
        self.heard_at = 0.0
        """The loop's time when something last came."""
        self.closed = False
        self.reason = "the connection is not open"
        self._loop = asyncio.get_running_loop()
        self._cluster = cluster
        self._on_news = on_news
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._inbox = Inbox()
        self._number = 0
        self._asked: asyncio.Future[Answer] | None = None
        self._waiting: dict[int, tuple[asyncio.Future[Answer], int]] = {}
        self._greeting: asyncio.Future[None] = self._loop.create_future()

    @staticmethod
    async def open(
        address: str,
        *,
        cluster: str = "",
        timeout_s: float = 5.0,
        on_news: Callable[[Connection], None] = lambda _: None,
        on_end: Callable[[Connection], None] = lambda _: None,
    ) -> Connection:
        """Connect to ``host:port`` and say hello; raises ClientError, nothing was done then.

        ``cluster``: refuse any other ("": take what is there). ``on_news`` is called when ``nodes``, ``groups`` or
        ``leaving`` change, ``on_end`` once when the connection has ended.
        """
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        connection = Connection(cluster, on_news, on_end)
        connection.address = address
        try:
            async with asyncio.timeout(timeout_s):
                await loop.create_connection(lambda: connection, host.strip("[]"), int(port))
                await connection._greeting
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            connection.abort("it was given up")
            reason = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            raise DefiniteError("unreachable", f"{address}: {reason}", 100) from error
        except BaseException:
            connection.abort("it was given up")
            raise
        return connection

    def request(
        self, operations: Sequence[Sequence[Any]], group: str = "default", options: dict[str, Any] = NO_OPTIONS
    ) -> asyncio.Future[Answer]:
        """Send one frame of operations; the future gives its Answer, or raises ClientError.

        An operation is ``(GET, key)``, ``(PUT, key, value, flags=0, cas=None, id=None)`` or ``(DELETE, key, cas=None,
        id=None)`` with bytes throughout; there are at most ``about["operations"]`` in at most ``about["frame_bytes"]``.
        Operations of one frame, and frames, are concurrent: answers come in any order. Options: ``docs/native.md``.
        Raises DefiniteError when the connection has ended or has ``about["in_flight"]`` operations under way, and
        TypeError, ValueError or OverflowError when a frame cannot carry this; nothing was sent then.
        """
        if self.closed or self._transport is None:
            raise DefiniteError("unreachable", f"{self.address}: {self.reason}", 100)
        count = len(operations)
        if self.in_flight + count > self.about["in_flight"]:
            raise DefiniteError("overloaded", f"{self.in_flight} operations are under way on this connection", 10)
        number = self._number + 1
        # Before anything is noted: it raises if a field is nothing that a frame can carry.
        frame = pack((REQUEST, number, group, options, operations))
        self._number = number
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[number] = (future, count)
        if not self.in_flight:
            self.heard_at = self._loop.time()  # silence counts from the question on
        self.in_flight += count
        self._transport.write(frame)
        return future

    def ask(self) -> None:
        """Ask for a sign of life: an empty request, unless one is under way."""
        if self._asked is None or self._asked.done():
            self._asked = self.request(())
            self._asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())  # retrieved: no noise

    def waits(self) -> bool:
        """Return whether an answer is missing, be it to an empty request."""
        return bool(self._waiting)

    async def close(self) -> None:
        """Close; what is not answered fails."""
        self.abort("the connection was closed here")

    def abort(self, reason: str) -> None:
        """Drop the connection for this reason."""
        if self._transport is not None and not self.closed:
            self.reason = reason
            self._transport.abort()
            self._end()

    # --- the transport's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = writer = cast("asyncio.Transport", transport)
        self.reason = "the connection ended"
        writer.write(pack((HELLO, PROTOCOL, VERSION_MIN, VERSION_MAX, {"cluster": self._cluster})))

    def data_received(self, data: bytes) -> None:
        """Take answers and news."""
        self.heard_at = self._loop.time()
        try:
            for fields in self._inbox.received(data):
                if fields[0] == ANSWER:
                    _, number, *answer = fields
                    future, count = self._waiting.pop(number)
                    self.in_flight -= count
                    if not future.done():
                        future.set_result(Answer(*answer[:4]))
                else:
                    self._take(fields)
                if self.closed:
                    return
        except (ProtocolError, KeyError, ValueError, TypeError, IndexError) as error:
            self.abort(f"the node sent something that makes no sense: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is not answered."""
        if exc is not None:
            self.reason = f"the connection broke: {exc}"
        self._end()

    def _take(self, fields: tuple[Any, ...]) -> None:
        match fields:
            case (kind, number, error, addresses, *_) if kind == FAILED:
                self._refused(number, make_error(error), addresses)
            case (kind, _, _, about, *_) if kind == HELLO:
                self.about = about
                if not self._greeting.done():
                    self._greeting.set_result(None)
            case (kind, nodes, groups, *_) if kind == CLUSTER:
                self.nodes, self.groups = nodes, groups
                self._on_news(self)
            case (kind, reason, _, *_) if kind == CLOSING:
                self.leaving = reason or "the node is closing"
                self._on_news(self)
            case _:
                pass  # a kind that a later version of the server pushes

    def _refused(self, number: int, error: ClientError, addresses: Sequence[str]) -> None:
        if not number:
            self.reason = error.message
            if not self._greeting.done():
                self._greeting.set_exception(error)
            return
        future, count = self._waiting.pop(number)
        self.in_flight -= count
        if error.name == "elsewhere":
            error.addresses = tuple(addresses)
        if not future.done():
            future.set_exception(error)

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        if not self._greeting.done():
            self._greeting.set_exception(DefiniteError("unreachable", f"{self.address}: {self.reason}", 100))
        waiting, self._waiting, self.in_flight = self._waiting, {}, 0
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(UnknownOutcomeError("lost", f"{self.address}: {self.reason}"))
        self._on_end(self)
