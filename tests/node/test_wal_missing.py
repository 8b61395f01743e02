"""A message log whose segments were removed by hand is damage, never an empty log."""

import pytest

from replicad.core.journal.records import PromiseRecord
from replicad.core.model.errors import DamageError
from tests.node.test_wal import Node, recovered


async def test_a_first_segment_that_is_gone_is_damage(tmp_path):
    """The spare segment that is left must not be taken for a new log: this disk has promised something."""
    node = Node(tmp_path)
    await node.flush(1, PromiseRecord(77))
    node.log.close()
    (tmp_path / "wal" / "00000001.seg").unlink()
    assert (tmp_path / "wal" / "00000002.seg").exists()
    with pytest.raises(DamageError, match="records are gone"):
        recovered(tmp_path)
