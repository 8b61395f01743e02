"""Applies committed slots to the key-value machine, in order, and stops exactly at checkpoint markers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.core.group.log import batch_kind
from replicad.core.model.errors import check
from replicad.core.model.operations import CHECKPOINT, decode_operation

if TYPE_CHECKING:
    from replicad.core.kv.machine import Machine
    from replicad.core.model.operations import Result


SLOTS_MAX = 256
"""Slots of one run, whatever they hold."""


@dataclass(slots=True)
class Execution:
    """One run: applied up to ``slot``, whose digest is ``digest``."""

    slot: int
    digest: bytes
    results: list[tuple[bytes, Result]] = field(default_factory=list)
    marks: list[tuple[int, bytes]] = field(default_factory=list)
    """Digests at slots that are multiples of ``digest_slots``."""
    digests: list[bytes] = field(default_factory=list)
    """The digest after each slot of this run."""


class Executor:
    """A queue of committed slots before the machine. The driver runs it in bounded slices."""

    def __init__(self, machine: Machine, digest_slots: int) -> None:
        self.machine = machine
        self.digest_slots = digest_slots
        self.queue: deque[tuple[int, bytes]] = deque()
        self.marker = 0
        """Slot of the checkpoint marker at which it stands still until :meth:`resume` (0: none)."""

    def feed(self, slots: list[tuple[int, bytes]]) -> None:
        """Queue committed slots."""
        self.queue.extend(slots)

    def run(self, operations_max: int) -> Execution | None:
        """Apply queued slots in one store transaction until about so many operations are done; None: nothing to do."""
        if self.marker or not self.queue:
            return None
        machine = self.machine
        results: list[tuple[bytes, Result]] = []
        marks: list[tuple[int, bytes]] = []
        digests: list[bytes] = []
        marker = done = 0
        machine.begin()
        try:
            for slot, value in self.queue:
                check(slot == machine.applied_slot + 1, "slots are applied in order, without gaps", "applied in order")
                results += machine.apply(slot, value)
                done += 1
                digests.append(machine.digest)
                if slot % self.digest_slots == 0:
                    marks.append((slot, digests[-1]))
                if batch_kind(value) == CHECKPOINT:
                    marker = slot
                    break
                if len(results) >= operations_max or done >= SLOTS_MAX:
                    break
            machine.commit(flush=bool(marker))  # a checkpoint is read from the store by another process
        except Exception:
            machine.abort()  # a full store: nothing was applied, and the queue is as it was
            raise
        for _ in range(done):
            self.queue.popleft()
        self.marker = marker
        return Execution(machine.applied_slot, machine.digest, results, marks, digests)

    def resume(self) -> None:
        """Go on after the state at the marker is pinned (or could not be)."""
        self.marker = 0

    def recall(self, operations: list[tuple[bytes, bytes]]) -> list[tuple[bytes, Result]]:
        """Return the results of those ``(request id, encoded operation)`` that the state remembers.

        After a checkpoint was installed over slots whose results this node never saw.
        """
        found = []
        for request_id, encoded in operations:
            operation = decode_operation(encoded)
            result = self.machine.recall(
                request_id, operation.code, operation.key, operation.value, operation.flags, operation.cas
            )
            if result is not None:
                found.append((request_id, result))
        return found

    def reset(self, machine: Machine) -> None:
        """Start over on another state."""
        self.machine = machine
        self.queue.clear()
        self.marker = 0
