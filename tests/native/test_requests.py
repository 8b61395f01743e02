import pytest

from replicad.core.model.errors import RequestError
from replicad.core.model.operations import ACK_ALL, ACK_MAJORITY, ACK_ONE, DELETE, NO_CAS, PUT
from replicad.native.requests import (
    LEADER,
    NO_ACK,
    PLAIN,
    STALE,
    Options,
    ack_of,
    check_get,
    check_write,
    code_of,
    parse_options,
)
from replicad.native.wire import NUMBER_MAX

ID = bytes(16)


def test_no_options_are_the_plain_ones():
    assert parse_options({}) == PLAIN == Options(LEADER, NUMBER_MAX, "", 0, NO_ACK)


def test_all_options():
    given = {"level": 2, "max_stale_ms": 100, "seen": ("default.1", 7), "ack": 1}
    assert parse_options(given) == Options(STALE, 100, "default.1", 7, ACK_MAJORITY)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "are a map"),
        ({"levle": 1}, "there is no option 'levle'; there is: level, max_stale_ms, seen, ack"),
        ({7: 1}, "there is no option '7'"),
        ({"level": 3}, "'level' must be"),
        ({"level": True}, "'level' must be"),
        ({"level": None}, "'level' must be"),
        ({"level": 2, "max_stale_ms": -1}, "'max_stale_ms' must be"),
        ({"level": 2, "max_stale_ms": 1.5}, "'max_stale_ms' must be"),
        ({"max_stale_ms": 5}, "together with level 2"),
        ({"ack": 3}, "'ack' must be"),
        ({"ack": -1}, "'ack' must be"),
        ({"ack": "all"}, "'ack' must be"),
        ({"seen": 5}, "'seen' must be"),
        ({"seen": ("g",)}, "'seen' must be"),
        ({"seen": (b"g", 1)}, "'seen' must be"),
        ({"seen": ("g", -1)}, "'seen' must be"),
        ({"seen": ("g", 2**64)}, "'seen' must be"),
        ({"seen": ("g" * 129, 1)}, "longer than 128"),
    ],
)
def test_bad_options(options, sentence):
    with pytest.raises(RequestError, match=sentence) as caught:
        parse_options(options)
    assert caught.value.kind.name == "bad_request"


@pytest.mark.parametrize(
    ("operation", "write"),
    [
        ((PUT, b"k", b"v"), (PUT, b"k", b"v", 0, NO_CAS, None)),
        ((PUT, b"k", b"", 7), (PUT, b"k", b"", 7, NO_CAS, None)),
        ((PUT, b"k", b"v", 0, 9), (PUT, b"k", b"v", 0, 9, None)),
        ((PUT, b"k", b"v", NUMBER_MAX, None, ID), (PUT, b"k", b"v", NUMBER_MAX, NO_CAS, ID)),
        ((DELETE, b"k"), (DELETE, b"k", b"", 0, NO_CAS, None)),
        ((DELETE, b"k", 0), (DELETE, b"k", b"", 0, 0, None)),
        ((DELETE, b"k", None, ID), (DELETE, b"k", b"", 0, NO_CAS, ID)),
    ],
)
def test_writes(operation, write):
    assert code_of(operation) == operation[0]
    assert tuple(check_write(operation, 10)) == write


@pytest.mark.parametrize(
    ("operation", "kind", "sentence"),
    [
        ((PUT, b"k"), "bad_request", "a PUT is an array"),
        ((PUT, b"k", b"v", 0, 0, ID, 1), "bad_request", "a PUT is an array"),
        ((DELETE,), "bad_request", "a DELETE is an array"),
        ((PUT, "k", b"v"), "bad_request", "a key must be binary"),
        ((PUT, b"", b"v"), "bad_request", "the key is empty"),
        ((PUT, b"k" * 501, b"v"), "too_large", "501 bytes; at most 500"),
        ((PUT, b"/k", b"v"), "bad_request", "leave out the leading slash"),
        ((PUT, b"\xff", b"v"), "bad_request", "not UTF-8: byte 1"),
        ((PUT, b"k", "v"), "bad_request", "a value must be binary"),
        ((PUT, b"k", b"v" * 11), "too_large", "11 bytes; at most 10"),
        ((PUT, b"k", b"v", -1), "bad_request", "flags must be"),
        ((PUT, b"k", b"v", True), "bad_request", "flags must be"),
        ((PUT, b"k", b"v", NUMBER_MAX + 1), "bad_request", "flags must be"),
        ((PUT, b"k", b"v", 0, -1), "bad_request", "cas must be"),
        ((DELETE, b"k", "0"), "bad_request", "cas must be"),
        ((DELETE, b"k", None, b"short"), "bad_request", "an id must be binary, 16 bytes"),
        ((DELETE, b"k", None, "x" * 16), "bad_request", "an id must be binary"),
    ],
)
def test_bad_writes(operation, kind, sentence):
    with pytest.raises(RequestError, match=sentence) as caught:
        check_write(operation, 10)
    assert caught.value.kind.name == kind


@pytest.mark.parametrize("operation", [None, 7, b"abc", (), ("1", b"k"), (True, b"k"), (3, b"k"), (1.0, b"k"), ([],)])
def test_no_operation(operation):
    with pytest.raises(RequestError):
        code_of(operation)


@pytest.mark.parametrize("operation", [(0,), (0, b"k", b"v"), (0, "k"), (0, b"")])
def test_bad_reads(operation):
    with pytest.raises(RequestError):
        check_get(operation)


def test_when_a_write_is_acknowledged():
    """The request's word counts, then the group's; a condition needs the result, so it always waits for all."""
    plain = check_write((PUT, b"k", b"v"), 10)
    conditional = check_write((PUT, b"k", b"v", 0, 0), 10)
    assert ack_of(plain, PLAIN, ACK_ONE) == ACK_ONE
    assert ack_of(plain, Options(ack=ACK_MAJORITY), ACK_ONE) == ACK_MAJORITY
    assert ack_of(conditional, PLAIN, ACK_ONE) == ACK_ALL
    with pytest.raises(RequestError, match="cas needs one"):
        ack_of(conditional, Options(ack=ACK_ONE), ACK_ALL)
