"""The workloads: those behind the table, and all the others of ``--full``.

Workloads of one group are put to a cluster one after the other before the next cluster has its turn.
"""

from __future__ import annotations

from benchmarks.contenders import (
    ACTIVE,
    ETCD_GRPC,
    ETCD_V2,
    ETCD_V3,
    LOCAL,
    NATIVE,
    OTHER,
    REDIS,
    REPLICAD,
    SPREAD,
    Workload,
)

HTTP = (REPLICAD, ETCD_V2, ETCD_V3)
ALL = (*HTTP, ETCD_GRPC)
SIZED = "sized/"
"""Keys whose values are not of 100 bytes: reads of the others must find what they expect."""
MILLION = 1_000_000

TABLE: tuple[tuple[Workload, ...], ...] = (
    (
        Workload("put-64", "PUT at the coordinator, 64 connections", "put", ALL),
        Workload("put-64-spread", "PUT at all nodes, 64 connections", "put", ALL, place=SPREAD),
    ),
    (Workload("put-1", "PUT at the coordinator, 1 connection", "put", ALL, connections=1),),
    (
        Workload("get-64", "GET at another node, 64 connections, linearizable", "get", (REPLICAD,), place=OTHER),
        Workload(
            "get-64-local",
            "GET at another node, 64 connections, what that node has",
            "get",
            (ETCD_V2, ETCD_GRPC),
            place=OTHER,
            level=LOCAL,
        ),
    ),
    (
        Workload(
            "put-16x16",
            "PUT at the coordinator, 16 connections, 16 in flight on each",
            "put",
            (NATIVE, ETCD_GRPC, REDIS),
            connections=16,
            depth=16,
        ),
        Workload(
            "put-16x16-spread",
            "PUT at all nodes, 16 connections, 16 in flight on each",
            "put",
            (NATIVE, ETCD_GRPC),
            connections=16,
            depth=16,
            place=SPREAD,
        ),
    ),
)

_SIZES = ((16, "16 B", 10_000), (4096, "4 KiB", 1_000), (65_536, "64 KiB", 1_000))

MORE: tuple[tuple[Workload, ...], ...] = (
    (
        Workload("put-1-other", "PUT at another node, 1 connection", "put", HTTP, connections=1, place=OTHER),
        Workload("put-64-other", "PUT at another node, 64 connections", "put", ALL, place=OTHER),
        Workload("put-256", "PUT at the coordinator, 256 connections", "put", ALL, connections=256),
        Workload("put-256-other", "PUT at another node, 256 connections", "put", HTTP, connections=256, place=OTHER),
        Workload("put-256-spread", "PUT at all nodes, 256 connections", "put", ALL, connections=256, place=SPREAD),
    ),
    *(
        (
            Workload(
                f"put-{size}-bytes",
                f"PUT of {text} at the coordinator, 64 connections",
                "put",
                HTTP,
                value_bytes=size,
                keys=keys,
                folder=SIZED,
            ),
            Workload(
                f"put-{size}-bytes-spread",
                f"PUT of {text} at all nodes, 64 connections",
                "put",
                (*HTTP, ACTIVE),
                value_bytes=size,
                keys=keys,
                folder=SIZED,
                place=SPREAD,
            ),
        )
        for size, text, keys in _SIZES
    ),
    (
        Workload("put-64-majority", "PUT, ack=majority", "put", (REPLICAD,), acknowledgement="majority"),
        Workload("put-64-one", "PUT, ack=one", "put", (REPLICAD,), acknowledgement="one"),
        Workload("put-64-active", "PUT at the sequencer, protocol active", "put", (ACTIVE,)),
        Workload("put-64-active-spread", "PUT at all nodes, protocol active", "put", (ACTIVE,), place=SPREAD),
    ),
    (
        Workload("get-1", "GET at another node, 1 connection, linearizable", "get", HTTP, connections=1, place=OTHER),
        Workload(
            "get-64-quorum",
            "GET at another node, 64 connections, linearizable",
            "get",
            (ETCD_V2, ETCD_V3, ETCD_GRPC),
            place=OTHER,
        ),
        Workload(
            "get-64-stale", "GET at another node, 64 connections, stale", "get", (REPLICAD,), place=OTHER, level=LOCAL
        ),
        Workload("get-64-spread", "GET at all nodes, 64 connections, linearizable", "get", HTTP, place=SPREAD),
        Workload(
            "get-16x16",
            "GET at another node, 16 connections, 16 in flight on each, linearizable",
            "get",
            (NATIVE, ETCD_GRPC),
            connections=16,
            depth=16,
            place=OTHER,
        ),
        Workload("missing-64", "GET of missing keys, linearizable", "missing", HTTP, place=OTHER),
    ),
    (
        Workload("mix-64", "90 % GET, 10 % PUT at the coordinator", "mix", HTTP),
        Workload("mix-64-spread", "90 % GET, 10 % PUT at all nodes", "mix", HTTP, place=SPREAD),
        Workload("hot-64", "PUT of one key at the coordinator", "hot", HTTP),
        Workload("prefix-8", "prefix reads of 1,000 keys, 8 connections", "prefix", (REPLICAD, ETCD_V3), connections=8),
    ),
    (
        Workload("put-64-million", "PUT among a million keys", "put", (REPLICAD, ETCD_V3), keys=MILLION),
        Workload("get-64-million", "GET among a million keys", "get", (REPLICAD, ETCD_V3), keys=MILLION, place=OTHER),
    ),
)


def chosen(names: frozenset[str]) -> list[list[Workload]]:
    """Return the groups of workloads with these names, ordered by how many keys they need: a store only grows."""
    found = [[each for each in group if each.name in names] for group in (*TABLE, *MORE)]
    return sorted((group for group in found if group), key=lambda group: max(each.keys for each in group))
