"""One TCP connection between two nodes, seen from either end.

Messages flow one way, from the node that dialed; the other direction carries the handshake's answers and PONGs only.
So each node dials each peer twice (control and bulk), and the two directions between two nodes fail separately.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from replicad.node import handshake
from replicad.node.framing import (
    HANDSHAKE_BYTES_MAX,
    FrameBuffer,
    FrameError,
    frame_bytes,
)
from replicad.node.handshake import Hello, RefusedError, Terms

TURN_SECONDS = 0.004
"""How long one link may keep the loop with what it received."""

HANDSHAKE_TICKS_MAX = 5
"""Seconds that a handshake may take."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What this node says of itself in every handshake, and the secret that it shares with its peers.

    ``empty()``: whether its directory holds nothing; ``names_disk(node, disk)``: whether a configuration here does.
    """

    hello: Hello
    secret: bytes
    empty: Callable[[], bool] = lambda: False
    names_disk: Callable[[str, str], bool] = lambda _node, _disk: False

    def towards(self, wanted: str, channel: str) -> Hello:
        """Return a fresh hello for one link."""
        nonce = secrets.token_bytes(handshake.NONCE_BYTES)
        return replace(self.hello, wanted=wanted, channel=channel, nonce=nonce, empty=self.empty())


class Link(asyncio.BufferedProtocol):
    """What both ends have in common: bytes to frames, and one way to close, with a reason."""

    def __init__(self, on_closed: Callable[[Any, str], None], buffer_bytes: int) -> None:
        self.terms: Terms | None = None
        """Set once the handshake has succeeded."""
        self.closed = False
        self.refused = ""
        """Why one of the two ends will not speak with the other ("": the link ended, or will, for another reason)."""
        self.grave = False
        """Whether it ended for a reason that does not pass by itself: a refusal, or what should not have come."""
        self.age_ticks = 0
        self._on_closed = on_closed
        self._reason = ""
        self._frames: Iterator[memoryview] = iter(())
        self._transport: asyncio.Transport | None = None
        self._buffer = FrameBuffer(HANDSHAKE_BYTES_MAX, buffer_bytes)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Prepare the socket; called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:
            self._transport.abort()
            return
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def address(self) -> str:
        """Return the peer's address for log lines."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unknown"

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's interface
        """Return where the loop may write received bytes."""
        return self._buffer.writable()

    def buffer_updated(self, nbytes: int) -> None:
        """Handle each whole frame. Whatever is wrong with one closes this link and nothing else."""
        self._frames = self._buffer.received(nbytes)
        self._take_frames()

    def _take_frames(self, *, resume: bool = False) -> None:
        """Handle frames for at most a turn's share of time; then let the loop breathe before reading on."""
        deadline = time.monotonic() + TURN_SECONDS
        while not self.closed:
            try:
                payload = next(self._frames, None)
                if payload is None:
                    if resume and self._transport is not None:
                        self._transport.resume_reading()
                    return
                deliver = self.on_frame(payload)
            except FrameError as error:
                self.close(f"received {error}", grave=True)
                return
            except RefusedError as error:
                self.refuse(str(error))
                return
            # outside the try: what a replica's handler raises is a bug of ours and must not look like a bad peer
            if deliver is not None:
                try:
                    deliver()
                except BaseException:
                    self.close("the handler of a message failed here", grave=True)
                    raise
            # Also after a frame that delivers nothing: pings are answered at once, and many fit what was received.
            if time.monotonic() > deadline and self._transport is not None and not self.closed:
                if not resume:
                    self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(lambda: self._take_frames(resume=True))
                return

    def on_frame(self, payload: memoryview) -> Callable[[], None] | None:
        """Take one frame, return what is left to do with it; raises FrameError or RefusedError."""
        raise NotImplementedError

    def eof_received(self) -> bool:
        """Close: neither side ever half-closes."""
        self._reason = self._reason or "the peer closed the link"
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end exactly once; called by the loop."""
        self.closed = True
        if not self._reason:
            self._reason = f"the connection broke: {exc}" if exc else "the peer closed the link"
        self._on_closed(self, self._reason)

    def refuse(self, reason: str) -> None:
        """Tell the peer why, then close."""
        self.refused = reason
        self.write_frame(handshake.pack_refused(reason))
        self.close(reason, flush=True, grave=True)

    def close(self, reason: str, *, flush: bool = False, grave: bool = False) -> None:
        """Close for ``reason``; with ``flush``, what was written before still leaves."""
        self.grave |= grave and not self.closed
        self.closed = True
        self._reason = self._reason or reason
        if self._transport is not None:
            if flush:
                self._transport.close()
            else:
                self._transport.abort()

    def abort(self) -> None:
        """Drop a connection whose peer does not read what ``close(flush=True)`` left behind."""
        if self._transport is not None:
            self._transport.abort()

    def write_frame(self, payload: bytes) -> None:
        """Write one frame at once."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame_bytes(payload))

    def backlog(self) -> int:
        """Return the bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0
