"""Steps that change one group, each through its log, until a deadline.

Each step asks first whether it is done already, so a change that was cut short is continued by running it again. Every
one is bounded, and its failure names the step.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from replicad.core.cluster.catalog import follow
from replicad.core.cluster.definitions import META, GroupDefinition, by_preference, group_key
from replicad.core.model.change_kinds import ADD, DEMOTE, MOVE, PROMOTE, PROTOCOL, REMOVE
from replicad.core.model.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.node.group_runtime import GroupRuntime
    from replicad.node.runtime import NodeRuntime

POLL_SECONDS = 0.05
ANSWER_SECONDS = 10.0
"""How long one step waits for the coordinator's answer before it looks at the configuration again."""
SUCCESSOR_SECONDS = 15.0
"""So long the only voter of ``_meta`` waits for another one (``node/voters.py``) before it may not leave."""
SETTLING_SECONDS = 3.0
"""So long a majority that seems to be lost may only be a voter that has just been made one."""


class Task:
    """Some steps on one group, until a deadline."""

    def __init__(self, node: NodeRuntime, group: GroupRuntime, seconds: float) -> None:
        self.node = node
        self.group = group
        self.end = time.monotonic() + seconds
        self.plan: list[str] = []
        self.done: list[str] = []
        self.hint = "Run it again to continue"

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
            raise self._failed(step, "conflict", f"{name} is no mirror of it: add it first", final=True)
        await self._step(PROMOTE, name, step, lambda: self._is_voter(name))

    async def demote(self, name: str) -> None:
        """Make a voter a mirror."""
        step = f"{name} is a mirror"
        if not self._is_voter(name) and not self._is_mirror(name):
            raise self._failed(step, "conflict", f"{name} is no member of it", final=True)
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

    async def retire(self, name: str) -> None:
        """Have a node that leaves the cluster not vote on this group, ``_meta``, any more; it is a mirror then."""
        step = f"{name} does not vote on {META}"
        if not self._is_voter(name):
            return
        patience = min(self.end, time.monotonic() + SUCCESSOR_SECONDS)
        while self._voters() == (name,):
            if time.monotonic() + POLL_SECONDS > patience:
                why = (
                    f"{name} is the only voter of {META}, and no other node takes its place: one must run and follow it"
                )
                raise self._failed(step, "conflict", why)
            await asyncio.sleep(POLL_SECONDS)
        await self._vacate(name, step)
        await self._step(DEMOTE, name, step, lambda: not self._is_voter(name))

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
            raise self._failed(step, "conflict", f"{name} is no voting member of it", final=True)
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
            why = f"{name} is the only voter; add another one first, or drop the group"
            raise self._failed(step, "conflict", why, final=True)
        moved = f"the office has left {name}"
        await self._step(MOVE, others[0], moved, lambda: self.group.replica.coordinator not in {"", name}, *others[1:])

    async def _step(self, kind: str, argument: str, step: str, done: Callable[[], bool], *others: str) -> None:
        """Ask for one change until it is there, with ``others`` in turn; what passes by itself is waited for."""
        heard = "the group has no coordinator"
        begin = time.monotonic()
        arguments = itertools.cycle((argument, *others))
        while not done():
            left = self.end - time.monotonic()
            if left <= 0:
                raise self._failed(step, "unknown_outcome", f"it did not happen in time (last heard: {heard})")
            try:
                refusal = await self.group.change(kind, next(arguments), min(ANSWER_SECONDS, left))
            except RequestError as error:
                heard = error.message
            else:
                if refusal is not None:
                    heard = refusal.sentence
                    patient = refusal.settles and time.monotonic() - begin < SETTLING_SECONDS
                    if not patient and not refusal.passes:
                        raise self._failed(step, "conflict", heard, final=refusal.final)
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
                    raise self._failed(step, "conflict", "it was dropped meanwhile", final=True)
                known = known or directory.definition(name)
                if known is None:
                    raise self._failed(step, "conflict", "it was dropped meanwhile", final=True)
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

    def _voters(self) -> tuple[str, ...]:
        configuration = self.group.replica.state.configuration
        return configuration.nodes() if configuration is not None else ()

    def _is_voter(self, name: str) -> bool:
        configuration = self.group.replica.state.configuration
        return configuration is not None and configuration.member(name) is not None

    def _is_mirror(self, name: str) -> bool:
        configuration = self.group.replica.state.configuration
        return configuration is not None and name in configuration.mirrors

    def _failed(self, step: str, kind: str, reason: str, *, final: bool = False) -> RequestError:
        """Return the error that names the step, what is done, and what is not; ``final``: repeating it is no use."""
        done = "; ".join(self.done) or "nothing"
        left = "; ".join([item for item in self.plan if item not in self.done] or [step])
        if self.done:
            kind = "unknown_outcome" if kind == "unknown_outcome" else "unfinished"
        sentence = f"group {self.group.name}: {reason}. Step that failed: {step}. Done: {done}. Not done: {left}"
        return RequestError(kind, sentence if final else f"{sentence}. {self.hint}")


def with_mirror(definition: GroupDefinition, name: str) -> GroupDefinition:
    """Return the definition that names a node which is about to become a mirror, so that it opens the group."""
    if name in definition.nodes():
        return definition
    return replace(definition, mirrors=(*definition.mirrors, name))
