"""The source tree of an older release, as git keeps it, to run nodes of it beside those of this one."""

from __future__ import annotations

import subprocess
from pathlib import Path

ONE = "f2d1fef2ca3f913ad00b603508ad72b2d3cdfce0"
"""The last commit that speaks version 1 of the peer protocol, and no later one."""

REPOSITORY = Path(__file__).parents[2]


def unpack(directory: Path, commit: str = ONE) -> Path:
    """Put the package of ``commit`` into a directory, and return that; it runs with this interpreter's packages.

    Raises AssertionError with what to do where the commit is not to be had.
    """
    command = ("git", "-C", str(REPOSITORY), "archive", "--format=tar", commit, "replicad", "pyproject.toml")
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        raise AssertionError(f"this test builds the release of commit {commit[:7]}, and git is not here") from None
    assert done.returncode == 0, (
        f"this test builds the release of commit {commit[:7]}, and {REPOSITORY} does not have it: in a shallow clone "
        f"run `git fetch --unshallow`, or `git fetch origin {commit}` (git says: {done.stderr.decode().strip()})"
    )
    directory.mkdir(parents=True)
    subprocess.run(("tar", "-x", "-C", str(directory)), input=done.stdout, check=True)
    return directory
