"""Changes of a group (members, protocol, coordinator) that were asked for here and are not answered yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from replicad.core.model.errors import RequestError

if TYPE_CHECKING:
    from replicad.core.engine.group import Group
    from replicad.core.model.refusals import Refusal

CHANGES_MAX = 64
"""Changes of one group that may wait for their answer here."""

Answered = Callable[["Refusal | RequestError | None"], None]
"""Called once: None, it is done; why it was refused; or an error: nobody knows."""


class Changes:
    """Whoever waits for the answer to a change of one group."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.waiting: dict[int, tuple[int, Answered]] = {}
        """Number of a change -> until when it is waited for, and who is told."""

    def request(self, kind: str, argument: str, patience_us: int, answered: Answered) -> int:
        """Ask the coordinator for one change; returns its number.

        Raises RequestError if nothing was asked: ``no_coordinator`` or ``overloaded``.
        """
        group = self.group
        group.check_open()
        if not group.replica.coordinator:
            raise RequestError("no_coordinator", f"group {group.name} has no coordinator at the moment")
        if len(self.waiting) >= CHANGES_MAX:
            raise RequestError("overloaded", f"{CHANGES_MAX} changes of group {group.name} wait at this node already")
        now = group.engine.ports.now()
        number, effects = group.replica.request_change(kind, argument, now)
        self.waiting[number] = (now + patience_us, answered)
        group.perform(effects)
        return number

    def forget(self, number: int) -> None:
        """Whoever asked has gone away; the change itself may still be made."""
        self.waiting.pop(number, None)

    def on_answer(self, number: int, refusal: Refusal | None) -> None:
        """The coordinator answered."""
        waiting = self.waiting.pop(number, None)
        if waiting is not None:
            self.group.engine.ports.answer(waiting[1], refusal)

    def tick(self, now: int) -> None:
        """Let time pass."""
        for number in [number for number, (until, _) in self.waiting.items() if until <= now]:
            sentence = f"the coordinator of group {self.group.name} did not answer"
            self._end(number, RequestError("unknown_outcome", sentence))

    def _end(self, number: int, error: RequestError) -> None:
        self.group.engine.ports.answer(self.waiting.pop(number)[1], error)

    def close(self, why: str) -> None:
        """Fail whoever still waits."""
        for number in list(self.waiting):
            self._end(number, RequestError("unknown_outcome", why))
