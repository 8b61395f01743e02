"""Whom this replica fetches slots from while it follows no coordinator as a voter. Rule C2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.core.detection.patience import Patience, Sign
from replicad.core.group.lineage import Kin

if TYPE_CHECKING:
    from replicad.core.group.state import GroupState
    from replicad.core.model.configuration import Configuration


class Source:
    """One node at a time, and what it was believed to have; chosen by who coordinates, or by :mod:`lineage`."""

    def __init__(self, state: GroupState) -> None:
        self.state = state
        self.node = ""
        """"" while there is nobody to fetch from."""
        self.committed = 0
        self.heard_at = 0
        self._offers: dict[str, str] = {}
        """Who was ever taken as the source -> its disk then."""

    def take(self, node: str, disk: str, committed: int) -> None:
        """Fetch from this node from now on, which says that it has committed so much."""
        if node == self.node and self._offers.get(node) == disk:
            committed = max(committed, self.committed)
        self._offers[node] = disk
        self.node, self.committed, self.heard_at = node, committed, self.state.now
        self.state.detectors.heard(node, self.state.now, Sign.OFFER)

    def consider(self, node: str, disk: str, theirs: Configuration | None, committed: int) -> None:
        """Without a coordinator to welcome anyone, committed slots may be fetched from whoever has them.

        They may hold the configuration entry that this disk, or its peers, need to find a majority; and a state that is
        to be replaced need not wait for an office that may need this disk's vote.
        """
        state = self.state
        lacking = committed > state.log.committed or state.rebuilding or state.doubtful or state.gap
        if lacking and not state.coordinator and state.lineage.admitted(theirs, node, disk):
            self.take(node, disk, committed)

    def check(self, node: str, disk: str, kin: Kin) -> None:
        """Let go of a node under which another directory was put, or whose past was given up as is known by now."""
        if self._offers.get(node, disk) == disk and kin is not Kin.GIVEN_UP:
            return
        self._offers.pop(node, None)
        if node == self.node:
            self.node, self.committed = "", 0

    def on_slots(self, node: str, disk: str, committed: int) -> None:
        """Slots arrived: their source lives."""
        if node == self.node:
            self.take(node, disk, committed)

    def live(self) -> bool:
        """Return whether the source was heard lately."""
        return bool(self.node) and not self.state.detectors.suspects(self.node, self.state.now, Patience.SOURCE)

    def feeds(self, node: str, disk: str, asked: str) -> bool:
        """Return whether slots and checkpoints of this disk are taken: it votes, or is the source that was ``asked``.

        They are asked for by the name of a node, and another directory may have been put under it meanwhile. Who
        follows a coordinator as a voter has no other source: whoever welcomed it before is nobody to it now.
        """
        if self.state.counts(node, disk):
            return True
        led = self.state.is_voter() and bool(self.state.coordinator)
        return not led and node == asked and self._offers.get(node) == disk
