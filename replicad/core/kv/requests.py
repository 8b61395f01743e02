"""The request table: which request ids were applied in the last W slots, and with which result (rules D1, D2).

The table holds exact ids. An operation applies only up to slot ``base + W``, and its record stays W slots after the
slot in which it was applied, so a second copy either meets the record or is too old to apply.

Remembered per id is one integer, ``index << 34 | fingerprint << 2 | status``: the table of a busy group has a million
of them. The store keeps one record per slot that applied something: a msgpack list ``[id, index, fingerprint << 2 |
status, id, …]`` in the order of application.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from typing import cast

import msgpack

from replicad.core.kv.digest import requests_part
from replicad.core.model.errors import DamageError
from replicad.core.model.operations import IDEMPOTENCY_ID_BYTES, MORE, REQUEST_ID_BYTES, Result

INDEX_SHIFT = 34
LOW_MASK = (1 << INDEX_SHIFT) - 1
STATUS_MASK = 3


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


def unpack_result(packed: int) -> Result:
    """Return the result in a table value."""
    return Result(packed & STATUS_MASK, packed >> INDEX_SHIFT)


def encode_record(parts: list[bytes | int]) -> bytes:
    """Return the record of one slot from its flat list ``[id, index, fingerprint << 2 | status, …]``."""
    return cast("bytes", msgpack.packb(parts))


def decode_record(slot: int, record: bytes) -> list[tuple[bytes, int]]:
    """Return ``[(id, table value)]`` of one slot's record; raises DamageError for anything else."""
    try:
        parts = msgpack.unpackb(record)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise DamageError(f"the request record of slot {slot} is not msgpack: {error}") from error
    if type(parts) is not list or not parts or len(parts) % 3:
        raise DamageError(f"the request record of slot {slot} is not a list of triples")
    pairs = []
    for at in range(0, len(parts), 3):
        request_id, index, low = parts[at : at + 3]
        if (
            type(request_id) is not bytes
            or len(request_id) not in {REQUEST_ID_BYTES, IDEMPOTENCY_ID_BYTES}
            or type(index) is not int
            or index <= 0
            or type(low) is not int
            or not 0 <= low <= LOW_MASK
            or low & STATUS_MASK > MORE
        ):
            raise DamageError(f"the request record of slot {slot} has a triple of wrong types at {at}")
        pairs.append((request_id, index << INDEX_SHIFT | low))
    return pairs


class RequestTable:
    """Exact request ids of the last ``window`` slots. ``known`` maps an id to its table value (read it directly)."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.known: dict[bytes, int] = {}
        self._slots: deque[tuple[int, tuple[bytes, ...], int]] = deque()

    def load(self, slot: int, record: bytes) -> None:
        """Take over a stored record; slots ascend. Raises DamageError if it is malformed."""
        pairs = decode_record(slot, record)
        self.known.update(pairs)
        self._slots.append((slot, tuple([request_id for request_id, _ in pairs]), requests_part(slot, record)))

    def __len__(self) -> int:
        """Return how many ids are remembered."""
        return len(self.known)

    def close_slot(self, slot: int, ids: tuple[bytes, ...], record: bytes) -> int:
        """Note that ``ids``, already in :attr:`known`, were applied in ``slot``; return the record's digest part."""
        part = requests_part(slot, record)
        self._slots.append((slot, ids, part))
        return part

    def evict(self, applied: int) -> tuple[int, int] | None:
        """Forget one slot that fell out of the window once ``applied`` is applied.

        Returns the slot and its digest part, or None if there is none. Call until None: a window that got narrower
        has several.
        """
        if not self._slots or self._slots[0][0] > applied - self.window:
            return None
        slot, ids, part = self._slots.popleft()
        for request_id in ids:
            del self.known[request_id]
        return slot, part
