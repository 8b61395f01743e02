"""Consul's ``?dc=``: a cluster here is one datacenter, and no other can be reached through it."""

from __future__ import annotations

from replicad.core.model.errors import ErrorKind, RequestError

UNKNOWN_DATACENTER = ErrorKind("unknown_dc", 500, True, 0, "?dc= names another cluster")


def check_datacenter(dc: str, cluster: str) -> None:
    """Refuse a ``dc`` that is not this cluster's name (with 500, as Consul does)."""
    if dc and dc != cluster:
        error = RequestError("bad_request", f"No path to datacenter: ?dc= may name this cluster, {cluster!r}, only")
        error.kind = UNKNOWN_DATACENTER
        raise error
