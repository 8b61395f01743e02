import socket
from pathlib import Path

import pytest

from replicad.cli.local_cluster import node_environment, plan, reserved
from replicad.cli.output import Failure
from replicad.cli.supervisor import event_level, how_it_ended
from replicad.node.identity import DataDirectory
from tests.cli.ports import free_ports


@pytest.fixture
def ports():
    return free_ports(8)


@pytest.fixture
def written(tmp_path, ports):
    """A cluster of three whose file is there."""
    cluster = plan(tmp_path / "d", 3, ports, ports + 4)
    with reserved(cluster):
        cluster.write()
    return cluster


def refusal(cluster):
    with pytest.raises(Failure) as caught, reserved(cluster):
        pass
    assert caught.value.exit_code == 2
    return caught.value.message


def test_a_written_file_says_the_same(written, ports):
    """What was written is read back equal, whatever of it is repeated on the command line."""
    directory = written.file.parent
    for options in ((None, None, None), (3, None, None), (3, ports, ports + 4)):
        again = plan(directory, *options)
        assert (again.nodes, again.name, again.text) == (written.nodes, written.name, "")
    assert [path.name for path in directory.iterdir() if path.is_file()] == ["cluster.toml"]


def test_what_was_added_to_the_file_is_kept(written):
    """A file with further settings is used as it is."""
    text = written.file.read_text() + "\n[node]\nlog_level = 'debug'\n"
    written.file.write_text(text)
    cluster = plan(written.file.parent, 3, None, None)
    cluster.write()
    assert written.file.read_text() == text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((5, None, None), "has 3 nodes, and --nodes 5 asks for another"),
        ((None, 1234, None), "as the HTTP port of n1, and --http-port 1234 asks for another"),
        ((None, None, 1234), "as the peer port of n1, and --peer-port 1234 asks for another"),
    ],
)
def test_other_settings_than_the_file_has(written, options, sentence):
    """Options that contradict existing data are refused, and the file stays."""
    before = written.file.read_bytes()
    with pytest.raises(Failure, match=sentence):
        plan(written.file.parent, *options)
    assert written.file.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [((3, 8001, 8003), "overlap"), ((3, 65535, 9001), "above 65535"), ((1, 8001, 8001), "overlap")],
)
def test_impossible_ports(tmp_path, options, sentence):
    """Ports that cannot all exist are refused."""
    with pytest.raises(Failure, match=sentence):
        plan(tmp_path, *options)


def test_a_broken_file(tmp_path):
    """A file that is no settings file is said to be one, and is not replaced."""
    (tmp_path / "cluster.toml").write_text("[nodes\n")
    with pytest.raises(Failure, match="not valid TOML"):
        plan(tmp_path, None, None, None)


def test_a_taken_port(written, ports):
    """A port that something listens on is named, with whose it is and the option for it."""
    with socket.create_server(("127.0.0.1", ports + 1)):
        assert f"port {ports + 1} of 127.0.0.1, the HTTP port of n2, is taken" in refusal(written)
    with socket.create_server(("127.0.0.1", ports + 6)):
        assert "the peer port of n3, is taken by another process; stop that one, or choose other" in refusal(written)


def test_a_directory_in_use(written):
    """A data directory that a process has locked is named with the words of the node."""
    holder = DataDirectory(written.nodes[1].data, "local", "n2")
    try:
        assert f"{written.nodes[1].data} is in use by another replicad process" in refusal(written)
    finally:
        holder.close()
    with reserved(written):
        pass


def test_the_directory_of_another_cluster(written):
    """A data directory of something else is refused."""
    DataDirectory(written.nodes[0].data, "other", "n1").close()
    assert "belongs to node 'n1' of cluster 'other'" in refusal(written)


def test_a_directory_that_cannot_be_made(tmp_path, ports):
    """A file in the way of the data directory is a plain sentence."""
    (tmp_path / "file").write_text("")
    assert "cannot be used: not a directory" in refusal(plan(tmp_path / "file", 3, ports, ports + 4))


def test_a_directory_that_cannot_be_written(ports):
    """A place where nobody may make a directory, root included, is a plain sentence."""
    assert "cannot be used: " in refusal(plan(Path("/proc/replicad/d"), 3, ports, ports + 4))


def test_the_environment_of_the_nodes():
    """Variables that would say the same of every node are left out; those of the process stay."""
    environ, dropped = node_environment(
        {"REPLICAD_DATA": "x", "REPLICAD_NODE": "n1", "REPLICAD_NODES_N1_DATA": "y", "REPLICAD_LOG_LEVEL": "debug"}
    )
    assert environ == {"REPLICAD_LOG_LEVEL": "debug"}
    assert dropped == ["REPLICAD_DATA", "REPLICAD_NODE", "REPLICAD_NODES_N1_DATA"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "killed by signal 9 (SIGKILL)"),
        (0, "in good order"),
        (2, "could not start"),
        (70, "the disk failed or a rule was broken"),
        (1, "exit code 1"),
    ],
)
def test_how_a_process_ended(code, words):
    """The end of a node is said in words."""
    assert words in how_it_ended(code)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-01-01T00:00:00Z [warning  ] settings   hint=x", "warning"),
        ("2026-01-01T00:00:00Z [info     ] x", "info"),
        ('{"level": "error", "event": "x"}', "error"),
        ("{broken", ""),
        ("Traceback (most recent call last):", ""),
    ],
)
def test_levels_of_lines(line, level):
    """The event log is understood in both of its formats; other lines have no level."""
    assert event_level(line) == level


def test_the_protocol_of_a_new_cluster(tmp_path):
    """--protocol is written into the file; a later start may repeat it, but not contradict it."""
    first = free_ports(2)
    cluster = plan(tmp_path, 1, first, first + 1, "active")
    cluster.write()
    assert 'protocol = "active"' in cluster.file.read_text()
    for protocol in (None, "active"):
        assert plan(tmp_path, None, None, None, protocol).protocol == "active"
    with pytest.raises(Failure, match='switch the running cluster with "replicad group protocol'):
        plan(tmp_path, None, None, None, "remote-write")
