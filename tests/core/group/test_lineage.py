"""Whom to believe, line by line of the tables in ``core/group/lineage.py`` (M4, M6)."""

from dataclasses import replace

import pytest

from replicad.core.group.lineage import Kin, Lineage
from replicad.core.model import messages as m
from replicad.core.model.configuration import Configuration
from tests.core.group.rigs import HEARTBEAT, LEASE, Rig, batch, configuration_of, disk_of, durable_state, epoch_of
from tests.core.group.test_membership import NEW, introduce

NAMED = configuration_of().identified("cluster", "life")
LATER = replace(NAMED.with_protocol("active", 5), members=NAMED.members)
OLD_LIFE = replace(NAMED, incarnation="another life")
RECOVERED = NAMED.recovered("n2", disk_of("n2"), 9)
"""n2 went on alone, with the disk that it had."""
ADMITTED = NAMED.with_disk("n1", NEW, 7)
"""n1 got a vote for its new disk."""


def lineage(known: Configuration | None = NAMED, disk: str = disk_of("n1"), cluster: str = "cluster") -> Lineage:
    """What n1 knows."""
    return Lineage("n1", disk, cluster, known)


@pytest.mark.parametrize(
    ("known", "heard", "kin"),
    [
        (NAMED, None, Kin.UNTOLD),
        (NAMED, replace(NAMED, cluster="another"), Kin.FOREIGN),
        (NAMED, OLD_LIFE, Kin.FOREIGN),
        (NAMED, configuration_of(), Kin.FOREIGN),
        (LATER, configuration_of(), Kin.OLDER),
        (None, replace(NAMED, cluster="another"), Kin.FOREIGN),
        (None, LATER, Kin.NEWER),
        (RECOVERED, LATER, Kin.GIVEN_UP),
        (LATER, NAMED, Kin.OLDER),
        (LATER, LATER, Kin.LEVEL),
        (NAMED, LATER, Kin.NEWER),
        (NAMED, RECOVERED, Kin.SUCCESSOR),
        (NAMED, NAMED.recovered("n1", disk_of("n1"), 9), Kin.NEWER),
    ],
)
def test_what_kin_a_configuration_is(known, heard, kin):
    """The first table."""
    assert lineage(known).kin(heard) is kin


@pytest.mark.parametrize(
    ("known", "own", "told", "sender", "disk", "admitted"),
    [
        # it knows no configuration: only who has admitted this very disk
        (None, NEW, None, "n2", disk_of("n2"), False),
        (None, NEW, NAMED, "n2", disk_of("n2"), False),
        (None, NEW, ADMITTED, "n2", disk_of("n2"), True),
        # its own configuration names it: whoever votes there, or who is newer and has admitted it
        (NAMED, disk_of("n1"), NAMED, "n2", disk_of("n2"), True),
        (LATER, disk_of("n1"), NAMED, "n2", disk_of("n2"), True),
        (NAMED, NEW, None, "n2", disk_of("n2"), True),
        (NAMED, disk_of("n1"), NAMED, "n2", NEW, False),
        (NAMED, disk_of("n1"), LATER.with_disk("n2", NEW, 9), "n2", NEW, True),
        # a directory of another past that learnt the newest configuration (seed 96, five nodes)
        (NAMED, disk_of("n1"), LATER, "n2", NEW, False),
        (LATER, disk_of("n1"), NAMED, "n2", NEW, False),
        (NAMED, NEW, LATER, "n2", NEW, False),
        # it is left out
        (NAMED.without("n1", 8), disk_of("n1"), NAMED.without("n1", 8), "n2", disk_of("n2"), False),
        (NAMED.without("n1", 8), NEW, replace(ADMITTED, version=5), "n2", disk_of("n2"), True),
        # another past, although the disk is one that votes
        (NAMED, disk_of("n1"), OLD_LIFE, "n2", disk_of("n2"), False),
        (NAMED, disk_of("n1"), RECOVERED, "n2", disk_of("n2"), False),
        (replace(RECOVERED, mirrors=("n1",)), disk_of("n1"), LATER, "n2", disk_of("n2"), False),
    ],
)
def test_from_whom_slots_are_taken_without_a_coordinator(known, own, told, sender, disk, admitted):
    """The second table: a copy of a directory from before the group was recovered has the very disk that votes."""
    assert lineage(known, own).admitted(told, sender, disk) is admitted


def test_ids_that_nothing_bears_out_are_not_believed():
    """A directory without an id believes who names its disk; one with an id no stranger without one."""
    nameless, named = configuration_of(), NAMED
    unknown = lineage(nameless, cluster="")
    assert unknown.kin_of_peer(named, "n2", disk_of("n2")) is not Kin.FOREIGN
    assert lineage(nameless, NEW, cluster="").kin_of_peer(named, "n2", disk_of("n2")) is Kin.FOREIGN
    later = nameless.with_protocol("active", 5)
    assert lineage(nameless).kin_of_peer(later, "n2", disk_of("n2")) is Kin.NEWER
    assert lineage(nameless.identified("cluster", "life")).kin_of_peer(later, "n2", NEW) is Kin.FOREIGN


# --- what an older past, or a later one, means ------------------------------------------------------------------------


@pytest.mark.parametrize("generation", [0, 1])
def test_slots_of_no_known_configuration_are_given_up_when_the_group_was_recovered_since(generation):
    """They may be of the past that was given up; in a group that never was recovered they are of the only one."""
    durable = durable_state(entries=[(1, epoch_of("n1"), batch(1))], committed=1, formed=False)
    rig = Rig("n9", disk=NEW, lost=True, durable=durable)
    heard = configuration_of().recovered("n2", disk_of("n2"), 0) if generation else configuration_of()
    rig.step("n2", introduce("n2", "formed", committed=1, configuration=heard.with_mirror("n9", 1).encode()))
    assert bool(rig.forgotten) is bool(generation)
    assert (rig.replica.state.configuration is None) is bool(generation)


def test_who_tells_of_a_past_that_was_given_up_is_told_so_and_not_welcomed():
    """Fetching would mix two pasts; a disk that is empty is welcomed under the same name."""
    durable = durable_state()
    durable.formation = configuration_of().recovered("n1", disk_of("n1"), 0).with_mirror("n3", 1).encode()
    rig = Rig("n1", durable=durable)
    rig.wait(3 * LEASE)
    assert rig.replica.office is not None
    old = introduce("n3", "formed", committed=1, configuration=configuration_of().encode())
    assert [(to, type(message)) for to, message in rig.step("n3", old)] == [("n3", m.Introduce)]
    rig.wait(LEASE)
    empty = introduce("n3", "empty", NEW)
    assert m.Welcome in {type(message) for _, message in rig.step("n3", empty, disk=NEW)}


def test_a_node_that_the_newest_configuration_leaves_out_fetches_from_nobody_who_knows_an_older_one():
    """Whatever order it hears them in: it was removed, and its old disk may come back elsewhere."""
    rig = Rig("n3", disk=NEW, lost=True, formed=False)
    admitting = configuration_of().with_disk("n3", NEW, 4)
    rig.step("n1", introduce("n1", "formed", configuration=admitting.without("n3", 5).encode()))
    rig.step("n2", introduce("n2", "formed", committed=4, configuration=admitting.encode()))
    assert rig.replica.membership.stranger
    rig.wait(3 * HEARTBEAT)
    assert rig.of(m.FetchSlots) == []
