"""Replicad's native port, loaded by a process of its own: frames of many operations over many connections.

    python -m benchmarks.generators.native --address 127.0.0.1:7001 --connections 16 --depth 16 --seconds 3

Each connection has one frame of ``--depth`` operations under way, and sends the next when that is answered, as
redis-benchmark does with its pipelines. It is written in Python, as replicad is: what it spends is taken from the
servers, and a client in C would leave them more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import uvloop

from benchmarks.generators.loads import Counted, GeneratorError, Histogram, Load, output_of, shares, together
from replicad.client import ClientError, Connection
from replicad.client.wire import GET
from replicad.core.model.operations import PUT

PUTS, GETS = "put", "get"
DIGITS = 12
"""A value begins with a number of so many digits."""


def operations(workload: str, keys: Sequence[bytes], first: int, count: int, filling: bytes) -> list[tuple[Any, ...]]:
    """Return the operations of one frame: ``count`` keys from place ``first`` on, around the end of the list."""
    places = [(first + step) % len(keys) for step in range(count)]
    if workload == GETS:
        return [(GET, keys[place]) for place in places]
    return [(PUT, keys[place], b"%012d" % (first + step) + filling) for step, place in enumerate(places)]


class Loading:
    """All connections of one process, and what they counted."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.requests = self.refused = self.broken = 0
        self.latency: Counter[int] = Counter()
        self.error = ""
        """The first error, as a sentence."""
        self._keys = [b"bench/%06d" % number for number in range(options.keys)]
        random.shuffle(self._keys)
        self._filling = b"x" * (options.value_bytes - DIGITS)

    async def run(self) -> dict[str, Any]:
        """Load until the time is up; returns the result as JSON values."""
        options = self.options
        connections = [await Connection.open(options.address) for _ in range(options.connections)]
        begin = time.perf_counter()
        end = begin + options.seconds
        try:
            await asyncio.gather(*(self._load(number, each, end) for number, each in enumerate(connections)))
            taken = time.perf_counter() - begin
        finally:
            for each in connections:
                await each.close()
        return {
            "requests": self.requests,
            "seconds": taken,
            "refused": self.refused,
            "broken": self.broken,
            "error": self.error,
            "latency": sorted(self.latency.items()),
        }

    async def _load(self, number: int, connection: Connection, end: float) -> None:
        depth = self.options.depth
        place = number * len(self._keys) // self.options.connections
        clock = time.perf_counter
        now = clock()
        while now < end:
            frame = operations(self.options.workload, self._keys, place, depth, self._filling)
            place += depth
            begin = clock()
            try:
                answer = await connection.request(frame)
            except ClientError as error:
                self.broken += depth
                self.error = self.error or str(error)
                return
            now = clock()
            self.requests += depth
            self.latency[int((now - begin) * 1e6)] += depth
            for result in answer.results:
                if result[0] != 1:
                    self.refused += 1
                    self.error = self.error or repr(result)


def parse(text: str) -> Counted:
    """Return what a process printed; raises GeneratorError if it printed no result, or a request failed."""
    for line in text.splitlines():
        if line.startswith("RESULT "):
            found = json.loads(line.removeprefix("RESULT "))
            break
    else:
        raise GeneratorError(f"the native generator printed no result: {text[-400:].strip()}")
    if found["error"]:
        raise GeneratorError(f"{found['refused'] + found['broken']} native requests failed, first {found['error']}")
    latency = Histogram()
    for value, count in found["latency"]:
        latency.add(value, count)
    return Counted(found["requests"], found["seconds"], found["refused"], found["broken"], latency)


async def native(
    addresses: Sequence[str],
    workload: str,
    *,
    connections: int,
    depth: int,
    seconds: int,
    keys: int,
    value_bytes: int,
) -> Load:
    """Load these addresses at once, each by a process of its own with an equal share of the connections.

    ``workload``: ``put`` or ``get``. ``value_bytes``: 12 or more. Raises GeneratorError.
    """

    async def one(address: str, share: int) -> Counted:
        numbers = {"connections": share, "depth": depth, "seconds": seconds, "keys": keys, "value-bytes": value_bytes}
        arguments = [text for name, number in numbers.items() for text in (f"--{name}", str(number))]
        command = (sys.executable, "-m", "benchmarks.generators.native", "--address", address, "--workload", workload)
        return parse(await output_of((*command, *arguments), seconds))

    return together(await asyncio.gather(*map(one, addresses, shares(connections, len(addresses)))))


def main() -> None:
    """Load a node, and print the result as one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generators.native", description=__doc__.split("\n")[0])
    parser.add_argument("--address", required=True, help="host:port of a node's native port")
    parser.add_argument("--workload", choices=(PUTS, GETS), default=PUTS, help="default: %(default)s")
    parser.add_argument("--connections", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--depth", type=int, default=16, help="operations of a frame (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="default: %(default)s")
    parser.add_argument("--keys", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--value-bytes", type=int, default=100, help="12 or more (default: %(default)s)")
    options = parser.parse_args()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(Loading(options).run())
    except ClientError as error:
        sys.exit(f"the native port at {options.address} cannot be used: {error}")
    sys.stdout.write("RESULT " + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
