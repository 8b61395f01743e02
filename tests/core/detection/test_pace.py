"""How long something may take before it counts as stuck."""

from random import Random

from replicad.core.detection.pace import Pace

FLOOR, CEILING = 100_000, 400_000


def pace(*durations):
    made = Pace(FLOOR, CEILING)
    for duration in durations:
        made.observe(duration)
    return made


def test_what_is_fast_is_given_the_floor():
    """However regular: a disk of a millisecond is not stuck after two."""
    assert pace().patience() == FLOOR
    assert pace(*[1_000] * 100).patience() == FLOOR


def test_half_of_the_patience_covers_what_is_usual():
    """Of uniform durations the longest one is within half of the patience, once some have been seen."""
    random = Random(1)
    usual = pace(*[random.randrange(40_000, 120_000) for _ in range(50)])
    assert 120_000 <= usual.patience() // 2 <= CEILING // 2


def test_no_habit_earns_more_than_the_ceiling():
    """A few times like that earn it; fast times make them forgotten."""
    assert pace(*[10**6] * 100).patience() == CEILING
    assert pace(*[10**6] * 4).patience() > FLOOR
    hung = pace(*[10**6] * 100, *[1_000] * 100)
    assert hung.patience() == FLOOR


def test_one_hang_is_no_habit():
    """Whatever took an hour once among fast ones: the next that hangs is found out as soon as the first."""
    assert pace(*[1_000] * 20, 3_600 * 10**6).patience() == FLOOR
