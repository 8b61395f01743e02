"""Which message waits for which flush: the one place that says what may leave a node before its records are durable.

All groups of a node share one message log, so every append of the node gets the next *flush number*. A message of a
group that must not leave before the records of its group are durable waits here for the number of the group's newest
append; other groups' appends do not concern it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from replicad.core.model.errors import check

if TYPE_CHECKING:
    from replicad.core.model.messages import Message

Messages = list[tuple[str, "Message"]]
"""``(destination, message)``, in the order of sending."""


class Lane:
    """One group's side of the gate."""

    __slots__ = ("_gate", "_held", "appends", "durable", "group", "issued")

    def __init__(self, gate: Gate, group: str) -> None:
        self.group = group
        self.issued = 0
        """Flush number of the group's newest append."""
        self.durable = 0
        """The highest flush number of this group that is done."""
        self.appends = 0
        """How often the group has appended: what its replica calls a flush ticket."""
        self._gate = gate
        self._held: deque[tuple[int, Messages]] = deque()

    def append(self) -> int:
        """Return the flush number of a new append of this group."""
        self.appends += 1
        self.issued = self._gate.issue(self)
        return self.issued

    def hold(self, messages: Messages) -> bool:
        """Hold messages back until the newest append is durable; False: it is, so they may leave at once."""
        if self.durable == self.issued:
            return False
        self._held.append((self.issued, messages))
        return True

    def released(self, number: int) -> Messages:
        """Note that everything up to ``number`` is durable, and return the messages that waited for that."""
        check(number >= self.durable, "flushes end in the order in which they were asked for")
        self.durable = number
        held = self._held
        messages: Messages = []
        while held and held[0][0] <= number:
            messages += held.popleft()[1]
        return messages


class Passed(NamedTuple):
    """What a flush has brought one group: its ``appends`` counted so far are durable, ``messages`` may leave.

    The lane tells whose they were: a group may have been closed meanwhile, and opened again.
    """

    lane: Lane
    appends: int
    messages: Messages


class Gate:
    """The flush numbers of one node, and a :class:`Lane` per group that is open."""

    def __init__(self) -> None:
        self._issued = 0
        self._waiting: deque[tuple[int, Lane, int]] = deque()

    def lane(self, group: str) -> Lane:
        """Return the lane of a group that is opened now."""
        return Lane(self, group)

    def issue(self, lane: Lane) -> int:
        """Return the next flush number, which is this lane's."""
        self._issued += 1
        self._waiting.append((self._issued, lane, lane.appends))
        return self._issued

    def issue_alone(self) -> int:
        """Return the next flush number, for records that nothing waits for."""
        self._issued += 1
        return self._issued

    def durable(self, number: int) -> list[Passed]:
        """Everything appended up to ``number`` is durable: return what that means to each group that appended."""
        newest: dict[Lane, tuple[int, int]] = {}
        waiting = self._waiting
        while waiting and waiting[0][0] <= number:
            flush, lane, appends = waiting.popleft()
            newest[lane] = (flush, appends)
        return [Passed(lane, appends, lane.released(flush)) for lane, (flush, appends) in newest.items()]
