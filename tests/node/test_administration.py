"""What one node answers operators: groups that do not form, changes that cannot be, and when it is ready."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from replicad.core.cluster.definitions import GroupDefinition, parse_definition
from replicad.core.model.configuration import Configuration
from replicad.core.model.errors import RequestError
from replicad.core.model.limits import Limits
from replicad.core.model.refusals import Refusal, RefusalCode
from replicad.node.administration import Administration
from replicad.node.runtime import NodeRuntime
from replicad.node.steps import Task

NODES = ("n1", "n2", "n3", "n4")


class Directory:
    """Groups and nodes in memory."""

    def __init__(self):
        self.definitions = {}

    def nodes(self):
        return list(NODES)

    def names(self):
        return sorted(self.definitions)

    def definition(self, name):
        return self.definitions.get(name)

    async def refresh(self):
        pass

    async def put(self, key, value):
        name = key.decode().removeprefix("group/")
        self.definitions[name] = parse_definition(name, value)
        return True


def at(name, *connected):
    """Return what operators ask of a node that is in touch with some others."""
    transport = SimpleNamespace(connected=lambda other: other in connected)
    node = SimpleNamespace(name=name, groups={}, transport=transport, directory=Directory(), limits=Limits())
    return Administration(node)


def opened(name="orders", voters=("n1", "n2"), mirrors=(), refusal=None, coordinator="n1"):
    """Return a group that refuses every change."""
    configuration = Configuration.initial({node: node for node in voters})
    for mirror in mirrors:
        configuration = configuration.with_mirror(mirror, 1)

    async def request(kind, argument, seconds):
        return refusal

    state = SimpleNamespace(configuration=configuration)
    replica = SimpleNamespace(state=state, coordinator=coordinator)
    definition = GroupDefinition(name, name, voters, voters, mirrors)
    return SimpleNamespace(name=name, id=name, definition=definition, replica=replica, change=request)


@pytest.mark.parametrize("members", [("n1", "n2", "n4"), ("n2", "n4")], ids=["a member", "no member"])
async def test_a_group_that_does_not_form_is_unfinished(members):
    """At the end of its time the answer leaves the outcome open, and names who is missing; the group stays defined."""
    administration = at("n1", "n2", "n3")
    with pytest.raises(RequestError, match="defined, but not formed: n4 is not in touch; it forms by itself") as caught:
        await administration.create(GroupDefinition.new("orders", "0a1b2c3d", members), 0.01)
    assert (caught.value.kind.name, caught.value.kind.definite) == ("unfinished", False)
    assert administration.node.directory.names() == ["orders"]


async def test_whoever_is_no_member_waits_until_the_group_is_formed():
    """Its first coordinator writes a version into the definition; that ends the wait."""
    administration = at("n1", "n2", "n3")
    directory = administration.node.directory
    making = asyncio.ensure_future(administration.create(GroupDefinition.new("orders", "0a1b2c3d", ("n2", "n3")), 60))
    await asyncio.sleep(0.01)
    assert not making.done()
    made = directory.definitions["orders"]
    directory.definitions["orders"] = GroupDefinition("orders", made.id, made.founders, made.members, version=1)
    assert (await making)["version"] == 1


async def test_another_group_of_that_name_is_shown_as_it_is():
    """The members of now are named, and those that it began with."""
    administration = at("n1")
    directory = administration.node.directory
    directory.definitions["orders"] = GroupDefinition("orders", "o", ("n1", "n2"), ("n2", "n3"), version=3)
    with pytest.raises(RequestError, match=r"members n2, n3 \(initially n1, n2\), protocol"):
        await administration.create(GroupDefinition.new("orders", "0a1b2c3d", ("n4",)), 1)


@pytest.mark.parametrize("action", ["remove", "demote", "promote", "replace"])
async def test_a_node_that_nobody_knows_is_refused(action):
    """The sentence names those that are known; one that only the group knows can be changed."""
    administration = at("n1")
    other = "n3" if action == "replace" else ""
    with pytest.raises(RequestError, match=r"no node 'n9' .* known are n1, n2, n3, n4, n8$") as caught:
        await administration.change_members(opened(mirrors=("n8",)), action, "n9", other, 1)
    assert caught.value.kind.definite


async def test_one_voter_does_not_replace_another():
    """Both are voters: to take one out is a removal."""
    with pytest.raises(RequestError, match=r"use remove$") as caught:
        await at("n1").change_members(opened(), "replace", "n1", "n2", 1)
    assert caught.value.kind.name == "conflict"


@pytest.mark.parametrize(("code", "again"), [(RefusalCode.NO_MAJORITY, True), (RefusalCode.LAST_VOTER, False)])
async def test_only_what_may_succeed_is_said_to_be_repeated(code, again, monkeypatch):
    """A refusal that the same request meets again says nothing of running it again."""
    monkeypatch.setattr("replicad.node.steps.SETTLING_SECONDS", 0)
    refusal = Refusal(code, "because")
    with pytest.raises(RequestError) as caught:
        await Task(at("n1").node, opened(refusal=refusal), 60).demote("n2")
    assert caught.value.message.startswith("group orders: because. Step that failed: n2 is a mirror.")
    assert caught.value.message.endswith("Run it again to continue") == again


async def test_a_name_in_a_sentence_decides_nothing():
    """A node may be called what a passing refusal says: what is final ends the step all the same, at once."""
    refusal = Refusal(RefusalCode.NOT_VOTER, "ask again is no voter of this group")
    with pytest.raises(RequestError, match="ask again is no voter of this group") as caught:
        await Task(at("n1").node, opened(refusal=refusal), 60).demote("n2")
    assert caught.value.kind.name == "conflict"


async def test_what_passes_is_waited_for():
    """Until the time is over; the answer then names what was heard last."""
    with pytest.raises(RequestError, match=r"not happen in time \(last heard: because\)") as caught:
        await Task(at("n1").node, opened(refusal=Refusal(RefusalCode.BEHIND, "because")), 0.01).demote("n2")
    assert caught.value.kind.name == "unknown_outcome"


async def test_a_step_that_is_no_member_s_is_final():
    """Whoever is no mirror cannot be promoted, however often that is tried."""
    with pytest.raises(RequestError, match="group orders: n3 is no mirror of it: add it first") as caught:
        await Task(at("n1").node, opened(), 1).promote("n3")
    assert "again" not in caught.value.message


@pytest.mark.parametrize(
    ("groups", "reasons"),
    [
        ({"default": [], "orders": ["orders"], "_meta": ["meta"]}, []),
        ({"default": ["default"], "orders": []}, ["default"]),
        ({"_meta": [], "orders": ["orders"], "carts": ["carts"]}, ["orders", "carts"]),
        ({"_meta": ["meta"], "orders": ["orders"], "carts": []}, []),
        ({"_meta": ["meta"]}, ["meta"]),
    ],
)
def test_one_group_does_not_make_a_node_unready(groups, reasons):
    """`default` decides where it is open; elsewhere one group that serves is enough. A drain hides no other reason."""

    def group(name, missing):
        return SimpleNamespace(name=name, missing=lambda: missing)

    node = object.__new__(NodeRuntime)
    node.name = "n1"
    node.groups = {name: group(name, missing) for name, missing in groups.items()}
    for drained, said in ((False, []), (True, ["n1 is drained for maintenance: replicad node undrain n1"])):
        node.engine = SimpleNamespace(drain=SimpleNamespace(drained=drained))
        assert node.readiness() == said + reasons


class Draining:
    """A node whose directory takes a mark when it is let, and what happened there in this order."""

    def __init__(self, error=None):
        self.calls, self.error, self.let = [], error, threading.Event()
        self.asked, self.loop = asyncio.Event(), asyncio.get_running_loop()
        self.administration = at("n1")
        self.drain = SimpleNamespace(drained=False, set=self.set, needs=lambda _: [], holdings=list)
        self.administration.node.engine = SimpleNamespace(drain=self.drain)
        self.administration.node.data = SimpleNamespace(set_drained=self.note)

    def note(self, *, drained):
        self.calls.append(("asks the disk", drained))
        self.loop.call_soon_threadsafe(self.asked.set)
        assert self.let.wait(60)
        if self.error:
            raise self.error
        self.calls.append(("noted", drained))

    def set(self, *, drained):
        self.drain.drained = drained
        self.calls.append(("done", drained))


async def test_a_drain_is_noted_before_it_is_done_and_holds_nothing_up():
    """The loop turns while the disk hangs; whoever asks may go meanwhile; the next request waits for its turn."""
    node = Draining()
    first, second = (asyncio.create_task(node.administration.drain(drained=drained)) for drained in (True, False))
    await node.asked.wait()
    assert (node.calls, node.drain.drained) == ([("asks the disk", True)], False)
    first.cancel()
    node.let.set()
    assert not (await second)["drained"]
    assert node.calls == [(what, drained) for drained in (True, False) for what in ("asks the disk", "noted", "done")]


async def test_a_drain_that_cannot_be_noted_is_not_done():
    """A full disk: the node goes on as before, and what it will find after a restart is not known."""
    node = Draining(OSError(28, "No space left on device"))
    node.let.set()
    with pytest.raises(RequestError, match="no space left on device; the node goes on as before") as caught:
        await node.administration.drain(drained=True)
    assert caught.value.kind.name == "disk_full"
    assert node.calls == [("asks the disk", True)]


async def test_no_office_moves_to_a_drained_member():
    """It is refused at once, with the command that ends the drain; the group is not asked."""
    administration = at("n1", "n2")
    administration.node.engine = SimpleNamespace(drain=SimpleNamespace(is_drained=lambda name: name == "n2"))
    with pytest.raises(RequestError, match="replicad node undrain n2; nothing was done") as caught:
        await administration.move_primary(opened(), "n2", 60)
    assert caught.value.kind.name == "conflict"
