import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.journal import checkpoints
from replicad.core.journal.checkpoints import (
    MAGIC,
    CheckpointDecoder,
    CheckpointEncoder,
    CheckpointHeader,
    write_part,
)
from replicad.core.kv.digest import StateDigest
from replicad.core.kv.machine import Machine, write_state
from replicad.core.kv.memory_store import MemoryStore
from replicad.core.model.errors import DamageError, InvariantError
from replicad.core.model.operations import CONFIGURATION, encode_batch
from tests.core.kv.state_builders import apply_all, batch, put


def filled_machine(keys=40, size=30):
    machine = Machine(MemoryStore(), 100)
    apply_all(machine, [encode_batch(CONFIGURATION, b"members")])
    apply_all(machine, [batch(*[put(b"k%d" % (n + i), bytes([n]) * size) for i in range(4)]) for n in range(keys)])
    return machine


def header_of(machine, **changes):
    header = CheckpointHeader(1, "c", "g", machine.applied_slot, machine.index, machine.digest, machine.configuration)
    return header._replace(**changes)


def encoded(machine, **changes):
    return b"".join(CheckpointEncoder(header_of(machine, **changes), machine.store))


def decoded(data, piece=1 << 30):
    """The parts of a whole file, fed in pieces; raises as the decoder does."""
    decoder = CheckpointDecoder(StateDigest())
    parts = [part for at in range(0, len(data), piece) for part in decoder.feed(data[at : at + piece])]
    return decoder.finish(), parts


GOOD = encoded(filled_machine())


@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 30])
def test_a_machine_comes_back_from_its_checkpoint(piece, monkeypatch):
    """Loading the decoded parts gives an equal machine, whatever the size of the pieces and with many frames."""
    monkeypatch.setattr(checkpoints, "FRAME_BYTES", 500)
    machine = filled_machine()
    header, parts = decoded(encoded(machine), piece)
    assert header == header_of(machine)
    assert len(parts) > 10
    store = MemoryStore()
    store.begin()
    for part in parts:
        write_part(store, part)
    write_state(store, header.slot, header.last_index, header.digest, header.configuration)
    store.commit()
    again = Machine(store, 100)
    assert (again.digest, again.index, again.configuration) == (machine.digest, machine.index, b"members")
    value = batch(put(b"new"))
    assert apply_all(again, [value]) == apply_all(machine, [value])
    assert again.digest == machine.digest


def test_an_empty_machine_has_a_checkpoint():
    """No keys, no requests, no configuration: still a file that verifies."""
    header, parts = decoded(encoded(Machine(MemoryStore(), 1)))
    assert (header.slot, header.digest, len(parts)) == (0, bytes(16), 2)


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_changed_byte_is_damage(at, change):
    """One byte with another value anywhere in the file is found."""
    data = bytearray(GOOD)
    data[at] ^= change
    with pytest.raises(DamageError):
        decoded(bytes(data))


@settings(max_examples=100)
@given(st.integers(0, len(GOOD) - 1))
def test_a_file_that_was_cut_short_is_damage(length):
    """A prefix of a file is never taken for a file."""
    with pytest.raises(DamageError):
        decoded(GOOD[:length])


def test_bytes_after_the_end_are_damage():
    """Neither a second file nor a few stray bytes may follow the trailer."""
    for tail in (b"x", GOOD, GOOD[len(MAGIC) :]):
        with pytest.raises(DamageError):
            decoded(GOOD + tail)


def test_frames_in_another_order_are_damage(monkeypatch):
    """A frame that verifies where it was written does not verify elsewhere."""
    monkeypatch.setattr(checkpoints, "FRAME_BYTES", 500)
    pieces = list(CheckpointEncoder(header_of(machine := filled_machine()), machine.store))
    pieces[3], pieces[4] = pieces[4], pieces[3]
    with pytest.raises(DamageError):
        decoded(b"".join(pieces))


@pytest.mark.parametrize("change", [{"digest": b"d" * 16}, {"configuration": b"others"}])
def test_content_that_does_not_add_up_is_damage(change):
    """A file whose frames are all sound, but whose content has another digest than its header says, is refused."""
    with pytest.raises(DamageError, match="digest"):
        decoded(encoded(filled_machine(), **change))


def test_a_decayed_entry_is_damage():
    """An entry that changed in the store before the checkpoint was written is found, however sound the file."""
    machine = filled_machine()
    store = machine.store
    store.begin()
    store.put(b"k1", store.get(b"k1")[:-1] + b"!")
    store.commit()
    with pytest.raises(DamageError, match="k1"):
        decoded(encoded(machine))


def framed(*frames):
    """A file of frames with right checksums: ``(kind, content)`` each."""
    encoder = CheckpointEncoder(None, None)
    encoder._position = len(MAGIC)
    return MAGIC + b"".join(encoder._frame(kind, content) for kind, content in frames)


HEAD = (1, (2, 1, "c", "g", 0, 0, bytes(16), b""))


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "cut short"),
        ([HEAD], "cut short"),
        ([(4, (0, 0, bytes(16)))], "wrong place"),
        ([HEAD, HEAD], "wrong place"),
        ([HEAD, (9, [])], "unknown kind"),
        ([HEAD, (2, 5)], "not a list"),
        ([HEAD, (2, [b"k"])], "pairs"),
        ([HEAD, (2, ["k", b"v"])], "malformed"),
        ([HEAD, (3, [2, b"r", 1, b"r"])], "out of order"),
        ([HEAD, (3, [2, b"r"]), (2, [])], "entries after"),
        ([HEAD, (4, (1, 0, bytes(16)))], "counts 1"),
        ([HEAD, (4, (0, 0))], "wrong types"),
        ([HEAD, (4, (0, 0, b"x" * 16))], "digest"),
        ([(1, (1, *HEAD[1][1:]))], "format version 1"),
        ([(1, (2, "1", *HEAD[1][2:]))], "wrong types"),
        ([(1, ())], "format version None"),
    ],
)
def test_sound_frames_with_nonsense_are_damage(frames, reason):
    """A right checksum does not make a frame right: each fault has its own sentence."""
    with pytest.raises(DamageError, match=reason):
        decoded(framed(*frames))


def test_a_monstrous_length_is_refused_before_it_is_read():
    """A frame that claims more than the maximum is damage at once, not a reason to wait for gigabytes."""
    with pytest.raises(DamageError, match="claims"):
        CheckpointDecoder(StateDigest()).feed(MAGIC + b"\xff" * 8)


def test_an_encoder_is_used_once():
    """A second pass over an encoder would give frames at wrong positions."""
    encoder = CheckpointEncoder(header_of(machine := filled_machine()), machine.store)
    list(encoder)
    with pytest.raises(InvariantError):
        list(encoder)


@pytest.mark.parametrize(
    ("known", "named"),
    [(("cluster", "life"), ("cluster", "life")), (("cluster", ""), ("", "")), (("", ""), ("", ""))],
)
def test_a_state_without_a_configuration_names_both_ids_or_none(known, named):
    """One alone means that the group was formed before there were ids: an older release may have to read the file."""
    header = checkpoints.header_of((3, 3, bytes(16), b""), "c", "g", 3, 2, known)
    assert (header.cluster_id, header.incarnation) == named
