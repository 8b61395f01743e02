"""Clients of a simulated cluster, and the history of what they saw.

Each writes values that nobody else writes, through random nodes. A request with an idempotency key is tried again
through other nodes as long as its outcome is unknown; one without is tried again only after a definite error. What
clients see is recorded as ``lab/history`` wants it; events are numbered, so that the order of calls and answers is
strict.

Keys that start with ``p/`` are also deleted by prefix; the linearizability checker does not know that operation, so
these keys stay out of the history (the judge's model still checks them).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Protocol

from replicad.core.model.operations import (
    ACK_ALL,
    ACK_MAJORITY,
    ACK_ONE,
    APPLIED,
    DELETE,
    DELETE_PREFIX,
    NO_CAS,
    PUT,
)
from replicad.lab.contact import Level, Outcome
from replicad.lab.history import Action, Cas, Delete, Get, Operation, Put, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.lab.events import EventQueue
    from replicad.lab.model import Model
    from replicad.lab.swarm import Load

PATIENCE_US = 200_000
"""A client waits this much longer than the contact's deadline before it takes the outcome for unknown."""

PREFIX = b"p/"


class Servers(Protocol):
    """Where clients send requests: the simulator."""

    names: tuple[str, ...]
    queue: EventQueue

    def request_write(
        self, node: str, request: Request, cas: int, idempotency: bytes, answer: Callable[[Outcome], None]
    ) -> bool:
        """Send a write to a node; False: nobody listens there."""

    def request_read(
        self, node: str, key: bytes, level: Level, answer: Callable[[Outcome], None], bookmark: int = 0
    ) -> bool:
        """Send a read to a node; False: nobody listens there."""

    def note(self, node: str, text: str) -> None:
        """Put a line into the transcript."""

    def committed(self) -> int:
        """The highest slot that any node called committed."""


@dataclass(slots=True)
class Request:
    """One request of a client through all its attempts."""

    client: str
    key: bytes
    code: int = 0
    value: bytes = b""
    cas: int = NO_CAS
    ack: int = ACK_ALL
    level: Level = Level.STALE
    bookmark: int = 0
    idempotency: bytes = b""
    action: Action | None = None
    record: int = 0
    """Number in the recorder (0: not recorded)."""
    called: int = 0
    """Number of the event of its call."""
    attempts: int = 0
    open_attempt: int = 0
    unsure: bool = False
    """Some attempt may have been carried out."""
    first_committed: int = 0
    tried: list[str] = field(default_factory=list)

    @property
    def is_read(self) -> bool:
        """Return whether this request reads."""
        return self.code == 0

    def __str__(self) -> str:
        key = self.key.decode()
        if self.is_read:
            bookmark = f" bookmark={self.bookmark}" if self.level is Level.SESSION else ""
            return f"{self.client} get {key} {self.level.name.lower()}{bookmark}"
        verbs = {PUT: f"put {key}={self.value[:12].decode()}", DELETE: f"delete {key}"}
        cas = "" if self.cas == NO_CAS else f" cas={self.cas}"
        ack = {ACK_MAJORITY: " ack=majority", ACK_ONE: " ack=one"}.get(self.ack, "")
        return f"{self.client} {verbs.get(self.code, f'delete {key}*')}{cas}{ack}"


class Clients:
    """All clients of one run. :meth:`stop` lets them finish what they have begun."""

    def __init__(self, servers: Servers, load: Load, window: int, random: Random) -> None:
        self._servers = servers
        self._load = load
        self._window = window
        self._random = random
        self._recorder = Recorder()
        self._events = 0
        self._values = 0
        self._stopped = False
        self._open = 0
        self._names = [f"c{number + 1}" for number in range(load.clients)]
        self._keys = [b"k%d" % number for number in range(load.keys)]
        self._seen: dict[tuple[str, bytes], tuple[bytes | None, int]] = {}
        """What a client last read at a key: value and modify index (0: absent)."""
        self._recorded: list[Request] = []
        self.counts: dict[str, int] = {}
        """Requests by outcome."""

    @property
    def idle(self) -> bool:
        """Return whether no request is open."""
        return self._open == 0

    def start(self) -> None:
        """Let every client begin at a time of its own."""
        for name in self._names:
            self._servers.queue.after(self._random.randrange(200_000), self._round, name)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopped = True

    def history(self, model: Model) -> list[Operation]:
        """Return what was seen; what took effect again after its window stands there once more for each time."""
        operations = self._recorder.operations()
        for request in self._recorded:
            effect = model.effects.get(request.idempotency)
            if effect is not None and effect.times > 1 and request.action is not None:
                twin = Operation((request.client, "again"), request.key, request.action, request.called)
                operations.extend([twin] * (effect.times - 1))
        return operations

    # --- one client ---------------------------------------------------------------------------------------------------

    def _round(self, client: str) -> None:
        """Send one request, or a burst of independent writes; the next round follows when all have ended."""
        if self._stopped:
            return
        random = self._random
        load = self._load
        count = 1
        if random.randrange(1_000_000) < load.burst_ppm:
            count = random.randrange(2, load.burst_max + 1)
        requests = [self._choose(client, burst=count > 1) for _ in range(count)]
        left = [len(requests)]

        def ended() -> None:
            left[0] -= 1
            if left[0] == 0:
                pause = int(random.expovariate(1.0) * load.think_us)
                self._servers.queue.after(pause, self._round, client)

        for request in requests:
            self._begin(request, ended)

    def _choose(self, client: str, *, burst: bool) -> Request:
        random = self._random
        if random.random() < 0.06:
            return self._choose_prefixed(client)
        key = random.choice(self._keys)
        if not burst and random.random() < 0.45:
            level = random.choice((Level.STALE, Level.LINEARIZABLE, Level.LINEARIZABLE, Level.CONSISTENT))
            return Request(client, key, level=level, action=None if level is Level.STALE else Get())
        request = Request(client, key, PUT)
        kind = random.randrange(10)
        value = self._new_value()
        seen = self._seen.get((client, key))
        if kind == 0:
            request.code = DELETE
            request.action = Delete()
        elif kind <= 3 and seen is not None:
            request.value = value
            request.cas = seen[1]
            request.action = Cas(seen[0], value)
        else:
            request.value = value
            request.action = Put(value)
            if random.randrange(1_000_000) < self._load.weak_ppm:
                request.ack = random.choice((ACK_MAJORITY, ACK_ONE))
        if random.random() < 0.7:
            request.idempotency = self._new_idempotency()
        return request

    def _choose_prefixed(self, client: str) -> Request:
        random = self._random
        if random.random() < 0.2:
            return Request(client, PREFIX, DELETE_PREFIX, idempotency=self._new_idempotency())
        key = PREFIX + b"%d" % random.randrange(8)
        return Request(client, key, PUT, value=self._new_value(), idempotency=self._new_idempotency())

    def _new_value(self) -> bytes:
        self._values += 1
        value = b"v%d." % self._values
        return value.ljust(self._random.randrange(len(value), max(len(value) + 1, self._load.value_bytes_max)), b"x")

    def _new_idempotency(self) -> bytes:
        self._values += 1
        return hashlib.blake2b(b"key %d" % self._values, digest_size=16).digest()

    # --- one request --------------------------------------------------------------------------------------------------

    def _begin(self, request: Request, ended: Callable[[], None]) -> None:
        self._open += 1
        request.first_committed = self._servers.committed()
        if request.action is not None:
            self._events += 1
            request.record = self._recorder.invoke(request.client, request.key, request.action, self._events)
            request.called = self._events
            self._recorded.append(request)
        self._attempt(request, ended)

    def _attempt(self, request: Request, ended: Callable[[], None]) -> None:
        request.attempts += 1
        attempt = request.attempts
        request.open_attempt = attempt
        servers = self._servers
        others = [name for name in servers.names if name not in request.tried[-1:]] or list(servers.names)
        node = self._random.choice(others)
        request.tried.append(node)

        def answer(outcome: Outcome) -> None:
            if request.open_attempt == attempt:
                self._answered(request, node, outcome, ended)

        def patience_is_over() -> None:
            answer(Outcome(error="unknown_outcome"))

        if request.is_read:
            sent = servers.request_read(node, request.key, request.level, answer, request.bookmark)
        else:
            sent = servers.request_write(node, request, request.cas, request.idempotency, answer)
        if sent:
            servers.queue.after(self._load.deadline_us + PATIENCE_US, patience_is_over)
        else:
            servers.queue.after(1_000, answer, Outcome(error="no_coordinator"))

    def _answered(self, request: Request, node: str, outcome: Outcome, ended: Callable[[], None]) -> None:
        request.open_attempt = 0
        if outcome.error:
            request.unsure = request.unsure or not outcome.definite
            if self._may_retry(request, outcome):
                self._servers.queue.after(self._random.randrange(1_000, 100_000), self._attempt, request, ended)
                return
        self._servers.note(node, f"{request}: {_show(request, outcome)}")
        name = self._counted_as(request, outcome)
        self.counts[name] = self.counts.get(name, 0) + 1
        self._record(request, outcome)
        self._open -= 1
        ended()

    def _counted_as(self, _request: Request, outcome: Outcome) -> str:
        return outcome.error or "ok"

    def _may_retry(self, request: Request, outcome: Outcome) -> bool:
        if self._stopped or request.attempts >= self._load.attempts_max or outcome.error == "key_reused":
            return False
        if request.is_read or not request.unsure:
            return True
        # An idempotency key holds for W slots: a client that waits longer may write twice, and knows it.
        return request.idempotency != b"" and self._servers.committed() - request.first_committed < self._window // 2

    def _record(self, request: Request, outcome: Outcome) -> None:
        if outcome.error:
            if request.record and (request.is_read or not request.unsure):
                self._recorder.fail(request.record)
                request.record = 0
            return
        if request.is_read:
            entry = outcome.entry
            value = entry.value if entry is not None else None
            self._seen[request.client, request.key] = (value, entry.modify if entry is not None else 0)
            if request.record:
                self._events += 1
                self._recorder.complete(request.record, self._events, value)
        elif request.record and request.ack == ACK_ALL and outcome.result is not None:
            self._events += 1
            applied = outcome.result.status == APPLIED
            self._recorder.complete(request.record, self._events, applied)


def _show(request: Request, outcome: Outcome) -> str:
    if outcome.error:
        return outcome.error
    if request.is_read:
        return "absent" if outcome.entry is None else outcome.entry.value[:12].decode()
    return "acknowledged" if outcome.result is None else f"status {outcome.result.status} index {outcome.result.index}"
