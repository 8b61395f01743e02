import json
from dataclasses import replace

import pytest

from replicad.core.cluster.catalog import follow, initial_members
from replicad.core.cluster.definitions import (
    DROPPED,
    REMOVED,
    GroupDefinition,
    NodeEntry,
    by_preference,
    parse_definition,
    parse_node,
)
from replicad.core.model.configuration import Configuration
from replicad.core.model.limits import Limits

ORDERS = GroupDefinition("orders", "orders.1", ("n1", "n2"), ("n1", "n2"))


def test_definitions_survive_their_encoding():
    """What is written under a key is what is read there."""
    definition = replace(
        ORDERS, mirrors=("n4",), protocol="active", ack="one", preferred="n2", limits={"value_bytes_max": 9}, version=3
    )
    assert parse_definition("orders", definition.encode()) == definition
    assert parse_definition("orders", DROPPED) is None
    entry = NodeEntry("h:1", "h:2")
    assert parse_node("n1", entry.encode()) == entry
    assert parse_node("n1", REMOVED) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        ORDERS.encode()[:-1],
        json.dumps(ORDERS.as_json() | {"id": ""}).encode(),
        json.dumps(ORDERS.as_json() | {"founders": []}).encode(),
        json.dumps(ORDERS.as_json() | {"members": [1]}).encode(),
        json.dumps(ORDERS.as_json() | {"members": None}).encode(),
        json.dumps(ORDERS.as_json() | {"protocol": "passive"}).encode(),
        json.dumps(ORDERS.as_json() | {"limits": {"lease_us": 1}}).encode(),
        json.dumps(ORDERS.as_json() | {"version": "1"}).encode(),
    ],
)
def test_a_damaged_definition_is_refused(value):
    """Whatever a value is, it is a definition or a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        parse_definition("orders", value)


@pytest.mark.parametrize("value", [b"", b"7", b"{}", b'{"peer": "h:1"}', b'{"peer": 1, "http": "h:2"}'])
def test_damaged_addresses_are_refused(value):
    """Both addresses of a node are there, or it is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        parse_node("n1", value)


def test_a_new_group_has_an_id_of_its_own():
    """A name that is used again never meets what the old group left behind."""
    first, second = (GroupDefinition.new("orders", token, ("n1",), ack="one") for token in ("0a1b2c3d", "4e5f6071"))
    assert first.id != second.id
    assert first.id.startswith("orders.")
    assert first.wish() == second.wish()


def test_a_definition_follows_a_newer_configuration_only():
    """An older configuration says nothing; a newer one says who the members are."""
    configuration = replace(Configuration.initial({"n1": "d1", "n3": "d3"}), version=4, mirrors=("n5",))
    followed = follow(replace(ORDERS, version=3), configuration)
    assert (followed.members, followed.mirrors, followed.version) == (("n1", "n3"), ("n5",), 4)
    assert followed.founders == ORDERS.founders
    newer = replace(ORDERS, version=4)
    assert follow(newer, configuration) is newer


def test_only_a_group_that_never_formed_may_form():
    """A founder that lost everything comes last among those that it asks; alone it is all there is (M5)."""
    assert initial_members(ORDERS, "n1") == ("n1", "n2")
    grown = replace(ORDERS, members=("n2", "n3"), version=3)
    assert initial_members(grown, "n1") == ("n2", "n3", "n1")
    assert initial_members(grown, "n4") == ("n2", "n3", "n1")
    alone = GroupDefinition("one", "one", ("n1",), ("n1",), version=1)
    assert initial_members(alone, "n1") == ("n1",)


def test_limits_of_a_group_are_the_clusters_with_its_own():
    """What a definition does not say is as in the cluster."""
    assert ORDERS.group_limits(Limits()) == Limits()
    assert replace(ORDERS, limits={"value_bytes_max": 10}).group_limits(Limits()) == Limits(value_bytes_max=10)


def test_groups_prefer_different_nodes():
    """Over many groups every node is preferred about as often; a node that goes moves only its own."""
    nodes = ("n1", "n2", "n3")
    groups = [f"g{number}" for number in range(300)]
    first = {group: by_preference(group, nodes)[0] for group in groups}
    counts = [list(first.values()).count(node) for node in nodes]
    assert min(counts) > 60
    without = {group: by_preference(group, ("n1", "n2"))[0] for group in groups}
    assert all(without[group] == first[group] for group in groups if first[group] != "n3")
