"""The tables of the docs that are made from the code, so that they cannot drift from it.

    python -m tests.pages            write them
    python -m tests.pages --check    say which page is not up to date (exit code 1)

``docs/bad_inputs.md`` is made as a whole. In other pages a table stands between ``<!-- table: NAME -->`` and
``<!-- end -->``, and everything around it is written by hand. ``tests/test_docs_inputs.py`` and ``tests/test_docs.py``
check that the pages are up to date.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from replicad.core.model.errors import ERROR_KINDS
from replicad.node.metrics import Metrics
from replicad.node.settings_models import (
    ClusterSettings,
    GroupSettings,
    LimitSettings,
    NodeSettings,
    ProcessSettings,
)
from tests.http.bad_inputs import BAD_INPUTS
from tests.node.bad_files import BAD_FILES, FETCHED, GOES_ON, REBUILT, REFUSED, SET_ASIDE
from tests.node.bad_frames import BAD_FRAMES
from tests.node.bad_settings import BAD_SETTINGS
from tests.setting_meanings import MEANINGS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BAD_INPUTS_PAGE = DOCS / "bad_inputs.md"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

OUTCOMES = {
    REFUSED: "The node says why and ends with exit code 2; not a byte is changed",
    SET_ASIDE: "All data moves to `DIR/damaged`; new disk id; the group re-admits it",
    REBUILT: "The store is made again from checkpoint and message log; same disk id",
    FETCHED: "The state is fetched from the others; disk id and promises stay",
    GOES_ON: "It is put right, and the node goes on",
}

SETTING_TABLES = (
    (
        "cluster",
        ClusterSettings,
        "REPLICAD_CLUSTER_",
        "Equal on all nodes. Change it with all nodes down; the name never changes once there is data.",
    ),
    (
        "cluster.limits",
        LimitSettings,
        "REPLICAD_CLUSTER_LIMITS_",
        "Constants of the protocol. Equal on all nodes, compared by checksum when two nodes connect.",
    ),
    (
        "nodes.NAME",
        NodeSettings,
        "REPLICAD_",
        "One table for each node. `REPLICAD_NODES_NAME_…` sets those of any node.",
    ),
    ("groups.NAME", GroupSettings, "REPLICAD_GROUPS_NAME_", "The groups that a cluster begins with."),
    ("node", ProcessSettings, "REPLICAD_", "This process alone; nodes may differ."),
)


def cell(text: object) -> str:
    """Return text as it may stand in a table's cell."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def code(text: str) -> str:
    """Return text as code, also if it holds a backtick."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join('---' for _ in columns)}|"]
    lines += [f"| {' | '.join(cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


# --- settings -----------------------------------------------------------------------------------------------------


def bounds(field: FieldInfo) -> str:
    """Return the bounds of a number in words, "" if there are none."""
    words = []
    for limit in field.metadata:
        if isinstance(limit, Ge):
            words.append(f"at least {limit.ge}")
        elif isinstance(limit, Gt):
            words.append(f"above {limit.gt}")
        elif isinstance(limit, Le):
            words.append(f"at most {limit.le}")
    return ", ".join(words)


def default(field: FieldInfo) -> str:
    """Return a default as it would stand in the file."""
    if field.is_required():
        return "(required)"
    value = field.default
    if value is None:
        return "(absent)"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def settings_table() -> str:
    """Return the tables of all settings."""
    parts = []
    for name, model, prefix, about in SETTING_TABLES:
        rows = []
        for setting, field in model.model_fields.items():
            if (name, setting) == ("cluster", "limits"):
                continue
            meaning, bound = MEANINGS[f"{name}.{setting}"], bounds(field)
            rows.append(
                (
                    f"`{setting}`",
                    default(field),
                    f"{meaning} ({bound})" if bound else meaning,
                    f"`{prefix}{setting.upper()}`",
                )
            )
        parts.append(f"### `[{name}]`\n\n{about}\n\n" + table(("Setting", "Default", "Meaning", "Variable"), rows))
    return "\n".join(parts)


# --- metrics, alerts, errors --------------------------------------------------------------------------------------


def metrics_of(metrics: Metrics) -> list[tuple[str, str, tuple[str, ...], str]]:
    """Return ``(name, type, labels, help)`` of replicad's own metrics."""
    found = []
    for collector, names in metrics.registry._collector_to_names.items():
        labels = getattr(collector, "labelnames", getattr(collector, "_labelnames", None))
        if labels is None or not any(name.startswith("replicad_") for name in names):
            continue
        (family,) = collector.describe() if not labels else collector.collect()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found.append((name, family.type, tuple(labels), family.documentation))
    return found


def metrics_table() -> str:
    """Return the table of metrics."""
    rows = (
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), text)
        for name, kind, labels, text in metrics_of(Metrics("n1", "c", "0"))
    )
    return table(("Metric", "Type", "Labels", "Meaning"), rows)


def alerts() -> list[dict[str, str]]:
    """Return the alerts of configs/alerts.yml: alert, severity, summary, action, expr."""
    text = (ROOT / "configs" / "alerts.yml").read_text(encoding="utf-8")
    found = []
    for block in re.split(r"(?m)^ +- alert: ", text)[1:]:
        alert = {"alert": block.split("\n", 1)[0].strip()}
        for field, pattern in (
            ("severity", r"severity: (\w+)"),
            ("summary", r'summary: "(.*)"'),
            ("action", r'action: "(.*)"'),
            ("expr", r"(?s)expr: (.*?)\n +(?:for|labels):"),
        ):
            match = re.search(pattern, block)
            assert match, f"alert {alert['alert']} has no {field}"
            alert[field] = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"(\1)", match[1])
        found.append(alert)
    return found


def alerts_table() -> str:
    """Return the table of alerts."""
    rows = ((f"`{alert['alert']}`", alert["severity"], alert["summary"], alert["action"]) for alert in alerts())
    return table(("Alert", "Severity", "It says", "What to do"), rows)


def errors_table() -> str:
    """Return the table of errors."""
    rows = (
        (
            f"`{kind.name}`",
            kind.status,
            "definite" if kind.definite else "**indefinite**",
            f"{-(-kind.retry_after_ms // 1000)} s" if kind.retry_after_ms else "-",
            kind.retry_after_ms or "-",
            kind.meaning,
        )
        for kind in ERROR_KINDS.values()
    )
    return table(("Error", "Status", "Outcome", "`Retry-After`", "`retry_after_ms`", "Meaning"), rows)


# --- bad inputs ---------------------------------------------------------------------------------------------------


def request_of(row) -> str:
    """Return a bad request as it stands in the table: method, path, what is special about head or body."""
    path = row.path if len(row.path) <= 48 else f"{row.path[:32]}… ({len(row.path)} characters)"
    headers = "; ".join(
        f"{name}: {value if len(value) <= 24 else value[:12] + '…'}" for name, value in row.headers.items()
    )
    return code(f"{row.method} {path}") + (f" with {code(headers)}" if headers else "")


def bad_inputs_page() -> str:
    """Return the whole of docs/bad_inputs.md."""
    http = (
        (row.what, request_of(row), row.status, code(row.phrase) if row.phrase else "-", row.gets) for row in BAD_INPUTS
    )
    settings = ((row.what, " … ".join(code(phrase) for phrase in row.phrases)) for row in BAD_SETTINGS)
    frames = ((row.what, code(row.phrase)) for row in BAD_FRAMES)
    files = (
        (row.what, OUTCOMES[row.outcome], code(row.phrase) if row.phrase else "-", row.gets or "-") for row in BAD_FILES
    )
    count = len(BAD_INPUTS) + len(BAD_SETTINGS) + len(BAD_FRAMES) + len(BAD_FILES)
    return f"""# Bad inputs, and what each gets

Made by `python -m tests.pages` from the rows of `tests/http/bad_inputs.py`, `tests/node/bad_settings.py`,
`tests/node/bad_frames.py` and `tests/node/bad_files.py`: {count} rows. Each row is a test.

## Requests

All are answered in plain text, in a sentence that holds the words shown, with `X-Replicad-Outcome: definite`: nothing
was done. With `Accept: application/json` the same sentence comes in `{{"error": …}}`. The server goes on.

{table(("What is wrong", "Request", "Status", "The sentence says", "Note"), http)}
## Settings

The node does not start (exit code 2), and `replicad config check FILE` fails (exit code 1). For each mistake there is
one line, which names the file and the setting, or the environment variable.

{table(("What is wrong", "The sentence says"), settings)}
## Frames between nodes

The link they came on is closed, the reason is logged (`peer_left`; by the sender `peer_link_closed`), and nothing else
is harmed: other links, other nodes and the group go on, and the sender dials again.

{table(("What is wrong", "The reason says"), frames)}
## Data directories

What a starting node does about each. What was set aside stays in `DIR/damaged` until something else is.

{table(("What happened", "What the node does", "It says", "Note"), files)}"""


# --- writing ------------------------------------------------------------------------------------------------------

TABLES = {
    "settings": settings_table,
    "metrics": metrics_table,
    "alerts": alerts_table,
    "errors": errors_table,
}


def filled(text: str) -> str:
    """Return a page with every table in it made anew."""
    return TABLE.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}", text)


def pages() -> dict[Path, str]:
    """Return what every page with tables should hold."""
    made = {path: filled(path.read_text(encoding="utf-8")) for path in sorted(DOCS.glob("*.md"))}
    return {**made, BAD_INPUTS_PAGE: bad_inputs_page()}


def stale() -> list[str]:
    """Return the names of the pages that are not up to date."""
    return [
        path.name for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """Write, or check."""
    if "--check" in sys.argv[1:]:
        for name in stale():
            print(f"docs/{name} is not up to date: python -m tests.pages")
        return 1 if stale() else 0
    DOCS.mkdir(exist_ok=True)
    for name in stale():
        path = DOCS / name
        path.write_text(pages()[path], encoding="utf-8")
        print(f"wrote docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
