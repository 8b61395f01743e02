"""Several clusters on one machine, of which one runs at a time.

A fresh cluster for every figure would cost seconds each, and none is as it is after some minutes of work. Clusters
that only wait are not free either: on two cores three idle nodes of etcd were seen to take 2 % of the machine, three of
replicad 7 %, which the one under load would miss. So all stay alive, and those whose turn it is not are stopped with
SIGSTOP. After SIGCONT a cluster may elect a new leader; it gets a second, and must then be whole and take a write.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from benchmarks.clusters.base import Cluster, until

SETTLE_SECONDS = 1.0


class Turns:
    """Clusters that are started one after the other; ``async with`` ends them all."""

    def __init__(self, clusters: Sequence[Cluster]) -> None:
        self._clusters = clusters
        self._started: list[Cluster] = []
        self._running: Cluster | None = None

    async def __aenter__(self) -> Self:
        try:
            for cluster in self._clusters:
                await self._stop_running()
                await cluster.start()
                self._started.append(cluster)
                self._running = cluster
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def give(self, cluster: Cluster) -> None:
        """Let this cluster run, and no other; returns when it serves. Raises ServerError if it does not."""
        if cluster is self._running:
            return
        await self._stop_running()
        self._running = cluster
        await _signal(cluster, signal.SIGCONT)
        await self._settled(cluster)
        await asyncio.sleep(SETTLE_SECONDS)
        await self._settled(cluster)

    async def _settled(self, cluster: Cluster) -> None:
        await cluster.ready()
        await until(f"all nodes of {cluster.name} are members", cluster.whole)

    async def _stop_running(self) -> None:
        if self._running is not None:
            await _signal(self._running, signal.SIGSTOP)
            self._running = None

    async def _end(self) -> None:
        for cluster in self._started:
            await cluster.stop()


async def _signal(cluster: Cluster, number: signal.Signals) -> None:
    for node in range(cluster.nodes):
        await cluster.kill(node, number)
