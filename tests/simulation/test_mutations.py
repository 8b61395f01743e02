import pytest

from replicad.lab.mutations import MUTATIONS, mutated
from replicad.lab.mutations.noticed import NOTICED_BY
from replicad.lab.mutations.recorded import RECORDED
from replicad.lab.mutations.registry import Mutation, Patch, always
from replicad.lab.runner import run_script, try_mutation
from replicad.lab.trial import Kind, run_trial

SCRIPTED = [name for name, mutation in MUTATIONS.items() if mutation.script is not None]
SEEDED = [name for name, mutation in MUTATIONS.items() if mutation.script is None and not mutation.covered_by]
RULES = {
    *("E1", "E2", "E3", "E4", "E5", "A1", "A2", "T1", "T2", "T3", "T4", "T5", "C1", "C2", "C3", "C4", "C5", "P1"),
    *(
        "L1",
        "L2",
        "L3",
        "L4",
        "V1",
        "V2",
        "V3",
        "R1",
        "R2",
        "M1",
        "M2",
        "M3",
        "M4",
        "M5",
        "M6",
        "D1",
        "D2",
        "K1",
        "K2",
        "K3",
        "S1",
    ),
    *("S2", "sessions", "slip", "speed", "detector"),
}


def test_every_rule_that_is_built_has_a_mutation():
    """Each rule of the specification is switched off by some mutation; all are noticed but for those that say why."""
    assert {mutation.rule for mutation in MUTATIONS.values()} == RULES
    assert set(RECORDED) == set(SEEDED)
    assert set(NOTICED_BY) == {*SCRIPTED, *SEEDED}
    assert len(SCRIPTED) + len(SEEDED) >= 50


@pytest.mark.parametrize("name", SCRIPTED)
def test_a_script_notices_its_mutation_and_nothing_else(name):
    """The script of a mutation is clean with all rules; without this one the check that is meant for it fails."""
    script = MUTATIONS[name].script
    assert run_script(script) == (Kind.OK, "", "")
    with mutated(name) as mutation:
        ending = run_script(script)
    assert ending.rule in mutation.noticed_by, ending


@pytest.mark.parametrize("name", SEEDED)
def test_the_recorded_seed_notices_its_mutation_and_nothing_else(name):
    """The recorded trial is clean with all rules; without this one its own check fails. See ``lab/record``."""
    seed, nodes = RECORDED[name]
    assert run_trial(seed, nodes).kind is Kind.OK
    with mutated(name) as mutation:
        result = run_trial(seed, nodes)
    assert result.rule in mutation.noticed_by, result.reason


def crashes(*_arguments, **_named):
    raise KeyError("n4")


@pytest.mark.parametrize(
    ("make", "otherwise"),
    [(lambda _original: crashes, "KeyError"), (always(0), "after healing")],
    ids=["a crash", "another check"],
)
def test_what_another_check_or_none_notices_does_not_count(monkeypatch, make, otherwise):
    """A mutation that ends in some exception, or in the check of another rule, is missed, and the report says how."""
    monkeypatch.setitem(
        MUTATIONS, "x", Mutation("x", "slip", "x", [Patch("core.model.configuration:Configuration", "majority", make)])
    )
    monkeypatch.setitem(NOTICED_BY, "x", ("acknowledged",))
    result = try_mutation("x", 1, 1, 3)
    assert (result.missed, result.kind, result.rule) == (True, Kind.OK, "")
    assert otherwise in result.otherwise
    assert result.otherwise.startswith("seed 1: ")
