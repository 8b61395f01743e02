"""The usual programming errors, which no rule of the design names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.lab.mutations.registry import register

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.lab.mutations.registry import Function


@register(
    "apply-out-of-order", "slip", "the executor swaps two slots that wait", "core.group.executor:Executor", "feed"
)
def _apply_out_of_order(original: Function) -> Function:
    return lambda self, slots: original(self, slots[::-1])


@register(
    "acknowledge-before-flush",
    "slip",
    "records count as durable when they are handed over",
    "lab.virtual_log:VirtualLog",
    "append",
)
def _acknowledge_before_flush(original: Function) -> Function:
    def append(self: Any, records: Any, done: Callable[[], None]) -> None:
        original(self, records, lambda: None)
        self._queue.after(0, done)

    return append


@register(
    "send-before-durable",
    "slip",
    "messages do not wait for the records before them",
    "core.journal.gate:Lane",
    "hold",
)
def _send_before_durable(_original: Function) -> Function:
    return lambda _self, _messages: False
