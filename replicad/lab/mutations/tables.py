"""Request tables, checkpoints, digests and the log's end without their rules: D1, D2, K1 to K3, S1."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replicad.core.journal.segments import Ending
from replicad.core.kv.requests import NUMBER_BITS
from replicad.core.model.operations import REQUEST_ID_BYTES
from replicad.lab.mutations.registry import also, always, covered, instead, register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function

CHECKPOINTS = "core.group.checkpoints:Checkpoints"
REQUESTS = "core.kv.requests:RequestTable"
WRITER = "core.journal.writer:SegmentWriter"

# --- D1, D2 -----------------------------------------------------------------------------------------------------------


@register("highest-number-only", "D1", "the table keeps the highest number of each process", REQUESTS, "find")
def _highest_number_only(original: Function) -> Function:
    def find(self: Any, request_id: bytes) -> Any:
        known = original(self, request_id)
        number = int.from_bytes(request_id, "big")
        boot = self._boots.get(number >> NUMBER_BITS)
        if known is None and len(request_id) == REQUEST_ID_BYTES and boot is not None:
            highest = boot.runs[-1].last  # the answer to any lower number is the answer to this one
            if number < highest:
                return original(self, highest.to_bytes(REQUEST_ID_BYTES, "big"))
        return known

    return find


@register(
    "request-ids-not-in-checkpoint",
    "D1",
    "a checkpoint leaves out the table of request ids",
    "lab.virtual_files:VirtualFiles",
    "load",
)
def _request_ids_not_in_checkpoint(original: Function) -> Function:
    def load(self: Any, slot: int) -> Any:
        store = original(self, slot)
        store.begin()
        for old, _ in list(store.scan_requests()):
            store.delete_requests(old)
        store.commit()
        return store

    return load


@register(
    "expired-is-applied",
    "D2",
    "an operation applies however late it comes",
    "core.kv.machine:Machine",
    "_apply_operations",
)
def _expired_is_applied(original: Function) -> Function:
    def apply_operations(self: Any, slot: int, operations: tuple[bytes, ...]) -> Any:
        window, self._window = self._window, 1 << 62
        try:
            return original(self, slot, operations)
        finally:
            self._window = window

    return apply_operations


register("ids-forgotten-early", "D2", "request ids are forgotten after half their window", REQUESTS, "evict")(
    lambda original: lambda self, applied: original(self, applied + self.window // 2)
)

# --- K1, K2, K3 -------------------------------------------------------------------------------------------------------

register(
    "checkpoint-of-one", "K1", "a checkpoint is committed as soon as the coordinator wrote it", CHECKPOINTS, "agreed"
)(always(value=True))


@register("checkpoint-without-view", "K1", "a checkpoint is committed without the view", CHECKPOINTS, "agreed")
def _checkpoint_without_view(_original: Function) -> Function:
    def agreed(self: Any, _office: Any, own: Any) -> bool:
        same = sum(mark == own for mark in self.reports.values())
        return bool(same + 1 >= self.state.majority())

    return agreed


register("live-records-lost", "K2", "segments go without their live records written again", WRITER, "live_records")(
    instead(lambda _self: [])
)


@register("acceptances-lost", "K2", "segments go with acceptances above the checkpoint", WRITER, "removable")
def _acceptances_lost(_original: Function) -> Function:
    return lambda self, _truncated: [number for number in sorted(self.highest) if number != self.segment]


register(
    "lacking-checkpoint-kept",
    "K2",
    "a log goes on beginning at a checkpoint that is not here",
    "core.group.checkpoints:Checkpoints",
    "ask",
)(always(None))
register("divergence-unnoticed", "K3", "nobody compares digests", "core.group.checkpoints:Digests", "contradicted")(
    always(value=False)
)


@also("divergence-unnoticed", CHECKPOINTS, "on_announced")
def _checkpoints_not_compared(original: Function) -> Function:
    return lambda self, mark: original(self, mark) or True


COMPARISON = "core.group.comparison:Comparison"

register("uncompared-serves", "K3", "a replica serves before its digest was compared", COMPARISON, "doubt")(
    instead(lambda _self, _why, _floor: None)
)


@register("compared-too-early", "K3", "a digest counts before the doubted slots are part of it", COMPARISON, "doubt")
def _compared_too_early(original: Function) -> Function:
    def doubt(self: Any, why: str, _floor: int) -> None:
        original(self, why, 0)
        self.open = (0, 0)

    return doubt


# --- S1 ---------------------------------------------------------------------------------------------------------------


@register(
    "damage-taken-as-torn",
    "S1",
    "a damaged record is taken for one that was cut short",
    "core.journal.recovery",
    "scan",
)
def _damage_taken_as_torn(original: Function) -> Function:
    def scan(data: bytes, segment: int, *, rebooted: bool) -> Any:
        result = original(data, segment, rebooted=rebooted)
        return replace(result, ending=Ending.TORN) if result.ending is Ending.DAMAGED else result

    return scan


# --- what other rules cover -------------------------------------------------------------------------------------------

covered(
    "checkpoint-without-view",
    "C1: a view member has accepted every slot, and drops of its log only what it has written itself",
)
