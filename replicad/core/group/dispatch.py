"""Every message has one place to go."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from replicad.core.detection.patience import Sign
from replicad.core.model import messages as m

if TYPE_CHECKING:
    from replicad.core.group.office import Office
    from replicad.core.group.replica import Replica

OfficeMessage = (
    m.Accepted
    | m.HeartbeatAck
    | m.LeaseReturn
    | m.ReadProbe
    | m.CheckpointRequest
    | m.TicketRequest
    | m.SlotPromise
    | m.SlotAccepted
)


SIGNS: dict[type[m.Message], Sign] = {
    m.HeartbeatAck: Sign.ANSWER,
    m.Introduce: Sign.WORD,
    m.FetchSlots: Sign.WORD,
    m.SlotAccepted: Sign.ACCEPTANCE,
}


def dispatch(replica: Replica, sender: str, disk: str, message: m.Message) -> None:
    """Every message has one place to go. What votes or counts must come from a member's current disk."""
    if type(message) in SIGNS:
        _note_sign(replica, sender, disk, message)
    match message:
        case m.Accept() | m.Accepted() | m.Committed() | m.Heartbeat() | m.HeartbeatAck():
            _from_member(replica, sender, disk, message)  # nearly all messages: they come first, here and there
        case m.Introduce():
            replica.membership.on_introduce(sender, disk, message, replica.office)
        case m.Form():
            replica.membership.on_form(message)
        case m.Welcome():
            if replica.membership.on_welcome(sender, disk, message):
                replica.catch_up.poll(sender)
        case m.MirrorHeartbeat():
            replica.on_mirror_heartbeat(sender, disk, message)
        case m.FetchSlots():
            in_office = replica.office is not None
            if in_office:
                replica.membership.on_fetch(sender, disk, message.first)
            patient = in_office and replica.membership.follows(sender, disk)
            replica.catch_up.on_fetch_slots(sender, message, patient=patient)
        case m.Slots() | m.Truncated() | m.CheckpointChunk() if not _feeds(replica, sender, disk):
            pass  # it is another disk than the one that was asked
        case m.Slots():
            replica.membership.source.on_slots(sender, disk, message.committed)
            if replica.catch_up.on_slots(sender, message):
                replica.election.on_progress()
        case m.Truncated():
            replica.catch_up.on_truncated(sender, message)
        case m.FetchCheckpoint():
            replica.catch_up.on_fetch_checkpoint(sender, message)
        case m.CheckpointChunk():
            replica.catch_up.on_chunk(sender, message)
        case m.ChangeRequest():
            if replica.office is not None and replica.state.knows(sender):
                replica.change_desk.on_request(sender, message, replica.office)
        case m.ChangeOutcome():
            replica.change_requests.on_outcome(message)
        case m.ChangeAnswer():
            replica.change_requests.on_answer(message)
        case m.CompareDigest():
            replica.comparison.on_compare(sender, disk, message)
        case m.Forward() | m.ReadProbe() | m.CheckpointRequest() if _is_mirror(replica, sender):
            _dispatch_mirror(replica, sender, message)
        case _:
            _from_member(replica, sender, disk, message)


def _feeds(replica: Replica, sender: str, disk: str) -> bool:
    return replica.membership.source.feeds(sender, disk, replica.catch_up.source)


def _from_member(replica: Replica, sender: str, disk: str, message: m.Message) -> None:
    if replica.state.counts(sender, disk):
        _dispatch_member(replica, sender, disk, message)
    elif isinstance(message, m.Heartbeat):
        replica.membership.on_foreign_heartbeat(sender)
    elif isinstance(message, m.DigestCompared) and replica.comparison.takes_word_of(sender):
        replica.comparison.on_compared(sender, message)


def _note_sign(replica: Replica, sender: str, disk: str, message: m.Message) -> None:
    """Tell the detectors of a sign of life; an answer, or an acceptance, is one only by the disk that votes.

    That a node offers slots is a sign if it is the one to fetch them from: ``Membership`` chooses it, and says so.
    """
    state = replica.state
    office = replica.office
    match message:
        case m.HeartbeatAck():
            # Peers are asked: by a configuration that changed just now a new disk begins as one that was never heard.
            current = office is not None and message.epoch == office.epoch and sender in office.authority.peers
            counts = current and state.counts(sender, disk)
        case m.SlotAccepted():
            counts = message.round == 0 and state.counts(sender, disk)
        case m.FetchSlots():
            counts = office is not None and replica.membership.follows(sender, disk)
        case _:
            counts = True
    if counts:
        state.detectors.heard(sender, state.now, SIGNS[type(message)])


def _is_mirror(replica: Replica, sender: str) -> bool:
    configuration = replica.state.configuration
    return configuration is not None and sender in configuration.mirrors


def _dispatch_mirror(replica: Replica, sender: str, message: m.Forward | m.ReadProbe | m.CheckpointRequest) -> None:
    """What a mirror may ask of a coordinator, whatever its disk."""
    if isinstance(message, m.Forward):
        replica.tenure.on_forward(sender, message, replica.office)
    elif replica.office is not None:
        _dispatch_office(replica, sender, message, replica.office)


def _dispatch_member(replica: Replica, sender: str, disk: str, message: m.Message) -> None:
    match message:
        case m.Accept():
            replica.acceptor.on_accept(sender, message)
        case m.Accepted() | m.HeartbeatAck():
            if replica.office is not None:
                _dispatch_office(replica, sender, message, replica.office)
        case m.Committed():
            replica.acceptor.on_committed(sender, message)
        case m.Heartbeat():
            replica.on_heartbeat(sender, message)
        case m.Forward():
            if replica.office is None and sender == replica.coordinator and replica.contact.proposes():
                replica.contact.adopt(sender, message)
            else:
                replica.tenure.on_forward(sender, message, replica.office)
        case m.SlotAccept():
            replica.slots.on_slot_accept(sender, message)
        case m.SlotAccepted() if message.round == 0:
            replica.contact.tickets.on_accepted(sender, message)
        case m.SlotPrepare():
            replica.slots.on_slot_prepare(sender, message)
        case m.Chosen():
            replica.slots.on_chosen(message)
        case m.Ticket():
            replica.contact.tickets.on_ticket(message)
        case m.Decided():
            replica.contact.tickets.on_decided(sender, message, replica.office)
            if replica.office is not None:
                replica.office.repairs.on_decided(sender, message)
        case (
            m.LeaseReturn()
            | m.ReadProbe()
            | m.CheckpointRequest()
            | m.TicketRequest()
            | m.SlotPromise()
            | m.SlotAccepted()
        ):
            if replica.office is not None:
                _dispatch_office(replica, sender, message, replica.office)
        case m.DigestCompared():
            replica.comparison.on_compared(sender, message)
        case m.LeaseRecall():
            replica.returns.on_recall(sender, message)
        case m.LeaseReturned():
            replica.returns.on_returned(sender, message)
        case m.PreVote():
            replica.acceptor.on_pre_vote(sender, message)
        case m.PreVoteAnswer():
            replica.election.on_pre_vote_answer(sender, message)
        case m.Prepare():
            replica.acceptor.on_prepare(sender, message)
        case m.Promise():
            replica.election.on_promise(sender, disk, message)
        case m.Rejected():
            replica.tenure.on_rejected(message, replica.office)
        case m.FetchValues():
            replica.acceptor.on_fetch_values(sender, message)
        case m.Values():
            replica.election.on_values(sender, message)
        case m.Release():
            replica.acceptor.on_release(sender, message)
            replica.election.tick()  # the successor stands at once
        case m.ForwardRefused():
            replica.contact.on_refused(message)
        case m.Durable():
            replica.contact.on_durable(message)
        case m.ReadPoint():
            replica.contact.on_read_point(message)
        case _:
            raise AssertionError(f"{type(message).__name__} has no handler")


def _dispatch_office(
    replica: Replica,
    sender: str,
    message: OfficeMessage,
    office: Office,
) -> None:
    """Messages to a coordinator; without an office they mean nothing."""
    match message:
        case m.Accepted() | m.HeartbeatAck() if message.matched > office.assigned:
            pass  # it claims slots that were never assigned: its log is none of this group's
        case m.Accepted():
            if message.epoch == office.epoch:
                office.on_accepted(sender, message)
        case m.HeartbeatAck():
            if message.epoch == office.epoch:
                office.on_heartbeat_ack(sender, message)
                replica.checkpoints.on_report(sender, message)
                replica.digests.on_report(sender, message.digest_slot, message.digest)
        case m.LeaseReturn():
            if message.epoch == office.epoch:
                office.on_lease_return(sender, message)
        case m.ReadProbe():
            replica.desk.add(sender, message.boot, message.probe, confirmed=message.confirmed, office=office)
        case m.CheckpointRequest():
            replica.checkpoints.wanted = True
        case m.TicketRequest():
            if message.epoch == office.epoch:
                office.sequencer.request(sender, message.boot, message.ticket)
        case m.SlotPromise():
            if message.epoch == office.epoch:
                office.repairs.on_promise(sender, message)
        case m.SlotAccepted():
            if message.epoch == office.epoch:
                office.repairs.on_accepted(sender, message)
        case _:
            assert_never(message)
