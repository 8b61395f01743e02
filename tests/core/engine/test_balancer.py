from types import SimpleNamespace

from replicad.core.cluster.definitions import GroupDefinition
from replicad.core.engine.balancer import OFFICE_US, Balancer
from replicad.core.model.configuration import Configuration
from replicad.core.model.limits import Limits

NODES = ("n1", "n2", "n3")


def group(name, coordinator="n1", *, preferred="", began_at=0, view=NODES, matched=10, leaving=False, drained=False):
    """Return what the rebalancer of n1 sees of a group whose committed slot is 10."""
    office = None
    if coordinator == "n1":
        peers = {node: SimpleNamespace(matched=matched) for node in NODES if node != "n1"}
        authority = SimpleNamespace(began_at=began_at, peers=peers)
        office = SimpleNamespace(authority=authority, view=SimpleNamespace(joined=set(view)))
    configuration = Configuration.initial({node: node for node in NODES})
    state = SimpleNamespace(configuration=configuration, leaving=leaving, drained=drained)
    replica = SimpleNamespace(office=office, coordinator=coordinator, state=state, committed=10)
    definition = GroupDefinition(name, name, NODES, NODES, preferred=preferred)
    return SimpleNamespace(name=name, id=name, definition=definition, replica=replica, limits=Limits(join_lag_slots=1))


def choice(*groups, now=2 * OFFICE_US):
    """Return the move that n1 would make: the group's name and the node."""
    catalog = SimpleNamespace(definition={each.name: each.definition for each in groups}.get)
    engine = SimpleNamespace(name="n1", groups={each.name: each for each in groups}, catalog=catalog)
    found = Balancer(engine).choose(now)
    return None if found is None else (found[0].name, found[1])


def test_a_group_goes_where_it_should_be():
    """The preferred node gets the office, once that is old enough and the node is fit."""
    assert choice(group("a", preferred="n3")) == ("a", "n3")
    assert choice(group("a", preferred="n1"), group("b", "n2"), group("c", "n3")) is None
    assert choice(group("a", preferred="n9")) is None
    assert choice(group("a", preferred="n3", began_at=OFFICE_US + 1)) is None
    assert choice(group("a", preferred="n3", view=("n2",))) is None
    assert choice(group("a", preferred="n3", matched=8)) is None
    assert choice(group("a", preferred="n3", matched=9)) == ("a", "n3")
    assert choice(group("a", preferred="n3", leaving=True)) is None
    assert choice(group("a", preferred="n3", drained=True)) is None


def test_only_what_makes_it_better_moves():
    """A single group stays; of two the cluster's own moves first and default last; then all is even."""
    assert choice(group("default")) is None
    moved = choice(group("default"), group("_meta"))
    assert moved is not None
    assert moved[0] == "_meta"
    assert choice(group("default"), group("_meta", "n2")) is None
    moved = choice(group("default"), group("_meta", "n2"), group("b"), group("c"))
    assert moved is not None
    assert moved[0] == "b"
    assert choice(group("default"), group("_meta", "n2"), group("b"), group("c", "n3")) is None


def test_only_the_coordinator_moves_its_office():
    """Others' offices are left alone, however many they have."""
    assert choice(*(group(name, "n2", preferred="n3") for name in "abcdef")) is None
