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
