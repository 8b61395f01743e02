import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.group.configuration import Configuration, Member
from tests.core.group.rigs import configuration_of

TEXT = st.text(max_size=8)
NUMBER = st.integers(0, 2**40)
CONFIGURATIONS = st.builds(
    Configuration,
    st.lists(st.builds(Member, TEXT, NUMBER, TEXT, NUMBER), max_size=5).map(tuple),
    NUMBER,
    NUMBER,
    NUMBER,
    NUMBER,
)


@given(CONFIGURATIONS)
def test_a_configuration_survives_its_encoding(configuration):
    """What is decoded equals what was encoded."""
    assert Configuration.decode(configuration.encode()) == configuration


@given(st.binary(max_size=40))
def test_other_bytes_are_no_configuration(data):
    """Any bytes are a configuration or a ValueError, nothing else."""
    try:
        Configuration.decode(data)
    except ValueError:
        return


@pytest.mark.parametrize(("count", "majority"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (7, 4)])
def test_two_majorities_always_share_a_member(count, majority):
    """A majority is the smallest number of members of which two sets must overlap."""
    assert configuration_of(count).majority() == majority
    assert 2 * majority > count >= 2 * (majority - 1)


@given(st.lists(st.sampled_from(["n1", "n2", "n3"]), max_size=12))
def test_a_number_is_never_given_to_two_disks(replaced):
    """However often disks are replaced, every disk gets a number of its own, and epochs can never meet."""
    configuration = configuration_of(3)
    seen = {member.number: member.disk for member in configuration.members}
    for slot, node in enumerate(replaced, 1):
        before = configuration
        configuration = before.with_disk(node, f"new {slot}", slot)
        member = configuration.member(node)
        assert member.number not in seen
        seen[member.number] = member.disk
        assert (member.disk, member.since) == (f"new {slot}", slot)
        assert (configuration.version, configuration.slot) == (before.version + 1, slot)
        assert [m for m in configuration.members if m.node != node] == [m for m in before.members if m.node != node]


def test_a_name_alone_makes_no_member():
    """A member is a name with its current disk."""
    configuration = configuration_of(3).with_disk("n2", "new", 9)
    assert configuration.holds("n2", "new")
    assert not configuration.holds("n2", "disk-n2")
    assert not configuration.holds("n9", "new")
    assert configuration.nodes() == ("n1", "n2", "n3")
