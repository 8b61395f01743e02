"""Whether two nodes that meet belong to one cluster."""

import pytest

from replicad.core.model.cluster_id import Card, foreign

OURS = Card("n1", "d1", "a" * 32)


def judged(theirs, ours=OURS, voters=()):
    return foreign(ours, theirs, lambda node, disk: (node, disk) in voters)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (Card("n2", "d2", "a" * 32), OURS),
        (Card("n2", "d2", "", empty=True), OURS),
        (Card("n2", "d2", "b" * 32), Card("n1", "d1")),
        (Card("n2", "d2"), Card("n1", "d1")),
        (Card("n2", "d2", version_max=1), Card("n1", "d1")),
    ],
    ids=["one id", "an empty directory", "the other judges", "neither knows", "neither can know"],
)
def test_who_belongs_together(theirs, ours):
    """Equal ids; an empty directory; where this side knows no id, the other one judges, or names are all there is."""
    assert judged(theirs, ours) == ""


def test_a_voter_that_was_away_when_the_id_was_made_is_known_by_its_disk():
    """Its disk is in a configuration; another disk of that node is not."""
    assert judged(Card("n2", "d2"), voters={("n2", "d2")}) == ""
    assert "holds data and no cluster id" in judged(Card("n2", "d3"), voters={("n2", "d2")})


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (Card("n2", "d2", "b" * 32), "these are two clusters of one name"),
        (Card("n2", "d2", "b" * 32, empty=True), "these are two clusters of one name"),
        (Card("n2", "d2"), "move its data directory away and start it again"),
        (Card("n2", "d2", empty=True, version_max=1), "upgrade n2"),
    ],
)
def test_who_does_not_is_told_what_to_do(theirs, words):
    """Each refusal is a sentence with the next step."""
    assert words in judged(theirs, voters={("n3", "d3")})
