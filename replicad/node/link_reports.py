"""What the event log says of links to peers: why there is none, once for each reason, and few lines in any case.

A peer that is not there yet, restarts, or is told to stop is nothing to be warned of: such a reason is told at level
info, and becomes a warning when it has lasted. A link that one of its ends refuses is a warning at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import structlog

PATIENCE_SECONDS = 10.0
"""A peer without both links for so long is worth a warning."""

STEADY_SECONDS = 10.0
"""A peer that kept both links for so long is forgiven: what happens next is news."""

REMIND_SECONDS = 600.0
"""The same reason is told once in so many seconds."""

LINES_MAX, LINES_SECONDS = 30, 300.0
"""How many lines of one peer, or of one host of strangers, there may be in so many seconds."""

RECENT_SECONDS = 60.0
"""For so long a status page tells of a node that was refused here; one that is still there dials every second."""

HOSTS_MAX = 100
REASONS_MAX = 100


@dataclass(slots=True)
class _Said:
    """What was said of one peer or host, and when."""

    reasons: dict[tuple[str, ...], float] = field(default_factory=dict)
    lines: deque[float] = field(default_factory=lambda: deque(maxlen=LINES_MAX))
    unsaid: int = 0
    """Lines that were kept back since the last one."""

    def news(self, now: float, *reason: str) -> bool:
        """Return whether these words were not said lately; from now on they were."""
        if now - self.reasons.get(reason, -REMIND_SECONDS) < REMIND_SECONDS:
            return False
        while len(self.reasons) >= REASONS_MAX:
            del self.reasons[next(iter(self.reasons))]
        self.reasons[reason] = now
        return True

    def room(self, now: float) -> bool:
        """Return whether there may be one more line, and count it."""
        if len(self.lines) == LINES_MAX and now - self.lines[0] < LINES_SECONDS:
            self.unsaid += 1
            return False
        self.lines.append(now)
        return True

    def kept_back(self) -> dict[str, int]:
        """Return the field that says how many lines are missing before this one, if any."""
        count, self.unsaid = self.unsaid, 0
        return {"unsaid": count} if count else {}


@dataclass(slots=True)
class _Host(_Said):
    refused: str = ""
    when: float = 0.0


@dataclass(slots=True)
class _Peer(_Said):
    since: float | None = None
    """Since when links are missing; they may have been there for a moment meanwhile."""
    steady: float | None = None
    """Since when both are there."""
    warned: bool = False
    last: dict[str, str] = field(default_factory=dict)


class LinkReports:
    """Writes the lines; ``now`` is any clock in seconds that does not go back."""

    def __init__(self, node: str) -> None:
        self._log = structlog.get_logger("replicad.transport").bind(node=node)
        self._peers: dict[str, _Peer] = {}
        self._hosts: dict[str, _Host] = {}

    def opened(self, peer: str, channel: str, version: int, now: float) -> None:
        """A link to ``peer`` is open."""
        known = self._peers.setdefault(peer, _Peer())
        if known.room(now):
            more = known.kept_back()
            self._log.info("peer_link_opened", peer=peer, channel=channel, version=version, **more)

    def lost(
        self, peer: str, channel: str, reason: str, now: float, *, address: str, was_up: bool, grave: bool
    ) -> None:
        """A link to ``peer`` ended (``was_up``), or could not be opened. ``grave``: not just because it is away."""
        known = self._peers.setdefault(peer, _Peer())
        known.since = now if known.since is None else known.since
        known.steady = None
        known.last = {"channel": channel, "address": address, "reason": reason}
        if not known.news(now, address, reason):
            return
        warn = grave or now - known.since >= PATIENCE_SECONDS
        if known.room(now) or (warn and not known.warned):
            known.warned |= warn
            event = "peer_link_closed" if was_up else "peer_link_failed"
            (self._log.warning if warn else self._log.info)(event, peer=peer, **known.last, **known.kept_back())

    def look(self, peer: str, *, up: bool, now: float) -> None:
        """Warn of a peer whose links have been missing for long, forgive one that has both; called once a second."""
        known = self._peers.setdefault(peer, _Peer())
        if not up:
            known.steady = None
            if known.since is not None and not known.warned and now - known.since >= PATIENCE_SECONDS:
                known.warned = True
                self._log.warning("peer_link_failed", peer=peer, **known.last, **known.kept_back())
        elif known.steady is None:
            known.steady = now
        elif known.since is not None and now - known.steady >= STEADY_SECONDS:
            known.since, known.warned = None, False
            known.reasons.clear()

    def left(self, peer: str, channel: str, reason: str, now: float) -> None:
        """A link that ``peer`` had opened ended."""
        known = self._peers.setdefault(peer, _Peer())
        if known.room(now):
            self._log.info("peer_left", peer=peer, channel=channel, reason=reason, **known.kept_back())

    def turned_away(self, address: str, reason: str, now: float, *, grave: bool, refused: str = "") -> None:
        """A connection ended before its handshake was done; ``grave``: because this node would not have it.

        ``refused``: why the node that said hello there does not belong here.
        """
        host = address.rpartition(":")[0]
        while host not in self._hosts and len(self._hosts) >= HOSTS_MAX:
            del self._hosts[next(iter(self._hosts))]
        known = self._hosts.setdefault(host, _Host())
        if refused:
            known.refused, known.when = refused, now
        if known.news(now, reason) and known.room(now):
            more = known.kept_back()
            if grave:
                self._log.warning("connection_refused", address=address, reason=reason, **more)
            else:
                self._log.info("handshake_broken", address=address, reason=reason, **more)

    def refused(self, now: float) -> dict[str, str]:
        """Return host -> why a node that dials from there was refused, of the last minute."""
        recent = now - RECENT_SECONDS
        return {host: known.refused for host, known in self._hosts.items() if known.refused and known.when > recent}

    def forget(self, peer: str) -> None:
        """The peer is no peer any more."""
        self._peers.pop(peer, None)
