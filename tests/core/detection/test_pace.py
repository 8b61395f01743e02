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
    """Nor does one hang of an hour; fast times make it forgotten."""
    assert pace(*[10**6] * 100).patience() == CEILING
    hung = pace(3_600 * 10**6)
    assert hung.patience() == CEILING
    for _ in range(20):
        hung.observe(1_000)
    assert hung.patience() == FLOOR
