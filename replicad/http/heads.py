"""Heads of requests, remembered: a client sends the same header lines again and again, and they need be read once.

What they mean is asked of aiohttp's own parser, so that both ways of serving a request agree about every byte.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from multidict import istr

from replicad.http.bookmarks import HEADER as BOOKMARK

BLOCKS_MAX = 2_048
"""Blocks of header lines that are remembered; then all are forgotten, and those in use come back."""
BLOCK_BYTES_MAX = 2_048

SPECIAL = (
    istr("Idempotency-Key"),
    BOOKMARK,
    istr("X-Replicad-Via"),
    hdrs.EXPECT,
    hdrs.CONTENT_ENCODING,
    hdrs.TRANSFER_ENCODING,
    hdrs.UPGRADE,
)
"""Headers that ask for more than a plain request does."""


class Head(NamedTuple):
    """What the header lines of a plain request say."""

    length: int
    """Bytes of the body."""
    wants_json: bool
    """Errors are to be JSON."""


class Heads:
    """Header blocks and what they mean; one per server."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.known: dict[bytes, Head | None] = {}

    def __call__(self, block: bytes) -> Head | None:
        """Return what a block of header lines (without its last line end) says; None: this is no plain request."""
        try:
            return self.known[block]
        except KeyError:
            pass
        if len(block) > BLOCK_BYTES_MAX:
            return None
        if len(self.known) >= BLOCKS_MAX:
            self.known.clear()
        head = self.known[block] = self.read(block)
        return head

    def read(self, block: bytes) -> Head | None:
        """Have aiohttp parse a block as the head of a PUT."""
        parser = HttpRequestParser(BaseProtocol(self.loop), self.loop, 65_536, auto_decompress=False)
        lines = block + b"\r\n\r\n" if block else b"\r\n"
        try:
            messages, upgraded, tail = parser.feed_data(b"PUT / HTTP/1.1\r\n" + lines)
        except HttpProcessingError:
            return None
        if len(messages) != 1 or upgraded or tail:
            return None
        message = messages[0][0]
        headers = message.headers
        if message.should_close or message.upgrade or message.chunked or any(name in headers for name in SPECIAL):
            return None
        length = headers.get(hdrs.CONTENT_LENGTH, "0")
        if not (length.isascii() and length.isdigit()):
            return None
        return Head(int(length), "application/json" in headers.get(hdrs.ACCEPT, ""))
