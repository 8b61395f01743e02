from random import Random

import pytest

from replicad.core.journal.space import SPARES_KEPT, Space
from replicad.core.model.errors import InvariantError


@pytest.mark.parametrize("seed", range(20))
def test_a_full_disk_always_has_a_next_try(seed):
    """In any order of events: while it is full something is lacking, and a segment that is made ends it."""
    random = Random(seed)
    space = Space(random.randrange(4))
    for _ in range(200):
        waiting = random.random() < 0.3
        if space.full(waiting=waiting):
            assert space.lacks(waiting=waiting)
        if space.lacks(waiting=waiting):
            if random.random() < 0.5:
                space.refused()
                assert space.full(waiting=waiting)
            else:
                space.made()
                assert not space.full(waiting=waiting)
        elif space.spares:
            space.used(1)


def test_a_refused_try_says_nothing_while_a_segment_stands_ready():
    """A start on a full disk with a spare segment is not full as long as nothing waits."""
    space = Space(1)
    space.refused()
    assert not space.full(waiting=False)
    assert space.full(waiting=True)
    space.used(1)
    assert space.full(waiting=False)


def test_what_is_more_than_is_kept_is_surplus():
    """Starts do not add up, and only empty segments are surplus."""
    assert [Space(spares).surplus() for spares in (0, 1, 4)] == [0, 0, 4 - SPARES_KEPT]
    space = Space(1)
    with pytest.raises(InvariantError):
        space.removed(2)
    with pytest.raises(InvariantError):
        Space(0).used(1)
