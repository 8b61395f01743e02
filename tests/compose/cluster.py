"""The cluster in containers: what Docker and Compose do to it, and what its nodes answer."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

ROOT = Path(__file__).resolve().parent.parent.parent
NODES = ("n1", "n2", "n3")
MORE = ("n4", "n5")
"""What docker-compose.more.yml adds."""
PATIENCE_S = 180
"""How long a condition may take to come true; nothing here says how long it should."""

ASK_INSIDE = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8001, timeout=60)
connection.request("GET", sys.argv[1])
answer = connection.getresponse()
print(answer.status)
print(answer.read().decode())
"""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


def run(*command, check=True, **options):
    """Run a command and return what it printed."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=800, check=False, **options
    )
    assert not check or done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{done.stdout[-6000:]}"
    return done.stdout


def docker(*arguments, check=True):
    """Run a docker command and return what it printed."""
    return run("docker", *arguments, check=check)


def compose_command():
    """Return how Compose is called here: the plugin, or the older program."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    assert shutil.which("docker-compose"), "the container tests need Compose: apt install docker-compose"
    return ["docker-compose"]


def free_ports(count):
    """Return ports of the loopback that nobody uses now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def until(what, condition):
    """Return the first true answer of ``condition``, asked again and again; ``what`` says what is waited for."""
    end = time.monotonic() + PATIENCE_S
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.1)


class Cluster:
    """The compose file's cluster under a project name of its own; the second file's nodes are there with ``more``."""

    def __init__(self, project, base_image, *, more=False):
        self.project = project
        self.nodes = (*NODES, *MORE) if more else NODES
        self.ports = dict(zip(self.nodes, free_ports(len(self.nodes)), strict=True))
        files = ("docker-compose.yml", "docker-compose.more.yml")[: 1 + more]
        self.command = [
            *compose_command(),
            "-p",
            project,
            *(part for file in files for part in ("-f", str(ROOT / file))),
        ]
        self.environment = {**os.environ, "BASE_IMAGE": base_image, "COMPOSE_ANSI": "never"}
        self.environment.update({f"REPLICAD_HTTP_PORT_{node[1:]}": str(port) for node, port in self.ports.items()})

    def compose(self, *arguments, check=True):
        """Run a compose command and return what it printed."""
        return run(*self.command, *arguments, check=check, env=self.environment, cwd=ROOT)

    def up(self):
        """Build and start n1 to n3, and wait until each is ready."""
        self.compose("up", "-d", "--build", *NODES)
        self.await_ready(*NODES)

    def up_more(self):
        """Build and start the nodes of the second file; they are ready only when the cluster knows them."""
        self.compose("up", "-d", "--build", *MORE)

    def replicad(self, node, *arguments):
        """Run the command in a node's container and return what it printed."""
        return docker("exec", self.container(node), "replicad", *arguments)

    def down(self):
        """Remove containers, network and volumes."""
        self.compose("down", "-v", "--remove-orphans")

    def leftovers(self):
        """Return what there is of the project: containers, networks and volumes."""
        ours = ("--filter", f"label=com.docker.compose.project={self.project}")
        listings = (("ps", "-a", "-q"), ("network", "ls", "-q"), ("volume", "ls", "-q"))
        return [name for listing in listings for name in docker(*listing, *ours).split()]

    def container(self, node):
        """Return the id of a node's container."""
        labels = (f"com.docker.compose.project={self.project}", f"com.docker.compose.service={node}")
        found = docker("ps", "-a", "-q", *(part for label in labels for part in ("--filter", f"label={label}"))).split()
        assert len(found) == 1, f"{node} has {len(found)} containers"
        return found[0]

    def network(self):
        """Return the id of the nodes' network."""
        (found,) = docker("network", "ls", "-q", "--filter", f"label=com.docker.compose.project={self.project}").split()
        return found

    def kill(self, node):
        """End a node's process as a power cut would."""
        docker("kill", self.container(node))

    def start(self, node):
        """Start a node's container again."""
        docker("start", self.container(node))

    def cut_off(self, node):
        """Take a node off the network. Its published port goes too: only ``ask_inside`` reaches it."""
        docker("network", "disconnect", self.network(), self.container(node))

    def reconnect(self, node):
        """Put a node back on the network, under its service's name."""
        docker("network", "connect", "--alias", node, self.network(), self.container(node))

    def replace(self, node):
        """Remove a node's container and its volume, and bring it up with an empty one."""
        self.compose("rm", "--stop", "--force", node)
        labels = (f"com.docker.compose.project={self.project}", f"com.docker.compose.volume={node}")
        listing = docker("volume", "ls", "-q", *(part for label in labels for part in ("--filter", f"label={label}")))
        (volume,) = listing.split()
        docker("volume", "rm", volume)
        self.compose("up", "-d", "--no-build", "--no-deps", node)

    def ask(self, node, method, path, body=None, seconds=10.0):
        """Send one request to a node's published port. Raises OSError or HTTPException without an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[node], timeout=seconds)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        finally:
            connection.close()

    def ask_inside(self, node, path):
        """Send a GET to a node from within its own container."""
        printed = docker("exec", self.container(node), "python", "-c", ASK_INSIDE, path)
        status, _, body = printed.partition("\n")
        return Answer(int(status), body.removesuffix("\n").encode())

    def status(self, node):
        """Return what a node says of its group, {} if it does not answer or has none."""
        try:
            answer = self.ask(node, "GET", "/v1/replicad/status")
        except (OSError, http.client.HTTPException):
            return {}
        return json.loads(answer.body)["groups"].get("default", {})

    def await_ready(self, *nodes):
        """Wait until these nodes serve."""

        def ready(node):
            try:
                return self.ask(node, "GET", "/readyz").status == 200
            except (OSError, http.client.HTTPException):
                return False

        for node in nodes:
            until(f"{node} is ready", lambda node=node: ready(node))

    def await_coordinator(self, *nodes):
        """Wait until these nodes name the same one of them as coordinator, and return its name."""

        def agreed():
            named = {self.status(node).get("coordinator") for node in nodes}
            return named.pop() if len(named) == 1 and named <= set(nodes) else None

        return until(f"{', '.join(nodes)} agree on a coordinator", agreed)

    def await_equal(self, *nodes):
        """Wait until these nodes (n1 to n3 for none) are the coordinator's view, with one state at the same slot."""
        members = nodes or NODES

        def equal():
            states = [self.status(node) for node in members]
            views = [state["view"] for state in states if state.get("role") == "coordinator"]
            if len(views) != 1 or sorted(views[0]) != sorted(members):
                return False
            return len({(state["applied_slot"], state["index"], state["digest"]) for state in states if state}) == 1

        until(f"{', '.join(members)} are in the view, and their digests are equal", equal)

    def state_of_affairs(self):
        """Return what a failed test wants to know: the nodes' status and the ends of their logs."""
        states = "\n".join(f"{node}: {json.dumps(self.status(node))}" for node in self.nodes)
        return f"{states}\n{self.compose('logs', '--no-color', '--tail=60', check=False)}"


class Load:
    """Writers at every node, each write to a key of its own; remembers what was acknowledged. A context manager."""

    def __init__(self, cluster, nodes=NODES):
        self.cluster = cluster
        self.acknowledged = {}
        self.by_node = Counter()
        self.stopped = Event()
        self.threads = [Thread(target=self.write_on, args=(node,), name=f"writer-{node}") for node in nodes]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Let the writers finish."""
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def write_on(self, node):
        """Write at one node until stopped, whatever becomes of the node."""
        number = 0
        while not self.stopped.wait(0.02):
            number += 1
            key, value = f"load/{node}/{number:06d}", f"value {number} through {node}"
            try:
                answer = self.cluster.ask(node, "PUT", f"/v1/kv/{key}", value.encode())
            except (OSError, http.client.HTTPException):
                continue  # nobody promised anything
            if answer.status == 200 and answer.body.strip() == b"true":
                self.acknowledged[key] = value
                self.by_node[node] += 1

    def await_more(self, *nodes, count=20):
        """Wait until each of these nodes has acknowledged that many writes more."""
        goals = {node: self.by_node[node] + count for node in nodes}
        for node, goal in goals.items():
            until(f"{node} acknowledges {count} more writes", lambda node=node, goal=goal: self.by_node[node] >= goal)
