"""An entry: what the store holds for one key, as a header and the value.

The header is packed fields, then a 16-byte hash. The fields take the shortest of three forms that holds them, told
apart by the two highest bits of the first byte (an index is below 2**62, all integers are big-endian):

====  ======  ==========================================================================================
bits  bytes   fields
====  ======  ==========================================================================================
00    8       create index, which is also the modify index; nothing else is set
01    16      create index, modify index; nothing else is set
10    48      create, modify and lock index, flags (8 bytes each), session (16)
====  ======  ==========================================================================================

The hash covers the key and everything else, so an entry proves itself, and the rolling digest needs no second look at
a value that is overwritten.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from replicad.core.model.limits import KEY_BYTES_MAX

HASH_BYTES = 16
NO_SESSION = bytes(16)
INDEX_MAX = (1 << 62) - 1

_CREATED = Struct(">Q")
_CHANGED = Struct(">QQ")
_FULL = Struct(">QQQQ16s")
_CHANGED_BIT = 1 << 62
_FULL_BIT = 1 << 63
_SIZES = (_CREATED.size, _CHANGED.size, _FULL.size)

HEADER_BYTES_MIN = _CREATED.size + HASH_BYTES
"""Bytes of the shortest header."""

_KEY_LENGTHS = tuple(length.to_bytes(2, "big") for length in range(KEY_BYTES_MAX + 1))

Fields = tuple[int, int, int, int, bytes]
"""``(create, modify, lock, flags, session)``."""


class Entry(NamedTuple):
    """One key's entry: the indexes of its creation, last change and last lock, flags, session, hash and value."""

    create: int
    modify: int
    lock: int
    flags: int
    session: bytes
    hash: bytes
    value: bytes


def pack_fields(create: int, modify: int, lock: int, flags: int, session: bytes) -> bytes:
    """Return the shortest form of these fields; raises struct.error for what is no unsigned 64-bit integer."""
    if flags or lock or session != NO_SESSION:
        return _FULL.pack(create | _FULL_BIT, modify, lock, flags, session)
    return _CREATED.pack(create) if create == modify else _CHANGED.pack(create | _CHANGED_BIT, modify)


def fields_bytes(data: bytes) -> int:
    """Return how many bytes the fields of encoded entry ``data`` take; raises ValueError if it has no whole header."""
    form = data[0] >> 6 if data else 3
    size = _SIZES[form] if form < len(_SIZES) else len(data)
    if len(data) < size + HASH_BYTES:
        raise ValueError(f"an entry of {len(data)} bytes does not hold its header")
    return size


def unpack_fields(data: bytes) -> Fields:
    """Return the fields of encoded entry ``data``, which is one that this module has made."""
    form = data[0] >> 6
    if form == 0:
        (create,) = _CREATED.unpack_from(data)
        return create, create, 0, 0, NO_SESSION
    if form == 1:
        create, modify = _CHANGED.unpack_from(data)
        return create ^ _CHANGED_BIT, modify, 0, 0, NO_SESSION
    create, modify, lock, flags, session = _FULL.unpack_from(data)
    return create ^ _FULL_BIT, modify, lock, flags, session


def hash_of(key: bytes, fields: bytes, value: bytes) -> bytes:
    """Return the 16-byte hash of an entry whose packed fields are ``fields``."""
    return blake2b(b"".join((_KEY_LENGTHS[len(key)], key, fields, value)), digest_size=HASH_BYTES).digest()


def content_hash(key: bytes, data: bytes) -> bytes:
    """Return the hash recomputed from the content of encoded entry ``data``; ValueError if it has no whole header."""
    size = fields_bytes(data)
    return hash_of(key, data[:size], data[size + HASH_BYTES :])


def stored_hash(data: bytes) -> bytes:
    """Return the hash that encoded entry ``data`` carries; raises ValueError if it has no whole header."""
    size = fields_bytes(data)
    return data[size : size + HASH_BYTES]


def make_entry(
    key: bytes, create: int, modify: int, value: bytes, flags: int = 0, lock: int = 0, session: bytes = NO_SESSION
) -> Entry:
    """Return an entry with its hash."""
    hashed = hash_of(key, pack_fields(create, modify, lock, flags, session), value)
    return Entry(create, modify, lock, flags, session, hashed, value)


def encode_entry(entry: Entry) -> bytes:
    """Return the bytes that the store holds for ``entry``."""
    return b"".join((pack_fields(*entry[:5]), entry.hash, entry.value))


def decode_entry(data: bytes) -> Entry:
    """Return the entry in ``data``; raises ValueError if it has no whole header."""
    size = fields_bytes(data)
    hashed = data[size : size + HASH_BYTES]
    return Entry(*unpack_fields(data), hashed, data[size + HASH_BYTES :])
