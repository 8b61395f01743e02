"""Errors that reach clients, each *definite* (nothing happened) or *indefinite* (the outcome is unknown).

One registry, from which the HTTP error table in the docs is made. When in doubt, indefinite is always safe.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One kind of error: name, HTTP status, whether it is definite, and when a retry makes sense (0: never)."""

    name: str
    status: int
    definite: bool
    retry_after_ms: int
    meaning: str


ERROR_KINDS: dict[str, ErrorKind] = {
    kind.name: kind
    for kind in (
        ErrorKind("bad_request", 400, True, 0, "the request is malformed; the message says which part"),
        ErrorKind("bad_bookmark", 400, True, 0, "the bookmark is none, or is full; the message says why"),
        ErrorKind("not_found", 404, True, 0, "there is no such page"),
        ErrorKind("method_not_allowed", 405, True, 0, "the Allow header lists the methods"),
        ErrorKind("conflict", 409, True, 0, "it contradicts what is there; nothing was done, the message says why"),
        ErrorKind(
            "unfinished", 409, False, 0, "a change of several steps stopped half-way; the message says what is done"
        ),
        ErrorKind("too_large", 413, True, 0, "the key or the value is larger than the limit"),
        ErrorKind("key_reused", 422, True, 0, "this Idempotency-Key was used before with another request"),
        ErrorKind("overloaded", 429, True, 200, "a queue is full; nothing was done"),
        ErrorKind("internal", 500, False, 0, "a bug; the node's event log has it"),
        ErrorKind("no_coordinator", 503, True, 500, "no majority of members is in touch; the write was never sent"),
        ErrorKind("not_ready", 503, True, 500, "this node is starting, or is being re-admitted, or is leaving"),
        ErrorKind(
            "disk_full",
            503,
            True,
            1000,
            "the disk of this node is full; nothing was done, other nodes may take the write",
        ),
        ErrorKind(
            "behind",
            503,
            True,
            200,
            "this replica has not caught up with the bookmark or min_index; nothing was done, another node may have",
        ),
        ErrorKind("unreachable", 503, True, 500, "no member of the group could be reached; the request was never sent"),
        ErrorKind("expired", 503, True, 100, "the write was not applied within its window of slots, and never will be"),
        ErrorKind("timeout", 504, True, 200, "the deadline passed before the request was sent anywhere"),
        ErrorKind("unknown_outcome", 504, False, 200, "the write was sent, and its outcome is not known"),
        ErrorKind("loop", 508, True, 500, "nodes passed the request around and none is a member of the group"),
    )
}


class RequestError(Exception):
    """A request that cannot be answered as asked; ``kind`` names the row of :data:`ERROR_KINDS`."""

    def __init__(self, kind: str, message: str = "") -> None:
        self.kind = ERROR_KINDS[kind]
        self.message = message or self.kind.meaning
        super().__init__(self.message)


class DamageError(Exception):
    """Bytes on a disk are not what was written there (and not merely cut short)."""


class InvariantError(Exception):
    """The replica's own rules are broken: the process must stop (a wrong answer is worse than none).

    ``rule`` is the short name of a rule of the protocol; "" where a function was used as it must not be.
    """

    def __init__(self, message: str, rule: str = "") -> None:
        super().__init__(message)
        self.rule = rule


def check(condition: object, message: str, rule: str = "") -> None:
    """Raise :class:`InvariantError` unless ``condition`` holds; stays in production, unlike ``assert``."""
    if not condition:
        raise InvariantError(message, rule)
