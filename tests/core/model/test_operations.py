import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.model.operations import (
    CHECKPOINT,
    CHECKPOINT_BATCH,
    CONFIGURATION,
    NOOP,
    NOOP_BATCH,
    OPERATIONS,
    REQUEST_ID_BYTES,
    Operation,
    decode_batch,
    decode_operation,
    encode_batch,
    encode_operation,
    make_request_id,
)

OPERATION = st.builds(
    Operation,
    st.binary(min_size=14, max_size=16),
    st.integers(0, 2**60),
    st.integers(1, 3),
    st.binary(max_size=20),
    st.binary(max_size=20),
    st.integers(0, 2**63),
    st.integers(-1, 2**60),
)


@given(OPERATION)
def test_an_operation_survives_its_encoding(operation):
    """What is decoded equals what was encoded."""
    assert decode_operation(encode_operation(operation)) == operation


@given(st.lists(OPERATION, max_size=4))
def test_a_batch_carries_the_contacts_own_bytes(operations):
    """Operations travel in a batch as the very bytes that the contact made."""
    encoded = tuple(encode_operation(operation) for operation in operations)
    assert decode_batch(encode_batch(OPERATIONS, encoded)) == (OPERATIONS, encoded)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOOP_BATCH, (NOOP, None)),
        (CHECKPOINT_BATCH, (CHECKPOINT, None)),
        (encode_batch(CONFIGURATION, b"c"), (CONFIGURATION, b"c")),
    ],
)
def test_the_other_kinds_of_batch(value, expected):
    """No-ops, checkpoint markers and configurations are batches too."""
    assert decode_batch(value) == expected


@given(st.binary(max_size=30))
def test_other_bytes_are_no_operation_and_no_batch(data):
    """Any bytes decode or raise ValueError, nothing else."""
    for decode in (decode_operation, decode_batch):
        try:
            decode(data)
        except ValueError:
            continue


@pytest.mark.parametrize("fields", [({}, None), ([], None), (4, None), (1,), (1, [], 0), {1: 2}, 7, "no-op"])
def test_what_is_nearly_a_batch_is_none(fields):
    """An unknown kind, a wrong length or something that is no list is refused as a ValueError."""
    with pytest.raises(ValueError, match=r"not a batch|not allowed"):
        decode_batch(msgpack.packb(fields))


@pytest.mark.parametrize("fields", [(), (b"i" * 14, 0, 1, b"k", b"v", 0), 5, {}])
def test_what_is_nearly_an_operation_is_none(fields):
    """A wrong number of fields, or no list, is refused."""
    with pytest.raises(ValueError, match="not an operation"):
        decode_operation(msgpack.packb(fields))


@given(
    st.tuples(st.integers(0, 2**63), st.integers(0, 2**48 - 1)),
    st.tuples(st.integers(0, 2**63), st.integers(0, 2**48 - 1)),
)
def test_request_ids_are_unique(one, other):
    """Two requests of one process, or of two, never share an id."""
    assert (make_request_id(*one) == make_request_id(*other)) == (one == other)
    assert len(make_request_id(*one)) == REQUEST_ID_BYTES
