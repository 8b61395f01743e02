"""Writes of a node's clients: each is encoded once, joins the batch of its turn, and waits for its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from replicad.core.model.errors import RequestError
from replicad.core.model.operations import (
    ACK_ALL,
    EXPIRED,
    MISMATCH,
    Result,
    encode_operation,
    make_request_id,
)

if TYPE_CHECKING:
    from replicad.core.engine.group import Group

SAMPLE_LOST_US = 60_000_000
"""An operation that is timed and never applied is given up after this."""

Content = tuple[int, bytes, bytes, int, int]
"""``(code, key, value, flags, cas)``: what an idempotency key was used for."""

Done = Callable[[Any, "Result | RequestError"], None]
"""Called once with the writer's token and the outcome; it must not raise."""

DURABLE = Result(1, 0)

WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Of the values of all writes that wait for their result: a coordinator that lags must not fill this node's memory."""


class Writes:
    """Writers of one group that wait for their result."""

    def __init__(self, group: Group, limit: int) -> None:
        """``limit``: how many may wait."""
        self.group = group
        self._boot = group.replica.state.boot
        self._number = 0
        self._own: dict[bytes, tuple[Done, Any, int]] = {}
        """By request id: whom to tell, and the bytes of the value."""
        self._shared: dict[bytes, list[tuple[Done, Any, Content]]] = {}
        """By idempotency key: several requests, here and through other nodes, may carry the same one."""
        self._batch: list[tuple[bytes, bytes, int]] = []
        self._bytes = 0
        self._limit = limit
        self._sample = b""
        self._sampled_at = 0

    def submit(self, content: Content, ack: int, done: Done, token: Any, idempotency: bytes | None = None) -> bytes:
        """Take one operation and return its request id; ``done(token, outcome)`` tells its end.

        Raises RequestError when it is refused at once. The operations of one turn make one batch, with one deadline.
        """
        if not self._batch:
            self._check_writable()
            self.group.engine.soon(self._submit_batch)
        if len(self._own) + len(self._shared) >= self._limit:
            raise RequestError("overloaded", "too many writes are waiting at this node; nothing was done")
        size = len(content[2])
        if self._bytes and self._bytes + size > WAITING_BYTES_MAX:
            raise RequestError("overloaded", f"writes of {self._bytes} bytes wait at this node; nothing was done")
        self._bytes += size
        if idempotency is None:
            self._number += 1
            request_id = make_request_id(self._boot, self._number)
            self._own[request_id] = (done, token, size)
        else:
            request_id = idempotency
            ack = ACK_ALL  # only the request table knows what the key was used for, so its answer is awaited
            self._share(request_id, (done, token, content))
        operation = encode_operation((request_id, self.group.replica.state.log.committed, *content))
        self._batch.append((request_id, operation, ack))
        return request_id

    def _share(self, request_id: bytes, waiter: tuple[Done, Any, Content]) -> None:
        self._shared.setdefault(request_id, []).append(waiter)

        def settled() -> bool:
            return not any(other is waiter for other in self._shared.get(request_id, ()))

        def expire() -> None:
            others = [other for other in self._shared[request_id] if other is not waiter]
            if others:
                self._shared[request_id] = others
                self._bytes -= len(waiter[2][2])
            self._tell(waiter[0], waiter[1], self._expired(request_id, sent=bool(others)))

        self.group.deadlines.add(self.group.engine.ports.now(), settled, expire)

    def _tell(self, done: Done, token: Any, outcome: Result | RequestError) -> None:
        self.group.engine.ports.answer(done, token, outcome)

    def _check_writable(self) -> None:
        group = self.group
        if group.draining:
            raise RequestError("not_ready", "this node is leaving")
        role = group.replica.state.role
        if role in {"unformed", "learner"}:
            raise RequestError("not_ready", f"this node is no member of the group yet ({role}); see /readyz")
        state = group.replica.state
        if state.configuration is not None and state.log.committed < state.configuration.slot:
            # What it would send now carries so old a slot that it may only expire, after a wait.
            raise RequestError("not_ready", "this node was just added to the group and has not caught up yet")
        if state.full:
            raise RequestError("disk_full")
        if group.forsaken():
            raise RequestError("no_coordinator")

    def _submit_batch(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return  # everything that this turn brought was refused
        group = self.group
        group.observer.batch(group.name, len(batch))
        now = group.engine.ports.now()
        if not self._sample or now - self._sampled_at > SAMPLE_LOST_US:
            self._sample, self._sampled_at = batch[0][0], now  # timing one operation at a time costs next to nothing
        self._set_deadline([item[0] for item in batch], now)
        group.perform(group.replica.submit(batch, now))

    def _set_deadline(self, request_ids: list[bytes], now: int) -> None:
        own = self._own

        def expire() -> None:
            for request_id in request_ids:
                waiter = own.pop(request_id, None)
                if waiter is not None:
                    self._bytes -= waiter[2]
                    self._tell(waiter[0], waiter[1], self._expired(request_id))

        self.group.deadlines.add(now, lambda: own.keys().isdisjoint(request_ids), expire)

    def on_results(self, results: list[tuple[bytes, Result]]) -> None:
        """Operations were applied here (C4). EXPIRED may be another contact's older copy: the replica decides."""
        own = self._own
        answer = self.group.engine.ports.answer
        for request_id, result in results:
            if result[0] == EXPIRED:
                continue
            if request_id == self._sample:
                self._sample = b""
                group = self.group
                group.observer.replicated(group.name, group.engine.ports.now() - self._sampled_at)
            waiter = own.pop(request_id, None)
            if waiter is not None:
                self._bytes -= waiter[2]
                answer(waiter[0], waiter[1], result)
            elif request_id in self._shared:
                self._settle_shared(request_id)

    def _settle_shared(self, request_id: bytes) -> None:
        """Tell everyone who used this idempotency key what *their* content was worth."""
        machine = self.group.executor.machine
        for done, token, content in self._shared.pop(request_id):
            self._bytes -= len(content[2])
            result = machine.recall(request_id, *content)
            if result is None:
                self._tell(done, token, RequestError("unknown_outcome"))
            elif result.status == MISMATCH:
                self._tell(done, token, RequestError("key_reused"))
            else:
                self._tell(done, token, result)

    def on_durable(self, request_ids: list[bytes]) -> None:
        """Operations reached the level that they asked for (majority, one); they have no result yet."""
        for request_id in request_ids:
            for done, token in self._take(request_id):
                self._tell(done, token, DURABLE)

    def refuse(self, request_id: bytes, error: RequestError) -> None:
        """A request ends with an error."""
        for done, token in self._take(request_id):
            self._tell(done, token, error)

    def _take(self, request_id: bytes) -> list[tuple[Done, Any]]:
        shared = self._shared.pop(request_id, ())
        self._bytes -= sum(len(content[2]) for _, _, content in shared)
        waiting = [(done, token) for done, token, _ in shared]
        own = self._own.pop(request_id, None)
        if own is not None:
            self._bytes -= own[2]
            waiting.append(own[:2])
        return waiting

    def _expired(self, request_id: bytes, *, sent: bool = False) -> RequestError:
        """Return the error of an operation whose time is over; ``sent``: somebody else still waits for it."""
        if not sent:
            self._bytes -= sum(len(content[2]) for _, _, content in self._shared.pop(request_id, ()))
            sent = self.group.replica.abandon(request_id)
        if sent:
            return RequestError("unknown_outcome")
        return RequestError("timeout" if self.group.replica.coordinator else "no_coordinator")

    def close(self, why: str) -> None:
        """Fail what still waits: nobody will answer it."""
        self._batch.clear()  # never to be submitted: its writers are told that the outcome is unknown
        for request_id in [*self._own, *self._shared]:
            sent = self.group.replica.abandon(request_id)
            self.refuse(request_id, RequestError("unknown_outcome" if sent else "not_ready", why))
