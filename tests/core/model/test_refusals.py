"""Refusals: a code that programs decide by, a sentence that people read; and what older peers say in words alone."""

import pytest

from replicad.core.model.limits import PEER_VERSION_MIN
from replicad.core.model.messages import ChangeAnswer, ChangeOutcome
from replicad.core.model.older_refusals import from_sentence
from replicad.core.model.refusals import Course, Refusal, RefusalCode, from_wire

OLDER = [
    ("there is no change 'rename'; there are add, promote, demote, remove, protocol, move", "malformed"),
    ("add needs a name of 1 to 255 characters", "malformed"),
    ("there is no protocol 'ask again'; there are remote-write and active", "unknown_protocol"),
    ("the group's configuration has changed since this was asked for: look at it, and ask again", "outdated"),
    ("the office is being handed over: ask again in a moment", "handing_over"),
    ("another change is under way (add n4): ask again when it is done", "busy"),
    ("another change is under way (a disk is re-admitted): ask again when it is done", "busy"),
    ("n2 is a voter already: demote it if it shall be a mirror", "already_voter"),
    ("the group has 256 mirrors, and that is the most: remove one first", "too_many_mirrors"),
    ("the group has 15 voters, and that is the most: demote one first", "too_many_voters"),
    ("n8 is no voter of this group", "not_voter"),
    ("n9 is no voter of this group: only a voter can be its coordinator", "not_voter"),
    ("n3 is not in the view: it must answer and have caught up before it takes the office", "not_in_view"),
    ("n8 is no mirror of this group: add it first, and promote it once it has caught up", "not_mirror"),
    ("n9 was not heard of lately: see that it runs and reaches n1", "silent"),
    ("n9 has not begun to follow the group: promote it once it has caught up", "behind"),
    ("n9 is 300 slots behind: promote it once it has caught up", "behind"),
    (
        "with n9 a majority would be 3 of 4 voters, and only 2 answer: bring back or remove those that are silent",
        "no_majority",
    ),
    (
        "without n3 a majority would be 2 of 2 voters, and only 1 answer: bring back those that are silent first",
        "no_majority",
    ),
    ("n1 is the last voter: promote another first, and move the office there", "last_voter"),
    ("n1 is the coordinator: move the office to another voter first", "coordinates"),
    ("the moon is full", "other"),
]
"""Every sentence of version 1, and what it means."""


def test_a_code_travels_and_comes_back():
    """Names on the wire are different, and none is empty: that means "done"."""
    assert len({code.wire for code in RefusalCode}) == len(RefusalCode)
    for code in RefusalCode:
        assert from_wire(code.wire, "why") == Refusal(code, "why")
    assert from_wire("", "") is None


def test_the_code_of_a_later_release_says_nothing():
    """It is kept with its sentence, and neither waited for nor called final."""
    refusal = from_wire("eclipse", "the moon is full")
    assert refusal == Refusal(RefusalCode.OTHER, "the moon is full")
    assert refusal.code.course is Course.STAYS


def test_each_code_has_one_course():
    """What passes is waited for, what settles is for a short time, what is final is not said to be repeated."""
    for code in RefusalCode:
        refusal = Refusal(code, "why")
        assert refusal.passes + refusal.settles + refusal.final == (code.course is not Course.STAYS)


@pytest.mark.parametrize(("sentence", "code"), OLDER)
def test_a_sentence_of_version_1_gets_its_code(sentence, code):
    """A coordinator that was not yet upgraded sends the sentence alone."""
    refusal = from_sentence(sentence)
    assert (refusal.code.wire, refusal.sentence) == (code, sentence)


def test_an_older_peer_gets_the_sentence():
    """It knows no codes."""
    assert ChangeOutcome(5, 1, "silent", "why").older() == ChangeAnswer(5, 1, "why")
    assert ChangeOutcome(5, 1, "", "").older() == ChangeAnswer(5, 1, "")
    assert from_sentence("") is None


def test_sentences_are_read_for_one_release_only():
    """When version 1 is not spoken any more, ``older_refusals`` and ``ChangeAnswer`` go."""
    assert PEER_VERSION_MIN == 1
