"""One node: data directory, message log, store, transport, clock ticks, and the groups that it is a member of."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from random import SystemRandom
from typing import TYPE_CHECKING, Any

import structlog

from replicad import __version__
from replicad.core.cluster.definitions import DEFAULT, META, GroupDefinition
from replicad.core.engine.node import Engine
from replicad.core.engine.status import on_probation, patience_us
from replicad.core.model.errors import InvariantError, RequestError
from replicad.node.administration import Administration
from replicad.node.checkpoint import Checkpointer, CheckpointFiles
from replicad.node.clock import now_us
from replicad.node.directory import Directory, own_word
from replicad.node.group_runtime import GroupRuntime
from replicad.node.identity import LOST, OK, DataDirectory
from replicad.node.metrics import LoopDelaySampler, Metrics
from replicad.node.observer import MetricsObserver
from replicad.node.opening import open_log
from replicad.node.ports import NodePorts
from replicad.node.settings_models import parse_address
from replicad.node.transport import Transport
from replicad.node.wal import Callbacks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicad.core.engine.group import Group
    from replicad.core.model.limits import Limits
    from replicad.core.model.messages import Message
    from replicad.node.lmdb_store import LmdbStore
    from replicad.node.settings import Settings

TICK_SECONDS = 0.01
LEAVING_TURNS = 200
"""An orderly stop waits for its offices to be handed over so many ticks at most."""

STOPPED = "stopped"
RESTART = "restart"
FAILED = "failed"
"""How a run ended: as asked; its disk must be forgotten, start again; a rule or the disk failed, do not go on."""


class NodeRuntime:
    """Opens everything, drives the groups until :meth:`stop`, and closes in order."""

    def __init__(self, settings: Settings) -> None:
        """Blocks while the data is read; raises DirectoryError, OSError."""
        self.settings = settings
        self.name = settings.node
        self.cluster = settings.cluster
        self.limits: Limits = settings.limits
        self.log = structlog.get_logger("replicad").bind(node=settings.node)
        self.metrics = Metrics(settings.node, settings.cluster, __version__)
        self.outcome = ""
        self.groups: dict[str, GroupRuntime] = {}
        """By name."""
        self._counted: dict[tuple[str, str], int] = {}
        self._stopping: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.data = DataDirectory(settings.data, settings.cluster, settings.node)
        if self.data.set_aside_reason:
            self.log.error("data_set_aside", reason=self.data.set_aside_reason)
        self.environment, self.message_log = open_log(self.data, settings, self.log)
        self.data.record_start()
        self.checkpointer = Checkpointer(
            settings.data / "checkpoints",
            settings.data / "store",
            settings.cluster,
            map_size=settings.process.store_map_bytes,
        )
        self.transport = Transport(
            node=settings.node,
            cluster=settings.cluster,
            disk_id=self.data.identity.disk,
            limits_checksum=settings.limits.checksum(),
            listen=settings.peer_listen,
            peers=settings.peers,
            on_message=self._on_message,
            on_link=self._on_link,
            secret=settings.secret,
            queue_bytes=settings.process.send_queue_bytes,
            bulk_queue_bytes=settings.process.bulk_send_queue_bytes,
            cluster_id=self.data.identity.cluster_id,
            empty=self._empty,
            names_disk=self._names_disk,
        )
        self.ports = NodePorts(self)
        self.observer = MetricsObserver(self)
        self.engine = Engine(
            name=settings.node,
            disk=self.data.identity.disk,
            limits=settings.limits,
            ports=self.ports,
            observer=self.observer,
            random=SystemRandom(),
            patience_us=settings.process.request_timeout_ms * 1000,
            requests_max=settings.process.requests_max,
            neighbours=tuple(settings.peers),
            own=own_word(settings),
            check_address=parse_address,
            held=self.message_log.recovery.states,
            lost=self.data.identity.state == LOST,
            cluster_id=self.data.identity.cluster_id,
            drained=self.data.drained,
        )
        self.directory = Directory(self)
        self.administration = Administration(self)
        self._sampler = LoopDelaySampler(self.metrics.loop_delay_seconds)
        self.metrics.on_scrape(self._scrape)

    async def start(self) -> None:
        """Open the groups. What their data contradicts is set aside, and the node starts over (rule M4)."""
        self._loop.set_exception_handler(self._on_exception)
        await self.checkpointer.start()
        self.message_log.start(
            self._loop, Callbacks(self._on_durable, self._on_log_failure, self._on_full, self._on_flush)
        )
        voters = self.settings.meta
        mirrors = tuple(name for name in self.settings.nodes if name not in voters)
        self.engine.follower.open(GroupDefinition(META, META, voters, voters, mirrors))

    async def join(self) -> None:
        """Meet the peers and take part; raises ListenError."""
        await self.transport.start()
        self.engine.join()
        self.engine.follower.start()
        self._sampler.start()
        self._tick()
        drained = {"drained": True} if self.engine.drain.drained else {}
        self.log.info(
            "started", version=__version__, disk=self.data.identity.disk, state=self.data.identity.state, **drained
        )

    # --- groups -----------------------------------------------------------------------------------------------------

    def opened(self, definition: GroupDefinition, group: Group, store: LmdbStore, files: CheckpointFiles) -> None:
        """The engine has opened a group."""
        files.ids = group.replica.state.known_ids
        self.groups[group.name] = GroupRuntime(self, definition, group, store, files, self.log.bind(group=group.name))

    def closed(self, name: str) -> None:
        """The engine has closed a group, which is about to be deleted here."""
        group = self.groups.pop(name)
        group.close()
        group.store.close()
        self.observer.closed(name)

    # --- inputs -----------------------------------------------------------------------------------------------------

    def _on_message(self, sender: str, disk: str, group: str, message: Message) -> None:
        if not self.outcome:
            self.engine.on_message(sender, disk, group, message)

    def _empty(self) -> bool:
        return self.engine.belonging.empty()

    def _names_disk(self, node: str, disk: str) -> bool:
        return self.engine.belonging.names_disk(node, disk)

    def _on_link(self, peer: str, up: bool) -> None:
        self.log.info("link_up" if up else "link_down", peer=peer)
        if up:
            self.engine.on_peer(peer, self.transport.version(peer))

    def _tick(self) -> None:
        if self.outcome:
            return
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self.engine.tick()

    def _on_durable(self, number: int) -> None:
        if not self.outcome:
            self.engine.on_durable(number)

    def on_event(self, group: str, name: str, fields: Mapping[str, object]) -> None:
        """A replica has something to tell."""
        self.log.info(name, **({"group": group} if group else {}), **fields)

    def _on_flush(self, seconds: float, size: int, records: int) -> None:
        self.metrics.flush_seconds.observe(seconds)
        self.metrics.flush_bytes.observe(size)
        self.metrics.flush_records.inc(records)

    @property
    def disk_full(self) -> bool:
        """Whether the disk is full."""
        return self.engine.full

    def _on_full(self, full: bool) -> None:
        if full:
            self.log.error("disk_full", hint="free space where the data directory is; the node goes on by itself")
        else:
            self.log.info("disk_has_room")
        self.engine.on_full(full=full)

    def _on_log_failure(self, reason: str) -> None:
        self.fail(f"the message log failed, nothing may be written after that: {reason}", None)

    def _on_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Stop for anything that may have left the core half-way; report what concerns one request or connection."""
        error = context.get("exception")
        message = str(context.get("message", "an error in a callback"))
        nobody_waited = "future" in context  # never retrieved: whoever asked has gone; background work fails by itself
        if isinstance(error, InvariantError):
            self.fail(message, error)
        elif isinstance(error, (RequestError, ConnectionError, TimeoutError)) or (
            nobody_waited and isinstance(error, OSError)
        ):
            self.log.debug("ignored_error", reason=str(error))
        elif nobody_waited or context.get("request") or error is None:
            self.log.error("bug", reason=message, exc_info=error)
        else:
            self.fail(message, error)

    # --- ending -----------------------------------------------------------------------------------------------------

    def fail(self, reason: str, error: BaseException | None) -> None:
        """Stop at once: a rule is broken or the disk failed, and a wrong answer is worse than none."""
        if self.outcome == FAILED:
            return
        self.outcome = FAILED
        self.log.critical("failed", reason=reason, exc_info=error)
        self._end(FAILED)

    @property
    def failed(self) -> bool:
        """Whether the run ended by :meth:`fail`."""
        return self.outcome == FAILED

    def stop_for_good(self, *, halt: str, forget: str) -> None:
        """The replica asks for the end: the replicas disagree (halt), or this disk must be forgotten (forget)."""
        if halt:
            self.fail(halt, None)
        elif not self.outcome:
            self.outcome = RESTART
            self.log.error("disk_forgotten", reason=forget)
            self._end(RESTART)

    def stop(self) -> None:
        """End the run as asked."""
        self._end(STOPPED)

    def _end(self, outcome: str) -> None:
        if not self._stopping.done():
            self._stopping.set_result(outcome)

    async def run(self) -> str:
        """Wait for the end; returns STOPPED, RESTART or FAILED."""
        return await asyncio.shield(self._stopping)

    async def leave(self) -> None:
        """Hand over offices and leases before an orderly stop, in bounded time."""
        self.engine.follower.close()
        self.engine.leave()
        for _ in range(LEAVING_TURNS):
            if self.engine.left:
                return
            await asyncio.sleep(TICK_SECONDS)

    async def close(self) -> None:
        """Close everything; after a failure without flushing."""
        if self._timer is not None:
            self._timer.cancel()
        self._sampler.stop()
        self.engine.follower.close()
        for group in self.groups.values():
            group.close()
        ends = [self.transport.close(), self.checkpointer.close()]  # none needs another: the groups are closed
        if self.outcome != FAILED:
            ends.append(asyncio.to_thread(self.message_log.close))
        await asyncio.gather(*ends)
        self.outcome = self.outcome or STOPPED
        for group in self.groups.values():
            group.store.close()
        self.environment.close()
        if self.outcome == RESTART:
            self.data.set_aside()
        self.data.close()

    def note_member(self) -> None:
        """A group has this disk as a voter: it is no longer lost."""
        if self.data.identity.state != OK:
            self.data.set_state(OK)

    # --- for clients ------------------------------------------------------------------------------------------------

    def group(self, name: str) -> GroupRuntime:
        """Return a group; raises RequestError("not_found")."""
        group = self.groups.get(name)
        if group is None:
            raise RequestError(
                "not_found", f"there is no group {name[:64]!r}; there is: {', '.join(self.directory.names())}"
            )
        return group

    def elsewhere(self, name: str) -> list[str]:
        """Return the HTTP addresses of a group's members, those in touch first; empty if there is no such group."""
        return self.directory.elsewhere(name)

    def readiness(self) -> list[str]:
        """Return what is missing before this node can serve; empty when it is ready.

        One group that is not served must not keep clients away from the others: ``default`` decides where it is open,
        elsewhere any group that serves will do. Keys are served without ``_meta``, which counts only if it is alone.
        """
        if self.engine.drain.drained:
            # Also where it keeps an office that nobody else can have: who drains a node wants nothing new to come here.
            return [f"{self.name} is drained for maintenance: replicad node undrain {self.name}", *self._missing()]
        return self._missing()

    def _missing(self) -> list[str]:
        default = self.groups.get(DEFAULT)
        if default is not None:
            return default.missing()
        groups = [group for group in self.groups.values() if group.name != META] or list(self.groups.values())
        reasons = [group.missing() for group in groups]
        return [reason for missing in reasons for reason in missing] if all(reasons) else []

    def peer_addresses(self) -> list[str]:
        """Return the HTTP addresses of all nodes."""
        return list(self.directory.http_addresses().values())

    def status(self) -> dict[str, object]:
        """Return the body of ``/v1/replicad/status``."""
        return {
            "node": self.name,
            "cluster": self.cluster,
            "cluster_id": self.engine.belonging.cluster_id,
            "version": __version__,
            "disk": self.data.identity.disk,
            "drained": self.engine.drain.drained,
            "addresses": self.directory.http_addresses(),
            "refused": self._refused(),
            "groups": {name: group.status() for name, group in self.groups.items()},
        }

    def _refused(self) -> list[str]:
        """Return whom this node does not speak with because the two do not belong together, a sentence each."""
        refusals = self.transport.refusals()
        known = set(refusals.values())
        others = {host: why for host, why in self.transport.refused_hosts().items() if why not in known}
        return [f"there is no link to {peer}: {why}" for peer, why in refusals.items()] + [
            f"a node that dials from {host} is refused: {why}" for host, why in others.items()
        ]

    def _count_traffic(self, peer: str) -> None:
        stats = self.transport.stats()[peer]
        for metric, name, value in (
            (self.metrics.peers.dropped, "dropped", stats.dropped_full),
            (self.metrics.peers.sent_bytes, "sent", stats.bytes_sent),
            (self.metrics.peers.received_bytes, "received", stats.bytes_received),
        ):
            metric.labels(peer).inc(max(0, value - self._counted.get((peer, name), 0)))
            self._counted[peer, name] = value

    def _scrape(self) -> None:
        """Set the gauges that are only read when someone looks."""
        metrics = self.metrics
        metrics.drained.set(self.engine.drain.drained)
        for name, group in self.groups.items():
            replica = group.replica
            configuration = replica.state.configuration
            metrics.set_role(name, replica.role)
            metrics.epoch.labels(name).set(replica.epoch)
            metrics.has_coordinator.labels(name).set(bool(replica.coordinator))
            metrics.read_ready.labels(name).set(replica.holds_lease(now_us()))
            metrics.slow_members.labels(name).set(len(on_probation(group.group)))
            metrics.patience_seconds.labels(name).set(patience_us(group.group) / 1e6)
            metrics.digest_awaited.labels(name).set(not replica.state.serves)
            metrics.view_size.labels(name).set(len(replica.view))
            metrics.members.labels(name).set(len(configuration.members) if configuration else 0)
            metrics.committed_slot.labels(name).set(replica.committed)
            metrics.applied_slot.labels(name).set(replica.applied)
            metrics.index.labels(name).set(group.index)
            metrics.checkpoint_slot.labels(name).set(replica.checkpoints.committed[0])
            metrics.checkpoint_age_seconds.labels(name).set((now_us() - group.group.checkpoint_at) / 1e6)
            metrics.queue_depth.labels(f"{name}_executor").set(len(group.executor.queue))
            metrics.queue_depth.labels(f"{name}_contact").set(len(replica.contact.pending))
        with suppress(OSError):
            metrics.disk_free_bytes.set(shutil.disk_usage(self.settings.data).free)
        metrics.disk_full.set(self.disk_full)
        log = self.message_log.stats()
        metrics.log_segments.set(float(str(log["segments"])))
        metrics.queue_depth.labels("message_log").set(float(str(log["queued"])))
        for peer in self.transport.peers():
            self._count_traffic(peer)
            metrics.peers.up.labels(peer).set(self.transport.connected(peer))
            metrics.peers.round_trip_seconds.labels(peer).set(self.transport.round_trip_us(peer) / 1e6)
            metrics.queue_depth.labels(f"send_{peer}_bytes").set(self.transport.queued_bytes(peer))
