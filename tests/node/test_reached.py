from random import Random

import pytest

from replicad.node.reached import CELL_BYTES, CELLS, Reached


@pytest.fixture
def path(tmp_path):
    return tmp_path / "reached"


def test_what_was_noted_is_there_when_the_file_is_opened_again(path):
    """Groups come, rise, go and come back, more of them than were reserved: each has the slot noted last, or 0."""
    random = Random(1)
    known = {}
    for _ in range(20):
        file = Reached(path)
        for _ in range(400):
            group = f"g{random.randrange(2 * CELLS)}"
            assert file.slot(group) == known.get(group, 0)
            if random.random() < 0.2:
                file.forget(group)
                known.pop(group, None)
            else:
                known[group] = random.randrange(2**64)
                file.note(group, known[group])
        file.close()
    file = Reached(path)
    assert {group: file.slot(group) for group in known} == known
    file.close()
    assert CELLS * CELL_BYTES <= path.stat().st_size < 2 * CELLS * CELL_BYTES


def test_a_cell_that_is_not_whole_says_nothing(path):
    """A changed byte costs its own group what it knew, and no other."""
    file = Reached(path)
    file.note("a", 5)
    file.note("b", 6)
    file.close()
    data = bytearray(path.read_bytes())
    data[39] ^= 1
    path.write_bytes(data)
    file = Reached(path)
    assert sorted((file.slot("a"), file.slot("b"))) in ([0, 5], [0, 6])
    file.close()


def test_zero_says_that_nothing_is_known(path):
    """A store that was cleared forgets how far it had come."""
    file = Reached(path)
    file.note("a", 5)
    file.note("a", 0)
    file.note("b", 0)
    assert (file.slot("a"), file.slot("b")) == (0, 0)
    file.close()
    file = Reached(path)
    assert (file.slot("a"), file.slot("b")) == (0, 0)
    file.close()
