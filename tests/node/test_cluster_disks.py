"""Data directories that are wiped, damaged, or older than what their node had acknowledged."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.node.cluster import running, until
from tests.node.load import Load, verify

pytestmark = pytest.mark.xdist_group("processes")


def disk_id(node):
    """Return the disk id in the node's directory."""
    return json.loads((node.data / "identity.json").read_text())["disk"]


async def member_disks(node):
    """Return node -> disk id of the group's configuration, as this node knows it."""
    return {member["node"]: member["disk"] for member in (await node.group())["members"]}


async def test_a_wiped_node_is_readmitted_by_itself(tmp_path):
    """With its directory removed while it was down, n3 comes back under a new disk id and equal, under load."""
    async with running(tmp_path) as cluster:
        async with Load(list(cluster.nodes.values())) as load:
            await load.more(200)
            old = disk_id(cluster["n3"])
            cluster.kill("n3")
            cluster["n3"].wipe()
            await load.more(100)
            cluster.start("n3")
            await cluster.ready("n3")
            await load.more(100)
        await verify(cluster, load)
        assert disk_id(cluster["n3"]) != old
        for node in cluster.nodes.values():
            assert (await member_disks(node))["n3"] == disk_id(cluster["n3"])
        # The new disk counts: it is half of the majority when another one goes.
        cluster.kill("n1")
        async with Load([cluster["n2"], cluster["n3"]], prefix="after") as after:
            await after.more(50)
        cluster.start("n1")
        await verify(cluster, load, after)


async def test_a_damaged_log_is_set_aside_and_its_node_readmitted(tmp_path):
    """Bytes overwritten in the middle of the newest segment: the directory is kept aside, and n3 becomes equal."""
    async with running(tmp_path) as cluster:
        async with Load(list(cluster.nodes.values())) as load:
            await load.more(200)
            cluster.kill("n3")
            damaged = disk_id(cluster["n3"])
            cluster["n3"].damage()
            await load.more(50)
            cluster.start("n3")
            await cluster.ready("n3")
        await verify(cluster, load)
        assert disk_id(cluster["n3"]) != damaged
        assert (cluster["n3"].data / "damaged" / "wal").is_dir()
        assert "data_set_aside" in cluster["n3"].printed()


@pytest.mark.parametrize("readmitted", [False, True], ids=["as formed", "after a re-admission"])
async def test_two_of_three_wiped_invent_no_past(tmp_path, readmitted):
    """The group refuses to serve, says what to do, and works again when one of the old directories is put back.

    An empty disk fetches nothing from n3, which leads nobody and has not admitted it: with a re-admission in n3's log,
    too, it only knows that there is a group.
    """
    async with running(tmp_path, settings={"node": {"request_timeout_ms": 1000}}) as cluster:
        async with Load(list(cluster.nodes.values())) as load:
            await load.more(100)
        if readmitted:
            cluster.kill("n3")
            cluster["n3"].wipe()
            cluster.start("n3")
        await cluster.converged()
        cluster.kill()
        for name in ("n1", "n2"):
            shutil.move(cluster[name].data, tmp_path / f"{name}.kept")
        cluster.start()

        async def said(name, words):
            missing = await cluster[name].missing()
            return words in missing

        async def said_by_n3():
            return await said("n3", "n1 and n2 lost their disks: a majority of the group's disks is gone") and (
                await said("n3", "Put the lost data directories back")
            )

        await until("n3 says what to do", said_by_n3)
        for name in ("n1", "n2"):
            words = "this node's disk is not in it yet"
            await until(f"{name} says what is missing", lambda name=name, words=words: said(name, words))
        key = next(iter(load.acknowledged))
        for node in cluster.nodes.values():
            answer = await node.client.put("invented", b"x")
            assert (answer.status, answer.definite) == (503, True), (node.name, answer)
            answer = await node.client.get(f"/v1/kv/{key}")
            assert answer.status in {503, 504}, (node.name, answer)
        load.check(await cluster["n3"].entries("load/", "stale"), "stale at n3")

        cluster.kill("n1")
        cluster["n1"].wipe()
        shutil.move(tmp_path / "n1.kept", cluster["n1"].data)
        cluster.start("n1")
        await verify(cluster, load)


async def test_a_damaged_node_alone_is_not_replaced_by_an_empty_one(tmp_path):
    """Without others to learn from it refuses to serve, keeps the old files, and never answers "no such key"."""
    async with running(tmp_path, count=1) as cluster:
        node = cluster["n1"]
        async with Load([node]) as load:
            await load.more(50)
        cluster.kill("n1")
        node.damage()
        cluster.start("n1")
        key = next(iter(load.acknowledged))

        async def answered():
            return await node.client.get(f"/v1/kv/{key}")

        assert (await until("the node answers", answered)).status == 503
        assert (await node.client.get(f"/v1/kv/{key}?stale")).status == 503
        assert (await node.client.put("new", b"x")).status == 503
        assert "damaged" in await node.missing()
        assert (node.data / "damaged" / "wal").is_dir()
        cluster.kill("n1")
        cluster.start("n1")
        assert (await until("the node answers", answered)).status == 503


@pytest.mark.parametrize("part", ["wal", ""], ids=["log alone", "whole directory"])
async def test_an_older_copy_endangers_nobody(tmp_path, part):
    """n3 comes back with a copy from before what it has acknowledged since, and n1 dies: nothing is lost.

    A coordinator still in office knows what n3 had acknowledged: an older directory comes back as a new disk.
    """
    async with running(tmp_path) as cluster:
        nodes = list(cluster.nodes.values())
        place = cluster["n3"].data / part
        async with Load(nodes, prefix="before") as before:
            await before.more(100)
        await cluster.converged()
        cluster.kill("n3")
        shutil.copytree(place, tmp_path / "older")
        old = disk_id(cluster["n3"])
        cluster.start("n3")
        await cluster.ready("n3")
        async with Load(nodes, prefix="after") as after:
            await after.more(200)
        await cluster.converged()
        epoch = (await cluster["n2"].group())["epoch"]
        cluster.kill("n3")
        shutil.rmtree(place)
        shutil.move(tmp_path / "older", place)
        cluster.start("n3")
        await cluster.converged()
        if not part and (await cluster["n2"].group())["epoch"] == epoch:
            assert "disk_forgotten" in cluster["n3"].printed()
            assert disk_id(cluster["n3"]) != old
        cluster.kill("n1")
        await cluster.primary(other_than="n1")
        for name in ("n2", "n3"):
            await cluster.ready(name)
            after.check(await cluster[name].entries("after/"), f"linearizable at {name}")
        cluster.start("n1")
        await verify(cluster, before, after)
