"""Rules switched off one at a time: the proof that the simulator can fail.

A mutation replaces one method of one class while it is on. Each must be noticed by some seed within a few hundred; the
table of mutations and seeds is printed by ``replicad simulate --mutations``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Make = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Gets the original function and returns the one that breaks the rule."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One rule switched off: ``owner.method`` is replaced by what ``make`` returns for the original."""

    name: str
    rule: str
    """Rule of section 9 of the design, or "slip" for the usual programming errors."""
    description: str
    owner: Callable[[], type]
    """Returns the class; called late, so that the registry imports nothing that it does not need."""
    method: str
    make: Make


MUTATIONS: dict[str, Mutation] = {}


def register(name: str, rule: str, description: str, owner: Callable[[], type], method: str) -> Callable[[Make], Make]:
    """Register the decorated function as the ``make`` of a mutation; names are unique."""

    def add(make: Make) -> Make:
        if name in MUTATIONS:
            raise ValueError(f"there is a mutation {name!r} already")
        MUTATIONS[name] = Mutation(name, rule, description, owner, method, make)
        return make

    return add


@contextmanager
def mutated(name: str) -> Iterator[Mutation]:
    """Switch a mutation on for the duration of the block; raises KeyError for an unknown one."""
    mutation = MUTATIONS[name]
    owner = mutation.owner()
    original = owner.__dict__[mutation.method]
    setattr(owner, mutation.method, mutation.make(original))
    try:
        yield mutation
    finally:
        setattr(owner, mutation.method, original)


# --- the usual slips --------------------------------------------------------------------------------------------------


def _executor() -> type:
    from replicad.core.group.executor import Executor  # noqa: PLC0415

    return Executor


def _process() -> type:
    from replicad.lab.simulated_process import SimulatedProcess  # noqa: PLC0415

    return SimulatedProcess


def _log() -> type:
    from replicad.lab.virtual_log import VirtualLog  # noqa: PLC0415

    return VirtualLog


def _files() -> type:
    from replicad.lab.virtual_files import VirtualFiles  # noqa: PLC0415

    return VirtualFiles


def _configuration() -> type:
    from replicad.core.group.configuration import Configuration  # noqa: PLC0415

    return Configuration


@register("apply-out-of-order", "slip", "the executor swaps two slots that wait", _executor, "feed")
def _apply_out_of_order(original: Callable[..., Any]) -> Callable[..., Any]:
    def feed(self: Any, slots: list[tuple[int, bytes]]) -> None:
        original(self, slots[::-1])

    return feed


@register("acknowledge-before-flush", "slip", "records count as durable when they are handed over", _log, "append")
def _acknowledge_before_flush(original: Callable[..., Any]) -> Callable[..., Any]:
    def append(self: Any, records: Any, done: Callable[[], None]) -> None:
        original(self, records, _nothing)
        self._queue.after(0, done)

    return append


@register("forget-request-ids", "D1", "a checkpoint leaves out the table of request ids", _files, "install")
def _forget_request_ids(original: Callable[..., Any]) -> Callable[..., Any]:
    def install(self: Any, slot: int, data: bytes) -> Any:
        store = original(self, slot, data)
        store.begin()
        for old, _ in list(store.scan_requests()):
            store.delete_requests(old)
        store.commit()
        return store

    return install


@register("majority-off-by-one", "C1", "half of the members count as a majority", _configuration, "majority")
def _majority_off_by_one(original: Callable[..., Any]) -> Callable[..., Any]:
    def majority(self: Any) -> int:
        return max(1, int(original(self)) - 1)

    return majority


@register("send-before-durable", "slip", "messages do not wait for the records before them", _process, "_actions")
def _send_before_durable(original: Callable[..., Any]) -> Callable[..., Any]:
    def actions(self: Any, effects: Any) -> Any:
        effects.send = effects.send + effects.send_durable
        effects.send_durable = []
        return original(self, effects)

    return actions


def _nothing() -> None:
    """Nobody waits."""
