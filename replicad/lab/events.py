"""The event queue of the simulator: virtual time in microseconds, ties broken by order of scheduling."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from replicad.lab.crash_points import Died

Handler = Callable[..., None]


class EventQueue:
    """Runs handlers at their virtual times, one after the other."""

    def __init__(self) -> None:
        self.now = 0
        self.done = 0
        """Events run so far."""
        self._heap: list[tuple[int, int, Handler, tuple[Any, ...]]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, time: int, handler: Handler, *arguments: Any) -> None:
        """Call ``handler(*arguments)`` at ``time``; a time that is over means as soon as possible."""
        self._number += 1
        now = self.now
        heapq.heappush(self._heap, (max(time, now), self._number, handler, arguments))

    def after(self, delay: int, handler: Handler, *arguments: Any) -> None:
        """Call ``handler(*arguments)`` after ``delay`` microseconds."""
        self._number += 1
        heapq.heappush(self._heap, (self.now + max(delay, 0), self._number, handler, arguments))

    def run_until(self, end: int) -> None:
        """Run everything that is due up to and including ``end``, which is the time afterwards."""
        heap = self._heap
        pop = heapq.heappop
        while heap and heap[0][0] <= end:
            self.now, _, handler, arguments = pop(heap)
            self.done += 1
            try:
                handler(*arguments)
            except Died:
                continue
        self.now = max(self.now, end)
