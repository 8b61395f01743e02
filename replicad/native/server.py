"""The native server of one node: connections and their bounds, news, counting, start and stop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicad import __version__
from replicad.core.model.limits import KEY_BYTES_MAX
from replicad.native import wire
from replicad.native.connection import Connection
from replicad.native.news import News

if TYPE_CHECKING:
    from prometheus_client import Counter

    from replicad.core.model.errors import RequestError
    from replicad.node.metrics import NativeMetrics
    from replicad.node.runtime import NodeRuntime

NEWS_SECONDS = 0.05
"""How soon clients hear of a new coordinator."""


@dataclass(frozen=True, slots=True)
class NativeLimits:
    """Bounds of one native server."""

    connections: int = 1_024
    """Open connections; the next one is refused and closed."""
    in_flight: int = 4_096
    """Operations under way on one connection; a frame beyond it is refused."""
    waiting: int = 2_048
    """Frames that wait for a state to read from; the next one is refused."""
    hello_seconds: int = 5
    """How long a client may take to say hello."""
    frame_seconds: int = 30
    """How long a frame may take to arrive."""
    unread_seconds: int = 30
    """How long a client may leave its answers unread."""
    idle_seconds: int = 120
    """How long a connection may be silent between frames."""
    end_seconds: int = 5
    """How long the last bytes may take to leave."""


class Counts:
    """What the server counts, each label child resolved once."""

    def __init__(self, metrics: NativeMetrics) -> None:
        self.gets, self.puts, self.deletes = (metrics.operations.labels(name) for name in ("get", "put", "delete"))
        self.answered: Callable[[float], None] = metrics.frame_seconds.labels().observe
        """Takes the seconds from a frame's arrival to its answer."""
        self._metric = metrics.errors
        self._errors: dict[str, Counter] = {}

    def failed(self, error: RequestError) -> None:
        """Count an operation, or a whole frame, that was refused or failed."""
        name = error.kind.name
        child = self._errors.get(name)
        if child is None:
            child = self._errors[name] = self._metric.labels(name)
        child.inc()


class NativeServer:
    """Serves one node's runtime to native clients.

    ``await start()`` binds (port 0 picks one: see ``port``) and raises OSError with a plain sentence when it cannot.
    ``announce()`` tells clients to go elsewhere. ``await stop()`` lets frames in flight finish within a bound, and
    closes every connection.
    """

    def __init__(self, runtime: NodeRuntime, host: str, port: int, limits: NativeLimits | None = None) -> None:
        self.runtime = runtime
        self.host = host
        self.port = port
        self.limits = limits or NativeLimits()
        self.frame_bytes_max = wire.frame_bytes_max(runtime.limits.value_bytes_max)
        self.counts = Counts(runtime.metrics.native)
        self.news = News(runtime)
        self.seconds = 0
        """Seconds since the start, counted by a timer: precise enough for patience."""
        self.waiting = 0
        """Frames that wait for a state to read from."""
        self.connections: dict[Connection, None] = {}
        self.closing = False
        self._drained = False
        self._refused = runtime.metrics.native.connections_refused
        self._listener: asyncio.Server | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._emptied = asyncio.Event()
        runtime.metrics.on_scrape(self.observe)

    async def start(self) -> None:
        """Bind and serve."""
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(lambda: Connection(self), self.host, self.port, backlog=1024)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = "another process listens there" if taken else (error.strerror or str(error)).lower()
            raise OSError(f"cannot listen for native clients on {self.host}:{self.port}: {reason}") from error
        self.port = self._listener.sockets[0].getsockname()[1]
        self._sweep(loop)
        self._spread(loop)

    def announce(self, reason: str, grace_seconds: float) -> None:
        """Take no new connections, and tell the clients to begin nothing new here."""
        if self._listener is not None:
            self._listener.close()
        self.closing = True
        for connection in list(self.connections):
            connection.announce_closing(reason, int(grace_seconds * 1000))

    async def stop(self, grace_seconds: float = 2.5) -> None:
        """Finish what is in flight within ``grace_seconds``, close."""
        if self._listener is None:
            return
        if not self.closing:
            self.announce("this node stops", grace_seconds)
        for connection in list(self.connections):
            connection.end()
        if self.connections:
            self._emptied.clear()
            try:
                async with asyncio.timeout(grace_seconds):
                    await self._emptied.wait()
            except TimeoutError:
                for connection in list(self.connections):
                    connection.transport.abort()
        for timer in self._timers.values():
            timer.cancel()
        await self._listener.wait_closed()
        self._listener = None

    # --- for connections --------------------------------------------------------------------------------------------

    def admit(self, connection: Connection) -> bool:
        """Take a connection; returns whether there was room for it."""
        if len(self.connections) >= self.limits.connections or self.closing:
            self._refused.inc()
            return False
        self.connections[connection] = None
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.pop(connection, None)
        if not self.connections:
            self._emptied.set()

    def about(self) -> dict[str, Any]:
        """Return what the server's hello says: who this is, and its bounds."""
        return {
            "cluster": self.runtime.cluster,
            "node": self.runtime.name,
            "release": __version__,
            "frame_bytes": self.frame_bytes_max,
            "operations": wire.OPERATIONS_MAX,
            "in_flight": self.limits.in_flight,
            "key_bytes": KEY_BYTES_MAX,
            "value_bytes": self.runtime.limits.value_bytes_max,
            "idle_seconds": self.limits.idle_seconds,
        }

    def report(self, message: str, error: BaseException) -> None:
        """Report a bug to the loop's exception handler (the runtime's); the node goes on."""
        about = {"message": message, "exception": error, "request": True}
        asyncio.get_running_loop().call_exception_handler(about)

    def observe(self) -> None:
        """Set the gauges that this server knows."""
        metrics = self.runtime.metrics.native
        metrics.connections.set(len(self.connections))
        metrics.in_flight.set(sum(connection.in_flight for connection in self.connections))

    # --- timers -----------------------------------------------------------------------------------------------------

    def _spread(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timers["news"] = loop.call_later(NEWS_SECONDS, self._spread, loop)
        if self.connections:
            self.spread_news()

    def spread_news(self) -> None:
        """Tell clients what is new; if this node was drained, to go on elsewhere. Who comes all the same is served."""
        drained = self.runtime.directory.is_drained(self.runtime.name)
        if drained and not self._drained:
            for connection in list(self.connections):
                connection.announce_closing("this node is drained for maintenance", 0)
        self._drained = drained
        if self.news.look():
            for connection in list(self.connections):
                if connection.greeted:
                    connection.tell_news()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count a second, and end connections whose patience is over."""
        self._timers["sweep"] = loop.call_later(1.0, self._sweep, loop)
        self.seconds += 1
        for connection in list(self.connections):
            self._judge(connection)

    def _judge(self, connection: Connection) -> None:
        """End a connection that is silent, stuck, or does not take what it asked for."""
        limits, now = self.limits, self.seconds
        if connection.stuffed:
            if now - connection.stuffed_at > limits.unread_seconds:
                connection.transport.abort()
        elif connection.ending:
            if not connection.in_flight and now - connection.ended_at > limits.end_seconds:
                connection.transport.abort()
        elif not connection.greeted:
            if now - connection.heard_at > limits.hello_seconds:
                connection.give_up(f"no hello within {limits.hello_seconds} s")
        elif connection.inbox.partial() and not connection.yielding:
            if now - connection.partial_at > limits.frame_seconds:
                connection.give_up(f"a frame that did not arrive within {limits.frame_seconds} s")
        elif not connection.in_flight and now - connection.heard_at > limits.idle_seconds:
            connection.announce_closing(f"nothing was heard for {limits.idle_seconds} s", 0)
            connection.end()
