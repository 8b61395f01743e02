"""The rolling digest: a 128-bit multiset hash of everything that the replicas of a group must agree on.

The digest is the sum, modulo 2**128, of one hash per item: every entry, the request record of every remembered slot,
and the configuration. A sum can be updated with one subtraction and one addition per write, whatever the order, and
it can be recomputed from a stored or transferred state without knowing how that state came about.

It finds divergence and decay; it is no defence against a member that forges collisions on purpose.
"""

from __future__ import annotations

from hashlib import blake2b

from replicad.core.kv.entries import content_hash, stored_hash
from replicad.core.model.errors import DamageError
from replicad.core.model.limits import KEY_BYTES_MAX

DIGEST_BYTES = 16
MASK = (1 << 128) - 1

# An entry's hash starts with the key's length (at most 500), so these prefixes keep the three kinds of items apart.
_REQUESTS = b"\xff\xff"
_CONFIGURATION = b"\xff\xfe"


def to_int(hashed: bytes) -> int:
    """Return a 16-byte hash as the number that is summed."""
    return int.from_bytes(hashed, "big")


def to_bytes(total: int) -> bytes:
    """Return the 16 bytes of a digest."""
    return total.to_bytes(DIGEST_BYTES, "big")


def requests_part(slot: int, record: bytes) -> int:
    """Return what the request record of one slot adds to the digest."""
    return to_int(blake2b(_REQUESTS + slot.to_bytes(8, "big") + record, digest_size=DIGEST_BYTES).digest())


def configuration_part(configuration: bytes) -> int:
    """Return what the configuration adds to the digest (nothing while there is none)."""
    if not configuration:
        return 0
    return to_int(blake2b(_CONFIGURATION + configuration, digest_size=DIGEST_BYTES).digest())


class StateDigest:
    """The digest of a whole state, recomputed from its bytes: no stored hash is believed."""

    def __init__(self) -> None:
        self._total = 0

    def add_entry(self, key: bytes, entry: bytes) -> None:
        """Count one entry; raises DamageError if it does not carry the hash of its own content."""
        try:
            hashed = stored_hash(entry)
            good = len(key) <= KEY_BYTES_MAX and hashed == content_hash(key, entry)
        except ValueError as error:
            raise DamageError(f"the entry of key {key[:64]!r} is none: {error}") from error
        if not good:
            raise DamageError(f"the entry of key {key[:64]!r} is not what its hash says")
        self._total += to_int(hashed)

    def add_requests(self, slot: int, record: bytes) -> None:
        """Count the request record of one slot."""
        self._total += requests_part(slot, record)

    def add_configuration(self, configuration: bytes) -> None:
        """Count the configuration."""
        self._total += configuration_part(configuration)

    def value(self) -> bytes:
        """Return the digest of what was counted so far."""
        return to_bytes(self._total & MASK)
