"""What is compared: an API of a cluster, and how each workload is put to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.clusters.base import Cluster
from benchmarks.clusters.etcd import EtcdCluster
from benchmarks.clusters.redis import RedisCluster
from benchmarks.clusters.replicad import ReplicadCluster
from benchmarks.generators import grpc, wrk
from benchmarks.generators.loads import GeneratorError, Load
from benchmarks.generators.native import native
from benchmarks.generators.redis_benchmark import check_sets, redis_benchmark

REPLICAD, NATIVE, ACTIVE = "replicad", "replicad native", "replicad active"
ETCD_V2, ETCD_V3, ETCD_GRPC = "etcd v2", "etcd v3 JSON", "etcd gRPC"
REDIS = "redis"

CLUSTERS = {
    REPLICAD: "replicad",
    NATIVE: "replicad",
    ACTIVE: "replicad-active",
    ETCD_V2: "etcd",
    ETCD_V3: "etcd",
    ETCD_GRPC: "etcd",
    REDIS: "redis",
}
"""Contender -> the cluster that it is an API of."""

PROGRAMS = {
    REPLICAD: ("wrk",),
    NATIVE: (),
    ACTIVE: ("wrk",),
    ETCD_V2: ("etcd", "wrk"),
    ETCD_V3: ("etcd", "wrk"),
    ETCD_GRPC: ("etcd", "h2load"),
    REDIS: ("redis-server", "redis-benchmark"),
}
"""Contender -> the programs that are needed to measure it."""

COORDINATOR, OTHER, SPREAD = "coordinator", "other", "spread"
"""Places to send requests to: one node, another one, all nodes with equal shares of the connections."""

LINEARIZABLE, LOCAL = "linearizable", "local"
"""Levels of a read; ``local`` is what the node that is asked has."""

GRPC_KEY = b"bench/000000"


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of load.

    ``kind`` is one of ``wrk.lua``; ``connections`` each with ``depth`` requests in flight; ``keys`` of ``folder`` are
    used at random; ``acknowledgement`` is replicad's ``ack``, its own default if "".
    """

    name: str
    title: str
    kind: str
    contenders: tuple[str, ...]
    connections: int = 64
    depth: int = 1
    place: str = COORDINATOR
    value_bytes: int = 100
    keys: int = 10_000
    folder: str = "bench/"
    level: str = LINEARIZABLE
    acknowledgement: str = ""


def create(name: str, nodes: int = 3) -> Cluster:
    """Return a new cluster, not started; ``name`` is one of the values of ``CLUSTERS``."""
    made: dict[str, Callable[[], Cluster]] = {
        "replicad": lambda: ReplicadCluster(nodes),
        "replicad-active": lambda: ReplicadCluster(nodes, protocol="active"),
        "etcd": lambda: EtcdCluster(nodes),
        "redis": lambda: RedisCluster(nodes),
    }
    return made[name]()


async def places(cluster: Cluster, place: str) -> list[int]:
    """Return the nodes that get the requests."""
    first = await cluster.coordinator()
    others = [(first + step) % cluster.nodes for step in range(cluster.nodes)]
    return {COORDINATOR: others[:1], OTHER: others[1:2], SPREAD: others}[place]


def query(contender: str, workload: Workload) -> str:
    """Return what ``wrk.lua`` appends to the path so that the workload's level of reads is asked for."""
    local = workload.level == LOCAL
    if contender == ETCD_V2:
        return "?quorum=true" if workload.kind != "put" and not local else ""
    if workload.acknowledgement:
        return f"?ack={workload.acknowledgement}"
    return "?stale" if local else ""


async def drive(contender: str, cluster: Cluster, workload: Workload, seconds: int) -> Load:
    """Put the workload to the cluster for so many seconds.

    Raises GeneratorError if requests failed, or were not done: then there is no figure.
    """
    nodes = await places(cluster, workload.place)
    addresses = [cluster.http(node) for node in nodes]
    match cluster:
        case ReplicadCluster() if contender == NATIVE:
            load = await native(
                [cluster.native(node) for node in nodes],
                workload.kind,
                connections=workload.connections,
                depth=workload.depth,
                seconds=seconds,
                keys=workload.keys,
                value_bytes=workload.value_bytes,
            )
        case EtcdCluster() if contender == ETCD_GRPC:
            load = await _grpc(cluster, addresses, workload, seconds)
        case RedisCluster():
            load = await _redis(cluster, addresses[0], workload, seconds)
        case _:
            load = await wrk.wrk(
                addresses,
                {ETCD_V2: wrk.ETCD_V2, ETCD_V3: wrk.ETCD_V3}.get(contender, wrk.REPLICAD),
                workload.kind,
                connections=workload.connections,
                seconds=seconds,
                keys=workload.keys,
                value_bytes=workload.value_bytes,
                folder=workload.folder,
                query=query(contender, workload),
            )
    if load.failed:
        raise GeneratorError(f"{load.failed} of {load.requests + load.failed} requests failed")
    if not load.requests:
        raise GeneratorError("no request was answered")
    return load


async def _grpc(cluster: EtcdCluster, addresses: list[str], workload: Workload, seconds: int) -> Load:
    if workload.kind == "get":
        body = grpc.range_request(GRPC_KEY, serializable=workload.level == LOCAL)
        return await grpc.h2load(
            addresses,
            grpc.RANGE,
            body,
            connections=workload.connections,
            streams=workload.depth,
            seconds=seconds,
            answer_bytes_min=workload.value_bytes,
        )
    before = await cluster.revision()
    load = await grpc.h2load(
        addresses,
        grpc.PUT,
        grpc.put_request(GRPC_KEY, b"x" * workload.value_bytes),
        connections=workload.connections,
        streams=workload.depth,
        seconds=seconds,
    )
    grpc.check_puts(load, before, await cluster.revision(), workload.connections * workload.depth)
    return load


async def _redis(cluster: RedisCluster, address: str, workload: Workload, seconds: int) -> Load:
    await cluster.ask(0, b"CONFIG", b"RESETSTAT")
    load = await redis_benchmark(
        address,
        connections=workload.connections,
        depth=workload.depth,
        seconds=seconds,
        keys=workload.keys,
        value_bytes=workload.value_bytes,
    )
    statistics = await cluster.ask(0, b"INFO", b"commandstats")
    check_sets(load, statistics.decode() if isinstance(statistics, bytes) else "")
    if not await cluster.whole():
        raise GeneratorError("a replica of Redis was lost")
    return load
