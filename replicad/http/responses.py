"""Answers as bytes: a status line, headers and a body, formatted in one step and written in one call.

aiohttp's own ``web.Response`` costs 11 microseconds more a request than these (header dictionary, serialisation, two
writes), which is a third of what a read costs in all.
"""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, hdrs, web

from replicad.core.model.errors import RequestError

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

JSON_TYPE = b"application/json"
TEXT_TYPE = b"text/plain; charset=utf-8"
HTML_TYPE = b"text/html; charset=utf-8"

COPIED_BODY_BYTES_MAX = 65_536
"""A body longer than this is written by itself rather than copied behind its head."""


LEVELS = (b"leader", b"consistent", b"stale")
"""Names of the consistency levels in the order of ``parameters.LEADER``, ``CONSISTENT``, ``STALE``."""

STATE_LINES = b"X-Consul-KnownLeader: %b\r\nX-Consul-LastContact: %d\r\nX-Consul-Effective-Consistency: %b\r\n"
"""Header lines of every answer to a read, errors included: ``true`` or ``false``, milliseconds, level."""

READ_LINES = b"X-Consul-Index: %d\r\n" + STATE_LINES + b"%b"
"""Header lines of every read that was served: index (never 0), those of the state, the bookmark's."""

SESSION_LINE = b"X-Replicad-Read: session\r\n"
"""Says that a stale read waited for what its session had seen."""

OUTCOME_DEFINITE = b"X-Replicad-Outcome: definite\r\n"
OUTCOME_INDEFINITE = b"X-Replicad-Outcome: indefinite\r\n"


class Prepared(web.StreamResponse):
    """A complete answer, ``head`` and ``content``: aiohttp is handed bytes and formats nothing.

    None of the base class's state is built: that is what makes it cheap. Of its interface aiohttp uses ``prepare``,
    ``write_eof`` and ``keep_alive``, all given here. ``outcome`` is for the metrics.
    """

    def __init__(self, status: int, head: bytes, body: bytes = b"", outcome: str = "ok") -> None:
        self.code = status
        self.head = head
        self.content = body
        self.outcome = outcome
        self.keep = True
        self.stream: AbstractStreamWriter | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.code

    @property
    def keep_alive(self) -> bool:
        """Whether the connection goes on after this answer."""
        return self.keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write everything to the transport."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        if not request.keep_alive or request.version < HttpVersion11 or not self.keep:
            self.announce(keep=request.keep_alive and self.keep)
        if len(self.content) <= COPIED_BODY_BYTES_MAX:
            transport.write(self.head + self.content)
        else:
            transport.write(self.head)
            transport.write(self.content)
        self.stream = request.writer
        return self.stream

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - aiohttp's signature
        """Wait until the transport takes more, so that a client that does not read cannot fill the memory."""
        if self.stream is not None:
            await self.stream.drain()

    def announce(self, *, keep: bool) -> None:
        """Add the Connection header, which HTTP/1.1 needs only when the connection ends."""
        self.keep = keep
        line = b"\r\nConnection: keep-alive\r\n" if keep else b"\r\nConnection: close\r\n"
        self.head = self.head.replace(b"\r\n", line, 1)


class Common:
    """The header lines that every answer carries: ``Date``, renewed each second, and the node's name."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.lines = b""
        self.renew()

    def renew(self) -> None:
        """Take the time of day into the Date header."""
        self.lines = f"Date: {formatdate(usegmt=True)}\r\nX-Replicad-Node: {self.node}\r\n".encode()

    def answer(
        self, status: int, content_type: bytes, body: bytes, *, head: bool = False, extra: bytes = b""
    ) -> Prepared:
        """Return an answer off the hot path; ``extra`` are header lines, each with its line end."""
        start = b"HTTP/1.1 %d %b\r\n%b%bContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (
            status,
            HTTPStatus(status).phrase.encode(),
            self.lines,
            extra,
            content_type,
            len(body),
        )
        return Prepared(status, start, b"" if head else body)

    def json(
        self, value: object, *, pretty: bool = False, head: bool = False, status: int = 200, extra: bytes = b""
    ) -> Prepared:
        """Return ``value`` as JSON."""
        text = json.dumps(value, indent=4) + "\n" if pretty else json.dumps(value, separators=(",", ":"))
        return self.answer(status, JSON_TYPE, text.encode(), head=head, extra=extra)

    def error(self, request: web.BaseRequest, error: RequestError, *, extra: bytes = b"") -> Prepared:
        """Return the answer to a refused or failed request: plain text, or JSON where the client asks for it."""
        answer = self.failed(
            error,
            wants_json="application/json" in request.headers.get(hdrs.ACCEPT, ""),
            extra=extra,
            key=request.headers.get("Idempotency-Key"),
            head=request.method == "HEAD",
        )
        # The rest of a body that nobody will read is not worth waiting for.
        answer.keep = request.content.is_eof()
        return answer

    def failed(
        self, error: RequestError, *, wants_json: bool, extra: bytes = b"", key: str | None = None, head: bool = False
    ) -> Prepared:
        """Return the answer that tells ``error``; ``key`` is the request's idempotency key."""
        kind = error.kind
        message = error.message
        if message.partition(" ")[0].isalpha():  # names of nodes, fields and pages stay as they are
            message = message[:1].upper() + message[1:]
        if not message.endswith((".", "?")):
            message += "."
        extra += OUTCOME_DEFINITE if kind.definite else OUTCOME_INDEFINITE
        extra += b"X-Replicad-Error: %b\r\n" % kind.name.encode()
        if kind.retry_after_ms:
            extra += b"Retry-After: %d\r\n" % -(-kind.retry_after_ms // 1000)
        if wants_json:
            body: dict[str, object] = {
                "error": message,
                "kind": kind.name,
                "definite": kind.definite,
                "retry_after_ms": kind.retry_after_ms,
            }
            if key is not None:
                body["idempotency_key"] = key
            answer = self.json(body, head=head, status=kind.status, extra=extra)
        else:
            answer = self.answer(kind.status, TEXT_TYPE, message.encode(), head=head, extra=extra)
        answer.outcome = kind.name
        return answer


def json_string(text: str) -> bytes:
    """Return ``text`` as a JSON string."""
    return encode_basestring_ascii(text).encode()
