"""The dialing end of a link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from replicad.node import handshake
from replicad.node.framing import (
    FRAME_BYTES_TARGET,
    FRAME_ITEMS_TARGET,
    HANDSHAKE_BYTES_MAX,
    PING,
    PONG,
    FrameError,
    pack_frame,
    pack_probe,
    unpack_items,
)
from replicad.node.handshake import RefusedError, Terms
from replicad.node.link import HANDSHAKE_TICKS_MAX, Identity, Link

UNANSWERED_PINGS_MAX = 3


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
            self.refused = str(content)
            self.close(f"refused by the peer: {content}", grave=True)
        elif kind == "hello" and not self._welcome:
            self._welcome = bytes(payload)
            theirs = handshake.parse_hello(content)
            if theirs.node != self.peer:
                raise RefusedError(f"node {theirs.node!r} answered where {self.peer!r} was expected")
            self._agreed = handshake.compare(self._ours, theirs, self._identity.names_disk)
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
