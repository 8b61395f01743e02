"""Forwarding: a node that is no member of a group passes its requests on to a member, so that clients need not care.

A write that may have reached a member is not sent again, unless it carries an Idempotency-Key: its outcome is unknown
then. What certainly was not done (nobody listens there, or the member refused and says so) is tried at the next member.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import NamedTuple

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
    hdrs,
    web,
)
from multidict import CIMultiDict, CIMultiDictProxy, istr
from yarl import URL

from replicad.core.model.errors import RequestError
from replicad.http.body import read_body
from replicad.http.facade import GroupRuntime, NodeRuntime
from replicad.http.listing import cut_off
from replicad.http.parameters import origin_form, refuse, shown
from replicad.http.responses import Prepared

VIA = istr("X-Replicad-Via")
HOPS_MAX = 3
"""A request is passed on so often at most; more means that nodes disagree about who is a member."""

CONNECT_SECONDS = 1.0
SHUNNED_SECONDS = 5.0
"""A member that could not be reached is asked last for so long."""
SHUNNED_MAX = 1_024
RELAYED_AT_ONCE_BYTES = 65_536
"""An answer that is no longer than this is read as a whole before it is passed on."""
IDLE_SECONDS = 60.0
"""How long a connection to a member is kept: less than the members keep theirs."""

READS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
ADDED_BY_AIOHTTP = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)
HOP_BY_HOP = frozenset(
    {
        "connection",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        VIA.lower(),
    }
)
"""Headers that mean something between two neighbours only, or that are made anew."""


class ElsewhereError(Exception):
    """The group has no member here; ``addresses`` are those of its members, ``timeout_s`` how long one may take."""

    def __init__(self, addresses: list[str], timeout_s: float = 0.0) -> None:
        super().__init__(addresses)
        self.addresses = addresses
        self.timeout_s = timeout_s


class BrokenError(Exception):
    """A member may have got the request, and its answer did not come, or not whole."""


def find_group(runtime: NodeRuntime, name: str, timeout_s: float = 0.0) -> GroupRuntime:
    """Return a group of this node; raises ElsewhereError where others have it, RequestError where nobody has.

    ``timeout_s``: how long the request may take at another node (0: as long as one for a key).
    """
    try:
        return runtime.group(name)
    except RequestError:
        addresses = runtime.elsewhere(name)
        if addresses:
            raise ElsewhereError(addresses, timeout_s) from None
        raise


class Relayed(web.StreamResponse):
    """A long answer of a member that was passed on while it came."""

    outcome = "forwarded"


class Passed(NamedTuple):
    """A request as it is passed on: to be sent as often as it takes."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes
    retry_safe: bool


async def _send_once(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Tell what never left from what may have arrived, and keep aiohttp from sending the latter a second time."""
    try:
        return await handler(request)
    except (ClientConnectorError, ConnectionTimeoutError):
        raise
    except (ClientError, OSError) as error:
        raise BrokenError(str(error) or type(error).__name__) from error


class Forwarder:
    """Passes requests of one node on to others, over connections that are kept."""

    def __init__(
        self, node: str, timeout_s: float, limit: int, *, body_bytes_max: int = 1 << 20, body_seconds: float = 30.0
    ) -> None:
        """``timeout_s``: for one request in all; ``limit``: requests at a time, the next one is refused with 429."""
        self.node = node
        self.timeout_s = timeout_s
        self.limit = limit
        self.body_bytes_max = body_bytes_max
        self.body_seconds = body_seconds
        self.in_flight = 0
        self._session: ClientSession | None = None
        self._shunned: dict[str, float] = {}

    async def forward(
        self, request: web.BaseRequest, addresses: Sequence[str], *, retry_safe: bool, timeout_s: float = 0.0
    ) -> Prepared | Relayed:
        """Have one of the members at ``addresses`` (``host:port``, the best first) answer, and pass its answer on.

        ``retry_safe``: sending it twice does no harm. ``timeout_s``: instead of the usual one. Raises RequestError, and
        ConnectionResetError when the answer broke off after its head had been passed on.
        """
        via = self._via(request)
        if self.in_flight >= self.limit:
            raise RequestError("overloaded", f"this node is passing on {self.limit} requests already; nothing was done")
        self.in_flight += 1
        try:
            target = origin_form(request.raw_path)
            if "#" in target:
                raise refuse("the path holds a bare '#': write it as %23")
            headers = _end_to_end(request.headers)
            if not all(text.isprintable() for text in headers.values()):
                raise refuse("a header holds bytes that are no printable UTF-8, and cannot be passed on to a member")
            headers[VIA] = ",".join([*via, self.node])
            body = await read_body(request, self.body_bytes_max, self.body_seconds)
            if len(body) < (request.content_length or 0):
                raise RequestError("not_ready", "the group left this node meanwhile; nothing was done")  # body was read
            passed = Passed(request.method, target, headers, body, retry_safe or request.method in READS)
            # Only the first node tries other members after a refusal: attempts must not multiply with the hops.
            return await self._forward(
                request, passed, self._order(addresses), timeout_s or self.timeout_s, first=not via
            )
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _forward(
        self, request: web.BaseRequest, passed: Passed, addresses: Sequence[str], timeout_s: float, *, first: bool
    ) -> Prepared | Relayed:
        end = monotonic() + timeout_s
        maybe_done = False
        reason = ""
        for number, address in enumerate(addresses, 1):
            left = end - monotonic()
            if left <= 0:
                break
            try:
                async with self._asked(address, passed, left) as response:
                    if _refused(response):
                        self._shun(address)
                        if first and number < len(addresses):
                            continue
                    if maybe_done and response.status >= 400:
                        break  # this member did nothing, but an earlier one may have
                    return await self._relay(request, response)
            except (ClientConnectorError, ConnectionTimeoutError) as error:
                self._shun(address)
                reason = f"{address}: {error.strerror if isinstance(error, ClientConnectorError) else 'no answer'}"
            except (BrokenError, TimeoutError) as error:
                self._shun(address)
                reason = f"{address}: {str(error) or 'no answer in time'}"
                maybe_done |= passed.method not in READS
                if not passed.retry_safe:
                    break
        if maybe_done:
            sentence = f"the write was passed on to a member of the group, and its outcome is not known ({reason})"
            raise RequestError("unknown_outcome", sentence)
        if end <= monotonic():
            raise RequestError("timeout", f"no member of the group answered in time ({reason})")
        raise RequestError("unreachable", f"no member of the group could be reached; nothing was done ({reason})")

    @asynccontextmanager
    async def _asked(self, address: str, passed: Passed, seconds: float) -> AsyncIterator[ClientResponse]:
        """Send the request to one member and give its answer, whose body may still be on its way."""
        session = self._connections()
        async with asyncio.timeout(seconds):
            response = await session.request(
                passed.method,
                URL(f"http://{address}{passed.target}", encoded=True),
                headers=passed.headers,
                data=passed.body or None,
                allow_redirects=False,
                timeout=ClientTimeout(total=None, sock_connect=min(CONNECT_SECONDS, seconds), sock_read=seconds),
            )
        async with response:
            self._shunned.pop(address, None)
            yield response

    async def _relay(self, request: web.BaseRequest, response: ClientResponse) -> Prepared | Relayed:
        """Pass an answer on. Raises BrokenError while nothing of it was passed on."""
        fields = _end_to_end(response.headers)
        fields[VIA] = ",".join([self.node, *response.headers.getall(VIA, [])])
        length = response.content_length
        head_only = request.method == hdrs.METH_HEAD
        if head_only or (length is not None and length <= RELAYED_AT_ONCE_BYTES):
            return Prepared(response.status, *await _whole(response, fields, head_only=head_only), Relayed.outcome)
        answer = Relayed(status=response.status, reason=response.reason, headers=fields)
        if length is not None:
            answer.content_length = length
        await answer.prepare(request)
        try:
            async for part in response.content.iter_any():
                async with asyncio.timeout(self.timeout_s):
                    await answer.write(part)
        except (ClientError, OSError) as error:  # TimeoutError is one
            cut_off(request)
            raise ConnectionResetError("an answer that was passed on broke off") from error
        return answer

    def _connections(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=self.limit, keepalive_timeout=IDLE_SECONDS),
                cookie_jar=DummyCookieJar(),
                skip_auto_headers=ADDED_BY_AIOHTTP,
                auto_decompress=False,
                middlewares=(_send_once,),
            )
        return self._session

    def _via(self, request: web.BaseRequest) -> list[str]:
        """Return who has passed the request on before; raises RequestError("loop")."""
        if VIA not in request.headers:
            return []
        names = [name.strip() for name in ",".join(request.headers.getall(VIA)).split(",")]
        way = shown(",".join(names))
        if self.node in names:
            sentence = f"the request came back to {self.node} by way of {way}: nodes disagree about who is a member"
            raise RequestError("loop", f"{sentence} of the group; nothing was done")
        if len(names) >= HOPS_MAX:
            sentence = f"the request was passed on {len(names)} times ({way}) and found no member of the group"
            raise RequestError("loop", f"{sentence}; nothing was done")
        return names

    def _order(self, addresses: Sequence[str]) -> list[str]:
        """Return the addresses as given, those that failed a moment ago last."""
        since = monotonic() - SHUNNED_SECONDS
        return sorted(addresses, key=lambda address: self._shunned.get(address, since) > since)

    def _shun(self, address: str) -> None:
        if len(self._shunned) >= SHUNNED_MAX:
            self._shunned.clear()
        self._shunned[address] = monotonic()


def _refused(response: ClientResponse) -> bool:
    """Return whether a member did nothing, and another one may."""
    return response.status in {503, 508} and response.headers.get("X-Replicad-Outcome") == "definite"


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers that are meant for the other end."""
    dropped = HOP_BY_HOP | {name.strip().lower() for name in headers.get(hdrs.CONNECTION, "").split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


async def _whole(response: ClientResponse, fields: CIMultiDict[str], *, head_only: bool) -> tuple[bytes, bytes]:
    """Return the head and the body of an answer; raises BrokenError."""
    try:
        body = await response.read()
    except (ClientError, OSError) as error:
        raise BrokenError(str(error) or type(error).__name__) from error
    length = response.headers.get(hdrs.CONTENT_LENGTH) if head_only else str(len(body))
    if length is not None:
        fields[hdrs.CONTENT_LENGTH] = length
    lines = [
        f"HTTP/1.1 {response.status} {response.reason or ''}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape"), body
