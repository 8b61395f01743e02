"""A replica serves nothing before its digest was compared: after a start, an admission and a rebuild. Rules K3, M4.

It asks all voters for their digest after the very slot that it has applied itself, so an idle group need not come to a
slot at which digests are compared anyway. A majority of equal digests, the own one included if it votes, is enough; a
majority of others that agree against it makes it rebuild. Voters answer for the last slots that they applied, and for
a slot to come as soon as they come to it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from replicad.core.group.state import ADMITTED, REBUILT, STARTED, Role
from replicad.core.model.messages import CompareDigest, DigestCompared

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.core.group.state import GroupState

REMEMBERED_SLOTS = 256
"""Of so many slots applied last the digest is remembered (4 KiB)."""
ASKED_SLOTS = 8
"""Answers are counted for so many slots asked about last."""
YIELDING_LEASES = 4
"""A replica that must prove its state leaves elections for so long to those that have nothing to prove."""
VERSION = 2
"""The version of the peer protocol that knows the question."""
NEWCOMER_HEARTBEATS = 1
"""Who waits for a vote has its digest compared every so many heartbeats: it gets none before."""
MIRROR_HEARTBEATS = 10
"""A mirror does so with the coordinator, which may be another one by now: it may be promoted."""


class Comparison:
    """What this replica asks, counts and answers."""

    def __init__(self, state: GroupState, rebuild: Callable[[str, int], None], compared: Callable[[], None]) -> None:
        """``rebuild(why, slot)``: a majority contradicts; ``compared()``: this replica may serve from now on."""
        self.state = state
        self.rebuild = rebuild
        self.compared = compared
        self.digests: deque[bytes] = deque([state.digest], maxlen=REMEMBERED_SLOTS)
        """Digests after the slots applied last; the last one is that of :attr:`last`."""
        self.last = state.applied
        self.floor = 0
        """Digests after this slot or a later one count: the state that is doubted is part of them."""
        self.open = (0, 0)
        """The epoch promised when it was doubted, and the highest slot above the floor that was accepted in it by then.

        A branch may have had an election of its own with this very epoch. What was accepted here then passes for
        accepted from the one who holds the epoch now, and is applied by its word: digests before that prove too little.
        """
        self.equal = -1
        """The slot from the floor on after which the own digest was found equal to a majority's (-1: none yet)."""
        self.ahead = False
        """A voter has answered that it is behind this replica."""
        self.asked: dict[int, dict[str, bytes]] = {}
        """Slot -> voter -> its digest."""
        self.asked_at = -(10**12)
        self.asked_slot = -1
        self.pursued = -1
        """The slot that voters are asked about again and again until it is answered (-1: none)."""
        self.asked_office = (0, "")
        """Mirror: the coordinator that it asked last."""
        self.waiting: dict[str, tuple[str, CompareDigest]] = {}
        """Who asked about a slot that is not applied here yet -> its disk and its question; one of each."""
        self.outsiders: dict[str, tuple[str, bool]] = {}
        """Who follows without a vote -> its disk, and whether its digest was the own one when it last asked."""
        self.rebuilding = state.rebuilding
        """A transfer is to replace a state that is not trusted."""
        self.rebuilds = 0
        """How often this replica was rebuilt since its digest was last found equal to a majority's."""
        if state.log.committed:
            self.doubt(STARTED, state.log.committed)

    # --- what must be compared --------------------------------------------------------------------------------------

    def doubt(self, why: str, floor: int) -> None:
        """Serve nothing until the digest after a slot from ``floor`` on was compared."""
        self.state.comparing = why
        # A voter that has not applied its log cannot ask yet; what it has beyond the others may be of another past.
        self.state.yields_until = 0 if why == ADMITTED else self._yield_until()
        self.state.stands_from = 0 if why == STARTED else self._yield_until()
        self.floor = floor
        self.equal = -1
        self.open = self.state.promised, self._accepted()
        self.ahead = False
        self.asked = {}
        self.asked_at = -(10**12)

    def _accepted(self) -> int:
        """Return the highest slot accepted here in the epoch that is promised, and not yet committed (0: none)."""
        log, promised = self.state.log, self.state.promised
        slots = range(log.highest, log.committed, -1)
        return next((slot for slot in slots if (held := log.get(slot)) is not None and held[0] == promised), 0)

    def must_reach(self) -> int:
        """Return after which slot the digest must be equal; what a past epoch left accepted is proposed anew."""
        epoch, slot = self.open
        state = self.state
        counts = state.is_voter() and state.promised == epoch and state.epoch <= epoch
        return max(self.floor, slot if counts else 0)

    def _yield_until(self) -> int:
        return self.state.now + YIELDING_LEASES * self.state.limits.lease_us

    def distrust(self, why: str, slot: int) -> None:
        """The state after ``slot`` is wrong: fetch it from the others; and if that did not help, give the disk up."""
        state = self.state
        if state.rebuilding:
            return
        self.rebuilds += 1
        if self.rebuilds > 1:
            state.out.forget = f"{why}, and so it did before this replica was rebuilt: its directory is not trusted"
            return
        state.rebuilding = self.rebuilding = True
        state.contradicted = slot
        state.yields_until = self._yield_until()
        state.out.distrust = True
        state.event("rebuilding", why=why)

    def on_applied(self, digests: list[bytes]) -> None:
        """Slots were applied, with these digests after them; answer who waited for one of them."""
        if len(digests) != self.state.applied - self.last:
            self.digests.clear()
            digests = [self.state.digest]
        self.digests.extend(digests)
        self.last = self.state.applied
        if self.waiting:
            for node, (disk, question) in [item for item in self.waiting.items() if item[1][1].slot <= self.last]:
                del self.waiting[node]
                self._note(node, disk, question)
                self._answer(node, question.boot, question.slot)
        if self.state.comparing:
            self.tick()

    def on_vote(self) -> None:
        """This replica gets a vote: what it fetched without one must be what the others have (M4)."""
        state = self.state
        if state.role in {Role.LEARNER, Role.MIRROR, Role.REMOVED} and not state.rebuilding:
            self.doubt(ADMITTED, state.log.committed)

    def on_installed(self) -> None:
        """The state was replaced as a whole: what was computed before says nothing of it."""
        state = self.state
        self.digests.clear()
        self.digests.append(state.digest)
        self.last = state.applied
        self.asked = {}
        if self.rebuilding:
            self.rebuilding = False
            self.doubt(REBUILT, state.log.committed)

    def own(self, slot: int) -> bytes:
        """Return the digest after ``slot``, b"" if it is not known (any more)."""
        back = self.last - slot
        return self.digests[-1 - back] if 0 <= back < len(self.digests) else b""

    # --- asking -----------------------------------------------------------------------------------------------------

    def tick(self, source: str = "") -> None:
        """Ask when there is something to ask: at once when the floor is reached, then once a heartbeat.

        ``source`` offers what the group committed ("": nobody does). That may be nothing yet; a new disk must then show
        that it has nothing either, or an idle group would never admit it (M4).
        """
        state = self.state
        if state.rebuilding:
            return
        voter = state.is_voter()
        if voter and not state.comparing:
            return
        if not voter and not state.is_mirror():
            if (state.applied or source) and self._quiet_for(NEWCOMER_HEARTBEATS):
                self._ask(state.peers(), self._due_slot(source))
        elif state.comparing:
            if self.pointless():
                state.event("digest_not_compared", why=state.comparing)
                self._done()
            elif not self._conclude() and state.applied >= self.floor and self._due():
                self._ask(state.peers(), self._due_slot())
        elif state.is_mirror() and state.coordinator and state.applied and self._office_must_know():
            self.asked_office = (state.epoch, state.coordinator)
            self._ask([state.coordinator], state.applied)

    def pointless(self) -> bool:
        """Return whether there is nobody to compare with: a voter alone, or too many that cannot be asked.

        Peers of the version before this rule cannot: then all is as it was with them.
        """
        state = self.state
        deaf = sum(state.versions.get(name, VERSION) < VERSION for name in state.peers())
        able = len(state.peers()) - deaf + state.is_voter()
        return able < state.majority() or (state.majority() == 1 and state.is_voter())

    def _office_must_know(self) -> bool:
        return self.asked_office != (self.state.epoch, self.state.coordinator) or self._quiet_for(MIRROR_HEARTBEATS)

    def _quiet_for(self, heartbeats: int) -> bool:
        return self.state.now - self.asked_at >= heartbeats * self.state.limits.heartbeat_us

    def _due(self) -> bool:
        state = self.state
        pause = state.limits.heartbeat_us
        return state.now - self.asked_at >= (pause if self.asked_slot == state.applied else pause // 5)

    def _due_slot(self, source: str = "") -> int:
        """Return the slot to ask voters about: every second time the same, until it is answered.

        Those that apply more slowly never come to the newest one in time; older ones they may not remember.
        """
        applied = self.state.applied
        counts = self.own(self.pursued) and not (self.state.comparing and self.pursued < self.floor)
        if self.pursued == applied or not counts or self._answered(self.pursued, source):
            self.pursued = applied
            return applied
        return self.pursued if self.asked_slot != self.pursued else applied

    def _answered(self, slot: int, source: str) -> bool:
        """Return whether the source, if it votes, and a majority have said what their digest is after this slot."""
        answers, state = self.asked.get(slot, {}), self.state
        said = len(answers) + state.is_voter()
        return said >= state.majority() and (source in answers or source not in state.peers())

    def _ask(self, voters: list[str], slot: int) -> None:
        state = self.state
        self.asked_at = state.now
        self.asked_slot = slot
        self.asked.setdefault(slot, {})
        while len(self.asked) > ASKED_SLOTS:
            del self.asked[min(asked for asked in self.asked if asked != self.pursued)]
        for name in voters:
            if name != state.node:
                state.send(name, CompareDigest(state.boot, slot, self.own(slot)))

    def takes_word_of(self, sender: str) -> bool:
        """Return whether a voter is one by its name alone, as nobody's disk is known here.

        The first configuration is in no slot. A disk that has caught up and knows none gets it with its vote only; and
        the initial members vote, as any change of theirs would be in the log. It may find out that its state is wrong.
        """
        return self.state.configuration is None and sender in self.state.peers()

    def on_compared(self, sender: str, message: DigestCompared) -> None:
        """A voter answered: serve with a majority, rebuild against one."""
        state = self.state
        answers = self.asked.get(message.slot)
        own = self.own(message.slot)
        if message.boot != state.boot or answers is None or not own or state.rebuilding:
            return
        if not message.digest:
            if not self.ahead and state.role is not Role.COORDINATOR:
                self.ahead = True
                state.yields_until = self._yield_until()
            return
        answers[sender] = message.digest
        counts: dict[bytes, int] = {own: int(state.is_voter())}
        for name in state.peers():
            if name in answers:
                counts[answers[name]] = counts.get(answers[name], 0) + 1
        best = max(counts, key=lambda digest: (counts[digest], digest))
        if counts[best] < state.majority():
            return
        if best != own:
            self.asked = {}
            self.rebuild(f"the digest at slot {message.slot} differs from the majority's", message.slot)
        elif state.comparing and message.slot >= self.floor:
            state.yields_until = state.stands_from = 0  # what it called committed is the group's
            self.equal = max(self.equal, message.slot)
            self._conclude()

    def _conclude(self) -> bool:
        """Serve if the digest is known to be equal after all that is doubted; returns whether it is."""
        if self.equal < self.must_reach():
            return False
        self.state.event("digest_compared", slot=self.equal, why=self.state.comparing)
        self._done()
        return True

    def _done(self) -> None:
        self.state.comparing = ""
        self.state.yields_until = self.state.stands_from = 0
        self.asked = {}
        self.rebuilds = 0
        self.state.out.serves = True
        self.compared()

    # --- answering --------------------------------------------------------------------------------------------------

    def on_compare(self, sender: str, disk: str, message: CompareDigest) -> None:
        """Say what the own digest is there, now or when that slot is applied; note what that says of an outsider."""
        state = self.state
        if state.rebuilding or not state.knows(sender):
            return
        self._note(sender, disk, message)
        if message.slot > self.last:
            # What it has beyond this state may be of another past, whatever was equal below.
            self.outsiders.pop(sender, None)
            self.waiting[sender] = (disk, message)
            if state.is_voter() and not state.comparing:
                state.send(sender, DigestCompared(message.boot, message.slot, b""))
        elif state.is_voter():
            self._answer(sender, message.boot, message.slot)

    def _note(self, node: str, disk: str, question: CompareDigest) -> None:
        own, configuration = self.own(question.slot), self.state.configuration
        if own and not (configuration and configuration.holds(node, disk)):
            self.outsiders[node] = (disk, own == question.digest)

    def _answer(self, node: str, boot: int, slot: int) -> None:
        digest = self.own(slot)
        if digest:  # an empty answer would say that this replica has yet to come there
            self.state.send(node, DigestCompared(boot, slot, digest))

    def admissible(self, node: str, disk: str) -> bool:
        """Return whether this disk may get a vote: its digest was found to be the own one, if it can be asked (M4)."""
        state = self.state
        if state.versions.get(node, 1) < VERSION:
            return True
        return not state.comparing and self.outsiders.get(node) == (disk, True)
