import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.kv.digest import requests_part
from replicad.core.kv.requests import RequestTable, Single, decode_record, ids_in
from replicad.core.model.errors import DamageError
from replicad.core.model.operations import APPLIED, MORE, REFUSED, Result, make_request_id

WINDOW = 5
statuses = st.sampled_from([APPLIED, APPLIED, APPLIED, REFUSED, MORE])
boots = st.sampled_from([1, 2, 3, 2**63 - 1])
runs = st.tuples(boots, st.integers(0, 40), st.lists(statuses, min_size=1, max_size=8))
singles = st.integers(1, 4).map(lambda n: bytes([n]) * 16)


class Plain:
    """The table as a dictionary: id -> (slot, result, fingerprint)."""

    def __init__(self):
        self.known = {}

    def find(self, request_id):
        known = self.known.get(request_id)
        return known and known[1:]

    def evict(self, applied):
        self.known = {name: known for name, known in self.known.items() if known[0] > applied - WINDOW}


def number(request_id):
    return int.from_bytes(request_id, "big")


def take(table, plain, slot, index, asked):
    """Give both tables one slot as the machine does: what is known already is left out; return the next index."""
    for item in asked:
        if isinstance(item, bytes):
            if plain.find(item) is None:
                table.add_single(Single(item, index, index * 7, APPLIED))
                plain.known[item] = slot, Result(APPLIED, index), index * 7
            index += 1
            continue
        boot, first, done = item
        begin = index
        for at, status in enumerate(done):
            request_id = make_request_id(boot, first + at)
            if plain.find(request_id) is not None:
                break
            plain.known[request_id] = slot, Result(status, index), 0
            index += 1
        if index > begin:
            ceiling = table.ceiling(number(make_request_id(boot, first)))
            assert ceiling >= number(make_request_id(boot, first)) + index - begin
            table.add_run(number(make_request_id(boot, first)), begin, bytes(done[: index - begin]))
        index += 1
    return index


@settings(max_examples=300)
@given(st.lists(st.lists(runs | singles, max_size=5), max_size=25), st.data())
def test_runs_are_as_exact_as_a_dictionary(slots, data):
    """Whatever comes in whichever order, and leaves: the runs know exactly the ids and results of a dictionary."""
    table, plain = RequestTable(WINDOW), Plain()
    index = 1
    kept = {}
    for slot, asked in enumerate(slots, 1):
        index = take(table, plain, slot, index, asked)
        record, part = table.close_slot(slot)
        if record:
            kept[slot] = record
            assert part == requests_part(slot, record)
        while evicted := table.evict(slot):
            assert evicted[1] == requests_part(evicted[0], kept.pop(evicted[0]))
        plain.evict(slot)
        if data.draw(st.booleans()):
            table = RequestTable(WINDOW)
            for old, stored in kept.items():
                table.load(old, stored)
        assert len(table) == len(plain.known)
        assert len(table) == sum(ids_in(item) for old, stored in kept.items() for item in decode_record(old, stored))
        for boot in (1, 2, 3, 2**63 - 1):
            for each in range(50):
                request_id = make_request_id(boot, each)
                assert table.find(request_id) == plain.find(request_id)
        for each in range(1, 6):
            assert table.find(bytes([each]) * 16) == plain.find(bytes([each]) * 16)


def test_many_slots_pass_through_the_window():
    """Long after the window has passed over them, the runs before it are gone and those in it are found."""
    table = RequestTable(1_000)
    for slot in range(1, 5_001):
        table.add_run(number(make_request_id(9, slot * 10)), slot * 3, bytes([APPLIED] * 3))
        table.close_slot(slot)
        while table.evict(slot):
            pass
    assert len(table) == 3_000
    assert table.find(make_request_id(9, 4_000 * 10)) is None
    assert table.find(make_request_id(9, 4_001 * 10 + 2)) == (Result(APPLIED, 4_001 * 3 + 2), 0)
    assert table.find(make_request_id(9, 4_001 * 10 + 3)) is None
    for slot in range(5_001, 6_001):
        table.evict(slot)
    assert len(table) == 0


def test_a_busy_slot_takes_a_short_record():
    """A thousand consecutive ids of one contact with one status take fewer bytes than two of them would by name."""
    table = RequestTable(10)
    table.add_run(number(make_request_id(2**63 - 1, 10**9)), 10**9, bytes([APPLIED]) * 1_000)
    record, _ = table.close_slot(1)
    assert len(record) < 30


def good():
    return [make_request_id(1, 5), 7, 3, APPLIED]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        5,
        good()[:3],
        [b"short", 7, 3, APPLIED],
        ["text", 7, 3, APPLIED],
        [*good()[:1], 0, 3, APPLIED],
        [*good()[:1], b"7", 3, APPLIED],
        [*good()[:2], 0, APPLIED],
        [*good()[:2], "3", APPLIED],
        [*good()[:3], 3],
        [*good()[:3], bytes([APPLIED] * 2)],
        [*good()[:3], bytes([APPLIED, APPLIED, 3])],
        [*good()[:3], "x"],
        [make_request_id(1, 2**48 - 2), 7, 3, APPLIED],
        [b"k" * 16, 7, 1 << 32, APPLIED],
        [b"k" * 16, 7, -1, APPLIED],
        [b"k" * 16, 7, 1, bytes([APPLIED])],
        [b"k" * 16, 7, 1, 3],
    ],
)
def test_a_malformed_record_is_damage(parts):
    """Anything that no table writes is refused as a whole, with the slot in the sentence."""
    with pytest.raises(DamageError, match="request record of slot 8"):
        RequestTable(WINDOW).load(8, msgpack.packb(parts))


@pytest.mark.parametrize("first", [[make_request_id(1, 4), 1, 2, APPLIED], [make_request_id(1, 7), 1, 9, APPLIED]])
def test_an_id_in_two_records_is_damage(first):
    """An id is remembered once; two records that overlap were not written by one table."""
    table = RequestTable(WINDOW)
    table.load(1, msgpack.packb(first))
    with pytest.raises(DamageError, match="remembered already"):
        table.load(2, msgpack.packb(good()))
    table = RequestTable(WINDOW)
    table.load(1, msgpack.packb([b"k" * 16, 1, 1, APPLIED]))
    with pytest.raises(DamageError, match="remembered already"):
        table.load(2, msgpack.packb([b"k" * 16, 2, 1, APPLIED]))
