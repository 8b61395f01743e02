"""Settings of one node: read, checked as a whole, and resolved.

``load`` is the only door. What can be wrong is found before anything starts, and said in plain sentences
(:class:`SettingsError`); what is merely unwise is in ``Settings.warnings``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from replicad.core.cluster.definitions import GroupDefinition
from replicad.core.model.limits import Limits
from replicad.node.settings_models import (
    Address,
    NodeSettings,
    ProcessSettings,
    SettingsFile,
    is_loopback,
    parse_address,
)
from replicad.node.settings_sentences import sentences
from replicad.node.settings_sources import Overlay, Place, SettingsError, read_toml

__all__ = ["Address", "Settings", "SettingsError", "check", "load", "parse_address"]

SECRET_BYTES_MIN = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that one node needs to know to start."""

    source: str
    """The file's name, for sentences."""
    node: str
    cluster: str
    limits: Limits
    secret: bytes = field(repr=False)
    """The shared secret, b"" for none. It is never logged."""
    nodes: Mapping[str, NodeSettings]
    """All nodes by name, in the order of the file."""
    groups: Mapping[str, GroupDefinition]
    """The groups that the cluster begins with; ``default`` is always there."""
    meta: tuple[str, ...]
    """The nodes that vote on what groups there are, in order, when the cluster begins."""
    meta_fixed: bool
    """Whether they stay the voters: the file names them. Otherwise these follow the cluster's nodes."""
    process: ProcessSettings
    data: Path
    """This node's data directory, absolute."""
    warnings: tuple[str, ...]

    @property
    def own(self) -> NodeSettings:
        """This node's addresses."""
        return self.nodes[self.node]

    @property
    def http_listen(self) -> Address:
        """Where this node serves HTTP."""
        return parse_address(self.own.http_listen)

    @property
    def peer_listen(self) -> Address:
        """Where this node awaits its peers."""
        return parse_address(self.own.peer_listen)

    @property
    def peers(self) -> dict[str, Address]:
        """Where the other nodes await us, by name."""
        return {name: node.peer_address() for name, node in self.nodes.items() if name != self.node}

    @property
    def http_addresses(self) -> dict[str, Address]:
        """Where clients find each node, this one included, by name."""
        return {name: node.http_address() for name, node in self.nodes.items()}


def load(path: Path | None, node: str | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of ``node`` (None: ``REPLICAD_NODE``, or the only node there is).

    ``path`` None means that everything comes from the environment. Raises SettingsError.
    """
    name = node or environ.get("REPLICAD_NODE") or None
    file, overlay = _read(path, name, environ)
    source = _source(path)
    if name is None:
        if len(file.nodes) > 1:
            raise SettingsError([f"{source}: which node is this? Say --node NAME, one of {', '.join(file.nodes)}"])
        name = next(iter(file.nodes))
    base = Path.cwd() if path is None else path.absolute().parent
    secret, warnings = _secret(file, base, source, overlay.origins)
    return Settings(
        source=source,
        node=name,
        cluster=file.cluster.name,
        limits=file.cluster.limits.limits(),
        secret=secret,
        nodes=file.nodes,
        groups=file.definitions(),
        meta=file.meta(),
        meta_fixed=file.cluster.meta is not None,
        process=file.node,
        data=base / (file.nodes[name].data or f"data/{name}"),
        warnings=(*_unknown(overlay), *warnings, *_exposed(file, (name,), secret)),
    )


def check(path: Path | None, environ: Mapping[str, str]) -> list[str]:
    """Check a file for all of its nodes; return what is unwise, raise SettingsError for what is wrong."""
    file, overlay = _read(path, environ.get("REPLICAD_NODE") or None, environ)
    base = Path.cwd() if path is None else path.absolute().parent
    secret, warnings = _secret(file, base, _source(path), overlay.origins)
    return [*_unknown(overlay), *warnings, *_exposed(file, tuple(file.nodes), secret)]


def _source(path: Path | None) -> str:
    return "environment" if path is None else str(path)


def _read(path: Path | None, node: str | None, environ: Mapping[str, str]) -> tuple[SettingsFile, Overlay]:
    tables = {} if path is None else read_toml(path)
    source = _source(path)
    nodes = tables.get("nodes")
    if node is not None and isinstance(nodes, dict) and nodes and node not in nodes:
        # before REPLICAD_DATA and its like would create a node by that name
        raise SettingsError([f"{source}: there is no node {node!r}; the nodes are {', '.join(nodes)}"])
    overlay = Overlay(tables, node)
    overlay.apply(environ)
    try:
        file = SettingsFile.model_validate(tables)
    except ValidationError as error:
        raise SettingsError(sentences(error, source, overlay.origins)) from None
    if node is not None and node not in file.nodes:
        raise SettingsError([f"{source}: there is no node {node!r}; the nodes are {', '.join(file.nodes)}"])
    return file, overlay


def _secret(file: SettingsFile, base: Path, source: str, origins: Mapping[Place, str]) -> tuple[bytes, list[str]]:
    """Return the shared secret and what is unwise about its file."""
    if not file.cluster.shared_secret_file:
        return b"", []
    path = base / file.cluster.shared_secret_file
    variable = origins.get(("cluster", "shared_secret_file"))
    where = f"environment variable {variable}" if variable else f"{source}: cluster.shared_secret_file"
    try:
        secret = path.read_bytes().rstrip(b"\r\n")
        mode = path.stat().st_mode
    except OSError as error:
        raise SettingsError([f"{where}: {path} cannot be read: {error.strerror}"]) from error
    if len(secret) < SECRET_BYTES_MIN:
        raise SettingsError(
            [f"{where}: {path} holds {len(secret)} bytes; a shared secret has at least {SECRET_BYTES_MIN}"]
        )
    if mode & 0o004:
        return secret, [f"{where}: every user of this machine can read {path}; chmod 600 would be right"]
    return secret, []


def _unknown(overlay: Overlay) -> list[str]:
    # no error: orchestrators set variables such as REPLICAD_PORT for a service of this name
    return [f"environment variable {name}: there is no such setting; it is ignored" for name in overlay.unknown]


def _exposed(file: SettingsFile, names: tuple[str, ...], secret: bytes) -> list[str]:
    return [
        f"nodes.{name}.peer_listen is {file.nodes[name].peer_listen}, which other machines can reach, and there is no "
        "cluster.shared_secret_file: whoever reaches it can pose as a node"
        for name in names
        if not secret and not is_loopback(parse_address(file.nodes[name].peer_listen).host)
    ]
