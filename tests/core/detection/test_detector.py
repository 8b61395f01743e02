from random import Random

import pytest

from replicad.core.detection.detector import PassiveHeartbeat


def test_a_node_that_was_never_heard_is_suspected():
    """Silence from the beginning is silence."""
    detector = PassiveHeartbeat(100)
    assert detector.suspects("n1", 0)
    assert detector.last_heard("n1") is None


@pytest.mark.parametrize(("age", "suspected"), [(0, False), (100, False), (101, True)])
def test_a_sign_of_life_counts_for_as_long_as_patience_lasts(age, suspected):
    """The oldest one that counts is just as old as the patience is long."""
    detector = PassiveHeartbeat(100)
    detector.heard("n1", 1_000)
    assert detector.suspects("n1", 1_000 + age) is suspected
    assert detector.last_heard("n1") == 1_000


def test_a_suspicion_ends_with_the_next_sign_of_life():
    """A node that was only slow is trusted again."""
    detector = PassiveHeartbeat(100)
    detector.heard("n1", 0)
    assert detector.suspects("n1", 500)
    detector.heard("n1", 500)
    assert not detector.suspects("n1", 600)


def test_what_was_forgotten_says_nothing():
    """Also of a node that was never heard; of another one nothing is forgotten."""
    detector = PassiveHeartbeat(100)
    detector.heard("n1", 0)
    detector.heard("n2", 0)
    detector.forget("n1")
    detector.forget("n3")
    assert (detector.suspects("n1", 0), detector.suspects("n2", 0)) == (True, False)
    assert detector.last_heard("n1") is None


@pytest.mark.parametrize("seed", range(20))
def test_each_node_is_judged_by_its_own_signs(seed):
    """In any order of events a node is suspected exactly if it showed no sign within the patience."""
    random = Random(seed)
    detector = PassiveHeartbeat(50)
    heard = {}
    now = 0
    for _ in range(300):
        now += random.randrange(30)
        node = random.choice(("n1", "n2", "n3"))
        if random.random() < 0.3:
            detector.heard(node, now)
            heard[node] = now
        elif random.random() < 0.05:
            detector.forget(node)
            heard.pop(node, None)
        assert detector.suspects(node, now) is (node not in heard or now - heard[node] > 50)
