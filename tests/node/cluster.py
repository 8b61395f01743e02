"""Clusters of real processes on loopback, to be killed, stopped, wiped, damaged and started again.

Faults are done to the processes and their files; what a node says of itself is asked over HTTP.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from replicad.core.journal.segments import HEADER_BYTES, scan
from replicad.node.segment_files import segment_numbers, segment_path
from tests.node.wire import Client, LostError, NotSentError

PATIENCE_SECONDS = 60.0
"""How long anything may take on a busy machine before it counts as never happening."""


async def until(
    what: str, condition: Callable[[], Awaitable[Any]], *, seconds: float = PATIENCE_SECONDS, pause: float = 0.05
) -> Any:
    """Poll until ``condition`` returns something true, and return that; a node that does not answer means "not yet"."""
    last: object = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    last = await condition()
                    if last:
                        return last
                except (NotSentError, LostError) as error:
                    last = error
                await asyncio.sleep(pause)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds:.0f} s; last seen: {last!r}") from None


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses.

    They are below the range from which the system picks ports for outgoing connections: a node that is down must find
    its port free when it comes back.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


class Node:
    """One node: its process, its data directory, and a client to talk to it."""

    def __init__(self, name: str, directory: Path, http: int, peer: int) -> None:
        self.name = name
        self.http = http
        self.peer = peer
        self.config = directory / "cluster.toml"
        self.data = directory / name
        self.output = directory / f"{name}.output"
        self.client = Client(http)
        self._clients: dict[str, Client] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.tree: Path | None = None
        """The source tree of the release that it runs; None: this one."""

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process; it ends with this one."""
        assert not self.running
        command = (sys.executable, "-m", "replicad.cli.main", "serve")
        arguments = ("--config", str(self.config), "--node", self.name, "--tied-to", str(os.getpid()))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REPLICAD_")}
        if self.tree is not None:
            environment["PYTHONPATH"] = str(self.tree)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                (*command, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=self.tree,  # before everything else, `-m` looks where it is started
            )

    def client_of(self, who: str) -> Client:
        """Return a client with a connection of its own for everyone who asks."""
        return self._clients.setdefault(who, Client(self.http))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill -9."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
        self.client.close()

    def pause(self) -> None:
        """SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    async def ended(self) -> int:
        """Wait until the process has ended, and return its exit code."""

        async def code() -> tuple[int] | None:
            assert self.process is not None
            found = self.process.poll()
            return None if found is None else (found,)

        return (await until(f"{self.name} ends", code))[0]

    async def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    def printed(self) -> str:
        """Return everything that the node's processes printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    # --- what it says of itself -------------------------------------------------------------------------------------

    async def group(self) -> dict[str, Any]:
        """Return the status of its group ``default``."""
        answer = await self.client.get("/v1/replicad/status")
        return answer.json()["groups"]["default"]

    async def ready(self) -> bool:
        """Whether it says that it can serve."""
        return (await self.client.get("/readyz")).status == 200

    async def missing(self) -> str:
        """Return what it says is missing."""
        answer = await self.client.get("/readyz")
        return "" if answer.status == 200 else answer.text

    async def entries(self, prefix: str, query: str = "") -> dict[str, tuple[int, int, str]]:
        """Return key -> ``(create index, modify index, base64 of the value)`` of all keys with a prefix."""
        answer = await self.client.get(f"/v1/kv/{prefix}?recurse" + (f"&{query}" if query else ""))
        assert answer.status in {200, 404}, f"{self.name}: {answer.status} {answer.text[:200]}"
        items = answer.json() if answer.body else []
        return {item["Key"]: (item["CreateIndex"], item["ModifyIndex"], item["Value"]) for item in items}

    async def checkpoint(self) -> int:
        """Have a checkpoint taken, wait until it is committed, and return its slot."""
        answer = await self.client.request("POST", "/v1/replicad/checkpoint", seconds=PATIENCE_SECONDS)
        assert answer.status == 200, answer
        return int(answer.json()["slot"])

    # --- its files --------------------------------------------------------------------------------------------------

    def wipe(self) -> None:
        """Remove the data directory; the process must not run."""
        assert not self.running
        shutil.rmtree(self.data)

    def records(self, segment: int) -> list[int]:
        """Return where the records of one segment of the message log begin."""
        data = segment_path(self.data / "wal", segment).read_bytes()
        return [position for _, _, position in scan(data, segment, rebooted=False).records]

    def segments(self) -> list[int]:
        """Return the numbers of the segments that hold records."""
        found = []
        for number in segment_numbers(self.data / "wal"):
            with segment_path(self.data / "wal", number).open("rb") as file:
                file.seek(HEADER_BYTES)
                if any(file.read(4)):
                    found.append(number)
        return found

    def damage(self) -> None:
        """Overwrite bytes of a record in the middle of the newest segment that has some."""
        assert not self.running
        newest = self.segments()[-1]
        positions = self.records(newest)
        assert len(positions) > 2, "the newest segment holds too few records to have a middle"
        with segment_path(self.data / "wal", newest).open("r+b") as file:
            file.seek(positions[len(positions) // 2] + 20)
            file.write(b"\xba\xdb\xad\xba\xdb\xad")

    def memory_bytes(self) -> int:
        """Return the resident memory of the process and its checkpoint worker."""
        assert self.process is not None
        return sum(map(_resident_bytes, (self.process.pid, *_children(self.process.pid))))


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


class Cluster:
    """Nodes ``n1``, ``n2``, … with a settings file in one directory."""

    protocol = "remote-write"
    """Of the group ``default``; some tests run with both."""

    def __init__(self, directory: Path, count: int = 3, settings: dict[str, dict[str, int]] | None = None) -> None:
        """``settings``: table of the settings file (``cluster.limits``, ``node``) -> setting -> value."""
        self.directory = directory
        ports = free_ports(2 * count)
        self.nodes = {
            name: Node(name, directory, ports[2 * number], ports[2 * number + 1])
            for number, name in enumerate(f"n{n + 1}" for n in range(count))
        }
        lines = ['[cluster]\nname = "trial"']
        for node in self.nodes.values():
            listen = f'http_listen = "127.0.0.1:{node.http}"\npeer_listen = "127.0.0.1:{node.peer}"'
            lines.append(f'[nodes.{node.name}]\n{listen}\ndata = "{node.name}"')
        if "groups.default" not in (settings or {}):
            lines.append(f'[groups.default]\nprotocol = "{self.protocol}"')
        for table, values in (settings or {}).items():
            lines.append(f"[{table}]\n" + "\n".join(f"{name} = {value}" for name, value in values.items()))
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cluster.toml").write_text("\n\n".join(lines) + "\n", encoding="utf-8")

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def chosen(self, names: tuple[str, ...]) -> list[Node]:
        """Return the nodes of these names; all for none."""
        return [self.nodes[name] for name in names or self.nodes]

    def start(self, *names: str) -> None:
        """Start these nodes (all for none) that do not run."""
        for node in self.chosen(names):
            if not node.running:
                node.start()

    def kill(self, *names: str) -> None:
        """Kill -9 these nodes (all for none)."""
        for node in self.chosen(names):
            node.kill()

    def close(self) -> None:
        """End every process."""
        for node in self.nodes.values():
            if node.running:
                node.resume()
            node.kill()

    async def ready(self, *names: str) -> None:
        """Wait until these nodes (all for none) say that they can serve."""
        for node in self.chosen(names):
            await until(f"{node.name} is ready", node.ready)

    async def primary(self, *, other_than: str = "") -> str:
        """Wait until a node that answers is the coordinator, and return its name."""

        async def coordinator() -> str:
            for node in self.nodes.values():
                if node.running and node.name != other_than:
                    with suppress(NotSentError, LostError):
                        if (await node.group())["role"] == "coordinator":
                            return node.name
            return ""

        return str(await until(f"a coordinator other than {other_than!r}", coordinator))

    async def follower(self) -> str:
        """Return the name of a running node that is not the coordinator."""
        primary = await self.primary()
        return next(node.name for node in self.nodes.values() if node.running and node.name != primary)

    async def converged(self, *names: str) -> int:
        """Wait until these nodes are ready and have applied the same slot, with one digest; returns the slot.

        Digests that differ at one slot are an error at once.
        """
        await self.ready(*names)
        nodes = self.chosen(names)

        async def agree() -> int:
            seen = [await node.group() for node in nodes]
            digests: dict[int, str] = {}
            for status in seen:
                slot, digest = status["applied_slot"], status["digest"]
                assert digests.setdefault(slot, digest) == digest, f"different digests at slot {slot}: {seen}"
            whole = all(len(status["view"]) == len(nodes) for status in seen if status["role"] == "coordinator")
            return seen[0]["applied_slot"] if len(digests) == 1 and whole else 0

        return int(await until("all nodes are at one slot", agree))


@asynccontextmanager
async def running(
    directory: Path,
    count: int = 3,
    settings: dict[str, dict[str, int]] | None = None,
    *,
    tree: Path | None = None,
) -> AsyncIterator[Cluster]:
    """Run a cluster that is ready, and end it; a failure shows what the nodes printed last.

    ``tree``: the source tree of the release that the nodes run; None: this one.
    """
    cluster = Cluster(directory, count, settings)
    for node in cluster.nodes.values():
        node.tree = tree
    try:
        cluster.start()
        await cluster.ready()
        yield cluster
    except BaseException:
        for node in cluster.nodes.values():
            if node.output.exists():
                print(f"--- {node.name} printed last:", *node.printed().splitlines()[-30:], sep="\n", file=sys.stderr)
        raise
    finally:
        cluster.close()
