import pytest

from replicad.core.model.operations import (
    ACK_ALL,
    ACK_MAJORITY,
    ACK_ONE,
    APPLIED,
    NO_CAS,
    OPERATIONS,
    PUT,
    Result,
    encode_batch,
    encode_operation,
)
from replicad.lab.checks import Judge, Stuck, Violation
from replicad.lab.history import Get, Operation, Put

ID = b"i" * 14
KEYED = b"i" * 16


def put(value, request_id=ID, key=b"k", base=0):
    return encode_batch(OPERATIONS, [encode_operation((request_id, base, PUT, key, value, 0, NO_CAS))])


@pytest.fixture
def judge():
    """A judge who saw slot 1 write ``k=a`` and slot 2 write ``k=b``."""
    judge = Judge(window=10)
    judge.committed_slot("n1", 1, put(b"a"))
    judge.committed_slot("n1", 2, put(b"b", b"j" * 14))
    return judge


def broken(rule):
    return pytest.raises(Violation, match=f"^{rule}: ")


def test_what_is_right_passes(judge):
    """Consistent observations raise nothing."""
    judge.committed_slot("n2", 1, put(b"a"))
    judge.digest("n1", 2, b"d")
    judge.digest("n2", 2, b"d")
    judge.results("n1", 0, 2, [(ID, Result(APPLIED, 1)), (b"j" * 14, Result(APPLIED, 2))])
    judge.acknowledged("n1", ID, ACK_ALL, Result(APPLIED, 1))
    judge.acknowledged("n1", ID, ACK_MAJORITY, None)
    judge.read("n1", b"k", b"a", 1)
    judge.read("n1", b"k", b"b", 2)
    judge.read("n1", b"k", None, 0)
    judge.healed({"n1": (2, {b"k": b"b"})})


def test_two_batches_in_one_slot_are_seen(judge):
    """A second, different batch for a committed slot breaks the rule."""
    with broken("one batch"):
        judge.committed_slot("n2", 1, put(b"x"))


def test_a_gap_is_seen(judge):
    """Committing a slot above one that nobody committed breaks the rule."""
    with broken("in order"):
        judge.committed_slot("n2", 4, put(b"x"))


def test_applying_what_nobody_committed_is_seen(judge):
    """A digest of an uncommitted slot breaks the rule."""
    with broken("in order"):
        judge.digest("n1", 3, b"d")


def test_different_digests_are_seen(judge):
    """Two digests after the same slot break the rule."""
    judge.digest("n1", 2, b"d")
    with broken("equal digests"):
        judge.digest("n2", 2, b"e")


@pytest.mark.parametrize(
    "results",
    [
        [(ID, Result(APPLIED, 2))],
        [(ID, Result(0, 1))],
        [(KEYED, Result(APPLIED, 1))],
        [],
        [(ID, Result(APPLIED, 1)), (ID, Result(APPLIED, 1))],
    ],
)
def test_wrong_missing_and_additional_results_are_seen(judge, results):
    """A result that the model does not give breaks the rule."""
    with broken("same results"):
        judge.results("n1", 0, 1, results)


def test_an_operation_applied_twice_within_its_window_is_seen(judge):
    """A machine that applies an id again, instead of repeating the first result, gives a wrong result."""
    judge.committed_slot("n1", 3, put(b"a"))
    assert judge.model.at(b"k", 3).value == b"b"
    with broken("same results"):
        judge.results("n1", 2, 3, [(ID, Result(APPLIED, 3))])


def test_a_contacts_id_that_takes_effect_twice_is_seen(judge):
    """A contact's own id that takes effect again after its window breaks the rule; a client's key may."""
    judge.committed_slot("n1", 3, put(b"c", KEYED))
    for slot in range(4, 14):
        judge.committed_slot("n1", slot, encode_batch(0))
    judge.committed_slot("n1", 14, put(b"c", KEYED, base=13))
    with broken("at most once"):
        judge.committed_slot("n1", 15, put(b"a", ID, base=14))


@pytest.mark.parametrize("result", [Result(APPLIED, 2), Result(0, 1), None])
def test_an_answer_that_the_log_does_not_give_is_seen(judge, result):
    """An ack=all answer must be what some committed slot gave."""
    with broken("acknowledged"):
        judge.acknowledged("n1", ID, ACK_ALL, result)


def test_an_answer_for_an_uncommitted_operation_is_seen(judge):
    """An ack=all answer before the commit breaks the rule; ack=one promises nothing."""
    judge.acknowledged("n1", b"x" * 14, ACK_ONE, None)
    judge.healed({"n1": (2, {b"k": b"b"})})
    with broken("acknowledged"):
        judge.acknowledged("n1", b"x" * 14, ACK_ALL, Result(APPLIED, 3))


def test_a_lost_majority_write_is_seen(judge):
    """What ack=majority reported must be in the log after healing."""
    judge.acknowledged("n1", b"x" * 14, ACK_MAJORITY, None)
    with broken("acknowledged"):
        judge.healed({"n1": (2, {b"k": b"b"})})


@pytest.mark.parametrize(("value", "slot"), [(b"a", 2), (b"b", 1), (None, 1), (b"b", 3)])
def test_a_read_of_no_past_state_is_seen(judge, value, slot):
    """A read must show the state after the slot that the node has applied, and that slot must be committed."""
    with broken("past state"):
        judge.read("n1", b"k", value, slot)


def test_an_illegal_history_is_seen(judge):
    """A read that misses a write that ended before it breaks the rule."""
    with broken("linearizable"):
        judge.history([Operation("c", b"k", Put(b"a"), 1, 2), Operation("d", b"k", Get(), 3, 4, None)])


def test_different_stores_and_missing_slots_are_seen(judge):
    """After healing a store that differs from the model is a violation, one that is behind is stuck."""
    with broken("equal stores"):
        judge.healed({"n1": (2, {b"k": b"a"})})
    with broken("equal stores"):
        judge.healed({"n1": (2, {b"k": b"b", b"l": b"x"})})
    with pytest.raises(Stuck):
        judge.healed({"n1": (1, {b"k": b"a"})})
