"""Elections without their rules: E1 to E5, and the voter's side, A1 and L1."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replicad.core.model.ids import make_epoch
from replicad.lab.mutations.registry import also, always, covered, instead, register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function

ACCEPTOR = "core.group.acceptor:Acceptor"
ELECTION = "core.group.election:Election"
OFFICE = "core.group.office:Office"
STATE = "core.group.state:GroupState"
TENURE = "core.group.tenure:Tenure"

# --- E1 ---------------------------------------------------------------------------------------------------------------

register("epoch-not-unique", "E1", "epochs do not say whose they are", "core.group.election", "next_epoch")(
    instead(lambda above, _number: make_epoch(above // make_epoch(1, 1) + 1, 1))
)


@register("prepare-before-promise", "E1", "Prepare leaves before the own promise is durable", ELECTION, "send_prepare")
def _prepare_before_promise(_original: Function) -> Function:
    def send_prepare(self: Any) -> None:
        for peer in self.state.peers():
            self.state.send(peer, self._request(peer))

    return send_prepare


@register("promise-forgotten", "E1", "a restarted process knows no promise, its own epochs included", STATE, "__init__")
def _promise_forgotten(original: Function) -> Function:
    def init(self: Any, **named: Any) -> None:
        original(self, **named)
        self.promised = 0

    return init


# --- E2 ---------------------------------------------------------------------------------------------------------------


@register(
    "promise-omits-unflushed", "E2", "a promise leaves out what is still being flushed", ACCEPTOR, "_send_promise"
)
def _promise_omits_unflushed(original: Function) -> Function:
    def send_promise(self: Any, sender: str, message: Any) -> None:
        log = self.state.log
        highest = log.highest
        log.highest = max(log.committed, self.state.durable_limit(highest))
        original(self, sender, message)
        log.highest = highest

    return send_promise


@register("promise-omits-decided", "E2", "a promise leaves out the slots that are decided", ACCEPTOR, "_send_promise")
def _promise_omits_decided(original: Function) -> Function:
    def send_promise(self: Any, sender: str, message: Any) -> None:
        original(self, sender, message)
        to, promise = self.state.out.send_durable.pop()
        entries = tuple(entry for entry in promise.entries if entry[0] > self.state.log.committed)
        self.state.send_durable(to, replace(promise, committed=0, base=0, entries=entries))

    return send_promise


@register("first-page-is-all", "E2", "a promise counts when its first page is here", ELECTION, "on_promise")
def _first_page_is_all(original: Function) -> Function:
    def on_promise(self: Any, sender: str, disk: str, message: Any) -> None:
        original(self, sender, disk, replace(message, highest=message.to_slot))

    return on_promise


# --- E3 ---------------------------------------------------------------------------------------------------------------

register("lowest-ballot-wins", "E3", "a candidate takes the value of the lowest ballot", ELECTION, "outranks")(
    instead(lambda _self, ballot, other: ballot < other)
)


@register("prefix-not-fetched", "E3", "a candidate fetches nothing up to the highest prefix", ELECTION, "on_promise")
def _prefix_not_fetched(original: Function) -> Function:
    def on_promise(self: Any, sender: str, disk: str, message: Any) -> None:
        original(self, sender, disk, replace(message, committed=0))

    return on_promise


register("office-reads-at-once", "E3", "a new coordinator reads before H is applied", OFFICE, "reads_until")(
    instead(lambda self: self.authority.authority_until())
)


@register("office-grants-at-once", "E3", "a new coordinator grants leases before H is applied", OFFICE, "may_grant")
def _office_grants_at_once(original: Function) -> Function:
    def may_grant(self: Any, name: str) -> bool:
        recovered, self.recovered = self.recovered, 0
        granted = original(self, name)
        self.recovered = recovered
        return bool(granted)

    return may_grant


@also("office-grants-at-once", "core.group.view:View", "consider")
def _office_takes_in_at_once(original: Function) -> Function:
    return lambda self, assigned, _recovered: original(self, assigned, 0)


# --- E4 ---------------------------------------------------------------------------------------------------------------

register(
    "deaf-coordinator-stays", "E4", "a coordinator that hears nobody stays", "core.group.authority:Authority", "lost"
)(always(value=False))
register(
    "stalled-coordinator-stays", "E4", "a coordinator whose disk hangs or is full stays", TENURE, "must_step_down"
)(instead(lambda _self, office: "no majority" if office.authority.lost() else ""))
# A disk that hangs is also one that the others wait for: the office would be moved for that.
also("stalled-coordinator-stays", "core.group.drag:Drag", "_move")(always(value=None))

# --- E5 ---------------------------------------------------------------------------------------------------------------


@register("rejection-ignored", "E5", "a coordinator does not stand again above a promise", TENURE, "on_rejected")
def _rejection_ignored(original: Function) -> Function:
    return lambda self, message, _office: original(self, message, None)


register("grants-not-waited-out", "E5", "the next own epoch begins under old grants", TENURE, "grants_ended")(
    always(value=True)
)
register("loyal-to-the-past", "E5", "followers do not promise their coordinator's next epoch", ACCEPTOR, "may_promise")(
    instead(lambda self, predecessor: self.state.now >= self.sticky_until())  # noqa: ARG005 - it is called by name
)

# --- A1 ---------------------------------------------------------------------------------------------------------------


@register("accept-below-promise", "A1", "Accepts of the old epoch are taken after a promise", ACCEPTOR, "follow")
def _accept_below_promise(original: Function) -> Function:
    def follow(self: Any, sender: str, epoch: int) -> bool:
        old = epoch == self.state.epoch and epoch < self.state.promised
        return bool(old or original(self, sender, epoch))

    return follow


@also("accept-below-promise", "core.group.slots:Slots", "may_accept")
def _accept_below_promise_too(_original: Function) -> Function:
    def may_accept(self: Any, slot: int, epoch: int, round_: int) -> bool:
        held = self.state.log.get(slot)
        return held is None or held[:2] < (epoch, round_)

    return may_accept


@register("promise-keeps-role", "A1", "a coordinator that promises another stays in office", ACCEPTOR, "raise_promise")
def _promise_keeps_role(_original: Function) -> Function:
    def raise_promise(self: Any, epoch: int) -> None:
        self.state.promise(epoch)
        self.drop_lease()

    return raise_promise


@register(
    "promise-keeps-lease", "A1", "a holder that promises another epoch keeps its lease", ACCEPTOR, "raise_promise"
)
def _promise_keeps_lease(_original: Function) -> Function:
    def raise_promise(self: Any, epoch: int) -> None:
        self.state.promise(epoch)
        self.resign(f"promised epoch {epoch}")

    return raise_promise


@also("promise-keeps-lease", ACCEPTOR, "read_slot")
def _read_in_any_epoch(_original: Function) -> Function:
    def read_slot(self: Any) -> int | None:
        return None if self.state.now >= self.lease_until else max(self.lease_slot, self.state.matched)

    return read_slot


# --- L1 ---------------------------------------------------------------------------------------------------------------


@register("loyalty-forgotten", "L1", "a voter promises others at once after a heartbeat", ACCEPTOR, "pledge")
def _loyalty_forgotten(_original: Function) -> Function:
    def pledge(self: Any, epoch: int) -> None:
        self.loyal_epoch = epoch

    return pledge


register("loyalty-lost-at-restart", "L1", "a restarted voter promises at once", ACCEPTOR, "sticky_until")(
    instead(
        lambda self: max(
            self.voter_since + self.state.limits.lease_us if self.voter_since > self.state.started_at else 0,
            self.loyal_until,
            self.office_ends(),
        )
    )
)
register("new-voter-not-loyal", "L1", "a disk that has just become a voter promises at once", ACCEPTOR, "sticky_until")(
    instead(lambda self: max(self.state.started_at + self.state.limits.lease_us, self.loyal_until, self.office_ends()))
)
register("own-office-forgotten", "L1", "a coordinator promises others under its own grants", ACCEPTOR, "sticky_until")(
    instead(
        lambda self: max(max(self.state.started_at, self.voter_since) + self.state.limits.lease_us, self.loyal_until)
    )
)

# --- what other rules cover -------------------------------------------------------------------------------------------

covered("office-grants-at-once", "V1: b is at least H, and nobody gets a grant before it applied b")
covered(
    "promise-keeps-lease",
    "L1 and L3: a lease ends before the holder's own loyalty, and before another office can begin",
)
covered(
    "new-voter-not-loyal",
    "L1 at a start: the disk before it died before this process began, and it acknowledged nothing yet",
)
