"""Long listings: a JSON array sent in bounded slices.

A slice ends after 2 ms or 64 KiB; then the loop turns, and a client that does not read stops the listing (its read
transaction keeps LMDB from reusing space, so it must not be held at a client's mercy: a stall or a total time that is
too long ends the connection, without the array's end and the last chunk, so that no client takes it for complete).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

from aiohttp import web

from replicad.http.facade import Listing
from replicad.http.responses import JSON_TYPE, Common, Prepared, json_string

ABOVE_UTF8 = b"\xff"
"""Greater than any byte of UTF-8: ``folded + ABOVE_UTF8`` is greater than every key that starts with ``folded``."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one listing may take."""

    slice_seconds: float = 0.002
    slice_bytes: int = 65_536
    stall_seconds: float = 10.0
    """A client that takes no slice for so long is cut off."""
    total_seconds: float = 120.0


class Streamed(web.StreamResponse):
    """A listing that was sent while it was read."""

    outcome = "ok"


def key_names(source: Listing, prefix: bytes, separator: bytes) -> Iterator[bytes]:
    """Yield the keys under ``prefix`` as JSON strings, folded after the first ``separator`` behind the prefix.

    What is folded is skipped with one seek, not read.
    """
    if not separator:
        for key, _ in source.scan(prefix):
            yield json_string(key.decode())
        return
    after: bytes | None = None
    while True:
        for key, _ in source.scan(prefix, after):
            where = key.find(separator, len(prefix))
            if where >= 0:
                folded = key[: where + len(separator)]
                yield json_string(folded.decode())
                after = folded + ABOVE_UTF8
                break
            yield json_string(key.decode())
        else:
            return


class Slices:
    """Gathers the elements of an array into pieces, each bounded in time and bytes."""

    def __init__(self, items: Iterator[bytes], bounds: Bounds, closing: bytes = b"]") -> None:
        self.items = items
        self.closing = closing
        self.bounds = bounds
        self.empty = True

    def take(self) -> tuple[bytes, bool]:
        """Return the next piece of the array, and whether it is the last. Never takes long."""
        parts: list[bytes] = []
        size = 0
        deadline = perf_counter() + self.bounds.slice_seconds
        for item in self.items:
            parts.append(b"[" if self.empty else b",")
            parts.append(item)
            self.empty = False
            size += len(item)
            if size >= self.bounds.slice_bytes or perf_counter() >= deadline:
                return b"".join(parts), False
        parts.append(b"" if self.empty else self.closing)
        return b"".join(parts), True


def indented(items: Iterator[bytes]) -> Iterator[bytes]:
    """Lay out the elements of an array for people, as ``?pretty`` asks."""
    for item in items:
        yield json.dumps([json.loads(item)], indent=4)[1:-2].encode()


async def send_array(
    request: web.BaseRequest,
    common: Common,
    lines: bytes,
    items: Iterator[bytes],
    bounds: Bounds,
    *,
    head: bool,
    pretty: bool,
) -> Prepared | Streamed | None:
    """Send ``items`` as a JSON array with the header ``lines``; None if there are none (and nothing was sent).

    Raises ConnectionResetError when the client went away or was cut off.
    """
    slices = Slices(indented(items), bounds, b"\n]\n") if pretty else Slices(items, bounds)
    piece, last = slices.take()
    if slices.empty:
        return None
    if last:
        return common.answer(200, JSON_TYPE, piece, head=head, extra=lines)
    answer = Streamed(headers=header_fields(common.lines + lines))
    await answer.prepare(request)
    if head:
        return answer
    end = perf_counter() + bounds.total_seconds
    try:
        while True:
            async with asyncio.timeout(bounds.stall_seconds):
                await answer.write(piece)
            if last:
                return answer
            # write() waits only for a client that lags: the loop must turn also for one that does not.
            await asyncio.sleep(0)
            if perf_counter() > end:
                raise TimeoutError  # noqa: TRY301 - the same end as for a stall
            piece, last = slices.take()
    except TimeoutError:
        cut_off(request)
        raise ConnectionResetError("the client read too slowly") from None
    except Exception:
        cut_off(request)
        raise


def cut_off(request: web.BaseRequest) -> None:
    """End the connection in the middle of an answer."""
    if request.transport is not None:
        request.transport.abort()


def header_fields(lines: bytes) -> dict[str, str]:
    """Return prebuilt header lines as fields, for an answer that aiohttp formats."""
    fields = {"Content-Type": JSON_TYPE.decode(), "Server": "replicad"}
    for line in lines.decode().split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        fields[name] = value
    return fields
