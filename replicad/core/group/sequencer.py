"""The sequencer: tickets for contacts, which propose their batches themselves. Rules T1, T2, P1 of the design."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.core.model.messages import Ticket

if TYPE_CHECKING:
    from replicad.core.group.office import Office

GRANTS_REMEMBERED = 64
"""Per contact; a request that asks again for an older ticket gets nothing."""


@dataclass(slots=True)
class Book:
    """What one process of a contact was given in this epoch."""

    boot: int
    slots: dict[int, int] = field(default_factory=dict)
    """Ticket number -> slot, in order of granting."""
    forgotten: int = 0
    """The highest ticket number that fell out of ``slots``."""


class Sequencer:
    """Gives slots away, in order of asking, while the office may assign any."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.books: dict[str, Book] = {}
        self.waiting: deque[tuple[str, int, int]] = deque()
        """``(contact, boot, ticket)`` that no slot could be assigned for yet."""

    def request(self, contact: str, boot: int, ticket: int) -> None:
        """Take a request; asking again gets the same slot again; the holder finds out whether it is lost (T1).

        A contact that answers no heartbeats gets nothing: the ticket would hardly reach it, and leave a hole.
        """
        if not self.office.repairs.lives(contact) or boot != self.boot(contact):
            return
        book = self.books.get(contact)
        if book is None or book.boot != boot:
            book = self.books[contact] = Book(boot)
        slot = book.slots.get(ticket)
        if slot is not None:
            self.grant(contact, boot, ticket, slot)
            return
        queued = [item for item in self.waiting if item[0] == contact]
        if ticket <= book.forgotten or (contact, boot, ticket) in queued:
            return
        if len(queued) < self.office.state.limits.tickets_max:  # the contact asks again
            self.waiting.append((contact, boot, ticket))

    def boot(self, contact: str) -> int:
        """Return the boot id of the process that answers heartbeats in the contact's name."""
        peer = self.office.authority.peers.get(contact)
        return peer.boot if peer is not None else self.office.state.boot

    def drain(self) -> None:
        """Give slots to those who wait."""
        office = self.office
        while self.waiting and office.may_assign():
            contact, boot, ticket = self.waiting.popleft()
            book = self.books.get(contact)
            if book is None or book.boot != boot:
                continue  # another process of that contact has asked since
            configuration = office.state.configuration
            if configuration is None or configuration.member(contact) is None:
                continue  # it has lost its vote since
            slot = office.give_away(contact)
            book.slots[ticket] = slot
            while len(book.slots) > GRANTS_REMEMBERED:
                oldest = next(iter(book.slots))
                del book.slots[oldest]
                book.forgotten = max(book.forgotten, oldest)
            self.grant(contact, boot, ticket, slot)

    def grant(self, contact: str, boot: int, ticket: int, slot: int) -> None:
        """Hand out a ticket; the holder waits for the view of this moment (C1, V1)."""
        office = self.office
        state = office.state
        version = state.configuration.version if state.configuration else 0
        message = Ticket(boot, ticket, office.epoch, slot, version, office.view.number, self.waited_for())
        if contact == state.node:
            office.own_tickets.append(message)
        else:
            state.send(contact, message)

    def waited_for(self) -> tuple[str, ...]:
        """Return on whose acceptance the holder of a ticket given now must wait."""
        return self.office.view.members()
