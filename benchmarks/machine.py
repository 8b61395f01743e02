"""What machine this is, and which versions of the programs are on it."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.results import Machine
from replicad import __version__

ASKED = {
    "etcd": ("etcd", "--version"),
    "redis": ("redis-server", "--version"),
    "wrk": ("wrk", "--version"),
    "h2load": ("h2load", "--version"),
}
"""What is asked for its version, and how."""

VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")


async def _version(command: tuple[str, ...]) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    found = VERSION.search(printed.decode(errors="replace"))
    return found[0] if found else "unknown"


def _first(file: str, label: str) -> str:
    """Return what stands behind a label in a file of /proc, "" if nothing does."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(label)), "")


def _filesystem(directory: str) -> str:
    """Return the type of the filesystem that holds a directory: of the longest mount point above it."""
    where, found = "", "unknown"
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind, *_ = line.split()
        inside = directory == point or directory.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(where):
            where, found = point, kind
    return found


async def describe() -> Machine:
    """Return this machine; the filesystem is that of temporary files, where clusters have their data."""
    # A distribution builds its interpreter with profile-guided optimisation; one from elsewhere is often slower.
    builder = "the system's" if Path(sys.base_prefix) == Path("/usr") else "not the system's"
    versions = {"replicad": __version__, "Python": f"{platform.python_version()} ({builder})"}
    for name, command in ASKED.items():
        versions[name] = await _version(command)
    kibibytes = _first("/proc/meminfo", "MemTotal").partition(" ")[0]
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        processor=_first("/proc/cpuinfo", "model name") or platform.machine(),
        memory_bytes=int(kibibytes or 0) * 1024,
        kernel=platform.release(),
        filesystem=_filesystem(tempfile.gettempdir()),
        versions=versions,
    )
