"""etcd's gRPC API with h2load.

h2load sends one body in a whole run, so all requests are for one key. It counts HTTP statuses, and gRPC puts its own
status into a trailer: that the requests were done is checked at the cluster, see ``check_puts``.
"""

from __future__ import annotations

import asyncio
import re
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.generators.loads import Counted, GeneratorError, Histogram, Load, output_of, shares, together

PUT, RANGE = "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range"

COUNTS = re.compile(
    r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.MULTILINE
)
DATA = re.compile(r"^traffic: .*\((\d+)\) data", re.MULTILINE)


def field(number: int, value: bytes) -> bytes:
    """Return a protobuf field of bytes, for field numbers up to 15."""
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def frame(message: bytes) -> bytes:
    """Return a message as gRPC sends it: not compressed, and its length in front."""
    return struct.pack(">BI", 0, len(message)) + message


def put_request(key: bytes, value: bytes) -> bytes:
    """Return the body of a Put: field 1 is the key, field 2 the value."""
    return frame(field(1, key) + field(2, value))


def range_request(key: bytes, *, serializable: bool) -> bytes:
    """Return the body of a Range of one key; field 7 asks for what the node has, without a question to the others."""
    return frame(field(1, key) + (b"\x38\x01" if serializable else b""))


def parse(text: str, log: str, seconds: float) -> tuple[Counted, int]:
    """Return what a run of ``seconds`` counted, and how many bytes of answers came; ``log``: a line for each request.

    Raises GeneratorError.
    """
    counts, data = COUNTS.search(text), DATA.search(text)
    if counts is None or data is None:
        raise GeneratorError(f"h2load printed no result: {text[-400:].strip()}")
    done, succeeded, failed, errored, timeout = map(int, counts.groups())
    latency = Histogram()
    for line in log.splitlines():
        latency.add(int(line.rpartition("\t")[2]))
    return Counted(succeeded, seconds, done - succeeded, failed + errored + timeout, latency), int(data[1])


async def h2load(
    addresses: Sequence[str],
    method: str,
    body: bytes,
    *,
    connections: int,
    streams: int,
    seconds: int,
    answer_bytes_min: int = 0,
) -> Load:
    """Load these addresses at once, each by an h2load of its own with an equal share of the connections.

    ``streams``: requests in flight on each connection. ``answer_bytes_min``: shorter answers are failures (an error of
    gRPC is an answer without a message). Raises GeneratorError.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-h2load-") as directory:
        request = Path(directory, "request")
        request.write_bytes(body)  # noqa: ASYNC240 - nothing else runs in this loop

        async def one(number: int, address: str, share: int) -> tuple[Counted, int]:
            log = Path(directory, f"log-{number}")
            headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
            arguments = ("h2load", "-t1", f"-c{share}", f"-m{streams}", f"-D{seconds}", "-d", str(request))
            command = (*arguments, *headers, f"--log-file={log}", f"http://{address}{method}")
            text = await output_of(command, seconds)
            return parse(text, log.read_text(encoding="ascii"), seconds)  # noqa: ASYNC240 - as above

        parts = await asyncio.gather(*map(one, range(len(addresses)), addresses, shares(connections, len(addresses))))
    for counted, data in parts:
        if data < counted.requests * answer_bytes_min:
            raise GeneratorError(f"{method}: {data} bytes in {counted.requests} answers; some hold no value")
    return together([counted for counted, _ in parts])


def check_puts(load: Load, before: int, after: int, in_flight: int) -> None:
    """Compare with the store's revision before and after: every put adds one; raises GeneratorError.

    When the time is up, up to ``in_flight`` requests were sent whose answers nobody counts.
    """
    if not load.requests <= after - before <= load.requests + in_flight:
        raise GeneratorError(
            f"h2load counted {load.requests} puts, and the store made {after - before}: some were refused"
        )
