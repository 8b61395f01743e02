"""The usual programming errors, which no rule of the design names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.lab.mutations.registry import also, always, instead, register

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


SPACE = "core.journal.space:Space"


def _looks_first(original: Function) -> Function:
    """Make a segment at each start, whatever there is."""

    def lacks(self: Any, *, waiting: bool) -> bool:
        first = not hasattr(self, "looked")
        self.looked = True
        return first or bool(original(self, waiting=waiting))

    return lacks


register("spares-add-up", "slip", "each start makes a segment, and none is removed", SPACE, "lacks")(_looks_first)
also("spares-add-up", SPACE, "surplus")(always(0))
register("full-left-by-event", "slip", "a disk counts as full until a segment is made", SPACE, "lacks")(_looks_first)
also("full-left-by-event", SPACE, "full")(instead(lambda self, *, waiting: self._refused))  # noqa: ARG005
