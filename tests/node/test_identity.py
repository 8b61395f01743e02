"""The data directory: one owner, one process, and a new disk id whenever its memory is broken."""

import json
import subprocess
import sys

import pytest

from replicad.node import identity
from replicad.node.disk_operations import DiskOperations
from replicad.node.identity import LOST, OK, DataDirectory, DirectoryError, machine_boot_id


def open_directory(path, **arguments):
    """Open a directory of node n1 of cluster c."""
    return DataDirectory(path / "n1", "c", "n1", **arguments)


def test_an_identity_is_made_once_and_kept(tmp_path):
    """The second opening finds the disk id of the first."""
    first = open_directory(tmp_path)
    first.close()
    second = open_directory(tmp_path)
    assert second.identity == first.identity
    assert len(first.identity.disk) == 16
    assert first.identity.state == OK
    second.close()


def test_two_processes_cannot_use_one_directory(tmp_path):
    """The second is refused by a plain sentence; after the first has closed it, it may."""
    directory = open_directory(tmp_path)
    with pytest.raises(DirectoryError, match="is in use by another replicad process"):
        open_directory(tmp_path)
    directory.close()
    open_directory(tmp_path).close()


def test_a_dead_process_leaves_no_lock(tmp_path):
    """The lock goes with the process that held it."""
    code = "import sys,os,pathlib; from replicad.node.identity import DataDirectory as D; "
    code += "d = D(pathlib.Path(sys.argv[1]), 'c', 'n1'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "n1")], check=False, timeout=30)
    open_directory(tmp_path).close()


@pytest.mark.parametrize(
    ("cluster", "node", "sentence"),
    [("other", "n1", "belongs to cluster 'c', and this is 'other'"), ("c", "n2", "belongs to node 'n1', and this is")],
)
def test_a_directory_of_somebody_else_is_refused_and_untouched(tmp_path, cluster, node, sentence):
    """Nothing is changed, and the lock is given back."""
    directory = open_directory(tmp_path)
    directory.close()
    with pytest.raises(DirectoryError, match=sentence):
        DataDirectory(tmp_path / "n1", cluster, node)
    again = open_directory(tmp_path)
    assert again.identity == directory.identity
    again.close()


def test_a_restart_of_the_machine_is_noticed(tmp_path):
    """Rebooted until a start is recorded, and again after the machine's boot id changed."""
    first = open_directory(tmp_path, machine_boot="boot-1")
    assert first.rebooted
    assert not first.identity.started_before
    first.record_start()
    assert not first.rebooted
    first.close()
    second = open_directory(tmp_path, machine_boot="boot-1")
    assert not second.rebooted
    assert second.identity.started_before
    second.close()
    third = open_directory(tmp_path, machine_boot="boot-2")
    assert third.rebooted
    third.close()
    assert machine_boot_id()


def test_what_is_set_aside_is_moved_and_the_disk_id_is_new(tmp_path):
    """All data is under `damaged`, where only the latest stays, and the directory counts as lost from then on."""
    directory = open_directory(tmp_path)
    for text in ("first", "second"):
        (directory.path / "wal").mkdir()
        (directory.path / "wal" / "1.seg").write_text(text)
        (directory.path / "promise").write_text(text)
        before = directory.identity
        fresh = directory.set_aside()
        assert fresh.state == LOST
        assert fresh.disk != before.disk
        assert not fresh.started_before
        assert not (directory.path / "wal").exists()
        assert (directory.path / "damaged" / "wal" / "1.seg").read_text() == text
        assert (directory.path / "damaged" / "promise").read_text() == text
    directory.close()
    again = open_directory(tmp_path)
    assert again.identity == fresh
    again.set_state(OK)
    again.close()
    last = open_directory(tmp_path)
    assert last.identity.state == OK
    last.close()


class NoRename(DiskOperations):
    """Stops before anything but the identity is renamed."""

    def rename(self, old, new):
        if new.name != "identity.json":
            raise OSError("the process died here")
        super().rename(old, new)


def test_an_interrupted_set_aside_never_shows_the_old_disk_id_without_its_log(tmp_path):
    """The new disk id is durable before the first file moves."""
    directory = open_directory(tmp_path, disk=NoRename())
    (directory.path / "wal").mkdir()
    before = directory.identity
    with pytest.raises(OSError, match="died"):
        directory.set_aside()
    directory.close()
    again = open_directory(tmp_path)
    assert again.identity.disk != before.disk
    assert again.identity.state == LOST
    assert (again.path / "wal").exists()  # of another disk id: opening the log calls it damage
    again.close()


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"cluster": "c"}', b"\xff", b"[" * 100_000])
def test_a_broken_identity_ends_in_a_new_lost_one(tmp_path, content):
    """Whatever the file holds, the data beside it is set aside and the reason is told."""
    directory = open_directory(tmp_path)
    directory.close()
    (directory.path / "wal").mkdir()
    (directory.path / "identity.json").write_bytes(content)
    again = open_directory(tmp_path)
    assert again.identity.state == LOST
    assert again.identity.disk != directory.identity.disk
    assert "damaged" in again.set_aside_reason
    assert (again.path / "damaged" / "wal").is_dir()
    again.close()


def test_a_changed_digit_of_the_disk_id_is_noticed(tmp_path):
    """The file's own checksum tells."""
    directory = open_directory(tmp_path)
    directory.close()
    path = directory.path / "identity.json"
    fields = json.loads(path.read_text())
    fields["disk"] = "0" * 16
    path.write_text(json.dumps(fields))
    again = open_directory(tmp_path)
    assert again.identity.state == LOST
    again.close()


def test_data_without_an_identity_is_lost(tmp_path):
    """A directory whose identity was deleted is not the member that it was."""
    directory = open_directory(tmp_path)
    directory.close()
    (directory.path / "store").mkdir()
    (directory.path / "identity.json").unlink()
    again = open_directory(tmp_path)
    assert again.identity.state == LOST
    assert "is gone" in again.set_aside_reason
    again.close()


def test_a_drained_node_is_drained_until_that_is_ended(tmp_path):
    """The mark is there after a restart, and when the data were set aside: the node is drained, not its data."""
    directory = open_directory(tmp_path)
    assert not directory.drained
    for _ in range(2):
        directory.set_drained(drained=True)
    directory.set_aside()
    directory.close()
    directory = open_directory(tmp_path)
    assert (directory.drained, directory.identity.state) == (True, LOST)
    for _ in range(2):
        directory.set_drained(drained=False)
    directory.close()
    directory = open_directory(tmp_path)
    assert not directory.drained
    directory.close()


def test_an_identity_that_says_more_is_left_alone(tmp_path):
    """A later release may have written it: a sentence, and nothing is set aside."""
    open_directory(tmp_path).close()
    path = tmp_path / "n1" / "identity.json"
    fields = json.loads(path.read_bytes())
    del fields["check"]
    fields["colour"] = "green"
    path.write_text(json.dumps({**fields, "check": identity._check(fields)}))
    with pytest.raises(DirectoryError, match=r"fields that this release does not know \(colour\): upgrade"):
        open_directory(tmp_path)
    assert json.loads(path.read_bytes())["colour"] == "green"
