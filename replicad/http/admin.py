"""Every page but the keys: status, checkpoint, metrics, health, and the page at ``/``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import hdrs, web

from replicad import __version__
from replicad.core.model.errors import ERROR_KINDS, RequestError
from replicad.http.datacenter import check_datacenter
from replicad.http.facade import NodeRuntime
from replicad.http.groups import Groups
from replicad.http.pages import CONTENT_SECURITY, front_page
from replicad.http.parameters import PageOptions, page_options, shown
from replicad.http.responses import HTML_TYPE, OUTCOME_DEFINITE, TEXT_TYPE, Common, Prepared
from replicad.node.metrics import CONTENT_TYPE

READS = ("GET", "HEAD", "OPTIONS")

LATER = {
    "/v1/session": "sessions",
    "/v1/txn": "transactions",
    "/v1/watch": "watches",
    "/v1/snapshot": "snapshots",
}
"""Beginnings of paths that the plan knows and this version does not: they get a sentence of their own."""


class Visit(NamedTuple):
    """One request for a page."""

    request: web.BaseRequest
    options: PageOptions
    head: bool
    """Whether only the head of the answer is wanted."""


class Page(NamedTuple):
    """One page: the methods it takes and the function that answers."""

    methods: tuple[str, ...]
    answer: Callable[[Visit], Awaitable[Prepared]]


class Admin:
    """The pages of one node."""

    def __init__(self, runtime: NodeRuntime, common: Common, body_seconds: float) -> None:
        self.runtime = runtime
        self.common = common
        self.groups = Groups(runtime, common, body_seconds)
        self.pages = {
            "/": Page(READS, self.front),
            "/v1/status/leader": Page(READS, self.leader),
            "/v1/status/peers": Page(READS, self.peers),
            "/v1/replicad/status": Page(READS, self.status),
            "/v1/replicad/checkpoint": Page(("POST", "PUT", "OPTIONS"), self.checkpoint),
            "/v1/replicad/drain": Page((*READS, "PUT", "DELETE"), self.drain),
            "/metrics": Page(READS, self.metrics),
            "/livez": Page(READS, self.livez),
            "/readyz": Page(READS, self.readyz),
        }

    async def serve(self, request: web.BaseRequest, method: str, target: str) -> Prepared:
        """Answer one request; ``target`` is the raw path with its query. Raises RequestError."""
        path, _, query = target.partition("?")
        page = self.pages.get(path)
        if page is None:
            answer = await self.groups.serve(request, method, path, query)
            if answer is None:
                raise self.absent(path)
            return answer
        if method not in page.methods:
            raise RequestError("method_not_allowed", f"{path} takes {', '.join(page.methods)}")
        if method == "OPTIONS":
            return self.common.answer(200, TEXT_TYPE, b"", extra=b"Allow: %b\r\n" % self.allowed(target).encode())
        options = page_options(query, path)
        check_datacenter(options.dc, self.runtime.cluster)
        return await page.answer(Visit(request, options, method == "HEAD"))

    def absent(self, path: str) -> RequestError:
        """Return the error of a path that leads nowhere."""
        for start, what in LATER.items():
            if path.startswith(start):
                return RequestError("not_found", f"{shown(path)}: {what} are not built in this version")
        return RequestError("not_found", f"there is no page {shown(path)}; the page at / lists what there is")

    def allowed(self, target: str) -> str:
        """Return the methods of a page as the Allow header gives them."""
        path = target.partition("?")[0]
        page = self.pages.get(path)
        return ", ".join(page.methods) if page is not None else self.groups.allowed(path)

    async def front(self, visit: Visit) -> Prepared:
        """``/``: what this is and where things are."""
        address = visit.request.headers.get(hdrs.HOST, "127.0.0.1")
        html = front_page(self.runtime.name, self.runtime.cluster, __version__, address)
        return self.common.answer(200, HTML_TYPE, html.encode(), head=visit.head, extra=CONTENT_SECURITY)

    async def leader(self, visit: Visit) -> Prepared:
        """``/v1/status/leader``: a JSON string, empty while there is no coordinator."""
        address = self.runtime.group(visit.options.group).coordinator_address()
        return self.common.json(address, pretty=visit.options.pretty, head=visit.head)

    async def peers(self, visit: Visit) -> Prepared:
        """``/v1/status/peers``: a JSON array of addresses."""
        return self.common.json(self.runtime.peer_addresses(), pretty=visit.options.pretty, head=visit.head)

    async def status(self, visit: Visit) -> Prepared:
        """``/v1/replicad/status``."""
        return self.common.json(self.runtime.status(), pretty=visit.options.pretty, head=visit.head)

    async def checkpoint(self, visit: Visit) -> Prepared:
        """``/v1/replicad/checkpoint``: take one now; answers when it is committed."""
        return self.common.json(await self.runtime.group(visit.options.group).checkpoint(), pretty=visit.options.pretty)

    async def drain(self, visit: Visit) -> Prepared:
        """``/v1/replicad/drain``: of this node; PUT drains it, DELETE ends that, GET says what it holds still."""
        administration = self.runtime.administration
        if visit.request.method in READS:
            said = administration.drained()
        else:
            said = await administration.drain(drained=visit.request.method == "PUT")
        return self.common.json(said, pretty=visit.options.pretty, head=visit.head)

    async def metrics(self, visit: Visit) -> Prepared:
        """``/metrics``."""
        body = self.runtime.metrics.render()
        return self.common.answer(200, CONTENT_TYPE.encode(), body, head=visit.head)

    async def livez(self, visit: Visit) -> Prepared:
        """``/livez``: whoever reads the answer knows that the loop turns."""
        return self.common.answer(200, TEXT_TYPE, b"ok\n", head=visit.head)

    async def readyz(self, visit: Visit) -> Prepared:
        """``/readyz``: 200, or 503 with a line for each thing that is missing."""
        missing = self.runtime.readiness()
        if not missing:
            return self.common.answer(200, TEXT_TYPE, b"ok\n", head=visit.head)
        extra = OUTCOME_DEFINITE + b"Retry-After: 1\r\n"
        body = "".join(f"{line}\n" for line in missing).encode()
        answer = self.common.answer(503, TEXT_TYPE, body, head=visit.head, extra=extra)
        answer.outcome = ERROR_KINDS["not_ready"].name
        return answer
