"""Checkpoints and their transfer."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.model.messages.base import Message


@dataclass(frozen=True, slots=True)
class CheckpointRequest(Message):
    """Any member to the coordinator: take a checkpoint now."""

    number = 22


@dataclass(frozen=True, slots=True)
class FetchCheckpoint(Message):
    """Replica that needs a transfer to one that offered a checkpoint: send the bytes from ``offset`` on."""

    number = 23
    slot: int
    offset: int


@dataclass(frozen=True, slots=True)
class CheckpointChunk(Message):
    """Bytes of the checkpoint file at ``slot``; ``total`` is the file's length (0: it is not here any more)."""

    number = 24
    slot: int
    offset: int
    total: int
    data: bytes
