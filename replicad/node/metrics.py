"""What the node tells Prometheus, in a registry of its own, and the sampler of the event loop's delay.

Whoever counts on a hot path resolves its label children once (``labels`` costs more than the counting). Values that
somebody knows anyway (queue depths, slots, free disk) are not pushed: a callback given to :meth:`Metrics.on_scrape`
sets them when they are asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from replicad.node.tallies import Tallies

CONTENT_TYPE = CONTENT_TYPE_LATEST

REQUEST_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
FLUSH_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
DELAY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
SIZE_BUCKETS = (1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0)

ROLES = ("unformed", "learner", "follower", "candidate", "coordinator")

SAMPLE_SECONDS = 0.1

Metric = TypeVar("Metric", Counter, Gauge, Tallies)


class NativeMetrics:
    """Metrics of the native client port."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.operations = Counter(
            "replicad_native_operations_total",
            "Operations of native clients that were taken up: get, put, delete.",
            ("operation",),
            registry=registry,
        )
        self.errors = Counter(
            "replicad_native_errors_total",
            "Native operations, or whole frames, that were refused or failed, by error.",
            ("error",),
            registry=registry,
        )
        self.frame_seconds = Tallies(
            "replicad_native_frame_seconds",
            "From the arrival of a native frame to its answer.",
            (),
            registry,
            REQUEST_BUCKETS,
        )
        self.in_flight = Gauge(
            "replicad_native_in_flight", "Native operations that are not answered yet.", registry=registry
        )
        self.connections = Gauge("replicad_native_connections", "Open native connections.", registry=registry)
        self.connections_refused = Counter(
            "replicad_native_connections_refused_total", "Native connections beyond the limit.", registry=registry
        )


class PeerMetrics:
    """Metrics of the links to each peer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("peer",)
        self.up = Gauge("replicad_peer_up", "1 while the outgoing link to a peer is up.", labels, registry=registry)
        self.round_trip_seconds = Gauge(
            "replicad_peer_round_trip_seconds", "Last round trip to a peer.", labels, registry=registry
        )
        self.sent_bytes = Counter(
            "replicad_peer_sent_bytes_total", "Bytes of messages sent to a peer.", labels, registry=registry
        )
        self.received_bytes = Counter(
            "replicad_peer_received_bytes_total", "Bytes received from a peer.", labels, registry=registry
        )
        self.dropped = Counter(
            "replicad_peer_dropped_total", "Messages dropped because a send queue was full.", labels, registry=registry
        )


class Metrics:
    """Every metric of one node. Names end in their unit; durations are seconds, sizes bytes."""

    def __init__(self, node: str, cluster: str, version: str) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.scrapers: list[Callable[[], None]] = []
        self.by_group: list[Counter | Gauge | Tallies] = []

        def keep(metric: Metric, labels: tuple[str, ...]) -> Metric:
            if "group" in labels:
                self.by_group.append(metric)
            return metric

        def counter(name: str, text: str, *labels: str) -> Counter:
            return keep(Counter(f"replicad_{name}", text, labels, registry=registry), labels)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return keep(Gauge(f"replicad_{name}", text, labels, registry=registry), labels)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Tallies:
            return keep(Tallies(f"replicad_{name}", text, labels, registry, buckets), labels)

        gauge("build_info", "Always 1; the labels say what runs.", "node", "cluster", "version").labels(
            node, cluster, version
        ).set(1)

        self.http_requests = counter(
            "http_requests_total",
            "HTTP requests. Outcome: ok, missing (no such key), refused (a condition failed), forwarded (another "
            "node answered), or the error's name.",
            "route",
            "method",
            "outcome",
        )
        self.http_seconds = histogram(
            "http_request_seconds", "From the parsed head to the answer.", REQUEST_BUCKETS, "route", "method"
        )
        self.http_in_flight = gauge("http_in_flight", "HTTP requests that are being served.")
        self.http_connections = gauge("http_connections", "Open HTTP connections.")
        self.http_connections_refused = counter("http_connections_refused_total", "Connections beyond the limit.")

        self.native = NativeMetrics(registry)

        self.replication_seconds = histogram(
            "replication_seconds", "From submitting an operation to its result.", REQUEST_BUCKETS, "group"
        )
        self.batch_operations = histogram(
            "batch_operations", "Operations in one slot.", (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0), "group"
        )
        self.flush_seconds = histogram("flush_seconds", "One write and flush of the message log.", FLUSH_BUCKETS)
        self.flush_bytes = histogram("flush_bytes", "Bytes of one flush.", SIZE_BUCKETS)
        self.flush_records = counter("flush_records_total", "Records flushed to the message log.")
        self.loop_delay_seconds = histogram(
            "loop_delay_seconds", "How late the event loop runs a timer; above 0.01 something holds it.", DELAY_BUCKETS
        )

        self.drained = gauge("drained", "1 while this node is drained for maintenance.")
        self.queue_depth = gauge("queue_depth", "Entries waiting in a queue.", "queue")
        self.epoch = gauge("epoch", "The epoch this node takes part in.", "group")
        self.role = gauge("role", "1 for the role this node has, 0 for the others.", "group", "role")
        self.role_changes = counter("role_changes_total", "How often this node took up a role.", "group", "role")
        self.has_coordinator = gauge("has_coordinator", "1 while a coordinator is in touch.", "group")
        self.read_ready = gauge("read_ready", "1 while linearizable reads are served from here.", "group")
        self.view_size = gauge("view_members", "Members of the current view.", "group")
        self.members = gauge("group_members", "Members of the group.", "group")
        self.committed_slot = gauge("committed_slot", "Highest committed slot known here.", "group")
        self.applied_slot = gauge("applied_slot", "Highest applied slot.", "group")
        self.index = gauge("index", "Index of the applied state.", "group")
        self.checkpoint_slot = gauge("checkpoint_slot", "Slot of the last committed checkpoint.", "group")
        self.checkpoint_age_seconds = gauge("checkpoint_age_seconds", "Age of the last committed checkpoint.", "group")
        self.checkpoints = counter("checkpoints_total", "Checkpoints by outcome: ok, failed.", "group", "outcome")
        self.digest_mismatches = counter("digest_mismatches_total", "Times this node's digest was outvoted.", "group")
        self.slow_members = gauge("slow_members", "Members on probation: itself, at a coordinator all.", "group")
        self.patience_seconds = gauge(
            "patience_seconds", "At a coordinator: how long a slot may lack a member before that is dropped.", "group"
        )
        self.digest_awaited = gauge("digest_awaited", "1 while this replica serves nothing but stale reads.", "group")
        self.disk_free_bytes = gauge("disk_free_bytes", "Free space where the data is.")
        self.disk_full = gauge("disk_full", "1 while writes are refused for lack of space.")
        self.log_segments = gauge("log_segments", "Segments of the message log.")
        self.peers = PeerMetrics(registry)

    def on_scrape(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` before each rendering; it sets the gauges it knows."""
        self.scrapers.append(callback)

    def set_role(self, group: str, role: str) -> None:
        """Set the role gauges of one group."""
        for name in ROLES:
            self.role.labels(group, name).set(0)
        self.role.labels(group, role).set(1)

    def forget_group(self, group: str) -> None:
        """Show nothing more of a group that this node has closed."""
        for metric in self.by_group:
            metric.remove_by_labels({"group": group})
        for kind in ("executor", "contact"):
            self.queue_depth.remove_by_labels({"queue": f"{group}_{kind}"})

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        for callback in self.scrapers:
            callback()
        return generate_latest(self.registry)


class LoopDelaySampler:
    """Observes, ten times a second, how late the event loop runs a timer."""

    def __init__(self, histogram: Tallies, interval: float = SAMPLE_SECONDS) -> None:
        self.histogram = histogram
        self.interval = interval
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin sampling on the running loop."""
        self.arm(asyncio.get_running_loop())

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the next timer."""
        # Not loop.time(): uvloop's is the time at which this turn began, in whole milliseconds.
        self.timer = loop.call_later(self.interval, self.sample, loop, time.monotonic() + self.interval)

    def sample(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        """Observe the delay of one timer."""
        self.histogram.observe(max(0.0, time.monotonic() - due))
        self.arm(loop)

    def stop(self) -> None:
        """Stop sampling."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
