"""Two clusters of one name: what the one knows never enters the other."""

from __future__ import annotations

import shutil

import pytest

from replicad.node.identity import read_identity
from tests.node.cluster import Cluster, Node, running, until
from tests.node.load import Load, verify
from tests.node.old_release import unpack

pytestmark = pytest.mark.xdist_group("processes")

TWO_CLUSTERS = "these are two clusters of one name"


async def with_a_past(directory, *, tree=None) -> None:
    """Leave the data of an earlier cluster of the same name, whose configuration has seen changes."""
    async with running(directory, tree=tree) as earlier:
        for number in range(30):
            answer = await earlier["n1"].client.put(f"load/old-{number}", b"of the earlier cluster")
            assert answer.status == 200
        for protocol in ("active", "remote-write") * 2:
            answer = await earlier["n1"].client.request(
                "POST", "/v1/replicad/groups/default/protocol", b'{"protocol": "%s"}' % protocol.encode()
            )
            assert answer.status == 200, answer.text
        assert (await earlier["n3"].group())["configuration"] >= 5
        for node in earlier.nodes.values():
            assert await node.terminate() == 0


async def versions(cluster: Cluster, *names: str) -> list[int]:
    """Return the version of the configuration of `default` at each of these nodes."""
    return [(await cluster[name].group())["configuration"] for name in names]


async def refused(node: Node, words: str) -> None:
    """Wait until a node says why nobody speaks with it."""

    async def says() -> bool:
        return words in await node.missing()

    await until(f"{node.name} says {words!r}", says)


async def check_stranger_changes_nothing(cluster: Cluster, left, words: str, tree=None) -> None:
    """Start n3 on the directory of the earlier cluster for a while, under load; then on its own again."""
    node = cluster["n3"]
    async with Load([cluster["n1"], cluster["n2"]], prefix=f"load-{words[:5].strip()}") as load:
        await load.more(100)
        before = await versions(cluster, "n1", "n2")
        assert await node.terminate() == 0
        own = node.data.rename(node.data.with_name("n3-own"))
        shutil.copytree(left, node.data)
        disk = read_identity(node.data / "identity.json").disk
        node.tree = tree
        node.start()
        if tree is None:
            await refused(node, words)
        await until("the refusal is logged", lambda: heard(cluster, words))
        await until("the status shows the refusal", lambda: shown(cluster, words))
        await load.more(300)
        assert await node.terminate() == 0
        identity = read_identity(node.data / "identity.json")
        assert identity.disk == disk, "the stranger's directory was set aside"
        assert await versions(cluster, "n1", "n2") == before
        shutil.rmtree(node.data)
        own.rename(node.data)
        node.tree = None
        node.start()
        await cluster.ready()
        await load.more(100)
    await verify(cluster, load)


async def shown(cluster: Cluster, words: str) -> bool:
    """Whether the status pages of both other nodes say this; they serve, so that nothing is missing there."""
    pages = [(await cluster[name].client.get("/v1/replicad/status")).json()["refused"] for name in ("n1", "n2")]
    return all(any(words in line for line in page) for page in pages)


async def heard(cluster: Cluster, words: str) -> bool:
    """Whether both other nodes logged this."""
    return all(words in cluster[name].printed() for name in ("n1", "n2"))


async def test_a_node_of_an_earlier_cluster_changes_nothing(tmp_path):
    """Its configuration is newer, and its directory is refused; moved away, the node is re-admitted with a new disk."""
    await with_a_past(tmp_path / "earlier")
    async with running(tmp_path / "cluster") as cluster:
        await check_stranger_changes_nothing(cluster, tmp_path / "earlier" / "n3", TWO_CLUSTERS)
        node = cluster["n3"]
        assert await node.terminate() == 0
        shutil.rmtree(node.data)
        shutil.copytree(tmp_path / "earlier" / "n3", node.data)
        node.start()
        await refused(node, TWO_CLUSTERS)
        assert await node.terminate() == 0
        node.data.rename(node.data.with_name("n3-moved"))
        node.start()
        await cluster.converged()
        assert not await node.entries("load/old-")


async def test_a_directory_of_the_release_before_is_refused_too(tmp_path):
    """It knows no id: what holds data that no group here knows is refused, and so is a release that cannot say more."""
    old = unpack(tmp_path / "tree")
    await with_a_past(tmp_path / "earlier", tree=old)
    async with running(tmp_path / "cluster") as cluster:
        left = tmp_path / "earlier" / "n3"
        await check_stranger_changes_nothing(cluster, left, "holds data and no cluster id")
        await check_stranger_changes_nothing(cluster, left, "does not know cluster ids", tree=old)
