"""Whether a node may lose its disk: only a minority of any group's voters may lack what the group relies on (M5).

In a run without a catalog each node notes for itself whether it is ``established``. Where groups come and go, a disk
that one of them has admitted may still be lost to another, so all of them are asked, by what their replicas know now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import META

if TYPE_CHECKING:
    from replicad.core.engine.group import Group
    from replicad.core.model.configuration import Configuration
    from replicad.lab.simulated_node import SimulatedNode
    from replicad.lab.simulator import Simulator


def may_lose(simulator: Simulator, node: SimulatedNode) -> bool:
    """Return whether this node may lose its data: the majority of the members then still holds theirs."""
    if simulator.swarm.catalog:
        return all(_may_lose(simulator, node, group) for group in _groups(simulator))
    nodes = simulator.nodes.values()
    for other in nodes:
        other.check_established()
    lacking = sum(not other.established for other in nodes if other is not node)
    return node.established and lacking + 1 <= (len(nodes) - 1) // 2


def _groups(simulator: Simulator) -> list[str]:
    """Return the ids of all groups that anybody has open, or that the catalog names."""
    named = [definition.id for definition in simulator.catalog().definitions.values()]
    opened = [group.id for node in simulator.nodes.values() if node.process for group in _opened(node)]
    return list(dict.fromkeys((META, *named, *opened)))


def _opened(node: SimulatedNode) -> list[Group]:
    return list(node.process.engine.groups.values()) if node.process is not None else []


def _may_lose(simulator: Simulator, node: SimulatedNode, group: str) -> bool:
    configuration = _newest(simulator, group)
    if configuration is None:
        return False  # it is about to form, and counts on every disk
    if not configuration.names(node.name):
        return True
    # A mirror may be about to get a vote on the word that it gave before its disk was lost (see "Known gaps").
    voters = len({node.name, *configuration.nodes()})
    lacking = sum(
        not _holds(simulator.nodes[member.node], member.disk, group)
        for member in configuration.members
        if member.node != node.name
    )
    return lacking + 1 <= (voters - 1) // 2


def _newest(simulator: Simulator, group: str) -> Configuration | None:
    """Return the newest configuration of a group that anybody knows."""
    replicas = [one.replica for node in simulator.nodes.values() for one in _opened(node) if one.id == group]
    known = [replica.state.configuration for replica in replicas if replica.state.configuration is not None]
    return max(known, key=lambda configuration: configuration.version, default=None)


def _holds(node: SimulatedNode, disk: str, group: str) -> bool:
    """Return whether this node votes in the group with this disk, on a state and a log that a restart would find."""
    if node.diverged or node.diverged_in(group) or group in node.aliens or node.rotten:
        return False
    for one in _opened(node):
        state = one.replica.state
        if one.id == group:
            lacking = one.replica.checkpoints.lacking or one.transfers.installing or state.rebuilding
            return node.disk_id == disk and state.is_voter() and not lacking
    return False
