"""Whoever reads a message may type the command in it: it exists, with the options that the message gives it.

Messages are the strings of the source, f-strings with a word in each gap. Docstrings count: `--help` prints some.
"""

import ast
import re
from pathlib import Path

import click

from replicad.cli.main import main

SOURCE = Path(__file__).resolve().parents[2] / "replicad"
GAP = "X"
COMMAND = re.compile(r"\breplicad ((?:[A-Za-z0-9_.:,/=-]+ ?|'[^']*' ?)+)")
PROSE = {"and", "answers", "command.", "process", "processX", "reads", "that", "wrote"}
"""Words that follow the name of the program where no command is meant."""
HTTP_ONLY = re.compile(r"\?(?:force|stale|consistent|ns|cas|recurse|timeout)\b|\b(?:PUT|POST|DELETE) /")

REQUEST = re.compile(r"[^ ]*\?[^ ]*$")
"""The target of a request that a command makes, or the end of one."""


def strings(path):
    """Yield the strings of a file, each with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def docstrings(path):
    """Return the docstrings of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.body[0].value.value for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node)}


def below(command, name):
    """Return the command of a group by its name, or None."""
    return command.get_command(click.Context(command), name.rstrip(".,;:)"))


def problem(words):
    """Return what is wrong with the words after the program's name ("": they are a command, as far as one can see)."""
    command, rest = main, list(words)
    if rest[0].startswith("--") or rest[0] in {GAP, *PROSE}:
        return ""
    while isinstance(command, click.Group) and rest:
        name = rest.pop(0)
        found = below(command, name)
        if found is None:
            return f"{command.name} has no command {name!r}"
        ended, command = name[-1] in ".,;:)", found
        if ended:
            return ""
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        option = re.match(r"--[a-z-]+", word)
        if option and option[0] not in options | {"--help"}:
            return f"{command.name} has no option {option[0]}"
    return ""


def test_commands_that_messages_name_exist():
    """Commands, subcommands and options are those of the parser."""
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}: {' '.join(words)}: {why}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, text in strings(path)
        for words in (found.split() for found in COMMAND.findall(text))
        if (why := problem(words))
    ]
    assert wrong == []


def test_the_words_are_looked_at():
    """A misspelt command, subcommand or option is found; prose and placeholders pass."""
    bad = ["recoverr --node n1", "member ad n4", "member add n4 --pear X", "doctor --fix"]
    good = ["member add X --peer X --http X", "recover there", "member forget X.", "--version", "and its data"]
    assert [words for words in bad if not problem(words.split())] == []
    assert [words for words in good if problem(words.split())] == []


def test_messages_do_not_name_what_only_http_has():
    """The command line shows what nodes say: a parameter or method of HTTP in it helps nobody there."""
    wrong = []
    for room in ("core", "node", "cli"):
        for path in sorted((SOURCE / room).rglob("*.py")):
            about = docstrings(path)
            for line, text in strings(path):
                if text not in about and HTTP_ONLY.search(text) and not REQUEST.match(text):
                    wrong.append(f"{path.relative_to(SOURCE)}:{line}: {text}")
    assert wrong == []
