"""What clients did and saw: the vocabulary that the consistency checkers judge.

A history is a sequence of `Operation`. Each happened on one key, between `call` and `returned`. Times are whatever
integers the caller counts in: virtual nanoseconds, or the number of the event. Two operations are ordered only if one
returned *strictly* before the other was called; equal times count as overlapping, because two events that carry the
same time may have happened in either order. (Numbering events, as a simulator can, gives the strictest check.)

How an operation ended decides how it is recorded:

* answered: `returned` and `result` are set. A failed compare-and-set (`result=False`) is an answer.
* definite failure: it never took effect, so it is not in the history at all.
* indefinite (time-out, lost connection, crashed contact): `returned` is None. It may take effect at any time after the
  call, or never. A write acknowledged with `ack=majority` or `ack=one` is indefinite too: reads may miss it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

Key: TypeAlias = Hashable
Value: TypeAlias = Hashable
"""Anything that compares by equality; None is reserved for "the key is absent"."""


@dataclass(frozen=True, slots=True)
class Get:
    """Read the key; the result is its value, or None if it is absent."""

    def __str__(self) -> str:
        return "get"


@dataclass(frozen=True, slots=True)
class Put:
    """Set the key to `value`, whatever was there; the result is ignored."""

    value: Value

    def __str__(self) -> str:
        return f"put {self.value!r}"


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key, present or not; the result is ignored."""

    def __str__(self) -> str:
        return "delete"


@dataclass(frozen=True, slots=True)
class Cas:
    """Set the key to `new` if nothing has changed since its value was `expected`; the result says whether it did.

    The server compares modify indexes. The history names the value that the client had read together with that index;
    None stands for `cas=0`, "only if absent". The checker knows what this translation may lose.
    """

    expected: Value | None
    new: Value

    def __str__(self) -> str:
        return f"cas {self.expected!r} -> {self.new!r}"


Action: TypeAlias = Get | Put | Delete | Cas


@dataclass(frozen=True, slots=True)
class Operation:
    """One action of one client on one key, with what is known about its end."""

    client: Hashable
    key: Key
    action: Action
    call: int
    returned: int | None = None
    result: Value | bool | None = None

    def invalid(self) -> str | None:
        """Say why this operation can't be judged, or None if it can."""
        if self.returned is None:
            return None
        if self.returned < self.call:
            return "it returned before it was called"
        if isinstance(self.action, Cas) and not isinstance(self.result, bool):
            return "a cas that returned needs True or False as its result"
        return None

    def __str__(self) -> str:
        if self.returned is None:
            return f"[{self.call}..?] client {self.client}: {self.action} (outcome unknown)"
        result = f" = {self.result!r}" if isinstance(self.action, Get | Cas) else ""
        return f"[{self.call}..{self.returned}] client {self.client}: {self.action}{result}"


class Recorder:
    """Collects a history while it happens; an operation that nobody ends stays indefinite."""

    def __init__(self) -> None:
        self._operations: dict[int, Operation] = {}
        self._calls = 0

    def invoke(self, client: Hashable, key: Key, action: Action, now: int) -> int:
        """Note a call; the number returned names it to `complete` or `fail`."""
        self._calls += 1
        self._operations[self._calls] = Operation(client, key, action, now)
        return self._calls

    def complete(self, number: int, now: int, result: Value | bool | None = None) -> None:
        """Note the answer to a call."""
        self._operations[number] = replace(self._operations[number], returned=now, result=result)

    def fail(self, number: int) -> None:
        """Note a definite failure: the call leaves the history."""
        del self._operations[number]

    def operations(self) -> list[Operation]:
        """Return the history so far, in order of the calls."""
        return list(self._operations.values())


@dataclass(frozen=True, slots=True)
class Write:
    """A write that took effect: ``index`` is its place in the total order of writes; ``value`` None removed the key."""

    key: Key
    index: int
    value: Value | None = None

    def __str__(self) -> str:
        return f"write {self.index}: {self.key!r} = {self.value!r}"


@dataclass(frozen=True, slots=True)
class Read:
    """A read that ``server`` answered with ``value`` (None: the key is absent)."""

    key: Key
    value: Value | None
    server: Hashable
    applied: int | None = None
    """The index up to which the server says it had applied writes; None if it said nothing."""
    promised: bool = True
    """Whether the session guarantees were asked for; if not, the read tells what was seen, and is never at fault."""

    def __str__(self) -> str:
        said = "" if self.applied is None else f", which says it has applied {self.applied}"
        return f"read {self.key!r} = {self.value!r} at {self.server}{said}"


Sessions: TypeAlias = Mapping[str, Sequence[Read | Write]]
"""Session -> its acknowledged operations in the order in which the session did them, one after the other."""
