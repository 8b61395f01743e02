"""HTTP load with wrk; the requests are made in ``wrk.lua``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.generators.loads import Counted, GeneratorError, Histogram, Load, output_of, shares, together

SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT_SECONDS = 10

REPLICAD, ETCD_V2, ETCD_V3 = "replicad", "etcd-v2", "etcd-v3"
"""APIs whose requests ``wrk.lua`` makes."""


def parse(text: str) -> Counted:
    """Return what a run printed; raises GeneratorError."""
    latency = Histogram()
    found = None
    for line in text.splitlines():
        if line.startswith("LATENCY "):
            _, value, count = line.split()
            latency.add(int(value), int(count))
        elif line.startswith("RESULT "):
            found = json.loads(line.removeprefix("RESULT "))
    if found is None:
        raise GeneratorError(f"wrk printed no result: {text[-400:].strip()}")
    return Counted(found["requests"], found["microseconds"] / 1e6, found["status"], found["broken"], latency)


async def wrk(
    addresses: Sequence[str],
    api: str,
    workload: str,
    *,
    connections: int,
    seconds: int,
    keys: int,
    value_bytes: int,
    folder: str = "bench/",
    query: str = "",
) -> Load:
    """Load these addresses at once, each by a wrk of its own with an equal share of the connections.

    ``workload`` is one of ``wrk.lua``: put, get, missing, mix, hot, prefix. ``keys``: how many there are, up to a
    million. ``value_bytes``: 12 or more. ``folder``: six characters, a slash at the end. ``query``: appended to the
    path, for example ``?stale``. Raises GeneratorError.
    """

    async def one(address: str, share: int) -> Counted:
        arguments = ("wrk", "-t1", f"-c{share}", f"-d{seconds}s", "--timeout", f"{TIMEOUT_SECONDS}s")
        script = ("-s", str(SCRIPT), f"http://{address}", "--", api, workload)
        what = (str(keys), str(value_bytes), address, folder, query)
        return parse(await output_of((*arguments, *script, *what), seconds))

    found = await asyncio.gather(*map(one, addresses, shares(connections, len(addresses))))
    expected = workload == "missing" and api != ETCD_V3  # there a missing key is a 200 with an empty list
    return together(found, expected_status=expected)
