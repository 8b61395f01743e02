"""What a group says that it lacks, for the roles without a vote."""

from types import SimpleNamespace

from replicad.core.group.state import Role
from replicad.node.group_status import missing
from replicad.node.settings_models import NodeSettings


def said(role, *, name="orders", coordinator="", stranger=False):
    """Return what keeps a group of n4 from serving."""
    state = SimpleNamespace(
        role=role, initial_members=("n1",), rebuilding=False, full=False, configuration=None, node="n4", disk="d"
    )
    membership = SimpleNamespace(
        stranger=stranger, introductions={}, obstacles=lambda: ["this node waits to be added to the group"]
    )
    replica = SimpleNamespace(role=role, state=state, membership=membership, coordinator=coordinator, committed=0)
    settings = SimpleNamespace(own=NodeSettings(peer_advertise="h:9001", http_advertise="h:8001"))
    node = SimpleNamespace(name="n4", settings=settings)
    transfers = SimpleNamespace(installing=False)
    return missing(SimpleNamespace(name=name, replica=replica, node=node, transfers=transfers))


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
