"""Leases, views and reads without their rules: L2 to L4, V1, V2, R1, R2."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replicad.core.detection.patience import Sign
from replicad.lab.mutations.registry import also, always, instead, register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function

ACCEPTOR = "core.group.acceptor:Acceptor"
AUTHORITY = "core.group.authority:Authority"
VIEW = "core.group.view:View"
RETURNS = "core.group.lease_return:LeaseReturns"

# --- L2, L3, L4 -------------------------------------------------------------------------------------------------------


@register("authority-from-receipt", "L2", "authority counts from the answers' receipt", AUTHORITY, "majority_sent_at")
def _authority_from_receipt(_original: Function) -> Function:
    def majority_sent_at(self: Any) -> int:
        heard = [
            self.state.detectors.last_heard(name, Sign.ANSWER) if peer.acked_sent_at >= 0 else -1
            for name, peer in self.peers.items()
        ]
        return int(sorted([self.state.now, *heard], reverse=True)[self.state.majority() - 1])

    return majority_sent_at


register("lease-from-receipt", "L3", "a lease counts from the grant's receipt", ACCEPTOR, "lease_end")(
    instead(lambda self, message: self.state.now + self.state.limits.shortened(message.grant_us))
)
register("grant-beyond-authority", "L3", "grants last a lease length whatever is left", AUTHORITY, "grant_duration")(
    instead(lambda self: self.state.limits.lease_us)
)


@register("grant-of-another-boot", "L3", "a holder takes a grant made to its earlier process", ACCEPTOR, "_take_grant")
def _grant_of_another_boot(_original: Function) -> Function:
    def take_grant(self: Any, message: Any) -> None:
        if message.grant_us and message.grant_request >= self.lease_asked_after:
            self.lease_until = max(self.lease_until, self.lease_end(message))
            self.lease_slot = message.grant_slot

    return take_grant


register("rates-ignored", "L3", "clocks are taken to run at one rate", "core.model.limits:Limits", "shortened")(
    instead(lambda _self, duration_us: duration_us)
)


PROCESS = "lab.simulated_process:SimulatedProcess"


@register("old-clock-sample", "L4", "the time is read once for all that waits, before a stop", PROCESS, "resume")
def _old_clock_sample(original: Function) -> Function:
    def resume(self: Any) -> None:
        self.turn_time = getattr(self, "stop_time", None)
        try:
            original(self)
        finally:
            self.turn_time = None

    return resume


@also("old-clock-sample", PROCESS, "pause")
def _sample_before_the_stop(original: Function) -> Function:
    def pause(self: Any) -> None:
        self.stop_time = self.clock()
        original(self)

    return pause


@also("old-clock-sample", PROCESS, "clock")
def _time_of_the_turn(original: Function) -> Function:
    def clock(self: Any) -> int:
        frozen = getattr(self, "turn_time", None)
        return int(original(self) if frozen is None else frozen)

    return clock


# --- V1, V2 -----------------------------------------------------------------------------------------------------------

register("joiner-granted-early", "V1", "a joiner gets grants before it applied b", VIEW, "may_hold")(
    instead(lambda self, name: name in self.joined)
)


@also("joiner-granted-early", ACCEPTOR, "read_slot")
def _b_ignored(_original: Function) -> Function:
    def read_slot(self: Any) -> int | None:
        state = self.state
        return None if state.now >= self.lease_until or state.epoch != state.promised else int(state.matched)

    return read_slot


@register("joiner-not-waited-for", "V1", "slots above b commit without the joiner for a while", VIEW, "limit")
def _joiner_not_waited_for(_original: Function) -> Function:
    def limit(self: Any, slot: int) -> int:
        for name, joined_at in self.joined.items():
            slot = min(slot, max(self.authority.peers[name].matched, joined_at + 4))
        return slot

    return limit


register("holder-dropped-early", "V2", "holders are dropped before their last grant has ended", VIEW, "may_drop")(
    always(value=True)
)


@register("stuck-disk-keeps-lease", "V2", "a stuck or full disk keeps its lease", ACCEPTOR, "wants_lease")
def _stuck_disk_keeps_lease(_original: Function) -> Function:
    return lambda self: not (self.state.rebuilding or self.state.leaving)


@also("stuck-disk-keeps-lease", VIEW, "unfit")
def _late_is_fit(_original: Function) -> Function:
    return lambda self, peer, _oldest_open, _open_since: peer.lease_request == 0 or not self.fresh(peer)


register("silent-holder-stays", "V2", "a holder that does not answer stays in the view", VIEW, "unfit")(
    instead(lambda _self, peer, _oldest_open, _open_since: peer.lease_request == 0)
)

# --- R1, R2 -----------------------------------------------------------------------------------------------------------


@register("read-ignores-accepted", "R1", "a read does not wait for the slots accepted", ACCEPTOR, "read_slot")
def _read_ignores_accepted(_original: Function) -> Function:
    def read_slot(self: Any) -> int | None:
        state = self.state
        return None if state.now >= self.lease_until or state.epoch != state.promised else int(self.lease_slot)

    return read_slot


@register("read-waits-for-dead-epoch", "R1", "a read waits for slots of a dead epoch, too", ACCEPTOR, "read_slot")
def _read_waits_for_dead_epoch(original: Function) -> Function:
    def read_slot(self: Any) -> int | None:
        slot = original(self)
        return None if slot is None else max(slot, self.state.log.highest)

    return read_slot


@register(
    "confirmed-by-old-round",
    "R2",
    "a read is confirmed by a round begun before it",
    "core.group.probes:ProbeDesk",
    "add",
)
def _confirmed_by_old_round(original: Function) -> Function:
    def add(self: Any, contact: str, boot: int, probe: int, *, confirmed: bool, office: Any) -> None:
        original(self, contact, boot, probe, confirmed=confirmed, office=office)
        if confirmed and self.waiting and self.waiting[-1][2] == probe:
            self.waiting[-1] = (contact, boot, probe, max(1, office.authority.confirmed_round()))

    return add


@register("late-answer-ends-lease", "V2", "an answer from before the newest grant ends it", AUTHORITY, "on_ack")
def _late_answer_ends_lease(original: Function) -> Function:
    def on_ack(self: Any, sender: str, message: Any) -> None:
        self.peers[sender].granted_in = 0
        original(self, sender, message)

    return on_ack


# --- leases that are given back (V2, E5) ------------------------------------------------------------------------------

register(
    "returned-lease-still-read",
    "V2",
    "a holder gives its lease back, and goes on reading under it",
    RETURNS,
    "on_recall",
)(instead(lambda self, _sender, _message: self._send()))

register("stale-return-ends-lease", "V2", "a return ends leases that were asked for after it", AUTHORITY, "covers")(
    always(value=True)
)


@register(
    "return-of-another-boot", "V2", "a return of an earlier process ends this one's lease", AUTHORITY, "on_return"
)
def _return_of_another_boot(original: Function) -> Function:
    def on_return(self: Any, peer: Any, message: Any) -> bool:
        return bool(original(self, peer, replace(message, boot=peer.boot)))

    return on_return


@register(
    "released-before-all-returned",
    "E5",
    "a hand-over waits for the first lease that comes back only",
    "core.group.tenure:Tenure",
    "grants_ended",
)
def _released_before_all_returned(_original: Function) -> Function:
    def grants_ended(self: Any, office: Any) -> bool:
        return any(self.state.now >= peer.granted_until for peer in office.authority.peers.values())

    return grants_ended


register("leases-waited-out", "speed", "no lease is given back before it has run out", RETURNS, "_send")(
    always(value=None)
)

# --- slow disks -------------------------------------------------------------------------------------------------------

PROBATION = "core.group.probation:Probation"
DRAG = "core.group.drag:Drag"

register("probation-not-kept", "speed", "who was too slow is relied on again at once", PROBATION, "over")(
    always(value=True)
)
register(
    "patience-fixed", "speed", "every disk of a slow cluster is blamed in turn", "core.detection.pace:Pace", "observe"
)(always(value=None))
register("slow-coordinator-stays", "speed", "a coordinator slower than the others keeps its office", DRAG, "_move")(
    always(value=None)
)
register("slow-member-stays", "speed", "a member that is slow with every slot stays in the view", DRAG, "waited_for")(
    always(value=())
)
