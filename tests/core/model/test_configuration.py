import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.model.configuration import GENERATION_STRIDE, PROTOCOLS, Configuration, Member, ids_in
from tests.core.group.rigs import configuration_of

TEXT = st.text(max_size=8)
NUMBER = st.integers(0, 2**40)
CONFIGURATIONS = st.builds(
    Configuration,
    st.lists(
        st.builds(Member, TEXT, NUMBER, TEXT, NUMBER),
        min_size=1,
        max_size=5,
        unique_by=(lambda member: member.node, lambda member: member.number),
    ).map(tuple),
    NUMBER,
    NUMBER,
    NUMBER,
    NUMBER,
    st.lists(TEXT.map("mirror {}".format), unique=True, max_size=3).map(tuple),
    st.sampled_from(PROTOCOLS),
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


# --- bytes ------------------------------------------------------------------------------------------------------------

FIELDS = (1, 0, 3, 1, (("n1", 1, "d1", 0), ("n2", 2, "d2", 0)), ("n3",), "remote-write")


@pytest.mark.parametrize(
    "fields",
    [
        FIELDS[:4],
        (*FIELDS, 0),
        (-1, *FIELDS[1:]),
        (True, *FIELDS[1:]),
        ("1", *FIELDS[1:]),
        (*FIELDS[:4], (), *FIELDS[5:]),
        (*FIELDS[:4], (("n1", 1, "d1"),), *FIELDS[5:]),
        (*FIELDS[:4], ((1, 1, "d1", 0),), *FIELDS[5:]),
        (*FIELDS[:4], (("n1", 1, "d1", 0), ("n1", 2, "d2", 0)), *FIELDS[5:]),
        (*FIELDS[:4], (("n1", 1, "d1", 0), ("n2", 1, "d2", 0)), *FIELDS[5:]),
        (*FIELDS[:5], ("n1",), FIELDS[6]),
        (*FIELDS[:5], ("n3", "n3"), FIELDS[6]),
        (*FIELDS[:5], (3,), FIELDS[6]),
        (*FIELDS[:6], "flat"),
        {"members": 1},
    ],
    ids=[
        "too few fields",
        "too many fields",
        "a negative version",
        "a version that is a boolean",
        "a version that is text",
        "no voters",
        "a voter without a slot",
        "a voter whose name is no text",
        "a voter twice",
        "a number twice",
        "a voter that is a mirror",
        "a mirror twice",
        "a mirror that is no text",
        "an unknown protocol",
        "no list",
    ],
)
def test_nonsense_is_no_configuration(fields):
    """What could not be the outcome of any change is refused with a reason."""
    with pytest.raises(ValueError, match="not a configuration: "):
        Configuration.decode(msgpack.packb(fields))


def test_a_configuration_of_before_there_were_mirrors_is_understood():
    """A group that was formed by an earlier version goes on, with primary and without mirrors."""
    configuration = Configuration.decode(msgpack.packb(FIELDS[:5]))
    assert (configuration.mirrors, configuration.protocol) == ((), "remote-write")
    assert configuration.nodes() == ("n1", "n2")


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_node_becomes_a_mirror_then_a_voter_then_a_mirror_and_then_nothing():
    """Each step is one configuration with the next version; a voter gets a number that no disk had before."""
    start = configuration_of(3)
    mirror = start.with_mirror("n4", 5)
    assert (mirror.mirrors, mirror.nodes(), mirror.version, mirror.slot) == (("n4",), start.nodes(), 2, 5)
    voter = mirror.with_voter("n4", "disk", 7)
    assert voter.member("n4") == Member("n4", 4, "disk", 7)
    assert (voter.mirrors, voter.majority(), voter.next_number) == ((), 3, 5)
    demoted = voter.with_demoted("n4", 9)
    assert (demoted.mirrors, demoted.nodes()) == (("n4",), start.nodes())
    again = demoted.with_voter("n4", "disk", 11)
    assert again.member("n4") == Member("n4", 5, "disk", 11)
    gone = demoted.without("n4", 12)
    assert (gone.mirrors, gone.nodes(), gone.names("n4"), gone.version) == ((), start.nodes(), False, 5)


def test_a_voter_can_be_taken_out_at_once():
    """Removing a voter leaves the others as they are."""
    configuration = configuration_of(3).without("n2", 4)
    assert configuration.members == tuple(m for m in configuration_of(3).members if m.node != "n2")
    assert configuration.next_number == 4


def test_the_protocol_is_a_change_like_any_other():
    """A switch touches nobody's membership."""
    before = configuration_of(3).with_mirror("n4", 2)
    after = before.with_protocol("active", 3)
    assert (after.protocol, after.version, after.slot) == ("active", 3, 3)
    assert (after.members, after.mirrors) == (before.members, before.mirrors)


def test_a_recovered_group_is_one_voter_of_the_next_generation():
    """Whoever is recovered alone has a version that nobody of the past can have, and a number of its own."""
    before = configuration_of(3).with_mirror("n4", 2)
    after = before.recovered("n2", "disk-n2", 9)
    assert after.members == (Member("n2", 4, "disk-n2", 9),)
    assert (after.mirrors, after.version, after.generation) == ((), GENERATION_STRIDE, 1)
    again = after.with_protocol("active", 10).recovered("n2", "disk-n2", 12)
    assert (again.generation, again.version, again.protocol) == (2, 2 * GENERATION_STRIDE, "active")


def test_ids_are_encoded_once_they_are_known_and_never_change():
    """Without them the bytes are what the release before reads; every later change carries them on."""
    plain = Configuration.initial({"n1": "d1", "n2": "d2"})
    assert len(msgpack.unpackb(plain.encode())) == 7
    named = plain.with_ids("c", "i", slot=4)
    assert (named.version, named.slot, ids_in(named.encode())) == (2, 4, ("c", "i"))
    assert Configuration.decode(named.encode()) == named
    assert ids_in(named.without("n2", 9).recovered("n1", "d9", 10).encode()) == ("c", "i")
    for cluster, incarnation in (("c", "i"), ("d", "j")):
        with pytest.raises(ValueError, match="only once"):
            named.identified(cluster, incarnation)
    with pytest.raises(ValueError, match="an id is no text, or empty"):
        Configuration.decode(msgpack.packb((*msgpack.unpackb(plain.encode()), "c", "")))
