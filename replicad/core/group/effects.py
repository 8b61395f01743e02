"""What a step of the replica wants done, in the order in which it must be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.core.journal.records import Record
    from replicad.core.model.messages import Message
    from replicad.core.model.operations import Result
    from replicad.core.model.refusals import Refusal

EVERYONE = ""
"""Destination of a message that goes to every peer."""


@dataclass(slots=True, init=False)
class Effects:
    """The outcome of ``step``, ``tick``, ``submit`` or of a completion. Fields in execution order.

    The driver (real node or simulator) does exactly this:

    0. with ``distrust``: sees to it that no start goes on from what the store holds now, before anything else;
       keeps ``cluster_id``, if there is one, durably beside the journal, and tells the other groups of the node;
    1. gives ``append`` to the journal; if it is not empty it gets a new flush ticket, and the driver calls
       ``replica.durable(ticket, now)`` once all of it is on disk (tickets are completed in order);
    2. sends ``send`` at once;
    3. holds ``send_durable`` back until everything appended *so far* (not only by this step) is durable;
    4. queues ``apply`` — consecutive committed slots — for the executor, which applies them in order;
    5. completes requests: ``durable_requests`` (``ack`` majority or one reached), ``refused_requests``
       (request id -> error name) and ``changes``;
    6. ``transfer``: deals with the store's large bodies (checkpoint files), see the single kinds.
    """

    distrust: bool
    """The store's content is in doubt: if this process dies before the others' state is here, it must not be used."""
    cluster_id: str
    """The id of the cluster became known here (M6)."""
    append: list[Record]
    send: list[tuple[str, Message]]
    send_durable: list[tuple[str, Message]]
    apply: list[tuple[int, bytes]]
    read_points: list[tuple[int, int]]
    """Answered probes: ``(probe number, slot to apply before reading)``."""
    durable_requests: list[bytes]
    refused_requests: list[tuple[bytes, str]]
    results: list[tuple[bytes, Result]]
    """Results that ``Contact.vouch`` held back, and that may be answered now."""
    serves: bool
    """The replica's digest was compared: what waits for that may be served now."""
    changes: list[tuple[int, Refusal | None]]
    """Answered changes: ``(number, None or why it is refused)``."""
    transfer: list[TransferEffect]
    catalog_stale: bool
    """The group's members or its coordinator are others now: what the cluster knows of it may be out of date."""
    events: list[tuple[str, dict[str, object]]]
    """Things worth a line in the event log: name and fields. Nothing else may depend on them."""
    halt: str
    """A reason to stop the process for good (no majority on one digest)."""
    forget: str
    """This disk is not what the group knows: give it a new disk id, set its data aside and start over (M4)."""

    def __init__(self) -> None:
        """Begin with nothing to do; written out, because every step makes one and factories of fields are calls."""
        self.distrust = self.serves = self.catalog_stale = False
        self.cluster_id = self.halt = self.forget = ""
        self.append = []
        self.send = []
        self.send_durable = []
        self.apply = []
        self.read_points = []
        self.durable_requests = []
        self.refused_requests = []
        self.results = []
        self.changes = []
        self.transfer = []
        self.events = []

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(
            self.send
            or self.append
            or self.send_durable
            or self.apply
            or self.distrust
            or self.cluster_id
            or self.read_points
            or self.durable_requests
            or self.results
            or self.serves
            or self.refused_requests
            or self.changes
            or self.transfer
            or self.catalog_stale
            or self.events
            or self.halt
            or self.forget
        )


@dataclass(frozen=True, slots=True)
class SendChunk:
    """Read the committed checkpoint at ``slot`` from ``offset`` on and send it as CheckpointChunk; pin the file."""

    to: str
    slot: int
    offset: int


@dataclass(frozen=True, slots=True)
class BeginTransfer:
    """Drop any half-received checkpoint; the bytes of the checkpoint at ``slot`` will follow from offset 0."""

    slot: int


@dataclass(frozen=True, slots=True)
class WriteChunk:
    """Write received bytes at the end of the half-received checkpoint."""

    slot: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class KeepCheckpoint:
    """All bytes are here: verify them, keep them as a file, durably, then call ``replica.checkpoint_kept``.

    If they do not verify, call ``replica.install_failed`` instead. The store stays as it is, but nothing reads from it
    or applies to it from here until the checkpoint is installed, or fails.
    """

    slot: int


@dataclass(frozen=True, slots=True)
class InstallCheckpoint:
    """Replace the store's content by the checkpoint that was kept (slot 0: by nothing), then ``replica.installed``.

    That it is kept, and to be gone on from, is durable in the message log by now: a store never holds what the log does
    not bear witness to. If the file turns out to be no good, call ``replica.install_failed`` instead.
    """

    slot: int


@dataclass(frozen=True, slots=True)
class CheckpointCommitted:
    """The group committed the checkpoint at ``slot``: older checkpoint files, and the log before it, may go."""

    slot: int


TransferEffect = SendChunk | BeginTransfer | WriteChunk | KeepCheckpoint | InstallCheckpoint | CheckpointCommitted
