import subprocess
import sys

import click
import pytest

from replicad import __version__
from replicad.cli import nodes
from replicad.cli.main import COMMANDS, main
from replicad.cli.output import printable, size_text, table_text


def all_commands(command=main, path=()):
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from all_commands(command.get_command(context, name), (*path, name))


@pytest.mark.parametrize("path", list(all_commands()), ids=" ".join)
def test_every_help_has_an_example(replicad, path):
    """`--help` of every command ends with something to copy."""
    result = replicad(*path, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"replicad {path[0] if path else ''}" in result.output


def test_the_version(replicad):
    """`--version` says the name and the version."""
    assert replicad("--version").output == f"replicad {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("staus", "did you mean 'status'?"),
        ("xyz", "there is: up, serve"),
        ("drain", "did you mean 'node drain'?"),
        ("show", "did you mean 'group show'?"),
    ],
)
def test_an_unknown_command(replicad, typed, hint):
    """A misspelt command gets a suggestion and exit code 2, one without its group the whole of it."""
    result = replicad(typed)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"replicad: there is no command '{typed}'; {hint}")


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (("group", "shwo"), "'group shwo'; did you mean 'show'?"),
        (("kv", "xyz"), "'kv xyz'; there is: delete, get, list, put"),
    ],
)
def test_an_unknown_command_of_a_group(replicad, typed, hint):
    """The same below the first level."""
    result = replicad(*typed)
    assert (result.exit_code, result.stderr) == (2, f"replicad: there is no command {hint}\n")


def test_a_command_that_takes_long_ends_soon_where_nobody_is(replicad, monkeypatch):
    """The time that a change may take is not spent on finding a node: that is said after some seconds."""
    monkeypatch.setattr(nodes, "FIND_SECONDS", 0.0)
    result = replicad("member", "promote", "n4", "--timeout", "600", addr="127.0.0.1:1")
    assert (result.exit_code, "no node could answer; nothing was done" in result.stderr) == (4, True)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["kv", "get", "--help"], ["kv", "get", "k", "--addr", "127.0.0.1:1"]]
)
def test_what_is_not_needed_is_not_imported(arguments):
    """The list of commands, and a read, start without the heavy libraries."""
    program = f"""
import sys
from replicad.cli import nodes
from replicad.cli.main import main
try:
    main({[*arguments, *(["--timeout", "0.1"] if "k" in arguments else [])]})
except SystemExit:
    pass
print([name for name in ("aiohttp", "asyncio", "pydantic", "rich", "structlog", "lmdb") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_of_the_table_exists():
    """The table of lazy commands names what its modules have."""
    for name in COMMANDS:
        assert main.get_command(click.Context(main), name).name == name


def test_a_table_is_plain_when_piped():
    """Without a terminal a table is aligned text under a header, free of control characters."""
    text = table_text(("Key", "Bytes"), [("a\x1b[31m", 5), ("bcd", 1000)], right=("Bytes",))
    assert text == "key        bytes\na\\x1b[31m      5\nbcd         1000\n"


@pytest.mark.parametrize(
    ("foreign", "shown"), [(b"plain", "plain"), (b"\xff", "\\xff"), ("a\nb", "a\\nb"), ("é", "é"), ("abcdef", "abc…")]
)
def test_foreign_text_is_made_printable(foreign, shown):
    """What comes from outside cannot steer a terminal."""
    assert printable(foreign, 4 if foreign == "abcdef" else 0) == shown


def test_sizes_in_words():
    """Bytes are shown in the unit that fits."""
    assert [size_text(1), size_text(2048), size_text(5 << 40)] == ["1 B", "2.0 KiB", "5.0 TiB"]


def test_a_terminal_that_is_too_narrow_gets_a_block_for_each_row(monkeypatch):
    """Columns that would be folded cannot be read; the last one may be. What is not there has no line."""
    monkeypatch.setattr("replicad.cli.output.on_terminal", lambda: True)
    columns = ("Node", "HTTP", "View", "Missing")
    rows = [("n1", "127.0.0.1:8001", "n1,n2,n3", "drained"), ("n2", "127.0.0.1:8002", "-", "-")]
    monkeypatch.setenv("COLUMNS", "60")
    wide = table_text(columns, rows)
    assert [line for line in wide.splitlines() if "127.0.0.1:8001" in line and "n1,n2,n3" in line and "drained" in line]
    monkeypatch.setenv("COLUMNS", "40")
    assert click.unstyle(table_text(columns, rows)) == (
        "n1\n  HTTP     127.0.0.1:8001\n  View     n1,n2,n3\n  Missing  drained\nn2\n  HTTP     127.0.0.1:8002\n"
    )
