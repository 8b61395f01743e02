"""What a data directory is gone on from: one decision, for the node that starts, the tools and the simulator.

Whoever owns the files looks, and says what was found; the answer says what to do, and why. Three questions, in this
order: is the directory this node's (:func:`judge_identity`), is its message log what it was (:func:`judge_log`), and
what does each group go on from (:func:`judge_group`).

What is written apart is read together here, so each answer must hold for every moment at which a crash can have come
between two of them. The message log is the truth; store, watermark and checkpoint files are believed as far as it
bears them out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from replicad.core.journal.recovery import DurableState, Recovery
from replicad.core.journal.segments import Ending

# --- whose directory it is ------------------------------------------------------------------------------------------


class Action(StrEnum):
    """What is to be done with a whole directory."""

    BEGIN = "begin"
    """There is nothing: it gets a disk id."""
    GO_ON = "go on"
    SET_ASIDE = "set aside"
    """What is there counts for nothing any more: it is moved away, and the disk gets a new id (rule M4)."""
    REFUSE = "refuse"
    """It is somebody else's: nothing is touched."""


@dataclass(frozen=True, slots=True)
class DirectoryStart:
    """The decision about a directory; ``reason``: a plain sentence, if it is set aside or refused."""

    action: Action
    reason: str = ""


GO_ON = DirectoryStart(Action.GO_ON)


@dataclass(frozen=True, slots=True)
class IdentityFound:
    """What was found of the identity at ``where``: its cluster and node, or why it is no good, or nothing at all."""

    where: str
    owner: tuple[str, str] | None = None
    damage: str = ""
    data_beside: bool = False
    """Something of the log, the store or the checkpoints is there."""


def judge_identity(found: IdentityFound, cluster: str, node: str) -> DirectoryStart:
    """Say whether a directory is that of ``node`` in ``cluster``."""
    if found.damage:
        return DirectoryStart(Action.SET_ASIDE, found.damage)
    if found.owner is None:
        if found.data_beside:
            return DirectoryStart(Action.SET_ASIDE, f"{found.where}/identity.json is gone, and there is data beside it")
        return DirectoryStart(Action.BEGIN)
    for what, theirs, ours in zip(("cluster", "node"), found.owner, (cluster, node), strict=True):
        if theirs != ours:
            said = f"the data directory {found.where} belongs to {what} {theirs!r}, and this is {ours!r}"
            return DirectoryStart(Action.REFUSE, said)
    return GO_ON


# --- the message log ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogFound:
    """What was found of a message log: what it holds, or why it cannot be read; and the promise file's content.

    ``started_before``: this disk id has run already. ``rebooted``: the machine restarted since.
    """

    recovery: Recovery = field(default_factory=Recovery)
    damage: str = ""
    promises: Mapping[str, int] = field(default_factory=dict)
    started_before: bool = True
    rebooted: bool = False


def judge_log(found: LogFound) -> DirectoryStart:
    """Say whether the log is all that this disk ever wrote."""
    reason = _log_fault(found)
    return DirectoryStart(Action.SET_ASIDE, reason) if reason else GO_ON


def adopt_promises(recovery: Recovery, promises: Mapping[str, int]) -> None:
    """Let what the promise file holds count beside what the log does (S1)."""
    for group, epoch in promises.items():
        state = recovery.states.setdefault(group, DurableState())
        state.promised = max(state.promised, epoch)


def _log_fault(found: LogFound) -> str:
    if found.damage or not found.started_before:
        return found.damage
    recovery = found.recovery
    if not recovery.segment:
        return "the message log is gone: this disk id has one, and the directory wal holds none"
    # Only a power cut can take the log's first and only flush and leave the promise file (S1).
    emptied = bool(found.promises) and not found.rebooted and recovery.ending is Ending.CLEAN
    if not recovery.records and (recovery.segment > 1 or emptied):
        return "the message log is empty, and this disk id has one: records are gone"
    return ""


# --- one group ------------------------------------------------------------------------------------------------------


class Source(StrEnum):
    """Where a group's state comes from."""

    STORE = "store"
    """The store, as it is."""
    CHECKPOINT = "checkpoint"
    """The store is cleared, and gets what the checkpoint file holds."""
    LOG = "log"
    """The store is cleared; the log has every slot from the first one on."""
    OTHERS = "others"
    """The store is cleared, and another member's state must replace it; log and promises stay."""


@dataclass(frozen=True, slots=True)
class StoreFound:
    """What a store says of a group that this disk wrote on this boot of the machine, no load being cut short.

    ``applied``: the slot that it holds the state of; ``reached``: the applied watermark, the last slot that was applied
    to it, written to its files or not (0: unknown). ``damage``: it contradicts itself.
    """

    applied: int = 0
    reached: int = 0
    damage: str = ""


@dataclass(frozen=True, slots=True)
class GroupFound:
    """What was found of one group; ``store`` None: there is none that may be trusted. ``files``: checkpoints' slots."""

    durable: DurableState
    store: StoreFound | None = None
    files: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class GroupStart:
    """The decision about one group.

    Slots up to ``committed`` are committed; those above ``applied``, what the source holds, are to be applied again.
    ``logged``: how far the message log alone bears witness that slots are committed. ``distrusted``: why the store is
    not taken although this disk wrote it on this boot. ``lacking``: why the source must be the others.
    ``contradiction``: why nothing in the whole directory counts any more ("": go on).
    """

    source: Source
    applied: int = 0
    committed: int = 0
    logged: int = 0
    distrusted: str = ""
    lacking: str = ""
    contradiction: str = ""

    @property
    def directory(self) -> DirectoryStart:
        """What this means for the whole directory."""
        return DirectoryStart(Action.SET_ASIDE, self.contradiction) if self.contradiction else GO_ON


def judge_group(found: GroupFound) -> GroupStart:
    """Say what a group goes on from."""
    durable, store = found.durable, found.store
    covered = durable.checkpoint.slot if durable.checkpoint is not None else 0
    logged = max(durable.committed, covered)
    distrusted = ""
    if store is not None:
        distrusted = store.damage
        start = GroupStart(Source.STORE, store.applied, max(logged, store.applied, store.reached), logged)
        contradiction = "" if store.damage else _older_log(durable, store, covered)
        if contradiction:
            return replace(start, contradiction=contradiction)
        if not distrusted and store.applied >= covered:
            return start
    start = GroupStart(Source.CHECKPOINT if covered else Source.LOG, covered, logged, logged, distrusted)
    if covered and covered not in found.files:
        return unusable(start, f"the file of checkpoint {covered} is gone")
    return start


def unusable(start: GroupStart, reason: str) -> GroupStart:
    """Return the decision once the checkpoint of ``start`` turned out to be no good."""
    return replace(start, source=Source.OTHERS, applied=0, lacking=reason)


def _older_log(durable: DurableState, store: StoreFound, covered: int) -> str:
    """Say why the log is an older one than it was, if the store has applied what it does not hold.

    Slots are applied only when they are durable in the log, and a checkpoint is loaded only when its record is.
    """
    known = max(store.applied, store.reached)
    lacking = next((slot for slot in range(covered + 1, known + 1) if slot not in durable.entries), 0)
    if not lacking:
        return ""
    return f"the store has applied slot {known}, and the message log lacks slot {lacking}: it is an older one"
