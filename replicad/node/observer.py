"""What happens in a node's groups, as metrics and log lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicad.node.runtime import NodeRuntime
    from replicad.node.tallies import Tally


class MetricsObserver:
    """Fulfils ``core.engine.ports.Observer``."""

    def __init__(self, node: NodeRuntime) -> None:
        self.node = node
        self._children: dict[str, tuple[Tally, Tally]] = {}
        """Name of a group -> its histograms of operations in a batch, and of seconds until an operation is applied."""

    def fed(self, group: str, slots: Sequence[tuple[int, bytes]]) -> None:
        """Nothing is measured of slots that wait to be applied."""

    def executed(self, group: str, first: int, execution: object) -> None:
        """Nothing is measured of a run."""

    def batch(self, group: str, operations: int) -> None:
        """Count the operations of a batch."""
        self._of(group)[0].observe(operations)

    def replicated(self, group: str, microseconds: int) -> None:
        """Measure one operation."""
        self._of(group)[1].observe(microseconds / 1e6)

    def _of(self, group: str) -> tuple[Tally, Tally]:
        children = self._children.get(group)
        if children is None:
            metrics = self.node.metrics
            children = metrics.batch_operations.labels(group), metrics.replication_seconds.labels(group)
            self._children[group] = children
        return children

    def checkpoint(self, group: str, slot: int, outcome: str) -> None:  # noqa: ARG002 - metrics have no slots
        """Count a checkpoint by its outcome."""
        self.node.metrics.checkpoints.labels(group, outcome).inc()

    def diverged(self, group: str) -> None:
        """Count a state that contradicts the others'."""
        self.node.metrics.digest_mismatches.labels(group).inc()

    def compared(self, group: str) -> None:
        """The gauge of what waits for its comparison is set when it is asked for."""

    def role(self, group: str, role: str, epoch: int) -> None:
        """Count and log a change of role; what the cluster knows of the group may be out of date."""
        self.node.metrics.role_changes.labels(group, role).inc()
        self.node.log.info("role", group=group, role=role, epoch=epoch)

    def closed(self, group: str) -> None:
        """Forget a group that was dropped here."""
        self._children.pop(group, None)
        self.node.metrics.forget_group(group)
