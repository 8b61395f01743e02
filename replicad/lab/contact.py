"""The contact's side of one simulated process: it holds clients' requests until their outcome is known.

This is what the real node's runtime does for HTTP, without HTTP: request ids, waiting for results, reads that wait for
a slot, deadlines. It dies with its process; then nobody ever answers its clients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from replicad.core.kv.entries import Entry
from replicad.core.model.errors import ERROR_KINDS
from replicad.core.model.operations import (
    ACK_ALL,
    EXPIRED,
    IDEMPOTENCY_ID_BYTES,
    MISMATCH,
    Result,
    encode_operation,
    make_request_id,
)

if TYPE_CHECKING:
    from replicad.core.group.effects import Effects
    from replicad.lab.checks import Judge
    from replicad.lab.simulated_process import SimulatedProcess

PROBE_AGAIN_US = 100_000
"""A probe without an answer is sent again after this long; the coordinator may have changed."""


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
    request_id: bytes
    ack: int
    deadline: int
    answer: Answer


@dataclass(slots=True)
class _Read:
    key: bytes
    level: Level
    deadline: int
    answer: Answer
    slot: int = -1
    """Apply this slot, then read; -1: not known yet."""
    asked: int = 0
    bookmark: int = 0
    """Have the writes up to this index applied, then read."""


class Contact:
    """Requests of one process. Times are the node's own clock."""

    def __init__(self, node: SimulatedProcess, boot: int, judge: Judge) -> None:
        self._node = node
        self._boot = boot
        self._judge = judge
        self._numbers = 0
        self._writes: dict[bytes, list[_Write]] = {}
        self._reads: list[_Read] = []
        self._probes: dict[int, _Read] = {}
        self._batch: list[tuple[bytes, bytes, int]] = []

    def write(
        self,
        code: int,
        key: bytes,
        value: bytes,
        cas: int,
        ack: int,
        idempotency: bytes,
        patience: int,
        answer: Answer,
    ) -> None:
        """Take a write; it is submitted together with all others of this turn. ``idempotency`` b"" for none."""
        if not self._node.readable:
            answer(Outcome(error="not_ready"))
            return
        deadline = self._node.clock() + patience
        self._numbers += 1
        request_id = idempotency or make_request_id(self._boot, self._numbers)
        base = self._node.replica.committed
        encoded = encode_operation((request_id, base, code, key, value, 0, cas))
        self._writes.setdefault(request_id, []).append(_Write(request_id, ack, deadline, answer))
        if not self._batch:
            self._node.at_end_of_turn(self._submit)
        self._batch.append((request_id, encoded, ack))

    def _submit(self) -> None:
        batch, self._batch = self._batch, []
        self._node.step(self._node.replica.submit, batch)

    def read(self, key: bytes, level: Level, bookmark: int, patience: int, answer: Answer, now: int) -> Effects | None:
        """Serve a read, now or when what it must see is applied; ``now`` was sampled after it arrived (L4)."""
        read = _Read(key, level, now + patience, answer, asked=now, bookmark=bookmark)
        if not self._node.readable:
            answer(Outcome(error="not_ready"))
            return None
        if level is Level.STALE:
            self._serve(read)
            return None
        if level is Level.LINEARIZABLE:
            slot = self._node.replica.read_slot(now)
            if slot is not None:
                read.slot = slot
        self._reads.append(read)
        if level is not Level.SESSION and read.slot < 0:
            return self._probe(read, now)
        self.serve_reads()
        return None

    def _probe(self, read: _Read, now: int) -> Effects:
        number, effects = self._node.replica.probe(read.level is Level.CONSISTENT, now)
        self._probes[number] = read
        return effects

    def _serve(self, read: _Read) -> None:
        slot, entry = self._node.read(read.key)
        self._judge.read(self._node.name, read.key, entry.value if entry else None, slot)
        if read.level is Level.SESSION:
            self._judge.bookmark(self._node.name, read.bookmark, slot)
        read.answer(Outcome(entry=entry, applied=self._node.machine.index))

    # --- what the replica and the executor report ---------------------------------------------------------------------

    def read_points(self, points: list[tuple[int, int]]) -> None:
        """Probes were answered: ``(number, slot)``."""
        for number, slot in points:
            read = self._probes.pop(number, None)
            if read is not None and read.slot < 0:
                read.slot = slot
        self.serve_reads()

    def serve_reads(self) -> None:
        """Serve every read whose slot, or bookmark, is applied by now."""
        if not self._reads or not self._node.readable:
            return
        ready: list[_Read] = []
        waiting: list[_Read] = []
        for read in self._reads:
            (ready if self._has_applied_for(read) else waiting).append(read)
        if ready:
            self._reads = waiting
            for read in ready:
                self._serve(read)

    def _has_applied_for(self, read: _Read) -> bool:
        if read.level is Level.SESSION:
            return self._node.machine.index >= read.bookmark
        return 0 <= read.slot <= self._node.applied_slot

    def results(self, results: list[tuple[bytes, Result]]) -> None:
        """Operations were applied here (C4), or an installed checkpoint remembers them."""
        for request_id, result in results:
            for write in self._writes.pop(request_id, ()):
                self._finish(write, result)
        self.serve_reads()

    def _finish(self, write: _Write, result: Result) -> None:
        error = _error(write.request_id, result)
        if write.ack == ACK_ALL:
            self._judge.acknowledged(self._node.name, write.request_id, ACK_ALL, result)
            write.answer(Outcome(error=error, result=result))
        elif error:
            write.answer(Outcome(error=error))
        else:
            self._acknowledge_weak(write)

    def durable(self, request_ids: list[bytes]) -> None:
        """Operations reached the level that they asked for (majority, one)."""
        for request_id in request_ids:
            waiting = self._writes.pop(request_id, [])
            strict = [write for write in waiting if write.ack == ACK_ALL]
            if strict:
                self._writes[request_id] = strict
            for write in waiting:
                if write.ack != ACK_ALL:
                    self._acknowledge_weak(write)

    def _acknowledge_weak(self, write: _Write) -> None:
        self._judge.acknowledged(self._node.name, write.request_id, write.ack, None)
        write.answer(Outcome())

    def refused(self, refused: list[tuple[bytes, str]]) -> None:
        """Requests ended with an error: ``(request id, error name)``."""
        for request_id, error in refused:
            for write in self._writes.pop(request_id, ()):
                write.answer(Outcome(error=error))

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """Give up what is past its deadline, and repeat probes that got no answer."""
        for request_id in [i for i, writes in self._writes.items() if any(w.deadline <= now for w in writes)]:
            late = [write for write in self._writes[request_id] if write.deadline <= now]
            rest = [write for write in self._writes[request_id] if write.deadline > now]
            if rest:
                self._writes[request_id] = rest
                error = "unknown_outcome"
            else:
                del self._writes[request_id]
                error = "unknown_outcome" if self._node.replica.abandon(request_id) else "timeout"
            for write in late:
                write.answer(Outcome(error=error))
        late_reads = [read for read in self._reads if read.deadline <= now]
        if late_reads:
            self._reads = [read for read in self._reads if read.deadline > now]
            self._probes = {number: read for number, read in self._probes.items() if read.deadline > now}
            for read in late_reads:
                read.answer(Outcome(error="behind" if read.level is Level.SESSION else "timeout"))
        for read in self._reads:
            if read.level is not Level.SESSION and read.slot < 0 and now - read.asked >= PROBE_AGAIN_US:
                read.asked = now
                self._node.step(self._probe, read)


def _error(request_id: bytes, result: Result) -> str:
    if result.status == EXPIRED:
        return "expired"
    if result.status == MISMATCH and len(request_id) == IDEMPOTENCY_ID_BYTES:
        return "key_reused"
    return ""
