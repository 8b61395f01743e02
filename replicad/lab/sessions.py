"""Do sessions get the four session guarantees of Terry et al. (PDIS 1994)?

``DB(S,t)`` is the set of writes that server S has applied at time t. A session's operations follow one another. The
definitions, of which each is judged alone:

* *Read your writes*: write W before read R at (S,t) in a session: W is in DB(S,t).
* *Monotonic reads*: R1 before R2 at (S2,t2): the writes that R1 showed are in DB(S2,t2).
* *Monotonic writes*: W1 before W2: W1 has the lower place in the order of writes, and whatever server has W2 has W1.
* *Writes follow reads*: R1 before W2: the writes that R1 showed have lower places than W2, and whatever server has W2
  has them too.

What is known: the total order of all writes that took effect (:class:`~replicad.lab.history.Write`), and what sessions
did and saw. So a read of a key proves two things about its DB(S,t): the version that it returned is in it, and no later
version of that key is. Nothing is concluded about other keys: that servers apply writes in order is what is judged, not
what is presumed. If the server also said up to which index it had applied writes, this counts *against* it only: it has
none above. That it has all below is never believed.

That a server has W2 and lacks W1 is seen by an observer, any session that reads W2 and *later* gets a state without
W1. If both reads were at one server, this is the definition, provided that the server's DB only grows. If they were at
two, either W1 is missing where W2 is, or the second server lacks W2 as well and the observer's monotonic reads are
broken; the observer can't tell which, and it is reported here. So the second half of the last two guarantees is judged
as what they are worth to an observer who has monotonic reads.

What can't be seen: a write that nobody reads; a gap in a key that nobody asks for; which of several equal values (or
absences) of a key a read returned. Such a read proves only what all of them prove. So there are no false alarms, and an
empty list is no proof. A write that left its key as it was (the same value, a delete of nothing) stands for the
version that it found, and no observer can tell that it was there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.lab.history import Key, Read, Value, Write

if TYPE_CHECKING:
    from replicad.lab.history import Sessions

READ_YOUR_WRITES = "read your writes"
MONOTONIC_READS = "monotonic reads"
MONOTONIC_WRITES = "monotonic writes"
WRITES_FOLLOW_READS = "writes follow reads"


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A guarantee that ``session`` did not get, and the operations that prove it, the one at fault last."""

    guarantee: str
    session: str
    operations: tuple[Read | Write, ...]

    def __str__(self) -> str:
        return f"{self.guarantee}, session {self.session}: " + "; then ".join(map(str, self.operations))


def check(sessions: Sessions, order: Iterable[Write]) -> list[Anomaly]:
    """Return what breaks any of the four guarantees."""
    writes = list(order)
    guarantees = (read_your_writes, monotonic_reads, monotonic_writes, writes_follow_reads)
    return [anomaly for guarantee in guarantees for anomaly in guarantee(sessions, writes)]


def read_your_writes(sessions: Sessions, order: Iterable[Write]) -> list[Anomaly]:
    """Return the reads that miss a write of their own session: a version older than it, or a server that lacks it."""
    versions = _Versions(order)
    anomalies = []
    for session, operations in sessions.items():
        floor = _Floor()
        for operation in operations:
            if isinstance(operation, Write):
                floor.raise_to(operation.key, versions.stands_for(operation), (operation,), claim=operation.index)
            elif (evidence := floor.missed_by(operation, versions)) is not None:
                anomalies.append(Anomaly(READ_YOUR_WRITES, session, (*evidence, operation)))
    return anomalies


def monotonic_reads(sessions: Sessions, order: Iterable[Write]) -> list[Anomaly]:
    """Return the reads that miss what an earlier read of their session showed."""
    versions = _Versions(order)
    anomalies = []
    for session, operations in sessions.items():
        floor = _Floor()
        for operation in operations:
            if isinstance(operation, Read):
                if (evidence := floor.missed_by(operation, versions)) is not None:
                    anomalies.append(Anomaly(MONOTONIC_READS, session, (*evidence, operation)))
                floor.raise_to(operation.key, versions.span(operation)[0], (operation,))
    return anomalies


def monotonic_writes(sessions: Sessions, order: Iterable[Write]) -> list[Anomaly]:
    """Return writes with a lower place than an earlier one of their session, and reads that miss the earlier one."""

    def relevant(operation: Read | Write, versions: _Versions) -> int:
        return versions.stands_for(operation) if isinstance(operation, Write) else 0

    return _ordered_and_observed(MONOTONIC_WRITES, sessions, order, relevant)


def writes_follow_reads(sessions: Sessions, order: Iterable[Write]) -> list[Anomaly]:
    """Return writes with a lower place than what their session had read before, and reads that miss the latter."""

    def relevant(operation: Read | Write, versions: _Versions) -> int:
        return versions.span(operation)[0] if isinstance(operation, Read) else 0

    return _ordered_and_observed(WRITES_FOLLOW_READS, sessions, order, relevant)


def _ordered_and_observed(
    guarantee: str, sessions: Sessions, order: Iterable[Write], relevant: Callable[[Read | Write, _Versions], int]
) -> list[Anomaly]:
    """Judge both halves; ``relevant`` gives the index of what an operation puts before its session's later writes."""
    versions = _Versions(order)
    anomalies = []
    needs: dict[tuple[Key, int], _Floor] = {}
    """A version -> what every server that has it has too."""
    for session, operations in sessions.items():
        floor = _Floor()
        for operation in operations:
            if isinstance(operation, Write):
                if floor.highest[0] > operation.index:
                    anomalies.append(Anomaly(guarantee, session, (*floor.highest[1], operation)))
                if versions.stands_for(operation) == operation.index:
                    needs.setdefault((operation.key, operation.index), _Floor()).merge(floor, operation)
            floor.raise_to(operation.key, relevant(operation, versions), (operation,))
    for session, operations in sessions.items():
        floor = _Floor()
        for operation in operations:
            if isinstance(operation, Write):
                continue
            low, high = versions.span(operation)
            if low == high and (operation.key, low) in needs:
                floor.merge(needs[operation.key, low], operation)
            if (evidence := floor.missed_by(operation, versions)) is not None:
                anomalies.append(Anomaly(guarantee, session, (*evidence, operation)))
    return anomalies


class _Versions:
    """The versions of every key by index, from the order of writes; every key starts absent, at index 0."""

    def __init__(self, order: Iterable[Write]) -> None:
        self._indexes: dict[Key, list[int]] = {}
        self._of_value: dict[tuple[Key, Value | None], list[int]] = {}
        for write in sorted(order, key=lambda write: write.index):
            indexes = self._indexes.setdefault(write.key, [0])
            if write.index <= indexes[-1]:
                raise ValueError(f"{write}: another write of this key has that index, or it is not above 0")
            indexes.append(write.index)
            self._of_value.setdefault((write.key, write.value), []).append(write.index)

    def stands_for(self, write: Write) -> int:
        """Return the index of the version that the write left: its own, unless it changed nothing."""
        indexes = self._indexes.get(write.key, [0])
        return indexes[bisect_right(indexes, write.index) - 1]

    def span(self, read: Read) -> tuple[int, int]:
        """Return the lowest and the highest index of the versions that this read can have returned."""
        found = self._of_value.get((read.key, read.value), [])
        if read.value is None:
            found = [0, *found]
        if not found:
            raise ValueError(f"{read}: no write in the given order wrote that value")
        possible = found if read.applied is None else found[: bisect_right(found, read.applied)] or found
        return possible[0], possible[-1]


class _Floor:
    """What a session may expect to find from here on, with the operations that say so."""

    def __init__(self) -> None:
        self.of_key: dict[Key, tuple[int, tuple[Read | Write, ...]]] = {}
        self.highest: tuple[int, tuple[Read | Write, ...]] = (0, ())

    def raise_to(self, key: Key, index: int, evidence: tuple[Read | Write, ...], *, claim: int = 0) -> None:
        """Expect this version of the key, or a later one; and a server that has applied ``claim``, if it is higher."""
        if index > self.of_key.get(key, (0,))[0]:
            self.of_key[key] = (index, evidence)
        if max(index, claim) > self.highest[0]:
            self.highest = (max(index, claim), evidence)

    def merge(self, other: _Floor, operation: Read | Write) -> None:
        """Expect whatever ``other`` does, because of ``operation``."""
        for key, (index, evidence) in other.of_key.items():
            self.raise_to(key, index, (*evidence, operation))
        if other.highest[0] > self.highest[0]:
            self.highest = (other.highest[0], (*other.highest[1], operation))

    def missed_by(self, read: Read, versions: _Versions) -> tuple[Read | Write, ...] | None:
        """Return the evidence that this read's server lacks something; None if it does not, or nothing was promised."""
        if not read.promised:
            return None
        index, evidence = self.of_key.get(read.key, (0, ()))
        if versions.span(read)[1] < index:
            return evidence
        if read.applied is not None and read.applied < self.highest[0]:
            return self.highest[1]
        return None
