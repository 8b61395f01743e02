"""Mutations of what opens, drops and deletes groups, and of groups that are opened again in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.core.journal.records import DroppedRecord
from replicad.lab.mutations.registry import also, always, register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function

ENGINE = "core.engine.node:Engine"
FOLLOWER = "core.engine.catalog_follower:CatalogFollower"


@register(
    "old-catalog-believed",
    "M5",
    "a node opens and deletes by a catalog that may be older than its start",
    "core.cluster.catalog:Catalog",
    "steps",
)
def _old_catalog_believed(original: Function) -> Function:
    def steps(self: Any, groups: Any, held: Any, *, confirmed: bool) -> Any:  # noqa: ARG001 - that is the mutation
        return original(self, groups, held, confirmed=True)

    return steps


@register(
    "idle-group-admits-nobody",
    "M4",
    "a new disk asks for no comparison before the first slot",
    "core.group.comparison:Comparison",
    "tick",
)
def _idle_group_admits_nobody(original: Function) -> Function:
    def tick(self: Any, source: str = "") -> None:  # noqa: ARG001 - that is the mutation
        original(self)

    return tick


@register("drop-logged-first", "S2", "a drop is logged before what it drops is deleted", ENGINE, "forget_group")
def _drop_logged_first(_original: Function) -> Function:
    def forget_group(self: Any, identity: str) -> None:
        self.ports.append([(identity, DroppedRecord())], self.gate.issue_alone(), reserved=True)
        self.held.pop(identity, None)
        self.ports.delete_store(identity)
        self.ports.delete_checkpoints(identity)
        self.ports.truncate({})

    return forget_group


@register(
    "replaced-catalog-believed",
    "M5",
    "a catalog that was rebuilt from an older state is not confirmed anew",
    FOLLOWER,
    "replaced",
)
def _replaced_catalog_believed(_original: Function) -> Function:
    def replaced(self: Any) -> None:
        self._loaded = -1

    return replaced


also("replaced-catalog-believed", FOLLOWER, "_settled")(always(value=True))

register(
    "closed-group-waits",
    "slip",
    "a group that was closed takes requests, which wait for ever",
    "core.engine.group:Group",
    "check_open",
)(always(None))
