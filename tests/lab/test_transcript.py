from replicad.core.model.messages import Accept, Heartbeat, encode_message
from replicad.core.model.operations import NO_CAS, OPERATIONS, PUT, encode_batch, encode_operation
from replicad.lab.transcript import DELIVERED, LOST, Transcript

BATCH = encode_batch(OPERATIONS, [encode_operation((b"i" * 14, 0, PUT, b"k", b"v", 0, NO_CAS))])
ACCEPT = Accept(1_000_002, 1, 7, 6, (BATCH,))


def test_a_message_is_one_readable_line():
    """A line says when, from where, to where, and what, batches decoded."""
    transcript = Transcript()
    transcript.message(1_250_000, "n1", DELIVERED, "n2", ACCEPT, encode_message(ACCEPT))
    assert transcript.lines() == ["  1.250000 n1 -> n2 Accept epoch=1.2 start=1 first=7 committed=6 values=[{put k=v}]"]


def test_a_sink_gets_every_line_and_only_the_last_are_kept():
    """The sink sees all lines; the transcript keeps as many as asked."""
    seen = []
    transcript = Transcript(keep=2, sink=seen.append)
    for number in range(4):
        transcript.note(number, "n1", f"note {number}")
    assert len(seen) == 4
    assert transcript.lines() == seen[2:]


def test_the_hash_sees_everything():
    """Time, parties, fate and content all change the hash; equal runs have equal hashes."""
    variants = [
        (1, "n1", DELIVERED, "n2"),
        (2, "n1", DELIVERED, "n2"),
        (1, "n1", LOST, "n2"),
        (1, "n1", DELIVERED, "n3"),
    ]
    digests = []
    for variant in [*variants, variants[0]]:
        transcript = Transcript()
        transcript.message(*variant, ACCEPT, encode_message(ACCEPT))
        digests.append(transcript.digest())
    assert len(set(digests)) == 4
    assert digests[0] == digests[4]


def test_fields_that_say_nothing_are_left_out():
    """Boot ids and empty fields do not clutter a line."""
    beat = Heartbeat(1_000_001, 3, 1, 9, 9, 9, 12345, 0, 0, 0, 0, b"", 0, b"")
    transcript = Transcript()
    transcript.message(0, "n1", DELIVERED, "n2", beat, encode_message(beat))
    assert "12345" not in transcript.lines()[0]
    assert "checkpoint_digest" not in transcript.lines()[0]
