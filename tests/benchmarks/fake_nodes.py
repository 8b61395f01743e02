"""Nodes in this process that answer as replicad does, for what drives clusters: each does as it is told."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable

from benchmarks.clusters.replicad import ReplicadCluster

Answer = tuple[int, bytes]
Handler = Callable[[str, str, bytes], Answer | None]
"""Method, path and body to status and body; None for a node that never answers."""


class FakeCluster(ReplicadCluster):
    """Nodes that share one store; ``behaviour[i]`` may be replaced."""

    def __init__(self, nodes: int) -> None:
        super().__init__(nodes)
        self.store: dict[str, bytes] = {}
        self.asked: list[list[str]] = [[] for _ in range(nodes)]
        self.behaviour: list[Handler] = [self.serve] * nodes
        self.signals: list[tuple[int, signal.Signals]] = []
        self.listeners: list[asyncio.Server] = []
        self.kept: set[asyncio.StreamWriter] = set()

    def serve(self, method: str, path: str, body: bytes) -> Answer:
        """Be a key-value store."""
        key = path.partition("?")[0].removeprefix("/v1/kv/")
        if method == "PUT":
            self.store[key] = body
            return 200, b"true"
        return (200, self.store[key]) if key in self.store else (404, b"")

    async def coordinator(self) -> int:
        return 0

    async def _converse(self, node: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.kept.add(writer)
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().split("\r\n")
            method, path, _ = lines[0].split()
            sizes = [int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")]
            body = await reader.readexactly(sizes[0] if sizes else 0)
            self.asked[node].append(f"{method} {path}")
            answer = self.behaviour[node](method, path, body)
            if answer is not None:
                status, text = answer
                writer.write(b"HTTP/1.1 %d Words\r\nContent-Length: %d\r\n\r\n" % (status, len(text)) + text)

    async def start(self) -> None:
        """Listen on free ports."""

        async def converse(node: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._converse(node, reader, writer)
            except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
                writer.close()

        for node in range(self.nodes):
            server = await asyncio.start_server(lambda r, w, node=node: converse(node, r, w), "127.0.0.1", 0)
            self._ports.append(server.sockets[0].getsockname()[1])
            self.listeners.append(server)

    async def stop(self) -> None:
        for server in self.listeners:
            server.close()
        for writer in self.kept:
            writer.close()

    async def kill(self, i: int, number: signal.Signals = signal.SIGKILL) -> None:
        self.signals.append((i, number))

    async def ready(self) -> None:
        """It always is."""

    async def whole(self) -> bool:
        return True


def status_page(checkpoint: int, highest: int) -> Answer:
    """Return the part of the status page that is read of a group."""
    return 200, json.dumps({"groups": {"default": {"checkpoint_slot": checkpoint, "highest_slot": highest}}}).encode()
