import json
import subprocess

import pytest

from tests.compose.cluster import NODES, docker, until

pytestmark = [pytest.mark.compose, pytest.mark.xdist_group("processes"), pytest.mark.timeout(900)]

LOOK_AROUND = """
import json, os
def writable(path):
    try:
        with open(os.path.join(path, "probe"), "w"):
            pass
    except OSError as error:
        return os.strerror(error.errno)
    os.unlink(os.path.join(path, "probe"))
    return "writable"
status = dict(line.split(":", 1) for line in open("/proc/1/status").read().splitlines())
print(json.dumps({
    "uid": os.stat("/proc/1").st_uid,
    "capabilities": [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")],
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "places": {path: writable(path) for path in ("/", "/etc", "/tmp", "/opt/replicad", "/var/lib/replicad")},
}))
"""


@pytest.mark.parametrize("node", NODES)
def test_a_node_has_no_privileges_and_writes_nothing_but_its_data(cluster, node):
    """The process runs as uid 10001 without any capability, and its data directory is all it can write to."""
    found = json.loads(docker("exec", cluster.container(node), "python", "-c", LOOK_AROUND))
    places = found.pop("places")
    assert found == {"uid": 10001, "capabilities": [0, 0, 0], "no_new_privileges": "1"}
    assert [path for path, answer in places.items() if answer == "writable"] == ["/var/lib/replicad"], places


def test_the_engine_sees_that_the_nodes_are_healthy(cluster):
    """The image's health check, the command itself, says that each node is ready."""
    containers = [cluster.container(node) for node in NODES]
    inspect = ("inspect", "--format", "{{.State.Health.Status}}")
    until("all nodes are healthy", lambda: set(docker(*inspect, *containers).split()) == {"healthy"})


def test_http_is_published_on_the_loopback_alone(cluster):
    """No port of a node is open to other machines unless someone opens it."""
    for node in NODES:
        (ports,) = json.loads(
            docker("inspect", "--format", "[{{json .HostConfig.PortBindings}}]", cluster.container(node))
        )
        assert ports == {"8001/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(cluster.ports[node])}]}


def test_the_image_holds_no_pip_and_needs_no_shell(cluster):
    """The image runs its command directly, and what was needed to build it is not in its environment."""
    image = docker("inspect", "--format", "{{.Image}}", cluster.container("n1")).strip()
    config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", image))
    assert config["Entrypoint"] == ["replicad"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["StopSignal"] == "SIGTERM"
    assert config["User"] == "10001:10001"
    pip = ["docker", "exec", cluster.container("n1"), "python", "-c", "import pip"]
    assert subprocess.run(pip, capture_output=True, check=False).returncode != 0


def test_a_node_that_is_stopped_leaves_in_order(cluster):
    """`docker stop` ends a node with exit code 0, not with a kill, and it comes back ready."""
    container = cluster.container("n2")
    docker("stop", "--time", "60", container)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container).strip() == "0"
    cluster.start("n2")
    cluster.await_ready(*NODES)
