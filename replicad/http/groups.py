"""The pages of groups and nodes: ``/v1/replicad/groups…`` and ``/v1/replicad/nodes…``."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, NamedTuple, Self

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from replicad.core.cluster.definitions import LIMITS, RESERVED, GroupDefinition, NodeEntry
from replicad.core.model.errors import RequestError
from replicad.http.body import read_body
from replicad.http.datacenter import check_datacenter
from replicad.http.facade import NodeRuntime
from replicad.http.forwarding import find_group
from replicad.http.parameters import COMMON, check_names, duration_ms, flag, parse_query, refuse, shown, unescape
from replicad.http.responses import TEXT_TYPE, Common, Prepared
from replicad.node.group_runtime import GroupRuntime
from replicad.node.settings_models import NAME, Advertise, Name, Positive
from replicad.node.settings_sentences import expectation, shown_value

GROUPS = "/v1/replicad/groups"
NODES = "/v1/replicad/nodes"
READS = ("GET", "HEAD")
WAITING = COMMON | {"timeout"}
BODY_BYTES_MAX = 65_536
TIMEOUT_MS = 60_000.0
FORWARD_SPARE_SECONDS = 3.0
"""How much longer a request may take that another node answers."""
TIMEOUT_MS_MAX = 600_000.0


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("it is empty; name at least one node")
    if len(set(names)) != len(names):
        raise ValueError("it names a node twice")
    return names


def _given(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


Names = Annotated[tuple[Name, ...], Field(strict=False), AfterValidator(_names)]
Address = Annotated[Advertise, AfterValidator(_given)]


class LimitsBody(_Body):
    """Constants that a group makes smaller for itself."""

    checkpoint_slots: Positive | None = None
    checkpoint_bytes: Positive | None = None
    value_bytes_max: Positive | None = None


class GroupBody(_Body):
    """What PUT /v1/replicad/groups/NAME creates; ``members`` absent: all nodes."""

    members: Names | None = None
    protocol: Literal["remote-write", "active"] = "remote-write"
    ack: Literal["all", "majority", "one"] = "all"
    preferred: Name | Literal[""] = ""
    limits: LimitsBody = LimitsBody()


class ProtocolBody(_Body):
    """The protocol that a group should have."""

    protocol: Literal["remote-write", "active"]


class PrimaryBody(_Body):
    """The node that should be the coordinator."""

    node: Name


class MemberBody(_Body):
    """One change of a group's members."""

    action: Literal["add", "remove", "promote", "demote", "replace"]
    node: Name
    with_: Annotated[Name | None, Field(alias="with")] = None
    as_: Annotated[Literal["mirror", "voter"], Field(alias="as")] = "voter"

    @model_validator(mode="after")
    def _fits_the_action(self) -> Self:
        if (self.action == "replace") != (self.with_ is not None):
            raise ValueError('"with" names the node that takes the place: it belongs to "replace", and to nothing else')
        if self.with_ == self.node:
            raise ValueError('"with" is the same node')
        if self.as_ == "mirror" and self.action != "add":
            raise ValueError('"as" belongs to "add"')
        return self


class NodeBody(_Body):
    """Where a node is found, both as ``host:port``."""

    peer: Address
    http: Address


class Asked(NamedTuple):
    """One request: its method, the names in its path, its query, its body (None: it has none)."""

    request: web.BaseRequest
    method: str
    name: str
    parameters: dict[str, str]
    seconds: float
    """How long it may take."""
    body: bytes


Answer = Callable[[Asked], Awaitable[object]]


class Route(NamedTuple):
    """One kind of path: which it is, and what answers each method, with the parameters that it knows."""

    pattern: re.Pattern[str]
    methods: dict[str, tuple[Answer, frozenset[str]]]


class Groups:
    """The pages of one node."""

    def __init__(self, runtime: NodeRuntime, common: Common, body_seconds: float) -> None:
        self.runtime = runtime
        self.common = common
        self.body_seconds = body_seconds
        self.changing: tuple[Answer, ...] = (self.protocol, self.primary, self.members, self.list_members)
        """What only a node that has the group can answer."""
        name = "(?P<name>[^/]*)"
        self.routes = (
            Route(re.compile(GROUPS), {"GET": (self.list_groups, COMMON)}),
            Route(
                re.compile(f"{GROUPS}/{name}"),
                {
                    "GET": (self.group, COMMON),
                    "PUT": (self.create, WAITING),
                    "DELETE": (self.drop, COMMON | {"force"}),
                },
            ),
            Route(re.compile(f"{GROUPS}/{name}/protocol"), {"POST": (self.protocol, WAITING)}),
            Route(re.compile(f"{GROUPS}/{name}/primary"), {"POST": (self.primary, WAITING)}),
            Route(
                re.compile(f"{GROUPS}/{name}/members"),
                {"GET": (self.list_members, COMMON), "POST": (self.members, WAITING)},
            ),
            Route(re.compile(NODES), {"GET": (self.list_nodes, COMMON)}),
            Route(
                re.compile(f"{NODES}/{name}"), {"PUT": (self.put_node, COMMON), "DELETE": (self.delete_node, WAITING)}
            ),
        )

    def find(self, path: str) -> tuple[Route, str] | None:
        """Return the route of a path and the name in it, None if it is not one of these pages."""
        for route in self.routes:
            match = route.pattern.fullmatch(path)
            if match is not None:
                return route, match.groupdict().get("name", "")
        return None

    def allowed(self, path: str) -> str:
        """Return the methods of a page as the Allow header gives them, "" if it is not one of these."""
        found = self.find(path)
        if found is None:
            return ""
        methods = found[0].methods
        return ", ".join([*methods, *(("HEAD",) if "GET" in methods else ()), "OPTIONS"])

    async def serve(self, request: web.BaseRequest, method: str, path: str, query: str) -> Prepared | None:
        """Answer one request, None if the path is not one of these. Raises RequestError and ElsewhereError."""
        found = self.find(path)
        if found is None:
            return None
        route, raw_name = found
        if method == "OPTIONS":
            return self.common.answer(200, TEXT_TYPE, b"", extra=b"Allow: %b\r\n" % self.allowed(path).encode())
        head = method == "HEAD"
        chosen = route.methods.get("GET" if head else method)
        if chosen is None:
            raise RequestError("method_not_allowed", f"{path} takes {self.allowed(path)}")
        answer, known = chosen
        parameters = parse_query(query)
        check_names(parameters, known, f"{method} {path}")
        check_datacenter(parameters.get("dc", ""), self.runtime.cluster)
        name = unescape(raw_name, "the name").decode()
        if raw_name and not NAME.fullmatch(name.removeprefix(RESERVED)):
            raise refuse(
                f"the name {shown(name)} cannot be: a name is 1 to 63 letters, digits and hyphens, and does not start "
                "with a hyphen"
            )
        if "name" in route.pattern.groupindex and not raw_name:
            raise refuse("the name is missing in the path")
        seconds = patience(parameters)
        if answer in self.changing:
            self._open(name, seconds + FORWARD_SPARE_SECONDS)  # others read the body themselves
        body = await read_body(request, BODY_BYTES_MAX, self.body_seconds) if method in {"PUT", "POST"} else b""
        said = await answer(Asked(request, method, name, parameters, seconds, body))
        return self.common.json(said, pretty=flag(parameters, "pretty"), head=head)

    # --- groups -----------------------------------------------------------------------------------------------------

    async def list_groups(self, _: Asked) -> object:
        """GET /v1/replicad/groups."""
        return self.runtime.administration.groups()

    async def group(self, asked: Asked) -> object:
        """GET /v1/replicad/groups/NAME."""
        return self.runtime.administration.describe(asked.name)

    async def create(self, asked: Asked) -> object:
        """PUT /v1/replicad/groups/NAME."""
        if asked.name.startswith(RESERVED):
            raise refuse(f"the name {shown(asked.name)} cannot be: names that begin with '_' are the cluster's own")
        body = parse(GroupBody, asked.body or b"{}")
        members = body.members or self.runtime.administration.everyone()
        limits = {name: value for name in LIMITS if (value := getattr(body.limits, name)) is not None}
        wish = GroupDefinition.new(
            asked.name,
            secrets.token_hex(4),
            members,
            protocol=body.protocol,
            ack=body.ack,
            preferred=body.preferred,
            limits=limits,
        )
        return await self.runtime.administration.create(wish, asked.seconds)

    async def drop(self, asked: Asked) -> object:
        """DELETE /v1/replicad/groups/NAME."""
        return await self.runtime.administration.drop(asked.name, force=flag(asked.parameters, "force"))

    async def protocol(self, asked: Asked) -> object:
        """POST /v1/replicad/groups/NAME/protocol."""
        body = parse(ProtocolBody, asked.body)
        group = self._open(asked.name)
        return await self.runtime.administration.set_protocol(group, body.protocol, asked.seconds)

    async def primary(self, asked: Asked) -> object:
        """POST /v1/replicad/groups/NAME/primary."""
        body = parse(PrimaryBody, asked.body)
        return await self.runtime.administration.move_primary(self._open(asked.name), body.node, asked.seconds)

    async def members(self, asked: Asked) -> object:
        """POST /v1/replicad/groups/NAME/members."""
        body = parse(MemberBody, asked.body)
        return await self.runtime.administration.change_members(
            self._open(asked.name),
            body.action,
            body.node,
            body.with_ or "",
            asked.seconds,
            mirror=body.as_ == "mirror",
        )

    async def list_members(self, asked: Asked) -> object:
        """GET /v1/replicad/groups/NAME/members."""
        members = self._open(asked.name).status()["members"]
        if not members:  # every group has some: an empty list would be a wrong answer
            raise RequestError("not_ready", f"this node has not heard yet who the members of {asked.name!r} are")
        return members

    def _open(self, name: str, timeout_s: float = 0.0) -> GroupRuntime:
        """Return a group of this node; others are asked for it otherwise (ElsewhereError)."""
        group = self.runtime.administration.node.groups.get(name)
        if group is None:
            find_group(self.runtime, name, timeout_s)
            raise RequestError("not_ready", f"group {name!r} is being opened here; try again")
        return group

    # --- nodes ------------------------------------------------------------------------------------------------------

    async def list_nodes(self, _: Asked) -> object:
        """GET /v1/replicad/nodes."""
        return self.runtime.administration.nodes()

    async def put_node(self, asked: Asked) -> object:
        """PUT /v1/replicad/nodes/NAME."""
        body = parse(NodeBody, asked.body)
        return await self.runtime.administration.put_node(asked.name, NodeEntry(body.peer, body.http))

    async def delete_node(self, asked: Asked) -> object:
        """DELETE /v1/replicad/nodes/NAME."""
        return await self.runtime.administration.remove_node(asked.name, asked.seconds)


def patience(parameters: dict[str, str]) -> float:
    """Return the seconds that ``timeout`` allows, or a minute."""
    milliseconds = duration_ms(parameters, "timeout")
    if milliseconds == float("inf"):
        return TIMEOUT_MS / 1000
    if not 0 < milliseconds <= TIMEOUT_MS_MAX:
        raise refuse(f"'timeout' is {shown(parameters['timeout'])}: it must be more than 0 and at most 10m")
    return milliseconds / 1000


def parse(model: type[Any], body: bytes) -> Any:
    """Return a body as its model; raises RequestError with a sentence for each field that is wrong."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise refuse(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise refuse('the body must be a JSON object, for example {"members": ["n1", "n2", "n3"]}')
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refuse("; ".join(_sentence(model, detail) for detail in error.errors(include_url=False))) from None


def _sentence(model: type[BaseModel], detail: Any) -> str:
    field = ".".join(
        str(part) for part in detail["loc"] if isinstance(part, str) and not part.startswith("constrained")
    )
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        holder: Any = model
        inside = ""
        for part in detail["loc"][:-1]:
            holder, inside = holder.model_fields[part].annotation, f" of {shown(part)}"
        known = ", ".join(field.alias or name for name, field in holder.model_fields.items())
        return f"there is no field {shown(field)}; the fields{inside} are {known}"
    if kind == "missing":
        return f"the field {shown(field)} is missing"
    if kind == "value_error":
        reason = str(context.get("error", detail["msg"]))
        return f"the field {field}{shown_value(detail['input'])}: {reason}" if field else reason
    return f"the field {field}{shown_value(detail['input'])}: {expectation(kind, context, detail['msg'])}"
