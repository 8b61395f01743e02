"""Themes: seeds that come to one rare state; what they and the tool that records seeds promise."""

from collections import Counter

import pytest

from replicad.lab import record
from replicad.lab.mutations.recorded import RECORDED
from replicad.lab.swarm import THEMES, _mix, draw

SEEDS = range(1, 301)


def theme_of(seed):
    swarm = draw(seed, 3).nemesis
    return "stale" * bool(swarm.isolate_us) + "flapping" * bool(swarm.flap_us)


def test_a_tenth_of_the_seeds_has_a_theme_and_the_others_the_mix_that_they_had():
    """Seeds without a theme keep their meaning, and no theme is left out."""
    changed = [seed for seed in SEEDS if draw(seed, 3) != _mix(seed, 3)]
    assert 0.05 * len(SEEDS) < len(changed) < 0.15 * len(SEEDS)
    kinds = Counter(theme_of(seed) for seed in changed)
    assert set(kinds) == {"stale", "flapping", ""}
    assert len(THEMES) == 3


@pytest.mark.parametrize("nodes", [3, 5])
def test_a_theme_has_no_catalog_and_no_changes(nodes):
    """A theme is about one group of so many nodes as were asked for, all of them founders."""
    for seed in SEEDS:
        swarm = draw(seed, nodes)
        if swarm == _mix(seed, nodes):
            continue
        assert (swarm.nodes, swarm.founders, swarm.catalog) == (nodes, nodes, False)
        assert swarm.nemesis.change_us == swarm.nemesis.catalog_us == swarm.nemesis.stranger_us == 0


def test_a_recorded_seed_that_still_notices_stays(monkeypatch):
    """Nothing is searched for a mutation whose recorded seed does what it is there for."""
    monkeypatch.setitem(RECORDED, "answered-before-applied", (1, 3))
    found = record.find("answered-before-applied", 0, 3)
    assert (found.seed, found.nodes, found.tried) == (1, 3, 0)


def test_a_seed_that_is_not_clean_with_all_rules_is_not_recorded(monkeypatch):
    """What fails with the rule as well says nothing of the rule."""
    failing = record.shows("answered-before-applied", 1, 3)
    monkeypatch.setattr(record, "run_trial", lambda _seed, _nodes: failing)
    assert record.shows("answered-before-applied", 1, 3) is None


def test_the_table_is_written_in_the_order_of_the_registry(monkeypatch, tmp_path):
    """What is written is what a later run reads, whatever the order in which seeds were found."""
    monkeypatch.setattr(record.mutations, "__file__", str(tmp_path / "__init__.py"))
    record.write({"view-ignored": (7, 5), "holes-stay": (1, 3)})
    scope = {}
    exec((tmp_path / "recorded.py").read_text(), scope)
    assert list(scope["RECORDED"].items()) == [("holes-stay", (1, 3)), ("view-ignored", (7, 5))]
