"""Which cluster this node's data belong to: learns the id, and has it kept and told (M6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.core.engine.node import Engine

NEVER = 1 << 63
PROVE_AFTER_US = 1_000_000
"""So long after a node has learnt the id the others have, too: links that are opened anew prove it at both ends."""


class Belonging:
    """The cluster id of one node, and what its handshakes say and judge."""

    def __init__(self, engine: Engine, cluster_id: str) -> None:
        self.engine = engine
        self.cluster_id = cluster_id
        """"" as long as it is not known."""
        self.due = NEVER
        """When :meth:`tick` has something to do."""

    def learn(self, cluster_id: str) -> None:
        """Take over the id, durably: what is logged after that is read as this cluster's."""
        if not cluster_id or cluster_id == self.cluster_id:
            return
        engine = self.engine
        self.cluster_id = cluster_id
        engine.ports.keep_cluster_id(cluster_id)
        self.due = engine.ports.now() + PROVE_AFTER_US
        for group in engine.groups.values():
            group.replica.state.belong(cluster_id)  # what follows from it comes with the next step

    def on_peer(self, peer: str) -> None:
        """A link was opened, so each of the two took the other for one of its own cluster's.

        Data that are here are that cluster's. An empty directory waits for the first data that it takes over: it may
        meet nodes of two clusters.
        """
        if not self.cluster_id and not self.empty():
            self.learn(self.engine.ports.cluster_id_of(peer))

    def on_data(self, sender: str) -> None:
        """Something that a peer sent is about to be written to this directory."""
        if not self.cluster_id:
            self.learn(self.engine.ports.cluster_id_of(sender))

    def tick(self) -> None:
        """Prove the id that was learnt."""
        self.due = NEVER
        self.engine.ports.open_links_anew()

    def empty(self) -> bool:
        """Return whether the directory holds nothing of any group."""
        states = [group.replica.state for group in self.engine.groups.values()]
        held = any(s.configuration or s.promised or s.applied or s.log.highest for s in states)
        return not held and not self.engine.held

    def names_disk(self, node: str, disk: str) -> bool:
        """Return whether a configuration that is known here gives this disk a vote."""
        return any(group.replica.state.counts(node, disk) for group in self.engine.groups.values())
