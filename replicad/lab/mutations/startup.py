"""Starts, and what is made durable apart, without their rules: S2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.core.group.effects import InstallCheckpoint
from replicad.lab.mutations.registry import also, covered, instead, register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function


@register(
    "store-before-record",
    "S2",
    "the store is replaced by a checkpoint before the log says so",
    "core.group.catch_up:CatchUp",
    "on_kept",
)
def _store_before_record(original: Function) -> Function:
    def on_kept(self: Any, slot: int, digest: bytes) -> None:
        original(self, slot, digest)
        self._kept = (0, 0)
        self.state.out.transfer.append(InstallCheckpoint(slot))

    return on_kept


@register(
    "store-believed",
    "S2",
    "the store is replaced before the log says so, and a start takes its position for what is decided",
    "core.group.catch_up:CatchUp",
    "on_kept",
)
def _store_believed(original: Function) -> Function:
    return _store_before_record(original)


also("store-believed", "core.journal.startup", "_older_log")(instead(lambda *_: ""))


@register(
    "half-loaded-store",
    "S2",
    "a store is believed although the load of a checkpoint into it was cut short",
    "lab.virtual_store:StoreFiles",
    "found",
)
def _half_loaded_store(original: Function) -> Function:
    def found(self: Any) -> Any:
        loading, self.loading = self.loading, False
        try:
            return original(self)
        finally:
            self.loading = loading

    return found


covered("half-loaded-store", "the load begins with an empty store, and it is behind the checkpoint until it is done")
