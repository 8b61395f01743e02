"""One request frame under way: who asked, what has come out so far, and how many results are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.core.model.errors import RequestError
from replicad.core.model.operations import MISMATCH, Result

if TYPE_CHECKING:
    from replicad.native.connection import Connection
    from replicad.native.requests import Options
    from replicad.node.group_runtime import GroupRuntime

MISSING = (0,)
"""Result of a read that found nothing."""


class Frame:
    """Collects the results of a frame's operations; the last one sends the answer.

    :meth:`settle` is what the group calls for each write (``GroupRuntime.write_then``), with the operation's position
    as the token: an operation costs no object of ours.
    """

    __slots__ = ("age_ms", "connection", "group", "left", "number", "operations", "options", "results", "started")

    def __init__(
        self,
        connection: Connection,
        number: int,
        group: GroupRuntime,
        options: Options,
        operations: tuple[Any, ...],
        started: float,
    ) -> None:
        self.connection = connection
        self.number = number
        self.group = group
        self.options = options
        self.operations = operations
        self.results: list[Any] = [MISSING] * len(operations)
        self.left = len(operations)
        self.age_ms = 0
        """How old the state was that answered the reads, at most."""
        self.started = started

    def settle(self, position: int, outcome: Result | RequestError) -> None:
        """Take the outcome of the write at ``position``."""
        if outcome.__class__ is not Result:
            self.connection.server.counts.failed(outcome)  # type: ignore[arg-type]  # nothing else can be left
        elif outcome[0] >= MISMATCH:
            self.fail([position], failure(outcome))
            return
        self.results[position] = outcome
        self.left -= 1
        if not self.left:
            self.connection.finish(self)

    def settle_without_index(self, position: int, outcome: Result | RequestError) -> None:
        """The same for a write whose level promises no index, also if it is known already."""
        if isinstance(outcome, Result):
            outcome = Result(outcome.status, 0)
        self.settle(position, outcome)

    def fail(self, positions: list[int], error: RequestError) -> None:
        """Give all operations at these positions the same error."""
        error = error.with_traceback(None)  # it holds frames of the interpreter that hold this one: a cycle
        for position in positions:
            self.results[position] = error
            self.connection.server.counts.failed(error)
        self.left -= len(positions)
        if not self.left:
            self.connection.finish(self)


def failure(result: Result) -> RequestError:
    """Return the error that a status means which is no success."""
    return RequestError("key_reused" if result.status == MISMATCH else "expired")
