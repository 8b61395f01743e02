"""A node's drain: said to all, asked for again without harm; what others make of it."""

import pytest

from replicad.core.cluster.catalog import OwnWord
from replicad.core.cluster.definitions import GroupDefinition, NodeEntry
from replicad.core.engine.drain import FORGET_US, NOTICE_US, Holding, Need
from replicad.core.model.configuration import Configuration
from replicad.core.model.messages import DrainNotice
from tests.core.engine.test_node import Ports, engine

NODES = ("n1", "n2", "n3")


class Noting(Ports):
    """Also notes what is said."""

    def broadcast(self, peers, group, message):
        if isinstance(message, DrainNotice):
            self.calls.append((tuple(peers), message.drained))

    def send(self, to, group, message):
        if isinstance(message, DrainNotice):
            self.calls.append((to, message.drained))

    def event(self, group, name, fields):
        if not group:
            self.calls.append(name)

    def take(self):
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def ports():
    return Noting()


@pytest.fixture
def node(ports):
    made = engine(ports)
    made.catalog.own = OwnWord("n1", NodeEntry("n1:1", "n1:2"), {}, NODES, False)
    ports.take()
    return made


def test_it_is_said_to_all_and_said_again(node, ports):
    """Once more is no mistake, and changes nothing; whoever opens a link hears it, too."""
    node.drain.set(drained=True)
    assert ports.take() == ["drained", (("n2", "n3"), True)]
    node.drain.set(drained=True)
    assert ports.take() == []
    node.tick()
    assert ports.take() == ["drain_done"]
    ports.time += NOTICE_US
    node.tick()
    assert ports.take() == [(("n2", "n3"), True)]
    node.on_peer("n3", 3)
    assert ports.take() == [("n3", True)]
    node.drain.set(drained=False)
    assert ports.take() == ["undrained", (("n2", "n3"), False)]
    ports.time += NOTICE_US
    node.tick()
    assert ports.take() == []


def test_groups_that_are_opened_later_are_drained_as_well(node):
    """The only voter of a group keeps its office, and says why."""
    node.drain.set(drained=True)
    group = node.open_group(GroupDefinition("g", "g.1", ("n1",), ("n1",)))
    assert group.replica.state.drained
    for _ in range(200):
        node.ports.time += 10_000
        node.tick()
        node.turn()
        node.on_durable(node.ports.numbers[-1] if node.ports.numbers else 0)
    assert group.replica.role == "coordinator"
    assert node.drain.holdings() == [Holding("g", True, "this node is the only voter")]
    assert node.drain.needs(lambda _: True) == [Need("g", "this node is its only voter")]
    node.drain.set(drained=False)
    assert not group.replica.state.drained
    assert node.drain.holdings() == []


def test_drained_members_are_passed_over(node, ports):
    """Unless no other is in touch; who has not said so for a while is not drained."""
    up = {"n2", "n3"}
    assert node.drain.contacts(["n2", "n3"], up.__contains__) == ["n2", "n3"]
    node.on_message("n2", "d2", "_meta", DrainNotice(drained=True))
    assert node.drain.contacts(["n2", "n3"], up.__contains__) == ["n3"]
    up.discard("n3")
    assert node.drain.contacts(["n3", "n2"], up.__contains__) == ["n2", "n3"]
    up.add("n3")
    ports.time += FORGET_US
    assert node.drain.contacts(["n2", "n3"], up.__contains__) == ["n2", "n3"]
    node.on_message("n2", "d2", "_meta", DrainNotice(drained=True))
    assert node.drain.is_drained("n2")
    node.on_message("n2", "d2", "_meta", DrainNotice(drained=False))
    assert not node.drain.is_drained("n2")


def test_who_is_no_node_of_the_cluster_is_not_listened_to(node):
    """Names of strangers would be remembered without end."""
    node.on_message("n9", "d9", "_meta", DrainNotice(drained=True))
    assert not node.drain.is_drained("n9")


def test_a_node_is_needed_where_too_few_others_are_in_touch(node):
    """Drained or not: who is stopped accepts no more. A group that is not formed, or is elsewhere, needs nobody."""
    for name, members in (("two", ("n1", "n2")), ("three", ("n1", "n2", "n3")), ("others", ("n2", "n3"))):
        group = node.open_group(GroupDefinition(name, f"{name}.1", members, members))
        assert node.drain.needs(lambda _: False) == []
        group.replica.state.configuration = Configuration.initial({each: f"d-{each}" for each in members})
        group.replica.state.is_voter = lambda members=members: "n1" in members
        if name == "others":
            assert node.drain.needs(lambda _: False) == []
        elif name == "two":
            both = "it has two voters, and needs both; without this node too few of its 2 voters are left"
            assert node.drain.needs(lambda _: True) == [Need("two", both)]
            gone = "this node is not in touch with n2; without this node too few of its 2 voters are left"
            assert node.drain.needs(lambda _: False) == [Need("two", gone)]
        else:
            gone = "this node is not in touch with n2; without this node too few of its 3 voters are left"
            assert node.drain.needs(lambda _: True) == []
            assert node.drain.needs(lambda other: other == "n3") == [Need("three", gone)]
        del node.groups[name]
