import json

import pytest

from replicad.cli.nodes import parse_addresses
from replicad.cli.status import gather
from tests.cli.served import served
from tests.http.fake import FakeNode

DEAD = "127.0.0.1:1"


class Member(FakeNode):
    """A node of three that says where it stands as a real one does."""

    def __init__(self, name, missing=()):
        super().__init__()
        self.name = name
        self.peers = []
        self.said = {
            "role": "follower",
            "epoch": 7,
            "view": ["n1", "n2"],
            "committed_slot": 5,
            "applied_slot": 5,
            "index": 4,
            "digest": "ab" * 16,
            "checkpoint_slot": 3,
            "members": [{"node": f"n{number}", "state": "", "matched_slot": 0} for number in (1, 2, 3)],
            "missing": list(missing),
        }

    cluster_id = ""
    refused = ()

    def status(self):
        about = {"cluster_id": self.cluster_id, "refused": list(self.refused)}
        addresses = {f"n{number}": address for number, address in enumerate(self.peers, 1)}
        return {"node": self.name, "cluster": "test", "addresses": addresses, **about, "groups": {"default": self.said}}

    def peer_addresses(self):
        return self.peers


@pytest.fixture
def two():
    """Nodes n1 and n2, which know of a third that is away."""
    with served(Member("n1")) as (n1, first), served(Member("n2")) as (n2, second):
        n1.peers = n2.peers = [first, second, DEAD]
        n1.address, n2.address = first, second
        yield n1, n2


def rows(text, *, guessed=False):
    return [(row.name, row.address, row.well) for row in gather(parse_addresses(text), guessed=guessed)]


def test_nodes_that_others_know_are_found(two):
    """One address is enough: its peers are asked too, and one that is away is a row with its name."""
    n1, n2 = two
    assert rows(n2.address) == [("n1", n1.address, True), ("n2", n2.address, True), ("n3", DEAD, False)]


def test_a_default_address_without_a_node_is_no_row(two):
    """A guessed address that no node knows is left out when some node answers; a named one is shown."""
    n1, _ = two
    nobody = "127.0.0.1:2"
    assert len(rows(f"{n1.address},{nobody}", guessed=True)) == 3
    assert rows(f"{n1.address},{nobody}")[-1] == ("", nobody, False)


def test_nobody_answers(replicad):
    """Without any node each address is a row, and the exit code is 1."""
    result = replicad("status", addr="127.0.0.1:1,2")
    assert result.exit_code == 1
    assert result.output.count("unreachable") == 2


def test_the_table_and_its_json(replicad, two):
    """The table has a line for each node; JSON has what they say."""
    n1, _ = two
    result = replicad("status", addr=n1.address)
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0][:4] == ["node", "http", "role", "epoch"]
    assert lines[1] == ["n1", n1.address, "follower", "7", "n1,n2", "5", "5", "4", "abababababab", "3", "-"]
    assert lines[3][:3] == ["n3", DEAD, "unreachable"]
    assert result.exit_code == 1
    found = json.loads(replicad("status", "--json", addr=n1.address).output)["nodes"]
    assert [node["reachable"] for node in found] == [True, True, False]
    assert found[0]["status"]["groups"]["default"]["epoch"] == 7


def test_what_is_missing_is_shown(replicad, two):
    """What a node lacks stands in its line."""
    two[1].said["missing"] = ["group default has no coordinator"]
    assert "group default has no coordinator" in replicad("status", addr=two[0].address).output


def test_a_drained_node_is_shown_as_such(replicad, two):
    """In the column of what is missing; not all is well then."""
    told = two[0].status()
    two[0].status = lambda: {**told, "drained": True}
    result = replicad("status", addr=two[0].address)
    assert (result.exit_code, result.output.splitlines()[1].split()[-1]) == (1, "drained")
    assert result.output.splitlines()[-1] == ("n1 is drained for maintenance: replicad node undrain n1 takes it back")


def test_a_member_that_was_too_slow_is_named(replicad, two):
    """Once, whoever says so, with the longest time; it misses nothing, and all is well."""
    for node, left in zip(two, (1500, 0), strict=True):
        members = node.said["members"]
        node.said["members"] = [{**each, "probation_ms": left if each["node"] == "n2" else 0} for each in members]
    lines = replicad("status", addr=two[0].address).output.splitlines()
    (line,) = (line for line in lines if "slow" in line)
    assert line == (
        "n2 was too slow in default, and answers no reads by itself before it has kept up for 1.5 s more: look at its "
        "disk, with replicad doctor"
    )


def test_ready(replicad, two):
    """--ready is silent when the nodes named are ready, and says what is missing otherwise."""
    n1, _ = two
    result = replicad("status", "--ready", addr=n1.address)
    assert (result.exit_code, result.output) == (0, "")
    n1.missing = ["the store is being rebuilt"]
    result = replicad("status", "--ready", addr=f"{n1.address},{DEAD}")
    assert result.exit_code == 1
    assert "is not ready: the store is being rebuilt" in result.stderr
    assert f"{DEAD} refuses connections" in result.stderr


def test_a_checkpoint_on_demand(replicad, two):
    """`checkpoint` prints slot and digest."""
    result = replicad("checkpoint", addr=two[0].address)
    assert result.output == f"checkpoint at slot 0, digest {'0' * 32}\n"
    assert json.loads(replicad("checkpoint", "--json", addr=two[0].address).output)["slot"] == 0


def test_who_is_refused_stands_below_the_table(replicad, two):
    """Nodes that serve say whom they do not speak with; the same sentence of two nodes is one line."""
    for node in two:
        node.refused = ("a node that dials from 10.0.0.9 is refused: cluster id is a at n3 and b at n1",)
    last = replicad("status", addr=two[0].address).output.splitlines()[-1]
    assert last == "n1, n2: a node that dials from 10.0.0.9 is refused: cluster id is a at n3 and b at n1"


def test_nodes_of_two_clusters_are_told_apart(replicad, two):
    """A healthy node of another cluster at a known address does not pass for one of this."""
    two[0].cluster_id, two[1].cluster_id = "aaaa", "bbbb"
    result = replicad("status", addr=two[0].address)
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert last == "these are nodes of 2 clusters: n1: cluster id aaaa; n2: cluster id bbbb"
    two[1].cluster_id = ""
    assert "clusters" not in replicad("status", addr=two[0].address).output
