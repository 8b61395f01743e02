"""Heartbeats, leases, and what rides along."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.model.messages.base import Message


@dataclass(frozen=True, slots=True)
class Heartbeat(Message):
    """Coordinator to each member, every ``heartbeat_us``.

    ``sequence`` numbers the round. A grant (L3) is ``grant_us > 0`` for the process ``grant_boot``, answering the
    lease request made at ``grant_request`` on the holder's own clock, valid for reads that wait for ``grant_slot``.
    ``acknowledged`` is what the coordinator knows this member to have acknowledged in this epoch.
    ``checkpoint``/``checkpoint_digest``: the newest committed checkpoint. ``digest_slot``/``digest``: the majority's
    digest there (K3); an empty digest with a slot means that there is no majority: stop. ``start``, ``committed`` and
    ``repaired`` are the watermark of :class:`Committed`.
    """

    number = 15
    epoch: int
    sequence: int
    start: int
    assigned: int
    committed: int
    acknowledged: int
    grant_boot: int
    grant_request: int
    grant_us: int
    grant_slot: int
    checkpoint: int
    checkpoint_digest: bytes
    digest_slot: int
    digest: bytes
    repaired: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HeartbeatAck(Message):
    """Member to coordinator: alive, loyal until now + lease.

    ``lease_request`` is the member's own clock when it asks for a lease, 0 when it wants none or gives its lease back
    (slow or full disk, leaving). ``matched`` is durable, ``applied`` is what it can read. ``digest_slot``/``digest``:
    its digest at the newest slot that is a multiple of ``digest_slots``. ``checkpoint``/``checkpoint_digest``: the
    newest checkpoint that it has written (an empty digest: it could not write that one).
    """

    number = 16
    epoch: int
    sequence: int
    boot: int
    matched: int
    applied: int
    lease_request: int
    digest_slot: int
    digest: bytes
    checkpoint: int
    checkpoint_digest: bytes
