import pytest

from replicad.lab.mutations import MUTATIONS, mutated
from replicad.lab.mutations.recorded import RECORDED
from replicad.lab.runner import run_script
from replicad.lab.trial import Kind, run_trial

SCRIPTED = [name for name, mutation in MUTATIONS.items() if mutation.script is not None]
SEEDED = [name for name, mutation in MUTATIONS.items() if mutation.script is None and not mutation.covered_by]
RULES = {
    *("E1", "E2", "E3", "E4", "E5", "A1", "A2", "T1", "T2", "T3", "T4", "T5", "C1", "C2", "C3", "C4", "C5", "P1"),
    *("L1", "L2", "L3", "L4", "V1", "V2", "R1", "R2", "M1", "M2", "M3", "M4", "M5", "D1", "D2", "K1", "K2", "K3", "S1"),
    *("sessions", "slip", "speed"),
}


def test_every_rule_that_is_built_has_a_mutation():
    """Each rule of the specification is switched off by some mutation; all are noticed but for those that say why."""
    assert {mutation.rule for mutation in MUTATIONS.values()} == RULES
    assert set(RECORDED) == set(SEEDED)
    assert len(SCRIPTED) + len(SEEDED) >= 50


@pytest.mark.parametrize("name", SCRIPTED)
def test_a_script_notices_its_mutation_and_nothing_else(name):
    """The script of a mutation is clean with all rules, and fails without this one."""
    script = MUTATIONS[name].script
    assert run_script(script) == (Kind.OK, "")
    with mutated(name):
        kind, reason = run_script(script)
    assert kind is not Kind.OK
    assert reason


@pytest.mark.parametrize("name", SEEDED)
def test_the_recorded_seed_notices_its_mutation_and_nothing_else(name):
    """The recorded trial is clean with all rules, and fails without this one (``python -m replicad.lab.record``)."""
    seed, nodes = RECORDED[name]
    assert run_trial(seed, nodes).kind is Kind.OK
    with mutated(name):
        result = run_trial(seed, nodes)
    assert result.kind is not Kind.OK
    assert result.reason
