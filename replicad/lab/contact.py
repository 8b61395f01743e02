"""Requests of simulated clients at one node: what HTTP does with the engine, without HTTP.

The engine decides and waits; here its answers are shown to the judge and given to the client. It dies with its process;
then nobody ever answers its clients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from replicad.core.kv.entries import Entry
from replicad.core.model.errors import ERROR_KINDS, RequestError
from replicad.core.model.operations import ACK_ALL, Result

if TYPE_CHECKING:
    from replicad.core.engine.group import Group
    from replicad.lab.checks import Judge


class Level(IntEnum):
    """How fresh a read must be."""

    STALE = 0
    LINEARIZABLE = 1
    CONSISTENT = 2
    SESSION = 3
    """As fresh as its bookmark: any node's own state, once the node has applied the writes up to that index."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended at its contact.

    ``error`` is "" or a name of ``ERROR_KINDS``; a write has a ``result`` (``ack=all`` only), a read an ``entry``
    (None: absent).
    """

    error: str = ""
    result: Result | None = None
    entry: Entry | None = None
    applied: int = 0
    """The index of the last write in the state that a read shows."""

    @property
    def definite(self) -> bool:
        """Return whether an error means that nothing happened."""
        return self.error != "" and ERROR_KINDS[self.error].definite


Answer = Callable[[Outcome], None]


@dataclass(slots=True)
class _Write:
    """Somebody who waits for a write; ``weak``: for less than its result."""

    answer: Answer
    weak: int
    request_id: bytes = b""


class Contact:
    """Requests of one group at one process."""

    def __init__(self, node: str, group: Group, judge: Judge) -> None:
        self._node = node
        self._group = group
        self._judge = judge

    # --- writes -------------------------------------------------------------------------------------------------------

    def write(
        self, code: int, key: bytes, value: bytes, cas: int, ack: int, idempotency: bytes, answer: Answer
    ) -> None:
        """Take a write; ``idempotency`` b"" for none."""
        waiting = _Write(answer, 0 if idempotency else ack)
        try:
            waiting.request_id = self._group.writes.submit(
                (code, key, value, 0, cas), ack, self._written, waiting, idempotency or None
            )
        except RequestError as error:
            answer(Outcome(error=error.kind.name))

    def _written(self, write: _Write, outcome: Result | RequestError) -> None:
        if isinstance(outcome, RequestError):
            write.answer(Outcome(error=outcome.kind.name))
        elif write.weak != ACK_ALL:
            self._judge.acknowledged(self._node, write.request_id, write.weak, None)
            write.answer(Outcome())
        else:
            self._judge.acknowledged(self._node, write.request_id, ACK_ALL, outcome)
            write.answer(Outcome(result=outcome))

    # --- reads --------------------------------------------------------------------------------------------------------

    def read(self, key: bytes, level: Level, bookmark: int, answer: Answer) -> None:
        """Serve a read, now or when what it must see is applied."""

        def ready(error: RequestError | None) -> None:
            if error is None:
                self._serve(key, level, bookmark, answer)
            else:
                answer(Outcome(error=error.kind.name))

        reads = self._group.reads
        try:
            if level is Level.STALE:
                reads.check_readable()
                ready(None)
            elif level is Level.SESSION:
                reads.reach(bookmark, ready)
            elif level is Level.LINEARIZABLE and reads.ready(self._group.engine.ports.now()):
                ready(None)
            else:
                reads.barrier(ready, consistent=level is Level.CONSISTENT)
        except RequestError as error:
            answer(Outcome(error=error.kind.name))

    def _serve(self, key: bytes, level: Level, bookmark: int, answer: Answer) -> None:
        machine = self._group.executor.machine
        if level is Level.STALE and self._judge.alien(self._node):
            # It shows another past, as its operator is told: nobody is asked to judge it, or to build on it.
            answer(Outcome(error="not_ready"))
            return
        entry = self._group.read(key)
        self._judge.read(self._node, key, entry.value if entry else None, machine.applied_slot)
        if level is Level.SESSION:
            self._judge.bookmark(self._node, bookmark, machine.applied_slot)
        answer(Outcome(entry=entry, applied=machine.index))
