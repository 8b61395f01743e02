"""An entry: what the store holds for one key, as a fixed header and the value.

Layout: create, modify and lock index, flags (8 bytes each, big-endian), session (16), hash (16), then the value. The
hash covers the key and everything else, so an entry proves itself, and the rolling digest needs no second look at a
value that is overwritten.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

HASH_BYTES = 16
NO_SESSION = bytes(16)

FIELDS = Struct(">QQQQ16s")
"""The hashed part of the header: create, modify, lock, flags, session."""
HEADER = Struct(">QQQQ16s16s")
"""The whole header: the hashed part, and the hash."""
FIELDS_BYTES = FIELDS.size
HEADER_BYTES = HEADER.size


class Entry(NamedTuple):
    """One key's entry: the indexes of its creation, last change and last lock, flags, session, hash and value."""

    create: int
    modify: int
    lock: int
    flags: int
    session: bytes
    hash: bytes
    value: bytes


def hash_of(key: bytes, fields: bytes, value: bytes) -> bytes:
    """Return the 16-byte hash of an entry whose packed :data:`FIELDS` are ``fields``."""
    return blake2b(b"".join((len(key).to_bytes(2, "big"), key, fields, value)), digest_size=HASH_BYTES).digest()


def entry_hash(key: bytes, create: int, modify: int, lock: int, flags: int, session: bytes, value: bytes) -> bytes:
    """Return the 16-byte hash of an entry's content."""
    return hash_of(key, FIELDS.pack(create, modify, lock, flags, session), value)


def content_hash(key: bytes, data: bytes) -> bytes:
    """Return the hash recomputed from the content of encoded entry ``data`` (at least a header long)."""
    return hash_of(key, data[:FIELDS_BYTES], data[HEADER_BYTES:])


def stored_hash(data: bytes) -> bytes:
    """Return the hash that encoded entry ``data`` carries."""
    return data[FIELDS_BYTES:HEADER_BYTES]


def make_entry(
    key: bytes, create: int, modify: int, value: bytes, flags: int = 0, lock: int = 0, session: bytes = NO_SESSION
) -> Entry:
    """Return an entry with its hash."""
    return Entry(
        create, modify, lock, flags, session, entry_hash(key, create, modify, lock, flags, session, value), value
    )


def encode_entry(entry: Entry) -> bytes:
    """Return the bytes that the store holds for ``entry``."""
    return HEADER.pack(*entry[:6]) + entry.value


def decode_entry(data: bytes) -> Entry:
    """Return the entry in ``data``; raises ValueError if it is shorter than a header."""
    if len(data) < HEADER_BYTES:
        raise ValueError(f"an entry has at least {HEADER_BYTES} bytes, not {len(data)}")
    create, modify, lock, flags, session, hashed = HEADER.unpack_from(data)
    return Entry(create, modify, lock, flags, session, hashed, data[HEADER_BYTES:])
