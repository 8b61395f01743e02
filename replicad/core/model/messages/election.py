"""Between candidates and voters, and the hand-over."""

from __future__ import annotations

from dataclasses import dataclass

from replicad.core.model.messages.base import Entry, Message, Summary


@dataclass(frozen=True, slots=True)
class PreVote(Message):
    """Candidate to all: would you promise ``epoch``? Changes nothing at the receiver. ``attempt`` is echoed."""

    number = 1
    epoch: int
    attempt: int
    committed: int


@dataclass(frozen=True, slots=True)
class PreVoteAnswer(Message):
    """Voter to candidate: whether it would promise; ``promised`` helps a candidate that is behind."""

    number = 2
    epoch: int
    attempt: int
    granted: bool
    promised: int


@dataclass(frozen=True, slots=True)
class Prepare(Message):
    """Candidate to all: promise all slots at ``epoch`` and report what you accepted from ``from_slot`` on.

    ``predecessor`` is the epoch in which this same process was coordinator just before (0: none); it overrides the
    receiver's loyalty to that epoch (rule E5). Sent again with a higher ``from_slot`` for further pages.
    """

    number = 3
    epoch: int
    attempt: int
    from_slot: int
    predecessor: int


@dataclass(frozen=True, slots=True)
class Promise(Message):
    """Voter to candidate, after the promise is durable: one page of what it accepted or decided.

    ``committed`` is its contiguous committed prefix, ``base`` the highest slot it has truncated, ``highest`` the
    highest slot it accepted; the page covers ``from_slot`` to ``to_slot`` without exception.
    """

    number = 4
    epoch: int
    attempt: int
    committed: int
    base: int
    highest: int
    from_slot: int
    to_slot: int
    entries: tuple[Summary, ...]


@dataclass(frozen=True, slots=True)
class Rejected(Message):
    """Anyone to the sender of a message of an old epoch: ``promised`` is higher than ``epoch``."""

    number = 5
    epoch: int
    promised: int


@dataclass(frozen=True, slots=True)
class FetchValues(Message):
    """Candidate to a voter that promised ``epoch``: send the accepted values of these slots."""

    number = 6
    epoch: int
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Values(Message):
    """Voter to candidate: accepted values, as many as fit a page."""

    number = 7
    epoch: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Release(Message):
    """Coordinator to all, handing over: its authority and its grants have ended; loyalty to ``epoch`` ends now.

    ``successor`` is the node that should stand first (empty: any).
    """

    number = 8
    epoch: int
    successor: str
