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

from replicad.core.model.limits import FRAME_BYTES_MAX
from replicad.core.model.messages import Message
from replicad.node import handshake
from replicad.node.framing import (
    FRAME_BYTES_TARGET,
    FRAME_ITEMS_TARGET,
    HANDSHAKE_BYTES_MAX,
    HEADER,
    PING,
    PONG,
    FrameBuffer,
    FrameError,
    frame_bytes,
    pack_frame,
    pack_probe,
    unpack_items,
)
from replicad.node.handshake import Hello, RefusedError, Terms

PONG_BACKLOG_MAX = 64 * 1024
"""A peer that does not read this many bytes of answers is not worth answering."""

TURN_SECONDS = 0.004
"""How long one link may keep the loop with what it received."""

UNANSWERED_PINGS_MAX = 3
SILENT_TICKS_MAX = 30
HANDSHAKE_TICKS_MAX = 5


@dataclass(frozen=True, slots=True)
class Identity:
    """What this node says of itself in every handshake, and the secret that it shares with its peers."""

    hello: Hello
    secret: bytes

    def towards(self, wanted: str, channel: str) -> Hello:
        """Return a fresh hello for one link."""
        nonce = secrets.token_bytes(handshake.NONCE_BYTES)
        return replace(self.hello, wanted=wanted, channel=channel, nonce=nonce)


class Link(asyncio.BufferedProtocol):
    """What both ends have in common: bytes to frames, and one way to close, with a reason."""

    def __init__(self, on_closed: Callable[[Any, str], None], buffer_bytes: int) -> None:
        self.terms: Terms | None = None
        """Set once the handshake has succeeded."""
        self.closed = False
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
                self.close(f"received {error}")
                return
            except RefusedError as error:
                self.refuse(str(error))
                return
            # outside the try: what a replica's handler raises is a bug of ours and must not look like a bad peer
            if deliver is not None:
                try:
                    deliver()
                except BaseException:
                    self.close("the handler of a message failed here")
                    raise
                if time.monotonic() > deadline and self._transport is not None:
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
        self.write_frame(handshake.pack_refused(reason))
        self.close(reason, flush=True)

    def close(self, reason: str, *, flush: bool = False) -> None:
        """Close for ``reason``; with ``flush``, what was written before still leaves."""
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


class IncomingLink(Link):
    """The accepting end: receives messages of one peer."""

    def __init__(
        self,
        identity: Identity,
        admit: Callable[[Hello], None],
        on_ready: Callable[[IncomingLink, Terms], None],
        on_items: Callable[[Terms, list[tuple[str, Message]], int], None],
        on_closed: Callable[[IncomingLink, str], None],
    ) -> None:
        super().__init__(on_closed, buffer_bytes=256 * 1024)
        self._identity = identity
        self._admit = admit
        self._on_ready = on_ready
        self._on_items = on_items
        self._agreed: Terms | None = None
        self._proof = b""
        self._silent_ticks = 0

    def on_frame(self, payload: memoryview) -> Callable[[], None] | None:
        """Handle a hello, then a proof, then messages."""
        self._silent_ticks = 0
        if self.terms is not None:
            return self._established(self.terms, payload)
        kind, content = handshake.parse(payload)
        if self._agreed is None:
            if kind != "hello":
                raise FrameError(f"a {kind} before the hello")
            self._answer(bytes(payload), handshake.parse_hello(content))
            return None
        if kind == "refused":
            self.close(f"refused by the peer: {content}")
            return None
        if kind != "proof":
            raise FrameError(f"a {kind} instead of a proof")
        handshake.check_proof(self._proof, content)
        self.terms = self._agreed
        self._buffer.limit = FRAME_BYTES_MAX
        self.write_frame(handshake.pack_ready())
        self._on_ready(self, self.terms)
        return None

    def _answer(self, payload: bytes, hello: Hello) -> None:
        if hello.channel not in handshake.CHANNELS:
            raise RefusedError(f"there is no channel {hello.channel!r} here")
        ours = self._identity.towards(hello.node, hello.channel)
        if hello.wanted != ours.node:
            raise RefusedError(f"this is node {ours.node!r}, not {hello.wanted!r}")
        self._agreed = handshake.compare(ours, hello)
        self._admit(hello)
        welcome = ours.pack()
        secret = self._identity.secret
        self._proof = handshake.prove(secret, "dialing", payload, welcome)
        self.write_frame(welcome)
        self.write_frame(handshake.pack_proof(handshake.prove(secret, "accepting", payload, welcome)))

    def _established(self, terms: Terms, payload: memoryview) -> Callable[[], None] | None:
        messages, probes = unpack_items(payload)
        for kind, stamp in probes:
            if kind == PING:
                if self.backlog() > PONG_BACKLOG_MAX:
                    raise FrameError("pings, but the peer does not read the answers")
                self.write_frame(b"\x91" + pack_probe(PONG, stamp))
        if not messages:
            return None
        size = len(payload) + HEADER.size
        return lambda: self._on_items(terms, messages, size)

    def tick(self) -> None:
        """Close a link on which nothing comes, once a second: a living peer pings."""
        self.age_ticks += 1
        self._silent_ticks += 1
        if self.closed:
            if self._silent_ticks > HANDSHAKE_TICKS_MAX:
                self.abort()
        elif self.terms is None and self.age_ticks > HANDSHAKE_TICKS_MAX:
            self.close("the handshake took too long")
        elif self._silent_ticks > SILENT_TICKS_MAX:
            self.close(f"nothing was received for {SILENT_TICKS_MAX} s")


class OutgoingLink(Link):
    """The dialing end: sends messages to one peer, through a bounded queue."""

    def __init__(
        self,
        identity: Identity,
        peer: str,
        channel: str,
        queue_bytes_max: int,
        on_ready: Callable[[OutgoingLink], None],
        on_closed: Callable[[OutgoingLink, str], None],
        on_pong: Callable[[OutgoingLink, int], None],
    ) -> None:
        super().__init__(on_closed, buffer_bytes=2 * HANDSHAKE_BYTES_MAX)
        self.peer = peer
        self.channel = channel
        self.queued_bytes = 0
        self.sent_bytes = 0
        self._identity = identity
        self._queue: list[bytes] = []
        self._queue_bytes_max = queue_bytes_max
        self._on_ready = on_ready
        self._on_pong = on_pong
        self._ours = identity.towards(peer, channel)
        self._hello = self._ours.pack()
        self._welcome = b""
        self._agreed: Terms | None = None
        self._proved = False
        self._paused = False
        self._unanswered = 0
        self._drained_bytes = 0
        self._had_backlog = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        super().connection_made(transport)
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=2 * FRAME_BYTES_TARGET)
        self.write_frame(self._hello)

    def on_frame(self, payload: memoryview) -> Callable[[], None] | None:
        """Handle a welcome, the peer's proof, ready, then PONGs."""
        if self.terms is not None:
            return self._established(payload)
        kind, content = handshake.parse(payload)
        if kind == "refused":
            self.close(f"refused by the peer: {content}")
        elif kind == "hello" and not self._welcome:
            self._welcome = bytes(payload)
            theirs = handshake.parse_hello(content)
            if theirs.node != self.peer:
                raise RefusedError(f"node {theirs.node!r} answered where {self.peer!r} was expected")
            self._agreed = handshake.compare(self._ours, theirs)
        elif kind == "proof" and self._agreed is not None:
            secret = self._identity.secret
            handshake.check_proof(handshake.prove(secret, "accepting", self._hello, self._welcome), content)
            proof = handshake.prove(secret, "dialing", self._hello, self._welcome)
            self.write_frame(handshake.pack_proof(proof))
            self._proved = True
        elif kind == "ready" and self._agreed is not None and self._proved:
            self.terms = self._agreed
            return lambda: self._on_ready(self)
        else:
            raise FrameError(f"a {kind} at the wrong moment of the handshake")
        return None

    def _established(self, payload: memoryview) -> Callable[[], None] | None:
        messages, probes = unpack_items(payload)
        if messages:
            raise FrameError("a message on a link that carries only answers")
        self._unanswered = 0
        stamps = [stamp for kind, stamp in probes if kind == PONG]
        return (lambda: self._on_pong(self, stamps[-1])) if stamps else None

    # --- sending ----------------------------------------------------------------------------------------------------

    def enqueue(self, item: bytes) -> bool:
        """Queue one item for the next flush; False if the queue is full: the item is dropped."""
        size = len(item)
        if self.queued_bytes + size > self._queue_bytes_max:
            return False
        self._queue.append(item)
        self.queued_bytes += size
        return True

    def flush(self) -> None:
        """Write what is queued, in frames of a good size, until the socket's buffer is full."""
        queue = self._queue
        if self.terms is None or self.closed or self._paused or not queue:
            return
        self._queue = []  # before the first write: it may call pause_writing, and that resume_writing, at once
        if self.queued_bytes <= FRAME_BYTES_TARGET and len(queue) <= FRAME_ITEMS_TARGET:
            self.queued_bytes = 0
            self._write(queue)
            return
        start, count = 0, len(queue)
        while start < count and self._open():
            stop, size = start + 1, len(queue[start])
            while stop < count and stop - start < FRAME_ITEMS_TARGET and size + len(queue[stop]) <= FRAME_BYTES_TARGET:
                size += len(queue[stop])
                stop += 1
            self.queued_bytes -= size
            self._write(queue[start:stop])
            start = stop
        self._queue[:0] = queue[start:]

    def _open(self) -> bool:
        return not (self._paused or self.closed)

    def _write(self, items: list[bytes]) -> None:
        transport = cast("asyncio.Transport", self._transport)
        pieces = pack_frame(items)
        self.sent_bytes += sum(map(len, pieces))
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)

    def pause_writing(self) -> None:
        """Keep what comes in the bounded queue; called by the loop."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on; called by the loop."""
        self._paused = False
        self.flush()

    def tick(self, stamp: int) -> None:
        """Ping, once a second; close a link whose peer neither answers nor takes what we send.

        A bulk link may have minutes of data before the ping, so progress counts as an answer while there is a backlog.
        """
        self.age_ticks += 1
        if self.closed or self.terms is None:
            if self.age_ticks > 2 * HANDSHAKE_TICKS_MAX:
                self.abort()
            elif self.age_ticks > HANDSHAKE_TICKS_MAX:
                self.close("the handshake took too long")
            return
        backlog = self.backlog()
        drained = self.sent_bytes - backlog
        if self._had_backlog and drained > self._drained_bytes:
            self._unanswered = 0
        self._drained_bytes = drained
        self._had_backlog = backlog > 0 or bool(self._queue)
        if self._unanswered >= UNANSWERED_PINGS_MAX:
            self.close(f"{UNANSWERED_PINGS_MAX} pings in a row were not answered")
            return
        self._unanswered += 1
        self._queue.append(pack_probe(PING, stamp))  # 10 bytes a second at most: not counted against the queue
        self.queued_bytes += len(self._queue[-1])
        self.flush()
