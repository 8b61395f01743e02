"""``/v1/kv/<key>``: reads and writes of entries, the path that must be fast.

A read that the local store may answer, and a write whose body has arrived with its head, cost no task, no timer and no
lookup of a label here. Everything rare is in functions of its own.
"""

from __future__ import annotations

import asyncio
import json
from binascii import b2a_base64
from collections.abc import Coroutine
from uuid import UUID

from aiohttp import web
from multidict import istr

from replicad.core.kv.entries import NO_SESSION, Entry
from replicad.core.model.errors import RequestError
from replicad.core.model.operations import (
    ACK_ALL,
    DELETE,
    DELETE_PREFIX,
    EXPIRED,
    MISMATCH,
    MORE,
    PUT,
    REFUSED,
    Result,
)
from replicad.http import bookmarks, listing
from replicad.http.body import read_body, too_large
from replicad.http.bookmarks import HEADER, LINE, Bookmark
from replicad.http.datacenter import check_datacenter
from replicad.http.facade import GroupRuntime, NodeRuntime
from replicad.http.forwarding import find_group
from replicad.http.parameters import (
    CONSISTENT,
    GROUPS_ACK,
    KEYS,
    LEADER,
    RAW,
    RECURSE,
    STALE,
    ReadOptions,
    check_idempotency_key,
    decode_key,
    delete_options,
    idempotency_id,
    put_options,
    read_options,
)
from replicad.http.responses import (
    LEVELS,
    OUTCOME_DEFINITE,
    READ_LINES,
    SESSION_LINE,
    STATE_LINES,
    Common,
    Prepared,
    json_string,
)

METHODS = "GET, HEAD, PUT, DELETE, OPTIONS"

IDEMPOTENCY_KEY = istr("Idempotency-Key")

FOUND = (
    b"HTTP/1.1 200 OK\r\n%bContent-Type: application/json\r\n" + READ_LINES + b"Content-Length: %d\r\n\r\n"
)  # common lines, index, known leader, age, level, bookmark lines, length
FOUND_RAW = (
    b"HTTP/1.1 200 OK\r\n%bContent-Type: text/plain\r\nX-Content-Type-Options: nosniff\r\n"
    b"Content-Security-Policy: sandbox\r\n" + READ_LINES + b"Content-Length: %d\r\n\r\n"
)
MISSING = b"HTTP/1.1 404 Not Found\r\n%b" + OUTCOME_DEFINITE + b"%bContent-Length: 0\r\n\r\n"
WRITTEN = b"HTTP/1.1 200 OK\r\n%bContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
INDEX_LINE = b"X-Replicad-Index: %d\r\n%b"
ENTRY = b'{"LockIndex":%d,"Key":%b,"Flags":%d,"Value":%b,"CreateIndex":%d,"ModifyIndex":%d%b}'

KNOWN = (b"false", b"true")
UNKNOWN_AGE_MS = 2**31 - 1

Parts = tuple[int, bytes, bytes, str]
"""A complete answer: status, head, body, and its outcome for the metrics."""

Served = tuple[int, int, "Bookmark | None"]
"""How a read was served: the level that it has, the age of the state in ms, the bookmark that it brought."""

PART_DELAYS = (0.05, 0.2, 0.5)
"""Seconds to wait before trying the next part of a recursive delete again when a queue is full."""


def entry_json(key: bytes, entry: Entry) -> bytes:
    """Return an entry as one JSON object in Consul's shape; an empty value is null."""
    create, modify, lock, flags, session, _, value = entry
    text = b'"%b"' % b2a_base64(value, newline=False) if value else b"null"
    owner = b"" if session == NO_SESSION else b',"Session":"%b"' % str(UUID(bytes=session)).encode()
    return ENTRY % (lock, json_string(key.decode()), flags, text, create, modify, owner)


class KeyValue:
    """The requests of ``/v1/kv/``, over one node's runtime."""

    def __init__(self, runtime: NodeRuntime, common: Common, body_seconds: float, bounds: listing.Bounds) -> None:
        self.runtime = runtime
        self.cluster = runtime.cluster
        self.common = common
        self.body_seconds = body_seconds
        self.bounds = bounds

    def serve(
        self, request: web.BaseRequest, method: str, target: str
    ) -> Coroutine[None, None, Prepared | listing.Streamed]:
        """Return the coroutine that answers one request; ``target`` is what follows ``/v1/kv/`` in the raw path.

        It raises RequestError, and so does this.
        """
        raw_key, _, query = target.partition("?")
        if method == "GET":
            return self.read(request, raw_key, query)
        if method == "PUT":
            return self.put(request, raw_key, query)
        if method == "DELETE":
            return self.delete(request, raw_key, query)
        if method == "HEAD":
            return self.read(request, raw_key, query, head=True)
        if method == "OPTIONS":
            return self.options()
        raise RequestError("method_not_allowed", f"/v1/kv takes {METHODS}")

    async def options(self) -> Prepared:
        """OPTIONS."""
        return self.common.answer(200, b"text/plain", b"", extra=b"Allow: %b\r\n" % METHODS.encode())

    async def read(
        self, request: web.BaseRequest, raw_key: str, query: str, *, head: bool = False
    ) -> Prepared | listing.Streamed:
        """GET and HEAD."""
        options = read_options(query)
        shape = options.shape
        key = decode_key(raw_key, prefix=shape >= RECURSE)
        if options.dc:
            check_datacenter(options.dc, self.cluster)
        group = find_group(self.runtime, options.group)
        headers = request.headers
        bookmark = bookmarks.brought(headers, group.id) if HEADER in headers else None
        try:
            level = LEADER
            age = 0
            if options.consistency != LEADER or options.min_index or bookmark is not None or not group.read_ready():
                level, age = await self.reach(group, options, bookmark)
            if shape >= RECURSE:
                return await self.read_many(request, group, key, options, (level, age, bookmark), head=head)
            entry = group.read(key)
        except RequestError as error:
            return self.unread(request, group, options, error)
        return Prepared(*self.found(group, entry, key, options, (level, age, bookmark), head=head))

    def found(
        self,
        group: GroupRuntime,
        entry: Entry | None,
        key: bytes,
        options: ReadOptions,
        served: Served,
        *,
        head: bool = False,
    ) -> Parts:
        """Return the answer to a read of one key, which may be missing."""
        level, age, bookmark = served
        known = KNOWN[group.has_coordinator()]
        if bookmark is None and level != STALE:
            session = LINE % (group.id.encode(), group.index)
        else:
            session = self.session_lines(group, options, level, bookmark)
        if entry is None:
            about = READ_LINES % (group.index or 1, known, age, LEVELS[level], session)
            return 404, MISSING % (self.common.lines, about), b"", "missing"
        if options.shape == RAW:
            body, template = entry.value, FOUND_RAW
        else:
            body, template = b"[%b]" % entry_json(key, entry), FOUND
            if options.pretty:
                body = json.dumps(json.loads(body), indent=4).encode() + b"\n"
        start = template % (self.common.lines, entry.modify, known, age, LEVELS[level], session, len(body))
        return 200, start, b"" if head else body, "ok"

    async def reach(self, group: GroupRuntime, options: ReadOptions, bookmark: Bookmark | None) -> tuple[int, int]:
        """Wait until the state here is what the read asks for; returns the level that it has, and its age in ms."""
        index = options.min_index
        if bookmark is not None:
            index = max(index, bookmark.index(group.id))
        level = options.consistency
        if level == STALE:
            age = group.staleness_ms()
            if age <= options.max_stale_ms and group.index < index:
                await group.reach(index)
                age = group.staleness_ms()
            if age <= options.max_stale_ms:
                return STALE, age
            level = LEADER
        if level == CONSISTENT or not group.read_ready():
            await group.read_barrier(consistent=level == CONSISTENT)
        if group.index < index:
            await group.reach(index)
        return level, 0

    def session_lines(self, group: GroupRuntime, options: ReadOptions, level: int, bookmark: Bookmark | None) -> bytes:
        """Return what an answer to a read tells its session: what it has now seen."""
        lines = bookmarks.line(bookmark, group.id, group.index)
        if level == STALE and (bookmark is not None or options.min_index):
            return lines + SESSION_LINE
        return lines

    def unread(
        self, request: web.BaseRequest, group: GroupRuntime, options: ReadOptions, error: RequestError
    ) -> Prepared:
        """Return the answer to a read that failed: what it was, and in what state this replica is."""
        return self.common.error(request, error, extra=self.state_lines(group, options))

    def state_lines(self, group: GroupRuntime, options: ReadOptions) -> bytes:
        """Return the header lines of a read that failed: in what state this replica is."""
        level = options.consistency
        try:
            age = group.staleness_ms()
        except RequestError:
            age = UNKNOWN_AGE_MS
        if level == STALE and age > options.max_stale_ms:
            level = LEADER
        return STATE_LINES % (KNOWN[group.has_coordinator()], age, LEVELS[level])

    async def read_many(
        self,
        request: web.BaseRequest,
        group: GroupRuntime,
        prefix: bytes,
        options: ReadOptions,
        served: Served,
        *,
        head: bool,
    ) -> Prepared | listing.Streamed:
        """``?recurse`` and ``?keys``. The index is taken before the read transaction, so it promises no more."""
        level, age, bookmark = served
        session = self.session_lines(group, options, level, bookmark)
        lines = READ_LINES % (group.index or 1, KNOWN[group.has_coordinator()], age, LEVELS[level], session)
        with group.listing() as source:
            if options.shape == KEYS:
                items = listing.key_names(source, prefix, options.separator)
            else:
                items = (entry_json(key, entry) for key, entry in source.scan(prefix))
            answer = await listing.send_array(
                request, self.common, lines, items, self.bounds, head=head, pretty=options.pretty
            )
        if answer is not None:
            return answer
        if options.shape == KEYS and not prefix:
            return self.common.answer(200, b"application/json", b"[]", head=head, extra=lines)
        return Prepared(404, MISSING % (self.common.lines, lines), b"", "missing")

    async def put(self, request: web.BaseRequest, raw_key: str, query: str) -> Prepared:
        """PUT: the body is the value. ``true``, or ``false`` when its condition failed."""
        options = put_options(query)
        key = decode_key(raw_key)
        if options.dc:
            check_datacenter(options.dc, self.cluster)
        group = find_group(self.runtime, options.group)
        identity = self.identity(request)
        headers = request.headers
        bookmark = bookmarks.brought(headers, group.id) if HEADER in headers else None
        content = request.content
        if content.is_eof():
            value = content.read_nowait()
            if len(value) > group.limits.value_bytes_max:
                raise too_large(group.limits.value_bytes_max)
        else:
            value = await read_body(request, group.limits.value_bytes_max, self.body_seconds)
        if bookmark is not None:
            await self.follow(group, bookmark)
        ack = options.ack if options.ack != GROUPS_ACK else group.default_ack
        result = await group.write(
            PUT,
            key,
            value,
            options.flags,
            options.cas,
            ack,
            None if identity is None else idempotency_id(identity),
        )
        return Prepared(*self.written(group, result, ack, bookmark))

    async def delete(self, request: web.BaseRequest, raw_key: str, query: str) -> Prepared:
        """DELETE of one key, or of all that start with it. ``true`` also when there was nothing."""
        options = delete_options(query)
        key = decode_key(raw_key, prefix=options.recurse)
        if options.dc:
            check_datacenter(options.dc, self.cluster)
        group = find_group(self.runtime, options.group)
        identity = self.identity(request)
        headers = request.headers
        bookmark = bookmarks.brought(headers, group.id) if HEADER in headers else None
        if bookmark is not None:
            await self.follow(group, bookmark)
        if options.recurse:
            return Prepared(*self.written(group, await self.delete_prefix(group, key, identity), ACK_ALL, bookmark))
        request_id = None if identity is None else idempotency_id(identity)
        ack = options.ack if options.ack != GROUPS_ACK else group.default_ack
        result = await group.write(DELETE, key, b"", 0, options.cas, ack, request_id)
        return Prepared(*self.written(group, result, ack, bookmark))

    async def follow(self, group: GroupRuntime, bookmark: Bookmark) -> None:
        """Wait until this contact has applied what the session has seen: its write comes after that."""
        index = bookmark.index(group.id)
        if group.index < index:
            await group.reach(index)

    async def delete_prefix(self, group: GroupRuntime, prefix: bytes, identity: str | None) -> Result:
        """Delete in parts until nothing is left; other operations may come between two parts."""
        part = 0
        while True:
            request_id = None if identity is None else idempotency_id(identity, part)
            try:
                result = await self.delete_part(group, prefix, request_id)
            except RequestError as error:
                if not part:
                    raise
                sentence = f"some keys are deleted, and then: {error.message}; repeat the request to delete the rest"
                raise RequestError("unknown_outcome", sentence) from error
            if result.status != MORE:
                return result
            part += 1

    async def delete_part(self, group: GroupRuntime, prefix: bytes, request_id: bytes | None) -> Result:
        """Delete one part, patiently: with half of the keys gone, a full queue is no reason to give up at once."""
        for delay in PART_DELAYS:
            try:
                return self.checked(await group.write(DELETE_PREFIX, prefix, idempotency=request_id))
            except RequestError as error:
                if error.kind.name != "overloaded":
                    raise
            await asyncio.sleep(delay)
        return self.checked(await group.write(DELETE_PREFIX, prefix, idempotency=request_id))

    def identity(self, request: web.BaseRequest) -> str | None:
        """Return the request's Idempotency-Key."""
        headers = request.headers
        if IDEMPOTENCY_KEY not in headers:
            return None
        return check_idempotency_key(headers.getall(IDEMPOTENCY_KEY))

    def checked(self, result: Result) -> Result:
        """Return a result that means what it says; raises RequestError for the statuses that are errors."""
        if result.status == MISMATCH:
            raise RequestError("key_reused")
        if result.status == EXPIRED:
            raise RequestError("expired")
        return result

    def written(self, group: GroupRuntime, result: Result, ack: int, bookmark: Bookmark | None) -> Parts:
        """Return the answer to a write; an index only where the level promises one, also if it is known already."""
        status, index = result
        if status in {MISMATCH, EXPIRED}:
            self.checked(result)
        lines = b""
        if index and ack == ACK_ALL:
            lines = INDEX_LINE % (index, bookmarks.line(bookmark, group.id, index))
        if status == REFUSED:
            return 200, WRITTEN % (self.common.lines, lines, 5), b"false", "refused"
        return 200, WRITTEN % (self.common.lines, lines, 4), b"true", "ok"
