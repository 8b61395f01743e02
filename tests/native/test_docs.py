"""docs/native.md: its conversation is played with a real server, byte by byte, and its table of errors is the code's.

``python -m tests.native.test_docs`` writes the bytes and the table into the page.
"""

import ast
import asyncio
import re
import textwrap
from pathlib import Path

import msgpack

from replicad import __version__
from replicad.client import wire as client_wire
from replicad.core.model.limits import Limits
from replicad.native import wire
from replicad.native.server import NativeServer
from tests.native.fake import NativeNode
from tests.native.raw import framed
from tests.pages import table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "native.md"
BLOCK = re.compile(r"(?s)(?<=## A conversation\n).*?```text\n(.*?)```")
ERRORS = re.compile(r"(?s)(<!-- native errors -->\n).*?(?=\n`addresses` is empty)")


def conversation(text):
    """Return ``(who, line, bytes as the page shows them)`` of each frame."""
    frames = []
    for line in BLOCK.search(text)[1].splitlines():
        if line[:2] in {"C ", "S "}:
            frames.append((line[0], line[2:], []))
        else:
            frames[-1][2].append(line)
    return [(who, line, bytes.fromhex("".join(shown))) for who, line, shown in frames]


def frame_of(line):
    """Return the bytes of a frame as it is written in the page."""
    return framed(ast.literal_eval(line.replace("RELEASE", __version__)))


def shown(line):
    """Return a frame's bytes as the page shows them."""
    return textwrap.fill(framed(ast.literal_eval(line)).hex(" "), 110, initial_indent="  ", subsequent_indent="  ")


def errors_table():
    return table(
        ("Error", "`retry_after_ms`", "Meaning"),
        ((f"`{kind.name}`", kind.retry_after_ms or "-", kind.meaning) for kind in wire.ERRORS),
    )


def filled(text):
    """Return the page with bytes and table made anew."""
    lines = "".join(f"{who} {line}\n{shown(line)}\n" for who, line, _ in conversation(text))
    start, end = BLOCK.search(text).span(1)
    return ERRORS.sub(lambda match: f"{match[1]}\n{errors_table()}", text[:start] + lines + text[end:])


def test_the_page_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text) == text


async def test_the_conversation_takes_place():
    """A server is told the client's frames, and answers with the server's, to the byte."""
    node = NativeNode(limits=Limits())
    node.cluster = "local"
    node.up = {"n2"}
    node.directory.members = {"default": ("n1", "n2", "n3")}
    server = NativeServer(node, "127.0.0.1", 0)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for who, line, _ in conversation(PAGE.read_text(encoding="utf-8")):
        data = frame_of(line)
        if who == "C":
            writer.write(data)
        else:
            async with asyncio.timeout(10):
                found = await reader.readexactly(4)
                found += await reader.readexactly(int.from_bytes(found, "big"))
            assert msgpack.unpackb(found[4:]) == msgpack.unpackb(data[4:])
            assert found == data
    writer.close()
    await server.stop(0.2)


def test_the_clients_frames_are_those_of_the_page():
    for who, line, _ in conversation(PAGE.read_text(encoding="utf-8")):
        if who == "C":
            assert client_wire.pack(ast.literal_eval(line)) == frame_of(line)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
