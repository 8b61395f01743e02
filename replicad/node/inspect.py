"""Reading a message log offline, record by record, for people. Nothing is locked, created or changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from replicad.core.journal.records import CheckpointRecord, EntryRecord, PromiseRecord, Record, WatermarkRecord
from replicad.core.journal.recovery import DurableState, check_header, recover
from replicad.core.journal.segments import (
    FRAME_BYTES,
    HEADER_BYTES,
    Ending,
    FormatError,
    LogIdentity,
    decode_header,
    encode_record,
    scan,
)
from replicad.core.journal.startup import Action, DirectoryStart
from replicad.core.model.errors import DamageError
from replicad.node.disk_operations import DiskOperations
from replicad.node.identity import DirectoryError
from replicad.node.offline import read_offline
from replicad.node.promise_file import PromiseFile
from replicad.node.segment_files import SegmentFiles


class LogLine(NamedTuple):
    """One record. ``slot`` is None where a kind has none; ``ballot`` is ``epoch.round`` or ""; ``size`` in bytes."""

    segment: int
    position: int
    group: str
    kind: str
    slot: int | None
    ballot: str
    size: int
    decided: bool


@dataclass(slots=True)
class GroupSummary:
    """What a log says of one group in the end."""

    promised: int
    committed: int
    checkpoint_slot: int
    entries: int
    highest_slot: int


@dataclass(slots=True)
class Verdict:
    """The result: ``ok`` unless damaged, one plain sentence, and counts. ``ending`` is clean, torn or damaged."""

    ok: bool = True
    ending: str = Ending.CLEAN.value
    sentence: str = ""
    segments: int = 0
    records: int = 0
    groups: dict[str, GroupSummary] = field(default_factory=dict)
    start: list[str] = field(default_factory=list)
    """What the next start of the node does, a sentence each; only if that was asked."""


class LogInspection:
    """Iterate over it for the lines; :attr:`verdict` is there after the last one.

    ``directory`` is a node's data directory or the ``wal`` in it. ``rebooted``: judge the tail as after a restart of
    the machine. ``verify``: also check what only a recovery checks (sequence, owner, committed slots without gaps, the
    promise file). ``start``: also say what a start of the node would go on from; only while none runs. Raises
    FileNotFoundError, with a plain sentence, if there is no message log.
    """

    def __init__(self, directory: Path, *, rebooted: bool = False, verify: bool = False, start: bool = False) -> None:
        self._wal = directory / "wal" if (directory / "wal").is_dir() else directory
        self._rebooted = rebooted
        self._verify = verify
        self._start = start
        self._identity: LogIdentity | None = None
        self.verdict = Verdict()
        if not any(self._wal.glob("*.seg")):
            raise FileNotFoundError(f"{directory} holds no message log (no wal/*.seg)")

    def __iter__(self) -> Iterator[LogLine]:
        """Yield the records in the order of the log."""
        verdict = self.verdict = Verdict()
        states: dict[str, DurableState] = {}
        try:
            for number, data in self._segments():
                verdict.segments += 1
                check_header(number, data, self._identity)
                self._identity = decode_header(data).identity
                result = scan(data, number, rebooted=self._rebooted)
                for group, record, position in result.records:
                    verdict.records += 1
                    states.setdefault(group, DurableState()).replay(record)
                    yield _line(number, position, group, record)
                if result.ending is Ending.DAMAGED:
                    raise DamageError(result.reason)  # noqa: TRY301 - all damage is judged in one place
                if result.used > HEADER_BYTES:
                    if verdict.ending == Ending.TORN.value:
                        raise DamageError(f"{verdict.sentence}, yet segment {number} holds records")  # noqa: TRY301 - as above
                    verdict.ending, verdict.sentence = result.ending.value, result.reason
            if self._verify and self._identity is not None:
                recover(self._segments(), self._identity, rebooted=self._rebooted)
                self._check_promises(self._identity)
        except (DamageError, FormatError) as error:
            verdict.ok, verdict.ending, verdict.sentence = False, Ending.DAMAGED.value, str(error)
        if self._start:
            self._foresee(verdict)
        verdict.groups = {group: _summary(states[group]) for group in sorted(states)}
        if verdict.ending == Ending.CLEAN.value:
            verdict.sentence = f"{verdict.records} records in {verdict.segments} segments, all good"

    def _foresee(self, verdict: Verdict) -> None:
        """Say what a start of the node goes on from."""
        directory = self._wal.parent
        if not (directory / "identity.json").exists():
            return
        try:
            with read_offline(directory) as found:
                verdict.start = found.sentences()
                decision = found.decision
        except (DirectoryError, FormatError) as error:
            decision = DirectoryStart(Action.REFUSE, str(error))
        if decision.action is not Action.GO_ON and verdict.ok:
            verdict.ok, verdict.ending, verdict.sentence = False, Ending.DAMAGED.value, decision.reason

    def _segments(self) -> Iterator[tuple[int, bytes]]:
        owner = self._identity or LogIdentity("", "", "")
        return SegmentFiles(self._wal, owner, DiskOperations()).read_all()

    def _check_promises(self, identity: LogIdentity) -> None:
        path = self._wal.parent / "promise"
        if path.exists():
            PromiseFile(path, identity, DiskOperations()).load()


def inspect_log(directory: Path, *, rebooted: bool = False, verify: bool = False, start: bool = False) -> LogInspection:
    """Return the inspection of the log in ``directory``, see :class:`LogInspection`."""
    return LogInspection(directory, rebooted=rebooted, verify=verify, start=start)


def _line(segment: int, position: int, group: str, record: Record) -> LogLine:
    size = len(encode_record(group, record)) + FRAME_BYTES
    kind = type(record).__name__.removesuffix("Record").lower()
    slot: int | None = None
    ballot = ""
    decided = False
    match record:
        case EntryRecord():
            slot, ballot, decided = record.slot, f"{record.epoch}.{record.round}", record.decided
        case PromiseRecord():
            ballot = f"{record.epoch}.0"
        case WatermarkRecord():
            slot = record.committed
        case CheckpointRecord():
            slot = record.slot
        case _:
            pass
    return LogLine(segment, position, group, kind, slot, ballot, size, decided)


def _summary(state: DurableState) -> GroupSummary:
    return GroupSummary(
        promised=state.promised,
        committed=state.committed,
        checkpoint_slot=state.checkpoint.slot if state.checkpoint is not None else 0,
        entries=len(state.entries),
        highest_slot=max(state.entries, default=0),
    )
