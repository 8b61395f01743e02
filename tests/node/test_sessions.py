"""The session guarantees at real processes: a client that moves between nodes and carries its bookmark."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.node.cluster import Cluster, Node, running, until
from tests.node.load import Load, verify
from tests.node.wire import Answer

pytestmark = pytest.mark.xdist_group("processes")

BOOKMARK = "X-Replicad-Bookmark"


class Session:
    """One client: it asks whichever node it is told to, and sends back the bookmark that it got last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bookmark = ""

    async def ask(self, node: Node, method: str, target: str, body: bytes = b"") -> Answer:
        """Send one request with the bookmark, and take the one that comes back."""
        headers = {BOOKMARK: self.bookmark} if self.bookmark else {}
        answer = await node.client_of(self.name).request(method, target, body, headers)
        self.bookmark = answer.header(BOOKMARK) or self.bookmark
        return answer

    async def write(self, node: Node, key: str, value: bytes) -> None:
        """Write through this node, patiently: refusals pass."""

        async def done() -> bool:
            answer = await self.ask(node, "PUT", f"/v1/kv/{key}", value)
            assert answer.status == 200 or answer.definite, answer
            return answer.status == 200

        await until(f"{node.name} takes a write", done)

    async def read(self, node: Node, key: str) -> bytes:
        """Read at this node alone, asking no coordinator; a replica that is behind says so and is asked again."""

        async def found() -> tuple[bytes] | None:
            answer = await self.ask(node, "GET", f"/v1/kv/{key}?raw&stale")
            assert answer.header("x-consul-effective-consistency") == "stale"
            if answer.status == 200:
                assert answer.header("x-replicad-read") == ("session" if self.bookmark else "")
                return (answer.body,)
            assert answer.definite, answer
            return None

        return (await until(f"{node.name} has caught up", found))[0]


async def disturb(cluster: Cluster, times: int) -> None:
    """Stop one follower after the other until the rest goes on without it, so that it lags when it comes back."""
    for _ in range(times):
        follower = cluster[await cluster.follower()]
        primary = cluster[await cluster.primary(other_than=follower.name)]
        follower.pause()
        try:
            await until("the view shrinks", lambda primary=primary: shrunk(primary))
        finally:
            follower.resume()
        await cluster.ready(follower.name)


async def shrunk(primary: Node) -> bool:
    """Whether the primary goes on without a member."""
    return len((await primary.group())["view"]) < 3


async def test_a_moving_client_sees_what_it_wrote_and_never_goes_back(tmp_path):
    """Read-your-writes and monotonic reads hold with the bookmark at any node, while followers fall behind."""
    async with running(tmp_path) as cluster:
        nodes = list(cluster.nodes.values())
        choose = random.Random(7)
        disturbing = asyncio.create_task(disturb(cluster, 4))
        async with Load(nodes, writers=4) as load:
            writer, reader = Session("writer"), Session("reader")
            await writer.write(nodes[0], "shared", b"0")
            reader.bookmark = writer.bookmark
            seen = rounds = 0
            while not disturbing.done() or rounds < 100:
                rounds += 1
                await writer.write(choose.choice(nodes), "shared", b"%d" % rounds)
                assert await writer.read(choose.choice(nodes), "shared") == b"%d" % rounds
                for _ in range(2):
                    value = int(await reader.read(choose.choice(nodes), "shared"))
                    assert value >= seen, f"the reader went back from {seen} to {value}"
                    seen = value
        await disturbing
        await verify(cluster, load)


async def test_a_write_follows_what_its_session_has_read(tmp_path):
    """Who sees a reply sees what it replies to, at any node: the bookmark goes with the message."""
    async with running(tmp_path) as cluster:
        nodes = list(cluster.nodes.values())
        choose = random.Random(11)
        disturbing = asyncio.create_task(disturb(cluster, 2))
        author, replier, reader = Session("author"), Session("replier"), Session("reader")
        rounds = 0
        while not disturbing.done() or rounds < 50:
            rounds += 1
            await author.write(choose.choice(nodes), "question", b"%d" % rounds)
            replier.bookmark = author.bookmark
            question = await replier.read(choose.choice(nodes), "question")
            await replier.write(choose.choice(nodes), "answer", question)
            reader.bookmark = replier.bookmark
            answer = int(await reader.read(choose.choice(nodes), "answer"))
            assert int(await reader.read(choose.choice(nodes), "question")) >= answer == rounds
        await disturbing


async def test_a_follower_that_was_stopped_waits_for_the_bookmark(tmp_path):
    """A session read that reaches a stopped follower is answered with the new value once it goes on and catches up."""
    async with running(tmp_path) as cluster:
        follower = cluster[await cluster.follower()]
        primary = cluster[await cluster.primary()]
        session = Session("session")
        await session.write(primary, "shared", b"old")
        assert await session.read(follower, "shared") == b"old"
        follower.pause()
        await session.write(primary, "shared", b"new")
        reading = asyncio.create_task(session.read(follower, "shared"))
        await asyncio.sleep(0)
        follower.resume()
        assert await reading == b"new"


async def test_a_node_without_a_majority_serves_sessions(tmp_path):
    """A session read needs no coordinator: one node of three answers it, and says `behind` for what it cannot know."""
    async with running(tmp_path, settings={"node": {"request_timeout_ms": 500}}) as cluster:
        nodes = list(cluster.nodes.values())
        alone, session = nodes[0], Session("session")
        await session.write(nodes[1], "shared", b"value")
        assert await session.read(alone, "shared") == b"value"
        bookmark = session.bookmark
        cluster.kill("n2", "n3")
        assert await session.read(alone, "shared") == b"value"
        index = int(bookmark.rpartition(":")[2])
        answer = await alone.client.get(f"/v1/kv/shared?stale&raw&min_index={index}")
        assert (answer.status, answer.body, answer.header("x-replicad-read")) == (200, b"value", "session")
        ahead = f"{bookmark.rpartition(':')[0]}:{index + 1_000_000}"
        for method in ("GET", "PUT"):
            answer = await alone.client.request(
                method,
                "/v1/kv/shared?stale"[: None if method == "GET" else -6],
                b"x" if method == "PUT" else b"",
                {BOOKMARK: ahead},
            )
            assert (answer.status, answer.definite) == (503, True)
            assert f"has seen index {index + 1_000_000}" in answer.text
            assert answer.header("retry-after") == "1"
        answer = await alone.client.get("/v1/kv/shared")
        assert answer.status in {503, 504}
        assert answer.header("x-consul-effective-consistency") == "leader"
        assert int(answer.header("x-consul-lastcontact")) > 0
        assert await session.read(alone, "shared") == b"value"


async def test_a_mirror_serves_sessions_and_passes_the_rest_on(tmp_path):
    """At a mirror session and stale reads are served from what it holds, other reads ask, writes go to the group."""
    settings = {"groups.default": {"members": '["n1", "n2", "n3"]'}}
    async with running(tmp_path, 4, settings) as cluster:
        nodes = list(cluster.nodes.values())
        mirror = cluster["n4"]
        body = b'{"action": "add", "node": "n4", "as": "mirror"}'
        answer = await mirror.client.request("POST", "/v1/replicad/groups/default/members", body)
        assert answer.status == 200, answer

        async def follows() -> bool:
            status = (await mirror.client.get("/v1/replicad/status")).json()
            return status["groups"].get("default", {}).get("role") == "mirror"

        await until("n4 is a mirror", follows)
        choose = random.Random(3)
        async with Load(nodes, writers=4) as load:
            session = Session("session")
            for number in range(60):
                await session.write(choose.choice(nodes), "shared", b"%d" % number)
                assert await session.read(mirror, "shared") == b"%d" % number
                for query in ("raw", "raw&consistent"):
                    answer = await mirror.client.get(f"/v1/kv/shared?{query}")
                    assert (answer.status, answer.body) == (200, b"%d" % number), answer
                    assert answer.header("x-replicad-node") == "n4"
            answer = await mirror.client.get("/v1/kv/shared?stale")
            assert answer.header("x-consul-effective-consistency") == "stale"
            assert answer.header("x-consul-knownleader") == "true"
            await load.more(50)
        for node in nodes:
            load.check(await node.entries("load/"), f"at {node.name}")

        async def fresh() -> bool:
            answer = await mirror.client.get("/v1/kv/shared?raw&max_stale=2s")
            return answer.status == 200 and answer.header("x-consul-effective-consistency") == "stale"

        await until("the mirror is fresh enough for max_stale", fresh)
        cluster.kill("n1", "n2", "n3")
        assert await session.read(mirror, "shared") == b"59"
        answer = await mirror.client.get("/v1/kv/shared?max_stale=1ms")
        assert answer.status in {503, 504}
        assert answer.definite
