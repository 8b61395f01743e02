"""The protocol's page names everything that the protocol has."""

import re
from pathlib import Path

import pytest

from replicad.core.group.state import Role
from replicad.core.journal.records import Record
from replicad.core.model.messages import BULK, MESSAGES

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")

COUNTS = {"E": 5, "A": 2, "T": 5, "C": 5, "L": 4, "V": 3, "R": 2, "M": 6, "D": 2, "K": 3, "P": 1, "S": 1}
RULES = [f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)]

FILE = re.compile(r"`((?:core|node|http|lab|cli)/[\w/]+\.py)`")
PLACES = re.compile(r"`((?:core|node|http)/[\w/]+\.py)`((?:,? `\w+`)*)")


def rows(first_cell):
    """Return the cells of every table row that begins with this cell."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells for cells in found if re.fullmatch(rf"{re.escape(first_cell)}(?: ●)?", cells[0])]


def test_the_rules_are_all_named():
    """The page names each of the 39 rules."""
    assert len(RULES) == 39
    assert [rule for rule in RULES if f"**{rule}**" not in PAGE] == []


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_has_a_row_with_its_place(rule):
    """Each has one row that names a file in which it is kept."""
    (row,) = rows(f"**{rule}**")
    assert FILE.search(row[1])
    assert row[2]


@pytest.mark.parametrize("kind", MESSAGES.values(), ids=lambda kind: kind.__name__)
def test_a_message_has_a_row_with_its_true_channel(kind):
    """The message table names every message once, on the channel that the transport gives it."""
    (row,) = rows(f"`{kind.__name__}`")
    assert len(row) == 6
    assert row[3] == ("bulk" if kind in BULK else "control")
    assert row[4] in {"at once", "flush"}


def test_every_role_and_record_is_described():
    """The transition table knows every role, and the format table every record."""
    assert [role for role in Role if f"| {role} |" not in PAGE] == []
    assert [kind.__name__ for kind in Record.__args__ if f"`{kind.__name__}`" not in PAGE] == []


def test_files_and_functions_that_the_page_names_exist():
    """A place that moved must move on the page, too."""
    missing = [path for path in FILE.findall(PAGE) if not (ROOT / "replicad" / path).is_file()]
    for path, names in PLACES.findall(PAGE):
        source = (ROOT / "replicad" / path).read_text(encoding="utf-8") if path not in missing else ""
        wanted = re.findall(r"`(\w+)`", names)
        missing += [f"{path} {name}" for name in wanted if not re.search(rf"\b(?:def|class) {name}\b", source)]
    assert missing == []
