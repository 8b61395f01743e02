"""Frames that close the link they came on, and the reason that is logged. A table in the docs is made from these rows.

All are sent by a peer whose handshake was in order.
"""

from typing import NamedTuple
from zlib import crc32

import msgpack

from replicad.core.model.limits import FRAME_BYTES_MAX
from replicad.core.model.messages import Accept, Accepted, to_wire
from replicad.node.framing import HEADER, ITEMS_MAX, frame_bytes

GOOD_ITEM = ("default", to_wire(Accepted(1_000_001, 7, gap=False)))


class BadFrame(NamedTuple):
    """``what`` is wrong, in words; the bytes on the wire; a phrase of the reason."""

    what: str
    data: bytes
    phrase: str


def items(*parts: object) -> bytes:
    """Return a frame of these items, each as it is."""
    return frame_bytes(msgpack.packb(parts))


def flipped() -> bytes:
    """Return a good frame with one bit of its payload the other way."""
    data = bytearray(items(GOOD_ITEM))
    data[-3] ^= 1
    return bytes(data)


def deep(levels: int) -> bytes:
    """Return a frame of lists in lists."""
    return frame_bytes(b"\x91" * levels + b"\xc0")


BAD_FRAMES = [
    BadFrame(
        "a length beyond the limit",
        HEADER.pack(FRAME_BYTES_MAX + 1, 0),
        "a frame of 8388609 bytes, longer than the 8388608 allowed here",
    ),
    BadFrame("text of another protocol", b"GET / HTTP/1.1\r\n\r\n", "longer than the 8388608 allowed here"),
    BadFrame("an empty frame", HEADER.pack(0, 0), "an empty frame"),
    BadFrame("a flipped bit", flipped(), "checksum does not match"),
    BadFrame("a wrong checksum", HEADER.pack(1, crc32(b"\x90") ^ 1) + b"\x90", "checksum does not match"),
    BadFrame("bytes that are not msgpack", frame_bytes(b"\xc1" * 8), "not msgpack"),
    BadFrame("msgpack that ends too early", frame_bytes(b"\x92\x01"), "not msgpack"),
    BadFrame("bytes after the msgpack", frame_bytes(b"\x90\x90"), "not msgpack"),
    BadFrame("lists nested without end", deep(100_000), "not msgpack"),
    BadFrame("a list longer than any of ours", frame_bytes(b"\xdd\x00\x01\x00\x01" + b"\xc0" * 65_537), "not msgpack"),
    BadFrame("a map", items({"group": "default"}), "not msgpack"),
    BadFrame("an extension type", items(("default", msgpack.ExtType(5, b"x"))), "not msgpack"),
    BadFrame("text that is not UTF-8", frame_bytes(b"\x91\x92\xa1\xff\x91\x16"), "not msgpack"),
    BadFrame("no list", frame_bytes(b"\x07"), "not a list of items"),
    BadFrame("too many items", items(*[GOOD_ITEM] * (ITEMS_MAX + 1)), f"more than {ITEMS_MAX}"),
    BadFrame("an item that is no pair", items(("default",)), "not a pair of group and message"),
    BadFrame("a group that is not text", items((b"default", GOOD_ITEM[1])), "group is not text"),
    BadFrame("a probe of an unknown kind", items((2, 0)), "group is not text"),
    BadFrame("no message", items(("default", 7)), "a message is a non-empty list"),
    BadFrame("an empty message", items(("default", ())), "a message is a non-empty list"),
    BadFrame("an unknown message number", items(("default", (200, 1))), "unknown message number 200"),
    BadFrame("a message number that is text", items(("default", ("10", 1))), "unknown message number '10'"),
    BadFrame("a field too few", items(("default", (Accepted.number, 1))), "Accepted has 3 fields, not 1"),
    BadFrame("a field too many", items(("default", (Accepted.number, 1, 2, False, 4))), "Accepted has 3 fields, not 4"),
    BadFrame(
        "a field of a wrong type",
        items(("default", (Accepted.number, 1, "2", False))),
        "Accepted: matched is not a non-negative integer",
    ),
    BadFrame(
        "a message number of lists in lists",
        frame_bytes(b"\x91\x92\xa7default\x91" + b"\x91" * 1005 + b"\xc0"),
        "unknown message number tuple",
    ),
    BadFrame(
        "a number beyond 63 bits",
        items(("default", (Accepted.number, 1, 1 << 63, False))),
        "matched is not a non-negative integer of 63 bits",
    ),
    BadFrame(
        "a negative slot", items(("default", (Accepted.number, 1, -2, False))), "matched is not a non-negative integer"
    ),
    BadFrame(
        "an item of a wrong type in a field",
        items(("default", (Accept.number, 1, 1, 1, 0, ("text",), ()))),
        "Accept: values has an item of a wrong type",
    ),
    BadFrame("a bad message after a good one", items(GOOD_ITEM, ("default", (200,))), "unknown message number 200"),
]
