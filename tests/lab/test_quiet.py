"""What orderly stops cost in virtual time."""

import pytest

from replicad.lab.quiet import rolling


@pytest.mark.parametrize("seed", [1, 2])
def test_an_orderly_stop_hardly_stops_writes(seed):
    """Every node in turn, followers and coordinators: no pause is as long as a lease."""
    assert len(rolling(seed)) == 3
