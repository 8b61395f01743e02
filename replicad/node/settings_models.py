"""The shape of a settings file: every setting, its default, its bounds and what it means.

Two families: ``[cluster]`` (constants of the protocol, equal on all nodes, compared in the peer handshake) and
``[node]`` (this process alone). ``[nodes.NAME]`` says where to find each node, ``[groups.NAME]`` who forms a group.
Sizes are bytes, durations milliseconds; the core counts microseconds, and ``LimitSettings.limits`` converts.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from replicad.core.cluster.definitions import DEFAULT, LIMITS, GroupDefinition
from replicad.core.journal.segments import SEGMENT_BYTES_MIN
from replicad.core.model.limits import FRAME_BYTES_MAX, Limits

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
META_VOTERS_MAX = 5
"""More voters would make definitions no safer, only slower to agree on."""
SEGMENT_OVERHEAD_BYTES = 64 * KIB
"""Header of a segment and framing of one record, generously."""

_LIMITS = Limits()


class Address(NamedTuple):
    """Where a node listens or is found; prints as ``host:port``, an IPv6 address in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the address in ``host:port`` or ``[ipv6]:port``; raises ValueError with a sentence."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError('an IPv6 address is written in brackets, for example "[::1]:9001"')
    if not colon or not host or " " in text:
        raise ValueError('it must be "host:port", for example "127.0.0.1:9001"')
    if not (port.isascii() and port.isdecimal()) or not 1 <= int(port) <= 65_535:
        raise ValueError(f"the port {port!r} must be a number from 1 to 65535")
    return Address(host, int(port))


def is_wildcard(host: str) -> bool:
    """Whether this address to listen on means "every interface" (nobody can dial it)."""
    return host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(text: str) -> str:
    parse_address(text)
    return text


def _listen_or_not(text: str) -> str:
    if text:
        parse_address(text)
    return text


def _optional_address(text: str) -> str:
    if text and is_wildcard(parse_address(text).host):
        raise ValueError("nobody can connect to a wildcard address; name the host that others should use")
    return text


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("a name is 1 to 63 letters, digits and hyphens, and does not start with a hyphen")
    return text


Name = Annotated[str, AfterValidator(_name)]
Listen = Annotated[str, AfterValidator(_address)]
OptionalListen = Annotated[str, AfterValidator(_listen_or_not)]
Advertise = Annotated[str, AfterValidator(_optional_address)]
Positive = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    """No unknown settings, no silent conversions, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LimitSettings(_Strict):
    """``[cluster.limits]``: the protocol's constants; see ``core/model/limits.py`` for what each means."""

    lease_ms: Positive = _LIMITS.lease_us // 1000
    heartbeat_ms: Positive = _LIMITS.heartbeat_us // 1000
    rate_bound_ppm: Positive = _LIMITS.rate_bound_ppm
    stagger_ms: Positive = _LIMITS.stagger_us // 1000
    stall_after_ms: Positive = _LIMITS.stall_after_us // 1000
    value_bytes_max: Positive = _LIMITS.value_bytes_max
    batch_operations_max: Positive = _LIMITS.batch_operations_max
    batch_bytes_max: Positive = _LIMITS.batch_bytes_max
    open_slots_max: Positive = _LIMITS.open_slots_max
    pipelined_slots: Positive = _LIMITS.pipelined_slots
    open_bytes_max: Positive = _LIMITS.open_bytes_max
    tickets_max: Positive = _LIMITS.tickets_max
    hand_on_bytes: Positive = _LIMITS.hand_on_bytes
    repair_after_ms: Positive = _LIMITS.repair_after_us // 1000
    request_window_slots: Positive = _LIMITS.request_window_slots
    checkpoint_slots: Positive = _LIMITS.checkpoint_slots
    checkpoint_bytes: Positive = _LIMITS.checkpoint_bytes
    retained_slots: Positive = _LIMITS.retained_slots
    retained_bytes: Positive = _LIMITS.retained_bytes
    join_lag_slots: Positive = _LIMITS.join_lag_slots
    digest_slots: Positive = _LIMITS.digest_slots
    page_entries: Positive = _LIMITS.page_entries
    page_bytes: Positive = _LIMITS.page_bytes

    @model_validator(mode="after")
    def _relations(self) -> Self:
        try:
            self.limits()
        except ValueError as error:
            raise ValueError(re.sub(r"_us\b", "_ms", str(error))) from error
        return self

    def limits(self) -> Limits:
        """Return the core's constants."""
        values: dict[str, int] = {}
        for name, value in self:
            if name.endswith("_ms"):
                values[name.removesuffix("_ms") + "_us"] = value * 1000
            else:
                values[name] = value
        return Limits(**values)


class ClusterSettings(_Strict):
    """``[cluster]``."""

    name: Name
    meta: Annotated[tuple[Name, ...] | None, Field(strict=False)] = None
    """The nodes that vote on what groups there are, in order; absent: at first all, at most five, then who is there."""
    shared_secret_file: str = ""
    """File whose content (at least 16 bytes; line ends at its end are ignored) every node must know; "" for none."""
    limits: LimitSettings = LimitSettings()


class NodeSettings(_Strict):
    """``[nodes.NAME]``: where one node listens, where others find it, and where its data is."""

    http_listen: Listen = "127.0.0.1:8001"
    http_advertise: Advertise = ""
    native_listen: OptionalListen = ""
    """Where it serves native clients; "" is nowhere, so that files of earlier releases mean what they meant."""
    native_advertise: Advertise = ""
    peer_listen: Listen = "127.0.0.1:9001"
    peer_advertise: Advertise = ""
    data: str = ""
    """Directory, relative to the settings file; "" is ``data/NAME``."""

    @model_validator(mode="after")
    def _findable(self) -> Self:
        if self.native_advertise and not self.native_listen:
            raise ValueError("native_advertise says where a port is found that native_listen does not open; set both")
        for kind in ("http", "native", "peer"):
            listen, advertise = getattr(self, f"{kind}_listen"), getattr(self, f"{kind}_advertise")
            if listen and is_wildcard(parse_address(listen).host) and not advertise:
                raise ValueError(f"{kind}_listen is {listen}, so {kind}_advertise must say where others find this node")
        return self

    def http_address(self) -> Address:
        """Return where others find the HTTP endpoint."""
        return parse_address(self.http_advertise or self.http_listen)

    def native_address(self) -> Address | None:
        """Return where others find the native client port, None if it is not open."""
        return parse_address(self.native_advertise or self.native_listen) if self.native_listen else None

    def peer_address(self) -> Address:
        """Return where other nodes find this node."""
        return parse_address(self.peer_advertise or self.peer_listen)


class GroupSettings(_Strict):
    """``[groups.NAME]``: the initial members, in order (absent: all nodes in the order of the file), and its ways."""

    members: Annotated[tuple[Name, ...] | None, Field(strict=False)] = None
    protocol: Literal["remote-write", "active"] = "remote-write"
    ack: Literal["all", "majority", "one"] = "all"
    checkpoint_slots: Positive | None = None
    checkpoint_bytes: Positive | None = None
    value_bytes_max: Positive | None = None

    def limits(self) -> dict[str, int]:
        """Return the constants that this group makes smaller for itself."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _members_make_sense(self) -> Self:
        if self.members is not None and not self.members:
            raise ValueError("members is empty; name at least one node, or leave members out to mean all nodes")
        if self.members is not None and len(set(self.members)) != len(self.members):
            raise ValueError("members names a node twice")
        return self


class ProcessSettings(_Strict):
    """``[node]``: settings of this process that other nodes need not share."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    log_file: bool = True
    """Also write events to ``replicad.log`` in the data directory."""
    log_file_bytes: Annotated[int, Field(ge=64 * KIB)] = 16 * MIB
    log_files: Annotated[int, Field(ge=1, le=100)] = 4
    scheduling: Literal["batch", "normal"] = "batch"
    """How the operating system schedules this process; ``batch``: it is not put in place of what is running when it
    wakes up, so that nodes which share cores do not interrupt each other in the middle of their sends."""
    request_timeout_ms: Annotated[int, Field(ge=10, le=600_000)] = 5_000
    http_connections_max: Annotated[int, Field(ge=1, le=100_000)] = 4_096
    native_connections_max: Annotated[int, Field(ge=1, le=100_000)] = 1_024
    requests_max: Annotated[int, Field(ge=1, le=1_000_000)] = 8_192
    """Writes that may wait for their outcome at this node; further ones get 429."""
    segment_bytes: Annotated[int, Field(ge=MIB, le=GIB)] = 16 * MIB
    reserve_bytes: Annotated[int, Field(ge=64 * KIB, le=GIB)] = MIB
    """Space of the message log that stays free for promises when the disk is full."""
    store_map_bytes: Annotated[int, Field(ge=64 * MIB, le=1 << 46)] = 64 * GIB
    send_queue_bytes: Annotated[int, Field(ge=64 * KIB, le=GIB)] = 4 * MIB
    bulk_send_queue_bytes: Annotated[int, Field(ge=2 * FRAME_BYTES_MAX, le=4 * GIB)] = 64 * MIB

    @model_validator(mode="after")
    def _reserve_fits(self) -> Self:
        if 2 * self.reserve_bytes > self.segment_bytes:
            raise ValueError("reserve_bytes must be at most half of segment_bytes")
        return self


class SettingsFile(_Strict):
    """A whole file."""

    cluster: ClusterSettings
    nodes: Annotated[dict[Name, NodeSettings], Field(min_length=1)]
    groups: dict[Name, GroupSettings] = {}
    node: ProcessSettings = ProcessSettings()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        record = max(2 * self.cluster.limits.batch_bytes_max + SEGMENT_OVERHEAD_BYTES, SEGMENT_BYTES_MIN)
        if self.node.segment_bytes < record:
            raise ValueError(
                f"node.segment_bytes is {self.node.segment_bytes}; a segment must hold the longest record, and two "
                f"batches of cluster.limits.batch_bytes_max, so at least {record} bytes"
            )
        self._check_addresses()
        self._check_members()
        self._check_limits()
        return self

    def _check_addresses(self) -> None:
        taken: dict[Address, str] = {}
        for name, node in self.nodes.items():
            found = (("http", node.http_address()), ("native", node.native_address()), ("peer", node.peer_address()))
            for kind, address in found:
                if address is None:
                    continue
                field = (
                    f"nodes.{name}.{kind}_advertise"
                    if getattr(node, f"{kind}_advertise")
                    else (f"nodes.{name}.{kind}_listen")
                )
                if address in taken:
                    raise ValueError(f"{taken[address]} and {field} are both {address}; each needs its own address")
                taken[address] = field

    def _check_members(self) -> None:
        meta = self.cluster.meta
        if meta is not None and (not meta or len(set(meta)) != len(meta)):
            raise ValueError("cluster.meta must name at least one node, and each only once; leave it out for all nodes")
        places = {f"groups.{group}.members": settings.members or () for group, settings in self.groups.items()}
        for place, members in {**places, "cluster.meta": meta or ()}.items():
            for member in members:
                if member not in self.nodes:
                    known = ", ".join(self.nodes)
                    raise ValueError(f"{place} names {member!r}, which is not one of the nodes: {known}")

    def _check_limits(self) -> None:
        for group, settings in self.groups.items():
            for name, value in settings.limits().items():
                most = getattr(self.cluster.limits, name)
                if value > most:
                    raise ValueError(
                        f"groups.{group}.{name} is {value}; it must be at most cluster.limits.{name}, which is {most}"
                    )

    def definitions(self) -> dict[str, GroupDefinition]:
        """Return the groups of the file, ``default`` first: it is always there."""
        everyone = tuple(self.nodes)
        found = {}
        for name in (DEFAULT, *(group for group in self.groups if group != DEFAULT)):
            settings = self.groups.get(name, GroupSettings())
            limits = {
                limit: value
                for limit, value in settings.limits().items()
                if value != getattr(self.cluster.limits, limit)
            }
            members = everyone if settings.members is None else settings.members
            found[name] = GroupDefinition(name, name, members, members, (), settings.protocol, settings.ack, "", limits)
        return found

    def meta(self) -> tuple[str, ...]:
        """Return the nodes that vote on what groups there are when the cluster begins."""
        return tuple(self.nodes)[:META_VOTERS_MAX] if self.cluster.meta is None else self.cluster.meta
