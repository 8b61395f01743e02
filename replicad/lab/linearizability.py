"""Is a history linearizable? Could one copy of each key, serving one operation at a time, have given these answers?

Linearizability is local (Herlihy and Wing), so each key is judged alone. The search is Wing and Gong's with Lowe's
memoisation: events in a doubly linked list; take any operation called before the first return, apply it to the state,
lift it out, go on; a return that comes first in the list means that its operation can't be placed, so go back. A
configuration (set of operations taken, state) is entered once. An indefinite operation has a call and no return: it may
be taken at any time, or never.

Five cuts keep it fast. None of them changes a verdict:

* An operation that leaves the state alone (a get, a failed cas) is taken at once when the state suits it: delaying it
  never opens a way.
* An indefinite write is taken only while an operation that can see it is ready to be taken next. If the next operation
  does not look at the state, the write might as well have come later, or never.
* Indefinite writes that nobody can ever see are dropped at the start.
* Values that nobody reads or expects are one value.
* Of equal indefinite writes, the one called first is taken first.

Compare-and-set is modelled by value. A success demands that the current value *is* the expected one. A failure demands
that it is *not*, but only if at most one operation of the history writes that value: else the value may have
come back under a new modify index, and the failure proves nothing. So repeated values cost sharpness, never a false
alarm; clients that write unique values get the full check. That a rewrite of an identical value keeps the modify index
fits both rules. Indexes themselves are not judged here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, assert_never

from replicad.lab.history import Cas, Delete, Get, Key, Operation, Put, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STEPS_MAX = 200_000
"""Default budget per key, in operations tried: far above need, and about a second of work."""

_SHOWN_MAX = 12
_MINIMIZE_STEPS_MAX = 20_000

_ANY = -1
_ABSENT = 0
_UNSEEN = 1
_FIRST_VALUE = 2


class Verdict(Enum):
    """The answer. UNKNOWN is not OK: the budget ran out before an answer was found."""

    OK = "ok"
    ILLEGAL = "illegal"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Why one key's history is illegal."""

    key: Key
    stuck: Operation
    """The first operation, by return, that no order could place in time."""
    prefix: tuple[Operation, ...]
    """The longest order found up to there."""
    value: Value | None
    """The key's value after `prefix`; None if absent."""
    core: tuple[Operation, ...]
    """A small part of the history that is illegal by itself; what returned after `stuck` counts as indefinite here."""

    def __str__(self) -> str:
        lines = [f"key {self.key!r}: this operation fits nowhere:", f"  {self.stuck}"]
        lines.append(f"the longest order found ({len(self.prefix)} operations) leaves the value {self.value!r}:")
        if len(self.prefix) > _SHOWN_MAX:
            lines.append("  ...")
        lines.extend(f"  {operation}" for operation in self.prefix[-_SHOWN_MAX:])
        lines.append(f"these {len(self.core)} operations contradict each other without the rest:")
        lines.extend(f"  {operation}" for operation in self.core)
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on a whole history, what it cost, and the evidence against it."""

    verdict: Verdict
    steps: int
    counterexample: Counterexample | None = None
    undecided: tuple[Key, ...] = ()
    """Keys whose budget ran out."""

    def __str__(self) -> str:
        if self.counterexample is not None:
            return f"{self.verdict.value}: {self.counterexample}"
        undecided = "".join(f" {key!r}" for key in self.undecided)
        return f"{self.verdict.value} after {self.steps} steps" + (f", undecided keys:{undecided}" if undecided else "")


def check(history: Iterable[Operation], *, steps_max: int = STEPS_MAX) -> Report:
    """Judge a history; every key starts absent and may cost `steps_max` steps. The first illegal key ends the check."""
    by_key: dict[Key, list[Operation]] = {}
    for operation in history:
        reason = operation.invalid()
        if reason is not None:
            message = f"{operation}: {reason}"
            raise ValueError(message)
        by_key.setdefault(operation.key, []).append(operation)
    steps = 0
    undecided: list[Key] = []
    for key, operations in by_key.items():
        rules = _compile(operations)
        search = _Search(rules)
        verdict = search.run(steps_max)
        steps += search.steps
        if verdict is Verdict.ILLEGAL:
            return Report(verdict, steps, _counterexample(key, rules, search))
        if verdict is Verdict.UNKNOWN:
            undecided.append(key)
    return Report(Verdict.UNKNOWN if undecided else Verdict.OK, steps, None, tuple(undecided))


@dataclass(frozen=True, slots=True)
class _Rule:
    """An operation as the search sees it: values are small integers, each field may be `_ANY` for "no matter"."""

    operation: Operation
    call: int
    returned: int | None
    requires: int = _ANY
    forbids: int = _ANY
    writes: int = _ANY

    def allows(self, state: int) -> bool:
        return self.requires in (_ANY, state) and self.forbids != state

    def sees(self, write: _Rule) -> bool:
        """Say whether this operation can depend on the state that `write` leaves."""
        if self is write or (self.returned is not None and self.returned < write.call):
            return False
        return self.requires == write.writes or self.forbids not in (_ANY, write.writes)


def _compile(operations: Sequence[Operation]) -> list[_Rule]:
    """Translate one key's operations and sort them by call."""
    numbers: dict[Value | None, int] = {None: _ABSENT}
    written = Counter(_written(operation) for operation in operations if _may_write(operation))

    def number(value: Value | None) -> int:
        return numbers.setdefault(value, len(numbers) - 1 + _FIRST_VALUE)

    rules = []
    for operation in sorted(operations, key=lambda operation: operation.call):
        rule = _Rule(operation, operation.call, operation.returned)
        match operation.action:
            case Get():
                if rule.returned is None:
                    continue
                rule = replace(rule, requires=number(operation.result))
            case Put(value):
                rule = replace(rule, writes=number(value))
            case Delete():
                rule = replace(rule, writes=_ABSENT)
            case Cas(expected, new):
                if rule.returned is None or operation.result is True:
                    rule = replace(rule, requires=number(expected), writes=_ANY if expected == new else number(new))
                elif expected is None or written[expected] <= 1:
                    rule = replace(rule, forbids=number(expected))
                else:
                    continue
            case _:
                assert_never(operation.action)
        rules.append(rule)
    return rules


def _may_write(operation: Operation) -> bool:
    action = operation.action
    if isinstance(action, Cas):
        return operation.returned is None or operation.result is True
    return not isinstance(action, Get)


def _written(operation: Operation) -> Value | None:
    match operation.action:
        case Put(value) | Cas(_, value):
            return value
        case Get() | Delete():
            return None
        case _:
            assert_never(operation.action)


def _prune(rules: list[_Rule]) -> list[_Rule]:
    """Drop indefinite operations that nobody can see, until none is left; merge the values that nobody looks at."""
    kept = rules
    while True:
        needed = [r for r in kept if r.returned is not None or (r.writes != _ANY and any(o.sees(r) for o in kept))]
        if len(needed) == len(kept):
            break
        kept = needed
    looked_at = {_ANY, _ABSENT} | {rule.requires for rule in kept} | {rule.forbids for rule in kept}
    return [rule if rule.writes in looked_at else replace(rule, writes=_UNSEEN) for rule in kept]


class _Search:
    """One run over one key. Operations are numbered by call; a set of them is an integer with a bit for each."""

    def __init__(self, rules: list[_Rule]) -> None:
        self.rules = _prune(rules)
        self.steps = 0
        self.state = _ABSENT
        self.taken = 0
        self.stack: list[tuple[int, int, bool]] = []
        """Operation taken, the state before it, and whether it was taken without alternative."""
        self.stuck: _Rule | None = None
        self.prefix: tuple[Operation, ...] = ()
        self._deepest = (0, 0)
        self._entered: set[tuple[int, int]] = set()
        self._link()
        self._seen_by = [0] * len(self.rules)
        self._earlier_twin: list[int | None] = [None] * len(self.rules)
        kinds: dict[tuple[int, int], int] = {}
        for i, rule in enumerate(self.rules):
            if rule.returned is None:
                self._seen_by[i] = sum(1 << j for j, other in enumerate(self.rules) if other.sees(rule))
                self._earlier_twin[i] = kinds.get((rule.requires, rule.writes))
                kinds[rule.requires, rule.writes] = i

    def _link(self) -> None:
        """Build the events: position 0 is the head, the last position the end; at equal times calls go first."""
        calls = [(rule.call, 0, i) for i, rule in enumerate(self.rules)]
        returns = [(rule.returned, 1, i) for i, rule in enumerate(self.rules) if rule.returned is not None]
        events = sorted(calls + returns)
        self._end = len(events) + 1
        self._next = list(range(1, self._end + 1))
        self._previous = list(range(-1, self._end))
        self._operation = [-1, *(i for _, _, i in events)]
        self._is_return = [False, *(kind == 1 for _, kind, _ in events)]
        self._call_at = [0] * len(self.rules)
        self._return_at = [0] * len(self.rules)
        for position, (_, kind, i) in enumerate(events, start=1):
            (self._return_at if kind else self._call_at)[i] = position

    def run(self, steps_max: int) -> Verdict:
        """Search until a verdict or until the budget is spent."""
        after = 0
        while True:
            ready: list[int] = []
            position = self._next[0]
            while position != self._end and not self._is_return[position]:
                ready.append(self._operation[position])
                position = self._next[position]
            if position == self._end:
                return Verdict.OK
            if self.steps >= steps_max:
                return Verdict.UNKNOWN
            if (after == 0 and self._take_observer(ready)) or self._take_writer(ready, after):
                after = 0
                continue
            self._note_dead_end(position)
            after = self._go_back()
            if after == 0:
                return Verdict.ILLEGAL

    def _take_observer(self, ready: list[int]) -> bool:
        for i in ready:
            rule = self.rules[i]
            if rule.writes == _ANY and rule.allows(self.state):
                self.steps += 1
                self._take(i, self.state, forced=True)
                return True
        return False

    def _take_writer(self, ready: list[int], after: int) -> bool:
        """Take the first writer called after position `after` that leads to a configuration not yet entered."""
        for i in ready:
            rule = self.rules[i]
            if self._call_at[i] <= after or rule.writes == _ANY or not rule.allows(self.state):
                continue
            if rule.returned is None and not self._worth_taking(i, ready):
                continue
            self.steps += 1
            configuration = (self.taken | 1 << i, rule.writes)
            if configuration not in self._entered:
                self._entered.add(configuration)
                self._take(i, rule.writes, forced=False)
                return True
        return False

    def _worth_taking(self, i: int, ready: list[int]) -> bool:
        """Say whether an indefinite write could be seen right now, and is the first of its kind."""
        twin = self._earlier_twin[i]
        if self.rules[i].writes == self.state or (twin is not None and not self.taken >> twin & 1):
            return False
        return any(self._seen_by[i] >> j & 1 for j in ready)

    def _take(self, i: int, state: int, *, forced: bool) -> None:
        self.stack.append((i, self.state, forced))
        self.state = state
        self.taken |= 1 << i
        for position in (self._call_at[i], self._return_at[i]):
            if position:
                self._next[self._previous[position]] = self._next[position]
                self._previous[self._next[position]] = self._previous[position]

    def _go_back(self) -> int:
        """Undo up to the last choice and return the position of its call; 0 if there is none left."""
        while self.stack:
            i, self.state, forced = self.stack.pop()
            self.taken ^= 1 << i
            for position in (self._return_at[i], self._call_at[i]):
                if position:
                    self._next[self._previous[position]] = position
                    self._previous[self._next[position]] = position
            if not forced:
                return self._call_at[i]
        return 0

    def _note_dead_end(self, position: int) -> None:
        """Remember the dead end that got furthest: all of the history up to its return is needed to be illegal."""
        depth = (position, len(self.stack))
        if depth > self._deepest:
            self._deepest = depth
            self.stuck = self.rules[self._operation[position]]
            self.prefix = tuple(self.rules[i].operation for i, _, _ in self.stack)


def _counterexample(key: Key, rules: list[_Rule], search: _Search) -> Counterexample:
    stuck = search.stuck
    if stuck is None or stuck.returned is None:
        message = "an illegal history has an operation that returned and could not be placed"
        raise AssertionError(message)
    core = _minimize(_cut(rules, stuck.returned))
    operations = tuple(replace(rule.operation, returned=rule.returned) for rule in core)
    value = next((_written(operation) for operation in reversed(search.prefix) if _may_write(operation)), None)
    return Counterexample(key, stuck.operation, search.prefix, value, operations)


def _cut(rules: list[_Rule], end: int) -> list[_Rule]:
    """Forget what happened after `end`: no order got past it, so what came before is illegal already."""
    cut = []
    for rule in rules:
        if rule.returned is not None and rule.returned <= end:
            cut.append(rule)
        elif rule.call <= end and rule.writes != _ANY:
            cut.append(replace(rule, returned=None))
    kept = {id(rule.operation) for rule in _prune(cut)}
    return [rule for rule in cut if id(rule.operation) in kept]


def _minimize(rules: list[_Rule]) -> list[_Rule]:
    """Leave out one operation after another while the rest stays illegal.

    Only what can't make a legal history illegal by its absence may go: an operation that leaves the state alone, or a
    write that nothing in the rest can see. So the rest is illegal for the reason the whole is.
    """
    budget = _MINIMIZE_STEPS_MAX
    changed = True
    while changed:
        changed = False
        for rule in list(reversed(rules)):
            rest = [other for other in rules if other is not rule]
            if budget <= 0 or (rule.writes != _ANY and any(other.sees(rule) for other in rest)):
                continue
            search = _Search(rest)
            if search.run(budget) is Verdict.ILLEGAL:
                rules = rest
                changed = True
            budget -= search.steps + 1
    return rules
