"""``replicad inspect``: what is in a node's files, read without a node and without changing a byte."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replicad.cli import locks
from replicad.cli.commands import CommandGroup
from replicad.cli.output import (
    BAD,
    EXIT_NO,
    EXIT_USAGE,
    GOOD,
    Failure,
    coloured,
    examples,
    print_json,
    print_table,
    printable,
    size_text,
)

if TYPE_CHECKING:
    from replicad.node.identity import Identity

PATH = click.argument("path", type=click.Path(path_type=Path))
VERIFY = click.option("--verify", is_flag=True, help="Read all of it and check what can be checked.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
SHOWN_VALUE_WIDTH = 40


@click.group(
    cls=CommandGroup,
    epilog=examples(
        "replicad inspect wal data/n1 --verify",
        "replicad inspect store data/n1 --prefix users/ --limit 10",
        "replicad inspect checkpoint data/n1",
    ),
)
def inspect() -> None:
    """Show a node's files: message log, store, checkpoints.

    Only reads, whether the node runs or not; while it runs, the answer may be a moment old.

    Exit codes: 0 fine, 1 damaged, 2 there is nothing to read.
    """


@inspect.command(epilog=examples("replicad inspect wal data/n1 --limit 5 --verify"))
@PATH
@VERIFY
@JSON
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Last records shown; 0: all.")
def wal(path: Path, limit: int, *, verify: bool, as_json: bool) -> None:
    """Show the message log in PATH, a node's data directory (or the wal directory in it), record by record.

    With --verify, and while no node runs there, also what the next start goes on from.
    """
    from replicad.core.journal.segments import FormatError
    from replicad.core.model.errors import DamageError
    from replicad.node.inspect import inspect_log

    said = _moment(path)
    try:
        inspection = inspect_log(path, verify=verify, start=verify and not said["node_running"])
        lines = deque(inspection, maxlen=limit or None)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Failure(_sentence(error, path), EXIT_USAGE) from error
    except (DamageError, FormatError) as error:
        raise Failure(str(error), EXIT_NO) from error
    except OSError as error:
        raise Failure(_sentence(error, path), EXIT_USAGE) from error
    verdict = inspection.verdict
    if as_json:
        print_json({**said, "records": [line._asdict() for line in lines], "verdict": asdict(verdict)})
    else:
        _print_moment(said)
        rows = [
            (
                line.segment,
                line.position,
                line.group,
                line.kind,
                "-" if line.slot is None else line.slot,
                line.ballot or "-",
                line.size,
                "decided" if line.decided else "",
            )
            for line in lines
        ]
        print_table(
            ("Segment", "Position", "Group", "Record", "Slot", "Ballot", "Bytes", ""),
            rows,
            right=("Segment", "Position", "Slot", "Bytes"),
        )
        if verdict.records > len(lines):
            click.echo(f"the last {len(lines)} of {verdict.records} records; --limit 0 shows all")
        for name, group in verdict.groups.items():
            click.echo(
                f"group {name}: promised epoch {group.promised}, committed slot {group.committed}, checkpoint slot "
                f"{group.checkpoint_slot}, {group.entries} entries up to slot {group.highest_slot}"
            )
        _print_verdict(verdict.sentence, good=verdict.ok)
        for sentence in verdict.start:
            click.echo(sentence)
    if not verdict.ok:
        raise click.exceptions.Exit(EXIT_NO)


@inspect.command(epilog=examples("replicad inspect store data/n1 --prefix users/ --limit 10 --verify"))
@PATH
@VERIFY
@JSON
@click.option("--prefix", default="", help="Only keys that start with this.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="First keys shown.")
def store(path: Path, prefix: str, limit: int, *, verify: bool, as_json: bool) -> None:
    """Show the store in PATH, a node's data directory (or the store directory in it): where it stands, and its keys."""
    from replicad.core.model.errors import DamageError
    from replicad.node.inspect_store import inspect_store, store_entries, store_groups

    place = path / "store" if (path / "store").is_dir() else path
    said = _moment(path)
    groups: list[dict[str, Any]] = []
    try:
        for name in store_groups(place):
            about = inspect_store(place, name, verify=verify)
            about["configuration"] = _configuration(about["configuration"])
            about["keys"] = [
                {"key": key.decode(), "bytes": len(entry.value), "flags": entry.flags, "modify_index": entry.modify}
                | {"create_index": entry.create, "value": printable(entry.value[:200], SHOWN_VALUE_WIDTH)}
                for key, entry in store_entries(place, name, prefix.encode(), limit)
            ]
            groups.append(about)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise Failure(_sentence(error, path), EXIT_USAGE) from error
    except (DamageError, ValueError) as error:
        raise Failure(f"the store in {place} is damaged: {error}", EXIT_NO) from error
    if as_json:
        print_json({**said, "groups": groups})
    else:
        _print_moment(said)
        for about in groups:
            _print_store(about, verify=verify)
        if not groups:
            click.echo("the store is empty: no group has written to it")
    if any(about.get("damage") for about in groups):
        raise click.exceptions.Exit(EXIT_NO)


def _print_store(about: dict[str, Any], *, verify: bool) -> None:
    keys = about["keys"]
    click.echo(
        f"group {about['group']}: applied slot {about['applied_slot']}, index {about['index']}, digest "
        f"{about['digest']}, {about['entries']} keys, {about['remembered_requests']} remembered requests, "
        f"{size_text(about['file_bytes'])}"
    )
    _print_configuration(about["configuration"])
    if about["loading"]:
        click.echo("a load of a checkpoint was cut short: the node will load it again")
    if keys:
        print_table(
            ("Key", "Created", "Modified", "Flags", "Bytes", "Value"),
            [
                (key["key"], key["create_index"], key["modify_index"], key["flags"], key["bytes"], key["value"])
                for key in keys
            ],
            right=("Created", "Modified", "Flags", "Bytes"),
        )
    if verify:
        _print_verdict(about["damage"] or "the content adds up to the digest", good=not about["damage"])


@inspect.command(epilog=examples("replicad inspect checkpoint data/n1", "replicad inspect checkpoint FILE --verify"))
@PATH
@VERIFY
@JSON
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Newest files shown; 0: all.")
def checkpoint(path: Path, limit: int, *, verify: bool, as_json: bool) -> None:
    """Show the checkpoint files in PATH: a node's data directory, its checkpoints directory, or one file."""
    from replicad.core.model.errors import DamageError
    from replicad.node.inspect_store import checkpoint_paths, inspect_checkpoint

    place = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    said = _moment(path)
    files = [place] if place.is_file() else checkpoint_paths(place)[-limit:]
    if not files:
        raise Failure(f"{path} holds no checkpoint (no *.ckpt)", EXIT_USAGE)
    found: list[dict[str, Any]] = []
    for file in files:
        try:
            about = inspect_checkpoint(file, verify=verify)
        except DamageError as error:
            about = {"file": file.name, "damage": str(error)}
        except FileNotFoundError:
            continue  # a newer one has replaced it meanwhile
        except OSError as error:
            raise Failure(_sentence(error, file), EXIT_USAGE) from error
        if "configuration" in about:
            about["configuration"] = _configuration(about["configuration"])
        found.append(about)
    if as_json:
        print_json({**said, "checkpoints": found})
    else:
        _print_moment(said)
        for about in found:
            _print_checkpoint(about, verify=verify)
    if any(about.get("damage") for about in found):
        raise click.exceptions.Exit(EXIT_NO)


def _print_checkpoint(about: dict[str, Any], *, verify: bool) -> None:
    click.echo(about["file"])
    for name, value in about.items():
        if name in {"file", "damage"}:
            continue
        if name == "configuration":
            _print_configuration(value)
        elif name == "sizes":
            text = ", ".join(f"{size}+ bytes: {count}" for size, count in value.items())
            click.echo(f"  values: {text or 'none'}")
        else:
            shown = value.hex() if isinstance(value, bytes) else value
            click.echo(f"  {name.replace('_', ' ')}: {'not known' if shown == '' else shown}")
    if verify or about.get("damage"):
        damage = about.get("damage")
        _print_verdict(damage or "all of it is good, and adds up to its digest", good=not damage)


def _configuration(data: object) -> dict[str, Any] | None:
    """Return a configuration's content for people; None before its first change."""
    from replicad.core.model.configuration import Configuration

    return asdict(Configuration.decode(data)) if isinstance(data, bytes) and data else None


def _print_configuration(configuration: dict[str, Any] | None) -> None:
    if configuration is None:
        click.echo("  members: the initial ones (no change of members is in this state)")
        return
    members = ", ".join(f"{member['node']} (disk {member['disk']})" for member in configuration["members"])
    click.echo(f"  members, version {configuration['version']}: {members}")
    if configuration["cluster"]:
        click.echo(f"  cluster id {configuration['cluster']}, incarnation {configuration['incarnation']}")


def _moment(path: Path) -> dict[str, Any]:
    """Return whether a node holds the directory's lock; raises Failure if there is no such path."""
    if not path.exists():
        raise Failure(f"there is nothing at {path}", EXIT_USAGE)
    data = locks.owner(path)
    identity = _identity(data) if data is not None else None
    return {
        "path": str(path),
        "node_running": data is not None and locks.running(data),
        "cluster": identity.cluster if identity else "",
        "cluster_id": identity.cluster_id if identity else "",
    }


def _identity(data: Path) -> Identity | None:
    """Return whose directory it is, None if that cannot be told."""
    from replicad.core.model.errors import DamageError
    from replicad.node.identity import DirectoryError, read_identity

    try:
        return read_identity(data / "identity.json")
    except (OSError, DamageError, DirectoryError):
        return None


def _print_moment(said: dict[str, Any]) -> None:
    if said["cluster_id"]:
        click.echo(f"of the cluster {said['cluster']!r}, id {said['cluster_id']}")
    if said["node_running"]:
        click.echo("a node is running on this directory: what follows may be a moment old, and an end of the log that")
        click.echo("looks cut short may be one that is just being written")


def _print_verdict(sentence: str, *, good: bool) -> None:
    click.echo(coloured("good" if good else "DAMAGED", GOOD if good else BAD) + f": {sentence}")


def _sentence(error: OSError, path: Path) -> str:
    """Return our own sentence in an error, or one made from the system's."""
    own = next((text for text in chain(error.args) if isinstance(text, str) and error.errno is None), "")
    return own or f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
