"""What happened in a simulated cluster, message by message, readable, and as one hash.

Every run keeps the hash (equal seeds must give equal hashes) and the last lines. Lines are made only when somebody
reads them: what is kept meanwhile is the message itself.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import fields
from typing import TYPE_CHECKING

from replicad.core.model.ids import epoch_counter, epoch_number
from replicad.core.model.messages import Message
from replicad.core.model.operations import (
    CHECKPOINT,
    CONFIGURATION,
    DELETE,
    DELETE_PREFIX,
    NO_CAS,
    OPERATIONS,
    PUT,
    decode_batch,
    decode_operation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replicad.core.model.operations import Operation

DELIVERED = "->"
LOST = "-x"
"""How a message's line shows its fate; the line of a delivered one stands at the time of its arrival."""

_HIDDEN = frozenset({"boot", "grant_boot", "attempt", "echo"})
_EPOCHS = frozenset({"epoch", "promised", "predecessor"})
_VERBS = {PUT: "put", DELETE: "delete", DELETE_PREFIX: "delete-prefix"}

Line = tuple[int, str, str, str, Message | str]
"""``(time, node, sign, other node, message)``, or ``(time, node, "", "", text)``."""


class Transcript:
    """Collects what happens. ``sink`` gets every line at once; ``keep`` is how many are kept (None: all)."""

    def __init__(self, *, keep: int | None = 300, sink: Callable[[str], None] | None = None) -> None:
        self._lines: deque[Line] = deque(maxlen=keep)
        self._hash = hashlib.blake2b(digest_size=16)
        self._sink = sink

    def message(self, now: int, source: str, sign: str, target: str, message: Message, data: bytes) -> None:
        """Note a message that arrived or was lost; ``data`` is its encoded form."""
        self._hash.update(b"%d %s %s %s %s\n" % (now, source.encode(), sign.encode(), target.encode(), data))
        self._add((now, source, sign, target, message))

    def note(self, now: int, node: str, text: str) -> None:
        """Note anything else: a crash, an event of a replica, what a client did."""
        self._hash.update(b"%d %s %s\n" % (now, node.encode(), text.encode()))
        self._add((now, node, "", "", text))

    def digest(self) -> str:
        """Return the hash of everything noted so far."""
        return self._hash.hexdigest()

    def lines(self) -> list[str]:
        """Return the lines that are kept, oldest first."""
        return [render(line) for line in self._lines]

    def _add(self, line: Line) -> None:
        self._lines.append(line)
        if self._sink is not None:
            self._sink(render(line))


def render(line: Line) -> str:
    """Return one line of a transcript, e.g. ``  1.250000 n1 -> n2 Committed epoch=1.1 start=1 committed=7``."""
    now, node, sign, other, what = line
    where = f"{node} {sign} {other}" if sign else node
    text = what if isinstance(what, str) else describe(what)
    return f"{now // 1_000_000:3d}.{now % 1_000_000:06d} {where:<8} {text}"


def describe(message: Message) -> str:
    """Return a message in one line: its name and the fields that say something."""
    return " ".join([type(message).__name__, *_fields(message)])


def _fields(message: Message) -> Iterator[str]:
    for field in fields(message):
        value = getattr(message, field.name)
        if field.name in _HIDDEN or (isinstance(value, (bytes, str, tuple)) and not value):
            continue
        if field.name in _EPOCHS:
            yield f"{field.name}={show_epoch(value)}"
        elif isinstance(value, bytes):
            yield f"{field.name}={show_batch(value) if field.name == 'value' else show_bytes(value)}"
        elif isinstance(value, tuple):
            yield f"{field.name}=[{', '.join(_item(field.name, item) for item in value)}]"
        else:
            yield f"{field.name}={value}"


def _item(name: str, item: object) -> str:
    if isinstance(item, tuple):
        slot, epoch, ballot_round, value = item
        shown = show_batch(value) if name == "entries" and len(value) != 16 else show_bytes(value)
        return f"{slot}@{show_epoch(epoch)}/{ballot_round} {shown}"
    if not isinstance(item, bytes):
        return str(item)
    if name == "values":
        return show_batch(item)
    return show_operation(item) if name == "operations" else show_bytes(item)


def show_epoch(epoch: int) -> str:
    """Return ``counter.number`` of an epoch, or 0."""
    return f"{epoch_counter(epoch)}.{epoch_number(epoch)}" if epoch else "0"


def show_bytes(data: bytes) -> str:
    """Return the first bytes in hexadecimal, and how many there are if that is not all."""
    return data.hex() if len(data) <= 4 else f"{data[:3].hex()}..({len(data)})"


def show_batch(value: bytes) -> str:
    """Return what a batch does."""
    try:
        kind, payload = decode_batch(value)
    except (ValueError, TypeError):
        return show_bytes(value)
    if kind == OPERATIONS and isinstance(payload, tuple):
        return "{" + ", ".join(show_operation(operation) for operation in payload) + "}"
    return {CONFIGURATION: "configuration", CHECKPOINT: "checkpoint"}.get(kind, "no-op")


def show_operation(data: bytes) -> str:
    """Return what one encoded operation does."""
    try:
        operation = decode_operation(data)
    except (ValueError, TypeError):
        return show_bytes(data)
    return show_decoded(operation)


def show_decoded(operation: Operation) -> str:
    """Return what one operation does, e.g. ``put k1=a7 cas=3``."""
    text = f"{_VERBS.get(operation.code, operation.code)} {operation.key.decode(errors='replace')}"
    if operation.code == PUT:
        value = operation.value
        text += f"={value.decode(errors='replace')}" if len(value) <= 12 else f"={show_bytes(value)}"
    return text if operation.cas == NO_CAS else f"{text} cas={operation.cas}"
