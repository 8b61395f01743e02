"""What operators do to groups and nodes: create, list, drop, move, switch, and change members step by step.

A change of members is several steps (``node/steps.py``): one that was cut short is continued by running it again.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from replicad.core.cluster.definitions import (
    DROPPED,
    LIMITS,
    META,
    REMOVED,
    GroupDefinition,
    NodeEntry,
    group_key,
    node_key,
    not_to_be_dropped,
)
from replicad.core.model.errors import RequestError
from replicad.core.model.obstacles import Obstacle
from replicad.node.steps import POLL_SECONDS, Task

if TYPE_CHECKING:
    from replicad.node.group_runtime import GroupRuntime
    from replicad.node.runtime import NodeRuntime

GROUPS_MAX = 300
ATTEMPTS = 5
"""How often a definition that others change at the same time is read and written again."""


class Administration:
    """What operators ask of one node."""

    def __init__(self, node: NodeRuntime) -> None:
        self.node = node
        self._draining = asyncio.Lock()

    # --- groups -----------------------------------------------------------------------------------------------------

    def groups(self) -> list[dict[str, object]]:
        """Return every group: its definition, and how it is as far as this node knows."""
        return [self.describe(name) for name in self.node.directory.names()]

    def describe(self, name: str) -> dict[str, object]:
        """Return one group; raises RequestError("not_found")."""
        definition = self._known(name)
        group = self.node.groups.get(name)
        said: dict[str, object] = {"name": name, **definition.as_json(), "role": "", "coordinator": "", "epoch": 0}
        said["leaderless"] = None  # whoever is no member cannot tell
        if group is not None:
            configuration = group.replica.state.configuration
            if configuration is not None:
                said |= {"members": list(configuration.nodes()), "mirrors": list(configuration.mirrors)}
                said["protocol"] = configuration.protocol
            said["role"] = group.replica.role
            said["coordinator"] = group.replica.coordinator
            said["epoch"] = group.replica.epoch
            said["leaderless"] = not group.replica.coordinator
        return said

    def _known(self, name: str) -> GroupDefinition:
        definition = self.node.directory.definition(name)
        if definition is None:
            there = ", ".join(self.node.directory.names())
            raise RequestError("not_found", f"there is no group {name!r}; there is: {there}")
        return definition

    def everyone(self) -> tuple[str, ...]:
        """Return all nodes that stay: the members of a group that names none."""
        leaving = self.node.directory.leaving()
        return tuple(name for name in self.node.directory.nodes() if name not in leaving)

    async def create(self, wish: GroupDefinition, seconds: float) -> dict[str, object]:
        """Create a group and wait until it is served; raises RequestError, ``unfinished`` if it is not in time.

        The same wish again is no mistake; another one under the same name is a ``conflict``.
        """
        self._check_wish(wish)
        directory = self.node.directory
        end = time.monotonic() + seconds
        async with Deadline(seconds):
            for _ in range(ATTEMPTS):
                await directory.refresh()
                there = directory.definition(wish.name)
                if there is not None:
                    self._compare(there, wish)
                    break
                if len(directory.definitions) >= GROUPS_MAX:
                    raise RequestError("overloaded", f"there are {GROUPS_MAX} groups, the most that are allowed")
                if await directory.put(group_key(wish.name), wish.encode()):
                    break
            else:
                raise RequestError("overloaded", f"others keep changing group {wish.name!r}; try again")
        while not self._served(wish.name):
            if time.monotonic() >= end:
                raise RequestError("unfinished", self._unserved(wish.name))
            await asyncio.sleep(POLL_SECONDS)
        return self.describe(wish.name)

    def _served(self, name: str) -> bool:
        """Return whether a group is served, as far as this node can tell; one that was dropped is not waited for."""
        group = self.node.groups.get(name)
        if group is not None:
            return bool(group.replica.coordinator)
        definition = self.node.directory.definition(name)
        # Whoever is no member learns from the definition that the group is formed: its first coordinator says so there.
        return definition is None or (definition.version > 0 and self.node.name not in definition.nodes())

    def _unserved(self, name: str) -> str:
        """Return why a group is not served: who is missing, or what this node lacks."""
        group = self.node.groups.get(name)
        definition = self._known(name)
        if definition.version > 0 or (group is not None and group.replica.state.configuration is not None):
            why = "; ".join(group.missing()) if group is not None else "it is about to be opened here"
            return f"the group is formed, but not served here: {why or 'its coordinator is not in touch'}"
        transport, own = self.node.transport, self.node.name
        absent = [node for node in definition.founders if node != own and not transport.connected(node)]
        obstacles = [Obstacle.absent(node) for node in absent]
        if group is not None:
            obstacles += [each for each in group.replica.membership.obstacles() if each not in obstacles]
        why = (
            "; ".join(obstacle.sentence for obstacle in obstacles)
            or "its initial members are in touch, and about to form it"
        )
        return (
            f"the group is defined, but not formed: {why}; it forms by itself once all its initial members are there, "
            "or drop it"
        )

    def _check_wish(self, wish: GroupDefinition) -> None:
        known = self.node.directory.nodes()
        for name in (*wish.founders, *filter(None, (wish.preferred,))):
            if name not in known:
                raise RequestError("bad_request", f"there is no node {name!r}; the nodes are {', '.join(known)}")
        if wish.preferred and wish.preferred not in wish.founders:
            raise RequestError("bad_request", f"the preferred node {wish.preferred!r} is not one of the members")
        for name in LIMITS:
            value, most = wish.limits.get(name), getattr(self.node.limits, name)
            if value is not None and value > most:
                raise RequestError(
                    "bad_request", f"the limit {name} is {value}; it must be at most the cluster's, {most}"
                )

    def _compare(self, there: GroupDefinition, wish: GroupDefinition) -> None:
        if (there.wish(), there.protocol) == (wish.wish(), wish.protocol):
            return
        members = ", ".join(there.members)
        if there.members != there.founders:
            members += f" (initially {', '.join(there.founders)})"
        raise RequestError(
            "conflict",
            f"there is a group {wish.name!r} already, which is another one: members {members}, "
            f"protocol {there.protocol}, ack {there.ack}; drop it first, or choose another name",
        )

    async def drop(self, name: str, *, force: bool) -> dict[str, object]:
        """Drop a group and everything in it; raises RequestError. A dropped name may be dropped again."""
        if name == META:
            raise RequestError("conflict", not_to_be_dropped(name, force=force))
        directory = self.node.directory
        for _ in range(ATTEMPTS):
            await directory.refresh()
            if name in directory.dropped:
                return {"name": name, "dropped": True}
            self._known(name)
            if why := not_to_be_dropped(name, force=force):
                raise RequestError("conflict", why)
            if await directory.put(group_key(name), DROPPED):
                return {"name": name, "dropped": True}
        raise RequestError("overloaded", f"others keep changing group {name!r}; try again")

    # --- nodes ------------------------------------------------------------------------------------------------------

    async def put_node(self, name: str, entry: NodeEntry) -> dict[str, object]:
        """Add a node to the cluster, or say where it is found now; raises RequestError."""
        directory = self.node.directory
        for _ in range(ATTEMPTS):
            await directory.refresh()
            for other, there in directory.entries.items():
                if other != name and (there.peer == entry.peer or there.http == entry.http):
                    raise RequestError(
                        "conflict", f"node {other!r} is found there already ({there.peer}, {there.http})"
                    )
            if directory.entries.get(name) == entry or await directory.put(node_key(name), entry.encode()):
                return {"name": name, "peer": entry.peer, "http": entry.http}
        raise RequestError("overloaded", f"others keep changing node {name!r}; try again")

    async def remove_node(self, name: str, seconds: float) -> dict[str, object]:
        """Remove a node that no group uses any more, and have it not vote on ``_meta`` before; raises RequestError."""
        directory = self.node.directory
        task = Task(self.node, directory.meta, seconds)
        task.plan = [f"{name} does not vote on {META}", f"{name} is removed from the cluster"]
        for _ in range(ATTEMPTS):
            await directory.refresh()
            if name in directory.removed:
                break
            if name not in directory.nodes():
                known = ", ".join(directory.nodes())
                raise RequestError("not_found", f"there is no node {name!r}; the nodes are {known}")
            used = directory.uses(name)
            if used:
                raise RequestError("conflict", f"node {name!r} is a member of {', '.join(used)}; remove it there first")
            # It is marked first: otherwise it could be given a vote in the moment before it is removed.
            leaving = replace(directory.entry(name), leaving=True)
            if directory.entries.get(name) != leaving and not await directory.put(node_key(name), leaving.encode()):
                continue
            try:
                await task.retire(name)
            except RequestError:
                with suppress(RequestError):
                    await directory.put(node_key(name), replace(leaving, leaving=False).encode())
                raise
            if await directory.put(node_key(name), REMOVED):
                break
        else:
            raise RequestError("overloaded", f"others keep changing node {name!r}; try again")
        return {"name": name, "removed": True}

    def nodes(self) -> list[dict[str, object]]:
        """Return every node: where it is found, whether it is in touch, its groups, and whether it is being removed."""
        directory, transport = self.node.directory, self.node.transport
        leaving, is_drained = directory.leaving(), self.node.engine.drain.is_drained
        found: list[dict[str, object]] = []
        for name in directory.nodes():
            said: dict[str, object] = {"name": name, "peer": directory.entry(name).peer}
            said["http"] = directory.http_address(name)
            said["connected"] = name == self.node.name or transport.connected(name)
            said["groups"] = directory.uses(name)
            said["leaving"] = name in leaving
            said["drained"] = is_drained(name)
            found.append(said)
        return found

    # --- maintenance ------------------------------------------------------------------------------------------------

    def drained(self) -> dict[str, object]:
        """Return whether this node is drained, what it holds all the same, and which groups would miss its vote."""
        drain = self.node.engine.drain
        needed = [{"group": need.group, "why": need.why} for need in drain.needs(self.node.transport.connected)]
        holds = [
            {"group": held.group, "what": "office" if held.office else "lease", "why": held.why}
            for held in drain.holdings()
        ]
        done = drain.drained and not holds
        return {"node": self.node.name, "drained": drain.drained, "done": done, "holds": holds, "needed": needed}

    async def drain(self, *, drained: bool) -> dict[str, object]:
        """Drain this node, or end that; what is so already stays. Raises RequestError if it cannot be kept."""
        try:
            await asyncio.shield(self._drain(drained))  # whoever asks may be gone before the disk has answered
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise RequestError(
                "disk_full",
                f"that could not be noted in the data directory: {reason}; the node goes on as before, and what it "
                f"finds after a restart is not known: ask again",
            ) from error
        return self.drained()

    async def _drain(self, drained: bool) -> None:
        """Note it durably, and only then do it; a second request waits for the first. Raises OSError."""
        async with self._draining:
            # That a mark is gone may not be durable yet: who asks once more makes it so.
            if not drained or not (self.node.engine.drain.drained and self.node.data.drained):
                await asyncio.to_thread(self.node.data.set_drained, drained=drained)
                self.node.engine.drain.set(drained=drained)

    # --- changing a group -------------------------------------------------------------------------------------------

    async def set_protocol(self, group: GroupRuntime, protocol: str, seconds: float) -> list[str]:
        """Switch the protocol of a live group; returns the steps done, raises RequestError."""
        task = Task(self.node, group, seconds)
        await task.protocol(protocol)
        return await task.finish()

    async def move_primary(self, group: GroupRuntime, name: str, seconds: float) -> list[str]:
        """Move the office to a member, and keep it there; returns the steps done, raises RequestError."""
        self._check_known(group, name)
        if self.node.engine.drain.is_drained(name):
            raise RequestError(
                "conflict",
                f"{name!r} is drained for maintenance and takes no office: replicad node undrain {name}; "
                f"nothing was done",
            )
        task = Task(self.node, group, seconds)
        task.plan = [f"the office is at {name}", f"{name} is the preferred coordinator"]
        await task.move(name)
        if group.name != META:
            await task.record(f"{name} is the preferred coordinator", lambda known: replace(known, preferred=name))
        return await task.finish()

    async def change_members(
        self, group: GroupRuntime, action: str, name: str, other: str, seconds: float, *, mirror: bool = False
    ) -> list[str]:
        """Add, remove, promote, demote or replace a member; returns the steps done, raises RequestError."""
        task = Task(self.node, group, seconds)
        newcomer = name if action == "add" else other
        if newcomer and newcomer not in self.node.directory.nodes():
            raise unknown_node(self.node, newcomer)
        if action != "add":
            self._check_known(group, name)
        configuration = group.replica.state.configuration
        if action == "replace" and configuration is not None:
            voters = configuration.nodes()
            if name in voters and other in voters:
                raise RequestError(
                    "conflict",
                    f"{other!r} is a voter of group {group.name} already, and so is {name!r}: to take {name!r} out, "
                    "use remove",
                )
        match action:
            case "add":
                task.plan = [f"{name} is a mirror", *([] if mirror else [f"{name} is a voter"])]
                await task.add(name, mirror=mirror)
            case "promote":
                task.plan = [f"{name} is a voter"]
                await task.promote(name)
            case "demote":
                task.plan = [f"{name} is a mirror"]
                await task.demote(name)
            case "remove":
                task.plan = [f"{name} is removed"]
                await task.remove(name)
            case "replace":
                task.plan = [f"{other} is a mirror", f"{other} is a voter", f"{name} is removed"]
                await task.add(other, mirror=False)
                task.hint = f"To continue, remove {name}"  # both are voters now
                await task.remove(name)
        return await task.finish()

    def _check_known(self, group: GroupRuntime, name: str) -> None:
        """Refuse a node that neither the cluster nor the group knows."""
        known = dict.fromkeys((*self.node.directory.nodes(), *group.definition.nodes()))
        configuration = group.replica.state.configuration
        if configuration is not None:
            known |= dict.fromkeys((*configuration.nodes(), *configuration.mirrors))
        if name not in known:
            raise RequestError(
                "bad_request",
                f"there is no node {name!r} in the cluster or in group {group.name}; known are {', '.join(known)}",
            )


class Deadline:
    """Turns the end of a time into a RequestError."""

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)  # type: ignore[arg-type]
        except TimeoutError:
            raise RequestError(
                "unknown_outcome", "it did not happen in time; ask again to see whether it did"
            ) from None


def unknown_node(node: NodeRuntime, name: str) -> RequestError:
    """Return the error of a node that nobody knows."""
    known = ", ".join(node.directory.nodes())
    return RequestError(
        "bad_request",
        f"there is no node {name!r}; the nodes are {known}. A new one is made known first "
        f"(replicad member add {name} --peer HOST:PORT --http HOST:PORT)",
    )
