from replicad.client.places import SHUNNED_SECONDS, Places

NODES = {"n1": ("a:1", True), "n2": ("b:1", True), "n3": ("c:1", False), "n4": ("d:1", True)}
GROUPS = {"g": ("n2", ("n1", "n2", "n3"))}


def test_at_first_the_order_that_was_given():
    assert Places(["b:1", "a:1", "b:1"], "g").order(100) == ["b:1", "a:1"]


def test_the_coordinator_then_members_in_touch_then_the_others():
    places = Places(["z:1"], "g")
    places.learn(NODES, GROUPS)
    assert places.order(100) == ["b:1", "a:1", "c:1", "z:1", "d:1"]


def test_who_failed_comes_last_for_a_while():
    places = Places(["z:1"], "g")
    places.learn(NODES, GROUPS)
    places.shun("b:1", 100)
    assert places.order(101)[-1] == "b:1"
    assert places.order(100 + SHUNNED_SECONDS)[0] == "b:1"


def test_whether_there_is_anyone_left_to_ask():
    places = Places(["a:1", "b:1"], "g")
    places.shun("a:1", 100)
    assert places.any_fresh(101)
    places.shun("b:1", 101)
    assert not places.any_fresh(102)
    assert places.any_fresh(100 + SHUNNED_SECONDS)


def test_an_address_that_a_node_points_to_comes_first():
    places = Places(["a:1"], "g")
    places.learn(NODES, GROUPS)
    places.point_to(("d:1",))
    assert places.order(100)[0] == "d:1"
