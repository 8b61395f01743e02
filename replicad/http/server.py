"""The HTTP server of one node: connections, dispatch, the bound on requests in flight, counting, start and stop.

It stands on aiohttp's low-level ``web.Server``: no router, no middleware, no access log.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from replicad.core.model.errors import RequestError
from replicad.http import kv
from replicad.http.admin import Admin
from replicad.http.facade import NodeRuntime
from replicad.http.forwarding import ElsewhereError, Forwarder, Relayed
from replicad.http.heads import Heads
from replicad.http.listing import Bounds, Streamed
from replicad.http.parameters import origin_form, refuse
from replicad.http.plain import PlainConnection
from replicad.http.responses import Common, Prepared

KV = "/v1/kv/"
COUNTED_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST"})
END_POLL_SECONDS = 0.02
SWEEP_SECONDS = 5
"""Connections that are silent for too long are looked for so often."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of one HTTP server."""

    in_flight: int = 2_048
    """Requests for keys that are being served; the next one gets 429."""
    connections: int = 4_096
    """Open connections; the next one gets 503 and is closed."""
    body_seconds: float = 30.0
    """How long a body may take to arrive."""
    idle_seconds: float = 120.0
    """How long a connection may be silent between requests, or take to send a head."""
    listing: Bounds = field(default_factory=Bounds)
    forwarded: int = 512
    """Requests that are passed on to members of other groups; the next one gets 429."""
    forward_seconds: float = 8.0
    """How long such a request may take in all: longer than a member's own deadline."""


class Connection(web.RequestHandler):
    """One client's connection: counted, and answering what is no HTTP in one sentence instead of a stack trace."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over from :class:`~replicad.http.plain.PlainConnection`."""
        cast("FrontDoor", self._manager).open_count += 1
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        if self._manager is not None:
            cast("FrontDoor", self._manager).open_count -= 1
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 - aiohttp's signature
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that could not be parsed (handlers keep their own errors)."""
        server = cast("FrontDoor", self._manager)
        if request.writer.output_size > 0 or self._manager is None:
            raise ConnectionResetError("an answer broke off in the middle")
        reason = (message or "").strip().partition("\n")[0].rstrip(":. ")
        if isinstance(exc, LineTooLong):
            reason = f"its first line or one of its headers is longer than {self.max_field_size} bytes"
        answer = server.common.error(
            request, refuse(f"this is not a valid HTTP request: {reason or 'it is malformed'}")
        )
        answer.keep = False
        server.unparsed.inc()
        return answer


class FrontDoor(web.Server):
    """Takes connections: each begins with plain requests, and becomes aiohttp's when it asks for more."""

    def __init__(self, http: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        limits = http.limits
        super().__init__(
            http.handle,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.idle_seconds,
            lingering_time=2.0,
            logger=logging.getLogger("replicad.http"),
        )
        self.http = http
        self.common = http.common
        self.kv = http.kv
        self.runtime = http.runtime
        self.refused = http.runtime.metrics.http_connections_refused
        self.unparsed = http.outcomes["other", "other", "bad_request"]
        self.open_count = 0
        self.connections_max = limits.connections
        self.in_flight_max = limits.in_flight
        self.body_bytes_max = http.runtime.limits.value_bytes_max
        self.heads = Heads(loop)
        self.counted: dict[tuple[str, str], int] = {}
        """Plain requests by method and outcome, not yet in the counters, each of which would take a lock."""
        self.plain: dict[PlainConnection, bool] = {}
        """Connections that have asked for nothing special so far."""
        self.reads: set[asyncio.Task[None]] = set()
        """Plain reads that wait for their state."""

    def __call__(self) -> PlainConnection:  # type: ignore[override] # a protocol all the same
        """Return the protocol of a new connection."""
        return PlainConnection(self)

    def full_connection(self) -> Connection:
        """Return the protocol that goes on with a connection that is not plain."""
        return Connection(self, loop=self._loop, **self._kwargs)

    @property
    def in_flight(self) -> int:
        """Requests for keys that are being served."""
        return self.http.in_flight

    @in_flight.setter
    def in_flight(self, number: int) -> None:
        self.http.in_flight = number

    def count(self, method: str, outcome: str, seconds: float) -> None:
        """Count a plain request that was answered."""
        self.counted[method, outcome] = self.counted.get((method, outcome), 0) + 1
        self.http.seconds["kv", method].observe(seconds)

    def fold(self) -> None:
        """Give the counters what was counted since they were last asked for."""
        counted, self.counted = self.counted, {}
        for (method, outcome), number in counted.items():
            self.http.outcomes["kv", method, outcome].inc(number)

    def report(self, what: str, error: Exception) -> None:
        """Report a bug to the loop's exception handler (the runtime's)."""
        self._loop.call_exception_handler({"message": what, "exception": error, "request": True})

    def spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run a read that waits."""
        task = self._loop.create_task(coroutine)
        self.reads.add(task)
        task.add_done_callback(self.reads.discard)

    def sweep(self, idle_seconds: float, body_seconds: float) -> None:
        """Close plain connections that are silent, and let aiohttp deal with bodies that do not arrive."""
        now = perf_counter()
        for connection in list(self.plain):
            silent = now - connection.active_at
            if connection.busy:
                continue
            if connection.needed and now - connection.needed_since > body_seconds and not connection.stuffed:
                connection.hand_over(bytes(connection.kept))
            elif silent > idle_seconds:
                connection.transport.abort()

    async def end_plain(self, seconds: float) -> None:
        """Close the plain connections, those with a request in flight when it is answered or the time is over."""
        for connection in list(self.plain):
            connection.end()
        for _ in range(int(seconds / END_POLL_SECONDS)):
            if not any(connection.busy for connection in self.plain):
                break
            await asyncio.sleep(END_POLL_SECONDS)
        for connection in list(self.plain):
            connection.transport.abort()


class Children(dict[tuple[str, ...], Any]):
    """Label children of a metric, resolved when they are first needed."""

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self.metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        child = self[labels] = self.metric.labels(*labels)
        return child


def usual_spelling(target: str) -> str:
    """Return the raw path of a request in origin form, the root of the keys with its slash."""
    target = origin_form(target)
    return KV + target[6:] if target == "/v1/kv" or target.startswith("/v1/kv?") else target


class HttpServer:
    """Serves one node's runtime over HTTP.

    ``await start()`` binds (port 0 picks one: see ``port``) and raises OSError with a plain sentence when it cannot.
    ``await stop()`` stops accepting, lets requests in flight finish within a bound, and closes every connection.
    """

    def __init__(self, runtime: NodeRuntime, host: str, port: int, limits: ServerLimits | None = None) -> None:
        self.runtime = runtime
        self.host = host
        self.port = port
        self.limits = limits or ServerLimits()
        self.in_flight = 0
        self.in_flight_max = self.limits.in_flight
        self.common = Common(runtime.name)
        self.kv = kv.KeyValue(runtime, self.common, self.limits.body_seconds, self.limits.listing)
        self.admin = Admin(runtime, self.common, self.limits.body_seconds)
        self.forwarder = Forwarder(
            runtime.name,
            self.limits.forward_seconds,
            self.limits.forwarded,
            body_bytes_max=runtime.limits.value_bytes_max,
            body_seconds=self.limits.body_seconds,
        )
        self.outcomes = Children(runtime.metrics.http_requests)
        self.seconds = Children(runtime.metrics.http_seconds)
        self.server: FrontDoor | None = None
        self.listener: asyncio.Server | None = None
        self.renewal: asyncio.TimerHandle | None = None
        self.renewals = 0
        runtime.metrics.on_scrape(self.observe)

    async def start(self) -> None:
        """Bind and serve."""
        loop = asyncio.get_running_loop()
        self.server = FrontDoor(self, loop)
        try:
            self.listener = await loop.create_server(self.server, self.host, self.port, backlog=1024)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = "another process listens there" if taken else (error.strerror or str(error)).lower()
            raise OSError(f"cannot listen for HTTP on {self.host}:{self.port}: {reason}") from error
        self.port = self.listener.sockets[0].getsockname()[1]
        self.renew(loop)

    async def stop(self, grace_seconds: float = 5.0) -> None:
        """Stop accepting, finish what is in flight within ``grace_seconds``, close."""
        if self.listener is None or self.server is None:
            return
        self.listener.close()
        self.server.pre_shutdown()
        await asyncio.gather(
            self.server.end_plain(grace_seconds / 2),
            self.server.shutdown(grace_seconds / 2),  # it waits so long twice: for the request, then for its task
        )
        await self.listener.wait_closed()
        await self.forwarder.close()
        if self.renewal is not None:
            self.renewal.cancel()
        self.listener = self.server = None

    def renew(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep the Date header right, once a second instead of once a request."""
        self.common.renew()
        self.renewals += 1
        if self.server is not None and self.renewals % SWEEP_SECONDS == 0:
            self.server.sweep(self.limits.idle_seconds, self.limits.body_seconds)
        self.renewal = loop.call_later(1.0, self.renew, loop)

    def observe(self) -> None:
        """Set the gauges that this server knows."""
        self.runtime.metrics.http_in_flight.set(self.in_flight)
        if self.server is not None:
            self.server.fold()
        self.runtime.metrics.http_connections.set(self.server.open_count if self.server is not None else 0)

    async def handle(self, request: web.BaseRequest) -> Prepared | Streamed | Relayed:
        """Answer one request and count it."""
        started = perf_counter()
        method = request.method
        target = request.raw_path
        if not target.startswith(KV):
            target = usual_spelling(target)
        route = "kv" if target.startswith(KV) else "page"
        answer: Prepared | Streamed | Relayed
        self.in_flight += 1
        try:
            if route != "kv":
                answer = await self.admin.serve(request, method, target)
            elif self.in_flight <= self.in_flight_max:
                answer = await self.kv.serve(request, method, target[7:])
            else:
                answer = self.overloaded(request)
        except RequestError as error:
            answer = self.failed(request, error, target)
        except ElsewhereError as elsewhere:
            answer = await self.forwarded(request, elsewhere, route)
        except ConnectionError:
            self.outcomes[route, self.counted(method), "client_gone"].inc()
            raise
        except Exception as error:  # noqa: BLE001 - the last resort: report, answer, go on
            answer = self.broken(request, error)
        finally:
            self.in_flight -= 1
        method = self.counted(method)
        self.outcomes[route, method, answer.outcome].inc()
        self.seconds[route, method].observe(perf_counter() - started)
        return answer

    def counted(self, method: str) -> str:
        """Return the method as a label: what clients make up must not make up labels."""
        return method if method in COUNTED_METHODS else "other"

    def overloaded(self, request: web.BaseRequest) -> Prepared:
        """Refuse a request beyond the bound."""
        sentence = f"this node is serving {self.in_flight_max} requests already; nothing was done"
        return self.common.error(request, RequestError("overloaded", sentence))

    def failed(self, request: web.BaseRequest, error: RequestError, target: str) -> Prepared:
        """Return the answer to a request that was refused or failed."""
        if error.kind.status != 405:
            return self.common.error(request, error)
        allow = kv.METHODS if target.startswith(KV) else self.admin.allowed(target)
        return self.common.error(request, error, extra=b"Allow: %b\r\n" % allow.encode())

    async def forwarded(self, request: web.BaseRequest, elsewhere: ElsewhereError, route: str) -> Prepared | Relayed:
        """Have a member of the group answer, which this node is not."""
        try:
            return await self.forwarder.forward(
                request,
                elsewhere.addresses,
                retry_safe=kv.IDEMPOTENCY_KEY in request.headers or route == "page",  # changes bear repeating
                timeout_s=elsewhere.timeout_s,
            )
        except RequestError as error:
            return self.common.error(request, error)
        except ConnectionError:
            self.outcomes[route, self.counted(request.method), "client_gone"].inc()
            raise
        except Exception as error:  # noqa: BLE001 - as for any other request
            return self.broken(request, error)

    def broken(self, request: web.BaseRequest, error: Exception) -> Prepared:
        """Report a bug to the loop's exception handler (the runtime's) and return the answer."""
        about = {"message": f"{request.method} {request.raw_path[:200]} failed", "exception": error, "request": True}
        asyncio.get_running_loop().call_exception_handler(about)
        return self.common.error(request, RequestError("internal"))
