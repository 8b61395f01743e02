"""Linearizable reads on a real node: by lease at once, after slots on their way, or by asking the coordinator."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from replicad.core.model.errors import RequestError
from replicad.node.clock import now_us

if TYPE_CHECKING:
    from replicad.node.group_runtime import GroupRuntime


INDEX_WAITERS_MAX = 1_024


class Reads:
    """Readers of one group that wait for something."""

    def __init__(self, group: GroupRuntime) -> None:
        self.group = group
        self._probes: dict[int, asyncio.Future[int]] = {}
        self._next_probe: dict[bool, asyncio.Future[int]] = {}
        self._applied_waiters: dict[int, tuple[int, asyncio.Future[None]]] = {}
        """Those who wait for a slot, by a number of their own: they leave in any order."""
        self._index_waiters: dict[int, tuple[int, asyncio.Future[None]]] = {}
        """Those who wait for an index, likewise."""
        self._waiter = 0

    def ready(self) -> bool:
        """Return whether a linearizable read may be served right now (R1, L4: the clock is read here)."""
        slot = self.group.replica.read_slot(now_us())
        return (
            slot is not None
            and self.group.executor.machine.applied_slot >= slot
            and not self.group.transfers.installing
        )

    async def barrier(self, *, consistent: bool) -> None:
        """Wait until a read is linearizable here; raises RequestError."""
        self.check_readable()
        slot = None if consistent else self.group.replica.read_slot(now_us())
        if slot is None and self.group.forsaken():
            raise RequestError("no_coordinator", "no coordinator is in touch; ?stale reads what is here")
        if slot is None:
            slot = await self._probe(consistent=consistent)
        if self.group.executor.machine.applied_slot < slot:
            future: asyncio.Future[None] = self.group.loop.create_future()
            self._waiter = number = self._waiter + 1
            self._applied_waiters[number] = (slot, future)
            self.group.deadlines.add(now_us(), future.done, lambda: future.set_exception(RequestError("timeout")))
            try:
                await future
            finally:
                del self._applied_waiters[number]
                del future  # see reach
        self.check_readable()

    async def reach(self, index: int) -> None:
        """Wait until operation ``index`` is applied here; raises RequestError, ``behind`` at the deadline."""
        self.check_readable()
        group = self.group
        if group.index < index:
            if len(self._index_waiters) >= INDEX_WAITERS_MAX:
                sentence = f"{INDEX_WAITERS_MAX} requests wait for this replica to catch up already; nothing was done"
                raise RequestError("overloaded", sentence)
            future: asyncio.Future[None] = group.loop.create_future()
            self._waiter = number = self._waiter + 1
            self._index_waiters[number] = (index, future)
            group.deadlines.add(now_us(), future.done, lambda: future.set_exception(self._behind(index)))
            try:
                await future
            finally:
                del self._index_waiters[number]
                # An error that it holds would hold this frame, and that the request with its body: a cycle.
                del future
        self.check_readable()

    def _behind(self, index: int) -> RequestError:
        return RequestError(
            "behind",
            f"this replica is at index {self.group.index} of the group and its session has seen index {index}; "
            "nothing was done; retry at another node",
        )

    def check_readable(self) -> None:
        """Refuse while the store's content is nobody's past; raises RequestError."""
        if self.group.transfers.installing or self.group.replica.state.rebuilding:
            raise RequestError("not_ready", "this node is being rebuilt from the others")
        if self.group.replica.role == "unformed":
            raise RequestError("not_ready", "this node is no member of the group yet")

    async def _probe(self, *, consistent: bool) -> int:
        """Ask the coordinator for a read point; all readers of one turn share the question."""
        future = self._next_probe.get(consistent)
        if future is None:
            future = self.group.loop.create_future()
            self._next_probe[consistent] = future
            self.group.loop.call_soon(self._send_probe, consistent)
        try:
            return await asyncio.shield(future)
        finally:
            del future  # see reach

    def _send_probe(self, consistent: bool) -> None:
        future = self._next_probe.pop(consistent)
        now = now_us()
        number, effects = self.group.replica.probe(consistent, now)
        self._probes[number] = future

        def expire() -> None:
            self._probes.pop(number, None)
            self.group.replica.contact.forget_probe(number)
            kind = "timeout" if self.group.replica.coordinator else "no_coordinator"
            future.set_exception(RequestError(kind, "no coordinator confirmed the read in time"))
            future.exception()  # every reader may have gone away

        self.group.deadlines.add(now, future.done, expire)
        self.group.perform(effects)

    def on_points(self, points: list[tuple[int, int]]) -> None:
        """Probes were answered with ``(number, slot)``."""
        for number, slot in points:
            future = self._probes.pop(number, None)
            if future is not None and not future.done():
                future.set_result(slot)

    def wake(self) -> None:
        """Slots were applied: serve whoever waited for them."""
        if self._index_waiters:
            index = self.group.index
            for target, future in self._index_waiters.values():
                if target <= index and not future.done():
                    future.set_result(None)
        if self._applied_waiters:
            applied = self.group.executor.machine.applied_slot
            for slot, future in self._applied_waiters.values():
                if slot <= applied and not future.done():
                    future.set_result(None)

    def close(self, why: str) -> None:
        """Fail whoever still waits."""
        pending: list[asyncio.Future[Any]] = [future for _, future in self._applied_waiters.values()]
        pending += [future for _, future in self._index_waiters.values()]
        for future in (*pending, *self._probes.values(), *self._next_probe.values()):
            if not future.done():
                future.set_exception(RequestError("not_ready", why))
                future.exception()  # the reader may have gone away
