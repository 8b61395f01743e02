"""``replicad kv``: read and write keys from a shell, safely: bytes stay bytes, and a retried write happens once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import click

from replicad.cli import bookmark_file as bookmarks
from replicad.cli.commands import CommandGroup
from replicad.cli.nodes import Address, Answer, addr_option, request
from replicad.cli.output import EXIT_NO, EXIT_UNKNOWN, EXIT_USAGE, Failure, examples, print_json, print_table, printable
from replicad.cli.seconds import Seconds

U64 = click.IntRange(0, 2**64 - 1)
VALUE_BYTES_MAX = 64 << 20
"""More than any node takes: what is longer is not even read."""
SHOWN_VALUE_WIDTH = 40
BAD_BOOKMARK = "bad_bookmark"
"""The error of a request whose bookmark is none (``core/model/errors``)."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@click.group(
    cls=CommandGroup,
    epilog=examples(
        "replicad kv put greeting hello",
        "replicad kv get greeting",
        "replicad kv list --prefix gree",
        "replicad kv put greeting hello --bookmark-file my.session",
        "replicad kv get greeting --stale --bookmark-file my.session",
        "REPLICAD_ADDR=10.0.0.7:8001,10.0.0.8:8001 replicad kv get greeting",
    ),
)
def kv() -> None:
    """Read and write keys.

    Exit codes: 0 done, 1 the key is missing or --cas failed, 2 the request is wrong, 3 the outcome of a write is not
    known, 4 no node could answer (and nothing was done).
    """


def options(*decorators: Decorator) -> Decorator:
    """Return one decorator made of several options, in this order."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


_common = options(
    addr_option,
    click.option(
        "--timeout",
        type=Seconds(0.1, 600),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to go on trying, node after node.",
    ),
    click.option("--ns", default="", metavar="GROUP", help="The group that holds the key.  [default: default]"),
    click.option(
        "--bookmark-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="One session: see what earlier commands with this FILE saw or wrote, at any node.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)
_reading = options(
    click.option("--consistent", is_flag=True, help="Ask a majority, whatever the clocks do."),
    click.option(
        "--stale", is_flag=True, help="Take what the node has, however old; with a bookmark no older than it."
    ),
    click.option("--min-index", type=U64, help="Wait until the node has applied this index."),
)
_writing = options(
    click.option(
        "--ack",
        type=click.Choice(["all", "majority", "one"]),
        default="all",
        show_default=True,
        help="When a write counts as done.",
    ),
    click.option("--cas", type=U64, help="Only if the key's modify index is this (put: 0 means only if absent)."),
    click.option(
        "--idempotency-key",
        metavar="KEY",
        help="Repeat an earlier write: what was done under this key is not done again.",
    ),
)


@kv.command(
    "get",
    epilog=examples("replicad kv get greeting", "replicad kv get photo > photo.jpg", "replicad kv get greeting --json"),
)
@click.argument("key")
@_reading
@_common
def get_key(key: str, *, consistent: bool, stale: bool, min_index: int | None, as_json: bool, **common: Any) -> None:
    """Print the value of KEY, byte for byte."""
    parameters = [*_level(min_index, consistent=consistent, stale=stale), *([] if as_json else ["raw"])]
    answer = _ask("GET", key, parameters, **common)
    if answer.status == 404:
        raise Failure(f"there is no key {printable(key, 60)!r}", EXIT_NO)
    if as_json:
        import json

        print_json(json.loads(answer.body)[0])
        return
    _write_bytes(answer.body)
    if sys.stdout.isatty() and not answer.body.endswith(b"\n"):
        click.echo()


@kv.command(
    "put",
    epilog=examples(
        "replicad kv put greeting hello",
        "replicad kv put photo @photo.jpg",
        "date | replicad kv put now -",
        "replicad kv put leader n7 --cas 0",
    ),
)
@click.argument("key")
@click.argument("value")
@click.option("--flags", "user_flags", type=U64, default=0, help="A number stored with the value, yours to use.")
@_writing
@_common
def put_key(key: str, value: str, user_flags: int, ack: str, cas: int | None, **others: Any) -> None:
    """Write VALUE to KEY. "-" is standard input, @FILE the content of a file."""
    parameters = [*_conditions(ack, cas), *([f"flags={user_flags}"] if user_flags else [])]
    _write("PUT", key, parameters, _value(value), **others)


@kv.command("delete", epilog=examples("replicad kv delete greeting", "replicad kv delete --recurse tmp/"))
@click.argument("key")
@click.option("--recurse", is_flag=True, help="Delete every key that starts with KEY.")
@_writing
@_common
def delete_key(key: str, ack: str, cas: int | None, *, recurse: bool, **others: Any) -> None:
    """Delete KEY; deleting what is not there is no failure."""
    if recurse and cas is not None:
        raise Failure("--recurse and --cas cannot be given together", EXIT_USAGE)
    _write("DELETE", key, [*_conditions(ack, cas), *(["recurse"] if recurse else [])], None, **others)


@kv.command(
    "list",
    epilog=examples(
        "replicad kv list",
        "replicad kv list --prefix services/ --keys-only",
        "replicad kv list --prefix services/ --json",
    ),
)
@click.argument("prefix_argument", metavar="[PREFIX]", default="")
@click.option("--prefix", default="", help="Only keys that start with this.")
@click.option("--keys-only", is_flag=True, help="Print the keys alone, one a line.")
@click.option("--separator", default="", help="With --keys-only: fold what follows this into one line, as folders.")
@_reading
@_common
def list_keys(
    prefix_argument: str,
    prefix: str,
    separator: str,
    *,
    keys_only: bool,
    consistent: bool,
    stale: bool,
    min_index: int | None,
    as_json: bool,
    **common: Any,
) -> None:
    """List the keys with their values, in order, from one consistent state."""
    import json

    if separator and not keys_only:
        raise Failure("--separator means something together with --keys-only", EXIT_USAGE)
    if prefix and prefix_argument:
        raise Failure("give the prefix once", EXIT_USAGE)
    shape = ["keys", *([f"separator={_quoted(separator, safe='')}"] if separator else [])] if keys_only else ["recurse"]
    parameters = [*_level(min_index, consistent=consistent, stale=stale), *shape]
    answer = _ask("GET", prefix or prefix_argument, parameters, **common)
    found = json.loads(answer.body) if answer.status == 200 else []
    if as_json:
        print_json(found)
    elif keys_only:
        for key in found:
            click.echo(printable(key) if sys.stdout.isatty() else key)
    else:
        _print_entries(found)


def _print_entries(entries: list[dict[str, Any]]) -> None:
    from base64 import b64decode

    if not entries:
        if sys.stdout.isatty():
            click.echo("no keys")
        return
    rows = []
    for entry in entries:
        value = b64decode(entry["Value"] or "")
        shown = printable(value[: 4 * SHOWN_VALUE_WIDTH], SHOWN_VALUE_WIDTH)
        rows.append((entry["Key"], entry["ModifyIndex"], entry["Flags"], len(value), shown))
    print_table(("Key", "Index", "Flags", "Bytes", "Value"), rows, right=("Index", "Flags", "Bytes"))


def _ask(
    method: str,
    key: str,
    parameters: list[str],
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    addresses: list[Address],
    timeout: float,
    ns: str,
    bookmark_file: Path | None,
) -> Answer:
    """Send a request for a key, with the bookmark of its session, and keep the bookmark that comes back."""
    fields = dict(headers or {})
    bookmark = bookmarks.read(bookmark_file) if bookmark_file is not None else ""
    if bookmark:
        fields[bookmarks.HEADER] = bookmark
    target = _target(key, [*parameters, *([f"ns={_quoted(ns, safe='')}"] if ns else [])])
    try:
        answer = request(addresses, method, target, body, fields, seconds=timeout)
    except Failure as failure:
        if not bookmark or failure.kind != BAD_BOOKMARK:
            raise
        hint = f"the bookmark is that of the file {printable(str(bookmark_file), 60)!r}: name another one, or remove it"
        raise Failure(f"{failure.message}\n{hint}", EXIT_USAGE) from failure
    moved = answer.headers.get(bookmarks.HEADER.lower(), "")
    if bookmark_file is not None and moved and moved != bookmark:
        bookmarks.write(bookmark_file, moved)
    return answer


def _write(
    method: str,
    key: str,
    parameters: list[str],
    body: bytes | None,
    *,
    idempotency_key: str | None,
    as_json: bool,
    **common: Any,
) -> None:
    """Send a write, through one node after another under one idempotency key, and say what became of it."""
    name = idempotency_key if idempotency_key is not None else os.urandom(16).hex()
    if not (name.isascii() and name.isprintable() and " " not in name and 1 <= len(name) <= 255):
        raise Failure("--idempotency-key must be 1 to 255 visible ASCII characters, no spaces", EXIT_USAGE)
    try:
        answer = _ask(method, key, parameters, body, {"Idempotency-Key": name}, **common)
    except Failure as failure:
        if failure.exit_code == EXIT_UNKNOWN:
            hint = f"to find out, repeat the command soon with --idempotency-key {name}"
            raise Failure(f"{failure.message}\n{hint}", EXIT_UNKNOWN) from failure
        raise
    done = answer.body.strip() == b"true"
    index = int(answer.headers.get("x-replicad-index", "0"))
    if as_json:
        print_json({"done": done, "index": index, "node": answer.headers.get("x-replicad-node", "")})
    elif done:
        click.echo(f"done at index {index}" if index else "done")
    if not done:
        raise Failure(f"nothing was changed: --cas does not fit the state of {printable(key, 60)!r}", EXIT_NO)


def _conditions(ack: str, cas: int | None) -> list[str]:
    if cas is not None and ack != "all":
        raise Failure(f"--ack {ack} answers before the outcome is known, and --cas needs it; use --ack all", EXIT_USAGE)
    return [*([] if ack == "all" else [f"ack={ack}"]), *([] if cas is None else [f"cas={cas}"])]


def _level(min_index: int | None, *, consistent: bool, stale: bool) -> list[str]:
    if consistent and stale:
        raise Failure("--consistent and --stale cannot be given together", EXIT_USAGE)
    level = ["consistent"] if consistent else ["stale"] if stale else []
    return [*level, *([] if min_index is None else [f"min_index={min_index}"])]


def _quoted(text: str, safe: str = "/") -> str:
    """Percent-encode an argument's bytes, also those that are no UTF-8: the node has a sentence for them."""
    return quote_from_bytes(os.fsencode(text), safe=safe)


def _target(key: str, parameters: list[str]) -> str:
    return f"/v1/kv/{_quoted(key)}" + (f"?{'&'.join(parameters)}" if parameters else "")


def _value(argument: str) -> bytes:
    """Return the bytes that the VALUE argument means; raises Failure."""
    if argument == "-":
        value = sys.stdin.buffer.read(VALUE_BYTES_MAX + 1)
    elif argument.startswith("@"):
        try:
            with open(argument[1:], "rb") as file:  # noqa: PTH123 - a path is not needed for anything else
                value = file.read(VALUE_BYTES_MAX + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise Failure(f"the file {printable(argument[1:], 60)!r} cannot be read: {reason}", EXIT_USAGE) from error
    else:
        value = os.fsencode(argument)
    if len(value) > VALUE_BYTES_MAX:
        raise Failure(f"the value is longer than {VALUE_BYTES_MAX} bytes, which no node takes", EXIT_USAGE)
    return value


def _write_bytes(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
