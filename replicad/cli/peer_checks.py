"""The part of ``replicad doctor`` that looks at the network: own addresses, and both directions to every peer.

To a peer's own address it says hello as the node would, reads the answer, and goes: what does not fit (cluster, name,
settings, shared secret) is then said in the words of the handshake, and no link of the running node is touched. The
peer logs one "handshake_broken" or "connection_refused" for it. Whether a peer reaches this node is in its metrics.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import time
from email.utils import parsedate_to_datetime

from replicad.cli import locks
from replicad.cli.findings import Findings
from replicad.cli.nodes import Address as HttpAddress
from replicad.cli.nodes import Answer, UnreachedError, ask
from replicad.core.model.errors import DamageError
from replicad.core.model.limits import PEER_VERSION_MAX, PEER_VERSION_MIN
from replicad.node.framing import HANDSHAKE_BYTES_MAX, FrameBuffer, FrameError, frame_bytes
from replicad.node.handshake import (
    CONTROL,
    NONCE_BYTES,
    Hello,
    RefusedError,
    compare,
    parse,
    parse_hello,
)
from replicad.node.identity import DirectoryError, read_identity
from replicad.node.segment_files import holds_data
from replicad.node.settings import Address, Settings

SECONDS = 2.0
APART_SECONDS = 5.0
"""Clocks of day that are further apart than this make logs hard to compare. Nothing else depends on them."""

PEER_UP = re.compile(r'^replicad_peer_up\{peer="([^"]*)"\} ([0-9.e+-]+)', re.MULTILINE)


def check_self(findings: Findings, settings: Settings) -> bool:
    """Look at this node's own addresses; return whether the node runs."""
    name = settings.node
    if not locks.running(settings.data):
        for kind, address in (("HTTP", settings.http_listen), ("peer", settings.peer_listen)):
            reason = _cannot_listen(address)
            if reason:
                findings.wrong(
                    f"{name} does not run, and could not listen on its {kind} address {address}: {reason}",
                    "stop what uses it, or change the settings",
                )
            else:
                findings.ok(f"{name} does not run; its {kind} address {address} is free")
        return False
    for address in dict.fromkeys((settings.http_listen, settings.http_addresses[name])):
        _check_http(findings, name, settings.cluster, address)
    return True


def _cannot_listen(address: Address) -> str:
    try:
        family, _, _, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _check_http(findings: Findings, name: str, cluster: str, address: Address) -> Answer | None:
    """Ask a node's status at its HTTP address; return the answer if it is that node's."""
    try:
        answer = ask(HttpAddress(*address), "GET", "/v1/replicad/status", seconds=SECONDS)
        said = json.loads(answer.body)
        there = (said["node"], said["cluster"])
    except UnreachedError as error:
        findings.wrong(
            f"{name} at its HTTP address {error}",
            f"start it (replicad serve --config FILE --node {name}), or open the way there (firewall, name, advertise)",
        )
        return None
    except (ValueError, TypeError, KeyError):
        findings.wrong(f"something else than {name} answers at its HTTP address {address}", "see what runs there")
        return None
    if there != (name, cluster):
        findings.wrong(
            f"{address}, the HTTP address of {name} of cluster {cluster!r}, is answered by {there[0]} of {there[1]!r}",
            f"put nodes.{name}.http_advertise right",
        )
        return None
    findings.ok(f"{name} answers at its HTTP address {address}")
    return answer


def check_peers(findings: Findings, settings: Settings, *, runs: bool) -> None:
    """Look at both directions of every peer address."""
    for peer, address in settings.peers.items():
        _check_dialing(findings, settings, peer, address)
        answer = _check_http(findings, peer, settings.cluster, settings.http_addresses[peer])
        if answer is None:
            findings.look(f"whether {peer} reaches {settings.node} cannot be told without its HTTP address")
            continue
        _check_time_of_day(findings, peer, answer.headers.get("date", ""))
        if runs:
            _check_reverse(findings, settings, peer)
        else:
            findings.look(f"whether {peer} reaches {settings.node} can be told when {settings.node} runs")


def _check_dialing(findings: Findings, settings: Settings, peer: str, address: Address) -> None:
    here = settings.node
    try:
        said = greet(settings, peer, address)
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
        findings.wrong(
            f"{here} cannot reach {peer} at its peer address {address}: {reason}",
            f"start {peer} (replicad serve --config FILE --node {peer}); if it runs, look at "
            f"nodes.{peer}.peer_advertise, its name and firewalls",
        )
    except (RefusedError, FrameError) as error:
        findings.wrong(
            f"{here} reaches {peer} at {address}, and the two do not fit: {error}",
            "do as it says; settings must be equal where both nodes have them",
        )
    else:
        findings.ok(f"{here} reaches {peer} at {address}, and the two fit (constants {said.checksum})")


def greet(settings: Settings, peer: str, address: Address) -> Hello:
    """Say hello to a peer and return its answer if the two fit; raises OSError, RefusedError, FrameError."""
    disk, cluster_id = _belongs(settings)
    ours = Hello(
        cluster=settings.cluster,
        node=settings.node,
        wanted=peer,
        disk=disk,
        checksum=settings.limits.checksum(),
        channel=CONTROL,
        version_min=PEER_VERSION_MIN,
        version_max=PEER_VERSION_MAX,
        secured=bool(settings.secret),
        nonce=secrets.token_bytes(NONCE_BYTES),
        cluster_id=cluster_id,
        empty=not holds_data(settings.data),
    )
    buffer = FrameBuffer(HANDSHAKE_BYTES_MAX)
    with socket.create_connection(address, SECONDS) as connection:
        connection.settimeout(SECONDS)
        connection.sendall(frame_bytes(ours.pack()))
        while True:
            count = connection.recv_into(buffer.writable())
            if not count:
                raise FrameError(f"{peer} closed the connection without a word; its event log has the reason")
            for payload in buffer.received(count):
                kind, content = parse(payload)
                if kind == "refused":
                    raise RefusedError(str(content))
                if kind != "hello":
                    raise FrameError(f"an unexpected {kind}")
                theirs = parse_hello(content)
                compare(ours, theirs)
                if theirs.node != peer:
                    raise RefusedError(f"the node there is {theirs.node}, not {peer}")
                return theirs


def _belongs(settings: Settings) -> tuple[str, str]:
    """Return the disk id of the node's directory and the id of the cluster that its data belong to, as far as known."""
    try:
        identity = read_identity(settings.data / "identity.json")
    except (OSError, DamageError, DirectoryError):
        return "doctor", ""
    return identity.disk, identity.cluster_id


def _check_reverse(findings: Findings, settings: Settings, peer: str) -> None:
    here, address = settings.node, settings.http_addresses[peer]
    try:
        answer = ask(HttpAddress(*address), "GET", "/metrics", seconds=SECONDS)
    except UnreachedError as error:
        findings.look(f"whether {peer} reaches {here} cannot be told: {error}")
        return
    up = dict(PEER_UP.findall(answer.body.decode("utf-8", "replace"))).get(here)
    if up is None:
        findings.wrong(f"{peer} does not know of {here}", f"add nodes.{here} to the settings of {peer}")
    elif float(up):
        findings.ok(f"{peer} reaches {here}")
    else:
        own = settings.nodes[here].peer_address()
        findings.wrong(
            f"{peer} does not reach {here}, which it looks for where its settings say",
            f"from {peer}, {own} must be open; its event log says what it meets (peer_link_failed)",
        )


def _check_time_of_day(findings: Findings, peer: str, date: str) -> None:
    try:
        apart = abs(parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        return
    if apart > APART_SECONDS:
        findings.look(
            f"the time of day at {peer} differs by {apart:.0f} s; promises do not depend on it, logs do",
            "synchronise the clocks",
        )
