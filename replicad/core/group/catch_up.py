"""Fetching what this replica lacks: committed slots from a peer, or a whole checkpoint when those are gone.

Rules C2 (only committed slots are served), K1 (transfers), K3 (rebuild). Who follows without a vote always has a
request at its source, which is answered as soon as there is something new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.group.effects import BeginTransfer, InstallCheckpoint, KeepCheckpoint, SendChunk, WriteChunk
from replicad.core.group.log import batch_kind
from replicad.core.group.state import Role
from replicad.core.journal.records import CheckpointRecord
from replicad.core.model.messages import CheckpointChunk, FetchCheckpoint, FetchSlots, Slots, Truncated
from replicad.core.model.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.core.group.state import GroupState


class CatchUp:
    """One fetch or one transfer at a time, from one source, asked again when nothing comes."""

    def __init__(self, state: GroupState, own_checkpoint: Callable[[], int]) -> None:
        """``own_checkpoint()`` is the slot of the committed checkpoint held here (0: none)."""
        self.state = state
        self.own_checkpoint = own_checkpoint
        self.asked_at = 0
        self.asked_first = -1
        self.source = ""
        self.behind_at = -1
        self.behind_since = 0
        self.transfer_slot = 0
        self.transfer_offset = 0
        self.transfer_source = ""
        self.installing = 0
        self._kept: tuple[int, int] = (0, 0)
        """A checkpoint that is kept as a file and not yet installed: its slot, and the flush that its record waits for.
        """
        self.waiting: dict[str, int] = {}
        """Coordinator: mirror -> the first slot it waits for, which is not committed yet; one request of each."""

    # --- asking -----------------------------------------------------------------------------------------------------

    def missing(self) -> int:
        """Return the first slot that the executor needs and the log lacks, or the one above the committed prefix."""
        state = self.state
        if state.doubtful:
            return state.verified + 1
        if state.gap:
            return state.fed + 1
        return state.log.committed + 1

    def needs(self, known: int) -> bool:
        """Return whether something is missing, when ``known`` is a committed slot that was heard of."""
        state = self.state
        if state.rebuilding:
            return True
        first = self.missing()
        return first <= max(known, state.log.committed)

    def tick(self, source: str, known: int) -> None:
        """Ask ``source`` for what is missing once it has been missing for a heartbeat."""
        state = self.state
        if not source or source == state.node or self.installing or state.full or state.stalled():
            return
        if not self.needs(known):
            self.behind_at = -1
            self.transfer_slot = 0
            if not state.is_voter() and state.now - self.asked_at >= 4 * state.limits.heartbeat_us:
                self.ask(source)
            return
        first = 0 if state.rebuilding else self.missing()
        if self.behind_at != first:
            # Under load a follower is always a little behind; only the same slot missing for a while is a gap.
            self.behind_at = first
            self.behind_since = state.now
        wait = state.limits.heartbeat_us
        if state.now - self.behind_since < wait or state.now - self.asked_at < 4 * wait:
            return
        if self.transfer_slot and self.transfer_source == source:
            self._ask_chunk()
        else:
            self.transfer_slot = 0
            self.ask(source)

    def poll(self, source: str) -> None:
        """Mirror: have a request at ``source`` that it answers as soon as there is something new."""
        state = self.state
        if state.rebuilding or state.full or state.stalled() or self.installing or self.transfer_slot:
            return  # tick() asks in its own time
        if self.source != source or self.asked_first < 0:
            self.ask(source)

    def ask(self, source: str) -> None:
        """Ask for the slots from the first missing one on; slot 0 asks for a checkpoint whatever the log holds."""
        state = self.state
        self.source = source
        self.asked_at = state.now
        self.asked_first = 0 if state.rebuilding else self.missing()
        state.send(source, FetchSlots(self.asked_first))

    # --- serving ----------------------------------------------------------------------------------------------------

    def on_fetch_slots(self, sender: str, message: FetchSlots, *, patient: bool = False) -> None:
        """Serve committed slots, or say that they are gone; a ``patient`` request waits at the coordinator for news."""
        state = self.state
        if state.rebuilding or state.yielding() or not state.knows(sender):
            return
        page = state.log.page(message.first, self.servable(), state.limits.page_bytes) if message.first else ()
        if page:
            state.send(sender, Slots(message.first, self.servable(), page))
        elif message.first <= self.servable():
            state.send(sender, Truncated(message.first, state.log.base, self.own_checkpoint()))
        elif patient and message.first > state.log.committed:
            self.waiting[sender] = message.first

    def serve_waiting(self) -> None:
        """End of a coordinator's step: answer the mirrors that waited for what is committed by now."""
        committed = self.state.log.committed
        for sender, first in [item for item in self.waiting.items() if item[1] <= committed]:
            del self.waiting[sender]
            self.on_fetch_slots(sender, FetchSlots(first))

    def servable(self) -> int:
        """Return the highest slot that may be served: only committed ones are (C2), and those that are believed."""
        return self.state.feedable()

    def on_fetch_checkpoint(self, sender: str, message: FetchCheckpoint) -> None:
        """Serve bytes of a committed checkpoint: the newest, or an older one whose file is pinned by this transfer."""
        state = self.state
        if not state.knows(sender):
            return
        if 0 < message.slot <= self.own_checkpoint() and not (state.rebuilding or state.yielding()):
            state.out.transfer.append(SendChunk(sender, message.slot, message.offset))
        else:
            state.send(sender, CheckpointChunk(message.slot, message.offset, 0, b""))

    # --- receiving --------------------------------------------------------------------------------------------------

    def on_slots(self, sender: str, message: Slots) -> bool:
        """Take committed slots in order; returns whether the committed prefix moved."""
        state = self.state
        before = state.log.committed
        if state.rebuilding or state.full or state.stalled():
            return False
        for slot, epoch, round_, value in message.entries:
            if state.out.forget:
                break
            if slot <= state.log.committed:
                self._verify(sender, slot, value)
                if slot > state.fed and state.log.get(slot) is None:
                    state.hold(slot, epoch, round_, value, decided=True)
                continue
            if slot != state.log.committed + 1:
                break
            if state.role is Role.COORDINATOR and epoch > state.promised:
                break  # the office is over, and this coordinator has not noticed yet
            state.hold(slot, epoch, round_, value, decided=True)
            state.commit(slot)
        if message.first == self.asked_first:
            self.asked_first = -1
            if self.missing() <= message.committed or (not state.is_voter() and sender == self.source):
                self.ask(sender)
        return state.log.committed > before

    def _verify(self, sender: str, slot: int, value: bytes) -> None:
        """After a rebuild: the own decided value must be the one that the source has (K3)."""
        state = self.state
        if slot != state.verified + 1 or slot > state.doubted:
            return
        held = state.log.get(slot)
        if held is not None and held[2] != value:
            state.out.forget = (
                f"slot {slot} here holds another value than at {sender}, and the digest contradicted a majority: "
                f"this directory's log is none of this group's"
            )
            return
        state.verified = slot

    def on_truncated(self, sender: str, message: Truncated) -> None:
        """The slots are gone there: take the checkpoint instead; or, to rebuild with none, everything from slot 1."""
        state = self.state
        if message.first != self.asked_first or self.installing or sender != self.source:
            return
        self.asked_first = -1
        if message.checkpoint > (0 if state.rebuilding else state.applied):
            self.transfer_slot = message.checkpoint
            self.transfer_offset = 0
            self.transfer_source = sender
            state.out.transfer.append(BeginTransfer(message.checkpoint))
            state.event("transfer_begins", source=sender, checkpoint=message.checkpoint)
            self._ask_chunk()
        elif state.rebuilding and message.checkpoint == 0 and message.base == 0:
            self.installing = -1
            state.out.transfer.append(InstallCheckpoint(0))

    def _ask_chunk(self) -> None:
        self.asked_at = self.state.now
        self.state.send(self.transfer_source, FetchCheckpoint(self.transfer_slot, self.transfer_offset))

    def on_chunk(self, sender: str, message: CheckpointChunk) -> None:
        """Take bytes of a checkpoint, ask for the next ones, install when all are here."""
        state = self.state
        if sender != self.transfer_source or message.slot != self.transfer_slot or not self.transfer_slot:
            return
        if message.offset != self.transfer_offset:
            return
        if message.total == 0:
            self.transfer_slot = 0
            return
        if message.data:
            state.out.transfer.append(WriteChunk(message.slot, message.offset, message.data))
        self.transfer_offset += len(message.data)
        if self.transfer_offset >= message.total:
            self.installing = self.transfer_slot
            self.transfer_slot = 0
            state.out.transfer.append(KeepCheckpoint(message.slot))
        else:
            self._ask_chunk()

    def on_kept(self, slot: int, digest: bytes) -> None:
        """The checkpoint's file is durable: first the log says so, and only then the store is replaced.

        In the other order a process that dies in between leaves a store that the log knows nothing of, among slots that
        were accepted here and maybe never chosen.
        """
        self.state.append(CheckpointRecord(slot, digest))
        self._kept = (slot, self.state.tickets + 1)

    def on_durable(self) -> None:
        """Replace the store once the record of the checkpoint is durable."""
        slot, ticket = self._kept
        if ticket and self.state.durable_tickets >= ticket:
            self._kept = (0, 0)
            self.state.out.transfer.append(InstallCheckpoint(slot))

    def on_installed(self, slot: int, digest: bytes) -> None:
        """The store now holds the checkpoint at ``slot``; what follows it is fed again."""
        state = self.state
        self.installing = 0
        self.asked_at = 0
        if state.rebuilding:
            # The log led to a wrong state, or may have: what it holds above the checkpoint is compared first. If it is
            # the others' up to the slot at which the state was found to be wrong, the log was not to blame.
            state.doubted = state.contradicted if self._tells(slot, state.contradicted) else state.log.committed
            state.contradicted = 0
            state.verified = slot
        state.verified = max(state.verified, slot)
        state.rebuilding = False
        state.log.reset_to(slot)
        state.matched = max(state.matched, state.log.committed)
        state.extend_matched()
        state.applied = slot
        state.digest = digest
        state.fed = slot
        state.event("transfer_installed", checkpoint=slot)

    def _tells(self, slot: int, contradicted: int) -> bool:
        """Return whether a log with the others' values between these slots is theirs: operations have random ids."""
        values = (held[2] for n in range(slot + 1, contradicted + 1) if (held := self.state.log.get(n)) is not None)
        return any(batch_kind(value) == OPERATIONS for value in values)

    def on_install_failed(self, slot: int, *, emptied: bool) -> None:
        """The bytes were damaged on their way or on the disk: begin again; ``emptied``: the old state is gone."""
        self.state.rebuilding = self.state.rebuilding or emptied
        self.installing = 0
        self.transfer_slot = 0
        self.state.event("transfer_failed", checkpoint=slot)
