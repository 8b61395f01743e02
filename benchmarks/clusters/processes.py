"""Server processes on loopback that end with this one, and the programs that must be installed for them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

PACKAGES = {
    "etcd": "etcd-server",
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
    "redis-benchmark": "redis-tools",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "setpriv": "util-linux",
}
"""Program -> the package of Debian and Ubuntu that has it."""

STOP_SECONDS = 10.0


class MissingProgramsError(Exception):
    """Programs that are needed are not installed; the message says how to get them."""


class ServerError(Exception):
    """A server did not do what was asked of it; the message is a sentence, with what the server printed last."""


def require(programs: Iterable[str]) -> None:
    """Raise MissingProgramsError unless all these programs can be run."""
    missing = [name for name in dict.fromkeys(programs) if shutil.which(name) is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[name] for name in missing))
        what = "is not installed" if len(missing) == 1 else "are not installed"
        raise MissingProgramsError(f"{', '.join(missing)} {what}. On Debian and Ubuntu: apt install {packages}")


class Server:
    """One server process: its command, its data directory, and the file that holds what it prints."""

    def __init__(self, name: str, command: Sequence[str], data: Path, output: Path) -> None:
        self.name = name
        self.data = data
        self._command = ("setpriv", "--pdeathsig", "KILL", *command)
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there; one that is stopped by SIGSTOP is."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Id of the process; raises ServerError if it does not run."""
        if self._process is None or not self.running:
            raise ServerError(f"{self.name} does not run. It printed last:\n{self.printed()}")
        return self._process.pid

    def start(self) -> None:
        """Start the process; raises ServerError if it runs."""
        if self.running:
            raise ServerError(f"{self.name} runs already")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("REPLICAD_", "ETCD_"))}
        self.data.mkdir(parents=True, exist_ok=True)
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the command is made here
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )

    async def kill(self, number: signal.Signals) -> None:
        """Send a signal; after SIGKILL and SIGTERM wait until the process has ended."""
        os.kill(self.pid, number)
        if number in {signal.SIGKILL, signal.SIGTERM}:
            await self.ended()

    async def ended(self) -> None:
        """Wait until the process has ended; raises ServerError if it takes more than 10 s."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                while self.running:  # noqa: ASYNC110 - a process has no event to wait for
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise ServerError(f"{self.name} has not ended within {STOP_SECONDS:.0f} s") from None

    async def stop(self) -> None:
        """End the process, if it runs, whatever state it is in."""
        if self.running:
            await self.kill(signal.SIGKILL)

    def printed(self, lines: int = 12) -> str:
        """Return the last lines of what it printed."""
        try:
            text = self._output.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
