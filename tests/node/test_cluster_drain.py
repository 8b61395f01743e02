"""``replicad node drain`` and ``undrain`` of real nodes under load: writes go on, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.node.cluster import running, until
from tests.node.load import Load, verify

pytestmark = pytest.mark.xdist_group("processes")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


async def command(cluster, *words):
    """Run ``replicad node`` against a cluster."""
    addresses = ",".join(f"127.0.0.1:{node.http}" for node in cluster.nodes.values())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "replicad.cli.main", "node", *words),
        env={**os.environ, "REPLICAD_ADDR": addresses},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Done(process.returncode, out.decode(), err.decode())


async def status(node):
    return (await node.client.get("/v1/replicad/status")).json()


async def holds_nothing(node):
    """Whether a node has neither office nor lease in any group, and says that it is drained."""
    said = await status(node)
    held = [group for group in said["groups"].values() if group["lease"] or group["role"] == "coordinator"]
    return said["drained"] and not held


async def test_a_follower_and_then_the_coordinator_are_drained_under_load(tmp_path):
    """No write fails or is lost, writes go on all the time; a drained node stays so when it is started again."""
    async with running(tmp_path) as cluster:
        follower, first = await cluster.follower(), await cluster.primary()
        (other,) = set(cluster.nodes) - {follower, first}
        async with Load([cluster[other]]) as load:
            await load.more(200)
            done = await command(cluster, "drain", follower)
            assert (done.code, done.out) == (0, f"{follower} is drained: it holds no office and no lease\n"), done
            assert await holds_nothing(cluster[follower])
            await load.more(200)
            done = await command(cluster, "drain", first, "--json")
            assert (done.code, json.loads(done.out)["holds"]) == (0, []), done
            assert await cluster.primary() == other
            assert await holds_nothing(cluster[first])
            await load.more(200)
            assert await cluster[follower].missing() == (
                f"{follower} is drained for maintenance: replicad node undrain {follower}\n"
            )
            assert await cluster[follower].terminate() == 0
            cluster.start(follower)
            await load.more(200)
            await until("it is drained after its restart", lambda: holds_nothing(cluster[follower]))
            for name in (follower, first, first):
                assert (await command(cluster, "undrain", name)).out == f"{name} is not drained\n"
            await load.more(200)
        assert load.indefinite == {}
        assert load.refused == 0
        printed = cluster[first].printed()
        assert printed.count("] drained") == printed.count("] drain_done") == 1
        assert "] undrained" in printed
        await verify(cluster, load)


async def needed(node, gone):
    """Whether a node says that it is needed because another one is gone."""
    said = (await node.client.get("/v1/replicad/drain")).json()["needed"]
    return [need["group"] for need in said if f"not in touch with {gone};" in need["why"]] == ["default", "_meta"]


async def test_the_last_that_can_keeps_its_office(tmp_path):
    """It says why, goes on serving, and hands over once another is back; a node that is down cannot be drained."""
    async with running(tmp_path) as cluster:
        first = await cluster.primary()
        gone, other = (name for name in cluster.nodes if name != first)
        assert (await command(cluster, "drain", other)).code == 0
        await cluster[gone].terminate()
        await until("the last vote is needed", lambda: needed(cluster[other], gone))
        done = await command(cluster, "drain", other, "--timeout", "0")
        assert (done.code, f"{other} is drained, but to stop it now would stop" in done.err) == (1, True), done
        done = await command(cluster, "drain", gone)
        assert done.code == 4
        assert f"{gone} does not answer, and only {gone} itself can do this; nothing was done" in done.err

        async def kept():
            """On a busy machine even this office may be lost for a moment, and is taken again."""
            done = await command(cluster, "drain", first, "--timeout", "1")
            return (
                done.code == 1 and f"{gone} does not answer" in done.err and f"{other} is drained as well\n" in done.err
            )

        async def written():
            return (await cluster[other].client.request("PUT", "/v1/kv/a", b"1")).status == 200

        await until("the office is kept", kept)
        await until("a write is acknowledged", written)
        cluster.start(gone)
        done = await command(cluster, "drain", first)
        assert done.code == 0, done
        assert await cluster.primary() == gone
        assert (await cluster[first].client.get("/v1/kv/a?raw")).body == b"1"


async def test_a_node_that_there_is_not(tmp_path):
    """Unknown names are refused, with those that there are."""
    async with running(tmp_path) as cluster:
        done = await command(cluster, "drain", "n9")
        assert (done.code, done.err) == (2, "replicad: there is no node 'n9'; the nodes are n1, n2, n3\n")
        nodes = (await cluster["n1"].client.get("/v1/replicad/nodes")).json()
        assert [each["drained"] for each in nodes] == [False] * 3
        assert (await command(cluster, "drain", "n2")).code == 0

        async def heard():
            return (await cluster["n1"].client.get("/v1/replicad/nodes")).json()[1]["drained"]

        await until("others hear of it", heard)
