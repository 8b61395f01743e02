"""Operations, batches and results: what clients ask, and the opaque bytes that travel and are logged.

An operation is encoded once, by the contact. A batch carries the encoded operations unchanged.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import msgpack

from replicad.core.model.limits import KEY_BYTES_MAX

PUT = 1
DELETE = 2
DELETE_PREFIX = 3
"""Deletes at most :data:`DELETE_SLICE` keys that start with the key; status MORE says that some are left."""

DELETE_SLICE = 128

NO_CAS = -1

NOOP = 0
OPERATIONS = 1
CONFIGURATION = 2
CHECKPOINT = 3
"""Kinds of batch. Only OPERATIONS takes indexes."""

REMOTE_WRITE = "remote-write"
ACTIVE = "active"
"""How a group feeds its log: the coordinator proposes all batches (a primary), or gives contacts tickets for theirs (a
sequencer)."""

REFUSED = 0
APPLIED = 1
MORE = 2
MISMATCH = 3
"""Statuses of an applied operation: its condition failed, it took effect, a slice of it did, or its idempotency key
was used before with another content (nothing happened)."""
EXPIRED = 4
"""The slot is beyond the operation's window (rule D2): nothing happened and nothing is remembered."""

ACK_ALL = 0
ACK_MAJORITY = 1
ACK_ONE = 2

RequestId = bytes
"""14 bytes (boot id, number) made by the contact, or 16 bytes hashed from an idempotency key."""

REQUEST_ID_BYTES = 14
IDEMPOTENCY_ID_BYTES = 16


class Operation(NamedTuple):
    """One operation as it is encoded: ``base`` is the contact's contiguous committed prefix at creation (rule D2)."""

    request_id: bytes
    base: int
    code: int
    key: bytes
    value: bytes
    flags: int
    cas: int


class Result(NamedTuple):
    """What one operation did: a status and the index that the (first) application took."""

    status: int
    index: int  # type: ignore[assignment]  # the domain's word, though tuples have a method of that name


def make_request_id(boot: int, number: int) -> RequestId:
    """Return the id of the ``number``-th request of one process start."""
    return boot.to_bytes(8, "big") + number.to_bytes(6, "big")


def encode_operation(operation: tuple[bytes, int, int, bytes, bytes, int, int]) -> bytes:
    """Return the bytes of one operation (an :class:`Operation` or a plain tuple in its field order)."""
    return cast("bytes", msgpack.packb(operation))


def decode_operation(data: bytes) -> Operation:
    """Return the operation in ``data``; raises ValueError for anything else."""
    fields = msgpack.unpackb(data, use_list=False)
    if type(fields) is not tuple or len(fields) != len(Operation._fields):
        raise ValueError("not an operation")
    return Operation(*fields)


def check_operation(data: bytes) -> Operation:
    """Return the operation in ``data`` if every replica can apply it; raises ValueError with the reason.

    What a peer forwards is checked once, before it gets a slot: after that it cannot be refused any more.
    """
    try:
        operation = decode_operation(data)
    except (TypeError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"not an operation: {error}") from error
    request_id, base, code, key, value, flags, cas = operation
    if type(request_id) is not bytes or len(request_id) not in {REQUEST_ID_BYTES, IDEMPOTENCY_ID_BYTES}:
        raise ValueError("its request id has a wrong length")
    if any(type(number) is not int for number in (base, code, flags, cas)):
        raise ValueError("a number is no integer")
    if base < 0 or code not in {PUT, DELETE, DELETE_PREFIX} or not 0 <= flags < 1 << 64 or cas < NO_CAS:
        raise ValueError("a number is out of range")
    if type(key) is not bytes or type(value) is not bytes or len(key) > KEY_BYTES_MAX:
        raise ValueError("its key or value is no bytes, or too long")
    if not key and code != DELETE_PREFIX:
        raise ValueError("its key is empty")
    return operation


def encode_batch(kind: int, payload: object = None) -> bytes:
    """Return the bytes of a batch: for OPERATIONS the payload is the list of encoded operations."""
    return cast("bytes", msgpack.packb((kind, payload)))


def decode_batch(value: bytes) -> tuple[int, object]:
    """Return ``(kind, payload)`` of a batch; raises ValueError for anything else."""
    fields = msgpack.unpackb(value, use_list=False)
    if type(fields) is not tuple or len(fields) != 2 or type(fields[0]) is not int or not 0 <= fields[0] <= CHECKPOINT:
        raise ValueError("not a batch")
    return fields


NOOP_BATCH = encode_batch(NOOP)
CHECKPOINT_BATCH = encode_batch(CHECKPOINT)
