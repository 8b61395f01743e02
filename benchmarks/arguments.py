"""What the command lines of the benchmarks have in common: it is checked before anything is started."""

from __future__ import annotations

import argparse
import errno
import os
import tempfile
from pathlib import Path

MAX = 1000


class TargetError(Exception):
    """Results cannot be written where they are to go; the message says where, and why."""


def positive(text: str) -> int:
    """Return a whole number from 1 to MAX; raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX}")
    return int(text)


def prepare(directory: Path, *files: Path) -> None:
    """Make the directory, and see that it and these files can be written; raises TargetError.

    A run takes many minutes: what it found must not be lost for a name that was mistyped.
    """
    where = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file in (directory / "results.json", *files):
            where = file
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            with tempfile.TemporaryFile(dir=file.parent):  # nothing is left if the run is cut short
                pass
    except OSError as error:
        raise TargetError(f"the results cannot be written: {where}: {(error.strerror or str(error)).lower()}") from None
