from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.model.limits import FRAME_BYTES_MAX
from replicad.core.model.messages import Accept, Accepted, Forward, Heartbeat
from replicad.core.model.messages.base import INTEGER_MAX
from replicad.node import handshake
from replicad.node.framing import (
    HEADER,
    PING,
    PONG,
    FrameBuffer,
    FrameError,
    frame_bytes,
    pack_frame,
    pack_item,
    pack_probe,
    unpack_items,
)
from replicad.node.handshake import Hello, RefusedError, compare
from tests.node.bad_frames import BAD_FRAMES

LIMIT = 1 << 20
HELLO = Hello("c", "n1", "n2", "d" * 16, "k", "control", 1, 1, secured=False, nonce=b"n" * 16)

numbers = st.integers(0, INTEGER_MAX)
messages = st.one_of(
    st.builds(Accepted, numbers, numbers, st.booleans()),
    st.builds(Accept, numbers, numbers, numbers, numbers, st.lists(st.binary(max_size=400), max_size=4).map(tuple)),
    st.builds(Forward, numbers, st.lists(st.binary(max_size=200), max_size=5).map(tuple)),
    st.builds(Heartbeat, *[numbers] * 11, st.binary(max_size=16), numbers, st.binary(max_size=16)),
)
conversations = st.lists(st.lists(st.tuples(st.text(max_size=8), messages), min_size=1, max_size=18), max_size=4)


def feed(buffer, data, sizes=None, payloads=None):
    """Write `data` into the buffer in pieces of the given sizes (in turn), return the payloads that came out."""
    payloads = [] if payloads is None else payloads
    position, turn = 0, 0
    while position < len(data):
        space = buffer.writable()
        assert len(space) > 0
        count = min(len(space), len(data) - position, sizes[turn % len(sizes)] if sizes else len(data))
        space[:count] = data[position : position + count]
        for payload in buffer.received(count):
            payloads.append(bytes(payload))  # one by one: what came before an error counts
        position, turn = position + count, turn + 1
    return payloads


def to_bytes(items):
    return b"".join(pack_frame([pack_item(group, message) for group, message in items]))


@given(conversations, st.lists(st.integers(1, 5000), min_size=1, max_size=8))
def test_what_was_packed_comes_out_whatever_the_cuts(conversation, sizes):
    """Frames survive being cut anywhere and glued together, through a buffer smaller than they are."""
    data = b"".join(to_bytes(items) for items in conversation)
    payloads = feed(FrameBuffer(LIMIT, size=64), data, sizes)
    assert [unpack_items(payload)[0] for payload in payloads] == conversation


@pytest.mark.parametrize("size", [0, 255 * 1024, 256 * 1024, 300 * 1024, 2 << 20, FRAME_BYTES_MAX - 64])
def test_large_frames_survive(size):
    """Joined or in pieces, up to the limit; and the buffer is good for small ones afterwards."""
    large, small = Accept(1, 1, 1, 0, (bytes(size),)), Accepted(1, 2, gap=True)
    data = to_bytes([("g", small), ("g", large)]) + to_bytes([("g", small)])
    payloads = feed(FrameBuffer(FRAME_BYTES_MAX), data, [65_536])
    assert [unpack_items(payload)[0] for payload in payloads] == [[("g", small), ("g", large)], [("g", small)]]


def test_many_items_need_the_long_array_header():
    """15 and 16 items are on two sides of msgpack's border."""
    for count in (1, 15, 16, 512):
        items = [("g", Accepted(1, number, gap=False)) for number in range(count)]
        [payload] = feed(FrameBuffer(LIMIT), to_bytes(items))
        assert unpack_items(payload)[0] == items


def test_probes_are_told_from_messages():
    """PING and PONG keep their stamp, beside messages."""
    frame = b"".join(
        pack_frame([pack_probe(PING, 2**63), pack_item("g", Accepted(1, 2, gap=True)), pack_probe(PONG, 1)])
    )
    found, probes = unpack_items(frame[HEADER.size :])
    assert found == [("g", Accepted(1, 2, gap=True))]
    assert probes == [(PING, 2**63), (PONG, 1)]


@given(conversations, st.data())
def test_a_flipped_bit_is_never_taken_for_a_message(conversation, data):
    """Everything before the damage comes out unchanged; of the damaged frame and what follows, nothing wrong does."""
    frames = [to_bytes(items) for items in conversation]
    raw = bytearray(b"".join(frames))
    if not raw:
        return
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= 1 << data.draw(st.integers(0, 7))
    out = []
    buffer = FrameBuffer(LIMIT, size=64)
    with suppress(FrameError):
        feed(buffer, bytes(raw), [97], out)
    whole, end = 0, 0
    for frame in frames:
        end += len(frame)
        whole += end <= position
    assert [unpack_items(payload)[0] for payload in out] == conversation[:whole]


@given(st.binary(max_size=2000), st.lists(st.integers(1, 300), min_size=1, max_size=5))
def test_random_bytes_give_frame_errors_only(data, sizes):
    """Nothing but FrameError comes out of garbage, and the buffer never grows beyond the limit."""
    buffer = FrameBuffer(4096, size=64)
    with suppress(FrameError):
        feed(buffer, data, sizes)
    assert len(buffer.writable()) <= 4096 + HEADER.size


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(
    st.binary(max_size=300)
    | anything.map(msgpack.packb)
    | st.lists(st.tuples(st.text(max_size=3), anything)).map(msgpack.packb)
)
def test_any_payload_is_understood_or_refused(payload):
    """A payload with a right checksum but any content is a list of valid messages or a FrameError."""
    for reader in (unpack_items, handshake.parse):
        with suppress(FrameError):
            reader(payload)


@given(anything)
def test_any_hello_is_understood_or_refused(content):
    """A hello of any content raises nothing but FrameError."""
    with pytest.raises(FrameError):
        handshake.parse_hello(content)


def test_a_refusal_is_text_that_can_be_printed():
    """Nobody who sends one has proved anything: lists, maybe too deep for a repr, are refused; escapes are hidden."""
    for depth in (1, 900, 1000, 1010, 1020):
        with pytest.raises(FrameError, match="a refusal that is not text"):
            handshake.parse(b"\x81\xa7refused" + b"\x91" * depth + b"\xc0")
    assert handshake.parse(handshake.pack_refused("no:\x1b[2J\nfailed")) == ("refused", "no:?[2J?failed")


@pytest.mark.parametrize("field", ["cluster", "node", "wanted", "disk", "checksum", "channel", "cluster_id"])
def test_a_hello_holds_nothing_that_cannot_be_printed(field):
    """What is refused is logged and shown with the words of the hello."""
    content = handshake.parse(HELLO.pack())[1]
    with pytest.raises(FrameError, match=f"a hello whose {field} holds what cannot be printed"):
        handshake.parse_hello({**content, field: "n1\n\x1b[2J"})


def test_a_reason_does_not_hold_all_that_was_sent():
    """It is logged, and remembered."""
    for number in ("n" * 1_000_000, 1 << 63):
        with pytest.raises(FrameError) as refusal:
            unpack_items(msgpack.packb([("g", (number,))]))
        assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("row", BAD_FRAMES, ids=lambda row: row.what)
def test_a_bad_frame_gets_its_reason(row):
    """Every row is refused with the phrase that its log line will have."""
    with pytest.raises(FrameError) as refusal:
        [unpack_items(payload) for payload in feed(FrameBuffer(FRAME_BYTES_MAX), row.data)]
    assert row.phrase in str(refusal.value)


def test_frames_before_a_bad_one_are_taken():
    """The error comes when the bad frame's turn comes."""
    buffer = FrameBuffer(LIMIT)
    data = frame_bytes(b"\x90") + frame_bytes(b"\x90") + HEADER.pack(0, 0)
    buffer.writable()[: len(data)] = data
    frames = buffer.received(len(data))
    assert [bytes(next(frames)), bytes(next(frames))] == [b"\x90", b"\x90"]
    with pytest.raises(FrameError, match="empty"):
        next(frames)


def test_a_hello_survives_and_may_say_more():
    """Unknown keys of a later version are ignored."""
    kind, content = handshake.parse(HELLO.pack())
    assert kind == "hello"
    assert handshake.parse_hello(content) == HELLO
    assert handshake.parse_hello({**content, "colour": "green"}) == HELLO


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"), [((1, 1), (1, 1), 1), ((1, 2), (2, 3), 2), ((2, 3), (1, 2), 2), ((1, 2), (1, 2), 2)]
)
def test_the_highest_common_version_is_agreed(ours, theirs, agreed):
    """Releases N and N-1 find the version that both speak."""
    assert compare(versions(*ours), versions(*theirs)).version == agreed


def versions(low, high):
    return Hello("c", "n1", "n2", "d", "k", "control", low, high, secured=False, nonce=b"n" * 16)


def test_versions_without_overlap_are_refused():
    """The sentence names both ranges and the way out."""
    with pytest.raises(RefusedError, match="1 to 1 at n1 and 2 to 3 at n1; upgrade one release at a time"):
        compare(versions(2, 3), versions(1, 1))


def test_a_proof_fits_one_conversation_only():
    """Another role, another payload or another secret gives another proof; no secret gives none."""
    proofs = [
        handshake.prove(b"s" * 16, "dialing", b"a", b"b"),
        handshake.prove(b"s" * 16, "accepting", b"a", b"b"),
        handshake.prove(b"t" * 16, "dialing", b"a", b"b"),
        handshake.prove(b"s" * 16, "dialing", b"ab", b""),
        handshake.prove(b"s" * 16, "dialing", b"a", b"c"),
    ]
    assert len(set(proofs)) == len(proofs)
    assert handshake.prove(b"", "dialing", b"a", b"b") == b""
    for given_proof in (b"", None, "text", proofs[1]):
        with pytest.raises(RefusedError):
            handshake.check_proof(proofs[0], given_proof)
