"""One run of the benchmarks: how thorough it is, what it says on the screen, and what went wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.clusters.base import HttpCluster
from benchmarks.contenders import create

LINE_SECONDS = 10.0
"""Where there is no terminal, a bar is a line so often at most."""


class Context:
    """What a scenario needs of the run that it is part of. ``with`` shows the progress.

    ``seconds``: how long one run of a load generator takes.
    """

    def __init__(self, *, quick: bool, rounds: int, seconds: int) -> None:
        self.quick = quick
        self.rounds = rounds
        self.seconds = seconds
        self.failures: list[str] = []
        self.screen = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.screen,
            transient=True,
            disable=not self.screen.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Say what was found or is done now."""
        self.screen.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False)

    def fail(self, sentence: str) -> None:
        """Keep that there is no figure, and why."""
        self.failures.append(sentence)
        self.note(f"FAILED: {sentence}")

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show the progress of a scenario; what the block gets is called with how much more is done."""
        task = self._progress.add_task(what, total=total)
        done, said = 0, time.monotonic()

        def advance(count: int) -> None:
            nonlocal done, said
            done += count
            self._progress.advance(task, count)
            if not self.screen.is_terminal and time.monotonic() - said > LINE_SECONDS:
                said = time.monotonic()
                self.note(f"{what}: {done:,} of {total:,}")

        try:
            yield advance
        finally:
            self._progress.remove_task(task)

    def cluster(self, contender: str, nodes: int = 3, protocol: str = "remote-write") -> HttpCluster:
        """Return a new cluster of ``replicad`` or ``etcd``, not started."""
        found = create("replicad-active" if (contender, protocol) == ("replicad", "active") else contender, nodes)
        if not isinstance(found, HttpCluster):
            raise TypeError(f"{contender} does not speak HTTP")
        return found
