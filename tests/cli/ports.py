"""Free ports of the loopback, in a row."""

import socket
from contextlib import ExitStack
from random import randrange


def free_ports(count):
    """Return the first of `count` ports in a row that nobody uses right now, below those that the kernel gives out."""
    for _ in range(200):
        first = randrange(12_000, 30_000)
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first
    raise RuntimeError("no free ports")
