"""Redis with its own redis-benchmark."""

from __future__ import annotations

import csv
import math

from benchmarks.generators.loads import GeneratorError, Load, output_of

TRIAL_REQUESTS = 20_000
"""redis-benchmark ends after a number of requests, not after a time: a short trial tells the number."""
SLOWER_FACTOR = 10
"""How much slower than the trial the run itself may become before it is ended."""


def parse(text: str, requests: int) -> Load:
    """Return what a run with ``--csv`` printed; raises GeneratorError."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))
    if len(rows) != 1 or "Error" in text:
        raise GeneratorError(f"redis-benchmark printed no result: {text[-400:].strip()}")
    row = rows[0]

    def microseconds(name: str) -> float:
        return float(row[f"{name}_latency_ms"]) * 1000

    return Load(
        requests=requests,
        per_second=float(row["rps"]),
        failed=0,
        median_us=microseconds("p50"),
        p99_us=microseconds("p99"),
        max_us=microseconds("max"),
    )


async def redis_benchmark(
    address: str, *, connections: int, depth: int, seconds: float, keys: int, value_bytes: int
) -> Load:
    """SET random keys for about this long, with ``depth`` commands in flight on each connection.

    Raises GeneratorError.
    """
    host, _, port = address.rpartition(":")

    async def run(requests: int, at_most: float) -> Load:
        where = ("redis-benchmark", "-h", host, "-p", port, "--csv", "-t", "set")
        what = ("-c", str(connections), "-P", str(depth), "-d", str(value_bytes), "-r", str(keys), "-n", str(requests))
        return parse(await output_of((*where, *what), at_most), requests)

    trial = await run(TRIAL_REQUESTS, SLOWER_FACTOR)
    return await run(max(TRIAL_REQUESTS, math.ceil(trial.per_second * seconds)), seconds * SLOWER_FACTOR)


def check_sets(load: Load, statistics: str) -> None:
    """Compare with what the server counted since its statistics were reset; raises GeneratorError.

    ``statistics``: the answer to ``INFO commandstats``.
    """
    for line in statistics.splitlines():
        name, _, rest = line.partition(":")
        if name == "cmdstat_set":
            counted = dict(part.split("=") for part in rest.strip().split(","))
            done = int(counted["calls"]) - int(counted["rejected_calls"]) - int(counted["failed_calls"])
            if done >= load.requests and not int(counted["failed_calls"]) + int(counted["rejected_calls"]):
                return
            raise GeneratorError(f"redis-benchmark counted {load.requests} SETs, and the server says {line.strip()}")
    raise GeneratorError("the server has counted no SET")
