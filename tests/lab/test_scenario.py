from contextlib import suppress

import pytest

from replicad.core.group.repair import Repairs
from replicad.lab.scenario import ScenarioError, play

FORMED = "A title.\n> form\n"


def output(text):
    """The indented lines of what a scenario gives."""
    return [line.strip() for line in play(text).splitlines() if line.startswith(" ")]


def test_a_played_text_is_kept_as_it_is():
    """Playing a transcript again gives the same text, remarks and title included."""
    text = play(FORMED + "# A remark.\n> put n2 a=1\n> state\n")
    assert text.startswith("A title.\n\n> form\n")
    assert "# A remark.\n> put n2 a=1\n     0.0  n2" in text
    assert play(text) == text


def test_what_is_written_below_a_command_does_not_matter():
    """Old output is dropped: only commands and remarks are read."""
    assert play(FORMED + "> state\n  anything\n") == play(FORMED + "> state\n")


def test_what_happens_alike_at_one_time_is_one_line():
    """A message to everyone is one line, and so is what two nodes do at the same moment."""
    lines = output(FORMED + "> put n1 a=1\n")
    assert any(line.split()[1:4] == ["n1", "->", "n2,n3"] for line in lines)
    assert any(line.split()[1:4] == ["n2,n3", "applies", "slot"] for line in lines)


def test_routine_messages_are_shown_on_demand():
    """Heartbeats are left out, until a scenario asks for them."""
    hidden = play(FORMED + "> wait 200\n")
    shown = play(FORMED + "> show Heartbeat\n> wait 200\n")
    assert "Heartbeat epoch" not in hidden
    assert "Heartbeat epoch" in shown
    assert "HeartbeatAck" not in shown


def test_a_lost_message_is_marked():
    """`lose` takes exactly as many messages of this kind on this link."""
    lines = output(FORMED + "> lose Accept n1>n2\n> put n1 a=1\n")
    assert sum("-x n2" in line for line in lines) == 1
    assert any(line.endswith("done, index 1") for line in lines)


def test_conditions_and_deletes():
    """A refused condition, a delete and an absent key are told apart."""
    lines = output(FORMED + "> put n1 a=1 cas=5\n> put n1 a=2\n> delete n1 a\n> get n2 a\n")
    answers = [line.partition("client: ")[2] for line in lines if "answers" in line]
    assert answers == ["refused, index 1", "done, index 2", "done, index 3", "absent"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "line 1: a scenario begins with its title"),
        ("> start n1\n", "line 1: a scenario begins with its title"),
        ("T.\n> fly n1\n", "line 2: > fly n1: there is no such command"),
        ("T.\nfly\n", "line 2: begins with none"),
        ("T.\n> start n9\n", "there is no node n9"),
        ("T.\n> wipe n1\n> start n1\n> wipe n1\n", "line 4: .* is running"),
        ("T.\n> put n1 a=1\n", "n1 is down"),
        ("T.\n> start n1\n> cluster nodes=5\n", "the cluster is there already"),
        ("T.\n> cluster speed=5\n", "unknown limit among speed"),
        ("T.\n> start n1 n2\n> wait until ready\n", "did not get ready in time"),
        ("T.\n> wait\n", "wait for a number"),
        ("T.\n> start n1\n> corrupt n1 a\n", "n1 holds no key a"),
        ("T.\n> cluster protocol=flat\n", "there is no protocol flat; there are remote-write and active"),
        ("T.\n> change n1 add n4\n", "n1 is down"),
        ("T.\n> without fear\n", "there is no mutation fear"),
        ("T.\n> begin state\n", "only change, put, delete, get can begin"),
    ],
)
def test_what_a_scenario_cannot_do_is_a_plain_sentence(text, sentence):
    """An error names the line and what is wrong with it."""
    with pytest.raises(ScenarioError, match=sentence):
        play(text)


@pytest.mark.parametrize("rest", ["> state", "> fly n1"])
def test_a_rule_is_switched_off_for_one_scenario_only(rest):
    """Whether the scenario ends well or not, the next one runs with all rules."""
    tick = Repairs.tick
    with suppress(ScenarioError):
        play(f"T.\n> without holes-stay\n{rest}\n")
    assert Repairs.tick is tick
