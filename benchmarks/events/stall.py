"""A checkpoint of one GiB is taken under a light load: how long does the slowest write take?

replicad only: etcd has no exact counterpart of a checkpoint that is taken beside the writes.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.clusters.base import HttpCluster
from benchmarks.events.context import Context
from benchmarks.events.filling import fill
from benchmarks.events.writers import Writers, port_of
from benchmarks.results import Measurement
from tests.node.wire import Answer, Client, LostError, NotSentError

VALUES = 16_384
VALUE_BYTES = 64 * 1024
CONNECTIONS = 8
WRITERS = 8
PAUSE_SECONDS = 0.01
ATTEMPT_SECONDS = 15.0
"""Longer than a node's own deadline: a write that stands still must be seen to stand still, not to be tried again."""
CHECKPOINTS_MIN, CHECKPOINTS_QUICK = 5, 2
CHECKPOINT_SECONDS = 180.0
TICK_SECONDS = 0.005
POLL_SECONDS = 0.1
SETTLE_SECONDS = 1.0
CONTROLS_MAX = 3
GENERATOR_SEED = 1


class StallError(Exception):
    """No checkpoint was taken, or one that nobody asked for, or nobody answered."""


class Lateness:
    """How late this process itself was to wake up: what the load generator, not the cluster, adds to a latency."""

    def __init__(self) -> None:
        self._worst = 0.0

    async def watch(self) -> None:
        """Wake up all the time, until cancelled."""
        while True:
            begin = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            self._worst = max(self._worst, time.monotonic() - begin - TICK_SECONDS)

    def take(self) -> float:
        """Return the worst since the last call, in seconds."""
        worst, self._worst = self._worst, 0.0
        return worst


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep this process's garbage collector from adding to the latencies that it measures."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def values(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield ``(key, value)``: values that are all different and that nothing compresses."""
    source = random.Random(GENERATOR_SEED)
    return ((f"stall/{number:06d}", source.randbytes(VALUE_BYTES)) for number in range(count))


async def _asked(client: Client, method: str, path: str) -> Answer:
    try:
        return await client.request(method, path)
    except (NotSentError, LostError) as error:
        raise StallError(f"{method} {path} was not answered: {error}") from None


async def slots(client: Client) -> tuple[int, int]:
    """Return the slot of the checkpoint committed last, and the highest slot; raises StallError."""
    answer = await _asked(client, "GET", "/v1/replicad/status")
    if answer.status != 200:
        raise StallError(f"a node does not tell its status: {answer.status} {answer.text[:200]}")
    group = answer.json()["groups"]["default"]
    return int(group["checkpoint_slot"]), int(group["highest_slot"])


async def take_checkpoint(client: Client) -> None:
    """Have a checkpoint taken of what is there now; returns when all members have it, however long it takes."""
    _, wanted = await slots(client)
    end = time.monotonic() + CHECKPOINT_SECONDS
    answer = await _asked(client, "POST", "/v1/replicad/checkpoint")
    # The node may have answered for one that was under way, or after its minute: the status knows.
    while (await slots(client))[0] < wanted:
        if time.monotonic() > end:
            raise StallError(f"no checkpoint within {CHECKPOINT_SECONDS:.0f} s: {answer.status} {answer.text[:200]}")
        await asyncio.sleep(POLL_SECONDS)


async def without(writers: Writers, client: Client, seconds: float) -> float:
    """Return the slowest write, in seconds, of so long a time without a checkpoint."""
    for _ in range(CONTROLS_MAX):
        begin, before = time.monotonic(), await slots(client)
        await asyncio.sleep(seconds)
        slowest = writers.slowest(begin, time.monotonic(), begun=True)
        if (await slots(client))[0] == before[0]:
            return slowest
    raise StallError(f"checkpoints that nobody asked for were taken {CONTROLS_MAX} times in {seconds:.0f} s")


async def one_checkpoint(writers: Writers, client: Client) -> tuple[float, float]:
    """Return how long a checkpoint took, and the slowest write meanwhile, both in seconds."""
    begin = time.monotonic()
    await take_checkpoint(client)
    end = time.monotonic()
    await asyncio.sleep(SETTLE_SECONDS)  # the last writes of that time are answered
    return end - begin, writers.slowest(begin, end)


async def load_large(ctx: Context, cluster: HttpCluster) -> None:
    """Fill the cluster with large values."""
    ctx.note(f"loading {VALUES:,} values of {VALUE_BYTES // 1024} KiB into {cluster.name}")
    coordinator = await cluster.coordinator()
    with ctx.bar("loading", VALUES) as advance:
        await fill(cluster, coordinator, values(VALUES), on_put=lambda: advance(1), connections=CONNECTIONS)


async def measure(ctx: Context) -> list[Measurement]:
    """Rows ``stall`` and ``stall-without``: milliseconds of the slowest write, with and without a checkpoint.

    It is taken without one, for as long, after the first checkpoint and after the last. ``late_ms`` beside it: how late
    the measuring process itself was to wake up, at the worst.
    """
    checkpoints = CHECKPOINTS_QUICK if ctx.quick else max(CHECKPOINTS_MIN, ctx.rounds)
    found: list[Measurement] = []
    async with ctx.cluster("replicad") as cluster:
        await load_large(ctx, cluster)
        client = Client(port_of(cluster, await cluster.coordinator()), CHECKPOINT_SECONDS)
        await take_checkpoint(client)  # what loading left to do is done before the first figure
        lateness = Lateness()
        watcher = asyncio.create_task(lateness.watch())
        writers = Writers(cluster, writers=WRITERS, pause=PAUSE_SECONDS, attempt=ATTEMPT_SECONDS, prefix="light")
        try:
            with no_collection(), ctx.bar("checkpoints", checkpoints) as advance:
                async with writers:
                    await writers.first()
                    for number in range(checkpoints):
                        lateness.take()
                        seconds, slowest = await one_checkpoint(writers, client)
                        extra = {"checkpoint_seconds": seconds, "late_ms": lateness.take() * 1000}
                        found.append(Measurement("stall", cluster.name, number, slowest * 1000, "ms", extra))
                        ctx.note(f"checkpoint {number + 1}/{checkpoints}, {seconds:.0f} s: {slowest * 1000:.0f} ms")
                        if number in {0, checkpoints - 1}:
                            quiet = await without(writers, client, seconds)
                            late = {"late_ms": lateness.take() * 1000}
                            found.append(Measurement("stall-without", cluster.name, number, quiet * 1000, "ms", late))
                            ctx.note(f"{seconds:.0f} s without a checkpoint: {quiet * 1000:.0f} ms")
                        advance(1)
        finally:
            watcher.cancel()
            client.close()
    return found
