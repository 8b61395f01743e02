"""What a request asks: the key in its raw path, the parameters of its query, its idempotency key.

Every function here refuses what it does not understand with RequestError and a sentence that names the part.

A key is taken from the *raw* path and percent-decoded exactly once, so that no two keys share a spelling and no key is
out of reach: ``%ff`` is refused (no UTF-8), ``%25ff`` is the three characters ``%ff``. A key that is too long gets 413,
as a value does.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from replicad.core.cluster.definitions import ACKS, DEFAULT, RESERVED
from replicad.core.model.errors import RequestError
from replicad.core.model.limits import KEY_BYTES_MAX
from replicad.core.model.operations import ACK_ALL, IDEMPOTENCY_ID_BYTES, NO_CAS

U64_MAX = 2**64 - 1
IDEMPOTENCY_KEY_MAX = 255

LEADER, CONSISTENT, STALE = range(3)
"""Consistency of a read: the leader lease (default), a majority asked, whatever is here."""

ONE, RAW, RECURSE, KEYS = range(4)
"""Shape of a read: one entry, its bytes, all entries under a prefix, their names."""

GROUPS_ACK = -1
"""The request leaves it to its group when a write is acknowledged."""

COMMON = frozenset({"dc", "ns", "pretty", "token"})
"""Taken by every page. ``token`` is accepted for Consul's clients and means nothing: there is no access control yet."""
READ = COMMON | {"consistent", "keys", "max_stale", "min_index", "raw", "recurse", "separator", "seperator", "stale"}
PUT = COMMON | {"ack", "cas", "flags"}
DELETE = COMMON | {"ack", "cas", "recurse"}
LATER = {
    "acquire": "sessions and locks are",
    "release": "sessions and locks are",
    "index": "blocking queries are",
    "wait": "blocking queries are",
}
"""Consul's and our own parameters that are not built yet: refused, because ignoring them would break a promise."""

BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
NUMBER = re.compile(r"[0-9]{1,20}")
ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
VISIBLE_ASCII = re.compile(r"[!-~]{1,255}")
DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ns|us|µs|ms|s|m|h))+")
DURATION_PART = re.compile(r"([0-9.]+)([a-zµ]+)")
UNIT_MS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}


class ReadOptions(NamedTuple):
    """The query of a GET or HEAD of ``/v1/kv``."""

    group: str
    dc: str
    pretty: bool
    shape: int
    consistency: int
    max_stale_ms: float
    """With STALE: a state older than this is not served; infinity without ``max_stale``."""
    separator: bytes
    min_index: int
    """The state that answers holds at least this operation."""


class WriteOptions(NamedTuple):
    """The query of a PUT or DELETE of ``/v1/kv``."""

    group: str
    dc: str
    flags: int
    cas: int
    ack: int
    recurse: bool


class PageOptions(NamedTuple):
    """The query of any other page."""

    group: str
    dc: str
    pretty: bool


def refuse(sentence: str) -> RequestError:
    """Return the error of a malformed request."""
    return RequestError("bad_request", sentence)


def shown(text: str) -> str:
    """Return foreign text as it may stand in a sentence: quoted, printable, short."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")


def unescape(raw: str, what: str) -> bytes:
    """Return percent-encoded UTF-8 decoded once, strictly; ``what`` names the part in the sentence of a refusal."""
    if raw.isascii() and "%" not in raw:
        return raw.encode()
    if match := BAD_ESCAPE.search(raw):
        escape = shown(raw[match.start() : match.start() + 3])
        raise refuse(
            f"{what} has a bad percent escape, {escape}: two hexadecimal digits must follow a '%' (or write %25)"
        )
    data = unquote_to_bytes(raw.encode("utf-8", "surrogateescape"))
    try:
        data.decode()
    except UnicodeDecodeError as error:
        where = f"byte {error.start + 1} (0x{data[error.start]:02x})"
        raise refuse(f"{what} is not UTF-8: {where} is out of place") from None
    return data


def origin_form(target: str) -> str:
    """Return the raw path and query of a request as origin servers mostly see it: a proxy's absolute form is cut."""
    if target.startswith("/"):
        return target
    return "/" if target == "*" else ABSOLUTE.sub("", target, count=1) or "/"


def decode_key(raw: str, *, prefix: bool = False) -> bytes:
    """Return the key in the raw path after ``/v1/kv/``. Only a ``prefix`` may be empty."""
    if "#" in raw:
        raise refuse("the key holds a bare '#': write it as %23")
    key = unescape(raw, "the key")
    if len(key) > KEY_BYTES_MAX:
        raise RequestError("too_large", f"the key has {len(key)} bytes; at most {KEY_BYTES_MAX} are allowed")
    if not key:
        if not prefix:
            raise refuse("the key is missing: name it after /v1/kv/")
    elif key[0] == 0x2F:
        raise refuse("the key begins with '/': leave out the leading slash")
    return key


def parse_query(raw: str) -> dict[str, str]:
    """Return the parameters of a raw query string (no leading ``?``); each name once."""
    parameters: dict[str, str] = {}
    for part in raw.split("&"):
        if not part:
            continue
        raw_name, _, raw_value = part.partition("=")
        name = unescape(raw_name.replace("+", " "), "a parameter's name").decode()
        if name in parameters:
            raise refuse(f"the parameter {shown(name)} is given twice")
        parameters[name] = unescape(raw_value.replace("+", " "), f"the parameter {shown(name)}").decode()
    return parameters


def check_names(parameters: dict[str, str], known: frozenset[str], page: str) -> None:
    """Refuse unknown parameters: a misspelt one must not be taken for its absence."""
    for name in parameters:
        if name in known:
            continue
        if name in LATER:
            raise refuse(f"the parameter '{name}' is not supported yet: {LATER[name]} not built in this version")
        near = difflib.get_close_matches(name[:40], sorted(known), 1)
        hint = f"did you mean '{near[0]}'?" if near else f"it knows {', '.join(sorted(known))}"
        raise refuse(f"{page} has no parameter {shown(name)}; {hint}")


def flag(parameters: dict[str, str], name: str) -> bool:
    """Return whether a bare parameter (``?raw``, also ``?raw=1`` and ``?raw=true``) is given."""
    value = parameters.get(name)
    if value is None:
        return False
    if value not in {"", "1", "true"}:
        raise refuse(f"'{name}' is {shown(value)}: give it without a value, or leave it out to switch it off")
    return True


def number(parameters: dict[str, str], name: str, default: int) -> int:
    """Return an unsigned 64-bit parameter."""
    text = parameters.get(name)
    if text is None:
        return default
    if NUMBER.fullmatch(text) is None or int(text) > U64_MAX:
        raise refuse(f"'{name}' is {shown(text)}: it must be a whole number from 0 to {U64_MAX}")
    return int(text)


def duration_ms(parameters: dict[str, str], name: str) -> float:
    """Return a duration in Go's notation (``10s``, ``1m30s``, ``20ms``) in milliseconds; infinity when absent."""
    text = parameters.get(name)
    if text is None:
        return float("inf")
    if DURATION.fullmatch(text) is None:
        raise refuse(f"'{name}' is {shown(text)}: it must be a duration such as 20ms, 10s or 1m30s")
    return sum(float(digits) * UNIT_MS[unit] for digits, unit in DURATION_PART.findall(text))


def group_name(parameters: dict[str, str]) -> str:
    """Return the group that ``ns`` names."""
    name = parameters.get("ns", DEFAULT)
    if not name:
        raise refuse("'ns' is empty: name a group, or leave it out for the default one")
    return name


def at_most_one(parameters: dict[str, str], names: tuple[str, ...]) -> None:
    """Refuse parameters that contradict each other."""
    given = [name for name in names if name in parameters]
    if len(given) > 1:
        raise refuse(f"Conflicting flags: '{given[0]}' and '{given[1]}' cannot be given together")


@lru_cache(maxsize=256)
def read_options(query: str) -> ReadOptions:
    """Return what the query of a GET or HEAD asks. The few spellings that clients use are remembered."""
    parameters = parse_query(query)
    check_names(parameters, READ, "GET /v1/kv")
    at_most_one(parameters, ("stale", "consistent"))
    at_most_one(parameters, ("max_stale", "consistent"))
    at_most_one(parameters, ("raw", "recurse", "keys"))
    at_most_one(parameters, ("separator", "seperator"))
    shape = ONE
    for name, value in (("raw", RAW), ("recurse", RECURSE), ("keys", KEYS)):
        if flag(parameters, name):
            shape = value
    separator = parameters.get("separator", parameters.get("seperator"))
    if separator is not None and shape != KEYS:
        raise refuse("'separator' means something together with 'keys' only")
    consistency = LEADER
    if flag(parameters, "consistent"):
        consistency = CONSISTENT
    elif flag(parameters, "stale") or "max_stale" in parameters:
        consistency = STALE
    return ReadOptions(
        group_name(parameters),
        parameters.get("dc", ""),
        flag(parameters, "pretty"),
        shape,
        consistency,
        duration_ms(parameters, "max_stale"),
        (separator or "").encode(),
        number(parameters, "min_index", 0),
    )


@lru_cache(maxsize=256)
def put_options(query: str) -> WriteOptions:
    """Return what the query of a PUT asks."""
    parameters = parse_query(query)
    at_most_one(parameters, ("cas", "acquire", "release"))
    check_names(parameters, PUT, "PUT /v1/kv")
    return write_options(parameters)


@lru_cache(maxsize=256)
def delete_options(query: str) -> WriteOptions:
    """Return what the query of a DELETE asks."""
    parameters = parse_query(query)
    check_names(parameters, DELETE, "DELETE /v1/kv")
    at_most_one(parameters, ("recurse", "cas"))
    return write_options(parameters)


def write_options(parameters: dict[str, str]) -> WriteOptions:
    """Return what PUT and DELETE have in common."""
    flag(parameters, "pretty")
    recurse = flag(parameters, "recurse")
    cas = number(parameters, "cas", NO_CAS)
    level = parameters.get("ack")
    if level is not None and level not in ACKS:
        raise refuse(f"'ack' is {shown(level)}: it must be all, majority or one")
    conditional = cas != NO_CAS or recurse
    ack = ACKS[level] if level is not None else ACK_ALL if conditional else GROUPS_ACK
    if conditional and ack != ACK_ALL:
        other = "cas" if cas != NO_CAS else "recurse"
        raise refuse(f"Conflicting flags: 'ack={level}' answers without a result, and '{other}' needs one; use ack=all")
    group = group_name(parameters)
    if group.startswith(RESERVED):
        raise refuse(
            f"the group {shown(group)} is the cluster's own: it can be read; /v1/replicad/groups changes groups"
        )
    return WriteOptions(group, parameters.get("dc", ""), number(parameters, "flags", 0), cas, ack, recurse)


@lru_cache(maxsize=64)
def page_options(query: str, page: str) -> PageOptions:
    """Return what the query of any other page asks."""
    parameters = parse_query(query)
    check_names(parameters, COMMON, page)
    return PageOptions(group_name(parameters), parameters.get("dc", ""), flag(parameters, "pretty"))


def check_idempotency_key(keys: list[str]) -> str:
    """Return the one valid Idempotency-Key among the headers of that name."""
    if len(keys) > 1:
        raise refuse("the header Idempotency-Key is given twice")
    if VISIBLE_ASCII.fullmatch(keys[0]) is None:
        raise refuse(
            f"the header Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters, no spaces"
        )
    return keys[0]


def idempotency_id(key: str, part: int = 0) -> bytes:
    """Return the request id of an idempotency key: its hash and nothing else.

    A recursive delete is several operations: each ``part`` after the first is salted with its number, so that a retry
    meets the first result of every part.
    """
    salt = part.to_bytes(16, "big") if part else b""
    return hashlib.blake2b(key.encode(), digest_size=IDEMPOTENCY_ID_BYTES, salt=salt).digest()
