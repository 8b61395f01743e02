"""Memory of processes, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

KIB = 1024
LINES = ("VmRSS", "RssAnon", "RssFile", "RssShmem")


class Memory(NamedTuple):
    """Resident memory in bytes: all of it, and its three kinds.

    ``anonymous`` is what the process allocated; ``file`` holds mapped files (a store that is read through ``mmap``:
    pages that the kernel takes back when it needs them); ``shared`` is shared memory without a file.
    """

    resident: int
    anonymous: int
    file: int
    shared: int


def parse_status(text: str) -> Memory:
    """Return what ``/proc/PID/status`` says; 0 for a line that is not there (a process that has ended)."""
    found = dict.fromkeys(LINES, 0)
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) * KIB
    return Memory(*found.values())


def memory(pid: int) -> Memory:
    """Return the resident memory of a process and its children, summed.

    Pages that two of them share count twice, so this is never too little. Raises FileNotFoundError if it has ended.
    """
    task = Path(f"/proc/{pid}/task/{pid}/children")
    family = [pid, *map(int, task.read_text(encoding="ascii").split())]
    each = [parse_status(Path(f"/proc/{member}/status").read_text(encoding="ascii")) for member in family]
    return Memory(*map(sum, zip(*each, strict=True)))
