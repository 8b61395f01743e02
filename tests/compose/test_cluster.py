import base64
import json

import pytest

from tests.compose.cluster import NODES, Load

pytestmark = [pytest.mark.compose, pytest.mark.xdist_group("processes"), pytest.mark.timeout(900)]


def others(*nodes):
    return [node for node in NODES if node not in nodes]


def everything(cluster, node):
    """Return all keys and values as a linearizable read at one node gives them."""
    answer = cluster.ask(node, "GET", "/v1/kv/load/?recurse", seconds=60)
    assert answer.status == 200, answer
    return {entry["Key"]: base64.b64decode(entry["Value"]).decode() for entry in json.loads(answer.body)}


def test_acknowledged_writes_survive_a_kill_a_cut_and_a_lost_volume(cluster):
    """Every write that any node acknowledged is read at every node after a kill, a cut and a lost volume."""
    with Load(cluster) as load:
        load.await_more(*NODES)

        killed = cluster.await_coordinator(*NODES)
        cluster.kill(killed)
        load.await_more(*others(killed))
        cluster.start(killed)
        load.await_more(*NODES)

        cut = cluster.await_coordinator(*NODES)
        cluster.cut_off(cut)
        cluster.await_coordinator(*others(cut))
        load.await_more(*others(cut))
        # The majority has acknowledged writes without it: from now on a read there could be stale.
        key = max(key for key in list(load.acknowledged) if key.split("/")[1] != cut)
        for path in (f"/v1/kv/{key}", f"/v1/kv/{key}?consistent", "/readyz"):
            refused = cluster.ask_inside(cut, path)
            assert refused.status >= 500, (path, refused)
        assert cluster.ask_inside(cut, "/livez").status == 200
        assert cluster.ask_inside(cut, "/v1/kv/load/?keys&stale").status == 200, "a stale read may be served"
        cluster.reconnect(cut)
        load.await_more(*NODES)

        coordinator = cluster.await_coordinator(*NODES)
        wiped = others(coordinator)[0]
        before = member(cluster, coordinator, wiped)
        cluster.replace(wiped)
        load.await_more(*NODES)
        cluster.await_ready(*NODES)
    cluster.await_equal()

    coordinator = cluster.await_coordinator(*NODES)
    assert member(cluster, coordinator, wiped)["disk"] != before["disk"], "re-admitted with its new disk"
    contents = {node: everything(cluster, node) for node in NODES}
    for node, content in contents.items():
        lost = {key for key, value in load.acknowledged.items() if content.get(key) != value}
        assert not lost, f"{node} lost {len(lost)} of {len(load.acknowledged)} acknowledged writes"
    assert contents["n1"] == contents["n2"] == contents["n3"]
    cluster.await_equal()


def member(cluster, coordinator, node):
    """Return what the coordinator says of a member."""
    return next(member for member in cluster.status(coordinator)["members"] if member["node"] == node)
