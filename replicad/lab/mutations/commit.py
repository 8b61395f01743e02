"""Commits and answers without their rules: C1 to C5, D2's end of the window, T5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.core.model.operations import APPLIED, OPERATIONS, Result, decode_batch, decode_operation
from replicad.lab.mutations.registry import instead, register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function

SLOTS = "core.group.slots:Slots"
OFFICE = "core.group.office:Office"

# --- C1 ---------------------------------------------------------------------------------------------------------------

register("view-ignored", "C1", "a majority alone commits", "core.group.view:View", "limit")(
    instead(lambda _self, slot: slot)
)
register("majority-ignored", "C1", "the view alone commits", OFFICE, "majority_matched")(
    instead(lambda _self, own: own)
)


@register(
    "majority-off-by-one",
    "C1",
    "half of the members are a majority",
    "core.model.configuration:Configuration",
    "majority",
)
def _majority_off_by_one(original: Function) -> Function:
    return lambda self: max(1, int(original(self)) - 1)


# --- C2, C3 -----------------------------------------------------------------------------------------------------------

register("uncommitted-served", "C2", "catch-up serves accepted slots, too", "core.group.catch_up:CatchUp", "servable")(
    instead(lambda self: self.state.log.highest)
)


@register("accepted-is-applied", "C2", "members apply what they accepted, committed or not", SLOTS, "learn")
def _accepted_is_applied(original: Function) -> Function:
    def learn(self: Any) -> None:
        self.state.commit(self.state.matched)
        original(self)

    return learn


register("watermark-vouches-for-all", "C3", "a watermark vouches for any value held", SLOTS, "vouched")(
    instead(lambda self, slot, epoch: self.state.log.get(slot) is not None)  # noqa: ARG005 - the original's names
)

# --- C4, C5, T5 -------------------------------------------------------------------------------------------------------


@register(
    "answered-before-applied",
    "C4",
    "the contact answers when it hears of the commit",
    "core.engine.group:Group",
    "perform",
)
def _answered_before_applied(original: Function) -> Function:
    def perform(self: Any, effects: Any) -> None:
        index = self.index + sum(len(_operations(value)) for _, value in self.executor.queue)
        guesses = []
        for _, value in effects.apply:
            for operation in _operations(value):
                index += 1
                guesses.append((decode_operation(operation).request_id, Result(APPLIED, index)))
        self.observer.fed(self.id, effects.apply)
        self.writes.on_results(guesses)
        original(self, effects)

    return perform


def _operations(value: bytes) -> tuple[bytes, ...]:
    kind, payload = decode_batch(value)
    return payload if kind == OPERATIONS and isinstance(payload, tuple) else ()


@register("early-answer-beyond-window", "C5", "ack=majority is given where the operation has expired", OFFICE, "offer")
def _early_answer_beyond_window(original: Function) -> Function:
    def offer(self: Any, operation: bytes, contact: str, ack: int, request_id: bytes) -> bool:
        taken = bool(original(self, operation, contact, ack, request_id))
        if taken:
            self.queue[-1] = (*self.queue[-1][:4], 1 << 62)
        return taken

    return offer


register(
    "sent-is-definite",
    "T5",
    "a write that may have been sent fails definitely",
    "core.group.replica:Replica",
    "abandon",
)(lambda original: lambda self, request_id: original(self, request_id) and False)
register(
    "durable-limit-ignored",
    "slip",
    "records on their way to the disk count as durable",
    "core.group.state:GroupState",
    "durable_limit",
)(instead(lambda _self, slot: slot))
