import pytest

from replicad.core.detection.patience import Detectors, Patience, Sign
from replicad.core.model.limits import Limits

LIMITS = Limits()


@pytest.mark.parametrize("patience", Patience)
def test_each_question_hears_its_own_sign_and_no_other(patience):
    """A sign is borne in mind for as many heartbeats as the table says, and answers only what it can answer."""
    detectors = Detectors(LIMITS)
    for sign in Sign:
        if sign is not patience.sign:
            detectors.heard("n2", 0, sign)
    assert detectors.suspects("n2", 0, patience)
    detectors.heard("n2", 0, patience.sign)
    last = patience.heartbeats * LIMITS.heartbeat_us
    assert not detectors.suspects("n2", last, patience)
    assert detectors.suspects("n2", last + 1, patience)
    assert detectors.suspects("n3", 0, patience)


def test_questions_are_told_apart():
    """Two rows of the table never fall into one, as equal values of an enumeration would."""
    assert len({patience.label for patience in Patience}) == len(Patience) == 8


def test_a_sign_is_forgotten_by_itself():
    """What another disk of the name answered is forgotten; what the node says of itself is not."""
    detectors = Detectors(LIMITS)
    for sign in Sign:
        detectors.heard("n2", 5, sign)
    detectors.forget("n2", Sign.ANSWER)
    assert {sign: detectors.last_heard("n2", sign) for sign in Sign} == {
        Sign.ANSWER: None,
        Sign.WORD: 5,
        Sign.OFFER: 5,
        Sign.ACCEPTANCE: 5,
    }


def test_another_kind_of_detector_takes_its_place():
    """Whoever makes the detectors decides which kind; each question gets its own, with its own patience."""
    made = []

    class Stub:
        def __init__(self, patience_us):
            made.append(patience_us)

        def suspects(self, node, now):
            return (node, now) == ("n2", 7)

    detectors = Detectors(LIMITS, Stub)
    assert made == [patience.heartbeats * LIMITS.heartbeat_us for patience in Patience]
    assert detectors.suspects("n2", 7, Patience.VIEW)
    assert not detectors.suspects("n3", 7, Patience.VIEW)
