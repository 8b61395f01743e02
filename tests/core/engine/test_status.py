"""What a group says that it lacks, for the roles without a vote."""

from types import SimpleNamespace

import pytest

from replicad.core.cluster.definitions import NodeEntry
from replicad.core.engine.status import missing
from replicad.core.group.state import Role
from replicad.core.model.obstacles import NOT_ADDED, Obstacle


def said(
    role, *, name="orders", coordinator="", initial=("n1",), obstacles=(NOT_ADDED,), comparing="", **of_membership
):
    """Return what keeps a group of n4 from serving."""
    state = SimpleNamespace(
        role=role, initial_members=initial, rebuilding=False, full=False, configuration=None, node="n4", disk="d"
    )
    state.comparing = comparing
    plain = {"stranger": False, "disks_told": dict, "obstacles": lambda: obstacles, "estranged": lambda: False}
    membership = SimpleNamespace(**{**plain, **of_membership})
    replica = SimpleNamespace(role=role, state=state, membership=membership, coordinator=coordinator, committed=0)
    catalog = SimpleNamespace(own=SimpleNamespace(entry=NodeEntry("h:9001", "h:8001")))
    engine = SimpleNamespace(name="n4", catalog=catalog, ports=SimpleNamespace(now=lambda: 0))
    transfers = SimpleNamespace(installing=False)
    return missing(SimpleNamespace(name=name, replica=replica, engine=engine, transfers=transfers))


def test_a_mirror_needs_its_coordinator():
    """With it nothing is missing; without it the reason does not speak of a vote that a mirror does not have."""
    assert said(Role.MIRROR, coordinator="n1") == []
    (reason,) = said(Role.MIRROR)
    assert "group orders: this node is a mirror of it, and its coordinator is not in touch" in reason


def test_a_removed_node_says_what_becomes_of_it():
    """Of a group it deletes what it holds; removed from the cluster, it says how it comes back."""
    (reason,) = said(Role.REMOVED)
    assert "is about to delete what it holds" in reason
    (reason,) = said(Role.REMOVED, name="_meta")
    assert reason.endswith("bring it back: replicad member add n4 --peer h:9001 --http h:8001")
    assert "removed from the cluster" in reason


def test_a_learner_that_nobody_knows_is_to_be_added():
    """The command depends on the group: the cluster's own is joined with the node's addresses."""
    (reason,) = said(Role.LEARNER, stranger=True)
    assert reason.endswith("replicad member add n4 --group orders")
    (reason,) = said(Role.LEARNER, name="_meta", stranger=True)
    assert reason.endswith("replicad member add n4 --peer h:9001 --http h:8001")


@pytest.mark.parametrize(
    ("obstacle", "exists"), [(Obstacle.formed("n1"), True), (Obstacle.absent("holds data"), False)]
)
def test_an_unformed_node_tells_whether_its_group_exists(obstacle, exists):
    """By the kind of the obstacle; what nodes are called means nothing."""
    (reason,) = said(Role.UNFORMED, initial=("n1", "n4"), obstacles=(obstacle,))
    assert reason.startswith("group orders exists, and this node's disk is not in it yet") == exists
    assert obstacle.sentence in reason


def test_a_replica_says_that_it_waits_for_the_comparison_of_its_digest():
    """That is why it holds no lease."""
    (reason,) = said(Role.FOLLOWER, coordinator="n1", comparing="started")
    assert "this replica was started, and waits for its digest to be compared" in reason


def test_a_directory_of_another_past_is_to_be_moved_away():
    """The sentence names what to do next."""
    (reason,) = said(Role.FOLLOWER, estranged=lambda: True)
    assert "stop the node, move its data directory away, and start it again" in reason
