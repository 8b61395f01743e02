"""Bodies that are not complete when their request is: read within a bound of bytes and of time."""

from __future__ import annotations

import asyncio

from aiohttp import ClientPayloadError, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from replicad.core.model.errors import RequestError
from replicad.http.parameters import refuse, shown


async def read_body(request: web.BaseRequest, bytes_max: int, seconds: float) -> bytes:
    """Return the whole body. Raises RequestError: ``too_large``, ``timeout``, or ``bad_request`` if it is broken.

    The announced length is judged before anything is read; a chunked body is read up to its limit only.
    """
    length = request.content_length
    if length is not None and length > bytes_max:
        raise too_large(bytes_max)
    invite(request)
    parts: list[bytes] = []
    total = 0
    content = request.content
    try:
        async with asyncio.timeout(seconds):
            while part := await content.readany():
                total += len(part)
                if total > bytes_max:
                    raise too_large(bytes_max)
                parts.append(part)
    except TimeoutError:
        raise RequestError("timeout", f"the body did not arrive within {seconds:g} s; nothing was written") from None
    except (ClientPayloadError, HttpProcessingError, web.RequestPayloadError):
        raise refuse("the body is cut short or badly framed; nothing was written") from None
    return b"".join(parts)


def invite(request: web.BaseRequest) -> None:
    """Send ``100 Continue`` to a client that waits for it before it sends its body."""
    expectation = request.headers.get(hdrs.EXPECT)
    if expectation is None:
        return
    if expectation.lower() != "100-continue":
        raise refuse(f"the header Expect is {shown(expectation)}: only 100-continue is known")
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def too_large(bytes_max: int) -> RequestError:
    """Return the error of a value that is too large."""
    return RequestError("too_large", f"the value is larger than {bytes_max} bytes, the limit")
