"""Every row of the table of bad files gets what the table promises, through the same steps as a node that starts."""

import asyncio
import os
import shutil
from hashlib import blake2b

import pytest

from replicad.core.journal.recovery import DurableState
from replicad.core.journal.segments import FormatError
from replicad.core.journal.startup import Action, Source
from replicad.node.identity import LOST, OK, DataDirectory, DirectoryError
from replicad.node.offline import read_offline
from replicad.node.opening import open_group, open_log
from replicad.node.settings import load
from tests.node.bad_files import (
    APPLIED,
    BAD_FILES,
    EPOCH,
    FETCHED,
    GOES_ON,
    REBUILT,
    REFUSED,
    SEGMENT_BYTES,
    SET_ASIDE,
    SLOTS,
    make,
)

pytestmark = pytest.mark.xdist_group("files")

SETTINGS = f"""
[cluster]
name = "c"
[nodes.n1]
data = "n1"
[node]
segment_bytes = {SEGMENT_BYTES}
store_map_bytes = 268435456
"""


class Notes:
    """A log that remembers what it was told, as text."""

    def __init__(self):
        self.text = ""

    def note(self, event, **fields):
        """Take one event."""
        self.text += f"{event} {fields}\n"

    info = warning = error = note


class Start:
    """Opens a data directory as a starting node does, and tells what came of it."""

    def __init__(self, root):
        settings = load(root / "cluster.toml", "n1", {})
        notes = Notes()
        self.data = DataDirectory(settings.data, "c", "n1")
        self.environment = None
        try:
            notes.note("set aside", reason=self.data.set_aside_reason)
            self.environment, self.log = open_log(self.data, settings, notes)
            self.data.record_start()
            durable = self.log.recovery.states.get("default", DurableState())
            self.group = open_group(self.data, settings, self.environment, "default", durable, notes)
        except BaseException:
            self.data.close()
            raise
        self.text = notes.text + self.log.recovery.reason
        self.disk, self.state = self.data.identity.disk, self.data.identity.state

    def close(self):
        """Give everything back."""
        self.group.store.close()
        self.environment.close()
        self.log.close()
        self.data.close()


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """A directory to copy, and its disk id."""
    root = tmp_path_factory.mktemp("pattern")
    asyncio.run(make(root / "n1"))
    (root / "cluster.toml").write_text(SETTINGS)
    return root


def content(path):
    """Every file under a path, with a hash of its bytes."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {file.relative_to(path): blake2b(file.read_bytes()).hexdigest() for file in files}


def test_the_pattern_itself_is_good(pattern, tmp_path):
    """Unharmed, the directory goes on as it is: what the rows show comes from the harm alone."""
    shutil.copytree(pattern, tmp_path / "copy")
    start = Start(tmp_path / "copy")
    assert (start.state, start.group.rebuild, start.group.machine.applied_slot) == (OK, False, APPLIED)
    assert (start.group.durable.promised, max(start.group.durable.entries)) == (EPOCH, SLOTS)
    assert not (tmp_path / "copy" / "n1" / "damaged").exists()
    start.close()


@pytest.mark.parametrize("row", BAD_FILES, ids=lambda row: row.what)
def test_bad_file(row, pattern, tmp_path):
    """The outcome and the sentence are those of the table."""
    root = tmp_path / "copy"
    shutil.copytree(pattern, root)
    data = root / "n1"
    before = Start(root)
    before.close()
    held = row.harm(data)
    if row.outcome == REFUSED:
        harmed = content(data)
        with pytest.raises((DirectoryError, FormatError), match=row.phrase):
            Start(root)
        assert content(data) == harmed
        if held is not None:
            os.close(held)
        return
    start = Start(root)
    machine, durable = start.group.machine, start.group.durable
    found = (start.disk == before.disk, start.state, start.group.rebuild, machine.applied_slot, durable.promised)
    assert (
        found
        == {
            SET_ASIDE: (False, LOST, False, 0, 0),
            REBUILT: (True, OK, False, 6, EPOCH),
            FETCHED: (True, OK, True, 0, EPOCH),
            GOES_ON: (True, OK, False, APPLIED, EPOCH),
        }[row.outcome]
    )
    assert row.phrase in start.text
    assert (data / "damaged").exists() == (row.outcome == SET_ASIDE)
    assert not [*data.rglob("*.new"), *data.rglob("*.part")]
    start.close()
    again = Start(root)
    assert again.disk == start.disk
    again.close()


OFFLINE = {
    SET_ASIDE: (Action.SET_ASIDE, None),
    REBUILT: (Action.GO_ON, Source.CHECKPOINT),
    FETCHED: (Action.GO_ON, Source.OTHERS),
    GOES_ON: (Action.GO_ON, Source.STORE),
}


@pytest.mark.parametrize("row", BAD_FILES, ids=lambda row: row.what)
def test_what_a_start_does_is_known_without_one(row, pattern, tmp_path):
    """What recover, inspect and doctor foresee is what the next start then does, and looking changes nothing."""
    root = tmp_path / "copy"
    shutil.copytree(pattern, root)
    data = root / "n1"
    Start(root).close()
    held = row.harm(data)
    if held is not None:
        os.close(held)  # the lock is asked for elsewhere
        return
    harmed = content(data)
    if row.outcome == REFUSED:
        try:
            with read_offline(data, "c", "n1") as found:
                assert found.decision.action is Action.REFUSE
        except (DirectoryError, FormatError):
            return
    else:
        with read_offline(data, "c", "n1") as found:
            source = found.groups["default"].start.source if found.decision.action is Action.GO_ON else None
            assert (found.decision.action, source) == OFFLINE[row.outcome]
            assert found.sentences()
    assert content(data) == harmed
