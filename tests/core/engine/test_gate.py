"""Which message waits for which flush."""

from replicad.core.journal.gate import Gate


def passed(gate, number):
    return [(lane.group, appends, messages) for lane, appends, messages in gate.durable(number)]


def test_a_message_waits_for_the_appends_of_its_own_group():
    """Another group's append does not hold it, its own does."""
    gate = Gate()
    first, second = gate.lane("a"), gate.lane("b")
    assert first.append() == 1
    assert not second.hold([("n2", "free")])
    assert first.hold([("n2", "one")])
    assert second.append() == 2
    assert first.append() == 3
    assert first.hold([("n2", "two")])
    assert passed(gate, 1) == [("a", 1, [("n2", "one")])]
    assert passed(gate, 3) == [("b", 1, []), ("a", 2, [("n2", "two")])]
    assert not first.hold([("n2", "free")])


def test_one_flush_may_end_several_appends():
    """A group is told its newest append only, with everything that waited, in order."""
    gate = Gate()
    lane = gate.lane("a")
    for text in ("one", "two"):
        lane.append()
        lane.hold([("n2", text)])
    assert passed(gate, 2) == [("a", 2, [("n2", "one"), ("n2", "two")])]


def test_a_group_that_is_opened_again_has_a_lane_of_its_own():
    """Flushes that the closed one asked for are not told to the new one."""
    gate = Gate()
    old = gate.lane("a")
    old.append()
    new = gate.lane("a")
    assert not new.hold([("n2", "free")])
    ((lane, _, _),) = gate.durable(1)
    assert lane is old


def test_records_that_nothing_waits_for_have_a_number_too():
    """Flush numbers rise for the whole node."""
    gate = Gate()
    lane = gate.lane("a")
    assert gate.issue_alone() == 1
    assert lane.append() == 2
    assert passed(gate, 1) == []
