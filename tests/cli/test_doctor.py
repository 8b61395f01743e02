import json

import pytest

from replicad.cli import machine_checks
from replicad.cli.findings import Findings
from replicad.node.settings import load

CONFIG = """
[cluster]
name = "c"
[nodes.n1]
http_listen = "127.0.0.1:{http}"
peer_listen = "127.0.0.1:{peer}"
"""


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(CONFIG.format(http=8001, peer=9001))
    return load(file, None, {})


@pytest.mark.parametrize(("off", "level"), [(3, "ok"), (-4999, "ok"), (5001, "wrong"), (-9000, "wrong")])
def test_clock_rates(off, level):
    """A rate that takes up more than half of the bound is wrong."""
    findings = Findings("n1")
    machine_checks.judge_clock(findings, off, 10_000)
    assert [finding.level for finding in findings.items] == [level]


@pytest.mark.parametrize(("median", "worst", "level"), [(0.001, 0.1, "ok"), (0.03, 0.1, "look"), (0.001, 0.3, "wrong")])
def test_flush_times(median, worst, level):
    """A slow median deserves a look, a flush that costs the office is wrong."""
    findings = Findings("n1")
    machine_checks.judge_flushes(findings, median, worst, 0.25)
    assert [finding.level for finding in findings.items] == [level]


@pytest.mark.parametrize(("free", "level"), [(1 << 20, "wrong"), (100 << 20, "look"), (1 << 30, "ok")])
def test_free_space(settings, tmp_path, free, level):
    """Log and checkpoints must fit."""
    findings = Findings("n1")
    machine_checks.judge_space(findings, settings, tmp_path, free)
    assert [finding.level for finding in findings.items] == [level]


def test_a_flush_leaves_nothing_behind(tmp_path):
    """The file that is flushed to measure the disk has no name."""
    assert len(machine_checks.flush_seconds(tmp_path)) == machine_checks.FLUSHES
    assert not list(tmp_path.iterdir())


def test_the_directory_of_another_node(replicad, settings, tmp_path):
    """Data that belongs to another node is wrong, and the sentence says whose it is."""
    from replicad.node.identity import DataDirectory

    DataDirectory(settings.data, "c", "n7").close()
    result = replicad("doctor", "--config", tmp_path / "c.toml", "--json")
    found = json.loads(result.output)["findings"]
    assert result.exit_code == 1
    assert any(f["level"] == "wrong" and "belongs to node 'n7' of cluster 'c'" in f["sentence"] for f in found)


@pytest.mark.parametrize("arguments", [("--config", "/no/such"), ("--config", "/no/such", "--node", "n1")])
def test_settings_that_cannot_be_read(replicad, arguments):
    """A file that is not there gets a sentence and exit code 2."""
    result = replicad("doctor", *arguments)
    assert result.exit_code == 2
    assert "there is no such file" in result.stderr


def test_config_check(replicad, tmp_path):
    """`config check` says what is wrong, where, and what would be right."""
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(CONFIG.format(http=8001, peer=9001))
    bad.write_text('[cluster]\nnam = "c"\n[nodes.n1]\nhttp_listen = "x"\n')
    assert replicad("config", "check", good).output == f"{good} can be used\n"
    result = replicad("config", "check", bad)
    assert result.exit_code == 1
    assert "cluster.nam" in result.stderr
    assert "name" in result.stderr
    assert len(json.loads(replicad("config", "check", bad, "--json").output)["errors"]) >= 2


def test_a_drained_node_is_worth_a_look(settings):
    """It stays drained when it is started again; while it is down nobody else says so."""
    from replicad.node.identity import DataDirectory

    for drained in (True, False):
        data = DataDirectory(settings.data, "c", "n1")
        data.set_drained(drained=drained)
        data.close()
        findings = Findings("n1")
        machine_checks.check_directory(findings, settings)
        advice = [finding.advice for finding in findings.items if "is drained for maintenance" in finding.sentence]
        assert advice == ["replicad node undrain n1 takes it back"] * drained
