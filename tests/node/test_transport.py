import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
import structlog
import uvloop

from replicad.core.model.limits import FRAME_BYTES_MAX, PEER_VERSION_MAX
from replicad.core.model.messages import Accept, Accepted, CheckpointChunk, Committed
from replicad.node import handshake, link, link_incoming, link_outgoing, transport
from replicad.node.framing import (
    HANDSHAKE_BYTES_MAX,
    HEADER,
    PING,
    FrameBuffer,
    frame_bytes,
    pack_frame,
    pack_item,
    pack_probe,
)
from replicad.node.handshake import Hello
from replicad.node.transport import ListenError, Transport
from tests.node.bad_frames import BAD_FRAMES

DISK = {"n1": "a" * 16, "n2": "b" * 16, "n3": "c" * 16}
SECRET = b"correct horse battery"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine on either loop; what reaches the loop's exception handler fails the test."""

    def runner(scenario, *, expected_failures=0):
        failures = []
        with asyncio.Runner(loop_factory=request.param) as own:
            own.get_loop().set_exception_handler(lambda _, context: failures.append(context))
            own.run(asyncio.wait_for(scenario, 30))
        assert len(failures) == expected_failures, failures

    return runner


@pytest.fixture
def log():
    with structlog.testing.capture_logs() as lines:
        yield lines


class Node:
    """A transport that remembers what it was told."""

    def __init__(self, name, peers=(), **changes):
        self.received, self.links = [], []
        settings = {
            "node": name,
            "cluster": "c",
            "disk_id": DISK[name],
            "limits_checksum": "k",
            "listen": ("127.0.0.1", 0),
            "peers": dict.fromkeys(peers, ("127.0.0.1", 1)),
            "on_message": lambda *message: self.received.append(message),
            "on_link": lambda *state: self.links.append(state),
        }
        self.name = name
        self.transport = Transport(**settings | changes)


async def until(condition):
    """Wait for something that must come; the test's own timeout ends it."""
    while not condition():  # noqa: ASYNC110 - the condition is whatever a test can see, not an event
        await asyncio.sleep(0.002)


def know_each_other(nodes):
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.transport.set_peer(other.name, "127.0.0.1", other.transport.port)


def connected(nodes):
    return all(a.transport.connected(b.name) for a in nodes for b in nodes if a is not b)


@asynccontextmanager
async def cluster(*nodes, wait=True):
    """Start the nodes, introduce them to each other, and close them in the end."""
    for node in nodes:
        await node.transport.start()
    know_each_other(nodes)
    try:
        if wait:
            await until(lambda: connected(nodes))
        yield nodes
    finally:
        for node in nodes:
            await node.transport.close()


def reasons(log, event):
    return [line["reason"] for line in log if line["event"] == event]


class Raw:
    """A peer made by hand: a plain connection that can say anything."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, node):
        return cls(*await asyncio.open_connection("127.0.0.1", node.transport.port))

    async def read(self):
        length, _ = HEADER.unpack(await self.reader.readexactly(HEADER.size))
        return await self.reader.readexactly(length)

    def hello(self, **changes):
        fields = {
            "cluster": "c", "node": "n2", "wanted": "n1", "disk": DISK["n2"], "checksum": "k", "channel": "control",
            "version_min": 1, "version_max": 1, "secured": False, "nonce": b"n" * 16,
        }  # fmt: skip
        payload = Hello(**fields | changes).pack()
        self.writer.write(frame_bytes(payload))
        return payload

    async def shake_hands(self, **changes):
        self.hello(**changes)
        assert [handshake.parse(await self.read())[0] for _ in range(2)] == ["hello", "proof"]
        self.writer.write(frame_bytes(handshake.pack_proof(b"")))
        assert handshake.parse(await self.read()) == ("ready", True)
        return self

    async def closed(self):
        """Wait for the other side to close."""
        try:
            while await self.reader.read(1000):
                pass
        except ConnectionError:
            pass
        self.writer.close()


# --- messages -------------------------------------------------------------------------------------------------------


def test_messages_arrive_in_order_with_sender_disk_and_group(run):
    """Each channel keeps its order, both directions work, and the sender's disk id comes along."""

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            control = [Accepted(1, number, gap=False) for number in range(2000)]
            bulk = [Accept(1, 1, number, 0, (b"v" * number,)) for number in range(300)]
            for message in [*control, *bulk]:
                one.transport.send("n2", "g", message)
            two.transport.send("n1", "h", control[0])
            await until(lambda: len(two.received) == 2300 and len(one.received) == 1)
            assert {message[:3] for message in two.received} == {("n1", DISK["n1"], "g")}
            assert [m for *_, m in two.received if type(m) is Accepted] == control
            assert [m for *_, m in two.received if type(m) is Accept] == bulk
            assert one.received == [("n2", DISK["n2"], "h", control[0])]
            assert one.transport.stats()["n2"].messages_sent == 2300
            assert two.transport.stats()["n1"].messages_received == 2300

    run(scenario())


def test_a_broadcast_reaches_each_peer_and_is_packed_once(run, monkeypatch):
    """The bytes are shared."""
    packed = []
    monkeypatch.setattr(transport, "pack_item", lambda *item: packed.append(item) or pack_item(*item))

    async def scenario():
        async with cluster(Node("n1"), Node("n2"), Node("n3")) as (one, two, three):
            message = Accept(1, 1, 1, 0, (b"x" * 1_000_000,))
            one.transport.broadcast(("n2", "n3"), "g", message)
            await until(lambda: two.received and three.received)
            assert two.received == three.received == [("n1", DISK["n1"], "g", message)]
            assert len(packed) == 1

    run(scenario())


def test_messages_of_one_turn_share_a_frame(run, monkeypatch):
    """A thousand sends in one turn leave in two frames."""
    frames = []
    monkeypatch.setattr(link_outgoing, "pack_frame", lambda items: frames.append(len(items)) or pack_frame(items))

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            frames.clear()
            for number in range(1000):
                one.transport.send("n2", "g", Committed(1, 1, number))
            await until(lambda: len(two.received) == 1000)
            assert [count for count in frames if count > 1] == [512, 488]

    run(scenario())


def test_the_largest_message_passes_and_a_larger_one_is_our_own_mistake(run):
    """A frame's limit is the message's limit."""

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            message = CheckpointChunk(1, 0, 1, bytes(FRAME_BYTES_MAX - 64))
            one.transport.send("n2", "g", message)
            await until(lambda: two.received)
            assert two.received[0][3] == message
            with pytest.raises(ValueError, match="does not fit a frame"):
                one.transport.send("n2", "g", CheckpointChunk(1, 0, 1, bytes(FRAME_BYTES_MAX)))

    run(scenario())


def test_a_message_for_an_absent_peer_is_dropped_and_counted(run):
    """Nothing waits for a peer that is not there, nor for one that the settings do not name."""

    async def scenario():
        async with cluster(Node("n1", ["n2"])) as (one,):
            one.transport.send("n2", "g", Committed(1, 1, 1))
            one.transport.broadcast(["n2"], "g", Committed(1, 1, 1))
            assert one.transport.stats()["n2"].dropped_unconnected == 2
            assert one.transport.queued_bytes("n2") == 0
            one.transport.send("n9", "g", Committed(1, 1, 1))
            one.transport.broadcast(["n2", "n9"], "g", Committed(1, 1, 1))
            assert one.transport.stats()["n2"].dropped_unconnected == 3
            assert list(one.transport.stats()) == ["n2"]

    run(scenario())


def test_a_peer_that_does_not_read_costs_bounded_memory_and_control_still_flows(run):
    """Bulk beyond the queue is dropped and counted; control messages have their own connection."""

    async def scenario():
        async with cluster(Node("n1", bulk_queue_bytes=4 << 20), Node("n2")) as (one, two):
            bulk = next(link for link in two.transport._incoming if link.terms.channel == "bulk")
            bulk._transport.pause_reading()
            message = Accept(1, 1, 1, 0, (bytes(1 << 20),))
            for _ in range(200):
                one.transport.send("n2", "g", message)
                await asyncio.sleep(0)
            stats = one.transport.stats()["n2"]
            assert stats.dropped_full > 100
            assert one.transport.queued_bytes("n2") < 8 << 20
            one.transport.send("n2", "g", Committed(1, 1, 7))
            await until(lambda: two.received)
            assert two.received[0][3] == Committed(1, 1, 7)
            bulk._transport.resume_reading()
            await until(lambda: len(two.received) == stats.messages_sent)
            assert one.transport.queued_bytes("n2") == 0

    run(scenario())


def test_a_flood_of_messages_lets_the_loop_breathe(run, monkeypatch):
    """A link hands over no more than its share per turn, and loses nothing by it."""
    monkeypatch.setattr(link, "TURN_SECONDS", 0.0)

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            for number in range(20_000):
                one.transport.send("n2", "g", Committed(1, 1, number))
            await until(lambda: len(two.received) == 20_000)
            assert [message.committed for *_, message in two.received] == list(range(20_000))

    run(scenario())


def test_a_flood_of_pings_lets_the_loop_breathe(run, monkeypatch):
    """They deliver nothing, and count all the same: with no share of time at all each has a turn of its own."""
    monkeypatch.setattr(link, "TURN_SECONDS", 0.0)
    turn, turns = [0], []
    handle = link_incoming.IncomingLink.on_frame

    def note(self, payload):
        turns.append(turn[0])
        return handle(self, payload)

    monkeypatch.setattr(link_incoming.IncomingLink, "on_frame", note)

    async def scenario():
        async def count():
            while True:
                turn[0] += 1
                await asyncio.sleep(0)

        counting = asyncio.get_running_loop().create_task(count())
        async with cluster(Node("n1", ["n2"])) as (one,):
            raw = await (await Raw.connect(one)).shake_hands()
            turns.clear()
            raw.writer.write(b"".join(pack_frame([pack_probe(PING, number)])[0] for number in range(100)))
            await until(lambda: len(turns) == 100)
            assert len(set(turns)) == 100
            raw.writer.close()
        counting.cancel()

    run(scenario())


def test_a_failing_handler_reaches_the_loop_and_closes_the_link(run, log):
    """A bug here is not taken for a bad peer: the exception is not swallowed."""

    def fail(*_):
        raise RuntimeError("a bug")

    async def scenario():
        async with cluster(Node("n1"), Node("n2", on_message=fail)) as (one, two):
            one.transport.send("n2", "g", Committed(1, 1, 1))
            await until(lambda: len(one.links) >= 3 and connected((one, two)))
            assert "the handler of a message failed here" in reasons(log, "peer_left")

    run(scenario(), expected_failures=1)


# --- links ----------------------------------------------------------------------------------------------------------


def test_links_are_reported_and_come_back(run, log):
    """A peer that leaves is reported down; the same peer at the same port is found again."""

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            port = two.transport.port
            await two.transport.close()
            await until(lambda: not one.transport.connected("n2"))
            again = Node("n2", ["n1"], listen=("127.0.0.1", port))
            again.transport.set_peer("n1", "127.0.0.1", one.transport.port)
            async with cluster(again, wait=False):
                await until(lambda: one.transport.connected("n2") and again.transport.connected("n1"))
                one.transport.send("n2", "g", Committed(1, 1, 1))
                await until(lambda: again.received)
            assert one.links[:3] == [("n2", True), ("n2", False), ("n2", True)]
            failed = [line for line in log if line["event"] == "peer_link_failed" and line["node"] == "n1"]
            assert len(failed) <= 2  # a dial that fails like an earlier one, on either channel, is not news

    run(scenario())


def test_a_moved_peer_is_found(run):
    """`set_peer` closes the links to the old address and dials the new one."""

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            moved = Node("n2", ["n1"])
            async with cluster(moved, wait=False):
                one.transport.set_peer("n2", "127.0.0.1", moved.transport.port)
                await until(lambda: ("n2", False) in one.links and one.transport.connected("n2"))
                one.transport.send("n2", "g", Committed(1, 1, 1))
                await until(lambda: moved.received)
                assert two.received == []

    run(scenario())


def test_a_peer_is_found_at_any_of_its_addresses(run):
    """An address that is out of date costs one dial; nothing closes while a good one is known."""

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            third = Node("n3", ["n1"])
            async with cluster(third, wait=False):
                third.transport.set_peer("n1", "127.0.0.1", 1, ("127.0.0.1", one.transport.port))
                one.transport.set_peer("n3", "127.0.0.1", 1, ("127.0.0.1", third.transport.port))
                await until(lambda: one.transport.connected("n3") and third.transport.connected("n1"))
                one.transport.set_peer("n3", "127.0.0.1", third.transport.port)
                assert one.transport.connected("n3")
                assert ("n3", False) not in one.links
                assert two.links == [("n1", True)]

    run(scenario())


def test_a_peer_that_was_added_gets_in_and_one_that_was_removed_does_not(run):
    """A stranger is refused until it is added; a removed peer's links close, and it is refused again."""

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            third = Node("n3", ["n1"])
            async with cluster(third, wait=False):
                third.transport.set_peer("n1", "127.0.0.1", one.transport.port)
                await until(lambda: "is not known to n1" in third.transport.stats()["n1"].last_reason)
                one.transport.set_peer("n3", "127.0.0.1", third.transport.port)
                await until(lambda: one.transport.connected("n3") and third.transport.connected("n1"))
                third.transport.send("n1", "g", Committed(1, 1, 1))
                await until(lambda: one.received)
                one.transport.remove_peer("n3")
                one.transport.remove_peer("n3")
                await until(lambda: not third.transport.connected("n1"))
                await until(lambda: "is not known to n1" in third.transport.stats()["n1"].last_reason)
                one.transport.send("n3", "g", Committed(1, 1, 1))
                assert one.transport.peers() == ["n2"]
                assert two.links == [("n1", True)]

    run(scenario())


def test_a_new_disk_id_reaches_the_peers(run):
    """After `set_disk_id` nothing arrives in the name of the old disk."""

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            one.transport.set_disk_id("e" * 16)
            one.transport.send("n2", "g", Committed(1, 1, 1))  # the links are closing: dropped
            await until(lambda: len(one.links) >= 3 and connected((one, two)))
            one.transport.send("n2", "g", Committed(1, 1, 2))
            await until(lambda: two.received)
            assert two.received == [("n1", "e" * 16, "g", Committed(1, 1, 2))]

    run(scenario())


def test_round_trips_are_measured(run):
    """The first ping leaves as soon as the link is open."""

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            await until(lambda: one.transport.round_trip_us("n2") > 0 and two.transport.round_trip_us("n1") > 0)

    run(scenario())


def test_a_peer_that_went_silent_is_given_up_and_dialed_again(run, log, monkeypatch):
    """Half-open: the connection stands, but nobody is there. Pings find out."""
    monkeypatch.setattr(transport, "TICK_SECONDS", 0.03)
    monkeypatch.setattr(link_outgoing, "HANDSHAKE_TICKS_MAX", 1000)
    monkeypatch.setattr(link_incoming, "HANDSHAKE_TICKS_MAX", 1000)

    async def scenario():
        async with cluster(Node("n1"), Node("n2")) as (one, two):
            for incoming in two.transport._incoming:
                incoming._transport.pause_reading()
            await until(lambda: ("n2", False) in one.links)
            await until(lambda: one.transport.connected("n2"))
            assert "3 pings in a row were not answered" in reasons(log, "peer_link_closed")

    run(scenario())


def test_a_taken_port_is_a_sentence(run):
    """Whoever starts a node twice reads why."""

    async def scenario():
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ListenError, match=f"cannot listen for peers on 127.0.0.1:{port}: another process"):
                await Node("n1", listen=("127.0.0.1", port)).transport.start()

    run(scenario())


# --- handshakes -----------------------------------------------------------------------------------------------------


def test_a_shared_secret_lets_peers_in(run):
    """Both know it: all is as without."""

    async def scenario():
        async with cluster(Node("n1", secret=SECRET), Node("n2", secret=SECRET)) as (one, two):
            one.transport.send("n2", "g", Committed(1, 1, 1))
            await until(lambda: two.received)

    run(scenario())


REFUSALS = [
    ("another cluster", {"cluster": "d"}, "cluster is 'd' at n2 and 'c' at n1"),
    ("other constants", {"limits_checksum": "q"}, "checksum of the protocol's constants is q at n2 and k at n1"),
    ("no common version", {"versions": (4, 5)}, "peer protocol versions are 4 to 5 at n2 and 1 to 3 at n1"),
    ("a secret on one side", {"secret": SECRET}, "cluster.shared_secret_file is set at n2 and not set at n1"),
    ("another name", {"node": "n3"}, "this is node 'n3', not 'n2'"),
]


@pytest.mark.parametrize(("what", "changes", "reason"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_nodes_that_do_not_belong_together_say_why_on_both_sides(run, log, what, changes, reason):
    """Neither link opens, and both nodes log the same reason."""

    async def scenario():
        one, two = Node("n1"), Node("n2", **changes)
        two.name = "n2"
        async with cluster(one, two, wait=False):
            await until(lambda: any(reason in said for said in reasons(log, "connection_refused")))
            await until(lambda: any(reason in said for said in reasons(log, "peer_link_failed")))
            assert not one.links
            assert not two.links

    run(scenario())


def test_a_wrong_secret_is_refused_on_both_sides_and_never_logged(run, log):
    """The dialing node finds out first and says so."""

    async def scenario():
        async with cluster(Node("n1", secret=SECRET), Node("n2", secret=SECRET[::-1]), wait=False) as (one, two):
            await until(lambda: len(reasons(log, "connection_refused")) >= 2)
            await until(lambda: len(reasons(log, "peer_link_failed")) >= 2)
            assert not one.links
            assert not two.links
            said = [*reasons(log, "connection_refused"), *reasons(log, "peer_link_failed")]
            assert all("the shared secret differs between the two nodes" in reason for reason in said)
            assert SECRET.decode() not in str(log)

    run(scenario())


def test_a_stranger_who_skips_the_proof_is_refused(run, log):
    """With a secret set, knowing everything else does not help; a proof of another conversation does not either."""

    async def scenario():
        async with cluster(Node("n1", ["n2"], secret=SECRET)) as (one,):
            old_proof = b""
            for proof in (b"", b"x" * 32, old_proof):
                raw = await Raw.connect(one)
                payload = raw.hello(secured=True)
                welcome = await raw.read()
                await raw.read()
                old_proof = handshake.prove(SECRET, "dialing", payload, welcome)
                raw.writer.write(frame_bytes(handshake.pack_proof(proof)))
                raw.writer.write(b"".join(pack_frame([pack_item("g", Committed(1, 1, 1))])))
                await raw.closed()
            raw = await Raw.connect(one)
            raw.hello(secured=True)
            await raw.read()
            await raw.read()
            raw.writer.write(frame_bytes(handshake.pack_proof(old_proof)))
            await raw.closed()
            assert one.received == []
            assert one.transport.refused == 4

    run(scenario())


@pytest.mark.parametrize("depth", [900, 990, 1005, 1018])
def test_a_stranger_who_refuses_with_nonsense_is_turned_away(run, log, depth):
    """Without the secret, and with lists so deep that they have no repr: it ends that connection, and nothing else."""

    async def scenario():
        async with cluster(Node("n1", ["n2"], secret=SECRET)) as (one,):
            raw = await Raw.connect(one)
            raw.hello(secured=True)
            await raw.read()
            await raw.read()
            raw.writer.write(frame_bytes(b"\x81\xa7refused" + b"\x91" * depth + b"\xc0"))
            await raw.closed()
            await until(lambda: reasons(log, "connection_refused") == ["received a refusal that is not text"])

    run(scenario())


def test_a_node_that_nobody_knows_is_refused(run, log):
    """Only nodes in the settings may dial."""

    async def scenario():
        async with cluster(Node("n1", ["n2"])) as (one,):
            raw = await Raw.connect(one)
            raw.hello(node="n9")
            kind, reason = handshake.parse(await raw.read())
            assert kind == "refused"
            assert reason.startswith("node 'n9' is not known to n1")
            await raw.closed()
            await until(lambda: reasons(log, "connection_refused") == [reason])

    run(scenario())


BAD_BEGINNINGS = [
    ("a length beyond what a stranger may send", HEADER.pack(HANDSHAKE_BYTES_MAX + 1, 0), "longer than the 4096"),
    ("a browser", b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n", "longer than the 4096"),
    ("a message instead of a hello", pack_frame([pack_item("g", Committed(1, 1, 1))])[0], "than a handshake"),
    ("ready instead of a hello", frame_bytes(handshake.pack_ready()), "a ready before the hello"),
    ("a hello without fields", frame_bytes(b"\x81\xa5hello\x90"), "a hello without fields"),
    ("an empty hello", frame_bytes(b"\x81\xa5hello\x80"), "a hello whose cluster is missing"),
    ("an unknown kind", frame_bytes(b"\x81\xa5howdy\x80"), "a handshake of an unknown kind"),
    ("a list as kind", frame_bytes(b"\x81\x90\x80"), "not msgpack"),
]


@pytest.mark.parametrize(("what", "data", "phrase"), BAD_BEGINNINGS, ids=[row[0] for row in BAD_BEGINNINGS])
def test_a_bad_beginning_closes_the_connection(run, log, what, data, phrase):
    """Before the handshake nobody gets further than one short frame."""

    async def scenario():
        async with cluster(Node("n1", ["n2"])) as (one,):
            raw = await Raw.connect(one)
            raw.writer.write(data)
            await raw.closed()
            await until(lambda: reasons(log, "connection_refused"))
            assert phrase in reasons(log, "connection_refused")[0]

    run(scenario())


def test_connections_that_say_nothing_are_bounded_and_time_out(run, log, monkeypatch):
    """Beyond the limit the oldest are closed at once; the others a little later."""
    monkeypatch.setattr(transport, "TICK_SECONDS", 0.03)
    monkeypatch.setattr(transport, "STRANGERS_MAX", 4)

    async def scenario():
        async with cluster(Node("n1", ["n2"])) as (one,):
            raws = [await Raw.connect(one) for _ in range(6)]
            for raw in raws:
                await raw.closed()
            assert one.transport.refused == 6
            said = set(reasons(log, "connection_refused"))
            assert said == {"too many connections are waiting for their handshake", "the handshake took too long"}

    run(scenario())


def test_connections_that_say_nothing_keep_no_member_out(run, log, monkeypatch):
    """However many wait: who comes later has its handshake, and they make room."""
    monkeypatch.setattr(transport, "STRANGERS_MAX", 4)

    async def scenario():
        async with cluster(Node("n1", ["n2"])) as (one,):
            raws = [await Raw.connect(one) for _ in range(6)]
            member = await (await Raw.connect(one)).shake_hands()
            for raw in raws[:3]:
                await raw.closed()
            assert set(reasons(log, "connection_refused")) == {"too many connections are waiting for their handshake"}
            for raw in (*raws[3:], member):
                raw.writer.close()

    run(scenario())


# --- bad frames -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", BAD_FRAMES, ids=lambda row: row.what)
def test_a_bad_frame_closes_its_link_and_harms_nothing_else(run, log, row):
    """The reason is logged, nothing of the frame is delivered, other links go on, and the peer may come back."""

    async def scenario():
        async with cluster(Node("n1", ["n3"]), Node("n2", ["n1"]), wait=False) as (one, two):
            await until(lambda: two.transport.connected("n1"))
            one.transport.set_peer("n3", "127.0.0.1", 1)
            raw = await (await Raw.connect(one)).shake_hands(node="n3", disk=DISK["n3"])
            raw.writer.write(row.data)
            await raw.closed()
            await until(lambda: reasons(log, "peer_left"))
            assert row.phrase in reasons(log, "peer_left")[0]
            assert one.received == []
            two.transport.send("n1", "g", Committed(1, 1, 1))
            again = await (await Raw.connect(one)).shake_hands(node="n3", disk=DISK["n3"])
            again.writer.write(b"".join(pack_frame([pack_item("g", Committed(1, 1, 2))])))
            await until(lambda: len(one.received) == 2)
            assert {message[0] for message in one.received} == {"n2", "n3"}
            assert ("n1", False) not in two.links
            again.writer.close()

    run(scenario())


def test_a_frame_that_is_cut_short_delivers_nothing(run, log):
    """A peer that dies in the middle of a frame leaves no half message."""

    async def scenario():
        async with cluster(Node("n1", ["n2"])) as (one,):
            frame = b"".join(pack_frame([pack_item("g", Accept(1, 1, 1, 0, (bytes(10_000),)))]))
            for cut in (1, 7, 8, 9, 5_000, len(frame) - 1):
                raw = await (await Raw.connect(one)).shake_hands()
                raw.writer.write(frame + frame[:cut])
                await raw.writer.drain()
                raw.writer.close()
            await until(lambda: len(reasons(log, "peer_left")) == 6)
            assert all(message == one.received[0] for message in one.received)
            assert len(one.received) <= 6

    run(scenario())


def test_a_second_link_of_a_peer_replaces_the_first(run, log):
    """A peer dials again only when it has given up the old link, whatever we think of that."""

    async def scenario():
        async with cluster(Node("n1", ["n2"])) as (one,):
            first = await (await Raw.connect(one)).shake_hands()
            second = await (await Raw.connect(one)).shake_hands()
            await first.closed()
            assert reasons(log, "peer_left") == ["the peer dialed again"]
            other_channel = await (await Raw.connect(one)).shake_hands(channel="bulk")
            for raw in (second, other_channel):
                raw.writer.write(b"".join(pack_frame([pack_item("g", Committed(1, 1, 2))])))
            await until(lambda: len(one.received) == 2)
            second.writer.close()
            other_channel.writer.close()

    run(scenario())


class FakePeer(asyncio.Protocol):
    """Accepts a link properly, then answers with bytes that no acceptor sends."""

    def __init__(self, data):
        self.data, self.buffer, self.done = data, FrameBuffer(HANDSHAKE_BYTES_MAX), False

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.done:
            return
        self.buffer.writable()[: len(data)] = data
        for payload in self.buffer.received(len(data)):
            kind, content = handshake.parse(bytes(payload))
            if kind == "hello":
                theirs = handshake.parse_hello(content)
                ours = Hello("c", "n2", "n1", DISK["n2"], "k", theirs.channel, 1, 1, secured=False, nonce=b"n" * 16)
                self.transport.write(frame_bytes(ours.pack()) + frame_bytes(handshake.pack_proof(b"")))
            else:
                self.transport.write(frame_bytes(handshake.pack_ready()) + self.data)
                self.done = True
                return


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        (pack_frame([pack_item("g", Committed(1, 1, 1))])[0], "a message on a link that carries only answers"),
        (HEADER.pack(HANDSHAKE_BYTES_MAX + 1, 0), "longer than the 4096 allowed here"),
        (b"\xff" * 100, "longer than the 4096 allowed here"),
        (frame_bytes(b"\xc1"), "not msgpack"),
    ],
    ids=["a message", "a long frame", "noise", "not msgpack"],
)
def test_bad_answers_close_an_outgoing_link(run, log, data, phrase):
    """What the accepting end may say is little, and all else closes the link; the node goes on dialing."""

    async def scenario():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: FakePeer(data), "127.0.0.1", 0)
        async with cluster(Node("n1", ["n2"]), wait=False) as (one,):
            one.transport.set_peer("n2", "127.0.0.1", server.sockets[0].getsockname()[1])
            await until(lambda: one.transport.stats()["n2"].links_opened >= 4)
            assert sum(phrase in said for said in reasons(log, "peer_link_closed")) == 1
            assert one.received == []
        server.close()

    run(scenario())


def test_an_older_peer_is_told_a_newer_message_in_its_own_words_or_not_at_all(run, monkeypatch):
    """Only a peer that speaks the version of a message gets it as it is."""
    monkeypatch.setattr(Accepted, "since", 2)
    monkeypatch.setattr(
        Accepted, "older", lambda message: Committed(message.epoch, 1, 7) if message.matched else None, raising=False
    )

    async def scenario():
        old, new = Node("n2", versions=(1, 1)), Node("n3")
        async with cluster(Node("n1"), old, new) as (n1, *_):
            for number in (0, 7):
                n1.transport.broadcast(["n2", "n3"], "g", Accepted(5, number, False))
            await until(lambda: len(new.received) == 2 and old.received)
            assert [message for *_, message in old.received] == [Committed(5, 1, 7)]
            assert [message for *_, message in new.received] == [Accepted(5, 0, False), Accepted(5, 7, False)]
            assert (n1.transport.version("n2"), n1.transport.version("n3")) == (1, PEER_VERSION_MAX)

    run(scenario())
