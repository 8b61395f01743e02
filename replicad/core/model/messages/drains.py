"""What nodes say of themselves, whatever their groups."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.model.messages.base import Message


@dataclass(frozen=True, slots=True)
class DrainNotice(Message):
    """Node to all others: I am drained (again and again, for who has not heard it lately forgets it), or not any more.

    Whoever passes requests on, or tells clients where to go, chooses others (V3).
    """

    number = 59
    since = 3
    drained: bool
