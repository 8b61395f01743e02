"""The nodes that a command talks to: their addresses, one HTTP request, and a request that tries one after another.

``http.client`` and not aiohttp: the command must start fast, and asks few things.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple, TypeVar

import click

from replicad.cli.output import EXIT_UNKNOWN, EXIT_UNREACHED, EXIT_USAGE, Failure, printable

DEFAULT_ADDRESSES = "127.0.0.1:8001,8002,8003"
CONNECT_SECONDS = 1.0
ATTEMPT_SECONDS = 8.0
"""Above a node's own deadline for a request (5 s unless set), so that its answer is not missed."""
FIND_SECONDS = 10.0
"""So long nodes are tried when none of them took the request, however long it may take one that does."""
PAUSES = (0.05, 0.1, 0.2, 0.4)
"""Seconds to wait before all nodes are tried again; the last one goes on."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Address(NamedTuple):
    """Where a node serves HTTP; prints as ``host:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Answer(NamedTuple):
    """What a node answered; ``headers`` has lower-case names."""

    address: Address
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as one line of text."""
        return printable(" ".join(self.body[:1000].decode("utf-8", "backslashreplace").split()))


class UnreachedError(Exception):
    """A node that gave no answer; ``sent``: the request may have reached it all the same."""

    def __init__(self, address: Address, reason: str, *, sent: bool) -> None:
        super().__init__(f"{address} {reason}")
        self.address = address
        self.reason = reason
        self.sent = sent


def parse_addresses(text: str) -> list[Address]:
    """Return the addresses in ``host:port,host:port``; a bare port takes the host before it. Raises Failure."""
    found: list[Address] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        host, colon, port = part.removeprefix("http://").rstrip("/").rpartition(":")
        if not colon and found:
            host = found[-1].host
        host = host.removeprefix("[").removesuffix("]")
        if not host or not (port.isascii() and port.isdecimal()) or not 1 <= int(port) <= 65_535:
            raise Failure(
                f"{printable(part, 60)!r} is not an address; REPLICAD_ADDR (or --addr) is host:port, several separated "
                f"by commas, for example {DEFAULT_ADDRESSES}",
                EXIT_USAGE,
            )
        found.append(Address(host, int(port)))
    if not found:
        raise Failure(f"REPLICAD_ADDR (or --addr) names no node; an example is {DEFAULT_ADDRESSES}", EXIT_USAGE)
    return list(dict.fromkeys(found))


def _parse_option(_: click.Context, __: click.Parameter, value: str) -> list[Address]:
    return parse_addresses(value)


addr_option = click.option(
    "--addr",
    "addresses",
    envvar="REPLICAD_ADDR",
    default=DEFAULT_ADDRESSES,
    show_default=True,
    callback=_parse_option,
    metavar="HOST:PORT,…",
    help="Nodes to talk to, tried in this order. Also from REPLICAD_ADDR.",
)
"""The option that names the nodes; the command gets ``addresses: list[Address]``."""


def ask(
    address: Address,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    seconds: float = ATTEMPT_SECONDS,
) -> Answer:
    """Send one request to one node and return its answer; raises UnreachedError."""
    connection = HTTPConnection(address.host, address.port, timeout=min(CONNECT_SECONDS, seconds))
    try:
        connection.connect()
    except OSError as error:
        connection.close()
        raise UnreachedError(address, _reason(error), sent=False) from error
    try:
        if connection.sock is not None:
            connection.sock.settimeout(seconds)
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have refused (too large) without reading on
            connection.request(method, target, body, dict(headers or {}))
        response = connection.getresponse()
        content = response.read()
        return Answer(address, response.status, {name.lower(): value for name, value in response.getheaders()}, content)
    except (OSError, HTTPException) as error:
        raise UnreachedError(address, _reason(error), sent=True) from error
    finally:
        connection.close()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections (no node is running there)"
    if isinstance(error, HTTPException):
        return f"does not speak HTTP as expected ({type(error).__name__})"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be reached: {text[:1].lower()}{text[1:]}"


def request(
    addresses: list[Address],
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    seconds: float,
    attempt_seconds: float = ATTEMPT_SECONDS,
    repeat: bool = True,
) -> Answer:
    """Send a request to one node after another until one answers for good, for at most about ``seconds``.

    Overload, unreadiness and silence are tried again, for less long where nobody is there at all; a write must carry an
    Idempotency-Key for that. Without ``repeat`` an answer that leaves the outcome open is the last one, its sentence
    the failure's. Returns answers of status 200 and of 404 without a body (a missing key). Raises Failure: EXIT_USAGE
    when the request was refused for what it is, EXIT_UNREACHED when nobody could do it, EXIT_UNKNOWN when somebody may
    have done it.
    """
    deadline = time.monotonic() + seconds
    found_by = time.monotonic() + min(seconds, FIND_SECONDS)
    writes = method not in {"GET", "HEAD"}
    may_be_done = False
    rounds = 0
    while True:
        problems: list[str] = []
        for address in addresses:
            left = max(0.1, deadline - time.monotonic())
            try:
                answer = ask(address, method, target, body, headers, seconds=min(attempt_seconds, left))
            except UnreachedError as error:
                may_be_done |= writes and error.sent
                found_by = deadline if error.sent else found_by
                problems.append(str(error))
            else:
                found_by = deadline
                if answer.status == 200 or (answer.status == 404 and not answer.body):
                    return answer
                sentence = answer.text or f"{address} answered {answer.status}"
                outcome = answer.headers.get("x-replicad-outcome", "")
                if writes and outcome == "indefinite" and (answer.status < 500 or not repeat):
                    raise Failure(sentence, EXIT_UNKNOWN)
                if answer.status < 500 and answer.status != 429:
                    raise Failure(sentence, EXIT_USAGE, answer.headers.get("x-replicad-error", ""))
                may_be_done |= writes and outcome != "definite"
                problems.append(f"{address} says: {answer.text or answer.status}")
            if time.monotonic() >= found_by:
                break
        pause = PAUSES[min(rounds, len(PAUSES) - 1)]
        if time.monotonic() + pause >= found_by:
            break
        time.sleep(pause)
        rounds += 1
    raise _failure(problems, may_be_done=may_be_done, writes=writes)


def _failure(problems: list[str], *, may_be_done: bool, writes: bool) -> Failure:
    tried = "\n".join(f"  {problem}" for problem in problems)
    if may_be_done:
        sentence = "the outcome is not known: a node got the request, and it may or may not have taken effect"
        return Failure(f"{sentence}\n{tried}", EXIT_UNKNOWN)
    done = "; nothing was done" if writes else ""
    return Failure(f"no node could answer{done}\n{tried}", EXIT_UNREACHED)
