import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.kv.digest import StateDigest
from replicad.core.kv.machine import Machine
from replicad.core.kv.memory_store import MemoryStore
from replicad.core.model.errors import DamageError, InvariantError
from replicad.core.model.operations import (
    APPLIED,
    CHECKPOINT_BATCH,
    CONFIGURATION,
    DELETE,
    DELETE_PREFIX,
    DELETE_SLICE,
    EXPIRED,
    MISMATCH,
    MORE,
    NO_CAS,
    NOOP_BATCH,
    OPERATIONS,
    PUT,
    REFUSED,
    Result,
    encode_batch,
    encode_operation,
    make_request_id,
)
from tests.core.kv.state_builders import NaiveModel, apply_all, batch, delete, delete_prefix, put

WINDOW = 4
IDS = [make_request_id(boot, n) for boot, n in [(1, 1), (1, 2), (1, 3), (1, 4), (1, 6), (2, 1), (2, 2), (1, 2**48 - 1)]]
IDS += [make_request_id(2, 0), *[bytes([n]) * 16 for n in range(7, 11)]]


@pytest.fixture
def machine():
    return Machine(MemoryStore(), WINDOW)


def run(machine, *operations):
    """Apply one slot of operations whose base is the slot before it."""
    fresh = [(*operation[:1], machine.applied_slot, *operation[2:]) for operation in operations]
    return apply_all(machine, [batch(*fresh)])[0]


def recomputed(machine):
    state = StateDigest()
    for key, entry in machine.store.scan(b""):
        state.add_entry(key, entry)
    for slot, record in machine.store.scan_requests():
        state.add_requests(slot, record)
    state.add_configuration(machine.configuration)
    return state.value()


operations = st.tuples(
    st.sampled_from(IDS),
    st.integers(0, 3),  # how far behind the contact was
    st.sampled_from([PUT, PUT, DELETE, DELETE_PREFIX]),
    st.sampled_from([b"a", b"ab", b"abc", b"b", b"\xff"]),
    st.sampled_from([b"", b"x", b"y"]),
    st.sampled_from([0, 1, 2**64 - 1]),
    st.sampled_from([NO_CAS, NO_CAS, 0, 1, 2, 5]),
)


@settings(max_examples=150)
@given(st.lists(st.lists(operations, max_size=5), max_size=12), st.data())
def test_the_machine_agrees_with_a_naive_model(slots, data):
    """Results, indexes, content and the recomputed digest follow the naive model, also across aborts and reloads."""
    machine = Machine(MemoryStore(), WINDOW)
    model = NaiveModel(WINDOW)
    for slot, asked in enumerate(slots, 1):
        full = [(rid, max(0, slot - 1 - lag * 2), *rest) for rid, lag, *rest in asked]
        value = batch(*full)
        before = machine.digest
        if data.draw(st.booleans()):
            machine.begin()
            machine.apply(slot, value)
            machine.abort()
            assert machine.digest == before == recomputed(machine)
        assert apply_all(machine, [value])[0] == model.apply(full)
        assert machine.index == model.index
        assert machine.remembered == len(model.requests)
        assert recomputed(machine) == machine.digest
        found = {key: machine.read(key) for key, _ in machine.store.scan(b"")}
        assert {k: (e.create, e.modify, e.flags, e.value) for k, e in found.items()} == model.entries
        if data.draw(st.booleans()):
            machine = Machine(machine.store.snapshot(), WINDOW)


def test_every_operation_takes_an_index(machine):
    """Failed, repeated, expired and mismatched operations take an index like any other."""
    rid, key = b"i" * 14, b"k" * 16
    run(machine, put(b"a", rid=rid), put(b"a", cas=9), put(b"a", rid=rid), put(b"b", rid=key), put(b"c", rid=key))
    assert machine.index == 5
    apply_all(machine, [NOOP_BATCH] * WINDOW)
    assert apply_all(machine, [batch(put(b"z", base=0))])[0] == [Result(EXPIRED, 6)]
    assert machine.index == 6


def test_put_sets_create_once_and_modify_each_time(machine):
    """A second value keeps the create index and takes a new modify index."""
    run(machine, put(b"a", b"1"))
    run(machine, put(b"a", b"2", flags=7))
    entry = machine.read(b"a")
    assert (entry.create, entry.modify, entry.flags, entry.value) == (1, 2, 7, b"2")


def test_an_identical_rewrite_changes_nothing(machine):
    """The same value and flags leave the modify index; another flag, or a value with the same end, does not."""
    run(machine, put(b"a", b"xy"))
    assert run(machine, put(b"a", b"xy")) == [Result(APPLIED, 2)]
    assert machine.read(b"a").modify == 1
    run(machine, put(b"a", b"xy", flags=1))
    assert machine.read(b"a").modify == 3
    run(machine, put(b"a", b"wxy", flags=1))
    assert machine.read(b"a").modify == 4
    run(machine, put(b"a", b"xy", flags=1))
    assert (machine.read(b"a").modify, machine.read(b"a").value) == (5, b"xy")


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        (put(b"a", b"2", cas=0), REFUSED),
        (put(b"new", cas=0), APPLIED),
        (put(b"a", b"2", cas=1), APPLIED),
        (put(b"a", b"2", cas=2), REFUSED),
        (put(b"new", cas=1), REFUSED),
        (delete(b"a", cas=1), APPLIED),
        (delete(b"a", cas=0), REFUSED),
        (delete(b"a", cas=2), REFUSED),
        (delete(b"new", cas=5), APPLIED),
        (delete(b"new"), APPLIED),
    ],
)
def test_compare_and_set(machine, operation, status):
    """A condition compares with the modify index; 0 means that the key is absent; deleting nothing succeeds."""
    run(machine, put(b"a", b"1"))
    before = machine.read(b"a")
    assert run(machine, operation) == [Result(status, 2)]
    if status == REFUSED:
        assert machine.read(b"a") == before


def test_deleting_everything_leaves_only_the_request_records(machine):
    """Once the window has passed over a deleted key, the digest is that of nothing."""
    run(machine, put(b"a"), put(b"b"))
    run(machine, delete(b"a"), delete_prefix(b""))
    assert machine.digest != bytes(16)
    apply_all(machine, [NOOP_BATCH] * WINDOW)
    assert machine.digest == bytes(16)


def test_a_long_prefix_goes_in_slices(machine):
    """A recursive delete removes a bounded number of keys in order, and says that more are left."""
    keys = [b"p/%05d" % n for n in range(DELETE_SLICE + 1)]
    run(machine, *[put(key) for key in keys], put(b"q"))
    index = machine.index
    assert run(machine, delete_prefix(b"p/")) == [Result(MORE, index + 1)]
    assert [key for key, _ in machine.store.scan(b"p/")] == keys[DELETE_SLICE:]
    assert run(machine, delete_prefix(b"p/")) == [Result(APPLIED, index + 2)]
    assert machine.read(b"q") is not None


def test_a_repeat_returns_the_first_result(machine):
    """A request id that comes again, in the same batch or later, does nothing and is told the first result."""
    rid = b"r" * 14
    assert run(machine, put(b"a", b"1", rid=rid), put(b"a", b"1", rid=rid)) == [Result(APPLIED, 1)] * 2
    run(machine, put(b"a", b"2"))
    assert run(machine, put(b"a", b"1", rid=rid)) == [Result(APPLIED, 1)]
    assert machine.read(b"a").value == b"2"


def test_an_idempotency_key_with_another_content_is_a_mismatch(machine):
    """Ids of 16 bytes compare contents (base excepted); nothing happens, and the first result stays."""
    rid = b"i" * 16
    run(machine, put(b"a", b"1", rid=rid))
    assert run(machine, put(b"a", b"2", rid=rid), put(b"b", b"1", rid=rid)) == [
        Result(MISMATCH, 2),
        Result(MISMATCH, 3),
    ]
    assert run(machine, put(b"a", b"1", rid=rid)) == [Result(APPLIED, 1)]
    assert machine.read(b"a").value == b"1"
    assert machine.read(b"b") is None


def test_recall_tells_what_a_repeat_would_be_told(machine):
    """recall() knows the result of a remembered operation, sees another content, and says None for an unknown id."""
    rid = b"i" * 16
    run(machine, put(b"a", b"1", rid=rid))
    assert machine.recall(rid, PUT, b"a", b"1", 0, NO_CAS) == Result(APPLIED, 1)
    assert machine.recall(rid, PUT, b"a", b"2", 0, NO_CAS).status == MISMATCH
    assert machine.recall(b"j" * 16, PUT, b"a", b"1", 0, NO_CAS) is None


def test_the_window_neither_forgets_too_early_nor_applies_too_late(machine):
    """Two copies of an operation, wherever they land, take effect once: rules D1 and D2 at their edges."""
    rid = b"r" * 14
    for first in range(1, WINDOW + 2):
        for second in range(first + 1, 3 * WINDOW):
            machine = Machine(MemoryStore(), WINDOW)
            values = [NOOP_BATCH] * (3 * WINDOW)
            values[first - 1] = values[second - 1] = batch(put(b"a", rid=rid, base=0))
            results = [result for results in apply_all(machine, values) for result in results]
            effects = {result.index for result in results if result.status == APPLIED}
            assert effects == ({1} if first <= WINDOW else set())


def test_request_records_leave_exactly_after_the_window(machine):
    """The record of slot s is kept through slot s + W - 1, and gone once s + W is applied, operations or not."""
    run(machine, put(b"a"))
    apply_all(machine, [NOOP_BATCH] * (WINDOW - 1))
    assert machine.remembered == 1
    apply_all(machine, [CHECKPOINT_BATCH])
    assert machine.remembered == 0
    assert list(machine.store.scan_requests()) == []


def test_a_configuration_replaces_the_one_before(machine):
    """The configuration is kept across a reload and counts for the digest; it takes no index."""
    apply_all(machine, [encode_batch(CONFIGURATION, b"one")])
    first = machine.digest
    apply_all(machine, [encode_batch(CONFIGURATION, b"two")])
    assert machine.digest != first
    again = Machine(machine.store, WINDOW)
    assert (again.configuration, again.digest, again.index, again.applied_slot) == (b"two", machine.digest, 0, 2)
    apply_all(again, [encode_batch(CONFIGURATION, b"one")])
    assert again.digest == first


@pytest.mark.parametrize("slot", [0, 2, -1])
def test_a_slot_out_of_order_is_a_bug(machine, slot):
    """Slots are applied one after the other, without gaps and without repeats."""
    machine.begin()
    with pytest.raises(InvariantError, match="cannot follow"):
        machine.apply(slot, NOOP_BATCH)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        encode_batch(9),
        encode_batch(OPERATIONS, [b"nonsense"]),
        encode_batch(OPERATIONS, 5),
        encode_batch(CONFIGURATION, 5),
        batch(put(b"")),
        batch(put(b"k" * 501)),
        batch(put("text")),
        batch(put(b"k", flags=2**64 - 1, rid=b"short")),
        batch((b"r" * 14, 0, 99, b"k", b"", 0, NO_CAS)),
        encode_batch(OPERATIONS, [encode_operation((b"r" * 14, 0, PUT, b"k", "text", 0, NO_CAS))]),
        encode_batch(OPERATIONS, [encode_operation((b"r" * 14, 0, PUT, b"k", b"", -1, NO_CAS))]),
    ],
)
def test_what_no_contact_lets_through_is_a_bug(machine, value):
    """A batch that cannot be decoded stops the process; the state before it can be had back."""
    before = machine.digest
    machine.begin()
    with pytest.raises(InvariantError):
        machine.apply(1, value)
    machine.abort()
    assert (machine.applied_slot, machine.digest) == (0, before)


def test_a_damaged_table_is_noticed_when_it_is_loaded():
    """A stored request record or state that no machine wrote raises DamageError instead of being half believed."""
    store = MemoryStore()
    store.begin()
    store.put_requests(1, b"\x93\xc4\x01a\x01\x00")
    store.commit()
    with pytest.raises(DamageError, match="request record of slot 1"):
        Machine(store, WINDOW)
    store = MemoryStore()
    store.begin()
    store.put_meta("state", b"short")
    store.commit()
    with pytest.raises(DamageError, match="state has 5 bytes"):
        Machine(store, WINDOW)
