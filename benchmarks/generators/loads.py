"""What one run of a load generator found, whichever generator it was."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

GRACE_SECONDS = 20.0
"""How much longer than it was told to a generator may run before it is ended."""


class GeneratorError(Exception):
    """A run that gives no figure; the message says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that succeeded, how many a second, how many failed, and how long one took, in microseconds."""

    requests: int
    per_second: float
    failed: int
    median_us: float
    p99_us: float
    max_us: float


class Histogram:
    """Durations in whole microseconds, counted exactly, so that those of several generators can be put together."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, microseconds: int, count: int = 1) -> None:
        """Count a duration."""
        self._counts[microseconds] += count

    def merge(self, other: Histogram) -> None:
        """Count everything that another one has counted."""
        self._counts.update(other._counts)

    def percentile(self, percent: float) -> int:
        """Return the smallest duration that at least ``percent`` of all do not exceed; 0 if there are none."""
        rank = math.ceil(self._counts.total() * percent / 100)
        seen = 0
        for value, count in sorted(self._counts.items()):
            seen += count
            if seen >= rank:
                return value
        return 0


@dataclass(slots=True)
class Counted:
    """What one process of a generator counted, before the processes of one run are put together.

    ``status`` counts answers that say no, ``broken`` requests without an answer.
    """

    requests: int
    seconds: float
    status: int
    broken: int
    latency: Histogram


def together(parts: Sequence[Counted], *, expected_status: bool = False) -> Load:
    """Return one load of the processes that ran at once: rates are added, durations counted as if by one.

    ``expected_status``: answers that say no are what was asked for (reads of missing keys), and all must be such.
    """
    latency = Histogram()
    for part in parts:
        latency.merge(part.latency)
    requests = sum(part.requests for part in parts)
    status = sum(part.status for part in parts)
    return Load(
        requests=requests,
        per_second=sum(part.requests / part.seconds for part in parts if part.seconds > 0),
        failed=sum(part.broken for part in parts) + (requests - status if expected_status else status),
        median_us=latency.percentile(50),
        p99_us=latency.percentile(99),
        max_us=latency.percentile(100),
    )


async def output_of(command: Sequence[str], seconds: float) -> str:
    """Run a program and return what it printed, errors too.

    Raises GeneratorError if it fails, or takes 20 s longer than ``seconds``; it never outlives this call.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(seconds + GRACE_SECONDS):
            printed, _ = await process.communicate()
    except TimeoutError:
        raise GeneratorError(f"{command[0]} did not end within {seconds + GRACE_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    text = printed.decode(errors="replace")
    if process.returncode:
        raise GeneratorError(f"{command[0]} ended with exit code {process.returncode}: {text[-400:].strip()}")
    return text


def shares(total: int, parts: int) -> list[int]:
    """Return ``total`` in ``parts`` whole numbers that differ by one at most, none of them 0 if possible."""
    return [total // parts + (number < total % parts) for number in range(parts)]
