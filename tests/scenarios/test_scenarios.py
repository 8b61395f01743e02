"""Golden transcripts. After a change of the protocol: `REWRITE=1 pytest tests/scenarios`, and review the diff."""

import os
from pathlib import Path

import pytest

from replicad.lab.scenario import play

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_goes_as_its_transcript_says(path):
    """The commands of a scenario file give exactly the messages and states that are written below them."""
    text = path.read_text()
    played = play(text)
    if os.environ.get("REWRITE"):
        path.write_text(played)
    else:
        assert played == text


def test_the_transcripts_are_all_here():
    """Every course of events that a reader of the protocol looks for has a file."""
    assert {path.stem for path in FILES} >= {
        "cut_off_primary",
        "digest_minority",
        "failover",
        "formation",
        "hand_over",
        "hole_blocks_everyone",
        "hole_repaired_with_batch",
        "hole_repaired_with_noop",
        "holder_dropped",
        "lost_acceptance",
        "member_added",
        "member_replaced",
        "normal_write",
        "protocol_switch",
        "rejoin_by_checkpoint",
        "rejoin_by_log",
        "sequencer_change",
        "slow_contact",
        "ticket_write",
        "wiped_node",
    }
