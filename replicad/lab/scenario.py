"""Scenarios: commands to a small cluster in, a transcript out, in one text that a person can read.

A scenario begins with its title, one sentence. Then come lines that begin with ``>`` (commands, listed at
:class:`Scenario`) or ``#`` (remarks); everything indented below a command is what happened. :func:`play` runs the
commands and returns the text with everything indented made anew; a test compares it with the text that is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from replicad.core.model.configuration import PROTOCOLS
from replicad.core.model.limits import Limits
from replicad.core.model.operations import ACK_ALL, ACK_MAJORITY, ACK_ONE, APPLIED, DELETE, NO_CAS, PUT, REMOTE_WRITE
from replicad.lab.clients import Request
from replicad.lab.contact import Level, Outcome
from replicad.lab.mutations import MUTATIONS, mutated
from replicad.lab.stage import Stage
from replicad.lab.transcript import show_epoch

if TYPE_CHECKING:
    from replicad.lab.simulated_node import SimulatedNode

WAIT_US_MAX = 20_000_000
"""What a scenario waits for happens within this much virtual time."""
SETTLE_US = 5_000
"""After an answer, what the request set going still arrives."""
LIMITS = Limits(value_bytes_max=512, batch_bytes_max=2_048, page_bytes=16_384, checkpoint_slots=1_000)
"""The protocol's constants as they are by default, but for small segments."""
_ACKS = {"all": ACK_ALL, "majority": ACK_MAJORITY, "one": ACK_ONE}
_REQUESTS = ("put", "delete", "get")


class ScenarioError(Exception):
    """A scenario asks for something that does not exist, or that does not happen."""


def play(text: str) -> str:
    """Run a scenario and return its text as it ought to be; raises ScenarioError with the line's number."""
    lines = text.splitlines()
    if not lines or not lines[0].strip() or lines[0].startswith((">", "#", " ")):
        raise ScenarioError("line 1: a scenario begins with its title")
    scenario = Scenario()
    try:
        return _play(scenario, lines)
    finally:
        scenario.close()


def _play(scenario: Scenario, lines: list[str]) -> str:
    blocks: list[list[str]] = [[lines[0].rstrip()], []]
    for number, line in enumerate(lines[1:], 2):
        if line.startswith("#"):
            if any(kept.startswith((">", " ")) for kept in blocks[-1]):
                blocks.append([])
            blocks[-1].append(line.rstrip())
        elif line.startswith(">"):
            if any(kept.startswith(" ") for kept in blocks[-1]):
                blocks.append([])
            try:
                output = scenario.run(line[1:].split())
            except (ScenarioError, ValueError, KeyError) as error:
                raise ScenarioError(f"line {number}: {line}: {error}") from error
            blocks[-1] += [line.rstrip(), *output]
        elif line.strip() and not line.startswith(" "):
            raise ScenarioError(f"line {number}: begins with none of '>', '#' and a space")
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


class Scenario:
    """A cluster and the commands that lead it. Times are milliseconds; ``A>B`` is the link from A to B.

    * ``cluster [nodes=3] [founders=3] [protocol=active] [LIMIT=NUMBER …]``: first of all, and only if something differs
      from the defaults;
    * ``without MUTATION``: with one rule switched off from now on (a name of ``replicad.lab.mutations``);
    * ``form``: start the founders (all nodes unless ``cluster`` says otherwise), let them form a group, start them
      again, and wait until they are ready; tells nothing. ``n1`` is the coordinator then, because its voters all wait
      for the same moment and it stands first;
    * ``start NODE…``, ``kill NODE…`` (the process), ``power NODE…`` (the machine), ``wipe NODE`` (a dead node's data),
      ``corrupt NODE KEY`` (the value in its store), ``pause NODE``, ``resume NODE``, ``hang NODE MS`` (its flushes);
    * ``cut A>B…``, ``join A>B…``, ``lose MESSAGE A>B [COUNT]`` (the next ones of this kind);
    * ``put NODE KEY=VALUE [cas=N] [ack=all|majority|one]``, ``delete NODE KEY``, ``get NODE KEY [stale|consistent]``:
      send it and wait for the answer; with ``begin`` in front: send it, and let no time pass;
    * ``checkpoint NODE`` (ask for one there), ``leave NODE`` (SIGTERM: it hands over), ``drain NODE`` and
      ``undrain NODE`` (for maintenance);
    * ``change NODE KIND ARGUMENT``: ask there for a change of the group (``add n4``, ``protocol active``, see
      ``replicad.core.group.changes``) and wait for the answer; with ``begin`` in front: wait for nothing;
    * ``wait MS``, ``wait until ready`` (every running node serves reads and has applied everything), ``wait until NODE
      is ROLE``, ``wait until view NODE,NODE…``, ``wait until applied NODE SLOT``;
    * ``state`` (of every node), ``show MESSAGE…``, ``hide MESSAGE…``; ``quietly`` in front of a command: tell nothing.
    """

    def __init__(self) -> None:
        self._stage: Stage | None = None
        self._command_at = 0
        self._extra: list[str] = []
        self._switched_off = ExitStack()
        self._commands: dict[str, Callable[[list[str]], None]] = {
            "cluster": self._cluster,
            "form": self._form,
            "start": self._start,
            "kill": self._kill,
            "power": self._power,
            "wipe": self._wipe,
            "corrupt": self._corrupt,
            "pause": self._pause,
            "resume": self._resume,
            "hang": self._hang,
            "cut": self._cut,
            "join": self._join,
            "lose": self._lose,
            "begin": self._begin,
            "change": self._change,
            "checkpoint": self._checkpoint,
            "leave": self._leave,
            "drain": self._drain,
            "undrain": self._undrain,
            "wait": self._wait,
            "without": self._without,
            "state": self._state,
            "show": self._show,
            "hide": self._hide,
            **dict.fromkeys(_REQUESTS, self._nothing),
        }

    @property
    def stage(self) -> Stage:
        """The cluster; three nodes unless ``cluster`` said otherwise."""
        if self._stage is None:
            self._stage = Stage(3, LIMITS)
        return self._stage

    def run(self, words: list[str]) -> list[str]:
        """Carry out one command and return the lines that tell what happened."""
        if words[:1] == ["quietly"]:
            self.run(words[1:])
            return []
        if not words or words[0] not in self._commands:
            raise ScenarioError(f"there is no such command; there are {', '.join(self._commands)}")
        self._extra = []
        if words[0] == "cluster":
            self._cluster(words[1:])
            return []
        if words[0] == "form":
            self._form(words[1:])
            self.stage.chronicle.take(0)
            return []
        self._command_at = self.stage.queue.now
        if words[0] in _REQUESTS:
            self._request(words, patient=True)
        else:
            self._commands[words[0]](words[1:])
        return self.stage.chronicle.take(self._command_at) + self._extra

    def _nothing(self, _words: list[str]) -> None:
        """Requests go their own way."""

    # --- the cluster --------------------------------------------------------------------------------------------------

    def _cluster(self, words: list[str]) -> None:
        if self._stage is not None:
            raise ScenarioError("the cluster is there already")
        texts = {name: value for name, _, value in (word.partition("=") for word in words)}
        protocol = texts.pop("protocol", REMOTE_WRITE)
        if protocol not in PROTOCOLS:
            raise ScenarioError(f"there is no protocol {protocol}; there are {' and '.join(PROTOCOLS)}")
        options = {name: int(value) for name, value in texts.items()}
        nodes, founders = options.pop("nodes", 3), options.pop("founders", 0)
        try:
            self._stage = Stage(nodes, replace(LIMITS, **options), founders, protocol)
        except TypeError as error:
            raise ScenarioError(f"unknown limit among {', '.join(options)}") from error

    def _without(self, words: list[str]) -> None:
        (name,) = words
        if name not in MUTATIONS:
            raise ScenarioError(f"there is no mutation {name}")
        self._switched_off.enter_context(mutated(name))

    def close(self) -> None:
        """Switch on again what ``without`` switched off."""
        self._switched_off.close()

    def _node(self, name: str) -> SimulatedNode:
        if name not in self.stage.nodes:
            raise ScenarioError(f"there is no node {name}")
        return self.stage.nodes[name]

    def _start(self, words: list[str]) -> None:
        for name in words:
            self._node(name).start()

    def _form(self, _words: list[str]) -> None:
        everyone = list(self.stage.founders)
        self._start(everyone)
        self._until(lambda: all(self._role(name) == "follower" for name in everyone), "form")
        self.stage.run_for(SETTLE_US)
        self._kill(everyone)
        self._start(everyone)
        self._until(self._ready, "get ready")
        if self._role(everyone[0]) != "coordinator":
            raise ScenarioError("another node than the first one was elected:\n" + "\n".join(self._states()))

    def _kill(self, words: list[str]) -> None:
        for name in words:
            self._node(name).crash(power=False)

    def _power(self, words: list[str]) -> None:
        for name in words:
            self._node(name).crash(power=True)

    def _wipe(self, words: list[str]) -> None:
        for name in words:
            node = self._node(name)
            if node.process is not None:
                raise ScenarioError(f"{name} is running; kill it first")
            node.note("loses its whole data directory")
            node.wipe()

    def _corrupt(self, words: list[str]) -> None:
        name, key = words
        self._node(name)
        if not self.stage.stage_nodes[name].corrupt(key.encode()):
            raise ScenarioError(f"{name} holds no key {key}")
        self.stage.stage_judge.corrupted[name] = False
        self.stage.note(name, f"holds another value of {key} in its store than it wrote")

    def _pause(self, words: list[str]) -> None:
        for name in words:
            self.stage.pause(name)

    def _resume(self, words: list[str]) -> None:
        for name in words:
            self.stage.resume(name)

    def _hang(self, words: list[str]) -> None:
        name, duration = words
        self.stage.hang(name, int(duration) * 1_000)

    def _cut(self, words: list[str]) -> None:
        for source, target in map(self._link, words):
            self.stage.network.block(source, target)

    def _join(self, words: list[str]) -> None:
        for source, target in map(self._link, words):
            self.stage.network.unblock(source, target)

    def _lose(self, words: list[str]) -> None:
        self.stage.lose(words[0], *self._link(words[1]), int(words[2]) if len(words) > 2 else 1)

    def _link(self, word: str) -> tuple[str, str]:
        source, _, target = word.partition(">")
        return self._node(source).name, self._node(target).name

    def _checkpoint(self, words: list[str]) -> None:
        process = self._node(words[0]).process
        if process is not None:
            process.step(process.replica.request_checkpoint)

    def _change(self, words: list[str], *, patient: bool = True) -> None:
        name, kind, argument = words
        process = self._node(name).process
        if process is None:
            raise ScenarioError(f"{name} is down")
        self.stage.note(name, f"is asked for a change: {kind} {argument}")
        number = process.change(kind, argument)
        if patient:
            self._until(lambda: number in process.changes, "answer")
            refusal = process.changes[number]
            self.stage.note(name, f"answers: {'done' if refusal is None else refusal.sentence}")
            self.stage.run_for(SETTLE_US)

    def _leave(self, words: list[str]) -> None:
        process = self._node(words[0]).process
        if process is not None:
            self.stage.note(words[0], "is asked to leave")
            process.leave()
            self._until(lambda: process.replica.may_end, "hand over")

    def _drain(self, words: list[str]) -> None:
        process = self._node(words[0]).process
        if process is not None:
            process.drain(drained=True)
            self.stage.run_for(SETTLE_US)

    def _undrain(self, words: list[str]) -> None:
        process = self._node(words[0]).process
        if process is not None:
            process.drain(drained=False)
            self.stage.run_for(SETTLE_US)

    # --- clients ------------------------------------------------------------------------------------------------------

    def _begin(self, words: list[str]) -> None:
        if words[:1] == ["change"]:
            self._change(words[1:], patient=False)
            return
        if not words or words[0] not in _REQUESTS:
            raise ScenarioError(f"only change, {', '.join(_REQUESTS)} can begin")
        self._request(words, patient=False)

    def _request(self, words: list[str], *, patient: bool) -> None:
        name, request = self._node(words[1]).name, _parse_request(words)
        answers: list[Outcome] = []

        def answer(outcome: Outcome) -> None:
            answers.append(outcome)
            self.stage.note(name, f"answers the client: {_show_outcome(request, outcome)}")

        self.stage.note(name, f"is asked to {' '.join([words[0], *words[2:]])}")
        if request.is_read:
            sent = self.stage.request_read(name, request.key, request.level, answer)
        else:
            sent = self.stage.request_write(name, request, request.cas, b"", answer)
        if not sent:
            raise ScenarioError(f"{name} is down")
        if patient:
            self._until(lambda: bool(answers), "answer")
            self.stage.run_for(SETTLE_US)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _wait(self, words: list[str]) -> None:
        match words:
            case [duration]:
                self.stage.run_for(round(float(duration) * 1_000))
            case ["until", "ready"]:
                self._until(self._ready, "get ready")
            case ["until", name, "is", role]:
                self._until(lambda: self._role(name) == role, f"make {name} a {role}")
            case ["until", "view", view]:
                self._until(lambda: view.split(",") in self._views(), f"have the view {view}")
            case ["until", "applied", name, slot]:
                self._until(lambda: self._applied(name) >= int(slot), f"apply slot {slot} at {name}")
            case _:
                raise ScenarioError("wait for a number of milliseconds, or until something")

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        if not self.stage.run_while(lambda: not condition(), WAIT_US_MAX, 1_000):
            raise ScenarioError(f"the cluster did not {what} in time:\n" + "\n".join(self._states()))

    def _role(self, name: str) -> str:
        process = self._node(name).process
        return "down" if process is None else process.replica.role

    def _applied(self, name: str) -> int:
        process = self._node(name).process
        return -1 if process is None or not process.readable else process.applied_slot

    def _views(self) -> list[list[str]]:
        return [sorted(node.process.replica.view) for node in self.stage.nodes.values() if node.process is not None]

    def _ready(self) -> bool:
        for node in self.stage.nodes.values():
            process = node.process
            if process is None:
                continue
            if not process.readable or not process.replica.holds_lease(process.clock()):
                return False
            if process.applied_slot != self.stage.committed():
                return False
        return True

    # --- looking ------------------------------------------------------------------------------------------------------

    def _state(self, _words: list[str]) -> None:
        self._extra = self._states()

    def _states(self) -> list[str]:
        return [f"  {_show_node(node)}" for node in self.stage.nodes.values()]

    def _show(self, words: list[str]) -> None:
        self.stage.chronicle.hidden.difference_update(words)

    def _hide(self, words: list[str]) -> None:
        self.stage.chronicle.hidden.update(words)


def _parse_request(words: list[str]) -> Request:
    """Return the request in e.g. ``put n2 color=blue cas=0``."""
    verb, _, what, *options = words
    key, _, value = what.partition("=")
    request = Request("client", key.encode())
    if verb == "get":
        request.level = Level[(options or ["linearizable"])[0].upper()]
        return request
    request.code = PUT if verb == "put" else DELETE
    request.value = value.encode()
    known = dict(option.split("=") for option in options)
    request.cas = int(known.get("cas", NO_CAS))
    request.ack = _ACKS[known.get("ack", "all")]
    return request


def _show_outcome(request: Request, outcome: Outcome) -> str:
    if outcome.error:
        return f"{outcome.error} ({'nothing happened' if outcome.definite else 'nobody knows what happened'})"
    if request.is_read:
        return "absent" if outcome.entry is None else outcome.entry.value.decode()
    if outcome.result is None:
        return "acknowledged"
    return f"{'done' if outcome.result.status == APPLIED else 'refused'}, index {outcome.result.index}"


def _show_node(node: SimulatedNode) -> str:
    process = node.process
    if process is None:
        return f"{node.name} down"
    replica = process.replica
    parts = [f"{node.name} {replica.role}"]
    if replica.epoch:
        of = f" of {replica.coordinator}" if replica.coordinator and replica.coordinator != node.name else ""
        parts.append(f"epoch {show_epoch(replica.epoch)}{of}")
    parts.append(f"committed {replica.committed}")
    parts.append(f"applied {process.applied_slot}")
    if replica.view:
        parts.append(f"view {','.join(sorted(replica.view))}")
    parts.append("may read" if process.readable and replica.holds_lease(process.clock()) else "may not read")
    parts += [obstacle.sentence for obstacle in replica.membership.obstacles()]
    return ", ".join(parts)
