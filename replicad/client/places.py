"""Where a client may find its group: addresses that it was given, and what nodes tell it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SHUNNED_SECONDS = 5.0
"""An address that did not do is tried last for so long."""
KNOWN_MAX = 4_096


class Places:
    """Addresses in the order in which they are worth a try."""

    def __init__(self, given: Iterable[str], group: str) -> None:
        self.given = tuple(dict.fromkeys(given))
        self.group = group
        self._ranks: dict[str, int] = {}
        self._shunned: dict[str, float] = {}

    def learn(self, nodes: Mapping[str, tuple[str, bool]], groups: Mapping[str, tuple[str, tuple[str, ...]]]) -> None:
        """Take in what a node says: the group's coordinator first, then members in touch, then the others."""
        coordinator, members = groups.get(self.group, ("", ()))
        self._ranks = {
            address: (name != coordinator) + (not in_touch) * 2 + (name not in members) * 4
            for name, (address, in_touch) in list(nodes.items())[:KNOWN_MAX]
        }

    def point_to(self, addresses: Iterable[str]) -> None:
        """Take in where a node says that the group is to be found."""
        for address in tuple(addresses)[:KNOWN_MAX]:
            self._ranks[address] = -1

    def shun(self, address: str, now: float) -> None:
        """An address did not do: try others first for a while. ``now``: seconds of any steady clock."""
        if len(self._shunned) > KNOWN_MAX:
            self._shunned.clear()
        self._shunned[address] = now

    def any_fresh(self, now: float) -> bool:
        """Return whether an address is left that did not fail lately."""
        since = now - SHUNNED_SECONDS
        return any(self._shunned.get(address, since) <= since for address in (*self._ranks, *self.given))

    def order(self, now: float) -> list[str]:
        """Return all known addresses, the best first."""
        addresses = dict.fromkeys((*self._ranks, *self.given))
        since = now - SHUNNED_SECONDS
        return sorted(
            addresses, key=lambda address: (self._shunned.get(address, since) > since, self._ranks.get(address, 3))
        )
