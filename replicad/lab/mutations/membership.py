"""Membership without its rules: M1 to M5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.core.model.operations import OPERATIONS
from replicad.lab.mutations.registry import also, always, covered, instead, register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function

MEMBERSHIP = "core.group.membership:Membership"
STATE = "core.group.state:GroupState"
LINEAGE = "core.group.lineage:Lineage"

# --- M1, M2, M3 -------------------------------------------------------------------------------------------------------

register(
    "slots-above-configuration",
    "M1",
    "slots are assigned above an open configuration",
    "core.group.office:Office",
    "above_configuration",
)(always(value=True))
register("configuration-above-open", "M1", "a configuration is proposed above open slots", MEMBERSHIP, "may_propose")(
    always(value=True)
)
register(
    "old-promises-count",
    "M2",
    "promises of disks that left count for a candidate",
    "core.group.election:Election",
    "promisers",
)(instead(lambda self: {name: report.disk for name, report in self.reports.items() if report.complete}))


@also("old-promises-count", "core.group.office:Office", "has_promises")
def _promises_not_counted(_original: Function) -> Function:
    return lambda *_arguments: True


register(
    "commit-past-configuration",
    "M2",
    "slots above an entry are decided by its predecessor's members",
    "core.group.office",
    "batch_kind",
)(always(OPERATIONS))
register(
    "unsafe-changes-made",
    "M1",
    "a coordinator makes every change that it is asked for",
    "core.group.changes:ChangeDesk",
    "unsafe",
)(always(None))
register(
    "two-changes-at-once",
    "M1",
    "a change begins while another one is under way",
    "core.group.changes:ChangeDesk",
    "_busy",
)(always(None))
register(
    "promoted-while-behind",
    "M4",
    "a mirror is promoted however far it is behind",
    "core.group.changes:ChangeDesk",
    "_promotion_unsafe",
)(always(None))


@register("replaced-in-the-view", "M3", "a disk is replaced while it is in the view", "core.group.view:View", "remove")
def _replaced_in_the_view(_original: Function) -> Function:
    def remove(self: Any, name: str) -> bool:
        self.joined.pop(name, None)
        return True

    return remove


register(
    "peers-of-before",
    "M2",
    "a coordinator goes on with the voters that it took office with",
    "core.group.authority:Authority",
    "peers",
)(lambda _original: property(lambda self: self._peers))  # type: ignore[arg-type, return-value]

# --- M4, M5 -----------------------------------------------------------------------------------------------------------


@register(
    "empty-disk-votes",
    "M4",
    "a new disk votes in its predecessor's name at once",
    STATE,
    "counts",
)
def _empty_disk_counts(_original: Function) -> Function:
    return lambda self, node, _disk: self.configuration is not None and self.configuration.member(node) is not None


@also("empty-disk-votes", STATE, "is_voter")
def _name_is_enough(_original: Function) -> Function:
    return lambda self: self.configuration is not None and self.configuration.member(self.node) is not None


register("newcomer-votes-at-once", "M4", "a newcomer votes before it applied its admission", STATE, "is_voter")(
    instead(lambda self: self.is_member())
)


@register(
    "old-word-for-new-disk",
    "M4",
    "what the old disk said counts for the new",
    "core.group.authority:Authority",
    "refresh_members",
)
def _old_word_for_new_disk(original: Function) -> Function:
    def refresh_members(self: Any) -> None:
        for member in self.state.configuration.members if self.state.configuration else ():
            if member.node in self._peers:
                self._peers[member.node].disk = member.disk
        original(self)

    return refresh_members


register("old-disk-counts", "M4", "messages of a disk that was replaced still count", STATE, "counts")(
    instead(lambda self, node, disk: self.configuration is not None and self.configuration.member(node) is not None)  # noqa: ARG005
)


@register(
    "rolled-back-disk-stays",
    "M4",
    "a disk older than what it acknowledged stays a voter",
    "core.group.acceptor:Acceptor",
    "on_heartbeat",
)
def _rolled_back_disk_stays(original: Function) -> Function:
    def on_heartbeat(self: Any, sender: str, message: Any) -> bool:
        counted = bool(original(self, sender, message))
        if self.state.out.forget:
            self.state.out.forget = ""
            self._take_grant(message)
            return True
        return counted

    return on_heartbeat


@register("two-empty-nodes-form", "M5", "a majority of empty members forms the group", MEMBERSHIP, "may_form")
def _two_empty_nodes_form(_original: Function) -> Function:
    def may_form(self: Any) -> bool:
        names = self.state.initial_members
        empty = sum(self._fresh(name) == "empty" for name in names if name != self.state.node)
        return bool(names[0] == self.state.node and self.own_state() == "empty" and 2 * (empty + 1) > len(names))

    return may_form


@also("two-empty-nodes-form", MEMBERSHIP, "_form")
def _form_without_the_rest(_original: Function) -> Function:
    def form(self: Any) -> None:
        from replicad.core.model.configuration import Configuration  # noqa: PLC0415

        known = {name: said.disk for name, said in self.introductions.items()} | {self.state.node: self.state.disk}
        self._record(Configuration.initial({name: known.get(name, "?") for name in self.state.initial_members}))

    return form


# --- M6 ---------------------------------------------------------------------------------------------------------------

register("ids-not-compared-at-the-door", "M6", "handshakes compare names only", "lab.simulated_process", "foreign")(
    always("")
)
register(
    "foreign-configuration-believed", "M6", "a configuration of another cluster is believed", LINEAGE, "_unproven"
)(always(value=False))


@also("foreign-configuration-believed", LINEAGE, "_contradicts")
def _never_foreign(_original: Function) -> Function:
    return lambda *_arguments: False


register(
    "refuted-configuration-learnt",
    "M6",
    "a configuration is learnt whose slot holds something else here",
    "core.group.state:GroupState",
    "refuted",
)(always(value=False))


@register(
    "begun-disk-believes-anyone",
    "M4",
    "a disk with slots and no configuration fetches from whoever has more",
    LINEAGE,
    "admitted",
)
def _begun_disk_believes_anyone(original: Function) -> Function:
    return lambda self, told, sender, disk: self.known is None or original(self, told, sender, disk)


register(
    "id-not-kept-in-the-directory",
    "M6",
    "a directory does not say which cluster it belongs to",
    "lab.simulated_ports:SimulatedPorts",
    "keep_cluster_id",
)(always(None))
register(
    "checkpoint-of-another-cluster",
    "M6",
    "a checkpoint is installed whatever cluster it is of",
    "lab.virtual_files",
    "check_owner",
)(always(None))


# --- what other rules cover -------------------------------------------------------------------------------------------

covered(
    "configuration-above-open",
    "slots commit in order, each with the members of the configuration below it, and one voter changes at a time",
)
covered("newcomer-votes-at-once", "a disk learns of its admission from that very slot, or from a checkpoint above it")
covered(
    "old-word-for-new-disk",
    "M1 and L1: all that the old disk accepted is committed below the entry, and the new one starts loyal",
)
covered(
    "commit-past-configuration",
    "one voter changes at a time, so a majority before the entry and one after it have a member in common",
)
covered(
    "slots-above-configuration",
    "one voter changes at a time, the coordinator commits no slot above the entry before the entry, and a ticket "
    "holder that knows of the entry does not count for an older ticket",
)
covered(
    "two-changes-at-once",
    "an entry is proposed only when all slots below it are committed; who asked for the first change gets no answer",
)
covered("checkpoint-of-another-cluster", "who is believed to have slots to give is of this cluster already")
