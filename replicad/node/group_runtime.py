"""One group on a real node, as its clients and pages see it: futures around the engine's group.

Everything runs on the event loop's thread. What decides is ``core/engine/group.py``.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from replicad.core.cluster.definitions import ACKS
from replicad.core.engine import status
from replicad.core.engine.writes import Done
from replicad.core.kv.entries import Entry, decode_entry
from replicad.core.model.errors import RequestError
from replicad.core.model.operations import ACK_ALL, NO_CAS, Result
from replicad.node.ports import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import structlog

    from replicad.core.cluster.definitions import GroupDefinition
    from replicad.core.engine.group import Group
    from replicad.core.model.refusals import Refusal
    from replicad.node.checkpoint import CheckpointFiles
    from replicad.node.lmdb_store import LmdbStore, StoreView
    from replicad.node.runtime import NodeRuntime


class Listing:
    """One consistent read transaction (see ``http.facade.Listing``)."""

    def __init__(self, view: StoreView) -> None:
        self._view = view

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, Entry]]:
        """Yield ``(key, entry)`` in key order."""
        for key, data in self._view.scan(prefix, after):
            yield key, decode_entry(data)


class GroupRuntime:
    """One group of this node."""

    def __init__(
        self,
        node: NodeRuntime,
        definition: GroupDefinition,
        group: Group,
        store: LmdbStore,
        files: CheckpointFiles,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self.node = node
        self._definition = definition
        self.group = group
        self.name = group.name
        self.id = group.id
        self.limits = group.limits
        self.replica = group.replica
        self.executor = group.executor
        self.writes = group.writes
        self.transfers = group.transfers
        self.store = store
        self.files = files
        self.log = log
        self.loop = asyncio.get_running_loop()
        self.default_ack = ACKS[definition.ack]
        """What a write that does not say otherwise is acknowledged for."""
        self.perform = group.perform
        self.read = group.read
        self.forsaken = group.forsaken
        self._ready = group.reads.ready
        self._now = group.engine.ports.now

    @property
    def definition(self) -> GroupDefinition:
        """What the cluster knows of the group, or else what it was opened with."""
        known = self.node.engine.catalog.definition(self.name)
        return known if known is not None and known.id == self.id else self._definition

    # --- writes -----------------------------------------------------------------------------------------------------

    def write(
        self,
        code: int,
        key: bytes,
        value: bytes = b"",
        flags: int = 0,
        cas: int = NO_CAS,
        ack: int = ACK_ALL,
        idempotency: bytes | None = None,
    ) -> asyncio.Future[Result]:
        """Submit one operation (see ``http.facade.GroupRuntime.write``)."""
        future: asyncio.Future[Result] = self.loop.create_future()
        self.writes.submit((code, key, value, flags, cas), ack, _settle, future, idempotency)
        return future

    def write_then(
        self,
        code: int,
        key: bytes,
        value: bytes,
        flags: int,
        cas: int,
        ack: int,
        done: Done,
        token: Any,
        idempotency: bytes | None = None,
    ) -> None:
        """Submit one operation (see ``http.facade.GroupRuntime.write_then``)."""
        self.writes.submit((code, key, value, flags, cas), ack, done, token, idempotency)

    # --- reads ------------------------------------------------------------------------------------------------------

    @property
    def index(self) -> int:
        """Index of the applied state."""
        return self.executor.machine.index

    def read_ready(self) -> bool:
        """Return whether a linearizable read may be served right now (L4: the clock is read here)."""
        return self._ready(self._now())

    async def read_barrier(self, *, consistent: bool) -> None:
        """Wait until a read is linearizable here; raises RequestError."""
        await self._wait(lambda ready: self.group.reads.barrier(ready, consistent=consistent))

    async def reach(self, index: int) -> None:
        """Wait until operation ``index`` is applied here; raises RequestError, ``behind`` at its deadline."""
        await self._wait(lambda ready: self.group.reads.reach(index, ready))

    async def _wait(self, begin: Callable[[Callable[[RequestError | None], None]], int]) -> None:
        future: asyncio.Future[None] = self.loop.create_future()
        reader = begin(settle(future))
        try:
            await future
        finally:
            self.group.reads.forget(reader)
            # An error that it holds would hold this frame, and that the request with its body: a cycle.
            del future

    @contextmanager
    def listing(self) -> Iterator[Listing]:
        """Open a read transaction; raises RequestError("overloaded") when too many are open."""
        with self.store.view() as view:
            yield Listing(view)

    def staleness_ms(self) -> int:
        """Return how old the local state may be (see ``Group.staleness_us``); raises RequestError."""
        age = self.group.staleness_us()
        return 2**31 - 1 if age is None else age // 1000

    def has_coordinator(self) -> bool:
        """Return whether a coordinator is in touch."""
        return bool(self.replica.coordinator)

    def coordinator_address(self) -> str:
        """Return the coordinator's HTTP address."""
        return self.node.directory.http_address(self.replica.coordinator)

    # --- background work --------------------------------------------------------------------------------------------

    async def checkpoint(self) -> dict[str, object]:
        """Take a checkpoint now; raises RequestError."""
        future: asyncio.Future[tuple[int, bytes]] = self.loop.create_future()
        self.transfers.request(settle(future), self._now())
        slot, digest = await future
        return {"slot": slot, "digest": digest.hex()}

    async def change(self, kind: str, argument: str, seconds: float) -> Refusal | None:
        """Ask the coordinator for one change; return None when it is done, or why it was refused.

        Raises RequestError: ``no_coordinator`` and ``overloaded`` (nothing was asked), ``unknown_outcome`` (no answer).
        """
        future: asyncio.Future[Refusal | None] = self.loop.create_future()
        number = self.group.changes.request(kind, argument, int(seconds * 1e6), settle(future))
        try:
            return await future
        finally:
            self.group.changes.forget(number)

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine in the background, until the group is closed; if it fails, the node stops."""
        self.node.ports.spawn(self.id, coroutine)

    def close(self, why: str = "this node stopped") -> None:
        """Fail what still waits, and say why: nobody will answer it."""
        self.group.close(why)
        self.node.ports.close(self.id)

    def missing(self) -> list[str]:
        """Return, in words, what keeps this group from serving here; empty when it is ready."""
        reasons = status.missing(self.group)
        if reasons:
            refusals = self.node.transport.refusals()
            reasons += [f"group {self.name}: there is no link to {peer}: {why}" for peer, why in refusals.items()]
        return reasons

    def status(self) -> dict[str, object]:
        """Return the group's part of ``/v1/replicad/status``."""
        return {**status.status(self.group), "missing": self.missing()}


def _settle(future: asyncio.Future[Result], outcome: Result | RequestError) -> None:
    """Give a future its outcome, if anyone still waits for it: a ``Done``."""
    if future.done():
        return
    if isinstance(outcome, RequestError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
