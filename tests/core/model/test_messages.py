from dataclasses import fields, replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.model import messages
from replicad.core.model.messages import (
    BULK,
    MESSAGES,
    Introduce,
    Message,
    decode_message,
    encode_message,
    from_wire,
    to_wire,
)

KINDS = list(MESSAGES.values())
NUMBER = st.integers(0, 2**63 - 1)
ENTRY = st.tuples(NUMBER, NUMBER, NUMBER, st.binary(max_size=8))
VALUES = {
    "int": NUMBER,
    "bool": st.booleans(),
    "bytes": st.binary(max_size=8),
    "str": st.text(max_size=8),
    "tuple[bytes, ...]": st.lists(st.binary(max_size=8), max_size=3).map(tuple),
    "tuple[int, ...]": st.lists(NUMBER, max_size=3).map(tuple),
    "tuple[str, ...]": st.lists(st.text(max_size=8), max_size=3).map(tuple),
    "tuple[Entry, ...]": st.lists(ENTRY, max_size=3).map(tuple),
    "tuple[Summary, ...]": st.lists(ENTRY, max_size=3).map(tuple),
}
WRONG = {
    "int": [-1, 2**63, True, 1.5, b"1", "1", None],
    "bool": [1, 0, None, "yes"],
    "bytes": ["text", 1, None],
    "str": [b"bytes", 1, None],
    "tuple[bytes, ...]": [b"bytes", None, ("text",), (1,)],
    "tuple[int, ...]": [1, ("1",), (-1,), (2**63,), (True,)],
    "tuple[str, ...]": ["text", (1,), (b"bytes",), None],
    "tuple[Entry, ...]": [
        (1,),
        ((1, 2, 3),),
        ((1, 2, -3, b""),),
        ((2**63, 2, 3, b""),),
        ((1, 2, 3, "text"),),
        ([1, 2, 3, b""],),
    ],
    "tuple[Summary, ...]": [((1, 2, 3, 4),), ((True, 2, 3, b""),)],
}


def good(kind):
    """A strategy for valid messages of one kind."""
    values = {field.name: VALUES[field.type] for field in fields(kind)}
    if kind is Introduce:
        values["state"] = st.sampled_from(["empty", "lost", "formed"])
    return st.builds(kind, **values)


def example(kind):
    """One valid message of a kind."""
    plain = {"int": 1, "bool": True, "bytes": b"b", "str": "formed"}
    return kind(**{field.name: plain.get(field.type, ()) for field in fields(kind)})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_message_survives_the_wire(kind):
    """What arrives equals what was sent, for every kind and any content."""

    @given(good(kind))
    def check(message):
        assert decode_message(encode_message(message)) == message

    check()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_field_of_a_wrong_type_is_refused_by_its_name(kind):
    """Whatever field is wrong, the message does not reach a handler, and the sentence says which field it was."""
    parts = list(to_wire(example(kind)))
    assert from_wire(tuple(parts)) == example(kind)
    for position, field in enumerate(fields(kind), 1):
        for wrong in WRONG[field.type]:
            changed = (*parts[:position], wrong, *parts[position + 1 :])
            with pytest.raises(ValueError, match=f"{kind.__name__}: .*{field.name}"):
                from_wire(changed)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_field_too_many_or_too_few_is_refused(kind):
    """A message of another version of the protocol is not guessed at."""
    parts = to_wire(example(kind))
    for changed in ((*parts, 0), parts[:-1]):
        with pytest.raises(ValueError, match=r"fields, not|non-empty list|unknown message number"):
            from_wire(changed)


@pytest.mark.parametrize("parts", [(), [1, 2], None, 5, {1: 2}, (0,), (999,), ("1",), (True, 1, 1, 1), (None,)])
def test_what_is_no_message_is_refused(parts):
    """No list, an empty one, or an unknown number."""
    with pytest.raises(ValueError, match=r"non-empty list|unknown message number"):
        from_wire(parts)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_value_error(data):
    """Broken frames raise ValueError and nothing else."""
    try:
        message = decode_message(data)
    except ValueError:
        return
    assert isinstance(message, Message)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats()
        | st.text(max_size=3)
        | st.binary(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_structure_is_a_message_or_a_value_error(structure):
    """Well-formed msgpack of any shape raises ValueError unless it is a message."""
    try:
        message = decode_message(msgpack.packb(structure))
    except ValueError:
        return
    assert message.invalid() is None


def test_every_message_has_a_number_of_its_own():
    """Numbers are unique, and every kind that is declared is registered under its own."""
    declared = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Message)]
    assert {kind.number: kind for kind in declared if kind is not Message} == MESSAGES
    assert len(MESSAGES) == len(declared) - 1
    assert set(BULK) <= set(KINDS)


def test_an_unknown_state_of_a_newcomer_is_refused():
    """Introduce names one of three states."""
    with pytest.raises(ValueError, match="state 'full'"):
        from_wire(to_wire(replace(example(Introduce), state="full")))
