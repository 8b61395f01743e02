"""``replicad node drain`` and ``undrain`` as nodes answer it."""

import json
import socket

import pytest

from tests.cli.served import Scripted, answer

HELD = [{"group": "default", "what": "office", "why": "no other member can take the office: n1 does not answer"}]


def reply(value):
    return answer(200, json.dumps(value).encode())


def said(*, drained=True, holds=(), needed=()):
    done = drained and not holds
    return reply({"node": "n2", "drained": drained, "done": done, "holds": list(holds), "needed": list(needed)})


class Node(Scripted):
    """First tells that n2 is found here, and that it is n2."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = [reply([{"name": "n2", "http": self.address}]), reply({"node": "n2"}), *answers]

    def asked(self):
        """What was asked after that."""
        return [" ".join(head.split()[:2]) for head in self.heads[2:]]


def test_draining_waits_until_nothing_is_held(replicad):
    """It asks the node again and again, and says what is so at the end."""
    with Node(said(holds=HELD), said(holds=HELD), said()) as node:
        result = replicad("node", "drain", "n2", addr=node.address)
    assert (result.exit_code, result.output) == (0, "n2 is drained: it holds no office and no lease\n")
    assert node.asked() == ["PUT /v1/replicad/drain", "GET /v1/replicad/drain", "GET /v1/replicad/drain"]


def test_an_office_that_stays_is_a_no_with_the_reason(replicad):
    """The node stays drained; with --json the answer is printed as well."""
    with Node(said(holds=HELD)) as node:
        result = replicad("node", "drain", "n2", "--timeout", 0, "--json", addr=node.address)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["holds"] == HELD
    assert "n2 is drained, and holds still" in result.stderr
    assert "the office of group default: no other member can take the office: n1 does not answer" in result.stderr


NEEDED = [{"group": "default", "why": "this node is not in touch with n1"}]


def test_a_node_that_is_needed_is_not_said_to_be_ready_to_stop(replicad):
    """It holds nothing, but a majority needs its vote: the command waits, then says so, and ends with 1."""
    with Node(said(needed=NEEDED), said(needed=NEEDED), said()) as node:
        result = replicad("node", "drain", "n2", addr=node.address)
    assert (result.exit_code, len(node.asked())) == (0, 3)
    with Node(said(needed=NEEDED)) as node:
        result = replicad("node", "drain", "n2", "--timeout", 0, addr=node.address)
    assert result.exit_code == 1
    assert "n2 is drained: it holds no office and no lease\n" in result.stdout
    assert result.stderr == (
        "replicad: n2 is drained, but to stop it now would stop\n"
        "replicad:   group default: this node is not in touch with n1\n"
        "replicad:   start the others first; replicad node drain n2 waits again, undrain takes it back\n"
    )


def test_who_stops_waiting_is_told_that_the_node_stays_drained(replicad, monkeypatch):
    """Ctrl-C ends the command, and not the drain."""

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("replicad.cli.drain.time.sleep", interrupted)
    with Node(said(holds=HELD)) as node:
        result = replicad("node", "drain", "n2", addr=node.address)
    assert (result.exit_code, result.stderr) == (
        1,
        "replicad: n2 stays drained: replicad node undrain n2 takes it back\n",
    )


def test_a_misspelt_command_is_hinted_at(replicad):
    """As in every other group of commands."""
    result = replicad("node", "drian", "n2")
    assert (result.exit_code, result.stderr) == (
        2,
        "replicad: there is no command 'node drian'; did you mean 'drain'?\n",
    )


def test_undraining_an_older_release_or_a_node_that_is_down(replicad):
    """Nothing is to be done, or a file is to be removed: not what is said of a drain."""
    with Node(answer(404, b"there is no page")) as node:
        result = replicad("node", "undrain", "n2", addr=node.address)
    assert (result.exit_code, result.stderr) == (
        2,
        "replicad: n2 runs a release that cannot be drained: it has leases and offices as ever\n",
    )
    with Scripted(reply([{"name": "n2", "http": ""}]), reply({"node": "n1"})) as node:
        result = replicad("node", "undrain", "n2", addr=node.address)
    assert result.exit_code == 4
    assert "to remove the file `drained` in its data directory ends a drain" in result.stderr


def test_somebody_else_may_end_it_meanwhile(replicad):
    """Then there is nothing to wait for."""
    with Node(said(holds=HELD), said(drained=False)) as node:
        result = replicad("node", "drain", "n2", addr=node.address)
    assert (result.exit_code, result.stderr) == (
        1,
        "replicad: n2 is not drained any more: somebody else ended that\n",
    )


def test_undraining_is_one_request(replicad):
    """The node says that it is done."""
    with Node(said(drained=False)) as node:
        result = replicad("node", "undrain", "n2", addr=node.address)
    assert (result.exit_code, result.output) == (0, "n2 is not drained\n")
    assert node.asked() == ["DELETE /v1/replicad/drain"]


@pytest.mark.parametrize(
    ("last", "code", "sentence"),
    [
        (answer(404, b"there is no page"), 2, "n2 runs a release that cannot be drained: stop it with SIGTERM"),
        (answer(503, b"that could not be noted in the data directory: no space left on device"), 1, "no space left"),
        (b"", 4, "n2 does not answer: "),
    ],
    ids=["older", "full", "silent"],
)
def test_what_a_node_may_answer_instead(replicad, last, code, sentence):
    """An older release, a full disk, no answer: each has its sentence and exit code."""
    with Node(last) as node:
        result = replicad("node", "drain", "n2", addr=node.address)
    assert (result.exit_code, sentence in result.stderr) == (code, True), result.stderr


def test_a_node_that_is_unknown_or_down(replicad):
    """Unknown: the names that there are. Down: nothing was done, and nothing is held there."""
    with Scripted(reply([{"name": "n1", "http": ""}])) as node:
        result = replicad("node", "drain", "n9", addr=node.address)
    assert (result.exit_code, result.stderr) == (2, "replicad: there is no node 'n9'; the nodes are n1\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"127.0.0.1:{free.getsockname()[1]}"
    with Scripted(reply([{"name": "n2", "http": dead}]), reply({"node": "n1"})) as node:
        result = replicad("node", "drain", "n2", addr=node.address)
    assert result.exit_code == 4
    assert "n2 does not answer, and only n2 itself can do this; nothing was done" in result.stderr
    assert f"{dead} refuses connections" in result.stderr


def test_the_list_of_nodes_shows_who_is_drained(replicad):
    """Also who is being removed; an older node says neither."""
    plain = {"peer": "h:1", "http": "h:2", "connected": True, "groups": ["default"]}
    told = [{"name": "n1", **plain}, {"name": "n2", **plain, "drained": True, "leaving": True}]
    with Scripted(reply(told)) as node:
        lines = replicad("member", "nodes", addr=node.address).output.splitlines()
    assert [line.split()[5:] for line in lines] == [["state"], ["-"], ["drained,", "leaving"]]
