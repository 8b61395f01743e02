import asyncio
import json

import pytest

from tests.node.cluster import running

pytestmark = pytest.mark.xdist_group("processes")

DEAD = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--mix", "x"), "--mix: 'x' is not a mix"),
        (("--value-bytes", "3x"), "--value-bytes: '3x' is not a size"),
        (("--group", " , "), "--group names no group"),
        (("--clients", "0"), "--clients"),
        (("--ack", "none"), "--ack"),
    ],
)
def test_bad_options_get_a_sentence(replicad, options, words):
    """An option that cannot be is refused before any node is asked."""
    result = replicad("bench", *options, addr=DEAD)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


def test_no_node_answers(replicad):
    """Without a cluster it says whom it tried."""
    result = replicad("bench", addr=DEAD)
    assert result.exit_code == 4
    assert "refuses connections" in result.output


async def test_a_running_cluster_is_measured(tmp_path, replicad):
    """Two sizes, writes and reads: every figure is there, and the keys are gone at the end."""
    options = ("--value-bytes", "100,4KiB", "--seconds", "0.3", "--rounds", "2", "--clients", "6", "--mix", "50/50")
    async with running(tmp_path) as cluster:
        addr = ",".join(f"127.0.0.1:{node.http}" for node in cluster.nodes.values())
        assert (await cluster["n1"].client.put("bench/mine", b"x")).status == 200

        async def bench(*more):
            return await asyncio.to_thread(replicad, "bench", "--addr", addr, *more)

        result = await bench(*options, "--json")
        assert result.exit_code == 0, result.output
        said = json.loads(result.stdout)
        assert said["plan"]["put_percent"] == 50
        assert [cell["value_bytes"] for cell in said["cells"]] == [100, 4096]
        for cell in said["cells"]:
            assert (cell["group"], cell["protocol"], cell["errors"]) == ("default", "remote-write", 0)
            assert set(cell["coordinator"].split(",")) <= set(cluster.nodes)
            assert cell["writes"]["count"] > 0
            assert cell["reads"]["count"] > 0
            # The primary, whoever it is meanwhile, sends each value to both others, batched or not.
            assert cell["all_sent_bytes_per_write"] > 2 * cell["value_bytes"]
            assert cell["all_sent_bytes"] >= cell["coordinator_sent_bytes"]
        assert list(await cluster["n2"].entries("bench/")) == ["bench/mine"]

        result = await bench("--seconds", "0.1", "--rounds", "1", "--at", "n2")
        header, row = result.stdout.splitlines()
        assert header.split()[:2] == ["group", "protocol"]
        assert row.split()[:2] == ["default", "remote-write"]

        for more, words in (
            (("--group", "nope"), "no group 'nope'"),
            (("--at", "n9"), "there is no node 'n9'; the nodes are n1, n2, n3"),
            (("--value-bytes", "1MiB"), "larger than 524288"),
        ):
            result = await bench(*more)
            assert result.exit_code == 2, result.output
            assert words in result.output
        assert list(await cluster["n3"].entries("bench/")) == ["bench/mine"]
