"""What the HTTP edge needs from the node: two protocols that ``node/runtime.py`` fulfils.

Everything here is called from the event loop's thread. A method that is not ``async`` never blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from replicad.core.engine.writes import Done
from replicad.core.kv.entries import Entry
from replicad.core.model.limits import Limits
from replicad.core.model.operations import ACK_ALL, NO_CAS, Result
from replicad.node.administration import Administration
from replicad.node.metrics import Metrics


class Listing(Protocol):
    """One consistent read transaction for a long listing."""

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, Entry]]:
        """Yield ``(key, entry)`` in key order for keys that start with ``prefix`` and are greater than ``after``."""


class GroupRuntime(Protocol):
    """One group as its node's clients see it."""

    @property
    def name(self) -> str:
        """Name of the group."""

    @property
    def id(self) -> str:
        """What bookmarks call the group: a name that is dropped and given to another group gets another id."""

    @property
    def default_ack(self) -> int:
        """When a write that does not say so itself is acknowledged: ACK_ALL, ACK_MAJORITY or ACK_ONE."""

    @property
    def limits(self) -> Limits:
        """The constants of the group: the cluster's with its own."""

    @property
    def index(self) -> int:
        """Index of the last operation of the applied state; 0 when nothing was ever applied."""

    def write(
        self,
        code: int,
        key: bytes,
        value: bytes = b"",
        flags: int = 0,
        cas: int = NO_CAS,
        ack: int = ACK_ALL,
        idempotency: bytes | None = None,
    ) -> asyncio.Future[Result]:
        """Submit one operation. Raises RequestError at once when it is refused.

        The future gives ``Result(status, index)`` (index 0 for ``ack`` majority and one) or raises RequestError. It is
        cancelled when the server stops before the answer: whoever completes it must ask ``done()`` first.
        """

    def write_then(
        self,
        code: int,
        key: bytes,
        value: bytes,
        flags: int,
        cas: int,
        ack: int,
        done: Done,
        token: Any,
        idempotency: bytes | None = None,
    ) -> None:
        """Submit one operation without a future. Raises RequestError at once when it is refused.

        ``done(token, outcome)`` is called once, later, with a Result or a RequestError; it must not raise.
        """

    def read_ready(self) -> bool:
        """Return whether a linearizable read may be served from the local store now (samples the clock)."""

    async def read_barrier(self, *, consistent: bool) -> None:
        """Wait until it may (``consistent``: by asking a majority). Raises RequestError, also at its deadline."""

    async def reach(self, index: int) -> None:
        """Wait until the applied state holds operation ``index``. Raises RequestError("behind") at its deadline."""

    def read(self, key: bytes) -> Entry | None:
        """Return the entry of ``key`` in the applied state."""

    def staleness_ms(self) -> int:
        """Return how old the local state may be; 0 at the coordinator."""

    def has_coordinator(self) -> bool:
        """Return whether this node is in touch with the group's coordinator."""

    def coordinator_address(self) -> str:
        """Return ``host:port`` of the coordinator's HTTP endpoint, "" when unknown."""

    def listing(self) -> AbstractContextManager[Listing]:
        """Open a read transaction. Raises RequestError("overloaded") when too many are open."""

    async def checkpoint(self) -> dict[str, object]:
        """Take a checkpoint now and return its ``slot`` and ``digest``. Raises RequestError."""

    def status(self) -> dict[str, object]:
        """Return the group's part of ``/v1/replicad/status``."""


class NodeRuntime(Protocol):
    """One node as its clients see it."""

    @property
    def name(self) -> str:
        """Name of the node."""

    @property
    def cluster(self) -> str:
        """Name of the cluster; also the only ``?dc=`` that is known."""

    @property
    def limits(self) -> Limits:
        """The protocol's constants."""

    @property
    def metrics(self) -> Metrics:
        """The node's metrics."""

    def group(self, name: str) -> GroupRuntime:
        """Return a group; raises RequestError("not_found") with a sentence for an unknown one."""

    def elsewhere(self, name: str) -> list[str]:
        """Return ``host:port`` of the HTTP endpoints of a group's members, the best first; empty if there is none."""

    def status(self) -> dict[str, object]:
        """Return the body of ``/v1/replicad/status``."""

    @property
    def administration(self) -> Administration:
        """What operators ask of the node: groups, nodes, members."""

    def readiness(self) -> list[str]:
        """Return what is missing before this node can serve, a sentence each; empty when it is ready."""

    def peer_addresses(self) -> list[str]:
        """Return ``host:port`` of the HTTP endpoints of all members."""
