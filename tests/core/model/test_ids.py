import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.model.ids import EPOCH_STRIDE, epoch_counter, epoch_number, make_epoch, next_epoch

NUMBERS = st.integers(1, EPOCH_STRIDE - 1)
COUNTERS = st.integers(0, 10**9)


@given(COUNTERS, NUMBERS, COUNTERS, NUMBERS)
def test_epochs_are_unique_and_ordered(counter, number, other_counter, other_number):
    """An epoch belongs to one disk, and a higher counter makes a higher epoch (E1)."""
    epoch, other = make_epoch(counter, number), make_epoch(other_counter, other_number)
    assert (epoch == other) == ((counter, number) == (other_counter, other_number))
    assert (epoch < other) == ((counter, number) < (other_counter, other_number))
    assert (epoch_counter(epoch), epoch_number(epoch)) == (counter, number)


@given(st.integers(0, 10**15), NUMBERS)
def test_the_next_epoch_is_higher_and_the_disks_own(above, number):
    """A candidate's epoch is above everything it has heard of, and nobody else's."""
    epoch = next_epoch(above, number)
    assert epoch > above
    assert epoch_number(epoch) == number


@pytest.mark.parametrize("number", [0, -1, EPOCH_STRIDE])
def test_a_number_outside_the_stride_makes_no_epoch(number):
    """A disk number that would run into the next counter is refused."""
    with pytest.raises(ValueError, match="disk number"):
        make_epoch(1, number)
