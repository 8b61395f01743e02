"""The linearizability checker must accept what one atomic copy could have answered, and nothing else."""

from __future__ import annotations

from itertools import permutations
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.lab.history import Action, Cas, Delete, Get, Operation, Put, Recorder
from replicad.lab.linearizability import Verdict, check

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY = "k"


def op(
    client: int,
    action: Action,
    call: int,
    returned: int | None = None,
    result: str | bool | None = None,
) -> Operation:
    return Operation(client, KEY, action, call, returned, result)


def put(value: str, call: int, returned: int | None = None, client: int = 1) -> Operation:
    return op(client, Put(value), call, returned)


def get(value: str | None, call: int, returned: int, client: int = 2) -> Operation:
    return op(client, Get(), call, returned, value)


ACCEPTED = {
    "empty": [],
    "sequential": [
        get(None, 0, 1),
        put("a", 2, 3),
        get("a", 4, 5),
        op(1, Cas("a", "b"), 6, 7, result=True),
        op(1, Cas("a", "c"), 8, 9, result=False),
        get("b", 10, 11),
        op(1, Delete(), 12, 13),
        get(None, 14, 15),
        op(1, Cas(None, "d"), 16, 17, result=True),
        get("d", 18, 19),
    ],
    "overlapping get may see either value": [put("a", 0, 1), put("b", 2, 10), get("b", 3, 4), get("b", 5, 6, 3)],
    "overlapping get may miss the put": [put("a", 0, 1), put("b", 2, 10), get("a", 3, 9), get("b", 4, 5, 3)],
    "operations that touch in time overlap": [put("a", 0, 5), get(None, 5, 6)],
    "overlapping writes in either order": [put("a", 0, 9), put("b", 0, 9, 3), get("b", 10, 11), get("b", 12, 13)],
    "indefinite write seen much later": [put("a", 0), get(None, 1, 2), get(None, 3, 4), get("a", 50, 51)],
    "indefinite write never seen": [put("a", 0, 1), put("b", 2), get("a", 3, 4), get("a", 50, 51)],
    "indefinite delete seen later": [put("a", 0, 1), op(3, Delete(), 2), get("a", 3, 4), get(None, 5, 6)],
    "indefinite cas seen later": [put("a", 0, 1), op(3, Cas("a", "b"), 2), get("a", 3, 4), get("b", 5, 6)],
    "indefinite write explains a failed cas": [
        put("a", 0, 1),
        put("z", 2),
        op(3, Cas("a", "b"), 3, 4, result=False),
        put("c", 5, 6),
        get("c", 7, 8),
    ],
    "failed cas proves nothing when its value was written twice": [
        put("a", 0, 1),
        put("b", 2, 3),
        put("a", 4, 5),
        op(3, Cas("a", "c"), 6, 7, result=False),
    ],
    "one cas of two wins": [
        put("a", 0, 1),
        op(1, Cas("a", "b"), 2, 5, result=False),
        op(3, Cas("a", "c"), 2, 5, result=True),
        get("c", 6, 7),
    ],
    "indefinite get": [put("a", 0, 1), op(2, Get(), 2)],
}

REJECTED = {
    "stale read": [put("a", 0, 1), put("b", 2, 3), get("a", 4, 5)],
    "lost write": [put("a", 0, 1), get(None, 2, 3)],
    "read of a value never written": [put("a", 0, 1), get("x", 2, 3)],
    "read before its write was called": [get("a", 0, 1), put("a", 2, 3)],
    "two reads going back in time": [put("a", 0, 1), put("b", 2, 20), get("b", 3, 4), get("a", 5, 6, 3)],
    "indefinite write seen, then gone": [put("a", 0, 1), put("b", 2), get("b", 3, 4), get("a", 5, 6, 3)],
    "doubled cas": [
        put("a", 0, 1),
        op(1, Cas("a", "b"), 2, 5, result=True),
        op(3, Cas("a", "c"), 2, 5, result=True),
    ],
    "two creations of an absent key": [
        op(1, Cas(None, "b"), 2, 5, result=True),
        op(3, Cas(None, "c"), 2, 5, result=True),
    ],
    "cas fails for no reason": [put("a", 0, 1), op(3, Cas("a", "b"), 2, 3, result=False)],
    "failed cas is no second writer of its value": [
        op(3, Cas("x", "a"), 0, 1, result=False),
        put("a", 2, 3),
        op(3, Cas("a", "b"), 4, 5, result=False),
    ],
    "acknowledged writes reordered": [put("a", 0, 1), put("b", 2, 3, 3), get("a", 10, 11), get("a", 12, 13)],
    "overlapping writes seen in two orders": [
        put("a", 0, 100),
        put("b", 0, 100, 3),
        get("a", 1, 2),
        get("b", 3, 4),
        get("a", 5, 6),
    ],
    "a write applied twice": [put("a", 0), get("a", 1, 2), put("b", 3, 4, 3), get("b", 5, 6), get("a", 7, 8)],
    "a deleted key comes back": [put("a", 0, 1), op(1, Delete(), 2, 3), get(None, 4, 5), get("a", 6, 7)],
}


@pytest.mark.parametrize("history", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepts(history: list[Operation]) -> None:
    """A history that one atomic copy could have given is OK, in whatever order it is listed."""
    assert check(history).verdict is Verdict.OK
    assert check(history[::-1]).verdict is Verdict.OK


@pytest.mark.parametrize("history", REJECTED.values(), ids=REJECTED.keys())
def test_rejects(history: list[Operation]) -> None:
    """A history that no atomic copy could have given is ILLEGAL, and its core is illegal by itself."""
    for order in (history, history[::-1]):
        report = check(order)
        assert report.verdict is Verdict.ILLEGAL
        assert report.counterexample is not None
        assert check(report.counterexample.core).verdict is Verdict.ILLEGAL


def test_keys_are_independent() -> None:
    """A fault on one key is found among healthy others, and the report names that key."""
    history = [Operation(1, f"k{i}", Put("a"), 2 * i, 2 * i + 1) for i in range(5)]
    history.append(Operation(1, "k3", Get(), 20, 21, None))
    report = check(history)
    assert report.counterexample is not None
    assert report.counterexample.key == "k3"


def test_explains_a_stale_read() -> None:
    """The explanation shows the stale get and only the two writes that it contradicts, out of a long history."""
    history = [put(f"v{i}", 10 * i, 10 * i + 1) for i in range(40)]
    history += [get(f"v{i}", 10 * i + 2, 10 * i + 3) for i in range(30)]
    stale = get("v12", 305, 306, client=7)
    report = check([*history, stale])
    assert report.counterexample is not None
    assert report.counterexample.stuck == stale
    assert report.counterexample.value == "v30"
    assert len(report.counterexample.prefix) == 61
    core = report.counterexample.core
    assert len(core) == 3
    assert core[0] == put("v12", 120, 121)
    assert core[2] == stale
    assert "client 7: get = 'v12'" in str(report)


def test_core_keeps_writes_still_running() -> None:
    """A write that returned only after the contradiction stays in the core, as an indefinite one."""
    report = check(REJECTED["overlapping writes seen in two orders"])
    assert report.counterexample is not None
    core = report.counterexample.core
    assert core == (put("a", 0), put("b", 0, client=3), get("a", 1, 2), get("b", 3, 4), get("a", 5, 6))


def test_indefinite_writes_cost_little() -> None:
    """Twenty indefinite writes, all of them seen in the end, are not tried in all their combinations."""
    history = [put("a", 0, 1), *(put(f"v{i}", 2 + i, client=10 + i) for i in range(20))]
    history += [op(2, Cas("b", "c"), 30 + 2 * i, 31 + 2 * i, result=False) for i in range(20)]
    history += [get("a", 80 + 2 * i, 81 + 2 * i) for i in range(20)]
    history += [get(f"v{i}", 200 + 2 * i, 201 + 2 * i) for i in range(20)]
    report = check(history, steps_max=1_000)
    assert report.verdict is Verdict.OK
    report = check([*history, get("a", 300, 301)], steps_max=1_000)
    assert report.verdict is Verdict.ILLEGAL


def test_budget_gives_unknown() -> None:
    """A search that runs out of steps says UNKNOWN and names the key, whatever the truth is."""
    for history in (ACCEPTED["sequential"], REJECTED["doubled cas"]):
        report = check(history, steps_max=1)
        assert report.verdict is Verdict.UNKNOWN
        assert report.undecided == (KEY,)
        assert "undecided keys: 'k'" in str(report)


def test_illegal_key_outweighs_unknown_key() -> None:
    """An illegal key is reported although another key stayed undecided."""
    lost = [Operation(1, "x", Get(), 0, 1, "never written")]
    assert check(ACCEPTED["sequential"] + lost, steps_max=1).verdict is Verdict.ILLEGAL


def test_refuses_operations_that_make_no_sense() -> None:
    """A malformed operation is an error of the caller, not a verdict."""
    with pytest.raises(ValueError, match="before it was called"):
        check([put("a", 5, 4)])
    with pytest.raises(ValueError, match="True or False"):
        check([op(1, Cas("a", "b"), 0, 1)])


def test_recorder_keeps_what_may_have_happened() -> None:
    """Answers are kept, definite failures vanish, and calls nobody ended stay indefinite."""
    recorder = Recorder()
    answered = recorder.invoke(1, KEY, Get(), 0)
    failed = recorder.invoke(2, KEY, Put("a"), 1)
    recorder.invoke(3, KEY, Put("b"), 2)
    recorder.fail(failed)
    recorder.complete(answered, 3, "b")
    assert recorder.operations() == [op(1, Get(), 0, 3, "b"), op(3, Put("b"), 2)]


class AtomicRegister:
    """One copy with Consul's modify index: what the servers together must look like."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.modify_index = 0
        self.index = 0

    def apply(self, action: Action, expected_index: int) -> str | bool | None:
        self.index += 1
        match action:
            case Get():
                return self.value
            case Delete():
                self._set(None)
            case Put(value):
                self._set(str(value))
            case Cas(_, new):
                if expected_index != self.modify_index:
                    return False
                self._set(str(new))
        return True

    def _set(self, value: str | None) -> None:
        if value != self.value:
            self.value = value
            self.modify_index = 0 if value is None else self.index


def simulate(random: Random, *, clients: int, operations: int, values: int | None) -> list[Operation]:
    """Let clients use one atomic register; each call takes effect at one instant, some answers get lost."""
    register = AtomicRegister()
    recorder = Recorder()
    seen: dict[int, tuple[str | None, int]] = {}
    running: dict[int, tuple[int, Action, int]] = {}
    answers: dict[int, str | bool | None] = {}
    late: list[tuple[Action, int]] = []
    started = now = 0
    while started < operations or running:
        now += random.randrange(2)
        if late and random.random() < 0.1:
            register.apply(*late.pop(random.randrange(len(late))))
        client = random.randrange(clients)
        if client not in running:
            if started == operations:
                continue
            started += 1
            value = f"v{started if values is None else random.randrange(values)}"
            expected, expected_index = seen.get(client, (None, 0))
            actions: list[Action] = [Get(), Get(), Put(value), Delete(), Cas(expected, value)]
            action = random.choice(actions)
            running[client] = (recorder.invoke(client, KEY, action, now), action, expected_index)
            continue
        number, action, expected_index = running[client]
        if number in answers:
            recorder.complete(number, now, answers[number])
            del running[client]
        elif random.random() < 0.1:
            late.append((action, expected_index))
            del running[client]
        elif random.random() < 0.05:
            recorder.fail(number)
            del running[client]
        else:
            answers[number] = register.apply(action, expected_index)
            if isinstance(action, Get):
                seen[client] = (register.value, register.modify_index)
    return recorder.operations()


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), clients=st.integers(1, 6), values=st.sampled_from([None, 1, 2, 5]))
def test_histories_of_an_atomic_register_are_ok(seed: int, clients: int, values: int | None) -> None:
    """No false alarm: what a real atomic register answers is OK, also when values repeat and answers get lost."""
    history = simulate(Random(seed), clients=clients, operations=60, values=values)
    assert check(history).verdict is Verdict.OK


def in_order(operations: Sequence[Operation]) -> bool:
    """Say whether no operation stands before one that had returned before it was called."""
    return not any(
        later.returned is not None and later.returned < earlier.call
        for i, earlier in enumerate(operations)
        for later in operations[i + 1 :]
    )


def explained(operations: Sequence[Operation], repeated: set[object]) -> bool:
    """Say whether one copy that takes the operations in this order gives these answers."""
    value: object = None
    for operation in operations:
        match operation.action:
            case Get():
                if operation.returned is not None and operation.result != value:
                    return False
            case Put(new):
                value = new
            case Delete():
                value = None
            case Cas(expected, new):
                if operation.returned is None or operation.result is True:
                    if value != expected:
                        return False
                    value = new
                elif value == expected and expected not in repeated:
                    return False
    return True


def brute_force(history: Sequence[Operation]) -> bool:
    """Try every order of every choice of the indefinite operations that took effect."""
    writes = [o for o in history if not (o.returned is not None and o.result is False)]
    written = [o.action.value for o in writes if isinstance(o.action, Put)]
    written += [o.action.new for o in writes if isinstance(o.action, Cas)]
    repeated: set[object] = {value for value in written if written.count(value) > 1}
    certain = [o for o in history if o.returned is not None]
    indefinite = [o for o in history if o.returned is None]
    for choice in range(1 << len(indefinite)):
        chosen = [o for i, o in enumerate(indefinite) if choice >> i & 1]
        if any(in_order(p) and explained(p, repeated) for p in permutations(certain + chosen)):
            return True
    return False


VALUES = st.sampled_from(["a", "b", "c"])


@st.composite
def small_operations(draw: st.DrawFn) -> Operation:
    """Draw an operation with an arbitrary answer."""
    expected = draw(st.none() | VALUES)
    actions: list[Action] = [Get(), Get(), Put(draw(VALUES)), Delete(), Cas(expected, draw(VALUES))]
    action = draw(st.sampled_from(actions))
    call = draw(st.integers(0, 12))
    if draw(st.integers(0, 3)) == 0:
        return op(0, action, call)
    result = draw(st.booleans()) if isinstance(action, Cas) else draw(st.none() | VALUES)
    return op(0, action, call, call + draw(st.integers(0, 6)), result if isinstance(action, Get | Cas) else None)


@settings(max_examples=500, deadline=None)
@given(history=st.lists(small_operations(), max_size=6))
def test_agrees_with_brute_force(history: list[Operation]) -> None:
    """On small arbitrary histories the verdict is the one that trying every order gives."""
    expected = Verdict.OK if brute_force(history) else Verdict.ILLEGAL
    report = check(history)
    assert report.verdict is expected
    if report.counterexample is not None:
        assert not brute_force(report.counterexample.core)


def test_is_deterministic() -> None:
    """The same history costs the same steps and gives the same words."""
    history = simulate(Random(7), clients=5, operations=80, values=None)
    history.append(get("never written", 10**6, 10**6 + 1))
    assert str(check(history)) == str(check(history))
