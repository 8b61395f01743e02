"""Groups that grow, shrink and move, in a small cluster under virtual time and load."""

from dataclasses import replace

import pytest

from replicad.core.journal.records import EntryRecord, FormationRecord, WatermarkRecord
from replicad.core.model.operations import ACK_ALL, CONFIGURATION, NO_CAS, PUT, encode_batch
from replicad.lab.clients import Request
from replicad.lab.contact import Level
from replicad.lab.scenario import LIMITS
from replicad.lab.stage import Stage

PATIENCE_US = 20_000_000


class Group:
    """Nodes n1 … of which the first few form a group, and commands that wait for their outcome."""

    def __init__(self, nodes, founders, limits=LIMITS):
        self.stage = Stage(nodes, limits, founders)
        self.written = 0
        self.start(*self.stage.names[:founders])
        self.until(lambda: self.coordinator() != "")

    def start(self, *names):
        for name in names:
            self.stage.nodes[name].start()

    def until(self, condition):
        if not self.stage.run_while(lambda: not condition(), PATIENCE_US, 1_000):
            raise AssertionError("; ".join(node.describe() for node in self.stage.nodes.values()))

    def replica(self, name):
        return self.stage.nodes[name].process.replica

    def role(self, name):
        process = self.stage.nodes[name].process
        return "down" if process is None else process.replica.role

    def roles(self):
        return [self.role(name) for name in self.stage.names]

    def coordinator(self):
        return next((name for name in self.stage.names if self.role(name) == "coordinator"), "")

    def view(self):
        name = self.coordinator()
        return sorted(self.replica(name).view) if name else []

    def change(self, at, kind, argument):
        """Ask this node for a change, once it knows whom to ask; returns the answer."""
        process = self.stage.nodes[at].process
        self.until(lambda: process.replica.coordinator)
        number = process.change(kind, argument)
        self.until(lambda: number in process.changes)
        refusal = process.changes[number]
        return "" if refusal is None else refusal.sentence

    def write(self, at, count=1):
        """Put values at this node, one after the other; each is acknowledged."""
        for _ in range(count):
            self.written += 1
            request = Request("client", b"k%d" % (self.written % 7), PUT, b"v%d" % self.written, ack=ACK_ALL)
            error = "not_ready"  # definite: a node that does not hold the entry that changed it yet says so at once
            while error == "not_ready":
                outcomes = []
                assert self.stage.request_write(at, request, NO_CAS, b"", outcomes.append)
                self.until(lambda outcomes=outcomes: bool(outcomes))
                error = outcomes[0].error
                self.stage.run_for(1_000)
            assert error == ""

    def read(self, at):
        """Return the value written last, as this node reads it."""
        outcomes = []
        key = b"k%d" % (self.written % 7)
        assert self.stage.request_read(at, key, Level.LINEARIZABLE, outcomes.append)
        self.until(lambda: bool(outcomes))
        return outcomes[0].entry.value

    def newest(self):
        return b"v%d" % self.written

    def equal(self, *names):
        """Wait until these nodes have applied everything."""
        self.until(lambda: all(self.stage.nodes[n].process.applied_slot == self.stage.committed() for n in names))


def test_one_node_becomes_three_and_another_one_alone():
    """Each node is added, follows, is promoted; the office moves; the first two go; nothing is lost on the way."""
    group = Group(3, 1)
    group.write("n1", 5)
    group.start("n2", "n3")
    for name in ("n2", "n3"):
        assert group.change("n1", "add", name) == ""
        group.until(lambda name=name: group.role(name) == "mirror")
        group.equal(name)
        group.write(name)
        assert group.read(name) == group.newest()
        group.until(lambda name=name: group.change("n1", "promote", name) == "")
        group.until(lambda name=name: name in group.view())
        group.write(name)
    assert group.view() == ["n1", "n2", "n3"]
    assert group.change("n2", "move", "n3") == ""
    group.until(lambda: group.coordinator() == "n3")
    group.until(lambda: group.view() == ["n1", "n2", "n3"])
    assert group.change("n2", "remove", "n1") == ""
    group.until(lambda: group.role("n1") == "removed")
    group.write("n2")
    assert group.change("n2", "remove", "n2") == ""
    group.until(lambda: group.role("n2") == "removed")
    group.write("n3")
    assert group.read("n3") == group.newest()
    assert group.roles() == ["removed", "removed", "coordinator"]


def test_three_nodes_become_five_and_three_others():
    """Newcomers catch up by checkpoint, a dead voter is replaced, and a former coordinator follows as a mirror."""
    group = Group(5, 3, replace(LIMITS, checkpoint_slots=20, retained_slots=4, digest_slots=4))
    group.write("n1", 50)
    group.equal("n1", "n2", "n3")
    assert group.replica("n1").state.log.base > 0
    group.start("n4", "n5")
    for name in ("n4", "n5"):
        assert group.change("n2", "add", name) == ""
        group.equal(name)
        group.write("n3", 5)
        group.until(lambda name=name: group.change("n2", "promote", name) == "")
        group.write("n1", 5)
    assert group.stage.counts["checkpoint_installed"] >= 2
    group.until(lambda: len(group.view()) == 5)
    dead, old = next(name for name in ("n1", "n2", "n3") if name != group.coordinator()), group.coordinator()
    group.stage.crash(dead)
    group.write("n4", 5)
    assert group.change("n4", "remove", dead) == ""
    assert group.change("n4", "demote", old).startswith(f"{old} is the coordinator")
    assert group.change("n4", "move", "n5") == ""
    group.until(lambda: group.coordinator() == "n5")
    group.write("n4", 5)
    group.until(lambda: len(group.view()) == 4)
    assert group.change("n4", "demote", old) == ""
    group.until(lambda: group.role(old) == "mirror")
    group.write(old, 5)
    assert group.read(old) == group.newest()
    group.start(dead)
    group.until(lambda: group.role(dead) == "removed")
    group.equal("n4", "n5", old)


def test_a_mirror_comes_back_empty_or_wrong_and_follows_again():
    """A mirror needs no re-admission: it fetches all; one whose digest differs rebuilds itself."""
    group = Group(2, 1, replace(LIMITS, checkpoint_slots=20, retained_slots=4, digest_slots=4))
    group.start("n2")
    assert group.change("n1", "add", "n2") == ""
    group.write("n1", 50)
    group.equal("n2")
    group.stage.crash("n2")
    group.stage.nodes["n2"].wipe()
    group.start("n2")
    group.until(lambda: group.role("n2") == "mirror")
    group.write("n1", 5)
    group.equal("n2")
    assert group.stage.stage_nodes["n2"].corrupt(b"k3")
    group.stage.stage_judge.corrupted["n2"] = False
    group.write("n1", 5)
    group.until(lambda: group.stage.counts.get("rebuilding", 0) == 1)
    group.until(lambda: group.stage.nodes["n2"].process.readable)
    group.equal("n1", "n2")
    assert group.stage.nodes["n1"].process.content() == group.stage.nodes["n2"].process.content()


def test_a_mirrors_log_does_not_grow_for_ever():
    """It writes its checkpoints with the group, and lets its log go when the group does."""
    group = Group(2, 1, replace(LIMITS, checkpoint_slots=20, retained_slots=4))
    group.start("n2")
    assert group.change("n1", "add", "n2") == ""
    for _ in range(3):
        group.write("n1", 25)
        group.stage.run_for(500_000)
    group.until(lambda: group.replica("n2").checkpoints.committed[0] >= 60)
    group.until(lambda: group.replica("n2").state.log.base >= 60)


@pytest.mark.parametrize("switches", [3])
def test_the_protocol_is_switched_under_way(switches):
    """Each switch is an entry of the log; writes before and after it are all there."""
    group = Group(3, 3)
    for number in range(switches):
        group.write("n2", 3)
        protocol = ("active", "remote-write")[number % 2]
        assert group.change("n3", "protocol", protocol) == ""
        group.until(lambda protocol=protocol: group.replica("n2").state.configuration.protocol == protocol)
    group.write("n2", 3)
    group.until(lambda: len(group.view()) == 3)
    assert group.read("n1") == group.newest()


def test_a_mirror_lags_by_about_a_hop():
    """What is committed reaches a mirror that waits for it within a few milliseconds, not with a heartbeat."""
    group = Group(2, 1)
    group.start("n2")
    assert group.change("n1", "add", "n2") == ""
    group.until(lambda: group.role("n2") == "mirror")
    group.equal("n2")
    group.stage.run_for(100_000)
    for _ in range(5):
        group.write("n1")
        begun = group.stage.queue.now
        group.equal("n2")
        assert group.stage.queue.now - begun < LIMITS.heartbeat_us // 5


def recover(group, name):
    """Make this node, whose process must run, the only voter of the next generation, as ``replicad recover`` does."""
    process = group.stage.nodes[name].process
    replica = process.replica
    slot = replica.committed + 1
    configuration = replica.state.configuration.recovered(name, group.stage.nodes[name].disk_id, slot)
    entry = encode_batch(CONFIGURATION, configuration.encode())
    records = [
        EntryRecord(slot, replica.state.promised, 0, True, entry),
        FormationRecord(configuration.encode()),
        WatermarkRecord(slot),
    ]
    process.log.append([("default", record) for record in records], lambda: None)
    group.stage.run_for(100_000)
    group.stage.crash(name)
    group.start(name)


def test_a_lost_majority_is_given_up_and_the_group_grows_again():
    """One survivor goes on alone; the disks of the past forget all when they come back, and are added anew."""
    group = Group(3, 3)
    group.write("n1", 5)
    group.equal("n1", "n2", "n3")
    group.stage.crash("n1")
    group.until(lambda: group.coordinator() in {"n2", "n3"})
    group.until(lambda: len(group.view()) == 2)
    group.write("n2", 3)
    group.equal("n2", "n3")
    group.stage.crash("n2")
    recover(group, "n3")
    group.until(lambda: group.coordinator() == "n3")
    group.write("n3", 3)
    disks = {name: group.stage.nodes[name].disk_id for name in ("n1", "n2")}
    group.start("n1", "n2")
    group.until(lambda: all(group.stage.nodes[name].disk_id != disk for name, disk in disks.items()))
    assert group.coordinator() == "n3"
    for name in ("n1", "n2"):
        assert group.change("n3", "add", name) == ""
        group.until(lambda name=name: group.role(name) == "mirror")
        group.until(lambda name=name: group.change("n3", "promote", name) == "")
    group.until(lambda: len(group.view()) == 3)
    group.write("n1", 3)
    assert group.read("n2") == group.newest()


def test_a_mirror_of_the_past_does_not_follow_a_recovered_group():
    """A mirror that comes back with its old slots is added by name: it forgets them first."""
    group = Group(3, 2)
    group.start("n3")
    assert group.change("n1", "add", "n3") == ""
    group.write("n1", 5)
    group.equal("n3")
    group.stage.crash("n3")
    group.stage.crash("n2")
    recover(group, "n1")
    group.until(lambda: group.coordinator() == "n1")
    assert group.change("n1", "add", "n3") == ""
    disk = group.stage.nodes["n3"].disk_id
    group.start("n3")
    group.until(lambda: group.stage.nodes["n3"].disk_id != disk)
    group.until(lambda: group.role("n3") == "mirror")
    group.write("n3", 3)
    group.equal("n1", "n3")
