"""What operators do to groups and nodes: create, list, drop, move, switch, and change members step by step.

A change of members is several steps through the group's log. Each step asks first whether it is done already, so a
change that was cut short is continued by running it again. Every one is bounded, and its failure names the step.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from replicad.core.group.changes import ADD, DEMOTE, MOVE, PROMOTE, PROTOCOL, REMOVE
from replicad.core.model.errors import RequestError
from replicad.node.definitions import (
    DEFAULT,
    DROPPED,
    LIMITS,
    META,
    REMOVED,
    GroupDefinition,
    NodeEntry,
    by_preference,
    group_key,
    node_key,
)
from replicad.node.directory import follow

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.node.group_runtime import GroupRuntime
    from replicad.node.runtime import NodeRuntime

GROUPS_MAX = 300
POLL_SECONDS = 0.05
ANSWER_SECONDS = 10.0
"""How long one step waits for the coordinator's answer before it looks at the configuration again."""
ATTEMPTS = 5
"""How often a definition that others change at the same time is read and written again."""
PASSING = ("ask again", "caught up", "not heard of lately")
"""Words in the sentences of refusals (``core/group/changes.py``) whose reason passes by itself."""
SETTLING = "bring back"
SETTLING_SECONDS = 3.0
"""So long a majority that seems to be lost may only be a voter that has just been made one."""


class Administration:
    """What operators ask of one node."""

    def __init__(self, node: NodeRuntime) -> None:
        self.node = node

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
        """Return all nodes: the members of a group that names none."""
        return tuple(self.node.directory.nodes())

    async def create(self, wish: GroupDefinition, seconds: float) -> dict[str, object]:
        """Create a group, wait until it is served here if this node is a member; raises RequestError.

        The same wish again is no mistake; another one under the same name is a ``conflict``.
        """
        self._check_wish(wish)
        directory = self.node.directory
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
        if self.node.name in wish.members:
            await self._until(seconds, lambda: self._served(wish.name))
        return self.describe(wish.name)

    def _served(self, name: str) -> bool:
        group = self.node.groups.get(name)
        return group is not None and bool(group.replica.coordinator)

    def _check_wish(self, wish: GroupDefinition) -> None:
        known = self.node.directory.nodes()
        for name in (*wish.founders, *filter(None, (wish.preferred,))):
            if name not in known:
                raise RequestError("bad_request", f"there is no node {name!r}; the nodes are {', '.join(known)}")
        if wish.preferred and wish.preferred not in wish.founders:
            raise RequestError("bad_request", f"preferred is {wish.preferred!r}, which is not one of the members")
        for name in LIMITS:
            value, most = wish.limits.get(name), getattr(self.node.limits, name)
            if value is not None and value > most:
                raise RequestError("bad_request", f"{name} is {value}; it must be at most the cluster's, {most}")

    def _compare(self, there: GroupDefinition, wish: GroupDefinition) -> None:
        if (there.wish(), there.protocol) == (wish.wish(), wish.protocol):
            return
        raise RequestError(
            "conflict",
            f"there is a group {wish.name!r} already, which is another one: members {', '.join(there.founders)}, "
            f"protocol {there.protocol}, ack {there.ack}; drop it first, or choose another name",
        )

    async def drop(self, name: str, *, force: bool) -> dict[str, object]:
        """Drop a group and everything in it; raises RequestError. A dropped name may be dropped again."""
        if name == META:
            raise RequestError("conflict", f"group {META} holds what the cluster knows of itself; it cannot be dropped")
        directory = self.node.directory
        for _ in range(ATTEMPTS):
            await directory.refresh()
            if name in directory.dropped:
                return {"name": name, "dropped": True}
            self._known(name)
            if name == DEFAULT and not force:
                raise RequestError(
                    "conflict", f"clients that name no group use {DEFAULT!r}; add ?force to drop it all the same"
                )
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

    async def remove_node(self, name: str) -> dict[str, object]:
        """Remove a node that no group uses any more; raises RequestError."""
        directory = self.node.directory
        for _ in range(ATTEMPTS):
            await directory.refresh()
            if name in directory.removed:
                break
            if name not in directory.nodes():
                known = ", ".join(directory.nodes())
                raise RequestError("not_found", f"there is no node {name!r}; the nodes are {known}")
            configuration = directory.meta.replica.state.configuration
            used = directory.uses(name)
            if configuration is not None and configuration.member(name) is not None:
                used.append(META)
            if used:
                raise RequestError("conflict", f"node {name!r} is a member of {', '.join(used)}; remove it there first")
            if await directory.put(node_key(name), REMOVED):
                break
        else:
            raise RequestError("overloaded", f"others keep changing node {name!r}; try again")
        return {"name": name, "removed": True}

    def nodes(self) -> list[dict[str, object]]:
        """Return every node: where it is found, whether it is in touch, and its groups."""
        directory, transport = self.node.directory, self.node.transport
        found: list[dict[str, object]] = []
        for name in directory.nodes():
            entry = directory.entries.get(name)
            settings = self.node.settings.nodes.get(name)
            peer = entry.peer if entry else str(settings.peer_address()) if settings else ""
            up = name == self.node.name or transport.connected(name)
            http = directory.http_address(name)
            found.append({"name": name, "peer": peer, "http": http, "connected": up, "groups": directory.uses(name)})
        return found

    # --- changing a group -------------------------------------------------------------------------------------------

    async def set_protocol(self, group: GroupRuntime, protocol: str, seconds: float) -> list[str]:
        """Switch the protocol of a live group; returns the steps done, raises RequestError."""
        task = Task(self.node, group, seconds)
        await task.protocol(protocol)
        return await task.finish()

    async def move_primary(self, group: GroupRuntime, name: str, seconds: float) -> list[str]:
        """Move the office to a member, and keep it there; returns the steps done, raises RequestError."""
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
        for node in filter(None, (name, other)):
            if node not in self.node.directory.nodes() and action in {"add", "replace"} and node != name:
                raise unknown_node(self.node, node)
        if action == "add" and name not in self.node.directory.nodes():
            raise unknown_node(self.node, name)
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
                await task.remove(name)
        return await task.finish()

    # --- waiting ----------------------------------------------------------------------------------------------------

    async def _until(self, seconds: float, condition: Callable[[], bool]) -> None:
        """Wait until something holds, or the time is up: whoever asked sees which."""
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(POLL_SECONDS)


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
        f"there is no node {name!r}; the nodes are {known}. A new one is added with PUT /v1/replicad/nodes/{name}",
    )


class Task:
    """Some steps on one group, until a deadline."""

    def __init__(self, node: NodeRuntime, group: GroupRuntime, seconds: float) -> None:
        self.node = node
        self.group = group
        self.end = time.monotonic() + seconds
        self.plan: list[str] = []
        self.done: list[str] = []

    # --- steps: each does nothing if it is done already -------------------------------------------------------------

    async def add(self, name: str, *, mirror: bool) -> None:
        """Make a node a mirror and, unless that is all, a voter once it has caught up."""
        if not self._is_voter(name):
            if not self._is_mirror(name) and self.group.name != META:
                # It must know of the group, to open it, before the group can know of it.
                await self._describe(f"{name} is a mirror", lambda known: with_mirror(known, name))
            await self._step(ADD, name, f"{name} is a mirror", lambda: self._is_mirror(name) or self._is_voter(name))
        if not mirror:
            await self.promote(name)

    async def promote(self, name: str) -> None:
        """Make a mirror a voter; waits until it has caught up."""
        step = f"{name} is a voter"
        if not self._is_voter(name) and not self._is_mirror(name):
            raise self._failed(step, "conflict", f"{name} is no mirror of group {self.group.name}: add it first")
        await self._step(PROMOTE, name, step, lambda: self._is_voter(name))

    async def demote(self, name: str) -> None:
        """Make a voter a mirror."""
        step = f"{name} is a mirror"
        if not self._is_voter(name) and not self._is_mirror(name):
            raise self._failed(step, "conflict", f"{name} is no member of group {self.group.name}")
        if self._is_voter(name):
            await self._vacate(name, step)
        await self._step(DEMOTE, name, step, lambda: self._is_mirror(name))

    async def remove(self, name: str) -> None:
        """Remove a voter or mirror."""
        step = f"{name} is removed"
        if self._is_voter(name):
            await self._vacate(name, step)
        known = self.node.directory.definitions.get(self.group.name)
        before = known.version if known else 0

        def removed() -> bool:
            if not self._is_voter(name) and not self._is_mirror(name):
                return True
            # This node may be the one that is removed: then its own replica never hears of it.
            now = self.node.directory.definitions.get(self.group.name)
            return now is not None and now.version > before and name not in now.nodes()

        await self._step(REMOVE, name, step, removed)

    async def protocol(self, protocol: str) -> None:
        """Switch the protocol."""

        def switched() -> bool:
            configuration = self.group.replica.state.configuration
            return configuration is not None and configuration.protocol == protocol

        await self._step(PROTOCOL, protocol, f"the protocol is {protocol}", switched)

    async def move(self, name: str) -> None:
        """Move the office to a member."""
        step = f"the office is at {name}"
        if not self._is_voter(name):
            raise self._failed(step, "conflict", f"{name} is no voting member of group {self.group.name}")
        await self._step(MOVE, name, step, lambda: self.group.replica.coordinator == name)

    async def record(self, step: str, change: Callable[[GroupDefinition], GroupDefinition]) -> None:
        """Change the group's definition, as a step."""
        await self._describe(step, change)
        self.done.append(step)

    async def finish(self) -> list[str]:
        """Have the definition follow the group's configuration, and return the steps done."""
        configuration = self.group.replica.state.configuration
        if configuration is not None and self.group.name != META:
            await self._describe("the definition follows", lambda known: follow(known, configuration))
        return self.done

    # --- what they are made of --------------------------------------------------------------------------------------

    async def _vacate(self, name: str, step: str) -> None:
        """Move the office away from a member that is about to lose its vote."""
        configuration = self.group.replica.state.configuration
        if self.group.replica.coordinator != name or configuration is None:
            return
        others = by_preference(self.group.id, tuple(other for other in configuration.nodes() if other != name))
        if not others:
            raise self._failed(step, "conflict", f"{name} is the only voter; add another one first, or drop the group")
        moved = f"the office has left {name}"
        await self._step(MOVE, others[0], moved, lambda: self.group.replica.coordinator not in {"", name}, *others[1:])

    async def _step(self, kind: str, argument: str, step: str, done: Callable[[], bool], *others: str) -> None:
        """Ask for one change until it is there, with ``others`` in turn; what passes by itself is waited for."""
        refusal = "the group has no coordinator"
        begin = time.monotonic()
        arguments = itertools.cycle((argument, *others))
        while not done():
            left = self.end - time.monotonic()
            if left <= 0:
                raise self._failed(step, "unknown_outcome", f"it did not happen in time (last heard: {refusal})")
            try:
                refusal = await self.group.changes.request(kind, next(arguments), min(ANSWER_SECONDS, left))
            except RequestError as error:
                refusal = error.message
            else:
                patient = time.monotonic() - begin < SETTLING_SECONDS and SETTLING in refusal
                if refusal and not patient and not passes(refusal):
                    raise self._failed(step, "conflict", refusal)
            for _ in range(10):
                if done():
                    break
                await asyncio.sleep(POLL_SECONDS)
        self.done.append(step)

    async def _describe(self, step: str, change: Callable[[GroupDefinition], GroupDefinition]) -> None:
        directory, name = self.node.directory, self.group.name
        while True:
            try:
                await directory.refresh()
                known = directory.definitions.get(name)
                if known is not None and known.id != self.group.id:
                    raise self._failed(step, "conflict", f"group {name!r} was dropped meanwhile")
                known = known or directory.definition(name)
                if known is None:
                    raise self._failed(step, "conflict", f"group {name!r} was dropped meanwhile")
                changed = change(known)
                if changed == known or await directory.put(group_key(name), changed.encode()):
                    return
                reason = "others change the definition at the same time"
            except RequestError as error:
                if error.kind.name == "conflict":
                    raise
                reason = error.message
            if time.monotonic() + POLL_SECONDS > self.end:
                raise self._failed(step, "unknown_outcome", f"{META} could not be written: {reason}")
            await asyncio.sleep(POLL_SECONDS)

    def _is_voter(self, name: str) -> bool:
        configuration = self.group.replica.state.configuration
        return configuration is not None and configuration.member(name) is not None

    def _is_mirror(self, name: str) -> bool:
        configuration = self.group.replica.state.configuration
        return configuration is not None and name in configuration.mirrors

    def _failed(self, step: str, kind: str, reason: str) -> RequestError:
        """Return the error that names the step, what is done, and what is not."""
        done = "; ".join(self.done) or "nothing"
        left = "; ".join([item for item in self.plan if item not in self.done] or [step])
        if self.done:
            kind = "unknown_outcome" if kind == "unknown_outcome" else "unfinished"
        return RequestError(
            kind, f"{reason}. Step that failed: {step}. Done: {done}. Not done: {left}. Run it again to continue"
        )


def with_mirror(definition: GroupDefinition, name: str) -> GroupDefinition:
    """Return the definition that names a node which is about to become a mirror, so that it opens the group."""
    if name in definition.nodes():
        return definition
    return replace(definition, mirrors=(*definition.mirrors, name))


def passes(refusal: str) -> bool:
    """Return whether the reason of a refusal goes away by itself."""
    return any(words in refusal for words in PASSING)
