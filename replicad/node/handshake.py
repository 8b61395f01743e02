"""How two nodes make sure of each other before any message flows. Pure.

1. The dialing node sends a *hello*: who it is, whom it wants, the protocol versions it speaks, and a nonce.
2. The accepting node compares, and answers with a *welcome* of the same shape, the highest version that both speak,
   and its proof of the shared secret; or with a *refusal*, whose reason both sides log.
3. The dialing node compares and checks the proof, and sends its own *proof* (or a refusal).
4. The accepting node checks it and sends *ready*. From here on frames carry messages, from the dialing node only.

A proof is HMAC-SHA256 over the role and the exact bytes of hello and welcome, so it fits this one conversation, this
direction, these names, this channel and this version. It authenticates the opening of a link; what follows is neither
encrypted nor signed, so the secret keeps strangers and mistakes out, not somebody who sits on the wire.

Hello and welcome are maps whose unknown keys are ignored, so that a later version may say more; what an earlier
one does not say has a default here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, cast

import msgpack

from replicad.core.model.cluster_id import Card, foreign
from replicad.node.framing import FrameError, unpack

CONTROL = "control"
BULK = "bulk"
CHANNELS = (CONTROL, BULK)

NONCE_BYTES = 16
_KEYS_MAX = 32
_TEXT_MAX = 256


class RefusedError(Exception):
    """The two nodes do not belong together; the message says why, in words for both of them."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What each side says of itself. ``wanted`` is the node that the dialing one means to reach.

    ``cluster_id`` and ``empty``: see :class:`~replicad.core.model.cluster_id.Card`.
    """

    cluster: str
    node: str
    wanted: str
    disk: str
    checksum: str
    channel: str
    version_min: int
    version_max: int
    secured: bool
    nonce: bytes
    cluster_id: str = ""
    empty: bool = False

    @property
    def card(self) -> Card:
        """Return what it says of its data."""
        return Card(self.node, self.disk, self.cluster_id, self.empty, self.version_max)

    def pack(self) -> bytes:
        """Return the payload that says so."""
        return cast("bytes", msgpack.packb({"hello": asdict(self)}))


@dataclass(frozen=True, slots=True)
class Terms:
    """What a handshake has settled: the peer, the disk it has, the version to speak, the cluster that it belongs to."""

    node: str
    disk: str
    channel: str
    version: int
    cluster_id: str = ""


def parse(payload: memoryview | bytes) -> tuple[str, Any]:
    """Return ``(kind, content)`` of a handshake payload: hello, proof, ready or refused; raises FrameError."""
    body = unpack(payload, maps=_KEYS_MAX)
    if type(body) is not dict or len(body) != 1:
        raise FrameError("something else than a handshake")
    kind, content = next(iter(body.items()))
    if kind not in {"hello", "proof", "ready", "refused"}:
        raise FrameError("a handshake of an unknown kind")
    if kind == "refused":
        # Who says so has proved nothing, and these words are logged and shown: nothing but text, and none that acts.
        if type(content) is not str:
            raise FrameError("a refusal that is not text")
        content = "".join(character if character.isprintable() else "?" for character in content)
    return kind, content


def parse_hello(content: object) -> Hello:
    """Return the hello in a payload's content; raises FrameError naming the field that is wrong."""
    if not isinstance(content, Mapping):
        raise FrameError("a hello without fields")
    values: dict[str, Any] = {}
    kinds = {"str": str, "int": int, "bool": bool, "bytes": bytes}
    for field in fields(Hello):
        missing = None if field.default is MISSING else field.default
        value = content.get(field.name, missing)
        if type(value) is not kinds[str(field.type)]:
            raise FrameError(f"a hello whose {field.name} is missing or of a wrong type")
        if isinstance(value, str | bytes) and len(value) > _TEXT_MAX:
            raise FrameError(f"a hello whose {field.name} is too long")
        if isinstance(value, str) and not value.isprintable():
            raise FrameError(f"a hello whose {field.name} holds what cannot be printed")
        values[field.name] = value
    if len(values["nonce"]) != NONCE_BYTES:
        raise FrameError(f"a hello whose nonce is not {NONCE_BYTES} bytes")
    return Hello(**values)


def pack_proof(proof: bytes) -> bytes:
    """Return the payload of a proof."""
    return cast("bytes", msgpack.packb({"proof": proof}))


def pack_ready() -> bytes:
    """Return the payload that opens the link."""
    return cast("bytes", msgpack.packb({"ready": True}))


def pack_refused(reason: str) -> bytes:
    """Return the payload of a refusal."""
    return cast("bytes", msgpack.packb({"refused": reason[:1024]}))


def prove(secret: bytes, role: str, hello: bytes, welcome: bytes) -> bytes:
    """Return the proof of ``role`` (dialing or accepting) over both payloads; b"" when there is no secret."""
    if not secret:
        return b""
    text = b"".join(len(part).to_bytes(4, "big") + part for part in (role.encode(), hello, welcome))
    return hmac.digest(secret, b"replicad peer\x00" + text, hashlib.sha256)


def check_proof(expected: bytes, given: object) -> None:
    """Raise RefusedError unless the peer knows the secret."""
    if type(given) is not bytes or not hmac.compare_digest(expected, given):
        raise RefusedError("the shared secret differs between the two nodes")


def compare(ours: Hello, theirs: Hello, names_disk: Callable[[str, str], bool] = lambda _node, _disk: False) -> Terms:
    """Return the terms of a link between the two; raises RefusedError, whose words both nodes will log.

    ``names_disk``: see :func:`~replicad.core.model.cluster_id.foreign`.
    """

    def differ(what: str, there: object, here: object) -> str:
        return f"{what} {there} at {theirs.node} and {here} at {ours.node}"

    if theirs.cluster != ours.cluster:
        raise RefusedError(differ("cluster is", repr(theirs.cluster), repr(ours.cluster)))
    why = foreign(ours.card, theirs.card, names_disk)
    if why:
        raise RefusedError(why)
    version = min(ours.version_max, theirs.version_max)
    if version < max(ours.version_min, theirs.version_min):
        there, here = (f"{side.version_min} to {side.version_max}" for side in (theirs, ours))
        raise RefusedError(differ("peer protocol versions are", there, here) + "; upgrade one release at a time")
    if theirs.secured != ours.secured:
        there, here = ("set" if side.secured else "not set" for side in (theirs, ours))
        raise RefusedError(differ("cluster.shared_secret_file is", there, here))
    if theirs.checksum != ours.checksum:
        there, here = theirs.checksum, ours.checksum
        raise RefusedError(
            differ("checksum of the protocol's constants is", there, here)
            + "; compare [cluster.limits] and the releases of both"
        )
    if theirs.channel != ours.channel:
        raise RefusedError(differ("channel is", repr(theirs.channel), repr(ours.channel)))
    return Terms(theirs.node, theirs.disk, theirs.channel, version, theirs.cluster_id)
