"""What a node opens, drops, forgets and tells because of what ``_meta`` says."""

from replicad.core.cluster.catalog import Catalog, Drop, Forget, Open, OpenGroup, OwnWord, Wish, initial_members
from replicad.core.cluster.definitions import (
    DROPPED,
    REMOVED,
    VOTERS_KEY,
    GroupDefinition,
    NodeEntry,
    encode_voters,
    group_key,
    node_key,
)
from replicad.core.model.configuration import Configuration

NODES = ("n1", "n2", "n3")
DEFAULT = GroupDefinition("default", "default", NODES, NODES)
ENTRY = NodeEntry("n1:1", "n1:2")


def catalog(content=(), groups=(DEFAULT,), node="n1", *, fixed=False):
    """Return the catalog of a node; ``content``: keys and values of ``_meta``, whose modify indexes count from 1."""
    own = OwnWord(node, ENTRY, {group.name: group for group in groups}, NODES, fixed)
    made = Catalog(own, str)
    invalid = made.load((key, value, number) for number, (key, value) in enumerate(content, 1))
    assert invalid == []
    return made


def defined(name, identity="", nodes=NODES, version=1):
    """Return a group that was created."""
    return GroupDefinition(name, identity or f"{name}.1", nodes, nodes, version=version)


def entry(definition):
    return group_key(definition.name), definition.encode()


def configured(nodes=NODES, mirrors=()):
    """Return a configuration of these voters, of version 1 and one more for each mirror."""
    configuration = Configuration.initial({name: name for name in nodes})
    for name in mirrors:
        configuration = configuration.with_mirror(name, 1)
    return configuration


def opened(definition, configuration=None, *, coordinates=False):
    return OpenGroup(definition.name, definition.id, configuration, coordinates)


META = OpenGroup("_meta", "_meta", configured(), coordinates=False)


def test_what_the_settings_name_is_opened_until_the_catalog_says_otherwise():
    """A dropped name leaves a mark, so that a settings file cannot bring the group back."""
    assert catalog().steps([META], (), confirmed=False) == [Open(DEFAULT)]
    assert catalog([(group_key("default"), DROPPED)]).steps([META], (), confirmed=False) == []
    assert catalog().steps([META, opened(DEFAULT)], (), confirmed=True) == []


def test_a_node_opens_what_names_it_and_what_it_still_holds():
    """A group of others is opened only to find out, from the others, whether it still belongs here."""
    orders = defined("orders", nodes=("n2", "n3"))
    assert catalog([entry(orders)], ()).steps([META], (), confirmed=True) == []
    assert catalog([entry(orders)], ()).steps([META], ("orders.1",), confirmed=True) == [Open(orders)]
    assert catalog([entry(orders)], (), "n2").steps([META], (), confirmed=True) == [Open(orders)]


def test_nothing_is_opened_anew_by_a_catalog_that_may_be_old():
    """The group may have been dropped since, and its data deleted here: it would form anew, under the same id."""
    orders = defined("orders")
    assert catalog([entry(orders)], ()).steps([META], (), confirmed=False) == []
    assert catalog([entry(orders)], ()).steps([META], ("orders.1",), confirmed=False) == [Open(orders)]


def test_nothing_is_deleted_by_a_catalog_that_may_be_old():
    """What calls a group dropped must be as new as the node's start."""
    orders = opened(defined("orders"))
    known = catalog([(group_key("orders"), DROPPED)], ())
    assert known.steps([META, orders], ("carts.7",), confirmed=False) == []
    assert known.steps([META, orders], ("orders.7",), confirmed=True) == [
        Drop("orders", left=False),
        Forget("orders.7"),
    ]


def test_a_name_that_was_given_to_another_group_is_opened_anew():
    """The old group is dropped first; what is held of the old one is deleted, not opened."""
    new = defined("orders", "orders.2")
    old = opened(defined("orders", "orders.1"))
    known = catalog([entry(new)], ())
    assert known.steps([META, old], (), confirmed=True) == [Drop("orders", left=False), Open(new)]
    assert known.steps([META], ("orders.1",), confirmed=True) == [Open(new), Forget("orders.1")]
    assert known.steps([META, old], (), confirmed=False) == []


def test_a_group_goes_on_without_this_node():
    """It is dropped here once the cluster knows a newer configuration, or this one, without the node; not before."""
    orders = defined("orders", nodes=("n2", "n3"), version=4)
    known = catalog([entry(orders)], ())
    assert known.steps([META, opened(orders)], (), confirmed=True) == [Drop("orders", left=True)]
    assert known.steps([META, opened(orders, configured())], (), confirmed=True) == [Drop("orders", left=True)]
    assert known.steps([META, opened(orders, configured())], (), confirmed=False) == []
    known = catalog([entry(defined("orders", nodes=("n2", "n3"), version=1))], ())
    assert known.steps([META, opened(orders, configured())], (), confirmed=True) == []
    without = configured(("n2", "n3"))
    assert known.steps([META, opened(orders, without)], (), confirmed=True) == [Drop("orders", left=True)]
    newer = configured(mirrors=("n4", "n5"))
    assert known.steps([META, opened(orders, newer)], (), confirmed=True) == []


def test_what_makes_no_sense_counts_for_nothing_and_is_told():
    """The rest of the catalog is taken."""
    made = Catalog(OwnWord("n1", ENTRY, {}, NODES, meta_fixed=False), int)
    content = [
        (b"group/a", b"{", 1),
        (b"node/n4", NodeEntry("x", "y").encode(), 2),
        (VOTERS_KEY, encode_voters(fixed=True), 3),
    ]
    assert [key for key, _ in made.load(content)] == ["group/a", "node/n4"]
    assert made.voters_fixed
    assert made.modified == {b"group/a": 1, b"node/n4": 2, VOTERS_KEY: 3}


def test_a_node_tells_where_it_is_found_and_keeps_its_mark_of_leaving():
    """One that was removed says nothing."""
    assert catalog().wishes([META]) == [Wish(node_key("n1"), ENTRY.encode(), 0)]
    assert catalog([(node_key("n1"), ENTRY.encode())]).wishes([META]) == []
    assert catalog([(node_key("n1"), REMOVED)]).wishes([META]) == []
    leaving = NodeEntry("old", "old", leaving=True)
    (wish,) = catalog([(node_key("n1"), leaving.encode())]).wishes([META])
    assert wish == Wish(node_key("n1"), NodeEntry("n1:1", "n1:2", leaving=True).encode(), 1)


def test_the_coordinator_of_meta_defines_the_groups_of_its_settings_once():
    """Not what was dropped, and not what is defined."""
    content = [(node_key("n1"), ENTRY.encode())]
    office = OpenGroup("_meta", "_meta", configured(), coordinates=True)
    assert catalog(content).wishes([office]) == [Wish(group_key("default"), DEFAULT.encode(), 0)]
    assert catalog([*content, (group_key("default"), DROPPED)]).wishes([office]) == []
    assert catalog([*content, entry(DEFAULT)]).wishes([office]) == []
    assert catalog(content).wishes([META]) == []


def test_only_a_node_that_the_cluster_began_with_fixes_the_voters():
    """Whoever came later may have other settings."""
    content = [(node_key("n1"), ENTRY.encode()), entry(DEFAULT)]
    office = OpenGroup("_meta", "_meta", configured(), coordinates=True)
    assert catalog(content, fixed=True).wishes([office]) == [Wish(VOTERS_KEY, encode_voters(fixed=True), 0)]
    other = OpenGroup("_meta", "_meta", configured(("n2", "n3")), coordinates=True)
    assert catalog(content, fixed=True).wishes([other]) == []


def test_the_coordinator_of_a_group_tells_its_newer_configuration():
    """The definition follows; that of another group under the name does not."""
    orders = defined("orders", version=1)
    content = [(node_key("n1"), ENTRY.encode()), entry(orders)]
    newer = configured(mirrors=("n4",))
    (wish,) = catalog(content, ()).wishes([META, opened(orders, newer, coordinates=True)])
    assert (wish.key, wish.cas) == (group_key("orders"), 2)
    assert b'"mirrors": ["n4"]' in wish.value
    assert catalog(content, ()).wishes([META, opened(orders, newer)]) == []
    stranger = opened(defined("orders", "orders.9"), newer, coordinates=True)
    assert catalog(content, ()).wishes([META, stranger]) == []


def test_every_node_follows_meta_and_no_removed_one_does():
    """Nodes of the settings and nodes that were added."""
    content = [(node_key("n4"), ENTRY.encode()), (node_key("n3"), REMOVED)]
    assert catalog(content).mirrors(configured(("n1",), ("n2", "n3"))) == (["n4"], ["n3"])
    assert catalog(content).gone(configured(("n1",), ("n3",))) == ["n3"]
    assert catalog(content).gone(configured(("n1", "n3"))) == []


def test_a_group_that_formed_never_forms_again():
    """Somebody else comes first then, whatever this node has lost."""
    assert initial_members(DEFAULT, "n1") == NODES
    assert initial_members(defined("default"), "n1") == ("n2", "n3", "n1")
