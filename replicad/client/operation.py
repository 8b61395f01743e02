"""One operation of a client on its way: what it is, what has become of it so far, who waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

from replicad.client.errors import ClientError, UnknownOutcomeError
from replicad.core.model.operations import PUT

ELSEWHERE = frozenset(
    {"not_ready", "disk_full", "behind", "elsewhere", "no_coordinator", "timeout", "unreachable", "loop"}
)
"""Errors after which another node may do."""

RETRIED = ELSEWHERE | {"overloaded", "expired", "unknown_outcome", "lost"}
"""Errors after which the same operation may succeed a little later."""

Frame = tuple[int, int, int]
"""What operations must have in common to travel in one frame: level, max_stale_ms, ack (each -1: not given)."""

SIZE_OVERHEAD = 64

REPEAT_SECONDS = 3.0
"""A write that may be done is not repeated later than this after it was first sent: the group remembers ids for a
number of slots only, which a busy one may use up in some seconds, and then it would be done twice."""


class Operation:
    """An operation, its future, and whether an earlier attempt may have done it."""

    __slots__ = (
        "deadline",
        "fields",
        "first_sent",
        "frame",
        "future",
        "is_write",
        "may_be_done",
        "repeatable",
        "sent",
        "size",
    )

    def __init__(
        self,
        fields: tuple[Any, ...],
        frame: Frame,
        future: asyncio.Future[Any],
        deadline: float,
        *,
        is_write: bool,
        repeatable: bool,
    ) -> None:
        """``fields``: as they stand in the frame. ``repeatable``: doing it twice is the same as doing it once."""
        self.fields = fields
        self.frame = frame
        self.future = future
        self.deadline = deadline
        self.is_write = is_write
        self.repeatable = repeatable
        self.may_be_done = False
        self.first_sent = 0.0
        """The loop's time; 0.0: it was not."""
        self.sent = False
        """An attempt is under way."""
        self.size = SIZE_OVERHEAD + len(fields[1]) + (len(fields[2]) if fields[0] == PUT else 0)

    def fails(self, error: ClientError, now: float) -> bool:
        """Take note of a failed attempt; returns whether it was the last one, and whoever waits has been told."""
        self.sent = False
        if self.is_write and not error.definite:
            self.may_be_done = True
        if error.name in RETRIED and now < self.deadline and self.may_go(now):
            return False
        self.end(error)
        return True

    def may_go(self, now: float) -> bool:
        """Return whether it may be sent, again or for the first time."""
        return not self.may_be_done or (self.repeatable and now - self.first_sent < REPEAT_SECONDS)

    def end(self, error: ClientError) -> None:
        """Tell whoever waits; nothing is definite any more once an attempt may have done it."""
        if self.may_be_done and error.definite:
            sentence = f"an earlier attempt may have been done; the last one: {error.message}"
            error = UnknownOutcomeError("unknown_outcome", sentence)
        if not self.future.done():
            self.future.set_exception(error)
