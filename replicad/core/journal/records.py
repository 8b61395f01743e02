"""Records of the message log, as values. ``segments`` turns them into bytes and back.

A record belongs to one group. Replaying a group's records in order gives back its durable state (``recovery``).
"""

from __future__ import annotations

from typing import NamedTuple


class PromiseRecord(NamedTuple):
    """All slots are promised at ``epoch``. Written twice: here and in the promise file beside the log (S1)."""

    epoch: int


class SlotPromiseRecord(NamedTuple):
    """One slot is promised at ``(epoch, round)``, by the epoch's own coordinator that repairs it (rule T3)."""

    slot: int
    epoch: int
    round: int


class EntryRecord(NamedTuple):
    """``value`` was accepted for ``slot`` at ballot ``(epoch, round)``; ``decided``: it is known to be committed."""

    slot: int
    epoch: int
    round: int
    decided: bool
    value: bytes


class WatermarkRecord(NamedTuple):
    """Every slot up to ``committed`` is committed with the value that this log holds for it.

    Nothing waits for it: losing one only means that some slots are decided anew after a restart.
    """

    committed: int


class CheckpointRecord(NamedTuple):
    """The checkpoint at ``slot`` is committed by the group; the log up to it may go."""

    slot: int
    digest: bytes


class FormationRecord(NamedTuple):
    """The newest configuration of the group that is committed here, encoded: at first the initial one."""

    configuration: bytes


class DroppedRecord(NamedTuple):
    """The group is gone from this disk: no record of it before this one counts, or keeps a segment."""


Record = (
    PromiseRecord
    | SlotPromiseRecord
    | EntryRecord
    | WatermarkRecord
    | CheckpointRecord
    | FormationRecord
    | DroppedRecord
)
