"""What a node that does not run holds of a group, put together as a start of it would do it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Protocol

from replicad.core.group.state import GroupState
from replicad.core.model.errors import DamageError, InvariantError
from replicad.core.model.operations import OPERATIONS, decode_batch

if TYPE_CHECKING:
    from replicad.core.journal.recovery import DurableState
    from replicad.core.journal.startup import GroupStart
    from replicad.core.model.configuration import Configuration
    from replicad.core.model.limits import Limits


class Found(Protocol):
    """What was read of one group."""

    @property
    def durable(self) -> DurableState:
        """What the log holds."""

    @property
    def start(self) -> GroupStart:
        """What a start goes on from."""

    @property
    def configuration(self) -> bytes:
        """The configuration in the applied state, encoded."""

    @property
    def index(self) -> int:
        """Index of the last operation of the applied state."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What a directory holds of one group.

    ``configuration`` is the newest one known to be committed (None: the group never formed here), ``voter`` whether
    the disk has a vote in it. Slots up to ``committed`` are committed, those up to ``highest`` accepted, the last one
    at ``ballot`` ((0, 0): none is). ``index`` is that of the last operation up to there. ``logged``: how far the
    message log alone bears witness. ``fault``: why a group cannot go on from this ("": it can).
    """

    id: str
    name: str
    configuration: Configuration | None
    voter: bool
    committed: int
    highest: int
    ballot: tuple[int, int]
    promised: int
    index: int
    logged: int
    fault: str = ""

    @property
    def rank(self) -> tuple[int, tuple[int, int], int]:
        """Return what of several survivors decides: committed slots, then the ballot and slot accepted last."""
        return self.committed, self.ballot, self.highest


def hold(owner: tuple[str, str], group: tuple[str, str], found: Found, limits: Limits) -> Holding:
    """Put log and state together as a replica does when it starts; raises DamageError.

    ``owner``: node and disk; ``group``: id and name.
    """
    durable, start = found.durable, found.start
    durable.committed = start.committed
    state = GroupState(
        node=owner[0],
        disk=owner[1],
        boot=0,
        members=(owner[0],),
        limits=limits,
        durable=durable,
        applied=start.applied,
        digest=b"",
        configuration=found.configuration,
        lost=False,
        rebuild=False,
        random=Random(0),  # nothing is drawn
        now=0,
    )
    try:
        state.adopt_logged_configuration()
    except InvariantError as error:
        raise DamageError(f"group {group[1]}: {error}") from error
    log = state.log
    last = durable.entries.get(log.highest) if log.highest > log.committed else None
    return Holding(
        id=group[0],
        name=group[1],
        configuration=state.configuration,
        voter=state.is_voter(),
        committed=log.committed,
        highest=log.highest,
        ballot=(last.epoch, last.round) if last is not None else (0, 0),
        promised=state.promised,
        index=found.index + _operations(durable, start.applied, log.highest),
        logged=start.logged,
        fault=start.lacking,
    )


def _operations(durable: DurableState, above: int, highest: int) -> int:
    """Return how many operations the slots above one hold: each takes an index."""
    count = 0
    for slot in range(above + 1, highest + 1):
        entry = durable.entries.get(slot)
        if entry is None:
            continue
        try:
            kind, payload = decode_batch(entry.value)
        except ValueError as error:
            raise DamageError(f"slot {slot} holds no batch: {error}") from error
        if kind == OPERATIONS and isinstance(payload, tuple):
            count += len(payload)
    return count
