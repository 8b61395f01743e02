"""The cluster that ``replicad up`` runs: its settings file, and everything that must be right before it starts.

All checks raise Failure with a plain sentence, and leave nothing half started.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from replicad.cli import locks
from replicad.cli.output import EXIT_USAGE, Failure
from replicad.core.cluster.definitions import DEFAULT, REMOTE_WRITE
from replicad.core.model.errors import DamageError
from replicad.node.disk_operations import DiskOperations, replace_file
from replicad.node.identity import DirectoryError, read_identity
from replicad.node.settings import Address, SettingsError, load, parse_address
from replicad.node.settings_models import NodeSettings
from replicad.node.settings_sources import read_toml

CLUSTER = "local"
FILE = "cluster.toml"
NODES, HTTP_PORT, PEER_PORT = 3, 8001, 9001
NATIVE_DISTANCE = 1_000
"""Native ports follow the HTTP ports at this distance, 7001 for 8001; the settings file may say otherwise."""
HEAD = f"""\
# Written by `replicad up`. One of its nodes, by hand:  replicad serve --config THIS_FILE --node n2
# Anything else that a settings file may hold can be added (configs/local.toml lists it); `replicad up` keeps it.

[cluster]
name = "{CLUSTER}"
"""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """One node: where it listens, where it is found, and its data directory."""

    name: str
    http_listen: Address
    peer_listen: Address
    http: Address
    data: Path
    native_listen: Address | None = None
    """Where it serves native clients, if it does."""


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """All nodes in order, and the settings file that says the same; ``text`` is its content if it must be written."""

    name: str
    file: Path
    nodes: tuple[LocalNode, ...]
    text: str = ""
    protocol: str = REMOTE_WRITE
    """What the group ``default`` begins with."""

    def write(self) -> None:
        """Write the file if there is none, all or nothing."""
        if self.text:
            replace_file(DiskOperations(), self.file, self.text.encode())


def plan(
    directory: Path, nodes: int | None, http_port: int | None, peer_port: int | None, protocol: str | None = None
) -> LocalCluster:
    """Return the cluster in ``directory``: as its file says, or a new one; what is None is as it is, or the default."""
    file = directory / FILE
    if file.exists():
        found = _read(file)
        _compare(found, nodes, http_port, peer_port)
        _compare_protocol(found, protocol)
        return found
    return _new(directory, nodes or NODES, http_port or HTTP_PORT, peer_port or PEER_PORT, protocol)


def _new(directory: Path, count: int, http_port: int, peer_port: int, protocol: str | None) -> LocalCluster:
    for option, port in (("--http-port", http_port), ("--peer-port", peer_port)):
        if port + count - 1 > 65_535:
            raise Failure(f"{option} {port}: node n{count} would get port {port + count - 1}, above 65535", EXIT_USAGE)
    if abs(http_port - peer_port) < count:
        raise Failure(
            f"--http-port {http_port} and --peer-port {peer_port} overlap: each takes {count} ports from there on",
            EXIT_USAGE,
        )
    native_port = _native_port(count, http_port, peer_port)
    text = HEAD
    members = []
    for number in range(count):
        name = f"n{number + 1}"
        http, peer = Address("127.0.0.1", http_port + number), Address("127.0.0.1", peer_port + number)
        native = Address("127.0.0.1", native_port + number)
        members.append(LocalNode(name, http, peer, http, directory / name, native))
        text += f'\n[nodes.{name}]\nhttp_listen = "{http}"\nnative_listen = "{native}"\npeer_listen = "{peer}"\n'
        text += f'data = "{name}"\n'
    if protocol is not None:
        text += f'\n[groups.default]\nprotocol = "{protocol}"\n'
    return LocalCluster(CLUSTER, directory / FILE, tuple(members), text, protocol or REMOTE_WRITE)


def _native_port(count: int, http_port: int, peer_port: int) -> int:
    """Return the first native port: 1,000 below the HTTP ports, or the next thousand that is free of other ports."""
    for port in range(http_port - NATIVE_DISTANCE, 65_536 - count, NATIVE_DISTANCE):
        if port >= 1024 and all(abs(port - other) >= count for other in (http_port, peer_port)):
            return port
    raise Failure(f"--http-port {http_port} leaves no room for the native ports; choose a lower one", EXIT_USAGE)


def _read(file: Path) -> LocalCluster:
    protocol = REMOTE_WRITE
    try:
        tables = read_toml(file).get("nodes")
        names = list(tables) if isinstance(tables, dict) and tables else [""]
        members = []
        name = ""
        for each in names:
            settings = load(file, each or None, {})
            name = settings.cluster
            protocol = settings.groups[DEFAULT].protocol
            members.append(
                LocalNode(
                    settings.node,
                    settings.http_listen,
                    settings.peer_listen,
                    settings.http_addresses[settings.node],
                    settings.data,
                    parse_address(settings.own.native_listen) if settings.own.native_listen else None,
                )
            )
    except SettingsError as error:
        raise Failure("\n".join(error.sentences), EXIT_USAGE) from error
    return LocalCluster(name, file, tuple(members), "", protocol)


def _compare(found: LocalCluster, nodes: int | None, http_port: int | None, peer_port: int | None) -> None:
    """Refuse options that contradict the file: data is there, and its members know each other as it says."""
    first = found.nodes[0]
    for option, wanted, there, what in (
        ("--nodes", nodes, len(found.nodes), "nodes"),
        ("--http-port", http_port, first.http_listen.port, f"HTTP port of {first.name}"),
        ("--peer-port", peer_port, first.peer_listen.port, f"peer port of {first.name}"),
    ):
        if wanted is None or wanted == there:
            continue
        how = f"{there} {what}" if option == "--nodes" else f"{there} as the {what}"
        advice = (
            "the members of a cluster with data cannot be changed this way"
            if option == "--nodes"
            else "to move it, edit that file while no node runs"
        )
        raise Failure(
            f"{found.file} has {how}, and {option} {wanted} asks for another; leave {option} out to go on with it, or "
            f"choose another --data for a new cluster ({advice})",
            EXIT_USAGE,
        )


def _compare_protocol(found: LocalCluster, protocol: str | None) -> None:
    if protocol is not None and protocol != found.protocol:
        raise Failure(
            f"{found.file} begins with the protocol {found.protocol}, and --protocol {protocol} asks for another; "
            f'leave --protocol out, and switch the running cluster with "replicad group protocol {DEFAULT} {protocol}"',
            EXIT_USAGE,
        )


def node_environment(environ: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the environment for the nodes, and the variables left out: those that say what only the file may say."""
    own = {f"REPLICAD_{name.upper()}" for name in NodeSettings.model_fields} | {"REPLICAD_NODE", "REPLICAD_CONFIG"}
    dropped = [
        name
        for name in environ
        if name in own or name.startswith(("REPLICAD_NODES_", "REPLICAD_GROUPS_", "REPLICAD_CLUSTER_NAME"))
    ]
    return {name: value for name, value in environ.items() if name not in dropped}, sorted(dropped)


@contextmanager
def reserved(cluster: LocalCluster) -> Iterator[None]:
    """Make sure of every data directory and port; the directories stay locked inside the block. Raises Failure."""
    for node in cluster.nodes:
        if locks.running(node.data):
            raise _in_use(node.data)
    for node in cluster.nodes:
        _check_port(node.name, "HTTP", node.http_listen, "--http-port")
        _check_port(node.name, "peer", node.peer_listen, "--peer-port")
        if node.native_listen is not None:
            _check_port(node.name, "native", node.native_listen, "--http-port")
    held: list[int] = []
    try:
        for node in cluster.nodes:
            held.append(_take_directory(cluster, node))  # noqa: PERF401 - one that fails leaves the others to close
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _take_directory(cluster: LocalCluster, node: LocalNode) -> int:
    data = node.data
    try:
        data.mkdir(parents=True, exist_ok=True)
        descriptor = locks.take(data)
    except BlockingIOError:
        raise _in_use(data) from None
    except OSError as error:
        raise Failure(f"the data directory {data} cannot be used: {_reason(error)}", EXIT_USAGE) from error
    try:
        _check_writable(data)
        _check_identity(cluster, node)
    except Failure:
        os.close(descriptor)
        raise
    return descriptor


def _in_use(data: Path) -> Failure:
    process = locks.process_id(data)
    which = f" ({process})" if process else ""
    return Failure(
        f"the data directory {data} is in use by another replicad process{which}; stop it or choose another --data",
        EXIT_USAGE,
    )


def _check_writable(data: Path) -> None:
    probe = data / ".writable"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise Failure(f"the data directory {data} cannot be written: {_reason(error)}", EXIT_USAGE) from error


def _check_identity(cluster: LocalCluster, node: LocalNode) -> None:
    try:
        identity = read_identity(node.data / "identity.json")
    except (FileNotFoundError, DamageError):
        return  # the node deals with both
    except (DirectoryError, OSError) as error:
        raise Failure(str(error), EXIT_USAGE) from error
    if (identity.cluster, identity.node) != (cluster.name, node.name):
        raise Failure(
            f"the data directory {node.data} belongs to node {identity.node!r} of cluster {identity.cluster!r}, and "
            f"this is {node.name!r} of {cluster.name!r}; choose another --data",
            EXIT_USAGE,
        )


def _check_port(name: str, kind: str, address: Address, option: str) -> None:
    try:
        family, _, _, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the node: ports that just closed are free
            probe.bind(target)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Failure(
                f"port {address.port} of {address.host}, the {kind} port of {name}, is taken by another process; stop "
                f"that one, or choose other ports with {option}",
                EXIT_USAGE,
            ) from error
        raise Failure(
            f"{address}, the {kind} address of {name}, cannot be used: {_reason(error)}", EXIT_USAGE
        ) from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
