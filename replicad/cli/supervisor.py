"""The processes of ``replicad up``: started, watched, reported, and stopped all at once.

Each node is a process group of its own, so that Ctrl-C reaches this process alone and every node is stopped the same
way. What a node prints goes through a pipe that never makes it wait: its lines are in its own replicad.log anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping

from replicad.cli import locks
from replicad.cli.local_cluster import LocalCluster, LocalNode
from replicad.cli.output import printable
from replicad.cli.serve_codes import EXIT_FAILED, EXIT_UNUSABLE

POLL_SECONDS = 0.1
PATIENCE_SECONDS = 5.0
"""A node that is not ready after so long: what it lacks is shown, and again whenever that changes."""
STOP_SECONDS = 15.0
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
STEADY_SECONDS = 60.0
"""A node that ran for so long is restarted as quickly as at first."""

EVENT = re.compile(r"^\S+ \[(\w+) *\] ?(.*)$")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
MISSING_PEER = re.compile(r"peer_link_(?:failed|closed)\b.*?\bpeer\W+([A-Za-z0-9-]+)")
QUIET = frozenset({"debug", "info"})

Say = Callable[[str], None]


class Supervisor:
    """Runs the nodes of one cluster. ``say`` prints a line; ``environ`` is what the nodes get."""

    def __init__(self, cluster: LocalCluster, say: Say, environ: Mapping[str, str], *, restart: bool) -> None:
        self.cluster = cluster
        self.say = say
        self.environ = environ
        self.restart = restart
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.ready: dict[str, asyncio.Event] = {node.name: asyncio.Event() for node in cluster.nodes}
        self.stopping = asyncio.Event()
        self.killing = asyncio.Event()
        self._keepers: dict[str, asyncio.Task[None]] = {}

    async def run(self, on_ready: Callable[[list[LocalNode]], None]) -> int:
        """Run until told to stop or until no node is left; ``on_ready`` gets the nodes that are up, once.

        Returns the exit code: 0 when all nodes stopped as asked.
        """
        for node in self.cluster.nodes:
            self._keepers[node.name] = asyncio.create_task(self._keep(node))
        greeting = asyncio.create_task(self._greet(on_ready))
        stopping = asyncio.create_task(self.stopping.wait())
        everybody = asyncio.create_task(self._all_gone())
        await asyncio.wait({stopping, everybody}, return_when=asyncio.FIRST_COMPLETED)
        greeting.cancel()
        if not self.stopping.is_set():
            stopping.cancel()
            await everybody
            self.say("no node is left running; the data is kept, and `replicad up` goes on with it")
            return 1
        code = await self._stop()
        await everybody
        return code

    async def _all_gone(self) -> None:
        await asyncio.gather(*self._keepers.values())

    def stop(self) -> None:
        """Stop all nodes; told twice, kill them."""
        if self.stopping.is_set():
            self.killing.set()
        self.stopping.set()

    # --- one node ---------------------------------------------------------------------------------------------------

    async def _keep(self, node: LocalNode) -> None:
        """Start a node, report its end, and start it again where that was asked for."""
        failures = 0
        while True:
            started = time.monotonic()
            process = await self._start(node)
            announcing = asyncio.create_task(self._announce(node, process.pid))
            code = await process.wait()
            announcing.cancel()
            self.ready[node.name].clear()
            del self.processes[node.name]
            if self.stopping.is_set():
                return
            self.say(f"{node.name} {how_it_ended(code)}; its last lines are in {node.data / 'replicad.log'}")
            if not self.restart or code in {0, EXIT_FAILED}:
                self.say(f"  start it again:  replicad serve --config {self.cluster.file} --node {node.name}")
                return
            failures = 0 if time.monotonic() - started > STEADY_SECONDS else failures
            delay = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
            failures += 1
            self.say(f"{node.name} is started again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), delay)
            if self.stopping.is_set():
                return
            if locks.running(node.data):
                self.say(f"{node.name} was started by hand meanwhile, and is left alone")
                return

    async def _start(self, node: LocalNode) -> asyncio.subprocess.Process:
        """Start the node's process; it ends with this one, however that ends (see node.py)."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)  # a node must not wait for us: what does not fit the pipe is not shown
        command = ("-P", "-m", "replicad.cli.main", "serve", "--config", str(self.cluster.file.absolute()))
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                "--node",
                node.name,
                "--tied-to",
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                env=self.environ,
                process_group=0,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self.processes[node.name] = process
        if self.stopping.is_set():
            process.terminate()  # told to stop while it was being started
        Output(reading, lambda line: self._show(node, line))
        return process

    def _show(self, node: LocalNode, line: str) -> None:
        """Print what a node says, but not that it misses a peer that is known to be away (or not there yet)."""
        match = MISSING_PEER.search(line)
        known = match is not None and match[1] in self.ready and not self.ready[match[1]].is_set()
        if not self.stopping.is_set() and not known:
            self.say(f"{node.name}: {line}")

    async def _announce(self, node: LocalNode, process: int) -> None:
        """Say when a node is ready; while it is not, and that lasts, say what it lacks."""
        started = time.monotonic()
        said = ""
        while not self.stopping.is_set():
            missing = await readiness(node)
            if missing == "":
                self.ready[node.name].set()
                self.say(f"{node.name} is ready  http://{node.http}  process {process}  data {node.data}")
                return
            if time.monotonic() - started > PATIENCE_SECONDS and missing != said and not self.stopping.is_set():
                self.say(f"{node.name} is not ready yet: {missing}")
                said = missing
            await asyncio.sleep(POLL_SECONDS)

    async def _greet(self, on_ready: Callable[[list[LocalNode]], None]) -> None:
        """Wait until every node is ready or gone for good; one that is being restarted is waited for."""
        for node in self.cluster.nodes:
            ready = asyncio.create_task(self.ready[node.name].wait())
            await asyncio.wait({ready, self._keepers[node.name]}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
        up = [node for node in self.cluster.nodes if self.ready[node.name].is_set()]
        if up:
            on_ready(up)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _stop(self) -> int:
        """Ask all nodes at once, wait so long, and kill what is left."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
                process.send_signal(signal.SIGCONT)  # one that was paused (SIGSTOP) must hear it too
        killing = asyncio.create_task(self.killing.wait())
        keepers = asyncio.create_task(self._all_gone())
        await asyncio.wait({killing, keepers}, timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        killing.cancel()
        left = dict(self.processes)
        for name, process in left.items():
            why = "as asked" if self.killing.is_set() else f"it did not stop within {STOP_SECONDS:g} s"
            self.say(f"{name} was killed: {why}")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await keepers
        return 1 if left else 0


class Output:
    """Shows what a node prints: warnings and worse of its event log, and whatever is no event at all."""

    def __init__(self, descriptor: int, show: Say) -> None:
        self._descriptor = descriptor
        self._show = show
        self._rest = b""
        self._quiet = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            if self._rest:
                self._line(self._rest)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        self._rest = self._rest[-(1 << 16) :]

    def _line(self, data: bytes) -> None:
        """Show a line, unless it belongs to a quiet event (a traceback belongs to the event above it)."""
        line = COLOUR.sub("", data.decode("utf-8", "replace"))
        level = event_level(line)
        if level:
            self._quiet = level in QUIET
        if not self._quiet and line.strip():
            self._show(printable(line))


def event_level(line: str) -> str:
    """Return the level of a line of the event log, console or JSON; "" for any other line."""
    if line.startswith("{"):
        try:
            return str(json.loads(line).get("level", ""))
        except ValueError:
            return ""
    match = EVENT.match(line)
    return match[1] if match else ""


def how_it_ended(code: int) -> str:
    """Return the end of a process in words, from its exit code (negative: the signal)."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "an unknown signal"
        return f"was killed by signal {-code} ({name})"
    if code == 0:
        return "stopped in good order (exit code 0), not asked by this command"
    if code == EXIT_UNUSABLE:
        return f"could not start (exit code {code}: its settings, data directory or an address cannot be used)"
    if code == EXIT_FAILED:
        return f"stopped at once (exit code {code}: the disk failed or a rule was broken; read why before restarting)"
    return f"ended with exit code {code}"


async def readiness(node: LocalNode) -> str:
    """Return "" if a node says that it is ready, or what it lacks."""
    address = node.http_listen
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(f"GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                answer = await reader.read(1 << 16)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return "it does not answer HTTP"
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 200"):
        return ""
    return "; ".join(printable(line) for line in body.decode("utf-8", "replace").splitlines()) or "it does not say why"
