"""Plain requests: reads and writes of single keys that ask for nothing special, answered without a task each.

A connection begins here. Whatever arrives that is not exactly of the expected form, or asks for anything rare, is
handed to aiohttp untouched, together with the rest of the connection: there is one place that knows HTTP in full. What
is served here is what :class:`~replicad.http.kv.KeyValue` serves, with the same checks and the same bytes in answer.

The order of answers is that of the requests: while a write waits for its replicas, or a read for its turn, what arrives
behind it is kept, and beyond a bound the connection is no longer read.
"""

from __future__ import annotations

import asyncio
import re
from time import perf_counter
from typing import TYPE_CHECKING, cast

from replicad.core.model.errors import RequestError
from replicad.core.model.operations import DELETE, PUT, Result
from replicad.http.forwarding import ElsewhereError, find_group
from replicad.http.heads import Head
from replicad.http.parameters import (
    GROUPS_ACK,
    LEADER,
    RECURSE,
    ReadOptions,
    WriteOptions,
    delete_options,
    put_options,
    read_options,
)
from replicad.http.responses import COPIED_BODY_BYTES_MAX

if TYPE_CHECKING:
    from replicad.http.facade import GroupRuntime
    from replicad.http.kv import Parts, Served
    from replicad.http.server import FrontDoor

REQUEST = re.compile(
    rb"(GET|PUT|DELETE) /v1/kv/([A-Za-z0-9._~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@/-]{0,499})"
    rb"(?:\?([A-Za-z0-9._~=&-]{0,200}))? HTTP/1\.1\r\n"
)
"""The request line of a plain request: a key without escapes, a simple query."""

BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
    b"X-Replicad-Outcome: definite\r\nConnection: close\r\n\r\n"
)
KEPT_BYTES_MAX = 65_536
"""A client that sends more than this behind a request that is being served is not read for the time being."""
SERVED: Served = (LEADER, 0, None)
"""A read of the usual level whose state was here."""

CODES = {b"PUT": PUT, b"DELETE": DELETE}
METHODS = {PUT: "PUT", DELETE: "DELETE"}


class PlainConnection(asyncio.Protocol):
    """One client's connection, as long as its requests are plain."""

    __slots__ = (
        "ack",
        "active_at",
        "busy",
        "ending",
        "group",
        "head",
        "kept",
        "method",
        "needed",
        "needed_since",
        "paused",
        "server",
        "started",
        "stuffed",
        "transport",
    )

    def __init__(self, server: FrontDoor) -> None:
        self.server = server
        self.transport = cast("asyncio.Transport", None)
        self.kept = bytearray()
        """Bytes that have arrived and wait: for the rest of their body, or for the answer before them."""
        self.needed = 0
        """So many kept bytes make a request,"""
        self.needed_since = 0.0
        """and since then the rest is waited for."""
        self.busy = False
        """A request is being served."""
        self.paused = False
        """The transport is not read."""
        self.stuffed = False
        """The transport's buffer is full: the client does not read its answers."""
        self.ending = False
        """Close when the present answer is written."""
        self.active_at = self.started = 0.0
        self.ack = 0
        self.method = ""
        self.head: Head | None = None
        self.group = cast("GroupRuntime", None)

    # --- the transport's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it in a word when there are too many."""
        server = self.server
        self.transport = cast("asyncio.Transport", transport)
        if server.open_count >= server.connections_max:
            server.refused.inc()
            self.transport.write(BUSY)
            self.transport.close()
            self.ending = True
            return
        server.open_count += 1
        server.plain[self] = True
        self.active_at = perf_counter()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the connection; a write that is under way goes on, and nobody hears of it."""
        self.ending = True
        if self.server.plain.pop(self, False):
            self.server.open_count -= 1

    def pause_writing(self) -> None:
        """The client does not read: serve it nothing more until it does."""
        self.stuffed = True

    def resume_writing(self) -> None:
        """It reads again."""
        self.stuffed = False
        self.go_on()

    def data_received(self, data: bytes) -> None:
        """Serve what has arrived, or keep it until it can be."""
        self.active_at = perf_counter()
        if self.busy or self.stuffed:
            self.keep(data)
            if len(self.kept) > KEPT_BYTES_MAX and not self.paused:
                self.paused = True
                self.transport.pause_reading()
        elif self.kept:
            self.keep(data)
            if len(self.kept) >= self.needed:
                self.go_on()
        else:
            self.try_serve(data)

    def try_serve(self, data: bytes) -> None:
        """Serve; a bug in the reading of a request costs the client its connection, and the node goes on."""
        try:
            self.serve(data)
        except Exception as error:  # noqa: BLE001 - as for a request that was read
            self.server.report("a request could not be read", error)
            self.transport.abort()

    def keep(self, data: bytes) -> None:
        """Keep bytes for later."""
        self.kept += data

    def waits(self) -> bool:
        """Return whether nothing may be served before something else happens."""
        return self.busy or self.stuffed or self.ending

    def go_on(self) -> None:
        """Serve what was kept, and read on."""
        if self.waits():
            return
        if self.kept and len(self.kept) >= self.needed:
            data = bytes(self.kept)
            self.kept.clear()
            self.needed = 0
            self.try_serve(data)
        if self.paused and not self.waits():
            self.paused = False
            self.transport.resume_reading()

    def hand_over(self, data: bytes) -> None:
        """Let aiohttp go on with this connection, beginning with these bytes."""
        server = self.server
        del server.plain[self]
        server.open_count -= 1
        self.ending = True
        if self.paused:
            self.transport.resume_reading()
        handler = server.full_connection()
        self.transport.set_protocol(handler)
        handler.connection_made(self.transport)
        handler.data_received(data)

    # --- requests ---------------------------------------------------------------------------------------------------

    def serve(self, data: bytes) -> None:
        """Serve the requests in ``data``, in order; keep what cannot be served yet."""
        at, size = 0, len(data)
        while at < size:
            match = REQUEST.match(data, at)
            end = data.find(b"\r\n\r\n", match.end() - 2) if match is not None else -1
            head = self.server.heads(data[match.end() : end]) if match is not None and end >= 0 else None
            if match is None or head is None or head.length > self.server.body_bytes_max:
                self.hand_over(data[at:] if at else data)
                return
            stop = end + 4 + head.length
            if stop > size:
                self.keep(data[at:] if at else data)
                self.needed = stop - at
                self.needed_since = self.active_at
                return
            method, key, query = match.groups()
            self.head = head
            try:
                if method == b"GET":
                    served = self.read(key, query, head)
                else:
                    served = self.write(CODES[method], key, query, data[end + 4 : stop], head)
            except Exception as error:  # noqa: BLE001 - the last resort: report, answer, go on
                self.server.report("a plain request failed", error)
                self.fail(RequestError("internal"))
                served = True
            if not served:
                self.hand_over(data[at:] if at else data)
                return
            at = stop
            if self.busy or self.stuffed:
                break
        if at < size:
            self.keep(data[at:])

    def write(self, code: int, key: bytes, query: bytes | None, value: bytes, head: Head) -> bool:
        """Submit a PUT or DELETE; False: it is none that can be served here, and nothing was done."""
        server = self.server
        self.started = self.active_at
        try:
            options: WriteOptions = (put_options if code == PUT else delete_options)(query.decode() if query else "")
            group = find_group(server.runtime, options.group)
            if options.dc or options.recurse or (code == DELETE and head.length):
                return False
        except (RequestError, ElsewhereError):
            return False
        if len(value) > group.limits.value_bytes_max or server.in_flight >= server.in_flight_max:
            return False
        self.ack = options.ack if options.ack != GROUPS_ACK else group.default_ack
        self.group, self.method = group, METHODS[code]
        try:
            group.write_then(code, key, value, options.flags, options.cas, self.ack, PlainConnection.on_written, self)
        except RequestError as error:
            self.fail(error)
            return True
        self.busy = True
        server.in_flight += 1
        return True

    def on_written(self, outcome: Result | RequestError) -> None:
        """Answer a write."""
        server = self.server
        self.busy = False
        server.in_flight -= 1
        if isinstance(outcome, RequestError):
            self.fail(outcome)
        else:
            try:
                self.answer(server.kv.written(self.group, outcome, self.ack, None))
            except RequestError as error:
                self.fail(error)
            except Exception as error:  # noqa: BLE001 - it must not break off the telling of others
                server.report("the answer to a write failed", error)
                self.transport.abort()
        if self.kept:
            self.go_on()

    def read(self, key: bytes, query: bytes | None, head: Head) -> bool:
        """Answer a GET, now or when the state here is what it asks for; False: it cannot be served here."""
        server = self.server
        self.started = self.active_at
        try:
            options = read_options(query.decode() if query else "")
            group = find_group(server.runtime, options.group)
        except (RequestError, ElsewhereError):
            return False
        if options.shape >= RECURSE or options.dc or head.length or server.in_flight >= server.in_flight_max:
            return False
        self.method = "GET"
        if options.consistency == LEADER and not options.min_index and group.read_ready():
            self.answer(server.kv.found(group, group.read(key), key, options, SERVED))
            return True
        self.busy = True
        server.in_flight += 1
        server.spawn(self.read_later(group, key, options))
        return True

    async def read_later(self, group: GroupRuntime, key: bytes, options: ReadOptions) -> None:
        """Wait until the state here is what a read asks for, and answer it."""
        server = self.server
        try:
            level, age = await server.kv.reach(group, options, None)
            self.answer(server.kv.found(group, group.read(key), key, options, (level, age, None)))
        except RequestError as error:
            self.fail(error, server.kv.state_lines(group, options))
        except Exception as error:  # noqa: BLE001 - as above
            server.report("a plain read failed", error)
            self.fail(RequestError("internal"))
        finally:
            self.busy = False
            server.in_flight -= 1
        self.go_on()

    # --- answers ----------------------------------------------------------------------------------------------------

    def answer(self, parts: Parts) -> None:
        """Write an answer, if there is still someone to read it, and count it."""
        _, head, body, outcome = parts
        transport = self.transport
        server = self.server
        if not transport.is_closing():
            if len(body) <= COPIED_BODY_BYTES_MAX:
                transport.write(head + body)
            else:
                transport.write(head)
                transport.write(body)
            if self.ending:
                transport.close()
        server.count(self.method, outcome, perf_counter() - self.started)

    def fail(self, error: RequestError, extra: bytes = b"") -> None:
        """Answer with an error."""
        head = self.head
        answer = self.server.common.failed(error, wants_json=head is not None and head.wants_json, extra=extra)
        self.answer((answer.code, answer.head, answer.content, answer.outcome))

    def end(self) -> None:
        """Close at once, or after the answer that is under way."""
        self.ending = True
        if not self.busy:
            self.transport.close()
