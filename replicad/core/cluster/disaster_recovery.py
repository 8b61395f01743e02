"""A group whose majority of disks is lost for good goes on from what one survivor holds: the judgement, and the deed.

Pure: whoever reads directories and asks nodes hands over what was found. The survivor becomes the only voter of a new
generation (``Configuration.recovered``). Whatever the lost majority had
committed without this disk is gone, so this is refused wherever something better can be done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from replicad.core.model.configuration import Configuration

if TYPE_CHECKING:
    from replicad.core.cluster.holding import Holding


class Owner(Protocol):
    """Whose a data directory is."""

    @property
    def node(self) -> str:
        """Name of the node."""

    @property
    def disk(self) -> str:
        """Its disk id."""


class Survivor(Protocol):
    """A data directory that holds something of the groups in question."""

    @property
    def path(self) -> object:
        """Where it is."""

    @property
    def identity(self) -> Owner:
        """Whose it is."""

    @property
    def groups(self) -> Mapping[str, Holding]:
        """What it holds, by the groups' names."""


class Verdict(StrEnum):
    """What is to be done with a group."""

    RECOVER = "recover"
    START = "start"
    """A majority of its disks is there: starting the nodes is enough."""
    ELSEWHERE = "elsewhere"
    """Another survivor holds more, or has gone on already."""
    UNFIT = "unfit"
    """This disk has no vote in the group, or its data is not whole."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What another node holds of a group. ``members`` are the voters that it knows, node -> disk."""

    role: str
    committed: int
    highest: int
    version: int
    members: Mapping[str, str]
    rank: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Witness:
    """Another node: asked over HTTP, or its data directory was read. ``disk`` "" means that nothing was learnt."""

    node: str
    where: str
    disk: str = ""
    silence: str = ""
    """Why it did not tell."""
    groups: Mapping[str, Seen] = field(default_factory=dict)
    offline: bool = False
    """Its data directory was read."""

    @staticmethod
    def of_status(node: str, where: str, cluster: str, status: object, cluster_id: str = "") -> Witness:
        """Return what a node says in ``/v1/replicad/status``; whatever else answers there is no witness.

        ``cluster_id``: that of the survivor, "" if it knows none.
        """
        try:
            if (status["node"], status["cluster"]) != (node, cluster):  # type: ignore[index]
                return Witness(node, where, silence=f"node {status['node']} of {status['cluster']} answers there")  # type: ignore[index]
            there = status.get("cluster_id", "")  # type: ignore[attr-defined]
            if cluster_id and there and there != cluster_id:
                return Witness(node, where, silence=f"a node of another cluster of this name answers there ({there})")
            groups = {name: _seen(group) for name, group in status["groups"].items()}  # type: ignore[index]
            return Witness(node, where, str(status["disk"]), "", groups)  # type: ignore[index]
        except (KeyError, TypeError, AttributeError):
            return Witness(node, where, silence="something else than replicad answers there")

    @staticmethod
    def of_survivor(survivor: Survivor) -> Witness:
        """Return what a data directory holds."""
        groups = {
            name: Seen(
                "voter" if holding.voter else "-",
                holding.committed,
                holding.highest,
                holding.configuration.version,
                _disks(holding.configuration),
                holding.rank,
            )
            for name, holding in survivor.groups.items()
            if holding.configuration is not None
        }
        identity = survivor.identity
        return Witness(identity.node, str(survivor.path), identity.disk, "", groups, offline=True)


def _seen(status: Mapping[str, Any]) -> Seen:
    members = {str(member["node"]): str(member["disk"]) for member in status["members"]}
    committed = int(status["committed_slot"])
    highest = max(committed, int(status.get("highest_slot", 0)))
    version = int(status["configuration"])
    return Seen(str(status["role"]), committed, highest, version, members, (committed, highest))


def _disks(configuration: Configuration) -> dict[str, str]:
    return {member.node: member.disk for member in configuration.members}


@dataclass(frozen=True, slots=True)
class Row:
    """One node in the plan."""

    node: str
    answers: str
    disk: str
    role: str
    committed: int | None
    highest: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with one group, in words; ``rows``: who has what; ``losses``: what may be lost."""

    group: str
    verdict: Verdict
    reason: str
    rows: tuple[Row, ...]
    holding: Holding
    losses: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    """Voters that gave no answer: nothing tells here that their disks are gone."""


def make_plan(survivor: Survivor, name: str, witnesses: Sequence[Witness]) -> Plan:
    """Judge whether the group ``name``, which the survivor holds, is to be recovered there."""
    holding = survivor.groups[name]
    configuration = holding.configuration
    if configuration is None:
        return Plan(
            name, Verdict.UNFIT, "the group never formed here: this disk knows none of its members", (), holding
        )
    disks = _newest(configuration, name, witnesses)
    rows = _rows(survivor, holding, disks, witnesses)
    verdict, reason = _judge(survivor, holding, disks, witnesses)
    if verdict is not Verdict.RECOVER:
        return Plan(name, verdict, reason, rows, holding)
    silent = tuple(node for node in disks if node != survivor.identity.node and not _told(node, witnesses))
    return Plan(name, verdict, reason, rows, holding, _losses(holding, disks, witnesses), silent)


def _newest(configuration: Configuration, name: str, witnesses: Sequence[Witness]) -> Mapping[str, str]:
    """Return the voters and their disks as the newest configuration has them that anybody tells of."""
    version, disks = configuration.version, _disks(configuration)
    for witness in witnesses:
        seen = witness.groups.get(name)
        if seen is not None and seen.version > version and seen.members:
            version, disks = seen.version, dict(seen.members)
    return disks


def _told(node: str, witnesses: Sequence[Witness]) -> bool:
    return any(witness.node == node and witness.disk for witness in witnesses)


def _judge(
    survivor: Survivor, holding: Holding, disks: Mapping[str, str], witnesses: Sequence[Witness]
) -> tuple[Verdict, str]:
    name, own = holding.name, survivor.identity
    if disks.get(own.node) != own.disk:
        another = f", and another disk for {own.node}" if own.node in disks else ""
        why = (
            f"this disk ({own.disk}) has no vote in {name}: the newest configuration has the voters {', '.join(disks)}"
        )
        return Verdict.UNFIT, f"{why}{another}. Run this on one of them that still has its disk"
    alive = [witness for witness in witnesses if witness.disk and disks.get(witness.node) == witness.disk]
    names = list(dict.fromkeys([own.node, *(witness.node for witness in alive)]))
    if 2 * len(names) > len(disks):
        return Verdict.START, _start(names, len(disks), [witness for witness in alive if witness.offline])
    if not holding.voter:
        why = (
            f"this disk was admitted to {name}, and does not hold what came before: it ends at slot {holding.committed}"
        )
        return Verdict.UNFIT, f"{why}. Run this on another survivor"
    for witness in alive:
        seen = witness.groups.get(name)
        if seen is not None and seen.rank > (holding.rank if witness.offline else (holding.committed, holding.highest)):
            there = f"committed up to slot {seen.committed}, accepted up to {seen.highest}"
            here = f"here it is {holding.committed} and {holding.highest}"
            return (
                Verdict.ELSEWHERE,
                f"{witness.node} ({witness.where}) holds more of {name}: {there}; {here}. Run this there",
            )
    if holding.fault:
        return Verdict.UNFIT, f"what is here of {name} is not whole: {holding.fault}. Run this on another survivor"
    lost = [node for node in disks if node not in names]
    return (
        Verdict.RECOVER,
        f"{len(lost)} of {len(disks)} voters are gone with their disks ({', '.join(lost)}): no majority is left",
    )


def _start(names: Sequence[str], count: int, offline: Sequence[Witness]) -> str:
    there = " and ".join(f"{witness.where} (node {witness.node})" for witness in offline)
    put_back = f" Put {there} where its node looks for it." if offline else ""
    return (
        f"{' and '.join(names)}, {len(names)} of {count} voters, have their disks: that is a majority, and nothing is "
        f"lost.{put_back} Start {' and '.join(names)} together"
    )


def _rows(
    survivor: Survivor, holding: Holding, disks: Mapping[str, str], witnesses: Sequence[Witness]
) -> tuple[Row, ...]:
    own = survivor.identity
    rows = [Row(own.node, "here", _disk(own.node, own.disk, disks), "survivor", holding.committed, holding.highest)]
    for witness in witnesses:
        seen = witness.groups.get(holding.name)
        rows.append(
            Row(
                witness.node,
                witness.silence or witness.where,
                _disk(witness.node, witness.disk, disks),
                seen.role if seen is not None else "-",
                seen.committed if seen is not None else None,
                seen.highest if seen is not None else None,
            )
        )
    found = {row.node for row in rows}
    rows += [Row(node, "no address is known", "?", "-", None, None) for node in disks if node not in found]
    return tuple(rows)


def _disk(node: str, disk: str, disks: Mapping[str, str]) -> str:
    if node not in disks:
        return "no voter"
    if not disk:
        return "?"
    return "as configured" if disks[node] == disk else "LOST, another one"


def _losses(holding: Holding, disks: Mapping[str, str], witnesses: Sequence[Witness]) -> tuple[str, ...]:
    """Say what may be gone when the group goes on from here."""
    end = f"The log ends here at slot {holding.highest}, index {holding.index}."
    said = [
        f"{end} What was acknowledged after that, or without this disk, is lost: how much, nobody can tell any more."
    ]
    opened = holding.highest - holding.committed
    if opened:
        which = f"Slots {holding.committed + 1} to {holding.highest}" if opened > 1 else f"Slot {holding.highest}"
        said.append(
            f"{which} may or may not have been committed. What is here of them is kept: writes may show up whose "
            f"outcome was unknown."
        )
    said.append(
        f"A bookmark or an X-Consul-Index above {holding.index} belongs to what is lost: who waits for it waits until "
        f"new writes have passed it, and may then miss changes. Restart clients that keep such numbers."
    )
    for witness in witnesses:
        seen = witness.groups.get(holding.name)
        end_there = max(seen.committed, seen.highest) if seen is not None else 0
        if end_there > holding.highest:
            kind = "a voter" if disks.get(witness.node) == witness.disk else "no voter"
            said.append(
                f"{witness.node}, {kind}, holds slots up to {end_there}, which are given up: save first what it shows "
                f"(replicad kv list --stale --json)."
            )
    return tuple(said)


# --- the deed ---------------------------------------------------------------------------------------------------------


def recovered(survivor: Survivor, plans: Sequence[Plan]) -> dict[str, Configuration]:
    """Return group id -> the configuration that each plan ends in.

    It counts from the slot that the message log bears witness to: the store, which may know of more committed slots, is
    not there any more if the machine restarts, and a voter must hold the log up to its admission (M4).
    """
    identity = survivor.identity
    found = {}
    for plan in plans:
        configuration = plan.holding.configuration
        if plan.verdict is not Verdict.RECOVER or configuration is None:
            raise ValueError(f"group {plan.group} is not to be recovered: {plan.reason}")
        found[plan.holding.id] = configuration.recovered(identity.node, identity.disk, plan.holding.logged)
    return found
