"""What a group tells of itself: its part of the status page, and in words what keeps it from serving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import META
from replicad.core.group.state import Role
from replicad.core.model.obstacles import ObstacleKind

if TYPE_CHECKING:
    from replicad.core.engine.group import Group


ANOTHER_PAST = (
    "It is none of this group's: stop the node, move its data directory away, and start it again; it is re-admitted"
)


def _waits_for_comparison(since: str) -> str:
    return (
        f"this replica was {since}, and waits for its digest to be compared with a majority's: until then it holds no "
        f"lease, and answers stale reads only"
    )


def missing(group: Group) -> list[str]:
    """Return, in words, what keeps this group from serving here; empty when it is ready."""
    replica = group.replica
    if replica.role == Role.REMOVED:
        if group.name == META:
            return [f"this node was removed from the cluster: stop it, or bring it back: {_addition(group)}"]
        return [f"group {group.name}: this node is no member any more, and is about to delete what it holds of it"]
    if replica.role == Role.UNFORMED:
        obstacles = replica.membership.obstacles()
        why = "; ".join(obstacle.sentence for obstacle in obstacles) or "the first initial member is about to form it"
        if group.engine.name not in replica.state.initial_members:
            return [f"group {group.name}: {why}"]
        if any(obstacle.kind is ObstacleKind.FORMED for obstacle in obstacles):
            return [f"group {group.name} exists, and this node's disk is not in it yet: {why}. {_advice(group)}"]
        return [f"group {group.name} is not formed; all initial members must be present and empty: {why}"]
    if group.transfers.installing or replica.state.rebuilding:
        return [f"group {group.name} is being rebuilt here from the others"]
    if replica.membership.estranged():
        return [f"group {group.name} goes on without this node's disk, by no change known here. {ANOTHER_PAST}"]
    if replica.role == Role.LEARNER:
        return [f"group {group.name}: this disk waits to be re-admitted. {_advice(group)}"]
    if replica.state.full:
        return [f"group {group.name}: the disk is full"]
    if not replica.coordinator and replica.role == Role.MIRROR:
        return [f"group {group.name}: this node is a mirror of it, and its coordinator is not in touch"]
    if not replica.coordinator:
        return [f"group {group.name} has no coordinator: no majority of its members is in touch. {_advice(group)}"]
    if replica.state.comparing:
        return [f"group {group.name}: {_waits_for_comparison(replica.state.comparing)}"]
    return []


def _advice(group: Group) -> str:
    replica = group.replica
    if replica.membership.stranger:
        return f"The group goes on without this node: {_addition(group)}"
    configuration = replica.state.configuration
    disks = replica.membership.disks_told() | {replica.state.node: replica.state.disk}
    members = configuration.members if configuration else ()
    foreign = [member.node for member in members if disks.get(member.node, member.disk) != member.disk]
    if len(foreign) * 2 <= len(members):
        return "It goes on by itself once a majority of the members that hold its data is up."
    return (
        f"{' and '.join(foreign)} lost their disks: a majority of the group's disks is gone, and it will not invent"
        " a past. Put the lost data directories back; if they are gone for good, save what is here (replicad kv"
        " list --stale --json), stop the node that holds most, and run replicad recover there: it shows what may be"
        " lost, and asks."
    )


def _addition(group: Group) -> str:
    """Return the command that makes this node a member."""
    command = f"replicad member add {group.engine.name}"
    if group.name != META:
        return f"{command} --group {group.name}"
    own = group.engine.catalog.own.entry
    return f"{command} --peer {own.peer} --http {own.http}"


def status(group: Group) -> dict[str, object]:
    """Return the group's part of ``/v1/replicad/status``."""
    replica = group.replica
    state = replica.state
    return {
        "protocol": state.configuration.protocol if state.configuration else state.initial_protocol,
        "role": replica.role,
        "coordinator": replica.coordinator,
        "epoch": replica.epoch,
        "view": list(replica.view),
        "committed_slot": replica.committed,
        "applied_slot": replica.applied,
        "highest_slot": state.log.highest,
        "index": group.index,
        "digest": group.executor.machine.digest.hex(),
        "checkpoint_slot": replica.checkpoints.committed[0],
        "lease": replica.holds_lease(group.engine.ports.now()),
        "comparing": replica.state.comparing,
        "configuration": state.configuration.version if state.configuration else 0,
        "cluster_id": state.configuration.cluster if state.configuration else "",
        "incarnation": state.configuration.incarnation if state.configuration else "",
        "members": _members(group),
        "missing": missing(group),
    }


def patience_us(group: Group) -> int:
    """Return how long a slot may lack a member before that counts as slow, at a coordinator (elsewhere 0; V2)."""
    office = group.replica.office
    return office.authority.pace.patience() if office is not None else 0


def on_probation(group: Group) -> dict[str, int]:
    """Return who was too slow -> for how many milliseconds it must keep up before it may have a lease (V2).

    A coordinator knows it of the others, from what it sees; and every node of itself, from its own flushes.
    """
    replica = group.replica
    now = group.engine.ports.now()
    known = {replica.state.node: replica.state.flushes}
    if replica.office is not None:
        known |= {name: peer.probation for name, peer in replica.office.authority.peers.items()}
    return {name: -((now - each.until) // 1000) for name, each in known.items() if not each.over(now)}


def _members(group: Group) -> list[dict[str, object]]:
    replica = group.replica
    configuration = replica.state.configuration
    office = replica.office
    members: list[dict[str, object]] = []
    slow = on_probation(group)
    for member in configuration.members if configuration else ():
        peer = office.authority.peers.get(member.node) if office else None
        if member.node == replica.state.node:
            state, matched = replica.role, replica.state.matched
        elif office is not None and peer is not None:
            matched = peer.matched
            fresh = office.view.fresh(peer)
            state = "view" if member.node in office.view.joined else ("follower" if fresh else "silent")
        else:
            state, matched = ("coordinator" if member.node == replica.coordinator else "unknown"), 0
        members.append({"node": member.node, "state": state, "matched_slot": matched, "disk": member.disk})
        members[-1]["probation_ms"] = slow.get(member.node, 0)
    for name in configuration.mirrors if configuration else ():
        known = replica.membership.introductions.get(name)
        matched = replica.committed if name == replica.state.node else known.committed if known and office else 0
        disk = replica.state.disk if name == replica.state.node else known.disk if known else ""
        members.append({"node": name, "state": "mirror", "matched_slot": matched, "disk": disk})
    return members
