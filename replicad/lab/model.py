"""What the committed slots mean: a second, naive key-value machine that shares no code with ``core/kv``.

It keeps every version of every key and every request id for ever, so that it can say what any state of the past held.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from replicad.core.model.operations import (
    APPLIED,
    DELETE,
    DELETE_PREFIX,
    DELETE_SLICE,
    EXPIRED,
    IDEMPOTENCY_ID_BYTES,
    MISMATCH,
    MORE,
    NO_CAS,
    OPERATIONS,
    PUT,
    REFUSED,
    Operation,
    Result,
    decode_batch,
    decode_operation,
)


@dataclass(slots=True)
class Version:
    """A key as some slot left it; ``value`` None: absent."""

    slot: int
    value: bytes | None
    flags: int = 0
    create: int = 0
    modify: int = 0
    index: int = 0
    """The operation that left it so, also if that removed the key."""


ABSENT = Version(0, None)


@dataclass(slots=True)
class Effect:
    """The latest slot in which a request id was carried out, its operation, and its result."""

    slot: int
    operation: Operation
    result: Result
    times: int = 1


@dataclass(slots=True)
class Model:
    """The state after the slots applied so far, and before. ``window`` is W of rule D2."""

    window: int
    slot: int = 0
    index: int = 0
    versions: dict[bytes, list[Version]] = field(default_factory=dict)
    effects: dict[bytes, Effect] = field(default_factory=dict)
    results: dict[int, list[tuple[bytes, Result]]] = field(default_factory=dict)
    """Slot -> its operations' request ids and the results that the slot gave them, in order."""
    answers: dict[bytes, list[Result]] = field(default_factory=dict)
    """Request id -> every result that any slot gave it."""
    repeated: list[bytes] = field(default_factory=list)
    """Request ids that took effect again after their window was over."""

    def apply(self, value: bytes) -> None:
        """Apply the batch of the next slot; raises ValueError or TypeError for bytes that are no batch."""
        self.slot += 1
        kind, payload = decode_batch(value)
        if kind != OPERATIONS:
            return
        if not isinstance(payload, tuple):
            raise TypeError(f"the batch of slot {self.slot} holds no list of operations")
        results = self.results.setdefault(self.slot, [])
        for encoded in payload:
            self.index += 1
            operation = decode_operation(encoded)
            result = self._carry_out(operation)
            results.append((operation.request_id, result))
            self.answers.setdefault(operation.request_id, []).append(result)

    def _carry_out(self, operation: Operation) -> Result:
        known = self.effects.get(operation.request_id)
        if known is not None and self.slot - known.slot <= self.window:
            if len(operation.request_id) == IDEMPOTENCY_ID_BYTES and operation[2:] != known.operation[2:]:
                return Result(MISMATCH, self.index)
            return known.result
        if self.slot > operation.base + self.window:
            return Result(EXPIRED, self.index)
        result = Result(self._change(operation), self.index)
        effect = Effect(self.slot, operation, result)
        if known is not None:
            effect.times = known.times + 1
            self.repeated.append(operation.request_id)
        self.effects[operation.request_id] = effect
        return result

    def _change(self, operation: Operation) -> int:
        if operation.code == DELETE_PREFIX:
            return self._delete_prefix(operation.key)
        now = self.at(operation.key, self.slot)
        present = now.value is not None
        if operation.code == DELETE:
            if present and operation.cas not in {NO_CAS, now.modify}:
                return REFUSED
            if present:
                self._write(operation.key, Version(self.slot, None))
            return APPLIED
        if operation.code != PUT:
            raise ValueError(f"operation code {operation.code} is not known to the model")
        if operation.cas not in (NO_CAS, now.modify if present else 0):
            return REFUSED
        if not present or (now.value, now.flags) != (operation.value, operation.flags):
            create = now.create if present else self.index
            self._write(operation.key, Version(self.slot, operation.value, operation.flags, create, self.index))
        return APPLIED

    def _delete_prefix(self, prefix: bytes) -> int:
        keys = sorted(k for k in self.versions if k.startswith(prefix) and self.at(k, self.slot).value is not None)
        for key in keys[:DELETE_SLICE]:
            self._write(key, Version(self.slot, None))
        return MORE if len(keys) > DELETE_SLICE else APPLIED

    def _write(self, key: bytes, version: Version) -> None:
        version.index = self.index
        self.versions.setdefault(key, []).append(version)

    def at(self, key: bytes, slot: int) -> Version:
        """Return the key as it was after ``slot``."""
        versions = self.versions.get(key, [])
        found = bisect_right(versions, slot, key=lambda version: version.slot)
        return versions[found - 1] if found else ABSENT

    def content(self, slot: int) -> dict[bytes, Version]:
        """Return all keys present after ``slot``."""
        every = ((key, self.at(key, slot)) for key in sorted(self.versions))
        return {key: version for key, version in every if version.value is not None}
