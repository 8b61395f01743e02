"""Coordinated checkpoints and the comparison of digests. Rules K1, K2, K3.

The coordinator puts a marker in the log; every replica writes its state as of exactly that slot aside and reports the
digest recomputed from the bytes written. With equal digests from a majority and from all view members the checkpoint is
committed, and only then may the log before it go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.group.effects import CheckpointCommitted
from replicad.core.group.state import Role
from replicad.core.journal.records import CheckpointRecord
from replicad.core.model.messages import CheckpointRequest
from replicad.core.model.operations import CHECKPOINT_BATCH

if TYPE_CHECKING:
    from replicad.core.group.office import Office
    from replicad.core.group.state import GroupState
    from replicad.core.model.messages import HeartbeatAck

Mark = tuple[int, bytes]
"""``(slot, digest)``."""

NO_MARK: Mark = (0, b"")
MARKS_KEPT = 16
ABANDON_AFTER_LEASES = 6000
"""A checkpoint that some view member never reports is given up after so many lease lengths (half an hour)."""
PAUSE_LEASES = 10
"""After one that was given up, the next begins only after so many lease lengths."""
ASK_LEASES = 20
"""Who lacks the checkpoint that its log begins at asks for a new one every so many lease lengths, and at once."""


class Checkpoints:
    """Checkpoints of one replica, and those that it coordinates."""

    def __init__(self, state: GroupState, committed: CheckpointRecord | None) -> None:
        self.state = state
        self.committed: Mark = (committed.slot, committed.digest) if committed else NO_MARK
        """The newest checkpoint known to be committed and held here."""
        self.written: Mark = NO_MARK
        """The newest checkpoint written here."""
        self.failed = 0
        """Slot of the newest marker whose checkpoint could not be written here."""
        self.recorded = self.committed[0]
        """The newest checkpoint that the log here names: with a restart of the machine, it goes on from there."""
        self.lacking = False
        """There is no file of it: a restart of the machine would have to fetch a whole state again."""
        self._asked_at = -(10**12)
        self.announced: Mark = self.committed
        """Coordinator: what heartbeats announce as committed."""
        self.marker = 0
        """Coordinator: the slot of the marker that is under way (0: none)."""
        self.marker_at = 0
        self.reports: dict[str, Mark] = {}
        self.boots: dict[str, int] = {}
        """Boot ids of the processes that take, or took, the checkpoint at the marker (0: not heard yet)."""
        self.wanted = False
        self.not_before = 0
        self.commit_ticket = 0

    def begin_office(self) -> None:
        """Start with what is committed here; an older coordinator's open checkpoint is left to be retaken."""
        self.announced = self.committed
        self.marker = 0
        self.reports = {}

    # --- coordinator ------------------------------------------------------------------------------------------------

    def _bytes_limit(self) -> int:
        return self.state.limits.checkpoint_bytes + self.state.limits.retained_bytes

    def tick(self, office: Office) -> None:
        """Put a marker into the log when one is due; commit or give up the one under way."""
        state = self.state
        if self.overdue(office):
            self.wanted = False
            self.marker = office.propose(CHECKPOINT_BATCH)
            self.marker_at = state.now
            self.reports = {}
            self.boots = {name: peer.boot for name, peer in office.authority.peers.items()}
            state.event("checkpoint_begins", slot=self.marker)
        if self.marker:
            self._try_commit(office)
        if self.marker and self.hopeless(office):
            state.event("checkpoint_abandoned", slot=self.marker)
            self._give_up()

    def _give_up(self) -> None:
        self.marker = 0
        self.wanted = True
        self.not_before = self.state.now + PAUSE_LEASES * self.state.limits.lease_us

    def hopeless(self, office: Office) -> bool:
        """Return whether some view member will never report: it failed, or restarted since the marker."""
        for name in office.view.joined:
            report = self.reports.get(name, NO_MARK)
            restarted = office.authority.peers[name].boot != self.boots.get(name, 0)
            if report == (self.marker, b"") or (restarted and report[0] < self.marker):
                return True
        return self.state.now - self.marker_at > ABANDON_AFTER_LEASES * self.state.limits.lease_us

    def overdue(self, office: Office) -> bool:
        """Return whether a marker goes into the log now, in traffic as well as in idleness."""
        limits = self.state.limits
        heavy = (
            office.assigned - self.announced[0] >= limits.checkpoint_slots
            or self.state.log.bytes >= self._bytes_limit()
        )
        ready = not self.marker and self.state.now >= self.not_before
        return ready and (self.wanted or heavy) and office.may_mark()

    def on_report(self, sender: str, message: HeartbeatAck) -> None:
        """Note what a member has written, and which process will write the checkpoint that is under way."""
        if not self.boots.get(sender) and message.applied < self.marker:
            # First heard after the marker was proposed, as are all when an office begins with a marker. It has not
            # come to the marker yet, so it is this process that will.
            self.boots[sender] = message.boot
        if message.checkpoint:
            self.reports[sender] = (message.checkpoint, message.checkpoint_digest)

    def _try_commit(self, office: Office) -> None:
        own = self.written
        if own[0] != self.marker:
            return
        if self.agreed(office, own):
            self.announced = own
            self.marker = 0
            self.state.event("checkpoint_committed", slot=own[0], digest=own[1].hex())
            self.on_announced(own)

    def agreed(self, office: Office, own: Mark) -> bool:
        """Return whether a majority and all view members wrote the same digest (K1)."""
        same = [self.state.node, *(name for name, mark in self.reports.items() if mark == own)]
        return len(same) >= self.state.majority() and all(name in same for name in office.view.members())

    # --- every replica ----------------------------------------------------------------------------------------------

    def on_written(self, slot: int, digest: bytes) -> None:
        """The own checkpoint is on disk and verified (an empty digest: it failed)."""
        if digest and slot > self.written[0]:
            self.written = (slot, digest)
        elif not digest:
            self.failed = max(self.failed, slot)
            self.state.event("checkpoint_failed", slot=slot)
            if slot == self.marker:
                self._give_up()

    def obsolete(self, slot: int, epoch: int) -> bool:
        """Return whether nobody will commit the checkpoint at ``slot``, whose marker was applied here in ``epoch``.

        A coordinator commits only the marker that it has under way, and none of an older office.
        """
        state = self.state
        given_up = state.role is Role.COORDINATOR and slot != self.marker
        return given_up or state.epoch != epoch or slot < self.committed[0]

    def report(self) -> Mark:
        """Return what heartbeat answers say: the newest checkpoint written here, or that the newest one failed."""
        return (self.failed, b"") if self.failed > self.written[0] else self.written

    def on_announced(self, mark: Mark) -> bool:
        """A checkpoint is committed by the group; returns False if the own one differs (this replica diverged).

        A replica that is being rebuilt may install an older one: neither that file nor the log above it may go.
        """
        state = self.state
        if state.rebuilding or mark[0] <= self.committed[0] or mark[0] != self.written[0]:
            return True
        if mark != self.written:
            return False
        self.committed = mark
        self.lacking = mark[0] < self.recorded
        self.recorded = max(self.recorded, mark[0])
        state.append(CheckpointRecord(*mark))
        self.commit_ticket = state.tickets + 1
        return True

    def on_kept(self) -> None:
        """A checkpoint of the others is about to be installed: a newer one of its own must not shorten the log now."""
        if self.commit_ticket:
            self.commit_ticket, self.committed = 0, NO_MARK

    def on_durable(self) -> None:
        """Once the record of a committed checkpoint is durable, the log before it may go (K2)."""
        state = self.state
        if self.commit_ticket and state.durable_tickets >= self.commit_ticket and not state.rebuilding:
            self.commit_ticket = 0
            state.out.transfer.append(CheckpointCommitted(self.committed[0]))

    def tend(self) -> None:
        """See to it that the log begins at a checkpoint that is here, and hold no more of it than is needed."""
        if self.lacking:
            self.ask()
        self.trim()

    def ask(self) -> None:
        """Have the group take a checkpoint, so that the log here may begin at that one.

        What replaced the state here was older than what the log begins at; slots in between are not in it.
        """
        state = self.state
        if not state.serves or state.now - self._asked_at < ASK_LEASES * state.limits.lease_us:
            return
        if state.role is Role.COORDINATOR:
            self.wanted = True
        elif state.coordinator:
            state.send(state.coordinator, CheckpointRequest())
        else:
            return
        self._asked_at = state.now
        state.event("checkpoint_lacking", slot=self.recorded)

    def trim(self) -> None:
        """Keep only so much of the log below the checkpoint in memory."""
        state = self.state
        limits = state.limits
        ceiling = min(self.committed[0], state.fed, state.applied)
        slot = min(ceiling, state.log.committed - limits.retained_slots)
        if state.log.bytes > limits.retained_bytes:
            slot = max(slot, self._slot_for_bytes(ceiling))
        if slot > state.log.base and not self.commit_ticket:
            state.log.truncate(slot)

    def _slot_for_bytes(self, ceiling: int) -> int:
        log = self.state.log
        excess = log.bytes - self.state.limits.retained_bytes
        slot = log.base
        while slot < ceiling and excess > 0:
            slot += 1
            held = log.get(slot)
            excess -= len(held[2]) if held else 0
        return slot

    def on_installed(self, slot: int, digest: bytes) -> None:
        """A transfer brought a committed checkpoint (0: there was none); a newer one of the old state is none of it."""
        self.commit_ticket = 0
        self.lacking = slot < self.recorded
        self.recorded = max(self.recorded, slot)
        self.committed = (slot, digest) if slot else NO_MARK
        self.written = self.committed


class Digests:
    """Voters compare digests at slot boundaries; a minority rebuilds, without a majority all stop (K3)."""

    def __init__(self, state: GroupState) -> None:
        self.state = state
        self.marks: dict[int, bytes] = {}
        self.tally: dict[int, dict[str, bytes]] = {}
        self.verdict: Mark = NO_MARK

    def on_marks(self, marks: list[Mark]) -> None:
        """Keep the own digests at boundaries."""
        for slot, digest in marks:
            self.marks[slot] = digest
        while len(self.marks) > MARKS_KEPT:
            del self.marks[min(self.marks)]
        if marks and self.state.majority() == 1:
            self.verdict = marks[-1]  # nobody else votes; mirrors compare with it

    def newest(self) -> Mark:
        """Return the newest own mark."""
        if not self.marks:
            return NO_MARK
        slot = max(self.marks)
        return slot, self.marks[slot]

    def clear(self) -> None:
        """Forget marks of a state that was thrown away."""
        self.marks = {}

    def begin_office(self) -> None:
        """A new coordinator starts its own comparison."""
        self.tally = {}
        self.verdict = NO_MARK

    def on_report(self, sender: str, slot: int, digest: bytes) -> None:
        """Coordinator: count a member's digest, and settle the slot if a majority agrees or none can."""
        if not slot:
            return
        reports = self.tally.setdefault(slot, {})
        reports[sender] = digest
        while len(self.tally) > MARKS_KEPT:
            del self.tally[min(self.tally)]
        if slot in self.marks:
            reports[self.state.node] = self.marks[slot]
        counts: dict[bytes, int] = {}
        for value in reports.values():
            counts[value] = counts.get(value, 0) + 1
        best, votes = max(counts.items(), key=lambda item: (item[1], item[0]))
        if votes >= self.state.majority():
            if slot >= self.verdict[0]:
                self.verdict = (slot, best)
        elif len(reports) == len(self.state.peers()) + 1:
            self.verdict = (slot, b"")

    def contradicted(self, verdict: Mark) -> bool:
        """Return whether the majority's digest differs from the own one at the same slot."""
        own = self.marks.get(verdict[0])
        return own is not None and bool(verdict[1]) and own != verdict[1]
