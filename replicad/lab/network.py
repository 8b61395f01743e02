"""A virtual network.

The protocol promises to survive, in any mix, for any time, and between any two nodes:

* delay of any length, also different for every message, so that messages overtake each other;
* loss of any message;
* duplication, also long after the original, and also of a message that an earlier process of the sender sent, or that
  was meant for an earlier process (or disk) of the receiver;
* partitions: full ones (no message passes in either direction) and one-way ones.

It does not promise to survive, and this network does not do: changed bytes (a frame's checksum turns them into loss),
messages that nobody sent, and a sender under another's name. Nodes of another cluster of the same name do come
(:mod:`replicad.lab.strangers`): the door of :class:`~replicad.lab.simulator.Simulator` judges every message as the
handshake of a real link does.

Nothing here promises progress while faults go on; when they end, the cluster must converge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

_MILLION = 1_000_000
HOLDS_PAGES_US = 2_000_000
"""A link holds pages of slots back for no longer than this at a time."""


@dataclass(frozen=True, slots=True)
class NetworkFaults:
    """How the network behaves. Times in microseconds, probabilities in parts per million and per message."""

    delay_min_us: int = 100
    delay_max_us: int = 400
    loss_ppm: int = 0
    duplicate_ppm: int = 0
    slow_ppm: int = 0
    """Share of messages (and half of the duplicates) that take up to ``slow_max_us`` longer."""
    slow_max_us: int = 1_000_000
    late_pages_ppm: int = 0
    """Share of the pages of committed slots, or of runs of them, that wait until whoever asked for them is in office
    (or for ever)."""
    ordered: bool = False
    """Messages of one sender to one receiver never overtake each other (as over one TCP connection)."""

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        if not 0 < self.delay_min_us <= self.delay_max_us:
            raise ValueError("delay_min_us must be positive and not above delay_max_us")
        for name in ("loss_ppm", "duplicate_ppm", "slow_ppm", "late_pages_ppm"):
            if not 0 <= getattr(self, name) < _MILLION:
                raise ValueError(f"{name} must be from 0 to 999999")


PERFECT = NetworkFaults()
"""Short delays and nothing else: the network of the healed phase and of scripted scenarios."""


class Network:
    """Decides when, and whether, each message arrives; the caller moves the bytes."""

    def __init__(self, faults: NetworkFaults, random: Random, late: Random) -> None:
        """``late`` decides about late pages alone: they must not move what every other message meets."""
        self.faults = faults
        self._random = random
        self._late = late
        self._holds_until: dict[tuple[str, str], int] = {}
        self._blocked: dict[tuple[str, str], int] = {}
        self._last_arrival: dict[tuple[str, str], int] = {}
        self._turned: dict[tuple[str, str], tuple[int, int, int]] = {}
        self.calm: Callable[[], bool] = lambda: False
        """Whether messages sent now are neither lost, nor late, nor held up by others."""

    def block(self, source: str, target: str) -> None:
        """Stop messages from ``source`` to ``target`` (one way); blocking twice needs unblocking twice."""
        self._blocked[source, target] = self._blocked.get((source, target), 0) + 1

    def unblock(self, source: str, target: str) -> None:
        """Undo one :meth:`block`; raises ValueError if there is none."""
        left = self._blocked.get((source, target), 0) - 1
        if left < 0:
            raise ValueError(f"{source} to {target} is not blocked")
        if left:
            self._blocked[source, target] = left
        else:
            del self._blocked[source, target]

    def unblock_if(self, source: str, target: str) -> None:
        """Undo one :meth:`block`, unless healing did it before."""
        if self.blocked(source, target):
            self.unblock(source, target)

    def turn_round(self, source: str, target: str, start: int, middle: int, end: int) -> None:
        """Let what is sent from ``start`` on arrive in the opposite order, at the same distances, behind ``middle``.

        What is sent from ``middle`` to ``end`` is lost.
        """
        self._turned[source, target] = (start, middle, end)

    def blocked(self, source: str, target: str) -> bool:
        """Return whether messages from ``source`` to ``target`` are lost at present."""
        return (source, target) in self._blocked

    @property
    def whole(self) -> bool:
        """Whether nothing is blocked at present."""
        return not self._blocked

    def heal(self) -> None:
        """End all partitions and faults; messages on their way still arrive as was decided."""
        self._blocked.clear()
        self._turned.clear()
        self.faults = PERFECT

    def arrivals(self, source: str, target: str, now: int) -> tuple[int, ...]:
        """Return the times at which a message sent now arrives: none (lost), one, or two (duplicated)."""
        if (source, target) in self._blocked:
            return ()
        start, middle, end = self._turned.get((source, target), (0, 0, 0)) if self._turned else (0, 0, 0)
        if start <= now < end:
            return (2 * middle - now,) if now < middle else ()
        faults = self.faults
        random = self._random.random
        if self.calm():
            return (now + faults.delay_min_us,)
        if faults.loss_ppm and random() * _MILLION < faults.loss_ppm:
            return ()
        span = faults.delay_max_us - faults.delay_min_us
        first = now + faults.delay_min_us + int(random() * span)
        if faults.slow_ppm and random() * _MILLION < faults.slow_ppm:
            first += int(random() * faults.slow_max_us)
        if faults.ordered:
            first = max(first, self._last_arrival.get((source, target), 0) + 1)
            self._last_arrival[source, target] = first
        if faults.duplicate_ppm and random() * _MILLION < faults.duplicate_ppm:
            later = faults.slow_max_us if faults.slow_ppm and random() < 0.5 else faults.delay_max_us
            return (first, first + 1 + int(random() * later))
        return (first,)

    def holds_page(self, source: str, target: str, now: int) -> bool:
        """Return whether a page of committed slots that is sent now is held back, as are the next ones on its link."""
        ppm = self.faults.late_pages_ppm
        if not ppm:
            return False
        if now >= self._holds_until.get((source, target), 0):
            if self._late.random() * _MILLION >= ppm:
                return False
            self._holds_until[source, target] = now + int(self._late.random() * HOLDS_PAGES_US)
        return True
