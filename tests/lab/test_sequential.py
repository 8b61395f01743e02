"""The checker of sequential consistency must accept what one order of all operations explains, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.lab import linearizability
from replicad.lab.history import Action, Cas, Delete, Get, Operation, Put
from replicad.lab.linearizability import Verdict
from replicad.lab.sequential import check, check_ordered


def history(*lines):
    """Operations ``(client, key, action, result)`` one after another in real time; result ``...``: outcome unknown."""
    operations = []
    for number, (client, key, action, *result) in enumerate(lines):
        returned = None if result == [...] else 2 * number + 1
        operations.append(
            Operation(client, key, action, 2 * number, returned, result[0] if returned and result else None)
        )
    return operations


def put(client, key, value, *unknown):
    return (client, key, Put(value), *unknown)


def get(client, key, value):
    return (client, key, Get(), value)


ACCEPTED = {
    "empty": [],
    "one client": [put(1, "x", "a"), get(1, "x", "a"), (1, "x", Delete()), get(1, "x", None)],
    "a stale read that its own client cannot notice": [put(1, "x", "a"), get(2, "x", None), get(2, "x", "a")],
    "Lamport's two processors, of which one sees nothing of the other": [
        put(1, "x", "a"),
        get(1, "y", None),
        put(2, "y", "b"),
        get(2, "x", "a"),
    ],
    "writes of two clients in another order than in time": [
        put(1, "x", "a"),
        put(2, "x", "b"),
        get(3, "x", "b"),
        get(3, "x", "a"),
        get(4, "x", "b"),
        get(4, "x", "a"),
    ],
    "a write of unknown outcome that is seen later": [put(1, "x", "a", ...), get(2, "x", None), get(2, "x", "a")],
    "a write of unknown outcome that takes effect after a later one": [
        put(1, "x", "a", ...),
        put(1, "x", "b"),
        get(2, "x", "b"),
        get(2, "x", "a"),
    ],
    "a write of unknown outcome that nobody sees": [put(1, "x", "a", ...), get(2, "x", None)],
    "a delete of unknown outcome": [put(1, "x", "a"), (2, "x", Delete(), ...), get(1, "x", None), get(1, "x", None)],
    "a compare-and-set of unknown outcome": [put(1, "x", "a"), (2, "x", Cas("a", "b"), ...), get(3, "x", "b")],
    "compare-and-set": [
        (1, "x", Cas(None, "a"), True),
        (2, "x", Cas(None, "b"), False),
        (2, "x", Cas("a", "c"), True),
        (1, "x", Cas("a", "d"), False),
        get(3, "x", "a"),
        get(3, "x", "c"),
    ],
    "a failure proves nothing if its value was written twice": [
        put(1, "x", "a"),
        (2, "x", Cas("a", "b"), False),
        put(1, "x", "a"),
    ],
    "a value that comes back": [
        put(1, "x", "a"),
        put(1, "x", "b"),
        put(1, "x", "a"),
        get(2, "x", "b"),
        get(2, "x", "a"),
    ],
}

REJECTED = {
    "a value from nowhere": [get(1, "x", "a")],
    "an own write not seen": [put(1, "x", "a"), get(1, "x", None)],
    "an own write not seen, on a key that was deleted before": [
        (1, "x", Delete()),
        put(1, "x", "a"),
        get(1, "x", None),
    ],
    "back to an older value": [
        put(1, "x", "a"),
        put(1, "x", "b"),
        get(2, "x", "b"),
        get(2, "x", "a"),
    ],
    "two readers see two writes in opposite orders": [
        put(1, "x", "a"),
        put(2, "x", "b"),
        get(3, "x", "a"),
        get(3, "x", "b"),
        get(4, "x", "b"),
        get(4, "x", "a"),
    ],
    "two readers see writes of two keys in opposite orders": [
        put(1, "x", "a"),
        put(2, "y", "b"),
        get(3, "x", "a"),
        get(3, "y", None),
        get(4, "y", "b"),
        get(4, "x", None),
    ],
    "both clients miss the other's write": [
        put(1, "x", "a"),
        get(1, "y", None),
        put(2, "y", "b"),
        get(2, "x", None),
    ],
    "an effect without its cause": [
        put(1, "x", "a"),
        get(2, "x", "a"),
        put(2, "y", "b"),
        get(3, "y", "b"),
        get(3, "x", None),
    ],
    "two clients both got the key": [(1, "x", Cas(None, "a"), True), (2, "x", Cas(None, "b"), True)],
    "a write of unknown outcome that is seen and gone": [
        put(1, "x", "a", ...),
        get(2, "x", "a"),
        get(2, "x", None),
    ],
    "a compare-and-set that failed for no reason": [put(1, "x", "a"), (1, "x", Cas("a", "b"), False)],
    "each key for itself is in order": [
        put(1, "x", "a"),
        put(1, "y", "b"),
        put(2, "y", "c"),
        put(2, "x", "d"),
        get(1, "y", "c"),
        get(2, "x", "a"),
    ],
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_histories_that_some_order_explains(name):
    """What has an order is accepted."""
    assert check(history(*ACCEPTED[name])).verdict is Verdict.OK
    assert brute_force(history(*ACCEPTED[name]))


@pytest.mark.parametrize("name", REJECTED)
def test_histories_that_no_order_explains(name):
    """What has no order is rejected, with the operations that show it."""
    report = check(history(*REJECTED[name]))
    assert report.verdict is Verdict.ILLEGAL
    assert report.evidence
    assert str(report).startswith("illegal after")
    assert not brute_force(history(*REJECTED[name]))


def test_the_classical_history_is_sequential_and_not_linearizable():
    """Real time between clients does not count here, and counts there."""
    stale = history(*ACCEPTED["a stale read that its own client cannot notice"])
    assert linearizability.check(stale).verdict is Verdict.ILLEGAL
    assert check(stale).verdict is Verdict.OK


def test_sequential_consistency_is_not_local():
    """Every key by itself is sequentially consistent, the two together are not."""
    whole = history(*REJECTED["each key for itself is in order"])
    assert check(whole).verdict is Verdict.ILLEGAL
    for key in ("x", "y"):
        assert check([operation for operation in whole if operation.key == key]).verdict is Verdict.OK


def test_requests_sent_at_once_have_no_order():
    """Only what a client finished before it called an operation precedes that operation."""
    burst = [Operation(1, "x", Put("a"), 0, 9), Operation(1, "x", Put("b"), 1, 8), Operation(2, "x", Get(), 2, 3, "b")]
    after = [*burst, Operation(2, "x", Get(), 4, 5, "a")]
    assert check(after).verdict is Verdict.OK
    assert check([replace(after[0], returned=0), *after[1:]]).verdict is Verdict.ILLEGAL


def test_a_budget_that_runs_out_is_no_verdict():
    """Without any budget for the search only a contradiction that needs none is found."""
    assert check(history(*ACCEPTED["compare-and-set"]), steps_max=0).verdict is Verdict.UNKNOWN
    opposite = history(*REJECTED["two readers see two writes in opposite orders"])
    report = check(opposite, steps_max=0)
    assert report.verdict is Verdict.ILLEGAL
    assert report.steps == 0


def test_a_contradiction_in_a_long_history_is_found_without_search():
    """Two thousand operations and one read that goes back: a cycle says so, and names the few that are in it."""
    lines = [put(1 + i % 3, f"k{i % 7}", i) for i in range(700)]
    lines += [get(4 + i % 3, f"k{i % 7}", i) for i in range(700)]
    legal = history(*lines)
    assert check(legal).verdict is Verdict.OK
    report = check(history(*lines, get(4, "k0", 0)), steps_max=0)
    assert report.verdict is Verdict.ILLEGAL
    assert 2 <= len(report.evidence) <= 10


def test_what_cannot_be_judged_is_refused():
    """An operation that contradicts itself is an error of the caller."""
    with pytest.raises(ValueError, match="True or False"):
        check([Operation(1, "x", Cas("a", "b"), 0, 1)])


# --- against brute force ----------------------------------------------------------------------------------------------


def brute_force(operations):
    """Try every order of every choice of the operations whose outcome is unknown."""
    unknown = [operation for operation in operations if operation.returned is None]
    values = [
        operation.action.new if isinstance(operation.action, Cas) else getattr(operation.action, "value", None)
        for operation in operations
    ]
    for chosen in range(1 << len(unknown)):
        left_out = {id(operation) for bit, operation in enumerate(unknown) if not chosen >> bit & 1}
        rest = [operation for operation in operations if id(operation) not in left_out]
        if any(explains(order, values) for order in permutations(rest)):
            return True
    return False


def explains(order, values):
    state = {}
    for position, operation in enumerate(order):
        for later in order[position + 1 :]:
            if later.client == operation.client and later.returned is not None and later.returned < operation.call:
                return False
        now = state.get(operation.key)
        match operation.action:
            case Get():
                if operation.returned is not None and operation.result != now:
                    return False
            case Put(value):
                state[operation.key] = value
            case Delete():
                state[operation.key] = None
            case Cas(expected, new):
                sure = expected is None or values.count(expected) <= 1
                if operation.returned is not None and operation.result is False:
                    if now == expected and sure:
                        return False
                elif now == expected:
                    state[operation.key] = new
                else:
                    return False
    return True


def random_history(random, size, clients, keys, *, unique):
    """Carry out random operations in a random order that keeps each client's; return them with their indexes."""
    operations, indexes, state, last = [], {}, {}, {}
    written = []
    for number in range(size):
        client, key = random.randrange(clients), random.choice("xyzuvw"[:keys])
        value = f"v{number}" if unique else random.choice("ab")
        now = state.get(key)
        expected = random.choice([now, now, None, random.choice([*written, None])])
        action: Action = random.choice([Get(), Get(), Put(value), Put(value), Delete(), Cas(expected, value)])
        result = None
        if isinstance(action, Get):
            result = now
        elif isinstance(action, Cas):
            result = now == expected
        # Where the client's clock stands says nothing about the others': only its own order is kept.
        call = last.get(client, random.randrange(40)) + 2
        last[client] = call + 1
        unknown = not isinstance(action, Get) and random.random() < 0.15
        operation = Operation(client, key, action, call, None if unknown else call + 1, None if unknown else result)
        operations.append(operation)
        takes_effect = not isinstance(action, Get) and result is not False and (not unknown or random.random() < 0.5)
        if takes_effect:
            state[key] = None if isinstance(action, Delete) else getattr(action, "value", getattr(action, "new", None))
            written.append(value)
            indexes[operation] = number + 1
    return operations, indexes


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.booleans())
def test_random_sequential_executions_are_accepted(seed, unique):
    """What was carried out in one order is accepted, with and without that order."""
    random = Random(seed)
    operations, indexes = random_history(random, 25, 4, 3, unique=unique)
    random.shuffle(operations)
    assert check(operations).verdict is not Verdict.ILLEGAL
    if unique:
        assert check(operations).verdict is Verdict.OK
    assert check_ordered(operations, indexes).verdict is Verdict.OK


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 32), st.booleans())
def test_tiny_histories_are_judged_as_by_brute_force(seed, unique):
    """One answer is changed, or two are exchanged; the verdict is what trying all orders gives."""
    random = Random(seed)
    operations, _ = random_history(random, random.randrange(3, 7), 3, 2, unique=unique)
    reads = [i for i, operation in enumerate(operations) if isinstance(operation.action, Get)]
    values = [operation.action.value for operation in operations if isinstance(operation.action, Put)]
    for i in reads[:2]:
        operations[i] = replace(operations[i], result=random.choice([None, *values]))
    expected = Verdict.OK if brute_force(operations) else Verdict.ILLEGAL
    assert check(operations).verdict is expected


# --- with the order of writes -----------------------------------------------------------------------------------------


def test_with_the_order_given_another_order_is_no_excuse():
    """Two readers agree on an order, but it is not the one of the indexes."""
    operations = history(*ACCEPTED["writes of two clients in another order than in time"])
    first, second = operations[:2]
    assert check_ordered(operations, {second: 1, first: 2}).verdict is Verdict.OK
    report = check_ordered(operations, {first: 1, second: 2})
    assert report.verdict is Verdict.ILLEGAL
    assert report.evidence == (operations[2], operations[3])


@pytest.mark.parametrize("name", REJECTED)
def test_what_no_order_explains_no_given_order_explains(name):
    """Every order of the writes is refused for a history that is not sequentially consistent."""
    operations = history(*REJECTED[name])
    writes = [o for o in operations if not isinstance(o.action, Get) and o.result is not False]
    for order in permutations(writes):
        indexes = {operation: index for index, operation in enumerate(order, 1)}
        assert check_ordered(operations, indexes).verdict is Verdict.ILLEGAL


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_the_two_ways_agree_on_tiny_histories(seed):
    """A history has an order exactly if some order of its writes explains it."""
    random = Random(seed)
    operations, _ = random_history(random, 5, 3, 2, unique=True)
    values = [operation.action.value for operation in operations if isinstance(operation.action, Put)]
    operations = [
        replace(o, result=random.choice([None, *values])) if isinstance(o.action, Get) else o
        for o in operations
        if o.returned is not None
    ]
    writes = [o for o in operations if not isinstance(o.action, Get) and o.result is not False]
    orders = ({o: index for index, o in enumerate(order, 1)} for order in permutations(writes))
    some = any(check_ordered(operations, order).verdict is Verdict.OK for order in orders)
    assert check(operations).verdict is (Verdict.OK if some else Verdict.ILLEGAL)


def test_an_order_with_gaps_or_doubles_is_refused():
    """Every write that took effect needs an index of its own."""
    operations = history(put(1, "x", "a"), put(1, "x", "b"))
    with pytest.raises(ValueError, match="no index"):
        check_ordered(operations, {operations[0]: 1})
    with pytest.raises(ValueError, match="that of another write"):
        check_ordered(operations, {operations[0]: 1, operations[1]: 1})
