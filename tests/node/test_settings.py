import json
import logging
import re
from dataclasses import fields
from pathlib import Path

import pytest
import structlog

from replicad.core.cluster.definitions import GroupDefinition
from replicad.core.model.limits import Limits
from replicad.node import events
from replicad.node.settings import Address, SettingsError, check, load, parse_address
from replicad.node.settings_models import LimitSettings, NodeSettings, ProcessSettings
from tests.node.bad_settings import BAD_SETTINGS, GOOD

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [ROOT / "configs" / "local.toml", ROOT / "configs" / "compose.toml"]


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize("row", BAD_SETTINGS, ids=lambda row: row.what)
def test_a_bad_file_gets_a_sentence_that_says_where_and_what(row, tmp_path):
    """Every row is refused in one line, which names the file or variable and holds the phrases."""
    path = tmp_path / "cluster.toml"
    path.write_text(row.text)
    with pytest.raises(SettingsError) as refusal:
        load(path, row.node, row.environ)
    sentences = refusal.value.sentences
    assert any(all(phrase in sentence for phrase in row.phrases) for sentence in sentences), sentences
    for sentence in sentences:
        assert "\n" not in sentence
        assert sentence.startswith((str(path), "environment variable"))
        assert "hunter2" not in sentence
        assert "pydantic" not in sentence


def test_a_missing_file_is_a_sentence(tmp_path):
    """A path that leads nowhere says so."""
    with pytest.raises(SettingsError, match="there is no such file"):
        load(tmp_path / "none.toml", "n1", {})


def test_defaults_and_resolution(good):
    """What the file leaves out has defaults; paths are resolved against the file."""
    settings = load(good, "n1", {})
    assert (settings.cluster, settings.node, settings.secret) == ("c", "n1", b"")
    assert settings.limits == Limits()
    assert settings.data == good.parent / "data" / "n1"
    assert settings.peers == {"n2": Address("127.0.0.1", 9002)}
    assert settings.http_addresses == {"n1": Address("127.0.0.1", 8001), "n2": Address("127.0.0.1", 8002)}
    members = ("n1", "n2")
    assert settings.groups == {"default": GroupDefinition("default", "default", members, members)}
    assert settings.meta == members
    assert settings.warnings == ()


def test_groups_of_the_settings(good):
    """A group has its own members, protocol, acknowledgement and limits; the cluster says who votes on all that."""
    text = GOOD.replace('name = "c"', 'name = "c"\nmeta = ["n2"]')
    text += '[groups.orders]\nmembers = ["n2"]\nprotocol = "active"\nack = "one"\nvalue_bytes_max = 1000\n'
    good.write_text(text)
    settings = load(good, "n1", {"REPLICAD_GROUPS_ORDERS_CHECKPOINT_SLOTS": "500"})
    assert settings.meta == ("n2",)
    assert list(settings.groups) == ["default", "orders"]
    orders = settings.groups["orders"]
    assert (orders.id, orders.founders, orders.protocol, orders.ack) == ("orders", ("n2",), "active", "one")
    assert orders.limits == {"checkpoint_slots": 500, "value_bytes_max": 1000}
    assert orders.group_limits(settings.limits) == Limits(checkpoint_slots=500, value_bytes_max=1000)


def test_only_the_first_five_vote_on_groups(good):
    """More voters would make definitions no safer; the others follow."""
    more = "".join(f'[nodes.n{n}]\nhttp_listen = "h{n}:1"\npeer_listen = "h{n}:2"\n' for n in range(3, 9))
    good.write_text(GOOD + more)
    assert load(good, "n8", {}).meta == ("n1", "n2", "n3", "n4", "n5")


def test_every_limit_of_the_core_can_be_set():
    """The settings' limits are the core's, one to one, in milliseconds where the core has microseconds."""
    names = {re.sub(r"_us$", "_ms", field.name) for field in fields(Limits)}
    assert set(LimitSettings.model_fields) == names
    assert LimitSettings(lease_ms=400, page_bytes=1000).limits() == Limits(lease_us=400_000, page_bytes=1000)


def test_variable_names_are_unambiguous():
    """A variable without a table's name means one setting only."""
    assert not set(ProcessSettings.model_fields) & set(NodeSettings.model_fields)


def test_the_environment_wins_over_the_file(good, tmp_path, monkeypatch):
    """Every table can be set by variables; empty ones count as absent."""
    monkeypatch.chdir(tmp_path)
    environ = {
        "REPLICAD_NODE": "n2",
        "REPLICAD_DATA": "elsewhere",
        "REPLICAD_NODES_N2_DATA": "less-specific",
        "REPLICAD_NODES_N1_PEER_ADVERTISE": "host-1:7001",
        "REPLICAD_CLUSTER_NAME": "other",
        "REPLICAD_CLUSTER_LIMITS_LEASE_MS": "500",
        "REPLICAD_GROUPS_DEFAULT_MEMBERS": "n2, n1",
        "REPLICAD_LOG_FORMAT": "json",
        "REPLICAD_LOG_FILE": "false",
        "REPLICAD_LOG_LEVEL": "",
        "PATH": "/bin",
    }
    settings = load(good, None, environ)
    assert settings.node == "n2"
    assert settings.data == tmp_path / "elsewhere"
    assert settings.peers == {"n1": Address("host-1", 7001)}
    assert settings.cluster == "other"
    assert settings.limits.lease_us == 500_000
    assert settings.groups["default"].founders == ("n2", "n1")
    assert (settings.process.log_format, settings.process.log_file, settings.process.log_level) == (
        "json",
        False,
        "info",
    )
    assert settings.warnings == ()


def test_everything_can_come_from_the_environment():
    """A container needs no file."""
    environ = {"REPLICAD_CLUSTER_NAME": "c", "REPLICAD_DATA": "/d", "REPLICAD_NODES_N2_PEER_LISTEN": "h2:9001",
               "REPLICAD_NODES_N2_HTTP_LISTEN": "h2:8001"}  # fmt: skip
    settings = load(None, "n1", environ)
    assert settings.data == Path("/d")
    assert settings.peers == {"n2": Address("h2", 9001)}


def test_an_unknown_variable_is_a_warning(good):
    """Orchestrators set variables that begin like ours, so they are no mistake; a typing error is still seen."""
    warnings = load(good, "n1", {"REPLICAD_PORT": "tcp://10.0.0.1:80", "REPLICAD_ADDR": "x"}).warnings
    assert len(warnings) == 1
    assert "REPLICAD_PORT" in warnings[0]


def test_the_secret_is_read_and_never_shown(good, tmp_path):
    """The secret comes from a file without its line end, and no representation holds it."""
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery\n")
    secret.chmod(0o600)
    settings = load(good, "n1", {"REPLICAD_CLUSTER_SHARED_SECRET_FILE": str(secret)})
    assert settings.secret == b"correct horse battery"
    assert "correct horse" not in repr(settings)
    assert settings.warnings == ()
    secret.chmod(0o644)
    assert "every user" in load(good, "n1", {"REPLICAD_CLUSTER_SHARED_SECRET_FILE": str(secret)}).warnings[0]
    secret.write_text("short\n")
    with pytest.raises(SettingsError, match="at least 16"):
        load(good, "n1", {"REPLICAD_CLUSTER_SHARED_SECRET_FILE": str(secret)})


@pytest.mark.parametrize("listen", ["0.0.0.0:9001", "192.0.2.1:9001", "[::]:9001", "n1.example:9001"])
def test_listening_to_other_machines_without_a_secret_is_a_warning(listen, good):
    """Only loopback is safe without a shared secret."""
    environ = {"REPLICAD_PEER_LISTEN": listen, "REPLICAD_PEER_ADVERTISE": "n1:9001"}
    assert "can pose as a node" in load(good, "n1", environ).warnings[0]


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:65535", "n1.example:9001"])
def test_addresses_survive_a_round_trip(text):
    """What is printed can be read."""
    assert str(parse_address(text)) == text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_files_we_ship_are_right_and_complete(path, tmp_path):
    """They load; with every commented default switched on they mean the same; every setting is in them."""
    for node in ("n1", "n2", "n3"):
        assert len(load(path, node, {}).peers) == 2
    text = path.read_text()
    switched_on = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    full = tmp_path / path.name
    full.write_text(switched_on)
    as_shipped, spelt_out = load(path, "n1", {}), load(full, "n1", {})
    for name in ("limits", "process", "groups", "cluster", "secret"):
        assert getattr(as_shipped, name) == getattr(spelt_out, name)
    for model in (LimitSettings, ProcessSettings, NodeSettings):
        for setting in model.model_fields:
            assert re.search(rf"^{setting} = ", switched_on, re.MULTILINE), setting
    options = text[: text.index("[nodes.n2]")] + text[text.index("[node]") :]
    for option in re.findall(r"^(?:# )?(\w+) = ", options, re.MULTILINE):
        assert re.search(rf"^# [^=]+(\n.*)?\n(# \w+ = .*\n)*(# )?{option} = ", options, re.MULTILINE), option


def test_check_looks_at_all_nodes():
    """`config check` warns of every exposed node, whichever is meant."""
    assert check(CONFIGS[0], {}) == []
    assert len(check(CONFIGS[1], {})) == 3


@pytest.fixture
def restored_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_events_go_to_standard_error_and_a_rotated_file(restored_logging, tmp_path, capsys):
    """Each line is one JSON object in both places; secrets are masked; libraries' lines come along."""
    events.configure(node="n1", level="info", form="json", directory=tmp_path, file_bytes=65_536, files=2)
    log = structlog.get_logger("replicad.test")
    log.info("something", peer="n2", shared_secret=b"hunter2")
    log.debug("too quiet")
    logging.getLogger("library").warning("old style %s", "line")
    lines = [json.loads(line) for line in (tmp_path / "replicad.log").read_text().splitlines()]
    assert all(line.pop("timestamp") for line in lines)
    assert [line["event"] for line in lines] == ["something", "old style line"]
    assert lines[0]["peer"] == "n2"
    assert {line["node"] for line in lines} == {"n1"}
    shown = capsys.readouterr().err
    assert [json.loads(line) | {"timestamp": 0} for line in shown.splitlines()] == [
        line | {"timestamp": 0} for line in lines
    ]
    assert "hunter2" not in shown
    for _ in range(100):
        log.info("x" * 3_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["replicad.log", "replicad.log.1", "replicad.log.2"]
    assert all(path.stat().st_size <= 65_536 for path in tmp_path.iterdir())


def test_a_console_line_is_for_people(restored_logging, capsys):
    """The console form has no braces around it."""
    events.configure(node="n1", form="console")
    structlog.get_logger("replicad.test").warning("something", peer="n2")
    line = capsys.readouterr().err
    assert "something" in line
    assert "peer=n2" in line
