"""One client's connection: frames in, answers out.

A frame of plain writes costs one unpacking, one loop over its operations, one packing; nothing is made per operation
but what the group needs. Answers leave when they are complete, in any order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from replicad.core.cluster.definitions import RESERVED
from replicad.core.model.errors import RequestError
from replicad.core.model.limits import KEY_BYTES_MAX
from replicad.core.model.operations import ACK_ALL, DELETE, NO_CAS, PUT
from replicad.native import wire
from replicad.native.frame import Frame
from replicad.native.requests import (
    LEADER,
    NO_ACK,
    PLAIN,
    STALE,
    Options,
    ack_of,
    check_get,
    check_write,
    code_of,
    is_number,
    parse_options,
    refuse,
)
from replicad.native.wire import GET, FrameError, Inbox

if TYPE_CHECKING:
    from replicad.native.server import NativeServer
    from replicad.node.group_runtime import GroupRuntime

TURN_SECONDS = 0.004
"""How long one connection may keep the loop with what it received."""

FULL_ANSWER = f"the answer is full ({wire.ANSWER_BYTES_MAX} bytes of values); ask for the rest in another frame"

Work = Callable[[Frame, list[int]], Awaitable[None]]
"""What is left to do for operations of a frame at these positions; raises RequestError."""


class Connection(asyncio.Protocol):
    """The server's end of one connection."""

    def __init__(self, server: NativeServer) -> None:
        self.server = server
        self.transport = cast("asyncio.Transport", None)
        self.inbox = Inbox(wire.HELLO_BYTES_MAX)
        self.greeted = False
        """The client has said hello."""
        self.ending = False
        """Nothing more is taken from this client."""
        self.stuffed = False
        """The transport's buffer is full: the client does not read its answers."""
        self.yielding = False
        """What arrived is served further in the next turn of the loop."""
        self.in_flight = 0
        """Operations that are not answered yet."""
        self.heard_at = self.partial_at = self.stuffed_at = self.ended_at = server.seconds
        """Seconds of the server's own count: when a frame last came, when one began to come, when the buffer filled,
        and when the end began."""
        self.readable = asyncio.Event()
        """Set while the client reads its answers."""
        self.readable.set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.news_due = False
        """The cluster has changed, and the client could not be told yet."""

    # --- the transport's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it in a sentence when there are too many."""
        self.transport = cast("asyncio.Transport", transport)
        if not self.server.admit(self):
            sentence = "this node has as many connections as it may; nothing was done"
            self.refuse(0, RequestError("overloaded", sentence), end=True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the connection; writes that are under way go on, and nobody hears of them."""
        self.ending = True
        for task in self.tasks:
            task.cancel()
        self.server.forget(self)

    def pause_writing(self) -> None:
        """The client does not read: serve it nothing more until it does."""
        self.stuffed = True
        self.stuffed_at = self.server.seconds
        self.readable.clear()
        self.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self.stuffed = False
        self.readable.set()
        if self.ending:
            return
        if self.news_due:
            self.tell_news()
        self.go_on()

    def pause_reading(self) -> None:
        """Take no more bytes for the time being."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self.ending:
            return
        if not self.inbox.partial():
            self.partial_at = self.server.seconds
        if self.inbox.add(data) and self.takes_more():
            self.serve()

    def go_on(self) -> None:
        """Serve what had to wait, and read on."""
        self.yielding = False
        if self.takes_more():
            self.serve()
        if self.takes_more() and not self.transport.is_closing():
            self.transport.resume_reading()

    def takes_more(self) -> bool:
        """Return whether nothing is in the way of serving what arrives."""
        return not (self.stuffed or self.yielding or self.ending)

    def serve(self) -> None:
        """Serve whole frames for at most a turn's share of time. A bug costs the client its connection, no more."""
        now = perf_counter()
        deadline = now + TURN_SECONDS
        try:
            for payload in self.inbox.payloads():
                self.heard_at = self.partial_at = self.server.seconds
                self.take(wire.unpack(payload), now)
                if self.ending or self.stuffed:
                    return
                now = perf_counter()
                if now > deadline:
                    self.yielding = True
                    self.pause_reading()
                    asyncio.get_running_loop().call_soon(self.go_on)
                    return
        except FrameError as error:
            self.refuse(0, wire.native_error(wire.BAD_FRAME, f"received {error}"), end=True)
        except Exception as error:  # noqa: BLE001 - the last resort: report, and go on with the others
            self.server.report("a native frame failed", error)
            self.transport.abort()

    # --- frames -----------------------------------------------------------------------------------------------------

    def take(self, fields: Any, started: float) -> None:
        """Take one frame; raises FrameError."""
        if type(fields) is not tuple or not fields:
            raise FrameError("a frame that is not an array that begins with its kind")
        if not self.greeted:
            self.greet(fields)
            return
        if fields[0] != wire.REQUEST or type(fields[0]) is not int:
            raise FrameError(f"a frame of kind {str(fields[0])[:40]!r}; after the hello a client sends requests only")
        if len(fields) != 5:
            raise FrameError("a request that is not an array of kind, number, group, options and operations")
        _, number, name, options, operations = fields
        if not is_number(number) or not number:
            raise FrameError("a request whose number is not a whole number from 1 on")
        if type(name) is not str or type(operations) is not tuple:
            raise FrameError("a request whose group is not text, or whose operations are no array")
        try:
            self.request(number, name, options, operations, started)
        except RequestError as error:
            self.refuse(number, error)

    def greet(self, fields: tuple[Any, ...]) -> None:
        """Answer ``[HELLO, "replicad", lowest version, highest version, about]``; raises FrameError."""
        if len(fields) != 5 or fields[0] != wire.HELLO or fields[1] != wire.PROTOCOL:
            raise FrameError("something else than the hello of this protocol as the first frame")
        _, _, lowest, highest, about = fields
        if not is_number(lowest) or not is_number(highest) or type(about) is not dict:
            raise FrameError("a hello whose versions are no numbers, or whose last field is no map")
        version = min(highest, wire.VERSION_MAX)
        if version < max(lowest, wire.VERSION_MIN):
            sentence = (
                f"the client speaks versions {lowest} to {highest} of the native protocol, this node "
                f"{wire.VERSION_MIN} to {wire.VERSION_MAX}; use a client of this node's release or of the one before"
            )
            self.refuse(0, wire.native_error(wire.BAD_VERSION, sentence), end=True)
            return
        cluster = about.get("cluster", "")
        if cluster not in ("", self.server.runtime.cluster):
            sentence = f"this is a node of the cluster {self.server.runtime.cluster!r}, not of {str(cluster)[:64]!r}"
            self.refuse(0, wire.native_error(wire.WRONG_CLUSTER, sentence), end=True)
            return
        self.server.spread_news()
        self.greeted = True
        self.inbox.limit = self.server.frame_bytes_max
        self.transport.write(wire.pack((wire.HELLO, wire.PROTOCOL, version, self.server.about())))
        self.tell_news()

    def request(self, number: int, name: str, options: object, operations: tuple[Any, ...], started: float) -> None:
        """Begin to serve a request; raises RequestError when all of it is refused."""
        server = self.server
        group = server.runtime.groups.get(name)
        if group is None:
            self.elsewhere(number, name)
            return
        chosen = PLAIN if options == {} else parse_options(options)
        count = len(operations)
        if self.in_flight + count > server.limits.in_flight:
            sentence = f"this connection has {self.in_flight} operations under way already; nothing was done"
            raise RequestError("overloaded", sentence)
        frame = Frame(self, number, group, chosen, operations, started)
        if not count:
            self.finish(frame)
            return
        self.in_flight += count
        if chosen.seen_index and chosen.seen_group == group.id and group.index < chosen.seen_index:
            self.later(frame, list(range(count)), self.follow)
        else:
            self.begin(frame)

    def begin(self, frame: Frame) -> None:
        """Submit the writes of a frame, and serve its reads."""
        group, options = frame.group, frame.options
        value_bytes_max = group.limits.value_bytes_max
        ack = group.default_ack if options.ack == NO_ACK else options.ack
        settle = frame.settle if ack == ACK_ALL else frame.settle_without_index
        write, writable = group.write_then, not group.name.startswith(RESERVED)
        reads: list[int] = []
        refused: list[tuple[int, RequestError]] = []
        puts = 0
        for position, operation in enumerate(frame.operations):
            try:
                code = operation[0]
                if code == GET and type(code) is int and type(operation) is tuple:
                    reads.append(position)
                    continue
                if code == PUT and len(operation) == 3 and writable:
                    _, key, value = operation
                    if (
                        type(key) is bytes
                        and type(value) is bytes
                        and 0 < len(key) <= KEY_BYTES_MAX
                        and len(value) <= value_bytes_max
                        and key[0] != 0x2F
                        and (key.isascii() or key.decode())
                    ):
                        write(PUT, key, value, 0, NO_CAS, ack, settle, position)
                        puts += 1
                        continue
                code_of(operation)
                self.write(frame, position, operation)
            except RequestError as error:
                refused.append((position, error))
            except (TypeError, LookupError, UnicodeDecodeError) as error:
                refused.append((position, self.reason(frame, operation, error)))
        if puts:
            self.server.counts.puts.inc(puts)
        for position, refusal in refused:  # now, not above: the last result sends the answer
            frame.fail([position], refusal)
        if reads:
            self.read(frame, reads)

    def write(self, frame: Frame, position: int, operation: tuple[Any, ...]) -> None:
        """Submit any PUT or DELETE; raises RequestError."""
        group = frame.group
        checked = check_write(operation, group.limits.value_bytes_max)
        if group.name.startswith(RESERVED):
            raise refuse(f"the group {group.name!r} is the cluster's own: it can be read; see /v1/replicad/groups")
        ack = ack_of(checked, frame.options, group.default_ack)
        settle = frame.settle if ack == ACK_ALL else frame.settle_without_index
        code, key, value, flags, cas, identity = checked
        group.write_then(code, key, value, flags, cas, ack, settle, position, identity)
        counts = self.server.counts
        (counts.deletes if code == DELETE else counts.puts).inc()

    def reason(self, frame: Frame, operation: Any, error: Exception) -> RequestError:
        """Return what is wrong with an operation that the short way stumbled over."""
        try:
            code_of(operation)
            check_write(operation, frame.group.limits.value_bytes_max)
        except RequestError as refusal:
            return refusal
        self.server.report("a native write failed", error)
        return RequestError("internal")

    # --- reads ------------------------------------------------------------------------------------------------------

    def read(self, frame: Frame, positions: list[int]) -> None:
        """Answer the reads of a frame from the state here, now or when that is what they ask for."""
        if frame.options.level == LEADER and frame.group.read_ready():
            self.found(frame, positions)
        else:
            self.later(frame, positions, self.read_later)

    def found(self, frame: Frame, positions: list[int]) -> None:
        """Answer reads from the applied state; all of them see the same one."""
        group, results, operations = frame.group, frame.results, frame.operations
        room = wire.ANSWER_BYTES_MAX
        lookup = group.read
        for position in positions:
            operation = operations[position]
            key = operation[1] if len(operation) == 2 else None
            if (
                room < 0
                or type(key) is not bytes
                or not (0 < len(key) <= KEY_BYTES_MAX and key[0] != 0x2F and key.isascii())
            ):
                try:
                    key = check_get(operation)
                    if room < 0:
                        raise RequestError("overloaded", FULL_ANSWER)  # noqa: TRY301 - beside the other refusals
                except RequestError as error:
                    results[position] = error.with_traceback(None)  # see Frame.fail
                    self.server.counts.failed(error)
                    continue
            entry = lookup(key)
            if entry is not None:
                value = entry.value
                results[position] = (1, value, entry.modify, entry.flags, entry.create)
                room -= len(value)
        self.server.counts.gets.inc(len(positions))
        frame.left -= len(positions)
        if not frame.left:
            self.finish(frame)

    async def read_later(self, frame: Frame, positions: list[int]) -> None:
        """Wait until the state here is what the reads ask for, and answer them; raises RequestError."""
        while True:
            await self.readable.wait()  # nothing is read for a client that does not take what it has got
            frame.age_ms = await self.reach(frame.group, frame.options)
            if not self.stuffed:
                break
        self.found(frame, positions)

    async def reach(self, group: GroupRuntime, options: Options) -> int:
        """Wait until the state here is what a read asks for; returns how old it may be, in ms. Raises RequestError."""
        level = options.level
        if level == STALE:
            age = group.staleness_ms()
            if age <= options.max_stale_ms:
                return age
            level = LEADER
        if level != LEADER or not group.read_ready():
            await group.read_barrier(consistent=level != LEADER)
        return 0

    async def follow(self, frame: Frame, _: list[int]) -> None:
        """Wait until this node has applied what the session has seen, then begin; raises RequestError."""
        await frame.group.reach(frame.options.seen_index)
        self.begin(frame)

    def later(self, frame: Frame, positions: list[int], work: Work) -> None:
        """Do the rest of a frame's work when it can be done; these operations fail if it cannot."""
        server = self.server
        if server.waiting >= server.limits.waiting:
            sentence = f"{server.waiting} requests wait at this node already; nothing was done"
            frame.fail(positions, RequestError("overloaded", sentence))
            return
        server.waiting += 1
        task = asyncio.get_running_loop().create_task(self.carry_out(frame, positions, work))
        self.tasks.add(task)
        task.add_done_callback(self.carried_out)

    async def carry_out(self, frame: Frame, positions: list[int], work: Work) -> None:
        """Do a frame's work."""
        try:
            await work(frame, positions)
        except RequestError as error:
            frame.fail(positions, error)
        except Exception as error:  # noqa: BLE001 - the last resort, as for any other request
            self.server.report("a native request failed", error)
            self.transport.abort()

    def carried_out(self, task: asyncio.Task[None]) -> None:
        """Forget a task."""
        self.tasks.discard(task)
        self.server.waiting -= 1

    # --- answers ----------------------------------------------------------------------------------------------------

    def finish(self, frame: Frame) -> None:
        """Send a complete answer, if there is still someone to read it."""
        self.in_flight -= len(frame.results)
        group = frame.group
        if not self.transport.is_closing():
            answer = (wire.ANSWER, frame.number, group.id, group.index, frame.age_ms, frame.results)
            self.transport.write(wire.pack(answer))
        self.server.counts.answered(perf_counter() - frame.started)
        if self.ending and not self.in_flight:
            self.transport.close()

    def refuse(self, number: int, error: RequestError, addresses: tuple[str, ...] = (), *, end: bool = False) -> None:
        """Refuse a whole frame; with ``end`` the connection ends with it."""
        if not self.transport.is_closing():
            self.transport.write(wire.pack((wire.FAILED, number, error, addresses)))
        self.server.counts.failed(error)
        if end:
            self.ending, self.ended_at = True, self.server.seconds
            self.transport.close()

    def elsewhere(self, number: int, name: str) -> None:
        """Refuse a request for a group that others have, or nobody; raises RequestError."""
        addresses = self.server.news.members(name)
        if addresses is None:
            self.server.runtime.group(name)  # says so
        sentence = f"this node is no member of the group {name!r}; nothing was done"
        if not addresses:
            sentence += "; where its members serve native clients is not known here"
        self.refuse(number, wire.native_error(wire.ELSEWHERE, sentence), addresses or ())

    def tell_news(self) -> None:
        """Tell the client where nodes are and who coordinates what, at once or when it reads again."""
        self.news_due = self.stuffed
        if not self.stuffed and not self.transport.is_closing():
            self.transport.write(self.server.news.frame)

    def announce_closing(self, reason: str, grace_ms: int) -> None:
        """Tell the client to begin nothing new here."""
        if self.greeted and not self.stuffed and not self.transport.is_closing():
            self.transport.write(wire.pack((wire.CLOSING, reason, grace_ms)))

    def give_up(self, what: str) -> None:
        """End a connection on which something is overdue."""
        self.refuse(0, wire.native_error(wire.BAD_FRAME, f"received {what}"), end=True)

    def end(self) -> None:
        """Take nothing more; close at once, or after the last answer that is under way."""
        self.ending, self.ended_at = True, self.server.seconds
        if not self.in_flight:
            self.transport.close()
