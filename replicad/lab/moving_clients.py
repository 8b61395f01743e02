"""Clients that go from node to node with a bookmark, and what their sessions saw.

A bookmark is the highest index that the client knows of: that of its acknowledged writes, and that up to which a node
had applied writes when it answered a read. Most reads carry it and must get the four session guarantees, wherever they
are sent; the others are stale reads, which promise nothing but tell what was seen, and are counted by themselves.

These clients come in addition to those of :mod:`replicad.lab.clients`. They write keys of their own (``s/0`` …), so
that linearizability can be judged without them, and read the others' keys as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from replicad.core.model.operations import APPLIED, DELETE, PUT
from replicad.lab.clients import Clients, Request
from replicad.lab.contact import Level, Outcome
from replicad.lab.history import Read, Write

if TYPE_CHECKING:
    from random import Random

    from replicad.lab.clients import Servers
    from replicad.lab.swarm import Load

CLIENTS = 3
KEYS = 3


class MovingClients(Clients):
    """Clients ``s1`` …; none of them if the load has no share of reads with bookmarks."""

    def __init__(self, servers: Servers, load: Load, window: int, random: Random) -> None:
        self._common = [b"k%d" % number for number in range(load.keys)]
        super().__init__(servers, replace(load, burst_ppm=0), window, random)
        self._names = [f"s{number + 1}" for number in range(CLIENTS if load.session_ppm else 0)]
        self._keys = [b"s/%d" % number for number in range(KEYS)]
        self._bookmarks = dict.fromkeys(self._names, 0)
        self.sessions: dict[str, list[Read | Write]] = {name: [] for name in self._names}
        """What the checkers of ``lab/sessions`` judge."""

    def _choose(self, client: str, *, burst: bool) -> Request:  # noqa: ARG002 - they send one request at a time
        random = self._random
        if random.random() < 0.65:
            key = random.choice(self._keys if random.random() < 0.8 else self._common)
            if random.randrange(1_000_000) < self._load.session_ppm:
                return Request(client, key, level=Level.SESSION, bookmark=self._bookmarks[client])
            return Request(client, key, level=Level.STALE)
        request = Request(client, random.choice(self._keys), PUT, value=self._new_value())
        if random.random() < 0.15:
            request.code, request.value = DELETE, b""
        if random.random() < 0.7:
            request.idempotency = self._new_idempotency()
        return request

    def _new_idempotency(self) -> bytes:
        self._values += 1
        return hashlib.blake2b(b"moving %d" % self._values, digest_size=16).digest()

    def _counted_as(self, request: Request, outcome: Outcome) -> str:
        read = "bookmark" if request.level is Level.SESSION else "no_bookmark"
        return f"session_{read if request.is_read else 'write'}_{outcome.error or 'ok'}"

    def _record(self, request: Request, outcome: Outcome) -> None:
        """Note what the session knows now; a write whose outcome is unknown is not known to it."""
        if outcome.error:
            return
        client = request.client
        if request.is_read:
            value = outcome.entry.value if outcome.entry is not None else None
            promised = request.level is Level.SESSION
            self.sessions[client].append(Read(request.key, value, request.tried[-1], outcome.applied, promised))
            index = outcome.applied
        elif outcome.result is not None:
            index = outcome.result.index
            if outcome.result.status == APPLIED:
                value = request.value if request.code == PUT else None
                self.sessions[client].append(Write(request.key, index, value))
        else:
            return
        self._bookmarks[client] = max(self._bookmarks[client], index)
