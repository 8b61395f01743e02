"""Protocol constants: equal on all nodes of a group, compared by checksum in the peer handshake.

Times are integer microseconds. Relations between the constants are checked when they are built, each with its reason.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass, fields

KEY_BYTES_MAX = 500
"""LMDB's own limit is 511."""

FRAME_BYTES_MAX = 8 * 1024 * 1024
"""One peer frame; a longer one closes the link."""

PEER_VERSION_MIN = 1
PEER_VERSION_MAX = 3
"""Versions of the peer protocol that this release speaks: its own, the one of the release before, and those between."""

STATE_MACHINE_VERSION = 2
"""Version of what ``core/kv`` computes; agreed in the group's configuration."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Constants of one group's protocol."""

    lease_us: int = 300_000
    """Lease length Λ: how long a voter stays with a coordinator whose heartbeat it acknowledged."""
    heartbeat_us: int = 50_000
    """Interval between two heartbeats."""
    rate_bound_ppm: int = 10_000
    """ρ: two clocks' rates differ by less than this many parts per million."""
    stagger_us: int = 40_000
    """A candidate waits up to this long times its rank, so that split votes are rare."""
    stall_after_us: int = 250_000
    """A flush, or an unanswered slot, older than this costs the lease (a coordinator: its office)."""
    value_bytes_max: int = 512 * 1024
    batch_operations_max: int = 1024
    batch_bytes_max: int = 1024 * 1024
    open_slots_max: int = 256
    open_bytes_max: int = 16 * 1024 * 1024
    """Slots (and their bytes) that are assigned but not yet committed."""
    pipelined_slots: int = 4
    """With so many slots on their way, a small batch waits and grows until one of them is committed."""
    tickets_max: int = 8
    """Tickets of one contact that are asked for or whose slots are not yet chosen (active replication)."""
    hand_on_bytes: int = 16_384
    """From this size on, other members propose every other operation of the sequencer's own clients."""
    repair_after_us: int = 150_000
    """A ticket whose batch has not come for so long is a hole: its slot is repaired."""
    request_window_slots: int = 16_384
    """W: slots for which a request id is remembered, and within which an operation may be applied."""
    checkpoint_slots: int = 100_000
    checkpoint_bytes: int = 64 * 1024 * 1024
    """A checkpoint is due after so many slots, or so many bytes of values."""
    retained_slots: int = 2_048
    retained_bytes: int = 32 * 1024 * 1024
    """Slots (at most so many bytes) kept in memory below the checkpoint for members that are a little behind."""
    join_lag_slots: int = 64
    """A member that is closer than this to the last assigned slot may join the view."""
    digest_slots: int = 64
    """Replicas compare digests at slots that are multiples of this."""
    page_entries: int = 2_000
    page_bytes: int = 1024 * 1024
    """Size of one page of a promise, of fetched values, or of a catch-up answer."""

    def __post_init__(self) -> None:
        """Refuse constants that break the protocol's arithmetic."""
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name} must be positive")
        if self.lease_us < 4 * self.heartbeat_us:
            raise ValueError("lease_us must be at least 4 heartbeats, or one lost heartbeat costs the office")
        if self.rate_bound_ppm >= 200_000:
            raise ValueError("rate_bound_ppm must be below 200000 (20 %)")
        if self.batch_bytes_max < self.value_bytes_max:
            raise ValueError("batch_bytes_max must hold one value of value_bytes_max")
        if 2 * self.batch_bytes_max + self.page_bytes > FRAME_BYTES_MAX:
            raise ValueError("batch_bytes_max and page_bytes do not fit a frame")

    def checksum(self) -> str:
        """Return a short digest that two nodes compare in their handshake."""
        return hashlib.blake2b(repr(astuple(self)).encode(), digest_size=8).hexdigest()

    def shortened(self, duration_us: int) -> int:
        """Return ``duration·(1-ρ)``: what is left of a duration on the clock that must end first."""
        return duration_us * (1_000_000 - self.rate_bound_ppm) // 1_000_000
