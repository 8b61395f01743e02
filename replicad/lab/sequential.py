"""Is a history sequentially consistent (Lamport 1979)? Is there one order of all operations, over all keys, that
explains every answer and keeps each client's own order? Real time between clients does not count.

Unlike linearizability this is not local: every key by itself may be fine and the whole not. So all keys are judged
together, which is NP-hard (Gibbons and Korach), in two ways:

* :func:`check` knows only the history. First it derives what any order must contain: each client's order; a write
  before its readers (values that only one operation writes name their writer); and, for another write of the same key,
  that it precedes the write if it precedes the reader, and follows the reader if it follows the write. A cycle among
  these is proof that there is no order, found in polynomial time. Without a cycle, a search with memoisation
  (configuration: operations taken, values of all keys) tries to find an order within a budget; it may end UNKNOWN.
* :func:`check_ordered` also knows the *index* of each write, its place in the order in which the server carried writes
  out. Then only the reads must be placed, which takes a single pass, for histories of any size. It is the stricter
  question: another order of the writes is no excuse.

A client's own order has A before B if A returned strictly before B was called; a client that sends several requests at
once leaves them unordered. An operation whose outcome is unknown may take effect at any time after what its client had
finished before it, also after later operations of that client, or never.

Compare-and-set is modelled by value, as in ``linearizability``: a failure proves something only if at most one
operation wrote the expected value. Values written more than once cost sharpness and time, never a false alarm.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, assert_never

from replicad.lab.history import Cas, Delete, Get, Key, Operation, Put, Value
from replicad.lab.linearizability import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

STEPS_MAX = 200_000
"""Default budget of the search, in operations tried."""
ROUNDS_MAX = 100
"""How often edges are derived from edges; giving up earlier only leaves more to the search."""

_SHOWN_MAX = 12


class _Any:
    """No particular value."""


_ANY = _Any()


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict, what the search cost, and against a history: why, and the operations that show it."""

    verdict: Verdict
    steps: int = 0
    reason: str = ""
    evidence: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.verdict.value} after {self.steps} steps" + (f": {self.reason}" if self.reason else "")]
        lines += ["  ..."] if len(self.evidence) > _SHOWN_MAX else []
        lines += [f"  key {operation.key!r} {operation}" for operation in self.evidence[-_SHOWN_MAX:]]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Rule:
    """An operation as it is judged; ``_ANY`` stands for "no matter". None is the value of an absent key."""

    operation: Operation
    certain: bool
    requires: Value | _Any | None = _ANY
    forbids: Value | _Any | None = _ANY
    writes: Value | _Any | None = _ANY

    @property
    def key(self) -> Key:
        return self.operation.key

    def allows(self, value: Value | None) -> bool:
        if self.forbids is not _ANY and self.forbids == value:
            return False
        return self.requires is _ANY or self.requires == value

    def sees(self, write: _Rule) -> bool:
        """Say whether this operation can depend on the value that ``write`` leaves."""
        if self is write or self.key != write.key:
            return False
        if self.requires is not _ANY and self.requires == write.writes:
            return True
        return self.forbids is not _ANY and self.forbids != write.writes


def _compile(history: Iterable[Operation]) -> list[_Rule]:
    """Translate a history, sorted by call; what can't be told from its absence is left out."""
    operations = sorted(history, key=lambda operation: operation.call)
    for operation in operations:
        reason = operation.invalid()
        if reason is not None:
            raise ValueError(f"{operation}: {reason}")
    written = Counter((operation.key, _written(operation)) for operation in operations if _may_write(operation))
    rules = []
    for operation in operations:
        rule = _Rule(operation, certain=operation.returned is not None)
        match operation.action:
            case Get():
                rule = replace(rule, requires=operation.result)
            case Put(value):
                rule = replace(rule, writes=value)
            case Delete():
                rule = replace(rule, writes=None)
            case Cas(expected, new):
                if not rule.certain or operation.result is True:
                    rule = replace(rule, requires=expected, writes=_ANY if expected == new else new)
                elif expected is None or written[operation.key, expected] <= 1:
                    rule = replace(rule, forbids=expected)
                else:
                    continue
            case _:
                assert_never(operation.action)
        if rule.certain or rule.writes is not _ANY:
            rules.append(rule)
    return rules


def _may_write(operation: Operation) -> bool:
    if isinstance(operation.action, Cas):
        return operation.returned is None or operation.result is True
    return not isinstance(operation.action, Get)


def _written(operation: Operation) -> Value | None:
    match operation.action:
        case Put(value) | Cas(_, value):
            return value
        case Get() | Delete():
            return None
        case _:
            assert_never(operation.action)


# --- with the history alone -------------------------------------------------------------------------------------------


def check(history: Iterable[Operation], *, steps_max: int = STEPS_MAX) -> Report:
    """Judge a history over all its keys, which start absent; ``steps_max`` 0: only what needs no search."""
    rules = _compile(history)
    graph = _Graph(rules)
    if graph.orphan is not None:
        return Report(Verdict.ILLEGAL, 0, "nobody wrote what this operation saw", (graph.orphan.operation,))
    cycle = graph.close()
    if cycle:
        evidence = tuple(rules[i].operation for i in cycle)
        return Report(
            Verdict.ILLEGAL, 0, "each of these must come before the next, and the last before the first", evidence
        )
    return _Search(rules, graph).run(steps_max)


class _Graph:
    """What must precede what. Operations are numbered; a set of them is an integer with a bit for each."""

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self.rules = rules
        self.orphan: _Rule | None = None
        """An operation that saw a value that nobody wrote."""
        self.must = sum(1 << i for i, rule in enumerate(rules) if rule.certain)
        """What took effect: what returned, and what somebody has seen."""
        self.readers: dict[int, int] = {}
        """Writer of a value that nobody else wrote -> everybody who saw it; -1: nobody, the key was absent."""
        self.before = [0] * len(rules)
        self._writers: dict[Key, list[int]] = {}
        self._read_from: list[tuple[int, int]] = []
        self._program_order()
        self._find_sources()

    def _program_order(self) -> None:
        by_client: dict[object, list[int]] = {}
        for i, rule in enumerate(self.rules):
            by_client.setdefault(rule.operation.client, []).append(i)
        for numbers in by_client.values():
            returned: list[tuple[int, int]] = []
            finished = 0
            for i in numbers:
                operation = self.rules[i].operation
                while returned and returned[0][0] < operation.call:
                    finished |= 1 << heappop(returned)[1]
                self.before[i] |= finished
                if operation.returned is not None:
                    heappush(returned, (operation.returned, i))

    def _find_sources(self) -> None:
        """Find who must have read from whom; that a write was seen may show that another one was."""
        writers: dict[tuple[Key, Value | None], list[int]] = {}
        for i, rule in enumerate(self.rules):
            if not isinstance(rule.writes, _Any):
                writers.setdefault((rule.key, rule.writes), []).append(i)
        waiting = list(_bits(self.must))
        while waiting:
            i = waiting.pop()
            rule = self.rules[i]
            if not isinstance(rule.writes, _Any):
                self._writers.setdefault(rule.key, []).append(i)
            if isinstance(rule.requires, _Any):
                continue
            sources = writers.get((rule.key, rule.requires), [])
            if rule.requires is None:
                source = -1
                if sources:
                    continue
            elif not sources:
                self.orphan = rule
                return
            elif len(sources) > 1:
                continue
            else:
                source = sources[0]
                if not self.must >> source & 1:
                    self.must |= 1 << source
                    waiting.append(source)
            self._read_from.append((source, i))
            if source >= 0:
                self.before[i] |= 1 << source
                self.readers[source] = self.readers.get(source, 0) | 1 << i

    def close(self) -> list[int]:
        """Derive edges until there are no more; returns a cycle if there is one."""
        before = self.before
        for source, reader in self._read_from:
            if source < 0:
                for other in self._writers.get(self.rules[reader].key, ()):
                    if other != reader:
                        before[other] |= 1 << reader
        for _ in range(ROUNDS_MAX):
            cycle = self._spread()
            if cycle:
                return cycle
            changed = False
            for source, reader in self._read_from:
                if source < 0:
                    continue
                for other in self._writers[self.rules[reader].key]:
                    if other in (source, reader):
                        continue
                    if before[reader] >> other & 1 and not before[source] >> other & 1:
                        before[source] |= 1 << other
                        changed = True
                    if before[other] >> source & 1 and not before[other] >> reader & 1:
                        before[other] |= 1 << reader
                        changed = True
            if not changed:
                break
        return []

    def _spread(self) -> list[int]:
        """Make ``before`` transitive, or return a cycle."""
        done = 0
        left = set(range(len(self.rules)))
        while left:
            ready = [i for i in sorted(left) if not self.before[i] & ~done]
            if not ready:
                return self._cycle(min(left), done)
            for i in ready:
                for j in _bits(self.before[i]):
                    self.before[i] |= self.before[j]
                done |= 1 << i
                left.discard(i)
        return []

    def _cycle(self, start: int, done: int) -> list[int]:
        """Walk backwards among operations that all wait for another one of them, until one comes again."""
        path = [start]
        while True:
            last = next(_bits(self.before[path[-1]] & ~done))
            if last in path:
                return path[path.index(last) :][::-1]
            path.append(last)


class _Search:
    """Looks for an order: depth first, entering each configuration once."""

    def __init__(self, rules: Sequence[_Rule], graph: _Graph) -> None:
        self._rules = rules
        self._must = graph.must
        self._before = graph.before
        self._readers = graph.readers
        keys = {key: number for number, key in enumerate(dict.fromkeys(rule.key for rule in rules))}
        self._key = [keys[rule.key] for rule in rules]
        self._absent: tuple[Value | None, ...] = (None,) * len(keys)
        self._steps = 0

    def run(self, steps_max: int) -> Report:
        """Search until a verdict or until the budget is spent."""
        taken, order = self._observe(0, self._absent)
        longest = order
        stack = [(taken, self._absent, order, self._choices(taken, self._absent))]
        entered = {(taken, self._absent)}
        while stack:
            taken, state, order, choices = stack[-1]
            if not self._must & ~taken:
                return Report(Verdict.OK, self._steps)
            if self._steps >= steps_max:
                return Report(Verdict.UNKNOWN, self._steps, "the budget ran out")
            i = next(choices, -1)
            if i < 0:
                stack.pop()
                continue
            self._steps += 1
            key = self._key[i]
            state = (*state[:key], self._rules[i].writes, *state[key + 1 :])
            seen, observers = self._observe(taken | 1 << i, state)
            if (seen, state) in entered:
                continue
            entered.add((seen, state))
            order = (*order, i, *observers)
            longest = max(longest, order, key=len)
            stack.append((seen, state, order, self._choices(seen, state)))
        evidence = tuple(self._rules[i].operation for i in longest)
        return Report(Verdict.ILLEGAL, self._steps, "no order goes on after this one, the longest found", evidence)

    def _ready(self, taken: int) -> Iterator[int]:
        return (i for i in _bits(~taken & (1 << len(self._rules)) - 1) if not self._before[i] & ~taken)

    def _observe(self, taken: int, state: tuple[Value | None, ...]) -> tuple[int, tuple[int, ...]]:
        """Take every operation that leaves the state alone and that it suits: delaying it never opens a way."""
        order: list[int] = []
        found = True
        while found:
            found = False
            for i in self._ready(taken):
                rule = self._rules[i]
                if rule.writes is _ANY and rule.allows(state[self._key[i]]):
                    taken |= 1 << i
                    order.append(i)
                    self._steps += 1
                    found = True
        return taken, tuple(order)

    def _choices(self, taken: int, state: tuple[Value | None, ...]) -> Iterator[int]:
        """Return the writes that may come next: none that takes a value away from those who have yet to see it."""
        rules = self._rules
        unseen = {
            (rules[i].key, rules[i].writes): self._readers[i] & ~taken for i in _bits(taken) if i in self._readers
        }
        ready = list(self._ready(taken))
        for i in ready:
            rule = rules[i]
            current = state[self._key[i]]
            if rule.writes is _ANY or not rule.allows(current) or unseen.get((rule.key, current), 0) & ~(1 << i):
                continue
            # What nobody in line can see might as well come later, or never.
            if self._must >> i & 1 or (rule.writes != current and any(rules[j].sees(rule) for j in ready)):
                yield i


def _bits(number: int) -> Iterator[int]:
    """Return the positions of the ones, lowest first."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


# --- with the order of writes -----------------------------------------------------------------------------------------


def check_ordered(history: Iterable[Operation], order: Mapping[Operation, int]) -> Report:
    """Judge whether the writes, carried out in the order of their indexes, explain every answer.

    ``order`` gives the index (above 0) of every write that took effect; a write of unknown outcome that is not in it
    never did. Writes of other clients than those in the history belong in both.
    """
    rules = _compile(history)
    timelines = _timelines(rules, order)
    by_client: dict[object, list[_Rule]] = {}
    for rule in rules:
        by_client.setdefault(rule.operation.client, []).append(rule)
    for own in by_client.values():
        report = _place(own, order, timelines)
        if report.verdict is not Verdict.OK:
            return report
    return Report(Verdict.OK)


class _Timeline:
    """The values of one key: ``values[i]`` from ``starts[i]`` on, until the next one starts."""

    def __init__(self) -> None:
        self.starts = [0]
        self.values: list[Value | None] = [None]

    def at(self, index: int) -> Value | None:
        return self.values[bisect_right(self.starts, index) - 1]

    def first(self, rule: _Rule, floor: int) -> int | None:
        """Return the first index, not below ``floor``, at which the operation fits."""
        for i in range(bisect_right(self.starts, floor) - 1, len(self.starts)):
            if rule.allows(self.values[i]):
                return max(floor, self.starts[i])
        return None


def _timelines(rules: Sequence[_Rule], order: Mapping[Operation, int]) -> dict[Key, _Timeline]:
    timelines: dict[Key, _Timeline] = {rule.key: _Timeline() for rule in rules}
    writes = []
    taken: dict[int, Operation] = {}
    for rule in rules:
        if rule.writes is _ANY:
            continue
        index = order.get(rule.operation)
        if index is None and rule.certain:
            raise ValueError(f"{rule.operation}: it took effect, and the order gives it no index")
        if index is not None:
            if index < 1 or index in taken:
                raise ValueError(f"{rule.operation}: the index {index} is below 1 or that of another write")
            taken[index] = rule.operation
            writes.append((index, rule))
    for index, rule in sorted(writes, key=lambda write: write[0]):
        timeline = timelines[rule.key]
        timeline.starts.append(index)
        timeline.values.append(rule.writes)
    return timelines


def _place(own: Sequence[_Rule], order: Mapping[Operation, int], timelines: Mapping[Key, _Timeline]) -> Report:
    """Give each operation of one client the first place that its own order allows; that never hinders a later one."""
    placed: list[tuple[int, int, int]] = []
    floor, last = 0, -1
    for number, rule in enumerate(own):
        operation = rule.operation
        while placed and placed[0][0] < operation.call:
            _, place, who = heappop(placed)
            if place > floor:
                floor, last = place, who
        timeline = timelines[rule.key]
        evidence = (*((own[last].operation,) if last >= 0 else ()), operation)
        if rule.writes is not _ANY:
            index = order.get(operation)
            if index is None:
                continue
            if index <= floor:
                reason = f"the write has index {index}, but what its client did before is not before {floor}"
                return Report(Verdict.ILLEGAL, 0, reason, evidence)
            if not rule.allows(timeline.at(index - 1)):
                return Report(Verdict.ILLEGAL, 0, f"before index {index} the key had another value", (operation,))
            found: int | None = index
        else:
            found = timeline.first(rule, floor)
        if found is None:
            reason = f"no state from index {floor} on, up to which its client had got, gives this answer"
            return Report(Verdict.ILLEGAL, 0, reason, evidence)
        if operation.returned is not None:
            heappush(placed, (operation.returned, found, number))
    return Report(Verdict.OK)
