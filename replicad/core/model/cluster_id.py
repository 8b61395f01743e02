"""The id of a cluster, and whether two nodes that meet belong to the same one.

A name is chosen by people, and people choose the same one twice. The id is random: made once, by whoever forms the
group ``_meta``, or by that group's coordinator where the cluster is older than ids are; it never changes. Data of a
directory belong to one cluster, so a directory learns the id once, too: with the first data that it takes over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CLUSTER_ID_SINCE = 2
"""The first version of the peer protocol whose speakers know of cluster ids, and can read what holds one."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a node says of its data in every handshake.

    ``cluster_id`` is "" as long as it is not known there. ``empty``: the directory holds nothing of any group.
    """

    node: str
    disk: str
    cluster_id: str = ""
    empty: bool = False
    version_max: int = CLUSTER_ID_SINCE


@dataclass(frozen=True, slots=True)
class Naming:
    """What a replica is given of ids when it starts.

    ``cluster_id``: what the directory belongs to ("": not known). ``fresh_id``: random, for the ids that are made here
    ("": none are). ``names_cluster``: the group is the one that makes the cluster's id.
    """

    cluster_id: str = ""
    fresh_id: str = ""
    names_cluster: bool = False


def foreign(ours: Card, theirs: Card, names_disk: Callable[[str, str], bool]) -> str:
    """Return why the two must not exchange messages, in words for both of them ("": they may).

    ``names_disk(node, disk)``: whether a configuration that is known here gives that very disk a vote. Who knows the
    id judges who does not: an empty directory may still join, and a voter may have been away when the id was made. All
    others hold data that nothing ties to this cluster: an earlier one of the same name may have left them.
    """
    if not ours.cluster_id:
        return ""  # the names are the same, and the other side judges
    if ours.cluster_id == theirs.cluster_id:
        return ""
    if theirs.cluster_id:
        return (
            f"cluster id is {theirs.cluster_id} at {theirs.node} and {ours.cluster_id} at {ours.node}: these are two "
            f"clusters of one name. Stop the node that does not belong here and move its data directory away, or take "
            f"it out of the settings"
        )
    if theirs.version_max < CLUSTER_ID_SINCE:
        return (
            f"{theirs.node} runs a release that does not know cluster ids, and {ours.node} belongs to the cluster "
            f"{ours.cluster_id}: upgrade {theirs.node}"
        )
    if theirs.empty or names_disk(theirs.node, theirs.disk):
        return ""
    return (
        f"the data directory of {theirs.node} (disk {theirs.disk}) holds data and no cluster id, and no group at "
        f"{ours.node}, of the cluster {ours.cluster_id}, gives that disk a vote: it may be left over from an earlier "
        f"cluster of this name. If {theirs.node} is to belong here, stop it, move its data directory away and start it "
        f"again"
    )
