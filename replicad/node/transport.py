"""Messages to peers and from peers. Best effort: a message may be lost, never altered; order holds within one channel
of one link. Nothing here waits: a slow or absent peer loses messages, it never costs memory or time.

Each node dials each peer twice, for control and for bulk messages, and receives on the links that peers dial.
Messages of one turn of the event loop leave in one frame per link.
"""

from __future__ import annotations

import asyncio
import errno
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from replicad.core.model.limits import PEER_VERSION_MAX, PEER_VERSION_MIN
from replicad.core.model.messages import BULK, Message
from replicad.node.framing import ITEM_BYTES_MAX, pack_item
from replicad.node.handshake import BULK as BULK_CHANNEL
from replicad.node.handshake import CHANNELS, CONTROL, Hello, RefusedError, Terms
from replicad.node.link import Identity
from replicad.node.link_incoming import IncomingLink
from replicad.node.link_outgoing import OutgoingLink
from replicad.node.link_reports import LinkReports

BACKOFF_SECONDS_MIN = 0.05
BACKOFF_SECONDS_MAX = 1.0
CONNECT_SECONDS = 2.0
TICK_SECONDS = 1.0
STEADY_TICKS = 2
"""A link that lived this long was a good one: the next dial follows at once."""

STRANGERS_MAX = 64
"""Incoming connections whose handshake is not finished."""

MIB = 1 << 20
_BULK_KINDS = frozenset(BULK)


class ListenError(Exception):
    """The address for peers cannot be listened on; a sentence."""


@dataclass(slots=True)
class PeerStats:
    """Counters of one peer since the start; plain integers, cheap to read."""

    messages_sent: int = 0
    bytes_sent: int = 0
    """Of items queued; framing adds a few bytes."""
    messages_received: int = 0
    bytes_received: int = 0
    dropped_unconnected: int = 0
    dropped_full: int = 0
    links_opened: int = 0
    round_trip_us: int = 0
    last_reason: str = ""
    """Why the last link closed, or the last dial failed."""


@dataclass(slots=True)
class _Peer:
    """What we know of one peer."""

    name: str
    addresses: tuple[tuple[str, int], ...]  # tried in turn: what was said of it may be out of date
    dialed: tuple[str, int] | None = None
    links: dict[str, OutgoingLink] = field(default_factory=dict)  # established ones, by channel
    dialers: list[asyncio.Task[None]] = field(default_factory=list)
    stats: PeerStats = field(default_factory=PeerStats)
    refusal: str = ""  # why the last dial was refused, by either side
    up: bool = False
    version: int = PEER_VERSION_MIN  # agreed with the newest link
    here: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the peer has opened a link to this node: it is worth dialing at once."""


class Transport:
    """Connects one node with its peers.

    ``on_message(sender, sender_disk, group, message)`` is called on the loop for each message, in order; what it
    raises goes to the loop's exception handler. ``on_link(peer, up)`` says whether both channels *to* that peer are
    open. ``start`` and ``close`` are the only coroutines; everything else returns at once.
    """

    def __init__(
        self,
        *,
        node: str,
        cluster: str,
        disk_id: str,
        limits_checksum: str,
        listen: tuple[str, int],
        peers: Mapping[str, tuple[str, int]],
        on_message: Callable[[str, str, str, Message], None],
        on_link: Callable[[str, bool], None],
        secret: bytes = b"",
        queue_bytes: int = 4 * MIB,
        bulk_queue_bytes: int = 64 * MIB,
        versions: tuple[int, int] = (PEER_VERSION_MIN, PEER_VERSION_MAX),
        cluster_id: str = "",
        empty: Callable[[], bool] = lambda: False,
        names_disk: Callable[[str, str], bool] = lambda _node, _disk: False,
    ) -> None:
        hello = Hello(
            cluster,
            node,
            "",
            disk_id,
            limits_checksum,
            "",
            *versions,
            secured=bool(secret),
            nonce=b"",
            cluster_id=cluster_id,
        )
        self.node = node
        self.refused = 0
        """Incoming connections that were refused or broke off before they were established."""
        self._identity = Identity(hello, secret, empty, names_disk)
        self._listen = listen
        self._on_message = on_message
        self._on_link = on_link
        self._queue_bytes = {CONTROL: queue_bytes, BULK_CHANNEL: bulk_queue_bytes}
        self._peers = {name: _Peer(name, ((address[0], address[1]),)) for name, address in peers.items()}
        self._incoming: dict[IncomingLink, None] = {}
        self._outgoing: dict[OutgoingLink, None] = {}
        self._dirty: dict[OutgoingLink, None] = {}
        self._random = random.Random()
        self._reports = LinkReports(node)
        self._loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen and begin to dial; raises ListenError. Returns before any peer is connected."""
        self._loop = asyncio.get_running_loop()
        host, port = self._listen
        try:
            self._server = await self._loop.create_server(self._accept, host, port)
        except OSError as error:
            reason = (
                "another process listens there" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            )
            raise ListenError(f"cannot listen for peers on {host}:{port}: {reason}") from error
        self._running = True
        for peer in self._peers.values():
            self._dial(peer)
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    async def close(self) -> None:
        """Send what is queued if the sockets take it now, close every link, stop listening."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        self._flush()
        dialers = [task for peer in self._peers.values() for task in peer.dialers]
        for task in dialers:
            task.cancel()
        links: list[OutgoingLink | IncomingLink] = [*self._outgoing, *self._incoming]
        for link in links:
            link.close("this node is leaving", flush=True)
        await asyncio.gather(*dialers, return_exceptions=True)
        for _ in range(20):  # let the loop write the rest and call connection_lost
            if not self._outgoing and not self._incoming:
                break
            await asyncio.sleep(0.005)
        for link in links:
            link.abort()
        await asyncio.sleep(0)

    # --- who the peers are ------------------------------------------------------------------------------------------

    def set_peer(self, name: str, host: str, port: int, *others: tuple[str, int]) -> None:
        """Say where to find a peer, a new one or one that moved; ``others`` are tried in turn with that address."""
        addresses = tuple(dict.fromkeys(((host, port), *others)))
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = _Peer(name, addresses)
        elif peer.addresses == addresses:
            return
        peer.addresses = addresses
        if self._running and peer.dialed not in addresses:
            for link in list(peer.links.values()):
                link.close("the peer's address changed")
            for task in peer.dialers:
                task.cancel()
            self._dial(peer)

    def remove_peer(self, name: str) -> None:
        """Forget a peer: its links close, and it is refused from now on."""
        peer = self._peers.pop(name, None)
        if peer is None:
            return
        self._reports.forget(name)
        for task in peer.dialers:
            task.cancel()
        links: list[OutgoingLink | IncomingLink] = [link for link in self._outgoing if link.peer == name]
        links += [link for link in self._incoming if link.terms is not None and link.terms.node == name]
        for link in links:
            link.close("the node was removed")

    def peers(self) -> list[str]:
        """Return the names of all peers."""
        return list(self._peers)

    @property
    def port(self) -> int:
        """The port that is listened on (the real one, also if 0 was asked for)."""
        sockets = self._server.sockets if self._server is not None else ()
        return int(sockets[0].getsockname()[1]) if sockets else self._listen[1]

    def set_disk_id(self, disk_id: str) -> None:
        """Take a new disk id: closes every link and dials again, so that nobody takes us for the old disk."""
        self._identity = replace(self._identity, hello=replace(self._identity.hello, disk=disk_id))
        links: list[OutgoingLink | IncomingLink] = [*self._outgoing, *self._incoming]
        for link in links:
            link.close("the disk id of this node changed")

    def set_cluster_id(self, cluster_id: str) -> None:
        """Say from now on which cluster this node belongs to; see :meth:`dial_again`."""
        self._identity = replace(self._identity, hello=replace(self._identity.hello, cluster_id=cluster_id))

    def dial_again(self) -> None:
        """Close every link to open it again, so that both ends hear what the other says of itself by now."""
        links: list[OutgoingLink | IncomingLink] = [*self._outgoing, *self._incoming]
        for link in links:
            link.close("this node has learnt the cluster id", flush=True)

    def cluster_id(self, peer: str) -> str:
        """Return the id of the cluster that ``peer`` says it belongs to on the open links ("": it says none)."""
        links: list[OutgoingLink | IncomingLink] = [*self._outgoing, *self._incoming]
        said = [link.terms.cluster_id for link in links if link.terms is not None and link.terms.node == peer]
        return next(filter(None, said), "")

    # --- sending ----------------------------------------------------------------------------------------------------

    def send(self, peer: str, group: str, message: Message) -> None:
        """Queue a message for one peer; it leaves at the end of this turn of the loop, or is dropped and counted."""
        known = self._peers.get(peer)
        if known is None:
            return  # a member that the settings do not name is reported at the start
        said = message if message.since <= known.version else message.older()
        if said is not None:
            self._enqueue(known, pack_item(group, said), type(said) in _BULK_KINDS)

    def broadcast(self, peers: Iterable[str], group: str, message: Message) -> None:
        """Queue a message for several peers; it is packed once and the bytes are shared."""
        if message.since > PEER_VERSION_MIN:
            for peer in peers:
                self.send(peer, group, message)
            return
        item = pack_item(group, message)
        bulk = type(message) in _BULK_KINDS
        for peer in peers:
            known = self._peers.get(peer)
            if known is not None:
                self._enqueue(known, item, bulk)

    def _enqueue(self, peer: _Peer, item: bytes, bulk: bool) -> None:
        if len(item) > ITEM_BYTES_MAX:
            raise ValueError(f"a message of {len(item)} bytes does not fit a frame")
        link = peer.links.get(BULK_CHANNEL if bulk else CONTROL)
        stats = peer.stats
        if link is None or link.closed:
            stats.dropped_unconnected += 1
        elif link.enqueue(item):
            stats.messages_sent += 1
            stats.bytes_sent += len(item)
            if not self._dirty:
                self._loop.call_soon(self._flush)
            self._dirty[link] = None
        else:
            stats.dropped_full += 1

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for link in dirty:
            link.flush()

    # --- what is known ----------------------------------------------------------------------------------------------

    def connected(self, peer: str) -> bool:
        """Return whether both channels to ``peer`` are open."""
        known = self._peers.get(peer)
        return known is not None and known.up

    def refusals(self) -> dict[str, str]:
        """Return peer -> why it and this node do not speak with each other, in a sentence; only those that do not."""
        return {name: peer.refusal for name, peer in self._peers.items() if peer.refusal and not peer.up}

    def refused_hosts(self) -> dict[str, str]:
        """Return host -> why a node that dials from there is not spoken with, in a sentence; only those of late."""
        return self._reports.refused(self._loop.time())

    def version(self, peer: str) -> int:
        """Return the version of the peer protocol that is spoken with ``peer``, as it was agreed last."""
        known = self._peers.get(peer)
        return known.version if known is not None else PEER_VERSION_MIN

    def round_trip_us(self, peer: str) -> int:
        """Return the smoothed round trip on the control link in microseconds, 0 before the first measurement."""
        return self._peers[peer].stats.round_trip_us

    def stats(self) -> dict[str, PeerStats]:
        """Return the live counters of each peer."""
        return {name: peer.stats for name, peer in self._peers.items()}

    def queued_bytes(self, peer: str) -> int:
        """Return the bytes that wait for ``peer`` in queues and socket buffers of this process."""
        return sum(link.queued_bytes + link.backlog() for link in self._peers[peer].links.values())

    # --- outgoing links ---------------------------------------------------------------------------------------------

    def _dial(self, peer: _Peer) -> None:
        peer.dialers = [
            self._loop.create_task(self._keep_dialing(peer, channel), name=f"dial {peer.name} {channel}")
            for channel in CHANNELS
        ]

    async def _keep_dialing(self, peer: _Peer, channel: str) -> None:
        """Keep one link to one peer open, for ever."""
        backoff = BACKOFF_SECONDS_MIN
        turn = 0
        while self._running:
            ended: asyncio.Future[str] = self._loop.create_future()
            link = self._make_link(peer, channel, ended)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    host, port = peer.dialed = peer.addresses[turn % len(peer.addresses)]
                    turn += 1
                    await self._loop.create_connection(lambda link=link: link, host, port)  # type: ignore[misc]
            except (OSError, TimeoutError) as error:
                reason = f"cannot connect: {error.strerror or error}" if str(error) else "cannot connect: no answer"
                self._note_down(peer, channel, reason)
            else:
                self._outgoing[link] = None
                if link.closed:
                    self._outgoing.pop(link)
                try:
                    self._note_down(peer, channel, await ended, was_up=link.terms is not None, grave=link.grave)
                except asyncio.CancelledError:
                    link.close("dialing again", flush=True)
                    raise
                peer.refusal = link.refused
                if link.terms is not None and link.age_ticks >= STEADY_TICKS:
                    backoff = BACKOFF_SECONDS_MIN
            if await self._heard_within(peer, backoff * self._random.uniform(0.5, 1.0)):
                backoff = BACKOFF_SECONDS_MIN
            else:
                backoff = min(2 * backoff, BACKOFF_SECONDS_MAX)

    async def _heard_within(self, peer: _Peer, seconds: float) -> bool:
        """Wait; return True at once when the peer opens a link to this node meanwhile."""
        peer.here.clear()
        try:
            async with asyncio.timeout(seconds):
                await peer.here.wait()
        except TimeoutError:
            return False
        return True

    def _make_link(self, peer: _Peer, channel: str, ended: asyncio.Future[str]) -> OutgoingLink:
        def on_ready(link: OutgoingLink) -> None:
            peer.links[channel] = link
            peer.stats.links_opened += 1
            terms = link.terms
            if terms is not None:
                peer.version = terms.version
            self._reports.opened(peer.name, channel, peer.version, self._loop.time())
            link.tick(time.monotonic_ns())
            self._note_up(peer)

        def on_closed(link: OutgoingLink, reason: str) -> None:
            self._outgoing.pop(link, None)
            self._dirty.pop(link, None)
            if peer.links.get(channel) is link:
                del peer.links[channel]
                self._note_up(peer)
            if not ended.done():
                ended.set_result(reason)

        def on_pong(_: OutgoingLink, stamp: int) -> None:
            if channel == CONTROL:
                sample = max(1, (time.monotonic_ns() - stamp) // 1000)
                stats = peer.stats
                stats.round_trip_us = (7 * stats.round_trip_us + sample) // 8 if stats.round_trip_us else sample

        return OutgoingLink(
            self._identity, peer.name, channel, self._queue_bytes[channel], on_ready, on_closed, on_pong
        )

    def _note_up(self, peer: _Peer) -> None:
        up = len(peer.links) == len(CHANNELS)
        if up != peer.up:
            peer.up = up
            self._on_link(peer.name, up)

    def _note_down(self, peer: _Peer, channel: str, reason: str, *, was_up: bool = False, grave: bool = False) -> None:
        peer.stats.last_reason = reason
        address = f"{peer.dialed[0]}:{peer.dialed[1]}" if peer.dialed else ""
        self._reports.lost(peer.name, channel, reason, self._loop.time(), address=address, was_up=was_up, grave=grave)

    # --- incoming links ---------------------------------------------------------------------------------------------

    def _accept(self) -> asyncio.BaseProtocol:
        waiting = [link for link in self._incoming if link.terms is None and not link.closed]
        if len(waiting) >= STRANGERS_MAX:
            # The oldest: a member's handshake is done in a moment, and who says nothing must not keep members out.
            waiting[0].close("too many connections are waiting for their handshake", grave=True)
        link = IncomingLink(self._identity, self._admit, self._replace, self._receive, self._incoming_closed)
        self._incoming[link] = None
        return link

    def _admit(self, hello: Hello) -> None:
        """Refuse a node that nobody has told us of."""
        if hello.node not in self._peers:
            raise RefusedError(
                f"node {hello.node!r} is not known to {self.node}: it is neither in its settings nor registered "
                f"(replicad member add {hello.node} --peer HOST:PORT --http HOST:PORT)"
            )

    def _replace(self, link: IncomingLink, terms: Terms) -> None:
        """Close older links of the same peer and channel: it dials again only when it has given those up."""
        if terms.node in self._peers:
            self._peers[terms.node].here.set()
        for other in list(self._incoming):
            if (
                other is not link
                and other.terms
                and (other.terms.node, other.terms.channel)
                == (
                    terms.node,
                    terms.channel,
                )
            ):
                other.close("the peer dialed again")

    def _receive(self, terms: Terms, messages: list[tuple[str, Message]], size: int) -> None:
        peer = self._peers.get(terms.node)
        if peer is None:
            return  # it was removed, and this link is about to close
        stats = peer.stats
        stats.messages_received += len(messages)
        stats.bytes_received += size
        on_message, sender, disk = self._on_message, terms.node, terms.disk
        for group, message in messages:
            on_message(sender, disk, group, message)

    def _incoming_closed(self, link: IncomingLink, reason: str) -> None:
        self._incoming.pop(link, None)
        terms, now = link.terms, self._loop.time()
        if terms is not None:
            self._reports.left(terms.node, terms.channel, reason, now)
            return
        self.refused += 1
        self._reports.turned_away(link.address(), reason, now, grave=link.grave, refused=link.refused)

    def _tick(self) -> None:
        """Once a second: ping, and close what is dead."""
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        stamp = time.monotonic_ns()
        for outgoing in list(self._outgoing):
            outgoing.tick(stamp)
        for incoming in list(self._incoming):
            incoming.tick()
        for name, peer in self._peers.items():
            self._reports.look(name, up=peer.up, now=self._loop.time())
