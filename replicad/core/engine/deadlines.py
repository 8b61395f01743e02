"""One queue of deadlines for all requests of a group: they all have the same patience, so the oldest expires first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Deadlines:
    """First in, first out: no timer per request."""

    def __init__(self, patience_us: int) -> None:
        """``patience_us``: how long every request may take."""
        self.patience_us = patience_us
        self._queue: deque[tuple[int, Callable[[], bool], Callable[[], None]]] = deque()

    def add(self, now: int, done: Callable[[], bool], expire: Callable[[], None]) -> None:
        """Call ``expire`` when the patience is over, unless ``done()`` is true by then."""
        self._queue.append((now + self.patience_us, done, expire))

    def run(self, now: int) -> None:
        """Expire what is due; drop what is done at the front."""
        queue = self._queue
        while queue and (queue[0][0] <= now or queue[0][1]()):
            _, done, expire = queue.popleft()
            if not done():
                expire()

    def __len__(self) -> int:
        return len(self._queue)
