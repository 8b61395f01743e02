"""A simulated cluster for scenarios: fixed delays, no faults but those that are commanded, and a readable chronicle.

Every message takes 1 ms, every flush 0.5 ms, a checkpoint 5 ms to write or to load; applying takes no time. All clocks
show the virtual time. A disk's id is its node's name and a number: ``n3-2`` is the second disk of ``n3``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import DEFAULT
from replicad.core.journal.records import (
    CheckpointRecord,
    EntryRecord,
    FormationRecord,
    PromiseRecord,
    SlotPromiseRecord,
)
from replicad.core.kv.entries import decode_entry, encode_entry, make_entry
from replicad.core.model.configuration import Configuration
from replicad.core.model.operations import ACTIVE, REMOTE_WRITE
from replicad.lab.checks import Judge
from replicad.lab.network import NetworkFaults
from replicad.lab.simulated_node import SimulatedNode
from replicad.lab.simulator import Simulator
from replicad.lab.swarm import DiskFaults, Load, NemesisFaults, Swarm
from replicad.lab.transcript import LOST, Transcript, describe, show_batch, show_epoch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicad.core.journal.records import Record
    from replicad.core.model.cluster_id import Card
    from replicad.core.model.limits import Limits
    from replicad.core.model.messages import Message
    from replicad.lab.events import EventQueue

MESSAGE_US = 1_000
FLUSH_US = 500
CHECKPOINT_US = 5_000
ROUTINE = ("Heartbeat", "HeartbeatAck", "Introduce", "CompareDigest", "DigestCompared")
"""Messages that are hidden until a scenario asks for them; they are sent all the time."""

_ZERO_FIELDS = re.compile(r" \w+=0(?= |$)")
_EPOCH = re.compile(r"\bepoch=(\d+)")
_DIGEST = re.compile(r"\bdigest=([0-9a-f]{8})[0-9a-f]+")


@dataclass(slots=True)
class Happening:
    """One line: when, who (``to``: to whom, for a message), what; ``times`` counts equal ones."""

    at: int
    who: str
    sign: str
    to: str
    text: str
    slots: tuple[int, int] = (0, 0)
    times: int = 1

    def line(self, since: int) -> str:
        """Return the line with its time in milliseconds after ``since``."""
        where = f"{self.who} {self.sign} {self.to}" if self.sign else self.who
        text = self.text if self.times == 1 else f"{self.text} ({self.times} times)"
        return f"{(self.at - since) / 1000:8.1f}  {where:<14} {text}"


class Chronicle(Transcript):
    """A transcript for people: what happens alike at one time is one line, and routine messages are left out."""

    def __init__(self) -> None:
        super().__init__(keep=0)
        self.hidden = set(ROUTINE)
        self._happenings: list[Happening] = []

    def message(self, now: int, source: str, sign: str, target: str, message: Message, data: bytes) -> None:
        """Note a message, unless its kind is hidden."""
        super().message(now, source, sign, target, message, data)
        name = type(message).__name__
        if name not in self.hidden:
            text = describe(message)
            self._happen(Happening(now, source, sign, target, _ZERO_FIELDS.sub("", text) if name in ROUTINE else text))

    def note(self, now: int, node: str, text: str) -> None:
        """Note anything else, with epochs and digests as people write them."""
        super().note(now, node, text)
        name, space, rest = text.partition(" ")
        text = name.replace("_", " ") + space + rest
        text = _EPOCH.sub(lambda found: f"epoch={show_epoch(int(found[1]))}", text)
        self._happen(Happening(now, node, "", "", _DIGEST.sub(r"digest=\1..", text)))

    def applied(self, now: int, node: str, slot: int) -> None:
        """Note that a node applies a slot, with the slots just before it in one line."""
        last = self._happenings[-1] if self._happenings else None
        if last is not None and (last.at, last.who, last.slots[1]) == (now, node, slot - 1) and slot > 1:
            first = last.slots[0]
            last.slots = (first, slot)
            last.text = f"applies slots {first} to {slot}"
        else:
            self._happen(Happening(now, node, "", "", f"applies slot {slot}", (slot, slot)))

    def take(self, since: int) -> list[str]:
        """Return the lines collected since the last call; the times in them count from ``since``."""
        found, self._happenings = self._happenings, []
        return [happening.line(since) for happening in _fold(_join(found))]

    def _happen(self, happening: Happening) -> None:
        self._happenings.append(happening)


def _join(happenings: list[Happening]) -> list[Happening]:
    """Make one line of what happens at one time to several nodes."""
    joined: list[Happening] = []
    known: dict[tuple[object, ...], Happening] = {}
    for happening in happenings:
        source = happening.who if happening.sign else ""
        key = (happening.at, source, happening.sign, happening.text)
        first = known.get(key)
        if first is None:
            known[key] = happening
            joined.append(happening)
        elif happening.sign:
            first.to += f",{happening.to}"
        else:
            first.who += f",{happening.who}"
    return joined


def _fold(happenings: list[Happening]) -> list[Happening]:
    """Make one line of a message that is sent again and again."""
    folded: list[Happening] = []
    known: dict[tuple[str, ...], Happening] = {}
    for happening in happenings:
        key = (happening.who, happening.sign, happening.to, happening.text)
        if happening.sign and key in known:
            known[key].times += 1
        else:
            known[key] = happening
            folded.append(happening)
    return folded


class StageJudge(Judge):
    """The usual judge, who also writes down what is applied, and lets a node differ whose store was corrupted."""

    def __init__(self, window: int, chronicle: Chronicle, queue: EventQueue) -> None:
        super().__init__(window)
        self.corrupted: dict[str, bool] = {}
        """Nodes whose store was corrupted -> whether their digest has shown it already."""
        self._chronicle = chronicle
        self._queue = queue

    def committed_slot(self, node: str, slot: int, value: bytes) -> None:
        """Also note it."""
        super().committed_slot(node, slot, value)
        self._chronicle.applied(self._queue.now, node, slot)

    def digest(self, node: str, slot: int, digest: bytes) -> None:
        """Compare digests; finding that of a corrupted store is the nodes' affair."""
        if node not in self.corrupted:
            super().digest(node, slot, digest)
            return
        known = self._digests.get(slot, (digest, node))[0]
        if known != digest:
            self.corrupted[node] = True
        elif self.corrupted[node]:
            del self.corrupted[node]  # it has the right state again

    def read(self, node: str, key: bytes, value: bytes | None, slot: int) -> None:
        """Judge a read, unless a corrupted store was asked."""
        if node not in self.corrupted:
            super().read(node, key, value, slot)


class StageNode(SimulatedNode):
    """A node whose work takes fixed times."""

    disks = 0

    def apply_delay(self) -> int:
        """Applying takes no time."""
        return 0

    def checkpoint_delay(self) -> int:
        """Writing and loading a checkpoint take the same time always."""
        return CHECKPOINT_US

    def _new_disk_id(self) -> str:
        self.disks += 1
        return f"{self.name}-{self.disks}"

    def corrupt(self, key: bytes) -> bool:
        """Change the stored value of a key behind the machine's back; returns whether there was one."""
        old = self.store.get(key)
        if old is None:
            return False
        entry = decode_entry(old)
        changed = make_entry(key, entry.create, entry.modify, entry.value + b"?", entry.flags)
        self.store.begin()
        self.store.put(key, encode_entry(changed))
        self.store.commit()
        return True


class Stage(Simulator):
    """A cluster of :class:`StageNode`, none of them started."""

    def __init__(self, nodes: int, limits: Limits, founders: int = 0, protocol: str = REMOTE_WRITE) -> None:
        self.chronicle = Chronicle()
        super().__init__(1, _quiet(nodes, limits, protocol), self.chronicle, founders)
        self.stage_judge = StageJudge(limits.request_window_slots, self.chronicle, self.queue)
        self.judge = self.stage_judge
        self.stage_nodes = {name: StageNode(self, name) for name in self.names}
        self.nodes = dict(self.stage_nodes)
        for node in self.nodes.values():
            node.clock.restart(self.queue.now, self.queue.now)
        self._losing: dict[tuple[str, str, str], int] = {}

    def lose(self, kind: str, source: str, target: str, count: int) -> None:
        """Lose the next ``count`` messages of this kind from ``source`` to ``target``."""
        self._losing[kind, source, target] = count

    def transmit(
        self, source: str, card: Card, target: str, message: Message, data: bytes, group: str = DEFAULT
    ) -> None:
        """Put a message on the network, unless it is to be lost."""
        link = (type(message).__name__, source, target)
        if self._losing.get(link, 0) > 0:
            self._losing[link] -= 1
            self.transcript.message(self.queue.now, source, LOST, target, message, data)
        else:
            super().transmit(source, card, target, message, data, group)

    def logged(self, node: str, records: Sequence[Record]) -> None:
        """Note what a node writes to its message log."""
        shown = [text for text in map(_show_record, records) if text]
        if shown:
            self.note(node, f"logs {', '.join(shown)}")


def _quiet(nodes: int, limits: Limits, protocol: str) -> Swarm:
    return Swarm(
        nodes=nodes,
        size=nodes,
        founders=nodes,
        limits=limits,
        network=NetworkFaults(MESSAGE_US, MESSAGE_US),
        nemesis=NemesisFaults(),
        disk=DiskFaults(FLUSH_US, FLUSH_US, segment_bytes=32 * 1024),
        load=Load(),
        fault_phase_us=0,
        clock_ppm=0,
        apply_delay_us=0,
        apply_budget=1_000,
        protocol=protocol,
    )


def _show_record(record: Record) -> str:
    match record:
        case EntryRecord(slot, epoch, round_, decided, value):
            return f"slot {slot}@{show_epoch(epoch)}/{round_} {show_batch(value)}{' (decided)' if decided else ''}"
        case PromiseRecord(epoch):
            return f"the promise of epoch {show_epoch(epoch)}"
        case SlotPromiseRecord(slot, epoch, round_):
            return f"the promise of slot {slot} at {show_epoch(epoch)}/{round_}"
        case CheckpointRecord(slot):
            return f"that checkpoint {slot} is committed"
        case FormationRecord(encoded):
            configuration = Configuration.decode(encoded)
            disks = ",".join(member.disk for member in configuration.members)
            mirrors = f" and the mirrors {','.join(configuration.mirrors)}" if configuration.mirrors else ""
            active = ", fed actively" if configuration.protocol == ACTIVE else ""
            return f"configuration {configuration.version} of the disks {disks}{mirrors}{active}"
        case _:
            return ""  # the watermark, which nobody waits for
