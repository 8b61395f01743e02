"""``replicad serve``: one node in the foreground."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from replicad.cli.output import EXIT_USAGE, Failure, examples

PR_SET_PDEATHSIG = 1


@click.command(epilog=examples("replicad serve --config configs/local.toml --node n1"))
@click.option(
    "--config",
    envvar="REPLICAD_CONFIG",
    type=click.Path(path_type=Path),
    help="Settings file. Without one, every setting comes from the environment (REPLICAD_…).",
)
@click.option("--node", help="Which of the file's nodes this is. Also from REPLICAD_NODE.")
@click.option("--tied-to", type=int, hidden=True, help="End when the process of this id, the parent, ends.")
def serve(config: Path | None, node: str | None, tied_to: int | None) -> None:
    """Run one node in the foreground, until SIGTERM or Ctrl-C.

    Exit codes: 0 stopped as asked, 2 the settings, the data directory or an address cannot be used, 70 the disk failed
    or a rule of the protocol was broken (read the event log before starting it again).
    """
    if tied_to is not None:
        tie_to_parent(tied_to)
    # Until the node listens: what imports and recovery create stays, and to look for garbage costs a tenth of the time.
    gc.disable()
    from replicad.node.settings import SettingsError, load

    try:
        settings = load(config, node, os.environ)
    except SettingsError as error:
        hint = ["without --config every setting comes from the environment (REPLICAD_…)"] if config is None else []
        raise Failure("\n".join([*hint, *error.sentences]), EXIT_USAGE) from error

    from replicad.cli.serve import serve as run

    try:
        code = run(settings)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Failure(f"the data directory {settings.data} cannot be used: {reason}", EXIT_USAGE) from error
    if code:
        sys.exit(code)
    leave()


def leave() -> NoReturn:
    """End the process at once: all is closed and flushed, and to take every object apart would take seconds."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def tie_to_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends: ``up`` must leave no orphans.

    A kill and not a request to stop: it always works, and a node stands it at any moment.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel knew
        raise Failure("the process that started this node is gone")
