"""A node whose own disk was too slow says so: in the event log when it begins, in its status while it lasts."""

from replicad.core.cluster.definitions import GroupDefinition
from replicad.core.engine.status import on_probation, patience_us, status
from tests.core.engine.test_node import Ports, engine


def test_a_slow_flush_is_told_once_and_shown_while_it_counts():
    """What was slow is not told again before it has kept up."""
    node = engine(ports := Ports())
    group = node.open_group(GroupDefinition("g", "g.1", ("n1",), ("n1",)))

    def turns(count, flush_us=0):
        for _ in range(count):
            ports.time += 10_000
            node.tick()
            node.turn()
            ports.time += flush_us
            node.on_durable(ports.numbers[-1] if ports.numbers else 0)

    turns(200)
    assert (group.replica.role, on_probation(group), "slow_disk" in ports.told) == ("coordinator", {}, False)
    assert status(group)["members"][0]["probation_ms"] == 0
    stall = group.limits.stall_after_us
    assert patience_us(group) == stall
    for number in range(2):
        group.writes.submit((1, b"k%d" % number, b"v", 0, -1), 0, lambda *_: None, None)
        turns(1, flush_us=3 * stall)
        assert (ports.told.count("slow_disk"), list(on_probation(group))) == (1, ["n1"])
        left = on_probation(group)["n1"]
        assert 0 < left <= 4 * stall // 1000
        assert status(group)["members"][0]["probation_ms"] == left
    ports.time += 4 * stall
    assert on_probation(group) == {}
