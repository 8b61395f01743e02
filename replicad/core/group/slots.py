"""The voter's side of single slots: batches of ticket holders, repairs, and which of them are committed.

Rules A1, A2, T3 (voter), C3 of the design. Slots may come in any order; they are applied in slot order (hold-back).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.group.log import value_digest
from replicad.core.model.errors import check
from replicad.core.model.ids import epoch_number
from replicad.core.model.messages import (
    Accept,
    Chosen,
    Committed,
    Decided,
    Heartbeat,
    Rejected,
    SlotAccept,
    SlotAccepted,
    SlotPrepare,
    SlotPromise,
)
from replicad.core.model.operations import NOOP, OPERATIONS, check_operation, decode_batch

if TYPE_CHECKING:
    from replicad.core.group.acceptor import Acceptor
    from replicad.core.group.state import GroupState


class Slots:
    """Accepts single slots, promises them, and learns that they are committed."""

    def __init__(self, state: GroupState, acceptor: Acceptor) -> None:
        self.state = state
        self.acceptor = acceptor
        self.watermark = (0, 0)
        """Newest ``(epoch, committed)`` heard; it may run ahead of the slots, which travel on another connection."""
        self.vouched_from = 0
        self.repaired: dict[int, int] = {}
        """The watermark speaks of the slots from ``vouched_from`` on; of these, slot -> round if that is not 0."""

    # --- accepting ----------------------------------------------------------------------------------------------------

    def accept(self, epoch: int, round_: int, slot: int, value: bytes) -> bool:
        """Accept ``value`` at ``(epoch, round_)`` if A1 allows; returns whether it is accepted (also: was before)."""
        state = self.state
        held = state.log.get(slot)
        if held is not None and held[:2] == (epoch, round_):
            check(held[2] == value, f"slot {slot} was accepted at the same ballot with another value", "one value")
            return True
        if slot <= state.log.committed or not self.may_accept(slot, epoch, round_):
            return False
        if slot > state.log.committed + self.reach():
            return False  # it is fetched later: what is out of order must not pile up in memory
        state.hold(slot, epoch, round_, value, decided=False)
        state.extend_matched()
        return True

    def may_accept(self, slot: int, epoch: int, round_: int) -> bool:
        """Return whether neither a promise nor an acceptance at a higher ballot is in the way (A1)."""
        held = self.state.log.get(slot)
        return (epoch, round_) >= self.state.slot_ballot(slot) and (held is None or held[:2] < (epoch, round_))

    def reach(self) -> int:
        """Return how far above the committed prefix slots are taken."""
        return 4 * self.state.limits.open_slots_max

    def far_behind(self) -> bool:
        """Return whether the group has committed so much more that new slots are soon out of reach here.

        As long as no watermark of this epoch was heard, nobody knows.
        """
        state = self.state
        if state.coordinator == state.node:
            return False
        epoch, committed = self.watermark
        return epoch != state.epoch or committed > state.log.committed + self.reach() // 2

    def enter(self, sender: str, epoch: int) -> bool:
        """Return whether ``epoch`` is not too old; take up a newer one: its coordinator was elected (A1)."""
        state = self.state
        if epoch < state.promised:
            state.send(sender, Rejected(epoch, state.promised))
            return False
        if epoch > state.promised:
            self.acceptor.raise_promise(epoch)
        if state.epoch != epoch:
            self.acceptor.resign("another epoch has begun")  # a candidate that goes on would break its loyalty (L1)
            state.adopt_epoch(epoch)
            number = epoch_number(epoch)
            members = state.configuration.members if state.configuration else ()
            known = next((member.node for member in members if member.number == number), "")
            state.coordinator = known if known != state.node else ""
        return True

    def on_slot_accept(self, sender: str, message: SlotAccept) -> None:
        """Accept one slot, and tell its proposer once that is durable."""
        state = self.state
        if not state.is_voter() or not self.enter(sender, message.epoch):
            return
        if message.slot <= state.log.committed:
            state.send(sender, self.decided(message.epoch, message.slot))
            return
        if state.full or state.stalled():
            return  # what the disk does not take must not pile up in memory
        if message.round == 0 and not self._valid(sender, message.value):
            return
        if self.accept(message.epoch, message.round, message.slot, message.value):
            state.send_durable(sender, SlotAccepted(message.epoch, message.round, message.slot))
            self.learn()

    def _valid(self, sender: str, value: bytes) -> bool:
        """Return whether every replica can apply this batch: once it has a slot it cannot be refused any more."""
        try:
            kind, payload = decode_batch(value)
            if kind not in {NOOP, OPERATIONS} or (kind == OPERATIONS) != isinstance(payload, tuple):
                raise ValueError("a contact proposes nothing but operations")  # noqa: TRY301 - one place says so
            for encoded in payload if isinstance(payload, tuple) else ():
                check_operation(encoded)
        except (TypeError, ValueError) as error:
            self.state.complaint("bad_operation", sender, sender=sender, reason=str(error))
            return False
        return True

    def decided(self, epoch: int, slot: int) -> Decided:
        """Return the answer to a proposal or a repair that comes too late (A2)."""
        held = self.state.log.get(slot)
        return Decided(epoch, slot, value_digest(held[2]) if held is not None else b"")

    # --- repairs ------------------------------------------------------------------------------------------------------

    def on_slot_prepare(self, sender: str, message: SlotPrepare) -> None:
        """Promise one slot to the sequencer that repairs it, and report what was accepted there in this epoch (T3).

        What older epochs left above the slots that the election recovered was never chosen, and never will be.
        """
        state = self.state
        if not state.is_voter() or not self.acceptor.follow(sender, message.epoch):
            return
        if message.slot <= state.log.committed:
            state.send(sender, self.decided(message.epoch, message.slot))
        elif (message.epoch, message.round) >= state.slot_ballot(message.slot):
            state.promise_slot(message.slot, message.epoch, message.round)
            accepted, value = self.accepted(message.epoch, message.slot)
            state.send_durable(sender, SlotPromise(message.epoch, message.round, message.slot, accepted, value))

    def accepted(self, epoch: int, slot: int) -> tuple[int, bytes]:
        """Return ``(round, value)`` accepted for the slot in ``epoch``; an empty value: nothing was."""
        held = self.state.log.get(slot)
        return (held[1], held[2]) if held is not None and held[0] == epoch else (0, b"")

    # --- learning -----------------------------------------------------------------------------------------------------

    def on_chosen(self, message: Chosen) -> None:
        """A ticket holder says that its slots are committed at round 0 (C3)."""
        if self.state.is_voter() and message.epoch == self.state.epoch == self.state.promised:
            self.note_chosen(message.epoch, message.slots)

    def note_chosen(self, epoch: int, slots: tuple[int, ...]) -> None:
        """These slots are committed at ``(epoch, 0)``."""
        state = self.state
        for slot in slots:
            if state.log.committed < slot <= state.log.committed + self.reach():
                state.chosen[slot] = epoch
        self.learn()

    def note_committed(self, epoch: int, message: Accept | Committed | Heartbeat) -> None:
        """Take a watermark; it vouches only for values accepted at its ballot or higher (C3), others are fetched."""
        if (epoch, message.committed) >= self.watermark:
            self.watermark = (epoch, message.committed)
            self.vouched_from = message.start
            self.repaired = dict(zip(message.repaired[::2], message.repaired[1::2], strict=False))
        if self.watermark[1] > self.state.log.committed or self.state.chosen:
            self.learn()

    def learn(self) -> None:
        """Commit, in order, what is known to be committed and held at a ballot for which that is said."""
        state = self.state
        epoch, committed = self.watermark
        first = slot = state.log.committed
        while self._known(slot + 1, epoch, committed):
            slot += 1
        if slot > first:
            state.commit(slot)

    def _known(self, slot: int, epoch: int, committed: int) -> bool:
        if slot <= committed and slot >= self.vouched_from and self.vouched(slot, epoch):
            return True
        chosen = self.state.chosen.get(slot)
        held = self.state.log.get(slot) if chosen is not None else None
        return chosen is not None and held is not None and held[:2] >= (chosen, 0)

    def vouched(self, slot: int, epoch: int) -> bool:
        """Return whether the own value of ``slot`` is the one that a watermark of ``epoch`` speaks of."""
        held = self.state.log.get(slot)
        return held is not None and held[:2] >= (epoch, self.repaired.get(slot, 0))
