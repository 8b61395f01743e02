"""`replicad up` with real processes, and what looks at them."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from replicad.cli import locks
from tests.cli.ports import free_ports

pytestmark = pytest.mark.xdist_group("processes")

PATIENCE = 45.0
REPLICAD = (sys.executable, "-m", "replicad.cli.main")


class Up:
    """A running `replicad up`, its output in a file."""

    def __init__(self, data, nodes, *options):
        self.data = data
        self.nodes = nodes
        self.http = free_ports(2 * nodes)
        self.addresses = [f"127.0.0.1:{self.http + number}" for number in range(nodes)]
        self.log = data.with_suffix(".out")
        ports = ("--http-port", str(self.http), "--peer-port", str(self.http + nodes))
        self.command = [*REPLICAD, "up", "--data", str(data), "--nodes", str(nodes), *ports, *options]
        self.start()

    def start(self):
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
        self.waits_for(lambda: "Try it:" in self.output(), "the greeting")

    def output(self):
        return self.log.read_text()

    def waits_for(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what} in vain; it said:\n{self.output()}"
            time.sleep(0.05)

    def says(self, text):
        self.waits_for(lambda: text in self.output(), repr(text))

    def directory(self, name):
        return self.data / name

    def pid(self, name):
        """The node's process id, as soon as it has written it down."""
        self.waits_for(lambda: locks.process_id(self.directory(name)), f"the process id of {name}")
        return locks.process_id(self.directory(name))

    def pids(self):
        return [self.pid(f"n{number + 1}") for number in range(self.nodes)]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def cli(self, *arguments):
        environ = os.environ | {"REPLICAD_ADDR": ",".join(self.addresses)}
        return subprocess.run([*REPLICAD, *map(str, arguments)], capture_output=True, env=environ, check=False)


def alive(pid):
    """Whether the process runs (one that ended and waits to be reaped does not)."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@contextmanager
def running(data, nodes, *options):
    """Run a cluster for the block, and end every process of it."""
    cluster = Up(data, nodes, *options)
    try:
        yield cluster
    finally:
        if cluster.process.poll() is None:
            cluster.process.send_signal(signal.SIGKILL)  # its nodes die with it
        cluster.process.wait()
        cluster.waits_for(
            lambda: not any(locks.running(cluster.directory(f"n{number + 1}")) for number in range(nodes)), "the end"
        )


def test_a_cluster_from_start_to_stop(tmp_path):
    """Three nodes start, serve, are looked at from all sides, stop on SIGTERM, and go on with the data."""
    with running(tmp_path / "d", 3) as up:
        for name, address in zip(("n1", "n2", "n3"), up.addresses, strict=True):
            assert f"{name} is ready  http://{address}  process {up.pid(name)}" in up.output()
        assert up.output().count("  curl ") == 3
        starts_without_a_warning(up)
        assert up.cli("kv", "put", "k", "v").returncode == 0
        for address in up.addresses:
            assert up.cli("kv", "get", "k", "--addr", address).stdout == b"v"
        assert up.cli("status", "--ready").returncode == 0
        status = up.cli("status")
        assert status.returncode == 0, status.stdout
        assert status.stdout.count(b"coordinator") == 1
        assert up.cli("checkpoint").stdout.startswith(b"checkpoint at slot ")

        doctor = up.cli("doctor", "--config", up.data / "cluster.toml", "--json")
        found = json.loads(doctor.stdout)["findings"]
        said = [finding["sentence"] for finding in found if finding["node"] == "n1"]
        assert doctor.returncode == 0, found
        assert "n2 reaches n1" in said
        assert any(sentence.startswith("n1 reaches n3 at ") for sentence in said)

        second = subprocess.run(up.command, capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert f"{up.data / 'n1'} is in use by another replicad process ({up.pid('n1')})" in second.stderr
        assert "a node is running on this directory" in up.cli("inspect", "wal", up.directory("n1")).stdout.decode()

        pids = up.pids()
        assert up.stop() == 0
        assert not any(map(alive, pids))
        up.start()
        assert up.cli("kv", "get", "k").stdout == b"v"
        assert up.stop(signal.SIGINT) == 0
        looks_offline(up)


def starts_without_a_warning(up):
    """A peer that is not there yet is a warning only where it took long: a busy machine is no fault of the start."""
    logs = [(up.directory(name) / "replicad.log").read_text() for name in ("n1", "n2", "n3")]
    bad = [line for log in logs for line in log.splitlines() if "[info" not in line and "cannot connect" not in line]
    assert bad == []


def looks_offline(up):
    """What the nodes left behind can be read, verified, and is noticed when it is damaged."""
    wal = json.loads(up.cli("inspect", "wal", up.directory("n1"), "--verify", "--json", "--limit", 2).stdout)
    assert (wal["node_running"], wal["verdict"]["ok"], len(wal["records"])) == (False, True, 2)
    groups = json.loads(up.cli("inspect", "store", up.directory("n1"), "--verify", "--json").stdout)["groups"]
    (group,) = (group for group in groups if group["group"] == "default")
    assert [(key["key"], key["value"]) for key in group["keys"]] == [("k", "v")]
    assert group["damage"] == ""
    found = json.loads(up.cli("inspect", "checkpoint", up.directory("n1"), "--verify", "--json").stdout)["checkpoints"]
    assert found[-1]["damage"] == ""
    cluster, file, *_ = up.cli("inspect", "checkpoint", up.directory("n1")).stdout.decode().splitlines()
    assert cluster.startswith("of the cluster 'local', id ")
    assert file == found[0]["file"]
    assert all(len(found[0][name]) == 32 for name in ("cluster_id", "incarnation"))
    (file, *_) = (up.directory("n1") / "checkpoints").glob("*.ckpt")
    damaged = bytearray(file.read_bytes())
    damaged[-20] ^= 1
    file.write_bytes(damaged)
    result = up.cli("inspect", "checkpoint", file, "--verify")
    assert result.returncode == 1
    assert b"DAMAGED" in result.stdout


def test_a_node_that_dies(tmp_path):
    """A killed node is reported and not restarted; one started by hand is left alone when `up` stops."""
    with running(tmp_path / "d", 3) as up:
        os.kill(up.pid("n2"), signal.SIGKILL)
        up.says("n2 was killed by signal 9 (SIGKILL)")
        up.says(f"start it again:  replicad serve --config {up.data / 'cluster.toml'} --node n2")
        by_hand = subprocess.Popen(
            [*REPLICAD, "serve", "--config", str(up.data / "cluster.toml"), "--node", "n2"], stderr=subprocess.DEVNULL
        )
        try:
            up.waits_for(lambda: up.cli("status", "--ready").returncode == 0, "the node started by hand")
            assert up.stop() == 0
            assert by_hand.poll() is None
        finally:
            by_hand.terminate()
            assert by_hand.wait(PATIENCE) == 0


def test_restart(tmp_path):
    """With --restart a killed node comes back by itself; one that was stopped in good order does not."""
    with running(tmp_path / "d", 1, "--restart") as up:
        up.cli("kv", "put", "k", "v")
        before = up.pid("n1")
        os.kill(before, signal.SIGKILL)
        up.says("n1 is started again in 0.5 s")
        up.waits_for(lambda: up.output().count("n1 is ready") == 2, "the second start")
        assert up.pid("n1") != before
        assert up.cli("kv", "get", "k").stdout == b"v"
        os.kill(up.pid("n1"), signal.SIGTERM)
        up.says("n1 stopped in good order")
        assert up.process.wait(PATIENCE) == 1
        assert "no node is left running" in up.output()


def test_up_leaves_no_orphans(tmp_path):
    """When `up` itself is killed, its nodes go with it."""
    with running(tmp_path / "d", 1) as up:
        pid = up.pid("n1")
        up.stop(signal.SIGKILL)
        up.waits_for(lambda: not alive(pid), "the end of the node")


def test_a_paused_node_is_stopped_too(tmp_path):
    """A node that was paused with SIGSTOP wakes to the request to stop, and stops in good order."""
    with running(tmp_path / "d", 1) as up:
        os.kill(up.pid("n1"), signal.SIGSTOP)
        assert up.stop() == 0


@pytest.mark.parametrize("what", ["wal", "store", "checkpoint"])
def test_nothing_to_inspect(replicad, tmp_path, what):
    """A path without the files asked for is a plain sentence and exit code 2, whatever it is."""
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "nothing"):
        result = replicad("inspect", what, path)
        assert result.exit_code == 2
        assert result.stderr.startswith("replicad: ")
    assert replicad("inspect", what, tmp_path / "file").exit_code in {1, 2}
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--config", "/no/such", "--node", "n1"), "there is no such file"),
        (("--config", "{good}", "--node", "n9"), "there is no node 'n9'"),
        (("--config", "{good}"), "which node is this"),
    ],
)
def test_serve_with_bad_settings(replicad, tmp_path, arguments, sentence):
    """`serve` refuses settings it cannot use in plain words, with exit code 2."""
    good = tmp_path / "c.toml"
    good.write_text(
        '[cluster]\nname = "c"\n[nodes.n1]\n[nodes.n2]\nhttp_listen = "127.0.0.1:2"\npeer_listen = "127.0.0.1:3"\n'
    )
    result = replicad("serve", *(argument.format(good=good) for argument in arguments))
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_serve_without_a_place_for_its_data(replicad, tmp_path):
    """A data directory that cannot be made is a plain sentence."""
    (tmp_path / "file").write_text("")
    config = tmp_path / "c.toml"
    config.write_text('[cluster]\nname = "c"\n[nodes.n1]\ndata = "file/n1"\n')
    result = replicad("serve", "--config", config)
    assert result.exit_code == 2
    assert f"the data directory {tmp_path / 'file' / 'n1'} cannot be used: not a directory" in result.stderr
