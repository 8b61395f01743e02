"""The table of bad inputs in the docs is what the tests try, row by row."""

from pathlib import Path

import pytest

from tests import pages
from tests.http.bad_inputs import BAD_INPUTS
from tests.node.bad_files import BAD_FILES
from tests.node.bad_frames import BAD_FRAMES
from tests.node.bad_settings import BAD_SETTINGS

TESTS = Path(__file__).resolve().parent
TRIED = (
    (BAD_INPUTS, "BAD_INPUTS", "http/test_bad_inputs.py"),
    (BAD_SETTINGS, "BAD_SETTINGS", "node/test_settings.py"),
    (BAD_FRAMES, "BAD_FRAMES", "node/test_transport.py"),
    (BAD_FILES, "BAD_FILES", "node/test_bad_files.py"),
)


def test_the_page_is_up_to_date():
    """What is in the docs is what the rows make; `python -m tests.pages` writes it."""
    assert pages.BAD_INPUTS_PAGE.read_text(encoding="utf-8") == pages.bad_inputs_page()


@pytest.mark.parametrize(("rows", "name", "file"), TRIED, ids=[name for _, name, _ in TRIED])
def test_every_row_is_tried_by_a_test(rows, name, file):
    """A test takes the whole list as its parameters, and no two rows share a name."""
    assert f'@pytest.mark.parametrize("row", {name}, ids=lambda row: row.what)' in (TESTS / file).read_text()
    assert len({row.what for row in rows}) == len(rows) >= 8


def test_every_row_is_in_the_page():
    """Each row is one line, under its own heading."""
    lines = pages.BAD_INPUTS_PAGE.read_text(encoding="utf-8").splitlines()
    for rows, _, _ in TRIED:
        for row in rows:
            assert sum(line.startswith(f"| {pages.cell(row.what)} |") for line in lines) >= 1, row.what
