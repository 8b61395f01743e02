"""How a client's operations get to a node and their results back: frames, retries, deadlines, fail-over.

One connection takes all new operations; one that is being left finishes what it has begun.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from replicad.client.connection import Answer, Connection
from replicad.client.errors import ClientError, DefiniteError, UnknownOutcomeError, make_error
from replicad.client.operation import ELSEWHERE, Frame, Operation
from replicad.client.places import Places
from replicad.client.wire import LEADER, STALE

CONNECT_SECONDS = 1.0
"""How long a node may take to answer a hello."""
PAUSES = (0.02, 0.05, 0.1, 0.25, 0.5)
"""Seconds between two rounds over all addresses; the last one from then on."""
RETRY_SECONDS_MIN = 0.02

CHECK_SECONDS = 0.05
ASK_SECONDS = 0.7
"""A node that owes an answer and was silent for so long is asked for a sign of life,"""
SILENCE_SECONDS = 2.0
"""and left if it does not give one."""
IDLE_SECONDS = 30.0
"""An idle connection is used once in so long, so that the node keeps it."""

FRAME_SPARE_BYTES = 1_024
FATAL = frozenset({"bad_version", "wrong_cluster"})


class Route:
    """Carries operations of one group."""

    def __init__(self, addresses: Sequence[str], group: str, cluster: str, timeout_s: float) -> None:
        self.under_way = 0
        """Operations that have no result yet."""
        self._places = Places(addresses, group)
        self._group = group
        self._cluster = cluster
        self._timeout_s = timeout_s
        self._connection: Connection | None = None
        self._left: list[Connection] = []
        """Connections that are being left."""
        self._pending: deque[Operation] = deque()
        self._deadlines: dict[Operation, None] = {}
        """Every operation that has no result yet, in the order of its deadline."""
        self._ended = asyncio.Event()
        self._flushing = False
        self._closed = True
        self._work: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._checked_at = 0.0
        self._last = "no node was tried"
        self._seen = ("", 0)

    @property
    def address(self) -> str:
        """Where the node is that takes new operations; "" while there is none."""
        return self._connection.address if self._connection is not None else ""

    @property
    def coordinator(self) -> str:
        """The group's coordinator as that node knows it; "" otherwise."""
        groups = self._connection.groups if self._connection is not None else {}
        return groups.get(self._group, ("", ()))[0]

    async def open(self) -> None:
        """Connect; raises ClientError when no node answers in time."""
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._checked_at = self._loop.time()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connect(fatal=True)
        except TimeoutError:
            self.close()
            raise DefiniteError("unreachable", f"no node answered in time ({self._last})", 100) from None
        except BaseException:
            self.close()
            raise
        self._timer = self._loop.call_later(CHECK_SECONDS, self._check)

    def close(self) -> None:
        """Close; what is not answered fails."""
        self._closed = True
        for handle in (self._timer, self._work):
            if handle is not None:
                handle.cancel()
        for connection in (self._connection, *self._left):
            if connection is not None:
                connection.abort("the client was closed")
        self._connection = None
        self._pending.clear()
        for operation in self._deadlines:  # none leaves before its future's callback runs, in a later turn
            self._give_up(operation, "the client was closed")

    def submit(self, operation: Operation) -> None:
        """Take an operation; it leaves at the end of this turn of the loop."""
        if self._closed:
            raise DefiniteError("unreachable", "the client is closed")
        self.under_way += 1
        operation.future.add_done_callback(partial(self._settled, operation))
        self._deadlines[operation] = None
        self._pending.append(operation)
        self._flush_soon()

    async def one_ended(self) -> None:
        """Wait until an operation that is under way has ended."""
        self._ended.clear()
        await self._ended.wait()

    def _settled(self, operation: Operation, _: asyncio.Future[Any]) -> None:
        """Keep nothing of it: neither its value nor, with its future, its result."""
        self.under_way -= 1
        del self._deadlines[operation]
        operation.fields = ()
        self._ended.set()

    # --- out --------------------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what is pending, in as few frames as there can be, as far as the connection takes it."""
        self._flushing = False
        connection = self._connection
        if connection is None:
            return
        about = connection.about
        operations_max, bytes_max = about["operations"], about["frame_bytes"] - FRAME_SPARE_BYTES
        room = about["in_flight"] - connection.in_flight
        frames: dict[Frame, list[Operation]] = {}
        sizes: dict[Frame, int] = {}
        pending = self._pending
        now = self._loop.time()
        while pending and room > 0 and not connection.closed:
            operation = pending.popleft()
            if operation.future.done():
                continue
            if not operation.may_go(now):
                operation.end(DefiniteError("timeout", "no node took it again in time"))
                continue
            if operation.size > bytes_max:
                operation.end(DefiniteError("too_large", f"this node takes frames of {bytes_max} bytes at most"))
                continue
            room -= 1
            frame = operation.frame
            gathered = frames.setdefault(frame, [])
            size = sizes.get(frame, 0) + operation.size
            if len(gathered) >= operations_max or size > bytes_max:
                self._send(connection, frame, gathered)
                gathered, size = frames[frame], sizes[frame] = [], operation.size
            gathered.append(operation)
            sizes[frame] = size
        for frame, gathered in frames.items():
            self._send(connection, frame, gathered)

    def _send(self, connection: Connection, frame: Frame, operations: list[Operation]) -> None:
        level, max_stale_ms, ack = frame
        options: dict[str, Any] = {}
        if level != LEADER:
            options["level"] = level
            if level == STALE and self._seen[1]:
                options["seen"] = self._seen
        if max_stale_ms >= 0:
            options["max_stale_ms"] = max_stale_ms
        if ack >= 0:
            options["ack"] = ack
        try:
            future = connection.request([operation.fields for operation in operations], self._group, options)
        except ClientError as error:
            self._fail(connection, operations, error)
            return
        now = self._loop.time()
        for operation in operations:
            operation.sent = True
            operation.first_sent = operation.first_sent or now
        future.add_done_callback(partial(self._answered, connection, operations))

    # --- back -------------------------------------------------------------------------------------------------------

    def _answered(self, connection: Connection, operations: list[Operation], future: asyncio.Future[Answer]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if isinstance(error, ClientError):
            self._fail(connection, operations, error)
            return
        answer = future.result()
        if answer.group_id != self._seen[0] or answer.index > self._seen[1]:
            self._seen = (answer.group_id, answer.index)
        failed: dict[str, tuple[ClientError, list[Operation]]] = {}
        for operation, result in zip(operations, answer.results, strict=True):
            if type(result[0]) is str:
                failed.setdefault(result[0], (make_error(result), []))[1].append(operation)
            elif not operation.future.done():
                operation.future.set_result(result)
        for failure, some in failed.values():
            self._fail(connection, some, failure)
        if self._pending:
            self._flush_soon()

    def _fail(self, connection: Connection, operations: list[Operation], error: ClientError) -> None:
        """Try again what may be tried again, here or at another node."""
        if self._closed:
            return
        now = self._loop.time()
        again = [operation for operation in operations if not operation.fails(error, now)]
        if error.name in ELSEWHERE:
            self._places.point_to(error.addresses)
            self._leave(connection)
        if again:
            other = error.name in ELSEWHERE and self._places.any_fresh(now)
            pause = RETRY_SECONDS_MIN if other else max(RETRY_SECONDS_MIN, error.retry_after_ms / 1000)
            self._loop.call_later(pause, self._again, again)

    def _again(self, operations: list[Operation]) -> None:
        if not self._closed:
            self._pending.extend(operations)
            self._flush_soon()

    def _give_up(self, operation: Operation, reason: str) -> None:
        """The time of an operation is over."""
        if operation.future.done():
            return
        if operation.sent and operation.is_write:
            operation.end(UnknownOutcomeError("unknown_outcome", f"no answer came: {reason}"))
        else:
            operation.end(DefiniteError("timeout", f"{reason} ({self._last})"))

    # --- connections ------------------------------------------------------------------------------------------------

    def _leave(self, connection: Connection) -> None:
        """Begin nothing new on a connection; go on with another node."""
        self._places.shun(connection.address, self._loop.time())
        if connection is not self._connection:
            return
        self._connection = None
        self._left.append(connection)
        self._reconnect()

    def _reconnect(self) -> None:
        if not self._closed and (self._work is None or self._work.done()):
            self._work = self._loop.create_task(self._connect())

    async def _connect(self, *, fatal: bool = False) -> None:
        """Try all addresses until one does; ``fatal``: raise what no other try will mend."""
        tries = 0
        while self._connection is None:
            for address in self._places.order(self._loop.time()):
                try:
                    connection = await Connection.open(
                        address,
                        cluster=self._cluster,
                        timeout_s=CONNECT_SECONDS,
                        on_news=self._on_news,
                        on_end=self._on_end,
                    )
                except ClientError as error:
                    self._last = error.message
                    self._places.shun(address, self._loop.time())
                    if fatal and error.name in FATAL:
                        raise
                    continue
                if connection.closed or connection.leaving:
                    connection.abort("another node is asked")
                    continue
                self._connection = connection
                self._flush_soon()
                return
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1

    def _on_news(self, connection: Connection) -> None:
        self._places.learn(connection.nodes, connection.groups)
        if connection.leaving:
            self._leave(connection)

    def _on_end(self, connection: Connection) -> None:
        self._last = f"{connection.address}: {connection.reason}"
        if connection in self._left:
            self._left.remove(connection)
        if connection is self._connection:
            self._connection = None
            self._places.shun(connection.address, self._loop.time())
            self._reconnect()

    # --- time -------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Give up what is overdue, and leave nodes that are silent."""
        now = self._loop.time()
        held_up = now - self._checked_at > ASK_SECONDS  # this very loop: then silence says nothing of the node
        self._checked_at = now
        self._timer = self._loop.call_later(CHECK_SECONDS, self._check)
        for operation in self._deadlines:  # none leaves before its future's callback runs, in a later turn
            if operation.deadline > now:
                break
            self._give_up(operation, f"no result within {self._timeout_s:g} s")
        while self._pending and self._pending[0].future.done():
            self._pending.popleft()  # nothing flushes while there is no node
        for connection in (self._connection, *self._left):
            if connection is not None:
                self._judge(connection, now, held_up=held_up)

    def _judge(self, connection: Connection, now: float, *, held_up: bool) -> None:
        if held_up:
            connection.heard_at = now
        silent = now - connection.heard_at
        if connection.waits():
            if silent > SILENCE_SECONDS:
                connection.abort(f"nothing was heard for {SILENCE_SECONDS:g} s")
            elif silent > ASK_SECONDS:
                connection.ask()
        elif connection is not self._connection:
            connection.abort("another node is asked")
        elif silent > IDLE_SECONDS:
            connection.ask()
