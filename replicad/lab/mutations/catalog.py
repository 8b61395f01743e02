"""Mutations of what opens, drops and deletes groups, and of groups that are opened again in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.lab.mutations.registry import register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function

ENGINE = "core.engine.node:Engine"


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
    def tick(self: Any, *, sourced: bool = False) -> None:  # noqa: ARG001 - that is the mutation
        original(self)

    return tick
