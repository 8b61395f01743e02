"""What a request frame asks: its options, and operations that are not of the plainest form.

Every function here refuses what it does not understand with RequestError and a sentence that names the part.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from replicad.core.model.errors import RequestError
from replicad.core.model.limits import KEY_BYTES_MAX
from replicad.core.model.operations import (
    ACK_ALL,
    ACK_ONE,
    DELETE,
    IDEMPOTENCY_ID_BYTES,
    NO_CAS,
    PUT,
)
from replicad.native.wire import GET, NUMBER_MAX

LEADER, CONSISTENT, STALE = range(3)
"""Levels of reads: linearizable by lease (default), a majority asked, whatever is here."""

NO_ACK = -1
"""The request leaves it to its group when a write is acknowledged."""

OPTIONS = ("level", "max_stale_ms", "seen", "ack")
GROUP_ID_CHARS_MAX = 128


class Options(NamedTuple):
    """The options of one request frame."""

    level: int = LEADER
    max_stale_ms: int = NUMBER_MAX
    """With STALE: a state older than this is not served."""
    seen_group: str = ""
    seen_index: int = 0
    """The state that answers holds at least this operation of the group with this id."""
    ack: int = NO_ACK


class Write(NamedTuple):
    """A checked PUT or DELETE."""

    code: int
    key: bytes
    value: bytes
    flags: int
    cas: int
    idempotency: bytes | None


PLAIN = Options()
PUT_TAIL = (0, None, None)
DELETE_TAIL = (None, None)
"""What follows key and value, or key, where an operation leaves it out."""


def refuse(sentence: str) -> RequestError:
    """Return the error of a malformed request."""
    return RequestError("bad_request", sentence)


def is_number(value: object, most: int = NUMBER_MAX) -> bool:
    """Return whether a value is an integer from 0 to ``most`` (and no boolean)."""
    return type(value) is int and 0 <= value <= most


def parse_options(options: object) -> Options:
    """Return the options of a frame; raises RequestError."""
    if type(options) is not dict:
        raise refuse("the options of a request are a map; send an empty one for none")
    for name in options:
        if name not in OPTIONS:
            raise refuse(f"there is no option {str(name)[:40]!r}; there is: {', '.join(OPTIONS)}")
    level = options.get("level", LEADER)
    max_stale = options.get("max_stale_ms", NUMBER_MAX)
    ack = options.get("ack", NO_ACK)
    seen = options.get("seen", ("", 0))
    if not is_number(level, STALE):
        raise refuse("'level' must be 0 (linearizable), 1 (consistent) or 2 (stale)")
    if not is_number(max_stale):
        raise refuse("'max_stale_ms' must be a whole number of milliseconds from 0 on")
    if level != STALE and max_stale != NUMBER_MAX:
        raise refuse("'max_stale_ms' means something together with level 2 (stale) only")
    if "ack" in options and not is_number(ack, ACK_ONE):
        raise refuse("'ack' must be 0 (all), 1 (majority) or 2 (one)")
    if type(seen) is not tuple or len(seen) != 2 or type(seen[0]) is not str or not is_number(seen[1]):
        raise refuse("'seen' must be an array of a group id and an index, as an answer carried them")
    if len(seen[0]) > GROUP_ID_CHARS_MAX:
        raise refuse(f"the group id in 'seen' is longer than {GROUP_ID_CHARS_MAX} characters")
    return Options(level, max_stale, seen[0], seen[1], ack)


def check_key(key: object) -> bytes:
    """Return a key that a store may hold; raises RequestError."""
    if type(key) is not bytes:
        raise refuse("a key must be binary (msgpack bin), the bytes of its UTF-8")
    if not key:
        raise refuse("the key is empty")
    if len(key) > KEY_BYTES_MAX:
        raise RequestError("too_large", f"the key has {len(key)} bytes; at most {KEY_BYTES_MAX} are allowed")
    if key[0] == 0x2F:
        raise refuse("the key begins with '/': leave out the leading slash")
    try:
        key.decode()
    except UnicodeDecodeError as error:
        raise refuse(f"the key is not UTF-8: byte {error.start + 1} is out of place") from None
    return key


def check_get(operation: tuple[Any, ...]) -> bytes:
    """Return the key of ``[GET, key]``; raises RequestError."""
    if len(operation) != 2:
        raise refuse("a GET is an array of its code and its key")
    return check_key(operation[1])


def check_write(operation: tuple[Any, ...], value_bytes_max: int) -> Write:
    """Return ``[PUT, key, value, flags?, cas?, id?]`` or ``[DELETE, key, cas?, id?]`` in full; raises RequestError."""
    length = len(operation)
    if operation[0] == PUT:
        if not 3 <= length <= 6:
            raise refuse("a PUT is an array of its code, key and value, then flags, cas and id if they are needed")
        _, key, value, flags, cas, identity = operation + PUT_TAIL[length - 3 :]
    else:
        if not 2 <= length <= 4:
            raise refuse("a DELETE is an array of its code and key, then cas and id if they are needed")
        _, key, cas, identity = operation + DELETE_TAIL[length - 2 :]
        value, flags = b"", 0
    key = check_key(key)
    if type(value) is not bytes:
        raise refuse("a value must be binary (msgpack bin)")
    if len(value) > value_bytes_max:
        raise RequestError("too_large", f"the value has {len(value)} bytes; at most {value_bytes_max} are allowed")
    if not is_number(flags):
        raise refuse(f"flags must be a whole number from 0 to {NUMBER_MAX}")
    if cas is not None and not is_number(cas):
        raise refuse(f"cas must be a whole number from 0 to {NUMBER_MAX}, or nil")
    if identity is not None and (type(identity) is not bytes or len(identity) != IDEMPOTENCY_ID_BYTES):
        raise refuse(f"an id must be binary, {IDEMPOTENCY_ID_BYTES} bytes, or nil")
    return Write(operation[0], key, value, flags, NO_CAS if cas is None else cas, identity)


def code_of(operation: object) -> int:
    """Return the code of an operation; raises RequestError."""
    if type(operation) is not tuple or not operation:
        raise refuse("an operation is an array that begins with its code")
    code = operation[0]
    if type(code) is not int or code not in {GET, PUT, DELETE}:
        raise refuse(f"an operation's code must be {GET} (GET), {PUT} (PUT) or {DELETE} (DELETE)")
    return code


def ack_of(write: Write, options: Options, default: int) -> int:
    """Return when a write is acknowledged; raises RequestError for a condition without a result."""
    if write.cas == NO_CAS:
        return options.ack if options.ack != NO_ACK else default
    if options.ack not in {NO_ACK, ACK_ALL}:
        raise refuse("'ack' majority and one answer without a result, and cas needs one; use 0 (all)")
    return ACK_ALL
