"""Operations that their clients want acknowledged before they are committed (``ack`` majority or one; rule C5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.model.messages import Durable
from replicad.core.model.operations import ACK_MAJORITY, ACK_ONE

if TYPE_CHECKING:
    from replicad.core.group.state import GroupState

Waiting = list[tuple[str, int, bytes]]
"""``(contact, ack, request id)`` of operations in one slot."""


class EarlyAnswers:
    """What an office owes to contacts, by slot."""

    def __init__(self, state: GroupState) -> None:
        self.state = state
        self.slots: dict[int, Waiting] = {}

    def tell(self, own: int, majority: int) -> None:
        """Answer what is durable here up to slot ``own``, and at a majority up to ``majority``."""
        answers: dict[str, list[bytes]] = {}
        for slot in [slot for slot in self.slots if slot <= own]:
            waiting: Waiting = []
            for contact, ack, request_id in self.slots[slot]:
                if ack == ACK_ONE or (ack == ACK_MAJORITY and slot <= majority):
                    answers.setdefault(contact, []).append(request_id)
                else:
                    waiting.append((contact, ack, request_id))
            if waiting:
                self.slots[slot] = waiting
            else:
                del self.slots[slot]
        for contact, request_ids in answers.items():
            if contact == self.state.node:
                self.state.out.durable_requests.extend(request_ids)
            else:
                self.state.send(contact, Durable(tuple(request_ids)))
