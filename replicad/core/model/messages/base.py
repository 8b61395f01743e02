"""What all messages have in common: fields of few types, checked one by one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

Entry = tuple[int, int, int, bytes]
"""``(slot, epoch, round, value)``: a slot's accepted or decided value with its ballot."""

Summary = tuple[int, int, int, bytes]
"""``(slot, epoch, round, digest of the value)``."""


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages."""

    number: ClassVar[int]
    since: ClassVar[int] = 1
    """The first version of the peer protocol that knows this message."""

    def older(self) -> Message | None:
        """Return how to say this to a peer that speaks the version before :attr:`since`; None: it is not said."""
        return None

    def invalid(self) -> str | None:
        """Return why this message makes no sense whatever the receiver's state, or None."""
        for name, kind in _checks(type(self)):
            value = getattr(self, name)
            if kind == "int":
                if type(value) is not int or not 0 <= value <= INTEGER_MAX:  # no call: messages are mostly numbers
                    return f"{name} is not a non-negative integer of 63 bits"
            elif type(value) is not _TYPES.get(kind, tuple):
                return f"{name} is not {_WORDS.get(kind, 'a list')}"
            elif kind not in _TYPES and not _items_valid(kind, value):
                return f"{name} has an item of a wrong type"
        return None


_TYPES: dict[str, type] = {"str": str, "bytes": bytes, "bool": bool}
_WORDS = {"str": "text", "bytes": "bytes", "bool": "a boolean"}


INTEGER_MAX = (1 << 63) - 1
"""No slot, epoch, time or random id is larger. What is more by a little fits the wire, too."""


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= INTEGER_MAX


def _items_valid(kind: str, value: Any) -> bool:
    if kind == "tuple[bytes, ...]":
        return all(type(item) is bytes for item in value)
    if kind == "tuple[int, ...]":
        return all(map(_is_number, value))
    if kind == "tuple[str, ...]":
        return all(type(item) is str for item in value)
    if kind in {"tuple[Entry, ...]", "tuple[Summary, ...]"}:
        return all(
            type(item) is tuple and len(item) == 4 and all(map(_is_number, item[:3])) and type(item[3]) is bytes
            for item in value
        )
    return True


def _checks(kind: type[Message]) -> tuple[tuple[str, str], ...]:
    known = _KNOWN.get(kind)
    if known is None:
        known = _KNOWN[kind] = tuple((field.name, str(field.type)) for field in fields(kind))
    return known


_KNOWN: dict[type[Message], tuple[tuple[str, str], ...]] = {}
"""Kind -> name and type of each field."""
