"""Whether a node runs on a data directory, asked without getting in its way."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def running(data: Path) -> bool:
    """Return whether a process holds the lock of this data directory. Nothing is created.

    The lock is asked for as one of many, and given back at once, so that a node that starts meanwhile hardly notices.
    """
    try:
        descriptor = os.open(data / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def take(data: Path) -> int:
    """Lock a data directory as a node does and return the descriptor; raises BlockingIOError, OSError."""
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def process_id(data: Path) -> int:
    """Return the process id that the node in this directory wrote down, 0 if there is none."""
    with suppress(OSError, ValueError):
        return int((data / "replicad.pid").read_text(encoding="ascii"))
    return 0


def owner(path: Path) -> Path | None:
    """Return the data directory that ``path`` is, or is inside of (its wal, store or checkpoints); None: none."""
    for place in (path, *path.absolute().parents[:3]):
        if (place / "identity.json").is_file():
            return place
    return None
