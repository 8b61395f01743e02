"""What is checked throughout a simulated run, as one judge who sees everything and tells the nodes nothing.

* ``one batch``: at most one batch is committed per slot, over all nodes and all their lives.
* ``in order``: nobody calls a slot committed before the slots below it are.
* ``equal digests``: replicas that applied the same slot have the same digest.
* ``same results``: every replica gives each operation the result that the naive model gives it; with the model's own
  table of request ids this is also the check that an operation takes effect in one slot only.
* ``at most once``: an id takes effect a second time only after its window of W slots, and only if a client brought it.
* ``acknowledged``: what ``ack=all`` reported is in the committed log with that very result, at the moment of the answer
  and, by ``one batch``, for ever; what ``ack=majority`` reported is there after healing. ``ack=one`` promises nothing,
  and nothing is asked of it but the checks above.
* ``past state``: every read, also a stale one, shows the state after some slot that was committed by then, namely the
  one that the node says it has applied.
* ``bookmark``: a read with a bookmark shows a state that has the writes up to that index.
* ``session``: histories of clients that move between nodes with bookmarks have the four session guarantees.
* ``lease in view``: a member that leaves the view has no lease by then.
* ``linearizable``: histories of ``ack=all`` writes and of linearizable and consistent reads.
* ``recovery``: a start finds no damage where none was done, and all that an earlier one found or that was durable.
* ``rot is noticed``: damage that was done is found by the next start.
* ``apart``: no message passes between two clusters of one name, and neither has the other's directory set aside.
* ``halt``: nothing that the simulator does may stop a node for good, data of two clusters in one included.
* ``equal stores``: after healing all stores hold what the model holds, also one that was made to diverge.

A broken one raises :class:`Violation`. Nothing here forgives: what a level does not promise is simply not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import zip_longest

from replicad.core.model.operations import (
    ACK_ALL,
    ACK_MAJORITY,
    CONFIGURATION,
    IDEMPOTENCY_ID_BYTES,
    Result,
    decode_batch,
)
from replicad.lab.history import Operation, Read, Sessions, Write
from replicad.lab.linearizability import Verdict
from replicad.lab.linearizability import check as check_linearizable
from replicad.lab.model import Model
from replicad.lab.sessions import check as check_sessions
from replicad.lab.transcript import show_batch


class Violation(Exception):
    """A promise was broken; ``rule`` is its name in this module's list."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"{rule}: {message}")
        self.rule = rule


class Stuck(Exception):
    """Something that must happen did not; ``rule`` names it in :data:`PROGRESS` (``setup``: a script went astray)."""

    def __init__(self, message: str, *, rule: str = "setup") -> None:
        super().__init__(message)
        self.rule = rule


PROGRESS = {
    "converge": "after healing every node serves and has applied everything",
    "request": "after healing a request at any node is answered",
    "answered": "whoever lives answers each request that it took, in time, though its group was closed meanwhile",
    "write": "a write is acknowledged as soon as a majority and the view could",
    "read": "a read at a node that holds a lease is answered",
    "election": "a candidate that may be elected is, within its time",
    "rejoin": "a voter that answers again is taken back",
    "calm": "the nodes do not keep each other busy for ever",
}
"""What must happen, by its name."""


class Judge:
    """Collects what the nodes did and compares. ``window`` is the protocol's W."""

    def __init__(self, window: int) -> None:
        self.model = Model(window)
        self.chosen: list[bytes] = [b""]
        """Slot -> its committed batch; slots count from 1."""
        self.configuration = b""
        """The configuration committed last; b"" before the first change."""
        self.undecided = 0
        """Keys whose history the linearizability checker could not judge within its budget."""
        self.differs: Callable[[str], bool] = lambda _node: False
        """Whether a node's state was made to diverge: finding that out is the nodes' affair, until they are healed."""
        self.alien: Callable[[str], bool] = lambda _node: False
        """Whether a node runs on a directory of another past: what it tells clients is judged, and nothing else."""
        self._chooser: list[str] = [""]
        self._indexes = [0]
        """Slot -> index of the last operation up to there."""
        self._digests: dict[int, tuple[bytes, str]] = {}
        self._majority: dict[bytes, str] = {}
        self._repeats_seen = 0

    @property
    def committed(self) -> int:
        """The highest slot that any node ever called committed."""
        return len(self.chosen) - 1

    def committed_slot(self, node: str, slot: int, value: bytes) -> None:
        """A node handed a committed slot to its executor."""
        if self.alien(node):
            return
        if slot <= self.committed:
            if self.chosen[slot] != value:
                raise Violation(
                    "one batch",
                    f"slot {slot} is {show_batch(self.chosen[slot])} at {self._chooser[slot]} "
                    f"and {show_batch(value)} at {node}",
                )
            return
        if slot != self.committed + 1:
            raise Violation("in order", f"{node} commits slot {slot}, but nobody committed slot {self.committed + 1}")
        self.chosen.append(value)
        self._chooser.append(node)
        self.model.apply(value)
        self._indexes.append(self.model.index)
        kind, payload = decode_batch(value)
        if kind == CONFIGURATION and isinstance(payload, bytes):
            self.configuration = payload
        self._check_repeats()

    def _check_repeats(self) -> None:
        for request_id in self.model.repeated[self._repeats_seen :]:
            if len(request_id) != IDEMPOTENCY_ID_BYTES:
                raise Violation("at most once", f"operation {request_id.hex()} of a contact took effect twice")
        self._repeats_seen = len(self.model.repeated)

    def digest(self, node: str, slot: int, digest: bytes) -> None:
        """A node's state after ``slot`` has this digest."""
        if self.differs(node) or self.alien(node):
            return
        if slot > self.committed:
            raise Violation("in order", f"{node} applied slot {slot}, which nobody committed")
        known, by = self._digests.setdefault(slot, (digest, node))
        if known != digest:
            raise Violation("equal digests", f"after slot {slot} {by} has {known.hex()} and {node} {digest.hex()}")

    def results(self, node: str, low: int, high: int, results: Iterable[tuple[bytes, Result]]) -> None:
        """A node applied the slots above ``low`` up to ``high``, and they gave its operations these results."""
        if self.alien(node):
            return
        expected = [item for slot in range(low + 1, high + 1) for item in self.model.results.get(slot, ())]
        for got, wanted in zip_longest(results, expected):
            if got != wanted:
                raise Violation(
                    "same results",
                    f"in slots {low + 1} to {high} {node} gave {_show(got)}, the model gives {_show(wanted)}",
                )

    def acknowledged(self, node: str, request_id: bytes, ack: int, result: Result | None) -> None:
        """A contact told its client that the operation is done (``ack=all``: with this result)."""
        if ack == ACK_MAJORITY:
            self._majority.setdefault(request_id, node)
        if ack != ACK_ALL:
            return
        if result is None:
            raise Violation("acknowledged", f"{node} answered {request_id.hex()} (ack=all) without a result")
        if result not in self.model.answers.get(request_id, ()):
            raise Violation(
                "acknowledged", f"{node} answered {request_id.hex()} with {result!r}, but no committed slot gives that"
            )

    def read(self, node: str, key: bytes, value: bytes | None, slot: int) -> None:
        """A node served ``value`` for ``key`` from its state after ``slot``."""
        if slot > self.committed:
            raise Violation("past state", f"{node} served a read after slot {slot}, which nobody committed")
        expected = self.model.at(key, slot).value
        if value != expected:
            raise Violation("past state", f"{node} read {key!r} after slot {slot}: {value!r} instead of {expected!r}")

    def bookmark(self, node: str, bookmark: int, slot: int) -> None:
        """A node served a read with this bookmark from its state after ``slot``."""
        if self._indexes[slot] < bookmark:
            raise Violation(
                "bookmark",
                f"{node} served a read with the bookmark {bookmark} after slot {slot}, of index {self._indexes[slot]}",
            )

    def order(self) -> list[Write]:
        """Return all writes that took effect and changed something, each with its index."""
        versions = self.model.versions
        return [Write(key, version.index, version.value) for key in versions for version in versions[key]]

    def sessions(self, seen: Sessions) -> int:
        """Judge what moving clients saw; returns how many anomalies their reads without a bookmark met."""
        order = self.order()
        anomalies = check_sessions(seen, order)
        if anomalies:
            raise Violation("session", str(anomalies[0]))
        everything = {
            session: [replace(o, promised=True) if isinstance(o, Read) else o for o in operations]
            for session, operations in seen.items()
        }
        return len(check_sessions(everything, order))

    def history(self, operations: Iterable[Operation]) -> None:
        """Judge what clients saw."""
        report = check_linearizable(operations)
        self.undecided += len(report.undecided)
        if report.verdict is Verdict.ILLEGAL:
            raise Violation("linearizable", str(report))

    def healed(self, stores: Mapping[str, tuple[int, Mapping[bytes, bytes]]]) -> None:
        """All nodes converged: ``node -> (applied slot, key -> value)``; also judge ``ack=majority`` now."""
        for node, (slot, content) in stores.items():
            if slot != self.committed:
                raise Stuck(f"{node} applied slot {slot} of {self.committed}", rule="converge")
            expected = {key: version.value for key, version in self.model.content(slot).items()}
            if dict(content) != expected:
                wrong = [k for k in sorted({*expected, *content}) if expected.get(k) != content.get(k)]
                raise Violation("equal stores", f"{node} differs from the model at the keys {wrong[:5]!r}")
        for request_id, node in self._majority.items():
            if request_id not in self.model.effects:
                raise Violation("acknowledged", f"{request_id.hex()}, acknowledged by {node} (majority), is lost")


def _show(item: tuple[bytes, Result] | None) -> str:
    return "nothing" if item is None else f"operation {item[0].hex()} {item[1]!r}"
