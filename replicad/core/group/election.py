"""The candidate's side: pre-vote, Prepare, collecting promises, fetching what is missing. Rules E1 to E3, M2, M5."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.core.group.log import value_digest
from replicad.core.group.state import Role
from replicad.core.model.ids import next_epoch
from replicad.core.model.messages import (
    FetchSlots,
    FetchValues,
    Prepare,
    PreVote,
    PreVoteAnswer,
    Promise,
    Rejected,
    Values,
)

SLOW_LEASES = 2
"""Whose disk was slow lately stands so many lease lengths later."""
LET_GO_LEASES = 2
"""After so many without a heartbeat a coordinator is not waited for any more by who cannot stand itself."""
DRAINED_LEASES = 3
"""A drained member stands so many lease lengths later, after every other that can: a group without any is worse."""

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.core.group.acceptor import Acceptor
    from replicad.core.group.state import GroupState


@dataclass(slots=True)
class Report:
    """What one voter reported: its pages so far."""

    disk: str
    committed: int = 0
    base: int = 0
    highest: int = 0
    covered: int = 0
    complete: bool = False
    entries: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)


class Election:
    """One replica's candidacies, one attempt at a time."""

    def __init__(
        self,
        state: GroupState,
        acceptor: Acceptor,
        become_candidate: Callable[[], None],
        take_office: Callable[[int, int, dict[str, str]], None],
        step_back: Callable[[str], None],
    ) -> None:
        """``take_office(epoch, recovered, promisers)`` is called when everything up to ``recovered`` is held."""
        self.state = state
        self.acceptor = acceptor
        self.become_candidate = become_candidate
        self.take_office = take_office
        self.step_back = step_back
        self.attempt = 0
        self.phase = ""  # "", "pre-vote", "prepare", "fetch"
        self.epoch = 0
        self.predecessor = 0
        self.seen = 0
        self.started = 0
        self.delay = self._draw_delay()
        self.votes: dict[str, bool] = {}
        self.reports: dict[str, Report] = {}
        self.wanted: dict[int, tuple[str, int, int, bytes]] = {}
        self.recovered = 0
        self.asked_at = 0

    # --- when to stand ----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Stand when no coordinator has been heard for long enough; give up or ask again when nothing moves."""
        state = self.state
        if self.phase:
            if state.now - self.started > 2 * state.limits.lease_us:
                self.give_up("no majority answered in time")
            elif self.phase == "fetch" and state.now - self.asked_at > state.limits.heartbeat_us:
                self._fetch_missing()
            elif self.phase == "prepare" and state.now - self.asked_at > state.limits.heartbeat_us:
                self._ask_pages()
            return
        if state.role is not Role.FOLLOWER:
            return
        self._let_go()
        if self._leaves_it_to_others():
            # Those that wait for the same moment then stand one after the other all the same.
            self.acceptor.heard_at = max(self.acceptor.heard_at, state.now - state.limits.lease_us)
            return
        if state.now - self.acceptor.heard_at < self._patience() or not self.may_stand():
            return
        if state.now >= self.acceptor.sticky_until():
            if self.has_hole():
                self.acceptor.heard_at = state.now  # somebody else must stand
            else:
                self.stand()

    def _let_go(self) -> None:
        """Follow a coordinator no more that is gone, if slots or a whole state are awaited from it.

        Who cannot stand itself would ask it for ever; another voter may be the source (``source.py``). Promises given
        to candidates say nothing of it, so only its heartbeats count.
        """
        state = self.state
        heard_at = max(self.acceptor.heartbeat_at, state.started_at)
        gone = state.coordinator and state.now - heard_at > LET_GO_LEASES * state.limits.lease_us
        if gone and (state.rebuilding or self.has_hole()):
            state.coordinator = ""

    def _leaves_it_to_others(self) -> bool:
        return self.state.yielding() or self.state.now < self.state.stands_from

    def has_hole(self) -> bool:
        """Return whether committed slots that are not applied yet are missing here (a rebuild left off below them).

        A coordinator has nobody to fetch them from: it would stay in office and never read or grant anything (E3).
        """
        state = self.state
        if state.doubtful:
            return True
        return any(state.log.get(slot) is None for slot in range(state.fed + 1, state.log.committed + 1))

    def may_stand(self) -> bool:
        """Return whether this replica could serve as coordinator at all."""
        return self.state.is_voter() and self.acceptor.fit()

    def _patience(self) -> int:
        if self.acceptor.released_to == self.state.node and not self.state.drained:
            return 0
        patience = self.state.limits.lease_us + self.delay + self._reluctance()
        if not self.state.flushes.over(self.state.now):
            patience += SLOW_LEASES * self.state.limits.lease_us  # but rather a slow coordinator than none
        # Who was named as the successor goes first.
        return patience + 2 * self.state.limits.stagger_us if self.acceptor.released_to else patience

    def _reluctance(self) -> int:
        """Return how much longer this replica leaves the office to others because it is drained (V3)."""
        return DRAINED_LEASES * self.state.limits.lease_us if self.state.drained else 0

    def _draw_delay(self) -> int:
        """Stagger candidates by rank, so that split votes are rare."""
        state = self.state
        others = [name for name in sorted([*state.peers(), state.node]) if name != state.coordinator]
        rank = others.index(state.node) if state.node in others else 0
        stagger = state.limits.stagger_us
        return stagger * rank + state.random.randrange(stagger // 2)

    def stand(self, predecessor: int = 0) -> None:
        """Begin an attempt: first a pre-vote, unless this continues an own office (rule E5)."""
        state = self.state
        configuration = state.configuration
        member = configuration.member(state.node) if configuration else None
        if member is None:
            return
        self.attempt += 1
        self.started = state.now
        self.predecessor = predecessor
        self.epoch = next_epoch(max(state.promised, self.seen), member.number)
        self.votes = {state.node: True}
        self.reports = {}
        self.wanted = {}
        self.become_candidate()
        if predecessor:
            self._prepare()
            return
        self.phase = "pre-vote"
        state.broadcast(PreVote(self.epoch, self._token(), state.log.committed))
        self._count_votes()

    def _token(self) -> int:
        """Return what an answer must echo to belong to this attempt of this process."""
        return (self.state.boot ^ self.attempt) & 0x7FFF_FFFF_FFFF_FFFF

    def give_up(self, why: str) -> None:
        """End the attempt; the next one waits a random while."""
        self.phase = ""
        self.acceptor.heard_at = self.state.now - self.state.limits.lease_us
        self.delay = self._draw_delay() + self.state.random.randrange(2 * self.state.limits.stagger_us)
        self.step_back(why)

    def cancel(self) -> None:
        """Forget the attempt: someone else is in office, or a higher epoch was promised."""
        self.phase = ""
        self.delay = self._draw_delay()

    # --- pre-vote ---------------------------------------------------------------------------------------------------

    def on_pre_vote_answer(self, sender: str, message: PreVoteAnswer) -> None:
        """Count a pre-vote."""
        if self.phase != "pre-vote" or message.attempt != self._token():
            return
        self.seen = max(self.seen, message.promised)
        self.votes[sender] = message.granted
        self._count_votes()

    def _count_votes(self) -> None:
        voters = (self.state.node, *self.state.peers())  # of this moment: who lost its vote since it answered is none
        votes = [self.votes[name] for name in voters if name in self.votes]
        if sum(votes) >= self.state.majority():
            self._prepare()
        elif len(votes) == len(voters):
            self.give_up("the others would not promise")

    # --- Prepare ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Promise to oneself durably, then ask the others (E1)."""
        state = self.state
        self.phase = "prepare"
        if self.epoch <= state.promised:
            self.give_up("a higher epoch was promised meanwhile")
            return
        if not self.predecessor and state.now < self.acceptor.sticky_until():
            self.give_up("loyal to a coordinator by now")  # the pre-votes took their time (L1)
            return
        state.promise(self.epoch)
        self.acceptor.drop_lease()
        self.asked_at = state.now
        report = Report(state.disk, state.log.committed, state.log.base, state.log.highest, complete=True)
        report.entries = {
            slot: (held[0], held[1], b"")
            for slot in range(state.log.committed + 1, state.log.highest + 1)
            if (held := state.log.get(slot)) is not None
        }
        self.reports = {state.node: report}
        self.send_prepare()
        if state.majority() == 1:
            self._try_fetch()

    def send_prepare(self) -> None:
        """Ask all members, once the own promise is durable (E1)."""
        state = self.state
        for peer in state.peers():
            state.send_durable(peer, self._request(peer))

    def _request(self, peer: str) -> Prepare:
        report = self.reports.get(peer)
        first = report.covered + 1 if report else self.state.log.committed + 1
        return Prepare(self.epoch, self._token(), first, self.predecessor)

    def _ask_pages(self) -> None:
        self.asked_at = self.state.now
        for peer in self.state.peers():
            report = self.reports.get(peer)
            if report is None or not report.complete:
                self.state.send_durable(peer, self._request(peer))

    def on_rejected(self, message: Rejected) -> None:
        """Another epoch is in the way: remember it, try again later and higher."""
        self.seen = max(self.seen, message.promised)
        if self.phase in {"prepare", "fetch"} and message.epoch == self.epoch:
            self.give_up("rejected for a higher promise")

    def on_promise(self, sender: str, disk: str, message: Promise) -> None:
        """Take one page of a voter's report; a voter counts when its report is complete."""
        if self.phase != "prepare" or message.epoch != self.epoch or message.attempt != self._token():
            return
        report = self.reports.setdefault(sender, Report(disk))
        if report.complete or report.disk != disk:
            return
        if report.covered and message.from_slot != report.covered + 1:
            return
        report.committed = max(report.committed, message.committed)
        report.base = message.base
        report.highest = message.highest
        report.covered = message.to_slot
        for slot, epoch, round_, digest in message.entries:
            report.entries[slot] = (epoch, round_, digest)
        report.complete = message.to_slot >= message.highest
        if report.complete:
            self._try_fetch()
        else:
            self.state.send(sender, self._request(sender))

    def promisers(self) -> dict[str, str]:
        """Return ``node -> disk`` of the *current* configuration's members whose promise is complete (M2, M4)."""
        state = self.state
        return {
            name: report.disk
            for name, report in self.reports.items()
            if report.complete and state.counts(name, report.disk)
        }

    # --- fetching ---------------------------------------------------------------------------------------------------

    def _try_fetch(self) -> None:
        if len(self.promisers()) >= self.state.majority():
            self.phase = "fetch"
            self._fetch_missing()

    def on_progress(self) -> None:
        """Committed slots arrived meanwhile (catch-up): go on."""
        if self.phase == "fetch":
            self._fetch_missing()

    def _fetch_missing(self) -> None:
        """Fetch decided slots up to the highest reported prefix, then the values above it (E3)."""
        state = self.state
        self.asked_at = state.now
        if len(self.promisers()) < state.majority():
            self.give_up("the configuration changed")  # M2: a majority is needed there too
            return
        complete = [name for name in self.reports if self.reports[name].complete]
        source = max(complete, key=lambda name: self.reports[name].committed)
        highest = self.reports[source].committed
        if highest > state.log.committed:
            if self.reports[source].base > state.log.committed:
                self.give_up(f"{source} has truncated slots that are needed here")
            else:
                state.send(source, FetchSlots(state.log.committed + 1))
            return
        self._choose()
        self._ask_values()
        if not self.wanted:
            self._finish()

    def _choose(self) -> None:
        """For every open slot find who reported the highest ballot; keep those whose value is not held here."""
        state = self.state
        self.wanted = {}
        self.recovered = state.log.committed
        for name, report in self.reports.items():
            if not report.complete:
                continue
            for slot, (epoch, round_, digest) in report.entries.items():
                if slot <= state.log.committed:
                    continue
                self.recovered = max(self.recovered, slot)
                best = self.wanted.get(slot)
                if best is None or self.outranks((epoch, round_), (best[1], best[2])):
                    self.wanted[slot] = (name, epoch, round_, digest)
        for slot, (name, epoch, round_, _) in list(self.wanted.items()):
            held = state.log.get(slot)
            if name == state.node or (held is not None and (held[0], held[1]) == (epoch, round_)):
                del self.wanted[slot]

    def outranks(self, ballot: tuple[int, int], other: tuple[int, int]) -> bool:
        """Return whether a reported ballot takes precedence over another (the highest one wins)."""
        return ballot > other

    def _ask_values(self) -> None:
        by_holder: dict[str, list[int]] = {}
        for slot, (name, *_) in sorted(self.wanted.items()):
            by_holder.setdefault(name, []).append(slot)
        for name, slots in by_holder.items():
            self.state.send(name, FetchValues(self.epoch, tuple(slots[: self.state.limits.page_entries])))

    def on_values(self, sender: str, message: Values) -> None:
        """Take fetched values, as accepted at the ballot at which they were reported."""
        state = self.state
        if self.phase != "fetch" or message.epoch != self.epoch:
            return
        for slot, epoch, round_, value in message.entries:
            wanted = self.wanted.get(slot)
            if wanted is None or wanted[:3] != (sender, epoch, round_) or value_digest(value) != wanted[3]:
                continue
            del self.wanted[slot]
            state.hold(slot, epoch, round_, value, decided=False)
        if self.wanted:
            self._ask_values()
        else:
            self._fetch_missing()

    def _finish(self) -> None:
        """Everything up to the highest reported slot is held or is a hole: take office."""
        if self.state.promised != self.epoch:
            self.give_up("a higher epoch was promised meanwhile")
            return
        self.phase = ""
        self.take_office(self.epoch, self.recovered, self.promisers())
