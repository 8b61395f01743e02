"""The comparison of digests on demand, before a replica serves (K3)."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.model.messages.base import Message


@dataclass(frozen=True, slots=True)
class CompareDigest(Message):
    """Replica whose digest must be compared before it serves, to every voter: mine is ``digest`` after ``slot``.

    Who follows without a vote sends it to the coordinator again and again: it is given a vote only after that.
    """

    number = 57
    since = 2
    boot: int
    slot: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class DigestCompared(Message):
    """Answer: the own digest after ``slot``.

    Empty: it is not known here any more, or not yet. In the latter case the digest follows when the slot is applied,
    and whoever says so has nothing to prove itself.
    """

    number = 58
    since = 2
    boot: int
    slot: int
    digest: bytes
