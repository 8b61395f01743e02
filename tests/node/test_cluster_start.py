"""What a process that cannot start says: one plain sentence, and exit code 2."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.node.cluster import running
from tests.node.load import Load, verify

pytestmark = pytest.mark.xdist_group("processes")


def threads_of(pid):
    """The ids of a process's threads."""
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


async def test_a_second_process_on_a_data_directory_is_refused(tmp_path):
    """It says that the directory is in use; the first one is not disturbed."""
    async with running(tmp_path, count=1) as cluster:
        first = cluster["n1"]
        async with Load([first]) as load:
            second = type(first)("n1", tmp_path, first.http, first.peer)
            second.output = tmp_path / "second.output"
            second.start()
            assert await second.ended() == 2
            await load.more(20)
        assert f"the data directory {first.data} is in use by another replicad process" in second.printed()
        assert "Traceback" not in second.printed()
        await verify(cluster, load)


@pytest.mark.parametrize("kind", ["http", "peer"])
async def test_a_taken_port_is_named(tmp_path, kind):
    """It says which address is taken, leaves its directory unlocked, and starts when the port is free."""
    async with running(tmp_path, count=1) as cluster:
        node = cluster["n1"]
        async with Load([node]) as load:
            await load.more(20)
        node.kill()
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", getattr(node, kind)))
            taken.listen()
            node.output = tmp_path / "refused.output"
            node.start()
            assert await node.ended() == 2
        what = {"http": "HTTP", "peer": "peers"}[kind]
        address = f"127.0.0.1:{getattr(node, kind)}"
        assert f"cannot listen for {what} on {address}: another process listens there" in node.printed()
        assert "Traceback" not in node.printed()
        node.start()
        await verify(cluster, load)


async def test_another_nodes_directory_is_refused(tmp_path):
    """A directory that belongs to n1 is not taken by n2."""
    async with running(tmp_path) as cluster:
        cluster.kill()
        cluster["n2"].wipe()
        shutil.copytree(cluster["n1"].data, cluster["n2"].data)
        cluster["n2"].start()
        assert await cluster["n2"].ended() == 2
        assert "belongs to node 'n1', and this is 'n2'" in cluster["n2"].printed()


@pytest.mark.parametrize(("scheduling", "policy"), [("batch", os.SCHED_BATCH), ("normal", os.SCHED_OTHER)])
async def test_a_node_is_scheduled_as_the_settings_say(tmp_path, scheduling, policy):
    """All its threads are: nodes on shared cores do not interrupt each other, unless asked to."""
    async with running(tmp_path, count=1, settings={"node": {"scheduling": f'"{scheduling}"'}}) as cluster:
        threads = threads_of(cluster["n1"].process.pid)
        assert len(threads) > 1
        assert {os.sched_getscheduler(thread) for thread in threads} == {policy}


def stored_bytes(directory):
    """Return the bytes of all files below a directory, by path."""
    return {path.relative_to(directory): path.stat().st_size for path in directory.rglob("*") if path.is_file()}


async def test_idle_restarts_do_not_grow_the_directory(tmp_path):
    """A node that is started eight times with nothing to do holds as many segments, of the same size, as after one."""
    async with running(tmp_path, count=1) as cluster:
        node = cluster["n1"]
        assert (await node.client.put("k", b"v")).status == 200
        sizes = []
        for _ in range(9):
            await node.terminate()
            sizes.append(stored_bytes(node.data))
            cluster.start("n1")
            await cluster.ready("n1")
        segments = [{path: size for path, size in found.items() if path.suffix == ".seg"} for found in sizes]
        assert len(segments[0]) == 2
        assert segments == [segments[0]] * 9
        # Promises and offices cost some pages of store and log, never a segment.
        assert sum(sizes[-1].values()) - sum(sizes[0].values()) < min(segments[0].values()) // 8
