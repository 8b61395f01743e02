"""Copies of data directories, and directories of another past: of another run, or of a branch of this one.

A copy is taken of a whole directory at one moment, as a snapshot of the file system is: the message log as the
operating system holds it, the promise file, the store, the checkpoint files, and the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from replicad.lab.checks import Judge
from replicad.lab.clients import Clients
from replicad.lab.simulator import Simulator
from replicad.lab.swarm import NemesisFaults
from replicad.lab.transcript import Transcript

if TYPE_CHECKING:
    from replicad.core.kv.memory_store import MemoryStore
    from replicad.lab.simulated_node import SimulatedNode
    from replicad.lab.swarm import Swarm


@dataclass(frozen=True, slots=True)
class Directory:
    """What one data directory held at one moment."""

    disk_id: str
    cluster_id: str
    lost: bool
    started: bool
    """A process has started on it: it has a log, from then on."""
    boots: int
    """How often the machine had lost power by then: a store of an earlier boot is not trusted."""
    segments: dict[int, bytearray]
    promises: dict[str, int]
    stores: dict[str, tuple[MemoryStore, int, bool, bool]]
    """By the ids of groups, as are the checkpoints."""
    checkpoints: dict[str, dict[int, bytes]]


def copy_directory(node: SimulatedNode) -> Directory:
    """Return what the node's directory holds now, whether a process uses it or not."""
    return Directory(
        node.disk_id,
        node.cluster_id,
        node.lost,
        node.started_before,
        node.boots,
        node.disk.image(),
        dict(node.disk.promises),
        {group: data.store_files.image() for group, data in node.data.items()},
        {group: data.files.image() for group, data in node.data.items()},
    )


def put_back(node: SimulatedNode, directory: Directory) -> None:
    """Give a dead node another directory."""
    node.wipe()
    node.disk.restore(directory.segments, directory.promises)
    for group, store in directory.stores.items():
        data = node.of(group)
        data.files.restore(directory.checkpoints[group])
        data.store_files.restore(store, same_boot=directory.boots == node.boots)
    node.disk_id = directory.disk_id
    node.cluster_id = directory.cluster_id
    node.lost = directory.lost
    node.restored(started=directory.started, trusted=directory.boots == node.boots)


class Unjudged(Judge):
    """Sees a past that is no part of the run, and says nothing."""

    def committed_slot(self, node: str, slot: int, value: bytes) -> None:
        """Keep nothing."""

    def digest(self, node: str, slot: int, digest: bytes) -> None:
        """Compare nothing."""

    def results(self, node: str, low: int, high: int, results: Any) -> None:
        """Compare nothing."""

    def acknowledged(self, node: str, request_id: bytes, ack: int, result: Any) -> None:
        """Believe it."""

    def read(self, node: str, key: bytes, value: bytes | None, slot: int) -> None:
        """Believe it."""

    def bookmark(self, node: str, bookmark: int, slot: int) -> None:
        """Believe it."""


def other_past(
    seed: int, swarm: Swarm, founders: int, duration: int, begin: Mapping[str, Directory], cluster_id: str
) -> dict[str, Directory]:
    """Return the directories of nodes of the same names after ``duration`` microseconds of another past.

    It begins with the directories ``begin``, or with empty ones. Its cluster gets the id ``cluster_id``, as the copy of
    one would have: ids cannot tell the two apart.
    """
    calm = replace(swarm, nemesis=NemesisFaults(), fault_phase_us=duration)
    simulator = Simulator(seed, calm, Transcript(keep=0), founders)
    simulator.new_judge = Unjudged
    simulator.judge = Unjudged(swarm.limits.request_window_slots)
    for node in simulator.nodes.values():
        node.forced_id = cluster_id
    for name, directory in begin.items():
        simulator.nodes[name].boots = directory.boots + 1
        put_back(simulator.nodes[name], directory)
    simulator.start_all()
    clients = Clients(simulator, calm.load, swarm.limits.request_window_slots, Random(f"{seed}/clients"))
    clients.start()
    simulator.run_for(duration)
    return {name: copy_directory(node) for name, node in simulator.nodes.items()}
