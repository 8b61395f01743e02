import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.group.log import SlotLog, batch_kind, value_digest
from replicad.core.journal.records import CheckpointRecord, EntryRecord
from replicad.core.journal.recovery import DurableState
from replicad.core.model.errors import InvariantError
from replicad.core.model.operations import (
    CHECKPOINT_BATCH,
    CONFIGURATION,
    NOOP_BATCH,
    OPERATIONS,
    decode_batch,
    encode_batch,
)
from tests.core.group.rigs import batch

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "advance", "truncate", "reset"]),
        st.integers(1, 12),
        st.binary(max_size=3),
    ),
    max_size=40,
)


class Twin:
    """The log's rules, written for reading: one dictionary and three numbers."""

    def __init__(self):
        self.held = {}
        self.base = self.committed = self.highest = 0

    def forget_up_to(self, slot):
        self.held = {s: v for s, v in self.held.items() if s > slot}
        self.base = max(self.base, slot)

    def page(self, first, last, limit):
        found = []
        for slot in range(first, last + 1):
            if slot not in self.held:
                break
            entry = (slot, *self.held[slot])
            if found and sum(len(e[3]) + 32 for e in found) + len(entry[3]) > limit:
                break
            found.append(entry)
        return tuple(found)


def empty():
    return SlotLog(DurableState())


@given(STEPS, st.integers(1, 12), st.integers(1, 12), st.integers(1, 120))
def test_a_log_does_what_its_naive_twin_does(steps, first, last, limit):
    """After any series of steps the log holds what the twin holds, and counts its bytes right."""
    log, twin = empty(), Twin()
    for number, (what, slot, data) in enumerate(steps, 1):
        if what == "put" and slot > twin.committed:
            log.put(slot, number, 0, data)
            twin.held[slot] = (number, 0, data)
            twin.highest = max(twin.highest, slot)
        elif what == "advance" and slot >= twin.committed:
            log.advance(slot)
            twin.committed = slot
            twin.highest = max(twin.highest, slot)
        elif what == "truncate" and slot <= twin.committed:
            log.truncate(slot)
            twin.forget_up_to(slot)
        elif what == "reset":
            log.reset_to(slot)
            twin.forget_up_to(slot)
            twin.committed = max(twin.committed, slot)
            twin.highest = max(twin.highest, slot)
    assert (log.base, log.committed, log.highest) == (twin.base, twin.committed, twin.highest)
    assert {slot: log.get(slot) for slot in range(14) if log.get(slot)} == twin.held
    assert log.bytes == sum(len(value) for _, _, value in twin.held.values())
    assert log.page(first, last, limit) == twin.page(first, last, limit)


@given(st.sets(st.integers(1, 10)), st.integers(0, 10), st.integers(0, 10))
def test_a_log_resumes_from_the_longest_run_below_the_committed_prefix(slots, committed, checkpoint):
    """At a start everything decided that is held without a gap is kept, down to the checkpoint, and all above."""
    entries = {slot: EntryRecord(slot, 1, 0, False, b"%d" % slot) for slot in slots}
    durable = DurableState(entries=entries, committed=committed)
    durable.checkpoint = CheckpointRecord(checkpoint, b"") if checkpoint else None
    log = SlotLog(durable)
    assert log.committed == max(committed, checkpoint)
    run = log.committed
    while run > checkpoint and run in slots:
        run -= 1
    assert log.base == run
    assert {slot for slot in range(12) if log.get(slot)} == {slot for slot in slots if slot > run}
    assert log.highest == max([log.committed, *(slot for slot in slots if slot > run)])


def test_a_decided_slot_keeps_its_value():
    """Another value for a decided slot stops the process; the same value at a higher ballot does not."""
    log = empty()
    log.put(1, 5, 0, b"one")
    log.advance(1)
    log.put(1, 9, 0, b"one")
    assert log.get(1) == (9, 0, b"one")
    with pytest.raises(InvariantError, match="decided"):
        log.put(1, 10, 0, b"other")


def test_an_accepted_slot_takes_another_value():
    """A slot that is not decided may be overwritten."""
    log = empty()
    log.put(1, 5, 0, b"one")
    log.put(1, 6, 0, b"other")
    assert log.get(1) == (6, 0, b"other")


def test_only_decided_slots_are_truncated():
    """Forgetting an accepted slot would lose a write: it stops the process."""
    log = empty()
    log.put(1, 5, 0, b"one")
    with pytest.raises(InvariantError, match="truncated"):
        log.truncate(1)


def test_the_committed_prefix_never_shrinks():
    """Going back stops the process."""
    log = empty()
    log.put(1, 1, 0, b"")
    log.advance(1)
    with pytest.raises(InvariantError, match="never shrinks"):
        log.advance(0)


def test_a_page_holds_at_least_one_entry():
    """A value larger than a page travels alone instead of never."""
    log = empty()
    log.put(1, 1, 0, b"x" * 100)
    log.put(2, 1, 0, b"y")
    assert log.page(1, 2, 10) == ((1, 1, 0, b"x" * 100),)


def test_nothing_follows_an_open_configuration():
    """An undecided configuration entry at the end is noticed, a decided one is not in the way (M1)."""
    log = empty()
    log.put(1, 1, 0, batch(1))
    assert not log.open_configuration()
    log.put(2, 1, 0, encode_batch(CONFIGURATION, b"c"))
    assert log.open_configuration()
    log.advance(2)
    assert not log.open_configuration()


@pytest.mark.parametrize("value", [NOOP_BATCH, CHECKPOINT_BATCH, batch(1), encode_batch(CONFIGURATION, b"c")])
def test_the_kind_of_a_batch_is_read_without_decoding(value):
    """The short cut and the decoder agree."""
    assert batch_kind(value) == decode_batch(value)[0]


@pytest.mark.parametrize("value", [b"", b"\x92", b"no batch"])
def test_what_is_no_batch_has_no_kind(value):
    """Bytes that are no batch stop the process before they are taken for one."""
    with pytest.raises(InvariantError, match="no batch"):
        batch_kind(value)


def test_values_are_told_apart_by_their_digests():
    """Different values have different digests of 16 bytes."""
    digests = {value_digest(encode_batch(OPERATIONS, [b"%d" % number])) for number in range(50)}
    assert len(digests) == 50
    assert {len(digest) for digest in digests} == {16}
