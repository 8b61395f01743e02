"""What the engine needs from the process around it: a clock, a message log, a network, files, and ways to be called.

A real process and a simulated one fulfil these protocols. Every call is an *action*: it returns at once, and what it
starts is reported back by a call of the engine's. The engine acts in the order in which its replicas' ``Effects`` say,
so a process that is stopped or killed between two actions has done all before and none behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from replicad.core.kv.store import Store

if TYPE_CHECKING:
    from replicad.core.cluster.definitions import GroupDefinition
    from replicad.core.engine.group import Group
    from replicad.core.group.executor import Execution
    from replicad.core.journal.records import Record
    from replicad.core.journal.recovery import DurableState
    from replicad.core.kv.machine import Machine
    from replicad.core.model.messages import Message


class GroupStore(Store, Protocol):
    """The store of one group."""

    def flush(self) -> None:
        """Write what is committed to the databases; raises StoreFullError if nothing is lost but the disk is full."""


class GroupFiles(Protocol):
    """The checkpoint files of one group. Times are microseconds."""

    def read_chunk(self, slot: int, offset: int, size: int, now: int) -> tuple[int, bytes]:
        """Return ``(length of the file, bytes from offset on)`` and keep the file a while; (0, b"") if it is gone."""

    def begin(self, slot: int) -> None:
        """Drop any half-received file; the bytes of the one at ``slot`` follow from offset 0."""

    def write(self, slot: int, offset: int, data: bytes) -> None:
        """Write received bytes at the end; raises DamageError if they do not follow, StoreFullError if no space."""

    def committed(self, slot: int, now: int) -> None:
        """Note that the group committed the checkpoint at ``slot``: older files go, unless they are being sent."""

    def sweep(self, now: int) -> None:
        """Delete older files whose transfer has ended meanwhile."""


@dataclass(slots=True)
class Opened:
    """What one group goes on from at this node; ``rebuild``: its state must come from the others."""

    durable: DurableState
    machine: Machine
    store: GroupStore
    files: GroupFiles
    rebuild: bool = False


class Ports(Protocol):
    """The process around one engine."""

    def now(self) -> int:
        """Read the machine's clock (CLOCK_BOOTTIME): microseconds."""

    def wake(self) -> None:
        """Have ``Engine.turn`` called once, when everything that came in this turn of the process was handed over."""

    # --- groups

    def open(self, definition: GroupDefinition, durable: DurableState) -> Opened:
        """Bring a group's store to a state that the log (``durable``) continues; raises DamageError."""

    def opened(self, definition: GroupDefinition, group: Group, opened: Opened) -> None:
        """The group takes part from now on."""

    def closed(self, name: str, identity: str) -> None:
        """The group takes no part any more; its store is closed."""

    def delete_store(self, identity: str) -> None:
        """Delete a group's store."""

    def delete_checkpoints(self, identity: str) -> None:
        """Delete a group's checkpoint files."""

    def meet_nodes(self) -> None:
        """The catalog may name other nodes, or other addresses: find the ones, leave the others."""

    # --- the message log

    def append(self, records: Sequence[tuple[str, Record]], number: int, *, reserved: bool) -> None:
        """Append ``(group, record)`` to the message log; ``Engine.on_durable(number)`` follows once all are on disk.

        ``reserved``: these records may use the space that a full disk keeps for promises.
        """

    def truncate(self, slots: Mapping[str, int]) -> None:
        """Remove the log's segments that hold nothing above each group's slot, after all that was appended so far."""

    def segments(self) -> tuple[int, tuple[str, ...]]:
        """Return how many segments the message log has, and which groups keep the oldest of them."""

    def keep_cluster_id(self, cluster_id: str) -> None:
        """Note durably, before anything else happens, which cluster the directory belongs to; say so in handshakes."""

    def admitted(self) -> None:
        """Note durably that this disk has a vote in a group: its directory is not lost any more."""

    def open_links_anew(self) -> None:
        """Close every link and open it again, so that both ends hear what the other says of itself by now."""

    def cluster_id_of(self, peer: str) -> str:
        """Return which cluster a peer says it belongs to, on the links that are open ("": it does not say)."""

    def send(self, to: str, group: str, message: Message) -> None:
        """Send a message to one peer."""

    def broadcast(self, peers: Iterable[str], group: str, message: Message) -> None:
        """Send a message to several peers."""

    def answer(self, done: Callable[..., None], /, *arguments: Any) -> object:
        """Tell somebody who asked how it ended: ``done(*arguments)``. The only way out for answers."""

    def distrust(self, group: str) -> None:
        """Have no later start go on from what the group's store holds now; it is not removed yet."""

    def pin(self, group: str, slot: int) -> None:
        """Hold the store's content at ``slot`` for a checkpoint, and write it to a file.

        ``Group.on_pinned(slot)`` follows, and later ``Group.on_checkpoint_written(slot, digest)``.
        """

    def cancel_checkpoint(self, group: str, why: str) -> None:
        """Stop writing the group's checkpoint, if one is being written: it ends as failed."""

    def keep(self, group: str, slot: int) -> None:
        """Verify the checkpoint received at ``slot``, and keep it as a file that survives the machine.

        ``Group.on_kept(slot, digest)`` or ``Group.on_install_failed(slot)`` follows.
        """

    def install(self, group: str, slot: int) -> None:
        """Make the checkpoint kept at ``slot`` the store's content (slot 0: empty the store).

        ``Group.on_installed(slot)`` or ``Group.on_install_failed(slot)`` follows. Nothing reads the store meanwhile.
        """

    def event(self, group: str, name: str, fields: Mapping[str, object]) -> None:
        """Put a line into the event log (group "": it is about the node); nothing may depend on it."""

    def halt(self, reason: str) -> None:
        """Stop the process for good: going on could give a wrong answer."""

    def forget(self, reason: str) -> None:
        """Set the directory aside and start over with another disk id (rule M4)."""


class Observer(Protocol):
    """What happens in a group, for metrics and for whoever checks; nothing may depend on it."""

    def fed(self, group: str, slots: Sequence[tuple[int, bytes]]) -> None:
        """Committed slots were handed to the executor."""

    def executed(self, group: str, first: int, execution: Execution) -> None:
        """The executor applied the slots from ``first`` on."""

    def batch(self, group: str, operations: int) -> None:
        """Operations of this node's clients were submitted together."""

    def replicated(self, group: str, microseconds: int) -> None:
        """So long one operation took from its submission until it was applied here (a sample)."""

    def checkpoint(self, group: str, slot: int, outcome: str) -> None:
        """A checkpoint ended: "ok" (committed by the group) or "failed"."""

    def diverged(self, group: str) -> None:
        """The state here contradicts the others', and is made anew from theirs."""

    def compared(self, group: str) -> None:
        """The digest here was found to be a majority's: the replica serves from now on."""

    def role(self, group: str, role: str, epoch: int) -> None:
        """The replica has another role."""
