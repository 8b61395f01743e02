"""The accepting end of a link."""

from __future__ import annotations

from collections.abc import Callable

from replicad.core.model.limits import FRAME_BYTES_MAX
from replicad.core.model.messages import Message
from replicad.node import handshake
from replicad.node.framing import HEADER, PING, PONG, FrameError, pack_probe, unpack_items
from replicad.node.handshake import Hello, RefusedError, Terms
from replicad.node.link import HANDSHAKE_TICKS_MAX, Identity, Link

PONG_BACKLOG_MAX = 64 * 1024
"""A peer that does not read this many bytes of answers is not worth answering."""

SILENT_TICKS_MAX = 30
BUFFER_BYTES = 256 * 1024


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
        super().__init__(on_closed, buffer_bytes=BUFFER_BYTES)
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
            self.close(f"refused by the peer: {content}", grave=True)
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
        self._agreed = handshake.compare(ours, hello, self._identity.names_disk)
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
            self.close("the handshake took too long", grave=True)
        elif self._silent_ticks > SILENT_TICKS_MAX:
            self.close(f"nothing was received for {SILENT_TICKS_MAX} s")
