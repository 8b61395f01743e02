"""Requests of this node to change a group: its members, its protocol, where its coordinator is. One step each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.core.model.errors import RequestError
from replicad.node.clock import now_us

if TYPE_CHECKING:
    from replicad.core.model.refusals import Refusal
    from replicad.node.group_runtime import GroupRuntime

CHANGES_MAX = 64
"""Changes of one group that may wait for their answer here."""


class Changes:
    """Changes of one group that were asked for here and are not answered yet."""

    def __init__(self, group: GroupRuntime) -> None:
        self.group = group
        self._waiting: dict[int, asyncio.Future[Refusal | None]] = {}

    async def request(self, kind: str, argument: str, seconds: float) -> Refusal | None:
        """Ask the coordinator for one change; return None when it is done, or why it was refused.

        Raises RequestError: ``no_coordinator`` and ``overloaded`` (nothing was asked), ``unknown_outcome`` (no answer).
        """
        group = self.group
        if not group.replica.coordinator:
            raise RequestError("no_coordinator", f"group {group.name} has no coordinator at the moment")
        if len(self._waiting) >= CHANGES_MAX:
            raise RequestError("overloaded", f"{CHANGES_MAX} changes of group {group.name} wait at this node already")
        number, effects = group.replica.request_change(kind, argument, now_us())
        future: asyncio.Future[Refusal | None] = group.loop.create_future()
        self._waiting[number] = future
        group.perform(effects)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise RequestError("unknown_outcome", f"the coordinator of group {group.name} did not answer") from None
        finally:
            self._waiting.pop(number, None)

    def on_answer(self, number: int, refusal: Refusal | None) -> None:
        """The coordinator answered."""
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result(refusal)

    def close(self, why: str) -> None:
        """Fail whoever still waits."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RequestError("unknown_outcome", why))
                future.exception()  # the requester may have gone away
