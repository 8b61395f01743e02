"""What the docs say is what the code does, as far as a machine can tell."""

import re
import shlex
from pathlib import Path

import click
import pytest

from replicad.cli.main import main
from replicad.node.metrics import Metrics
from tests import pages
from tests.setting_meanings import MEANINGS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN_BY_HAND = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("choosing", "operations", "http", "development")),
]
LOGGED = re.compile(
    r"\.(?:info|warning|error|critical|debug|event|complaint)\(\s*\"([a-z_]+)\"(?: if [a-z]+ else \"([a-z_]+)\")?"
)
CHOSEN = re.compile(r"event = \"([a-z_]+)\" if [a-z_]+ else \"([a-z_]+)\"")
BY_THE_SIMULATOR = ROOT / "replicad" / "lab"
FENCED = re.compile(r"```sh\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def ids(path):
    """Name a page in a test's name."""
    return path.name


def code(path):
    """Return a page's shell commands, one a line, remarks cut off."""
    for block in FENCED.findall(path.read_text(encoding="utf-8")):
        for line in block.splitlines():
            yield line.partition("  #")[0].strip()


def anchors(path):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tables_are_up_to_date():
    """Settings, metrics, alerts and errors are those of the code; `python -m tests.pages` writes them."""
    assert pages.stale() == []


def test_every_table_is_in_a_page():
    """Each table that can be made is made somewhere, once."""
    found = [name for path in PAGES for _, name, _ in pages.TABLE.findall(path.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(pages.TABLES)


def test_every_setting_has_a_meaning():
    """No setting is without a sentence, and no sentence without a setting."""
    settings = {f"{name}.{field}" for name, model, _, _ in pages.SETTING_TABLES for field in model.model_fields}
    assert set(MEANINGS) == settings - {"cluster.limits"}


def test_every_setting_is_in_the_sample_files():
    """configs/*.toml show every setting, commented out or not."""
    for path in sorted((ROOT / "configs").glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        missing = [name for name in MEANINGS if not re.search(rf"(?m)^(# )?{name.rpartition('.')[2]} = ", text)]
        assert missing == [], path.name


def test_alerts_use_metrics_that_exist():
    """An alert on a metric that nobody exports would never fire."""
    exported = {name for name, _, _, _ in pages.metrics_of(Metrics("n1", "c", "0"))}
    for alert in pages.alerts():
        used = set(re.findall(r"replicad_\w+", alert["expr"]))
        assert {re.sub(r"_bucket$", "", name) for name in used} <= exported, alert["alert"]
        assert used or "up{" in alert["expr"]


def test_every_event_is_explained():
    """The table of events in the docs names each event that a node can log, and no other."""
    logged = set()
    for path in sorted((ROOT / "replicad").rglob("*.py")):
        if not path.is_relative_to(BY_THE_SIMULATOR) and path.name != "events.py":
            text = path.read_text(encoding="utf-8")
            logged |= {name for found in (*LOGGED.findall(text), *CHOSEN.findall(text)) for name in found if name}
    section = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split("## Events\n")[1].split("\n## ")[0]
    cells = re.findall(r"(?m)^\| (`[^|]*`) \|", section)
    explained = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert explained == logged


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_links_lead_somewhere(path):
    """Every link to a file, and to a heading, has its target."""
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        file = (path.parent / target).resolve() if target else path
        assert file.is_file(), target
        if anchor:
            assert anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("path", WRITTEN_BY_HAND, ids=ids)
def test_commands_exist(path):
    """Every `replicad` command in a page has the subcommand and the options that the page gives it."""
    text = path.read_text(encoding="utf-8")
    inline = [found for found in re.findall(r"`(replicad [a-z][^`]*)`", text) if "…" not in found]
    lines = [line for line in code(path) if line.startswith("replicad ")]
    for line in (*lines, *inline):
        command, words = main, shlex.split(re.split(r"[|>]", line)[0])[1:]
        while isinstance(command, click.Group) and words:
            name = words.pop(0)
            found = command.get_command(click.Context(command), name)
            assert found is not None, line
            command = found
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= options | {"--help"}, line


@pytest.mark.parametrize("path", WRITTEN_BY_HAND, ids=ids)
def test_make_targets_exist(path):
    """Every `make` target in a page is one of the Makefile's."""
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"`make ([a-z]+)", text) + [line.split()[1] for line in code(path) if line.startswith("make ")]
    assert set(used) <= targets
