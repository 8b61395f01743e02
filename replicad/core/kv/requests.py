"""The request table: which request ids were applied in the last W slots, and with which result (rules D1, D2).

The table holds exact ids. An operation applies only up to slot ``base + W``, and its record stays W slots after the
slot in which it was applied, so a second copy either meets the record or is too old to apply.

Ids that contacts make are numbers that rise by one, and so do the indexes in a slot. So they are kept as *runs*: first
id, first index, how many, and their statuses. A busy group's table, of a million ids, takes a few bytes for each. An id
from an idempotency key (of another length) is kept by itself, with a fingerprint of what it was used for.

The store keeps one record per slot that applied something: a flat msgpack list of quadruples, in the order of
application: ``first id, first index, count, statuses`` of a run (one integer if all statuses are the same, else a byte
for each), or ``id, index, fingerprint, status`` of an idempotency key.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from hashlib import blake2b
from typing import NamedTuple, cast

import msgpack

from replicad.core.kv.digest import requests_part
from replicad.core.model.errors import DamageError
from replicad.core.model.operations import APPLIED, IDEMPOTENCY_ID_BYTES, MORE, REFUSED, REQUEST_ID_BYTES, Result

NUMBER_BITS = 48
"""The lower bits of a contact's id, read as one integer; above them is the boot id."""
_NUMBER_MASK = (1 << NUMBER_BITS) - 1
_STATUSES = frozenset({REFUSED, APPLIED, MORE})
_FINGERPRINT_BITS = 32
_COMPACT_AT = 512
"""So many forgotten runs stay in front of a list before it is moved up."""


class Single(NamedTuple):
    """One id from an idempotency key, the fingerprint of what it was used for, and its result."""

    request_id: bytes
    index: int  # type: ignore[assignment]  # the domain's word, though tuples have a method of that name
    fingerprint: int
    status: int


class Run(NamedTuple):
    """Consecutive ids (as integers) of one boot that took consecutive indexes, from ``first`` and ``index`` on."""

    first: int
    index: int  # type: ignore[assignment]  # the domain's word, though tuples have a method of that name
    last: int
    statuses: int | bytes
    """Of all of them, or a byte for each."""


def fingerprint(request_id: bytes, code: int, key: bytes, value: bytes, flags: int, cas: int) -> int:
    """Return 32 bits of what an operation asks, if its id comes from an idempotency key; else 0.

    Ids that a contact made itself cannot meet another content. ``base`` is left out: a client's retry has a new one.
    Raises ValueError for an id of any other length.
    """
    if len(request_id) == REQUEST_ID_BYTES:
        return 0
    if len(request_id) != IDEMPOTENCY_ID_BYTES:
        raise ValueError(f"a request id has {REQUEST_ID_BYTES} or {IDEMPOTENCY_ID_BYTES} bytes, not {len(request_id)}")
    content = msgpack.packb((code, key, value, flags, cas))
    return int.from_bytes(blake2b(content, digest_size=4).digest(), "big")


class _Boot:
    """The runs of one boot in the order of their ids, which never overlap; those before ``head`` are forgotten."""

    __slots__ = ("firsts", "head", "runs")

    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.runs: list[Run] = []
        self.head = 0

    def add(self, run: Run) -> None:
        at = len(self.firsts)
        if at > self.head and run.first < self.firsts[-1]:
            at = bisect_left(self.firsts, run.first, self.head)
        self.firsts.insert(at, run.first)
        self.runs.insert(at, run)

    def remove(self, run: Run) -> bool:
        """Forget a run; returns whether none is left."""
        if self.firsts[self.head] == run.first:
            self.head += 1  # the oldest run nearly always: the lists are moved up only now and then
            if self.head >= _COMPACT_AT and 2 * self.head >= len(self.firsts):
                del self.firsts[: self.head], self.runs[: self.head]
                self.head = 0
        else:
            at = bisect_left(self.firsts, run.first, self.head)
            del self.firsts[at], self.runs[at]
        return self.head == len(self.firsts)

    def find(self, number: int) -> Run | None:
        at = bisect_right(self.firsts, number, self.head)
        if at > self.head and number <= self.runs[at - 1].last:
            return self.runs[at - 1]
        return None

    def overlaps(self, run: Run) -> bool:
        at = bisect_right(self.firsts, run.last, self.head)
        return at > self.head and self.runs[at - 1].last >= run.first


class RequestTable:
    """Exact request ids of the last ``window`` slots.

    A slot is taken in by :meth:`add_run` and :meth:`add_single` in the order of application, and :meth:`close_slot`.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._boots: dict[int, _Boot] = {}
        self._singles: dict[bytes, Single] = {}
        self._slots: deque[tuple[int, tuple[Run | Single, ...], int]] = deque()
        self._open: list[Run | Single] = []
        self._count = 0

    def __len__(self) -> int:
        """Return how many ids are remembered."""
        return self._count

    def find(self, request_id: bytes) -> tuple[Result, int] | None:
        """Return the result that is remembered of an id, and the fingerprint (0: it has none), or None."""
        if len(request_id) != REQUEST_ID_BYTES:
            single = self._singles.get(request_id)
            return None if single is None else (Result(single.status, single.index), single.fingerprint)
        number = int.from_bytes(request_id, "big")
        boot = self._boots.get(number >> NUMBER_BITS)
        run = boot.find(number) if boot is not None else None
        if run is None:
            return None
        at = number - run.first
        status = run.statuses if isinstance(run.statuses, int) else run.statuses[at]
        return Result(status, run.index + at), 0

    def ceiling(self, number: int) -> int:
        """Return the lowest integer above ``number`` that may be a remembered id, or the end of its boot's ids."""
        key = number >> NUMBER_BITS
        boot = self._boots.get(key)
        if boot is not None:
            at = bisect_right(boot.firsts, number, boot.head)
            if at < len(boot.firsts):
                return boot.firsts[at]
        return (key + 1) << NUMBER_BITS

    # --- taking in a slot ---------------------------------------------------------------------------------------------

    def add_run(self, first: int, index: int, statuses: bytes) -> None:
        """Remember ids that are not remembered: ``first``, an integer, and its successors, one for each status."""
        same = statuses.count(statuses[0]) == len(statuses)
        self._add(Run(first, index, first + len(statuses) - 1, statuses[0] if same else statuses))

    def add_single(self, single: Single) -> None:
        """Remember an id from an idempotency key, which is not remembered."""
        self._singles[single.request_id] = single
        self._open.append(single)
        self._count += 1

    def _add(self, run: Run) -> None:
        key = run.first >> NUMBER_BITS
        boot = self._boots.get(key)
        if boot is None:
            boot = self._boots[key] = _Boot()
        boot.add(run)
        self._open.append(run)
        self._count += ids_in(run)

    def close_slot(self, slot: int) -> tuple[bytes, int]:
        """End the slot; return its record and that record's part of the digest, or (b"", 0) if nothing was added."""
        if not self._open:
            return b"", 0
        parts: list[bytes | int] = []
        for item in self._open:
            if isinstance(item, Single):
                parts += item
            else:
                parts += (item.first.to_bytes(REQUEST_ID_BYTES, "big"), item.index, ids_in(item), item.statuses)
        record = cast("bytes", msgpack.packb(parts))
        return record, self._close(slot, record)

    def _close(self, slot: int, record: bytes) -> int:
        part = requests_part(slot, record)
        self._slots.append((slot, tuple(self._open), part))
        self._open = []
        return part

    def load(self, slot: int, record: bytes) -> None:
        """Take over a stored record; slots ascend. Raises DamageError if it is malformed or names an id again."""
        for item in decode_record(slot, record):
            if self._knows(item):
                raise DamageError(f"the request record of slot {slot} names an id that is remembered already")
            if isinstance(item, Single):
                self.add_single(item)
            else:
                self._add(item)
        self._close(slot, record)

    def _knows(self, item: Run | Single) -> bool:
        if isinstance(item, Single):
            return item.request_id in self._singles
        boot = self._boots.get(item.first >> NUMBER_BITS)
        return boot is not None and boot.overlaps(item)

    # --- forgetting ---------------------------------------------------------------------------------------------------

    def evict(self, applied: int) -> tuple[int, int] | None:
        """Forget one slot that fell out of the window once ``applied`` is applied.

        Returns the slot and its digest part, or None if there is none. Call until None: a window that got narrower
        has several.
        """
        if not self._slots or self._slots[0][0] > applied - self.window:
            return None
        slot, items, part = self._slots.popleft()
        for item in items:
            self._count -= ids_in(item)
            if isinstance(item, Single):
                del self._singles[item.request_id]
            else:
                key = item.first >> NUMBER_BITS
                if self._boots[key].remove(item):
                    del self._boots[key]
        return slot, part


def ids_in(item: Run | Single) -> int:
    """Return how many ids a part of a record holds."""
    return 1 if isinstance(item, Single) else item.last - item.first + 1


def decode_record(slot: int, record: bytes) -> list[Run | Single]:
    """Return what one slot's record holds; raises DamageError."""
    try:
        parts = msgpack.unpackb(record)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise DamageError(f"the request record of slot {slot} is not msgpack: {error}") from error
    if type(parts) is not list or not parts or len(parts) % 4:
        raise DamageError(f"the request record of slot {slot} is not a list of quadruples")
    items: list[Run | Single] = []
    for at in range(0, len(parts), 4):
        item = _decode(*parts[at : at + 4])
        if item is None:
            raise DamageError(f"the request record of slot {slot} has a quadruple of wrong types at {at}")
        items.append(item)
    return items


def _decode(request_id: object, index: object, number: object, statuses: object) -> Run | Single | None:
    """Return what a quadruple of a record says, or None if it is none."""
    if type(request_id) is not bytes or type(index) is not int or index <= 0 or type(number) is not int:
        return None
    if len(request_id) == IDEMPOTENCY_ID_BYTES:
        good = type(statuses) is int and statuses in _STATUSES and 0 <= number < 1 << _FINGERPRINT_BITS
        return Single(request_id, index, number, cast("int", statuses)) if good else None
    first = int.from_bytes(request_id, "big")
    if len(request_id) != REQUEST_ID_BYTES or number <= 0 or (first & _NUMBER_MASK) + number - 1 > _NUMBER_MASK:
        return None
    if type(statuses) is int:
        good = statuses in _STATUSES
    else:
        good = type(statuses) is bytes and len(statuses) == number and _STATUSES.issuperset(statuses)
    return Run(first, index, first + number - 1, cast("int | bytes", statuses)) if good else None
