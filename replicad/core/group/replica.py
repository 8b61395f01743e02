"""One replica of one group: composes the rooms, owns roles and dispatch. Stepped, never awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.group.acceptor import Acceptor
from replicad.core.group.catch_up import CatchUp
from replicad.core.group.changes import ChangeDesk, ChangeRequests
from replicad.core.group.checkpoints import Checkpoints, Digests
from replicad.core.group.comparison import Comparison
from replicad.core.group.contact import Contact
from replicad.core.group.dispatch import dispatch
from replicad.core.group.election import Election
from replicad.core.group.lease_return import LeaseReturns
from replicad.core.group.membership import Membership
from replicad.core.group.office import Office
from replicad.core.group.probes import ProbeDesk
from replicad.core.group.state import GroupState, Role
from replicad.core.group.tenure import Tenure
from replicad.core.model import messages as m
from replicad.core.model.cluster_id import Naming
from replicad.core.model.configuration import Configuration
from replicad.core.model.errors import check
from replicad.core.model.operations import REMOTE_WRITE

if TYPE_CHECKING:
    from random import Random

    from replicad.core.group.effects import Effects
    from replicad.core.group.executor import Execution
    from replicad.core.journal.recovery import DurableState
    from replicad.core.model.limits import Limits
    from replicad.core.model.operations import Result


class Replica:
    """``step``, ``tick``, ``submit`` and completions in; :class:`Effects` out (see there for the driver's part)."""

    def __init__(
        self,
        *,
        node: str,
        disk: str,
        boot: int,
        members: tuple[str, ...],
        limits: Limits,
        durable: DurableState,
        applied: int,
        digest: bytes,
        configuration: bytes,
        lost: bool,
        rebuild: bool,
        random: Random,
        now: int,
        protocol: str = REMOTE_WRITE,
        neighbours: tuple[str, ...] = (),
        naming: Naming = Naming(),  # noqa: B008 - immutable
    ) -> None:
        """Resume from what is durable.

        ``members``: the initial members, in order; ``protocol``: what a group formed here begins with.
        ``neighbours``: the other nodes that this one can reach, members or not. ``applied``, ``digest``,
        ``configuration``: what the store holds. ``lost``: the directory was damaged, so it may not take part in a first
        formation. ``rebuild``: the store cannot be rebuilt from what is here; a transfer must replace it.
        """
        self.state = GroupState(
            node=node,
            disk=disk,
            boot=boot,
            members=members,
            limits=limits,
            durable=durable,
            applied=applied,
            digest=digest,
            configuration=configuration,
            lost=lost,
            rebuild=rebuild,
            random=random,
            now=now,
            protocol=protocol,
            neighbours=neighbours,
            naming=naming,
        )
        self.office: Office | None = None
        self.acceptor = Acceptor(self.state, self.become_follower, lambda: self.tenure.ends(self.office))
        self.returns = LeaseReturns(self.state, self.acceptor)
        self.election = Election(
            self.state, self.acceptor, self.become_candidate, self.become_coordinator, self.become_follower
        )
        self.tenure = Tenure(self.state, self.acceptor, self.election, self.become_follower)
        self.checkpoints = Checkpoints(self.state, durable.checkpoint)
        self.digests = Digests(self.state)
        self.catch_up = CatchUp(self.state, lambda: self.checkpoints.committed[0])
        self.slots = self.acceptor.slots
        self.contact = Contact(self.state, self.slots)
        self.comparison = Comparison(self.state, self._rebuild, self.contact.serve)
        self.membership = Membership(self.state, self._settle_role, self.comparison.admissible)
        self.desk = ProbeDesk(self.state)
        self.change_requests = ChangeRequests(self.state)
        self.change_desk = ChangeDesk(self.state, self.membership, self.change_requests)
        self.state.adopt_logged_configuration()
        self._settle_role()

    # --- what others may read ---------------------------------------------------------------------------------------

    @property
    def role(self) -> str:
        """Name of the current role."""
        return str(self.state.role)

    @property
    def epoch(self) -> int:
        """The epoch that this replica follows or leads (0: none yet)."""
        return self.state.epoch

    @property
    def coordinator(self) -> str:
        """Name of the coordinator as far as known ("": unknown)."""
        return self.state.coordinator

    @property
    def committed(self) -> int:
        """The contiguous committed prefix."""
        return self.state.log.committed

    @property
    def applied(self) -> int:
        """The last slot applied here."""
        return self.state.applied

    @property
    def view(self) -> tuple[str, ...]:
        """The view, as the coordinator knows it (elsewhere empty)."""
        return self.office.view.members() if self.office else ()

    @property
    def may_end(self) -> bool:
        """Whether a node that leaves, or is drained, has nothing left: no office, and nobody waits for its lease."""
        return self.state.role not in {Role.COORDINATOR, Role.CANDIDATE} and self.returns.settled()

    @property
    def source_heard_at(self) -> int:
        """When the coordinator was last heard, on the own clock (0: never); see :attr:`source_committed`."""
        return self.acceptor.heartbeat_at if self.state.is_voter() else self.membership.source.heard_at

    @property
    def source_committed(self) -> int:
        """What the coordinator had committed then: once it is applied, this state is as fresh as that."""
        return self.slots.watermark[1] if self.state.is_voter() else self.membership.source.committed

    def holds_lease(self, now: int) -> bool:
        """Return whether linearizable reads may be served here without asking anyone."""
        return self.read_slot(now) is not None

    # --- roles: these functions, and nowhere else -------------------------------------------------------------------

    def _settle_role(self) -> None:
        state = self.state
        if state.configuration is None:
            state.role = Role.UNFORMED
        elif not state.is_voter():
            self.become_follower("this disk has no vote")
            role = state.non_voting_role()
            if role is not state.role:
                self.acceptor.drop_lease()
                state.coordinator = "" if role is Role.REMOVED else state.coordinator
                state.role = role
        elif state.role not in {Role.FOLLOWER, Role.CANDIDATE, Role.COORDINATOR}:
            self.comparison.on_vote()
            state.role = Role.FOLLOWER
            self.acceptor.voter_since = state.now
            state.event("voter")

    def become_follower(self, why: str) -> None:
        """Leave candidacy or office."""
        state = self.state
        if state.role is Role.CANDIDATE:
            self.election.cancel()
        if self.office is not None:
            self.tenure.remember(self.office)
            self.office.refuse_queue()
            self.office = None
            self.desk.waiting = []
            self.catch_up.waiting = {}
            self.acceptor.heard_at = state.now
            if state.coordinator == state.node:
                state.coordinator = ""
            state.event("left_office", epoch=state.epoch, why=why)
        if state.role in {Role.CANDIDATE, Role.COORDINATOR}:
            state.role = Role.FOLLOWER

    def become_candidate(self) -> None:
        """Stand for election."""
        if self.office is not None:
            self.become_follower("stands again")
        self.state.role = Role.CANDIDATE
        self.state.coordinator = ""

    def become_coordinator(self, epoch: int, recovered: int, promisers: dict[str, str]) -> None:
        """Take office in ``epoch``; slots up to ``recovered`` are proposed again."""
        state = self.state
        state.role = Role.COORDINATOR
        self.acceptor.drop_lease()
        self.office = Office(state, self.slots, epoch, recovered, promisers)
        self.checkpoints.begin_office()
        self.digests.begin_office()
        self.tenure.begin()
        self.membership.beaten_at = -(10**12)
        self.change_desk.begin_office()
        state.out.catalog_stale = True
        state.event("took_office", epoch=epoch, start=self.office.start, recovered=recovered)
        self._send_heartbeats(self.office)

    # --- inputs -----------------------------------------------------------------------------------------------------

    def start(self, now: int) -> Effects:
        """Feed what was committed before the restart."""
        self.state.now = now
        return self._finish()

    def step(self, sender: str, sender_disk: str, message: m.Message, now: int) -> Effects:
        """Take one message of a peer whose link's handshake named ``sender_disk``."""
        self.state.now = now
        dispatch(self, sender, sender_disk, message)
        return self._finish()

    def tick(self, now: int) -> Effects:
        """Let time pass; call every 10 ms."""
        state = self.state
        state.now = now
        self.membership.tick()
        self.returns.tick()
        if self.office is not None:
            self._tick_office(self.office)
        if self.office is None:
            self.change_desk.tick(None, self.tenure.released)
        self.change_requests.ask(self.office, self.change_desk)
        self.comparison.tick(self.membership.source.node if self.membership.source.live() else "")
        self.election.tick()
        self.catch_up.tick(*self._source())
        for number, confirmed in self.contact.tick(self.office):
            if self.office is not None:
                self.desk.add(state.node, state.boot, number, confirmed=confirmed, office=self.office)
        self.checkpoints.tend()
        return self._finish()

    def _source(self) -> tuple[str, int]:
        """Return whom to fetch from, and the highest slot heard to be committed."""
        state = self.state
        if state.coordinator and state.is_voter():
            epoch, committed = self.slots.watermark
            return state.coordinator, committed if epoch == state.epoch else 0
        if self.membership.source.live():
            return self.membership.source.node, self.membership.source.committed
        return "", 0

    def submit(self, operations: list[tuple[bytes, bytes, int]], now: int) -> Effects:
        """Take operations ``(request id, encoded operation, ack)`` of this node's clients."""
        self.state.now = now
        self.contact.submit(operations, self._open_office())
        return self._finish()

    def _open_office(self) -> Office | None:
        return self.office if self.office is not None and not self.state.leaving else None

    def pending_operations(self) -> list[tuple[bytes, bytes]]:
        """Return ``(request id, encoded operation)`` of the clients' operations that wait here."""
        return [(request_id, pending.operation) for request_id, pending in self.contact.pending.items()]

    def abandon(self, request_id: bytes) -> bool:
        """Forget an operation whose deadline passed; True: it may have been sent, so its outcome is unknown."""
        return self.contact.abandon(request_id)

    def durable(self, ticket: int, now: int) -> Effects:
        """All flushes up to ``ticket`` are done."""
        state = self.state
        state.now = now
        state.flushed(ticket)
        self.checkpoints.on_durable()
        self.catch_up.on_durable()
        return self._finish()

    def executed(self, execution: Execution, now: int) -> Effects:
        """The executor applied slots."""
        state = self.state
        state.now = now
        check(state.applied <= execution.slot <= state.fed, "only fed slots are applied", "applied is fed")
        state.applied = execution.slot
        state.digest = execution.digest
        self.contact.finish(execution.results)
        self.digests.on_marks(execution.marks)
        self.comparison.on_applied(execution.digests)
        return self._finish()

    def checkpoint_written(self, slot: int, digest: bytes, now: int) -> Effects:
        """The own checkpoint at ``slot`` is on disk (empty digest: it failed)."""
        self.state.now = now
        self.checkpoints.on_written(slot, digest)
        return self._finish()

    def checkpoint_kept(self, slot: int, digest: bytes, now: int) -> Effects:
        """The received checkpoint at ``slot`` verifies, has this digest, and is kept as a file."""
        self.state.now = now
        self.checkpoints.on_kept()
        self.catch_up.on_kept(slot, digest)
        return self._finish()

    def installed(
        self, slot: int, digest: bytes, configuration: bytes, results: list[tuple[bytes, Result]], now: int
    ) -> Effects:
        """The store's content was replaced by the checkpoint at ``slot`` (0: emptied).

        ``results``: what ``Executor.recall`` found for :meth:`pending_operations`.
        """
        state = self.state
        state.now = now
        if configuration:
            state.adopt(Configuration.decode(configuration), slot)
        self.catch_up.on_installed(slot, digest)
        self.checkpoints.on_installed(slot, digest)
        self.digests.clear()
        self.comparison.on_installed()
        self.contact.on_installed(slot, results)
        return self._finish()

    def install_failed(self, slot: int, now: int, *, emptied: bool = False) -> Effects:
        """The transferred bytes did not verify; ``emptied``: the store's old content is gone as well."""
        self.state.now = now
        self.catch_up.on_install_failed(slot, emptied=emptied)
        return self._finish()

    def on_peer(self, peer: str, version: int) -> None:
        """A link to ``peer`` was opened: this version of the peer protocol is spoken with it from now on."""
        self.state.versions[peer] = version

    def set_full(self, full: bool, now: int) -> Effects:
        """The disk is full, or has room again."""
        self.state.now, self.state.full = now, full
        return self._finish()

    def set_drained(self, drained: bool, now: int) -> Effects:
        """The node is drained, or not any more: :attr:`may_end` says when it has neither office nor lease left (V3)."""
        self.state.now, self.state.drained = now, drained
        self.returns.tick()
        return self._finish()

    def read_slot(self, now: int) -> int | None:
        """Return the slot to apply before a local linearizable read, or None: use :meth:`probe` (R1).

        ``now`` must have been sampled after the request arrived (L4).
        """
        state = self.state
        state.now = now
        if state.rebuilding or state.comparing or state.leaving:
            return None
        if self.office is not None:
            return self.office.read_slot() if now < self.office.reads_until() else None
        return self.acceptor.read_slot()

    def probe(self, confirmed: bool, now: int) -> tuple[int, Effects]:
        """Ask the coordinator for a read point; ``confirmed`` trusts no clock (R2)."""
        self.state.now = now
        number = self.contact.probe(confirmed=confirmed)
        if self.office is not None:
            self.desk.add(self.state.node, self.state.boot, number, confirmed=confirmed, office=self.office)
        else:
            self.contact.send_probe(number)
        return number, self._finish()

    def request_checkpoint(self, now: int) -> Effects:
        """Have the group take a checkpoint now."""
        self.state.now = now
        if self.office is not None:
            self.checkpoints.wanted = True
        elif self.state.coordinator:
            self.state.send(self.state.coordinator, m.CheckpointRequest())
        return self._finish()

    def request_change(self, kind: str, argument: str, now: int) -> tuple[int, Effects]:
        """Ask for one change of the group, of a kind in ``changes``; ``Effects.changes`` brings the answer.

        Nothing comes if no coordinator answers: then the outcome is unknown, and the configuration tells.
        """
        self.state.now = now
        number = self.change_requests.add(kind, argument)
        self.change_requests.ask(self.office, self.change_desk)
        return number, self._finish()

    def hand_over(self, now: int) -> Effects:
        """Leave in order: stop granting and reading, and release the others once the grants have ended (E5).

        Who is not in office gives its lease back; :attr:`may_end` says when the process may end.
        """
        self.state.now = now
        self.state.leaving = True
        self.returns.tick()
        return self._finish()

    # --- the office -------------------------------------------------------------------------------------------------

    def on_heartbeat(self, sender: str, message: m.Heartbeat) -> None:
        """Follow the coordinator, obey what it says of checkpoint and digest, and answer."""
        if not self.acceptor.on_heartbeat(sender, message):
            return
        self._heed(message)
        self.acceptor.acknowledge(sender, message, self.digests.newest(), self.checkpoints.report())

    def on_mirror_heartbeat(self, sender: str, disk: str, message: m.MirrorHeartbeat) -> None:
        """Follow the coordinator as a mirror, and obey what it says of checkpoint and digest."""
        if self.membership.on_mirror_heartbeat(sender, disk, message):
            self._heed(message)
            self.catch_up.poll(sender)

    def _heed(self, message: m.Heartbeat | m.MirrorHeartbeat) -> None:
        if not self.checkpoints.on_announced((message.checkpoint, message.checkpoint_digest)):
            self._rebuild("the checkpoint written here differs from the committed one", message.checkpoint)
        self._obey((message.digest_slot, message.digest))

    def _obey(self, verdict: tuple[int, bytes]) -> None:
        if verdict[0] and not verdict[1] and verdict[0] in self.digests.marks:
            self.state.out.halt = f"the replicas disagree about slot {verdict[0]} and no majority agrees: all stop"
        elif self.digests.contradicted(verdict):
            self._rebuild(f"the digest at slot {verdict[0]} differs from the majority's", verdict[0])

    def _rebuild(self, why: str, slot: int) -> None:
        """This state may not be trusted: read no more, and fetch it from the others; promises stay (K3)."""
        self.acceptor.drop_lease()
        self.become_follower(why)
        self.digests.clear()
        self.contact.disown()
        self.comparison.distrust(why, slot)

    def _tick_office(self, office: Office) -> None:
        state = self.state
        if not self.tenure.lasts(office):
            return
        if self.digests.contradicted(self.digests.verdict):
            self._rebuild("the majority's digest differs", self.digests.verdict[0])
            return
        self._obey(self.digests.verdict)
        office.tend_view()
        self.change_desk.tick(office, self.tenure.released)
        office.repairs.tick()
        if not state.leaving:
            self.checkpoints.tick(office)
        # Aligned to the clock, the heartbeats of all groups of a node leave in one frame.
        if state.now // state.limits.heartbeat_us != office.authority.last_round_at // state.limits.heartbeat_us:
            self._send_heartbeats(office)

    def _send_heartbeats(self, office: Office) -> None:
        office.heartbeat(self.checkpoints.announced, self.digests.verdict)
        self.membership.beat(office, self.checkpoints.announced, self.digests.verdict)

    # --- the end of every step --------------------------------------------------------------------------------------

    def _finish(self) -> Effects:
        """Let consequences follow: slots for what is queued, commits, announcements, execution, answers."""
        office = self.office
        self.contact.take_tickets(office)
        if office is not None:
            office.advance()
            if (self.state.leaving or self.state.drained or office.successor) and not self.tenure.lasts(office):
                office = None  # a hand-over is done as soon as it can be, which any message may have made possible
        if office is not None:
            office.drain()
            office.send_accepts()
            office.announce()
            self.change_desk.settle(office)
            if self.catch_up.waiting:
                self.catch_up.serve_waiting()
            self.desk.answer(office, self.contact)
            if self.desk.wants_round(office) and self.state.now > office.authority.last_round_at:
                self._send_heartbeats(office)
        self.state.feed()
        self._settle_role()
        self.invariants()
        return self.state.finish()

    def invariants(self) -> None:
        """Stop the process if the replica's own rules are broken."""
        state = self.state
        log = state.log
        check(log.base <= log.committed <= log.highest, "base <= committed <= highest", "log bounds")
        check(state.applied <= state.fed <= log.committed, "applied <= fed <= committed", "applied is committed")
        check(state.matched >= log.committed, "everything committed is matched", "committed is matched")
        if (office := self.office) is not None:
            check(state.role is Role.COORDINATOR, "only a coordinator has an office", "office")
            check(state.promised == office.epoch, "a coordinator has promised nothing above its epoch", "own promise")
            check(office.assigned >= log.committed, "nothing is committed that was not assigned", "assigned")
            check(office.authority.current(), "its peers are the other voters of the configuration", "peers")
        else:
            check(state.role is not Role.COORDINATOR, "a coordinator has an office", "office")
