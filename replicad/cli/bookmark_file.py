"""A bookmark kept in a file, so that commands that follow each other are one session."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from replicad.cli.output import EXIT_USAGE, Failure, printable

HEADER = "X-Replicad-Bookmark"
TEXT = re.compile(r"[!-~]{1,4096}")


def read(path: Path) -> str:
    """Return the bookmark in the file, "" if there is no file yet; raises Failure, also if none can be put there."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        missing = not path.parent.is_dir()
        reason = f"there is no directory {str(path.parent)!r}" if missing else "its directory takes no new files"
        raise Failure(f"the bookmark file {printable(str(path), 60)!r} cannot be written: {reason}", EXIT_USAGE)
    try:
        with path.open("rb") as file:
            data = file.read(8_192)
    except FileNotFoundError:
        return ""
    except OSError as error:
        reason = error.strerror or str(error)
        raise Failure(f"the bookmark file {printable(str(path), 60)!r} cannot be read: {reason}", EXIT_USAGE) from error
    text = data.decode("latin-1").strip()
    if text and TEXT.fullmatch(text) is None:
        raise Failure(
            f"the file {printable(str(path), 60)!r} holds no bookmark; name another one, or remove it to begin a new "
            "session",
            EXIT_USAGE,
        )
    return text


def write(path: Path, text: str) -> None:
    """Put the bookmark in the file, whole or not at all; raises Failure."""
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".bookmark-", delete=False) as file:
            temporary = file.name
            file.write(f"{text}\n")
        os.replace(temporary, path)  # noqa: PTH105 - both are paths of the same directory
    except OSError as error:
        with suppress(OSError):
            Path(temporary).unlink()
        reason = error.strerror or str(error)
        sentence = f"the request was done, but the bookmark file {printable(str(path), 60)!r} cannot be written"
        raise Failure(f"{sentence}: {reason}", EXIT_USAGE) from error
