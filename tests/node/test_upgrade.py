"""A cluster of the release before goes over to this one, node by node, under load."""

from __future__ import annotations

import re

import pytest

from replicad.core.model.configuration import PROTOCOLS
from replicad.core.model.limits import PEER_VERSION_MAX
from replicad.node.identity import read_identity
from replicad.node.lmdb_environment import FORMAT_VERSION, TRUST
from tests.node.cluster import Cluster, running, until
from tests.node.load import Load, verify
from tests.node.old_release import unpack

pytestmark = pytest.mark.xdist_group("processes")

OPENED = re.compile(r"peer_link_opened .* peer=(\w+) version=(\d+)")

REBUILT = re.compile(r"store_rebuilding .*group=default ")

SIDE = "side"
"""A group that is made while the old release runs."""


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The source tree of the release before."""
    return unpack(tmp_path_factory.mktemp("old") / "tree")


@pytest.fixture(params=PROTOCOLS)
def protocol(request, monkeypatch):
    """How the group `default` is fed."""
    monkeypatch.setattr(Cluster, "protocol", request.param)
    return request.param


async def make_side_group(cluster: Cluster) -> None:
    """Create a second group and write to it."""
    first = cluster["n1"].client
    made = await first.request("PUT", f"/v1/replicad/groups/{SIDE}", b'{"members": ["n1", "n2", "n3"]}')
    assert made.status == 200, made.text
    for number in range(20):
        assert (await first.request("PUT", f"/v1/kv/side/{number}?ns={SIDE}", b"%d" % number)).status == 200


async def check_side_group(cluster: Cluster) -> None:
    """Every node has what was written to the second group, with one digest."""
    for node in cluster.nodes.values():
        for number in range(20):
            answer = await node.client.get(f"/v1/kv/side/{number}?ns={SIDE}&raw")
            assert (answer.status, answer.body) == (200, b"%d" % number), node.name


async def equal(cluster: Cluster) -> None:
    """Wait until all nodes have applied the same slot of every group, with one digest."""

    async def agree() -> bool:
        states = []
        for node in cluster.nodes.values():
            groups = (await node.client.get("/v1/replicad/status")).json()["groups"]
            states.append({name: (group["applied_slot"], group["digest"]) for name, group in groups.items()})
        assert all(set(state) == {"_meta", "default", SIDE} for state in states), states
        for name in states[0]:
            digests: dict[int, str] = {}
            for state in states:
                slot, digest = state[name]
                assert digests.setdefault(slot, digest) == digest, f"{name}: digests differ at slot {slot}: {states}"
        return all(state == states[0] for state in states)

    await until("all nodes are at one slot of every group", agree)


def store_formats(cluster: Cluster) -> set[int]:
    """Return the formats of the nodes' stores: content of another format is made again at the first start."""
    return {int((node.data / "store" / TRUST).read_bytes().split()[0]) for node in cluster.nodes.values()}


async def spoken(cluster: Cluster, version: int) -> None:
    """Wait until every node's newest links to all others speak this version."""

    async def said() -> bool:
        newest = [dict(OPENED.findall(node.printed())) for node in cluster.nodes.values()]
        return all(list(links.values()) == [str(version)] * (len(newest) - 1) for links in newest)

    await until(f"version {version} is spoken", said)


async def identified(cluster: Cluster) -> str:
    """Wait until every group says at every node which cluster it is of, and return that id."""

    async def said() -> str:
        found: dict[str, None] = {}
        for node in cluster.nodes.values():
            status = (await node.client.get("/v1/replicad/status")).json()
            found[status["cluster_id"]] = None
            for group in status["groups"].values():
                found[group["cluster_id"]] = None
                assert not group["cluster_id"] or group["incarnation"]
        return next(iter(found)) if len(found) == 1 else ""

    return str(await until("every group has the cluster id", said))


@pytest.mark.usefixtures("protocol")
async def test_one_node_at_a_time_under_load(tmp_path, old):
    """SIGTERM, new code, same directory: nothing acknowledged is lost, and in the end all speak the new version."""
    settings = {"cluster.limits": {"checkpoint_slots": 1000}}
    async with running(tmp_path / "cluster", settings=settings, tree=old) as cluster:
        await make_side_group(cluster)
        disks = {name: read_identity(node.data / "identity.json").disk for name, node in cluster.nodes.items()}
        await spoken(cluster, 1)
        assert store_formats(cluster) == {2}
        async with Load(list(cluster.nodes.values())) as load:
            await load.more(500)
            for node in cluster.nodes.values():
                assert await node.terminate() == 0
                node.tree = None
                await load.more(200)
                node.start()
                await cluster.ready(node.name)
                await load.more(300)
            await spoken(cluster, PEER_VERSION_MAX)
            cluster_id = await identified(cluster)
            await load.more(300)
        await verify(cluster, load)
        await check_side_group(cluster)
        await equal(cluster)
        for name, node in cluster.nodes.items():
            identity = read_identity(node.data / "identity.json")
            assert identity.disk == disks[name], f"{name} lost its disk on the way"
            assert identity.cluster_id == cluster_id, name
            assert len(REBUILT.findall(node.printed())) == 1, f"{name} makes its store anew just once"
        assert store_formats(cluster) == {FORMAT_VERSION}


async def test_a_node_that_goes_back_to_the_old_release_is_taken_in_again(tmp_path, old):
    """As long as one node runs the old release, the others do nothing that it could not read."""
    async with running(tmp_path / "cluster", tree=old) as cluster:
        await make_side_group(cluster)
        async with Load(list(cluster.nodes.values())) as load:
            for tree in (None, old):
                for name in ("n1", "n2"):
                    node = cluster[name]
                    assert await node.terminate() == 0
                    node.tree = tree
                    node.start()
                    await cluster.ready(name)
                    await load.more(200)
        await verify(cluster, load)
        await check_side_group(cluster)
        await equal(cluster)
        assert store_formats(cluster) == {2}
        for node in cluster.nodes.values():
            assert not read_identity(node.data / "identity.json").cluster_id
