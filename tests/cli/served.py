"""Nodes for the commands to talk to, in a thread: the real HTTP edge over a fake node, and one that is scripted."""

import asyncio
import socket
import threading
from contextlib import contextmanager, suppress

from replicad.http.server import HttpServer
from tests.http.fake import FakeNode


@contextmanager
def served(node=None):
    """Serve a fake node; gives (node, address)."""
    node = node or FakeNode()
    loop = asyncio.new_event_loop()
    server = HttpServer(node, "127.0.0.1", 0)
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield node, f"127.0.0.1:{server.port}"
    finally:
        asyncio.run_coroutine_threadsafe(finish(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def finish(server):
    """Stop the server, but not while a connection is just being opened or closed: those would outlive the loop."""
    await turns()
    await server.stop(0.2)
    await turns()


async def turns():
    for _ in range(10):
        await asyncio.sleep(0.001)


class Scripted:
    """Answers one request after another with the given bytes (b"": hangs up); keeps the requests' heads."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.heads = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self.thread.join(10)
        self.listener.close()

    def run(self):
        self.listener.settimeout(10)
        for answer in self.answers:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                self.heads.append(head.decode())
                connection.sendall(answer)

    def keys(self):
        """The idempotency keys of the requests."""
        return [line.split(": ")[1] for head in self.heads for line in head.split("\r\n") if "Idempotency" in line]


def answer(status, body, *headers):
    """The bytes of an HTTP answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
