"""Linearizable reads: by lease at once, after slots on their way, or by asking the coordinator for a read index."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from replicad.core.model.errors import RequestError

if TYPE_CHECKING:
    from replicad.core.engine.group import Group

INDEX_WAITERS_MAX = 1_024

Ready = Callable[["RequestError | None"], None]
"""Called once: None, the read may be served now; or why it may not. It must not raise."""


class Reads:
    """Readers of one group that wait for something. Each has a number, by which it may leave (:meth:`forget`)."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._probes: dict[int, list[int]] = {}
        """Number of a question to the coordinator -> the readers that wait for its answer."""
        self._next_probe: dict[bool, list[int]] = {}
        self._asking: dict[int, Ready] = {}
        self._slot_waiters: dict[int, tuple[int, Ready]] = {}
        self._index_waiters: dict[int, tuple[int, Ready]] = {}
        self._reader = 0

    def ready(self, now: int) -> bool:
        """Return whether a linearizable read may be served right now (R1; L4: ``now`` was read for this)."""
        group = self.group
        slot = group.replica.read_slot(now)
        if group.draining:
            return False
        return slot is not None and group.executor.machine.applied_slot >= slot and not group.transfers.installing

    def check_readable(self) -> None:
        """Refuse while the store's content is nobody's past; raises RequestError."""
        self.group.check_open()
        if self.group.transfers.installing or self.group.replica.state.rebuilding:
            raise RequestError("not_ready", "this node is being rebuilt from the others")
        if self.group.replica.role == "unformed":
            raise RequestError("not_ready", "this node is no member of the group yet")

    # --- waiting ----------------------------------------------------------------------------------------------------

    def barrier(self, ready: Ready, *, consistent: bool) -> int:
        """Call ``ready`` once a read is linearizable here, or has failed; returns the reader's number (0: at once).

        Raises RequestError if it is refused before it waits.
        """
        self.check_readable()
        group = self.group
        slot = None if consistent else group.replica.read_slot(group.engine.ports.now())
        if slot is not None and group.executor.machine.applied_slot >= slot:
            ready(None)
            return 0
        if slot is None and group.forsaken():
            raise RequestError("no_coordinator", "no coordinator is in touch; a stale read takes what is here")
        self._reader = reader = self._reader + 1
        if slot is not None:
            self._await_slot(reader, slot, ready)
            return reader
        self._asking[reader] = ready
        readers = self._next_probe.get(consistent)
        if readers is None:
            readers = self._next_probe[consistent] = []
            group.engine.soon(lambda: self._send_probe(consistent=consistent))
        readers.append(reader)
        return reader

    def reach(self, index: int, ready: Ready) -> int:
        """Call ``ready`` once operation ``index`` is applied here, or has failed; see :meth:`barrier`."""
        self.check_readable()
        group = self.group
        if group.index >= index and group.replica.state.serves:
            ready(None)
            return 0
        if len(self._index_waiters) >= INDEX_WAITERS_MAX:
            sentence = f"{INDEX_WAITERS_MAX} requests wait for this replica to catch up already; nothing was done"
            raise RequestError("overloaded", sentence)
        self._reader = reader = self._reader + 1
        self._index_waiters[reader] = (index, ready)

        def expire() -> None:
            self._end(self._index_waiters.pop(reader)[1], self._behind(index))

        group.deadlines.add(group.engine.ports.now(), lambda: reader not in self._index_waiters, expire)
        return reader

    def forget(self, reader: int) -> None:
        """The reader went away: it is told nothing any more."""
        self._asking.pop(reader, None)
        self._slot_waiters.pop(reader, None)
        self._index_waiters.pop(reader, None)

    def _behind(self, index: int) -> RequestError:
        if not self.group.replica.state.serves:
            sentence = "this replica waits for its digest to be compared with the others'; nothing was done"
            return RequestError("not_ready", f"{sentence}; retry at another node")
        return RequestError(
            "behind",
            f"this replica is at index {self.group.index} of the group and its session has seen index {index}; "
            "nothing was done; retry at another node",
        )

    def _await_slot(self, reader: int, slot: int, ready: Ready) -> None:
        self._slot_waiters[reader] = (slot, ready)

        def expire() -> None:
            self._end(self._slot_waiters.pop(reader)[1], RequestError("timeout"))

        group = self.group
        group.deadlines.add(group.engine.ports.now(), lambda: reader not in self._slot_waiters, expire)

    def _end(self, ready: Ready, error: RequestError | None) -> None:
        self.group.engine.ports.answer(ready, error)

    def _serve(self, ready: Ready) -> None:
        """The reader's slot or index is applied: it may read, unless the state has been given up meanwhile."""
        try:
            self.check_readable()
        except RequestError as error:
            self._end(ready, error)
            return
        serves = self.group.replica.state.serves
        doubt = "this node's state was replaced meanwhile, and is not compared with the others' yet; nothing was done"
        self._end(ready, None if serves else RequestError("not_ready", doubt))

    # --- asking the coordinator -------------------------------------------------------------------------------------

    def _send_probe(self, *, consistent: bool) -> None:
        """Ask for a read index; all readers of one turn share the question."""
        readers = self._next_probe.pop(consistent, [])
        if not any(reader in self._asking for reader in readers):
            return  # they have all gone away
        group = self.group
        now = group.engine.ports.now()
        number, effects = group.replica.probe(consistent, now)
        self._probes[number] = readers

        def expire() -> None:
            del self._probes[number]
            group.replica.contact.forget_probe(number)
            kind = "timeout" if group.replica.coordinator else "no_coordinator"
            for reader in readers:
                ready = self._asking.pop(reader, None)
                if ready is not None:
                    self._end(ready, RequestError(kind, "no coordinator confirmed the read in time"))

        group.deadlines.add(now, lambda: number not in self._probes, expire)
        group.perform(effects)

    def on_points(self, points: list[tuple[int, int]]) -> None:
        """Questions were answered with ``(number, slot)``: whoever asked waits until that slot is applied here."""
        applied = self.group.executor.machine.applied_slot
        for number, slot in points:
            for reader in self._probes.pop(number, ()):
                ready = self._asking.pop(reader, None)
                if ready is None:
                    continue
                if slot <= applied:
                    self._serve(ready)
                else:
                    self._await_slot(reader, slot, ready)

    def wake(self) -> None:
        """Slots were applied: serve whoever waited for them."""
        if self._index_waiters and self.group.replica.state.serves:
            index = self.group.index
            for reader in [reader for reader, waiter in self._index_waiters.items() if waiter[0] <= index]:
                self._serve(self._index_waiters.pop(reader)[1])
        if self._slot_waiters:
            applied = self.group.executor.machine.applied_slot
            for reader in [reader for reader, waiter in self._slot_waiters.items() if waiter[0] <= applied]:
                self._serve(self._slot_waiters.pop(reader)[1])

    def close(self, why: str) -> None:
        """Fail whoever still waits."""
        waiting = [*self._asking.values()]
        waiting += [ready for _, ready in (*self._slot_waiters.values(), *self._index_waiters.values())]
        for waiters in (self._asking, self._slot_waiters, self._index_waiters, self._probes, self._next_probe):
            waiters.clear()
        for ready in waiting:
            self._end(ready, RequestError("not_ready", why))
