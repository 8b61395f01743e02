"""How a reader's lease ends before its time: given back by its holder, of its own accord or because it is asked to."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.model.messages.base import Message


@dataclass(frozen=True, slots=True)
class LeaseReturn(Message):
    """Member to coordinator: every lease that process ``boot`` asked for up to ``request``, on its clock, has ended.

    It reads under none of them, and takes no grant that answers such a request any more. Sent again until it is
    confirmed. ``willing``: it would take the office; not if, say, it is about to stop.
    """

    number = 48
    since = 2
    epoch: int
    boot: int
    request: int
    willing: bool


@dataclass(frozen=True, slots=True)
class LeaseReturned(Message):
    """Coordinator to the member that gave its leases up to ``request`` back: no commit waits for it any more.

    Tickets for slots up to ``assigned`` may still name it: their holders wait for its acceptance.
    """

    number = 49
    since = 2
    epoch: int
    boot: int
    request: int
    assigned: int


@dataclass(frozen=True, slots=True)
class LeaseRecall(Message):
    """Coordinator to a holder, as it hands over: give back the lease granted for your ``request``, or an older one."""

    number = 50
    since = 2
    epoch: int
    request: int
