"""A majority of disks is lost for good: the group goes on from what one survivor holds, in real processes."""

import asyncio
import json
import os
import shutil
import sys

import pytest

from tests.node.cluster import running, until
from tests.node.load import Load, verify
from tests.node.test_groups import ask, put, read

pytestmark = pytest.mark.xdist_group("processes")

MEMBERS = "/v1/replicad/groups/{}/members"
CONSENT = ("--yes-i-lose-data", "trial")


async def recover(node, *arguments, code=0):
    """Run the command on a node's data, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REPLICAD_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "replicad.cli.main", "recover"),
        *("--config", str(node.config), "--node", node.name, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == code, output
    return output


def disk_id(node):
    """Return the disk id in the node's directory."""
    return json.loads((node.data / "identity.json").read_text())["disk"]


async def serves(node, load, prefix="load"):
    """Wait until the node serves alone, and check that every acknowledged key is there."""
    await until(f"{node.name} serves", node.ready)
    status = await node.group()
    assert [member["node"] for member in status["members"]] == [node.name]
    assert status["configuration"] == 1_000_000
    load.check(await node.entries(f"{prefix}/"), f"at {node.name}")


async def loaded(cluster, count=200):
    """Write keys, and wait until all nodes have all of them."""
    async with Load(list(cluster.nodes.values())) as load:
        await load.more(count)
    await cluster.converged()
    return load


async def add(cluster, survivor, group, *names):
    """Make empty nodes members of a group again."""
    for name in names:

        async def added(name=name):
            body = json.dumps({"action": "add", "node": name}).encode()
            target = MEMBERS.format(group) + "?timeout=30s"
            answer = await survivor.client.request("POST", target, body, seconds=70)
            assert answer.status in {200, 409, 503, 504}, answer
            return answer.status == 200

        await until(f"{name} is a voter of {group}", added)


async def test_two_of_three_wiped_and_the_group_goes_on(tmp_path):
    """n3 serves alone with every key; n1 and n2, empty, are added, and the three are a group that survives a loss."""
    async with running(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes.values()
        load = await loaded(cluster)
        cluster.kill()
        n1.wipe()
        n2.wipe()
        printed = await recover(n3, "--all-groups", *CONSENT)
        assert "groups _meta and default: n3 is the only voter now" in printed
        cluster.start("n3")
        await serves(n3, load)
        assert await put(n3, "after", b"1", "default")
        cluster.start("n1", "n2")
        await add(cluster, n3, "default", "n1", "n2")
        await verify(cluster, load)
        assert (await ask(n1, "GET", "/v1/replicad/groups/default"))["members"] == ["n3", "n1", "n2"]
        await add(cluster, n3, "_meta", "n1", "n2")
        n3.kill()
        await until("two of the three serve", lambda: put(n1, "later", b"2", "default"))
        assert await read(n2, "later", "default") == b"2"
        cluster.start("n3")
        await verify(cluster, load)


async def _says(node, words):
    return words in await node.missing()


async def test_only_the_default_group_is_recovered(tmp_path):
    """The survivor serves default though _meta still has no majority; recovering that as well lets members be added."""
    async with running(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes.values()
        load = await loaded(cluster, 50)
        cluster.kill()
        n1.wipe()
        n2.wipe()
        printed = await recover(n3, *CONSENT)
        assert "also without a majority: _meta" in printed
        cluster.start("n3")
        await serves(n3, load)
        cluster.start("n1")
        await until("n1 says what it waits for", lambda: _says(n1, "replicad member add n1 --group default"))
        for _ in range(2):  # also after a restart, whose store and log both know the new configuration
            n3.kill()
            cluster.start("n3")
            await serves(n3, load)
        n3.kill()
        printed = await recover(n3, "--all-groups", *CONSENT)
        assert "group default stays as it is" in printed
        cluster.start("n1", "n2", "n3")
        await serves(n3, load)
        await add(cluster, n3, "default", "n1", "n2")
        await verify(cluster, load)


@pytest.mark.parametrize("met", ["survivor first", "each other first"])
async def test_old_disks_that_come_back_are_forgotten(tmp_path, met):
    """n1 and n2 were only down: once they hear of the recovery they give up their past, even in an old majority."""
    async with running(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes.values()
        load = await loaded(cluster)
        cluster.kill()
        old = disk_id(n1), disk_id(n2)
        printed = await recover(n3, "--all-groups", *CONSENT)
        assert "Nothing was heard of n1, n2." in printed
        if met == "each other first":
            cluster.start("n1", "n2")
            await cluster.primary()
            cluster.start("n3")
        else:
            cluster.start("n3")
            await serves(n3, load)
            cluster.start("n1", "n2")
        for node in (n1, n2):
            await until(f"{node.name} forgets", lambda node=node: _printed(node, "disk_forgotten"))
        assert "belongs to a past that was given up" in n1.printed()
        await until("they are no voters", lambda: _only_voter(cluster))
        assert {disk_id(n1), disk_id(n2)}.isdisjoint(old)
        await serves(n3, load)
        for node in (n1, n2):
            assert not await put(node, "old", b"x", "default") or await read(n3, "old", "default") == b"x"
        await add(cluster, n3, "default", "n1", "n2")
        await verify(cluster, load)


async def _printed(node, words):
    return words in node.printed()


async def _only_voter(cluster):
    roles = {}
    for name, node in cluster.nodes.items():
        groups = (await node.client.get("/v1/replicad/status")).json()["groups"]
        roles[name] = groups["default"]["role"] if "default" in groups else "none"  # it knows that it is no member
    return roles["n3"] == "coordinator" and all(roles[name] not in {"coordinator", "follower"} for name in ("n1", "n2"))


async def test_what_was_accepted_and_not_known_to_be_committed_is_kept(tmp_path):
    """All are killed under load: what n3 had accepted goes on, through checkpoints and without its store, too."""
    limits = {"cluster.limits": {"checkpoint_slots": 64}}
    async with running(tmp_path, settings=limits) as cluster:
        n1, n2, n3 = cluster.nodes.values()
        load = await loaded(cluster, 400)
        async with Load([n1, n2], prefix="more") as more:
            await more.more(300)
            await n3.checkpoint()
            await more.more(100)
            cluster.kill()
            await more.stop()
        n1.wipe()
        n2.wipe()
        shutil.rmtree(n3.data / "store")
        plan = json.loads(await recover(n3, "--json", "--all-groups", *CONSENT))
        holding = next(plan["holding"] for plan in plan["plans"] if plan["group"] == "default")
        cluster.start("n3")
        await serves(n3, load)
        status = await n3.group()
        assert status["committed_slot"] >= holding["highest"]
        assert status["index"] == holding["index"]
        # n3 was in the view, or took part later: what was acknowledged while it was is here.
        assert len(await n3.entries("more/")) >= 100


async def test_it_is_refused_while_nodes_run_and_where_somebody_has_more(tmp_path):
    """Five nodes, three wiped: the survivor that was down longer is refused; the other one goes on."""
    async with running(tmp_path, count=5) as cluster:
        nodes = list(cluster.nodes.values())
        n4, n5 = nodes[3:]
        assert "a node is running on" in await recover(n5, "--dry-run", code=1)
        n4.kill()
        load = await loaded_by(nodes[:3], 100)
        await cluster.converged("n1", "n2", "n3", "n5")
        cluster.kill()
        for node in nodes[:3]:
            node.wipe()
        for arguments in (("--also", str(n5.data)), ("--also", str(n5.data), *CONSENT)):
            printed = await recover(n4, *arguments, code=1)
            assert "n5" in printed
            assert "holds more of default" in printed
            assert "Run this there" in printed
        cluster.start("n5")
        await until("n5 answers", n5.group)
        assert "holds more of default" in await recover(n4, *CONSENT, code=1)
        n5.kill()
        printed = await recover(n5, "--all-groups", "--also", str(n4.data), *CONSENT)
        assert "3 of 5 voters are gone" in printed
        cluster.start("n5")
        await serves(n5, load)
        assert "Run this on one of them" in await recover(n4, *CONSENT, code=1)
        cluster.start("n4")
        await until("n4 forgets", lambda: _printed(n4, "disk_forgotten"))
        await add(cluster, n5, "default", "n4")
        await cluster.converged("n4", "n5")


async def loaded_by(nodes, count):
    """Write keys at some nodes."""
    async with Load(nodes) as load:
        await load.more(count)
    return load


async def test_a_majority_that_is_there_needs_no_recovery(tmp_path):
    """One of three is wiped: refused, whether the other one runs or its directory is shown."""
    async with running(tmp_path) as cluster:
        n1, n2, n3 = cluster.nodes.values()
        await loaded(cluster, 20)
        cluster.kill()
        n1.wipe()
        printed = await recover(n3, "--also", str(n2.data), *CONSENT, code=1)
        assert "2 of 3 voters, have their disks: that is a majority, and nothing is lost" in printed
        assert f"Put {n2.data} (node n2) where its node looks for it" in printed
        cluster.start("n2")
        await until("n2 answers", n2.group)
        for arguments in (CONSENT, ("--all-groups", *CONSENT)):
            printed = await recover(n3, *arguments, code=1)
            assert "Start n3 and n2 together" in printed
            assert "nothing was changed" in printed
        assert "a node is running on" in await recover(n3, "--also", str(n2.data), *CONSENT, code=1)
