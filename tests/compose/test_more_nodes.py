import base64
import json

import pytest

from tests.compose.cluster import MORE, NODES, Load, until

pytestmark = [pytest.mark.compose, pytest.mark.xdist_group("processes"), pytest.mark.timeout(900)]


def everything(cluster, node):
    """Return all keys and values as a linearizable read at one node gives them."""
    answer = cluster.ask(node, "GET", "/v1/kv/load/?recurse", seconds=60)
    assert answer.status == 200, answer
    return {entry["Key"]: base64.b64decode(entry["Value"]).decode() for entry in json.loads(answer.body)}


def members(cluster, node):
    """Return the group's members as a node knows them."""
    return sorted(json.loads(cluster.ask(node, "GET", "/v1/replicad/groups/default").body)["members"])


def test_two_nodes_are_added_while_it_runs_and_members_leave(growing_cluster):
    """n4 and n5 join under load, the coordinator is killed and removed, another one leaves; no write is lost."""
    cluster = growing_cluster
    with Load(cluster) as load:
        load.await_more(*NODES)
        cluster.up_more()
        for node in MORE:
            cluster.replicad("n1", "member", "add", node, "--peer", f"{node}:9001", "--http", f"{node}:8001")
        cluster.await_ready(*MORE)
        assert members(cluster, "n5") == [*NODES, *MORE]
        with Load(cluster, MORE) as newer:
            newer.await_more(*MORE)
            killed = cluster.await_coordinator(*NODES, *MORE)
            cluster.kill(killed)
            rest = [node for node in cluster.nodes if node != killed]
            speaker = rest[0]
            load.await_more(*(node for node in NODES if node != killed))
            newer.await_more(*(node for node in MORE if node != killed))
            cluster.replicad(speaker, "member", "remove", killed)
            until(f"{killed} is no member", lambda: members(cluster, rest[-1]) == rest)
            cluster.start(killed)
            cluster.await_ready(killed)
            load.await_more(*NODES)  # through the one that is no member too: it asks a member
            leaver = next(node for node in rest if node in NODES and node != speaker)
            cluster.replicad(speaker, "member", "remove", leaver)
            newer.await_more(*MORE)
    rest.remove(leaver)
    cluster.await_equal(*rest)
    acknowledged = load.acknowledged | newer.acknowledged
    for node in cluster.nodes:
        content = everything(cluster, node)
        lost = {key for key, value in acknowledged.items() if content.get(key) != value}
        assert not lost, f"{node} lost {len(lost)} of {len(acknowledged)} acknowledged writes"
        assert members(cluster, node) == rest
