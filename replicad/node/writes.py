"""Writes of a node's clients: each is encoded once, joins the batch of its turn, and waits for its result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.core.model.errors import RequestError
from replicad.core.model.operations import (
    ACK_ALL,
    EXPIRED,
    MISMATCH,
    REQUEST_ID_BYTES,
    Result,
    encode_operation,
    make_request_id,
)
from replicad.node.clock import now_us

if TYPE_CHECKING:
    from replicad.node.group_runtime import GroupRuntime

SAMPLE_LOST_US = 60_000_000
"""An operation that is timed and never applied is given up after this."""

Content = tuple[int, bytes, bytes, int, int]
"""``(code, key, value, flags, cas)``: what an idempotency key was used for."""

DURABLE = Result(1, 0)


class Writes:
    """Writers of one group that wait for their result."""

    def __init__(self, group: GroupRuntime) -> None:
        self.group = group
        self._boot = group.replica.state.boot
        self._number = 0
        self._own: dict[bytes, asyncio.Future[Result]] = {}
        self._shared: dict[bytes, list[tuple[asyncio.Future[Result], Content]]] = {}
        """By idempotency key: several requests, here and through other nodes, may carry the same one."""
        self._batch: list[tuple[bytes, bytes, int]] = []
        self._limit = group.node.settings.process.requests_max
        self._sample = b""
        self._sampled_at = 0
        self._seconds = group.node.metrics.replication_seconds.labels(group.name)
        self._batch_operations = group.node.metrics.batch_operations.labels(group.name)

    def submit(self, content: Content, ack: int, idempotency: bytes | None) -> asyncio.Future[Result]:
        """Take one operation; raises RequestError when it is refused at once."""
        self._check_writable()
        group = self.group
        future: asyncio.Future[Result] = group.loop.create_future()
        if idempotency is None:
            self._number += 1
            request_id = make_request_id(self._boot, self._number)
            self._own[request_id] = future
        else:
            request_id = idempotency
            self._shared.setdefault(request_id, []).append((future, content))
        if not self._batch:
            group.loop.call_soon(self._submit_batch)
        operation = encode_operation((request_id, group.replica.state.log.committed, *content))
        # With an idempotency key only the request table knows what the key was used for, so its answer is awaited.
        self._batch.append((request_id, operation, ack if idempotency is None else ACK_ALL))
        group.deadlines.add(now_us(), future.done, lambda: self._expire(request_id, future))
        return future

    def _check_writable(self) -> None:
        group = self.group
        if group.closing:
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
        if len(self._own) + len(self._shared) >= self._limit:
            raise RequestError("overloaded", "too many writes are waiting at this node; nothing was done")
        if group.forsaken():
            raise RequestError("no_coordinator")

    def _submit_batch(self) -> None:
        batch, self._batch = self._batch, []
        self._batch_operations.observe(len(batch))
        now = now_us()
        if not self._sample or now - self._sampled_at > SAMPLE_LOST_US:
            self._sample, self._sampled_at = batch[0][0], now  # timing one operation at a time costs next to nothing
        self.group.perform(self.group.replica.submit(batch, now))

    def on_results(self, results: list[tuple[bytes, Result]]) -> None:
        """Operations were applied here (C4). EXPIRED may be another contact's older copy: the replica decides."""
        own = self._own
        for request_id, result in results:
            if result[0] == EXPIRED:
                continue
            if request_id == self._sample:
                self._sample = b""
                self._seconds.observe((now_us() - self._sampled_at) / 1e6)
            if len(request_id) == REQUEST_ID_BYTES:
                future = own.pop(request_id, None)
                if future is not None and not future.done():
                    future.set_result(result)
            elif request_id in self._shared:
                self._settle_shared(request_id)

    def _settle_shared(self, request_id: bytes) -> None:
        """Tell everyone who used this idempotency key what *their* content was worth."""
        machine = self.group.executor.machine
        for future, content in self._shared.pop(request_id):
            result = machine.recall(request_id, *content)
            if future.done():
                continue
            if result is None:
                future.set_exception(RequestError("unknown_outcome"))
            elif result.status == MISMATCH:
                future.set_exception(RequestError("key_reused"))
            else:
                future.set_result(result)

    def on_durable(self, request_ids: list[bytes]) -> None:
        """Operations reached the level that they asked for (majority, one); they have no result yet."""
        for request_id in request_ids:
            for future in self._take(request_id):
                future.set_result(DURABLE)

    def refuse(self, request_id: bytes, error: RequestError) -> None:
        """A request ends with an error."""
        for future in self._take(request_id):
            future.set_exception(error)

    def _take(self, request_id: bytes) -> list[asyncio.Future[Result]]:
        waiting = [future for future, _ in self._shared.pop(request_id, ())]
        own = self._own.pop(request_id, None)
        if own is not None:
            waiting.append(own)
        return [future for future in waiting if not future.done()]

    def _expire(self, request_id: bytes, future: asyncio.Future[Result]) -> None:
        sent = True
        others = [item for item in self._shared.get(request_id, ()) if item[0] is not future]
        if others:
            self._shared[request_id] = others
        else:
            self._shared.pop(request_id, None)
            self._own.pop(request_id, None)
            sent = self.group.replica.abandon(request_id)
        kind = "unknown_outcome" if sent else ("timeout" if self.group.replica.coordinator else "no_coordinator")
        future.set_exception(RequestError(kind))

    def close(self, why: str) -> None:
        """Fail what still waits: nobody will answer it."""
        for request_id in [*self._own, *self._shared]:
            sent = self.group.replica.abandon(request_id)
            self.refuse(request_id, RequestError("unknown_outcome" if sent else "not_ready", why))
