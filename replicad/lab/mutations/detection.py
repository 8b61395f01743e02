"""Failure detectors that are wrong for good. No safety rule asks them: what they do is keep a group from going on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicad.core.detection.patience import Sign
from replicad.lab.mutations.registry import always, register

if TYPE_CHECKING:
    from replicad.lab.mutations.registry import Function

HEARTBEAT = "core.detection.detector:PassiveHeartbeat"
DETECTORS = "core.detection.patience:Detectors"

register("nobody-suspected", "detector", "silence is never taken for a failure", HEARTBEAT, "suspects")(
    always(value=False)
)
register("suspected-at-once", "detector", "every node is suspected all the time", HEARTBEAT, "suspects")(
    always(value=True)
)


@register("heard-for-all", "detector", "a sign of life of one node counts for all others", HEARTBEAT, "heard")
def _heard_for_all(original: Function) -> Function:
    def heard(self: Any, node: str, now: int) -> None:
        for other in [*self._heard_at, node]:
            original(self, other, now)

    return heard


@register("any-sign-counts", "detector", "what a new disk says of itself counts as the old one's", DETECTORS, "heard")
def _any_sign_counts(original: Function) -> Function:
    def heard(self: Any, node: str, now: int, _sign: Sign) -> None:
        for sign in Sign:
            original(self, node, now, sign)

    return heard
