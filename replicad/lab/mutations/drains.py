"""Maintenance without its rule: V3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.lab.mutations.registry import always, instead, register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function

register("drained-keeps-lease", "V3", "a drained member asks for leases", "core.group.acceptor:Acceptor", "willing")(
    instead(lambda self: self.fit())
)
register(
    "drained-stands", "V3", "a drained member stands as early as others", "core.group.election:Election", "_reluctance"
)(always(0))
register("drained-keeps-office", "V3", "a drained coordinator stays in office", "core.group.tenure", "heir")(always(""))


@register(
    "drain-forgotten", "V3", "a drained node is not drained after its restart", "core.engine.drain:Drain", "__init__"
)
def _drain_forgotten(original: Function) -> Function:
    def init(self: Any, engine: Any, *, drained: bool) -> None:  # noqa: ARG001 - it is what the directory says
        original(self, engine, drained=False)

    return init


@register(
    "drained-handed-to", "V3", "large operations go to drained members, too", "core.group.contact:Contact", "_hand_on"
)
def _drained_handed_to(original: Function) -> Function:
    def hand_on(self: Any, operations: Any, office: Any) -> Any:
        office.view.members = lambda: (self.state.node, *office.authority.peers)
        try:
            return original(self, operations, office)
        finally:
            del office.view.members

    return hand_on
