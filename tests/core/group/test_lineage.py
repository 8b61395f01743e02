"""Whom to believe, line by line of the tables in ``core/group/lineage.py`` (M4, M6)."""

from dataclasses import replace

import pytest

from replicad.core.group.lineage import Kin, Lineage
from replicad.core.model.configuration import Configuration
from tests.core.group.rigs import configuration_of, disk_of

NAMED = configuration_of().identified("cluster", "life")
LATER = replace(NAMED.with_protocol("active", 5), members=NAMED.members)
OLD_LIFE = replace(NAMED, incarnation="another life")
RECOVERED = NAMED.recovered("n2", disk_of("n2"), 9)
"""n2 went on alone, with the disk that it had."""
NEW = "a new disk"
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
        (NAMED, disk_of("n1"), LATER, "n2", NEW, True),
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
