"""The coordinator's side of read points: probes wait for the authority, or for a majority. Rule R2 of the design."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.model.messages import ReadPoint

if TYPE_CHECKING:
    from replicad.core.group.contact import Contact
    from replicad.core.group.office import Office
    from replicad.core.group.state import GroupState


class ProbeDesk:
    """The coordinator's side: probes wait for the authority, or for a round that began after them (R2)."""

    def __init__(self, state: GroupState) -> None:
        self.state = state
        self.waiting: list[tuple[str, int, int, int]] = []
        """``(contact, boot, probe, round that must be confirmed; 0: authority suffices)``."""
        self.limit = 4096

    def add(self, contact: str, boot: int, probe: int, *, confirmed: bool, office: Office) -> None:
        """Note a probe; a confirmed one waits for the next round."""
        if len(self.waiting) >= self.limit:
            return  # the contact asks again
        self.waiting.append((contact, boot, probe, office.authority.sequence + 1 if confirmed else 0))

    def wants_round(self, office: Office) -> bool:
        """Return whether some probe waits for a round that has not begun, and none is under way."""
        authority = office.authority
        if authority.confirmed_round() < authority.sequence:
            return False  # rounds that nobody waits for would push the send times of earlier ones out
        return any(item[3] > authority.sequence for item in self.waiting)

    def answer(self, office: Office, contact: Contact) -> None:
        """Answer what can be answered."""
        if not self.waiting:
            return
        state = self.state
        confirmed_round = office.authority.confirmed_round()
        valid = state.now < office.reads_until()
        ready = state.applied >= office.recovered and not state.comparing
        keep = []
        for item in self.waiting:
            name, boot, probe, needed = item
            if needed and needed <= confirmed_round and ready:
                slot = office.assigned  # R2: everything assigned before the round is covered
            elif not needed and valid:
                slot = office.read_slot()
            else:
                keep.append(item)
                continue
            point = ReadPoint(boot, probe, slot)
            if name == state.node:
                contact.on_read_point(point)
            else:
                state.send(name, point)
        self.waiting = keep
