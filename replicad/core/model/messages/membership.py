"""Formation, who follows, and changes of the group."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.model.messages.base import Message


@dataclass(frozen=True, slots=True)
class Introduce(Message):
    """Node to all members while it is no voter or knows no coordinator: who am I, and what do I hold.

    Also coordinator to a node that has just lost its vote or its place: the configuration says so.

    ``state`` is ``empty`` (may take part in a first formation), ``lost`` (its data was damaged: it must be
    re-admitted), or ``formed``; ``configuration`` is the one that it recorded (empty: none). ``echo`` is the boot id
    last heard from the receiver: words meant for an earlier process of it do not count for a formation.
    """

    number = 25
    boot: int
    echo: int
    disk: str
    state: str
    committed: int
    applied: int
    configuration: bytes

    def invalid(self) -> str | None:
        """Also check the state's name."""
        reason = super(Introduce, self).invalid()
        if reason is None and self.state not in {"empty", "lost", "formed"}:
            reason = f"state {self.state[:40]!r} is not empty, lost or formed"
        return reason


@dataclass(frozen=True, slots=True)
class Form(Message):
    """First initial member to all: record this initial configuration, if your disk is still the empty one in it."""

    number = 26
    configuration: bytes


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """Coordinator to a node whose disk is not in the configuration: catch up with me, then I re-admit you."""

    number = 27
    epoch: int
    committed: int


@dataclass(frozen=True, slots=True)
class ChangeRequest(Message):
    """Member or mirror to coordinator: change the group in one step; ``change`` numbers the requests of ``boot``.

    ``kind`` is add, promote, demote, remove or move, each of the node ``argument``, or protocol. Asked again, of the
    next coordinator too, until it is answered.
    """

    number = 40
    boot: int
    change: int
    version: int
    kind: str
    argument: str


@dataclass(frozen=True, slots=True)
class ChangeAnswer(Message):
    """:class:`ChangeOutcome` for a peer that speaks version 1: an empty ``refusal``, or why it is refused."""

    number = 41
    boot: int
    change: int
    refusal: str


@dataclass(frozen=True, slots=True)
class MirrorHeartbeat(Message):
    """Coordinator to each mirror, every other heartbeat: fetch from me.

    ``version`` is that of the coordinator's configuration, ``committed`` its committed prefix; the other fields are
    those of :class:`Heartbeat`. A mirror answers nothing: it counts for nothing.
    """

    number = 42
    epoch: int
    version: int
    committed: int
    checkpoint: int
    checkpoint_digest: bytes
    digest_slot: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class ChangeOutcome(Message):
    """Coordinator to whoever asked for a change: it is done (an empty ``code``), or why it is refused.

    ``code`` is one of :class:`replicad.core.model.refusals.RefusalCode`, or that of a later release.
    """

    number = 43
    since = 2
    boot: int
    change: int
    code: str
    sentence: str

    def older(self) -> Message:
        """Return the answer without its code."""
        return ChangeAnswer(self.boot, self.change, self.sentence)
