"""The part of ``replicad doctor`` that looks at this machine: its clocks, and the disk under the data directory."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from replicad.cli import locks
from replicad.cli.findings import Findings
from replicad.cli.output import size_text
from replicad.core.journal.segments import FormatError
from replicad.core.journal.startup import Action
from replicad.core.model.errors import DamageError
from replicad.node.identity import DRAINED, DirectoryError, read_identity
from replicad.node.offline import read_offline
from replicad.node.settings import Settings

CLOCK_SECONDS = 0.5
FLUSHES = 30
FLUSH_BYTES = 4096
SLOW_FLUSH_SECONDS = 0.02
"""A median above this holds every write up, and is no disk for a log."""
SLOW_CLOCK_SOURCES = ("jiffies", "acpi_pm", "hpet", "pit")
CLOCK_SOURCE_FILE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


def check_clock(findings: Findings, settings: Settings) -> None:
    """Compare the rate of the clock that leases use with the raw one of the hardware."""
    before = _clocks()
    time.sleep(CLOCK_SECONDS)
    after = _clocks()
    leases, raw = (late - early for late, early in zip(after, before, strict=True))
    bound = settings.limits.rate_bound_ppm
    judge_clock(findings, (leases - raw) * 1_000_000 // max(raw, 1), bound)
    try:
        source = CLOCK_SOURCE_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return
    if source in SLOW_CLOCK_SOURCES:
        findings.look(f"the kernel's clock source is {source}, which is slow to read", "prefer tsc or kvm-clock")


def _clocks() -> tuple[int, int]:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def judge_clock(findings: Findings, off_ppm: int, bound_ppm: int) -> None:
    """Judge how far the clock's rate is off, in parts per million."""
    said = f"the clock's rate is {abs(off_ppm)} ppm off the hardware's; cluster.limits.rate_bound_ppm is {bound_ppm}"
    if abs(off_ppm) > bound_ppm // 2:
        findings.wrong(said, "stop what slews the clock so fast (ntpd, chronyd), or leases cannot be relied on")
    else:
        findings.ok(said)


def check_directory(findings: Findings, settings: Settings) -> None:
    """Look at the data directory: whose it is, that it can be written, how fast a flush is, and the room left."""
    data = settings.data
    try:
        identity = read_identity(data / "identity.json")
    except FileNotFoundError:
        findings.ok(f"{data} holds no data yet")
    except (DamageError, DirectoryError) as error:
        findings.wrong(str(error), "the node sets a damaged directory aside by itself, and is re-admitted empty")
    except OSError as error:
        findings.wrong(f"{data} cannot be read: {(error.strerror or '').lower()}", "give the node's user access to it")
        return
    else:
        if (identity.cluster, identity.node) != (settings.cluster, settings.node):
            findings.wrong(
                f"{data} belongs to node {identity.node!r} of cluster {identity.cluster!r}",
                f"point nodes.{settings.node}.data to another directory",
            )
        elif identity.state != "ok":
            findings.look(f"{data} was damaged and is empty; the node waits to be re-admitted")
        else:
            findings.ok(f"{data} is this node's, disk id {identity.disk}")
            if (data / DRAINED).exists():
                findings.look(
                    f"{settings.node} is drained for maintenance, and stays so when it is started again",
                    f"replicad node undrain {settings.node} takes it back",
                )
            if not locks.running(data):
                judge_start(findings, data)
    place = existing(data)
    _check_flushes(findings, settings, place)
    judge_space(findings, settings, place, shutil.disk_usage(place).free)


def judge_start(findings: Findings, data: Path) -> None:
    """Say what the next start of the node goes on from, if it is not everything that is there. No node runs."""
    try:
        with read_offline(data) as found:
            decision, rebuilds = found.decision, found.rebuilds
    except (DirectoryError, FormatError) as error:
        findings.wrong(str(error))
        return
    if decision.action is Action.SET_ASIDE:
        findings.wrong(
            f"the next start sets all of {data} aside: {decision.reason}",
            "put back what is missing; otherwise the node is re-admitted, empty, if a majority of its groups is there",
        )
    for group, reason in rebuilds.items():
        findings.look(
            f"the next start fetches group {group} from the other members: {reason}", "see that a majority of them runs"
        )


def existing(path: Path) -> Path:
    """Return ``path``, or the nearest directory above it that exists: there it would be made."""
    return next((place for place in (path, *path.absolute().parents) if place.is_dir()), Path("/"))


def _check_flushes(findings: Findings, settings: Settings, place: Path) -> None:
    try:
        seconds = flush_seconds(place)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        findings.wrong(f"{place} cannot be written: {reason}", "give the node's user the right to write there")
        return
    judge_flushes(findings, statistics.median(seconds), max(seconds), settings.limits.stall_after_us / 1e6)


def flush_seconds(place: Path) -> list[float]:
    """Return how long each of some flushes took, as the message log does them; the file has no name."""
    with tempfile.TemporaryFile(dir=place) as file:
        descriptor = file.fileno()
        os.posix_fallocate(descriptor, 0, FLUSHES * FLUSH_BYTES)
        os.fsync(descriptor)
        found = []
        for number in range(FLUSHES):
            os.pwrite(descriptor, os.urandom(FLUSH_BYTES), number * FLUSH_BYTES)
            started = time.perf_counter()
            os.fdatasync(descriptor)
            found.append(time.perf_counter() - started)
        return found


def judge_flushes(findings: Findings, median: float, worst: float, stall: float) -> None:
    """Judge the time of flushes, all in seconds; a flush longer than ``stall`` costs a coordinator its office."""
    said = f"a flush (fdatasync) takes {median * 1000:.2f} ms in the middle, {worst * 1000:.1f} ms at worst"
    if worst > stall:
        findings.wrong(
            f"{said}; over {stall * 1000:.0f} ms a node gives up its office (cluster.limits.stall_after_ms)",
            "use a disk that is not shared with heavy writers",
        )
    elif median > SLOW_FLUSH_SECONDS:
        findings.look(f"{said}; every write waits for it", "use an SSD, or one with power-loss protection")
    else:
        findings.ok(said)


def judge_space(findings: Findings, settings: Settings, place: Path, free: int) -> None:
    """Judge the free space, in bytes: log and checkpoints must fit, more than once."""
    segments = 4 * settings.process.segment_bytes
    needed = segments + 2 * settings.limits.checkpoint_bytes
    said = f"{size_text(free)} are free at {place}"
    if free < segments:
        findings.wrong(
            f"{said}; the message log alone needs {size_text(segments)}",
            "free space, or point nodes.NAME.data elsewhere; deletes still work when it is full",
        )
    elif free < needed:
        findings.look(f"{said}; log and checkpoints need {size_text(needed)} besides the data", "free space soon")
    else:
        findings.ok(said)
