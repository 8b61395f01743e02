import asyncio
import os
import threading
from pathlib import Path

import pytest

from replicad.core.journal.kept_checkpoints import PIN_US
from replicad.core.kv.machine import Machine
from replicad.core.model.errors import DamageError
from replicad.node import checkpoint
from replicad.node.checkpoint import Checkpointer, CheckpointError, CheckpointFiles, read_header
from replicad.node.checkpoint_worker import NICENESS
from replicad.node.inspect_store import (
    checkpoint_paths,
    inspect_checkpoint,
    inspect_store,
    store_entries,
    store_groups,
)
from replicad.node.lmdb_store import LmdbStore, StoreEnvironment
from tests.core.kv.state_builders import apply_all, batch, put
from tests.node.cluster import until

pytestmark = pytest.mark.xdist_group("processes")


class Node:
    """A store with its machine and checkpoint files, in a directory of its own."""

    def __init__(self, path, fill=0):
        self.path = path
        self.environment = StoreEnvironment(path / "store", disk="disk", machine_boot="boot")
        self.store = LmdbStore(self.environment, "default")
        self.machine = Machine(self.store, 50)
        self.files = CheckpointFiles(path / "checkpoints", "c1", "default")
        for _ in range(fill):
            self.write()

    def write(self):
        slot = self.machine.applied_slot
        keys = [b"k%d" % (slot * 7 % 90 + n) for n in range(20)]
        apply_all(self.machine, [batch(*[put(key, key * (slot % 50), base=slot) for key in keys])])
        self.store.flush()

    def checkpointer(self, **options):
        return Checkpointer(self.path / "checkpoints", self.path / "store", "c1", **options)

    def content(self):
        return list(self.store.scan(b"")), list(self.store.scan_requests())

    def close(self):
        self.store.close()
        self.environment.close()


@pytest.fixture
def nodes(tmp_path):
    """Make nodes: ``nodes(name, slots to write)``; all are closed afterwards."""
    made = []

    def make(name, fill=0):
        made.append(Node(tmp_path / name, fill))
        return made[-1]

    yield make
    for node in made:
        node.close()


@pytest.fixture
async def written(nodes):
    """A node with one checkpoint, at slot 100."""
    node = nodes("n1", 100)
    checkpointer = node.checkpointer()
    await checkpointer.start()
    await (await checkpointer.pin("default", 100))
    await checkpointer.close()
    return node


def copy_to(receiver, sender, slot, size=1000):
    """Transfer the file in chunks."""
    receiver.files.begin(slot)
    offset, total = 0, 1
    while offset < total:
        total, data = sender.files.read_chunk(slot, offset, size, 0)
        receiver.files.write(slot, offset, data)
        offset += len(data)


def nice_values(process):
    """Return ``{thread: nice value}`` of a process."""
    threads = [int(path.name) for path in Path(f"/proc/{process}/task").iterdir()]
    return {thread: os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}


async def until_there(path, *, there=True):
    """Wait until the worker has made this file, or deleted it."""

    async def seen():
        return path.exists() == there

    await until(f"{path.name}: {there=}", seen)


@pytest.mark.parametrize(
    ("known", "told"),
    [
        (("c" * 32, "i" * 32), ("c" * 32, "i" * 32)),
        (("c" * 32, ""), ("", "")),  # the group has no id of its own yet: an older release may have to read the file
        (("", ""), ("", "")),
    ],
    ids=["both", "the cluster's", "none"],
)
async def test_a_checkpoint_before_the_first_change_has_the_ids_of_the_formation(nodes, known, told):
    """The state holds no configuration yet, so the header cannot have them from there."""
    node = nodes("n1", 10)
    checkpointer = node.checkpointer()
    await checkpointer.start()
    await (await checkpointer.pin("default", 10, known))
    await checkpointer.close()
    header = read_header(node.files.path(10))
    assert (header.configuration, header.cluster_id, header.incarnation) == (b"", *told)
    node.files.ids = lambda: ("c" * 32, "another")
    assert node.files.newest_valid() == (0 if all(told) else 10)


async def test_a_checkpoint_is_of_exactly_the_pinned_slot(nodes):
    """What is written after the pin was answered is not in the file; its digest is the one at the pinned slot."""
    node = nodes("n1", 100)
    checkpointer = node.checkpointer()
    await checkpointer.start()
    digest = node.machine.digest
    writing = await checkpointer.pin("default", 100)
    for _ in range(20):
        node.write()
    result = await writing
    await checkpointer.close()
    assert (result.slot, result.digest) == (100, digest)
    assert digest != node.machine.digest
    assert node.files.slots() == [100]
    assert result.size == node.files.path(100).stat().st_size
    assert read_header(node.files.path(100)).digest == digest
    assert node.files.newest_valid() == 100


async def test_a_pin_of_another_slot_fails(nodes):
    """The worker looks for itself where the store is: a node that committed too far, or too little, is told."""
    node = nodes("n1", 5)
    checkpointer = node.checkpointer()
    await checkpointer.start()
    for slot in (4, 6):
        with pytest.raises(CheckpointError, match="the store is at slot 5"):
            await checkpointer.pin("default", slot)
    with pytest.raises(CheckpointError, match="no group"):
        await checkpointer.pin("other", 5)
    assert (await (await checkpointer.pin("default", 5))).slot == 5
    await checkpointer.close()


async def test_a_pin_does_not_wait_for_a_file_being_written(nodes):
    """While one group's checkpoint is slowly written, another's is pinned and both become files."""
    node = nodes("n1", 50)
    other = LmdbStore(node.environment, "other")
    machine = Machine(other, 50)
    apply_all(machine, [batch(put(b"k", b"v"))])
    other.flush()
    checkpointer = node.checkpointer(rate=100_000)
    await checkpointer.start()
    first = await checkpointer.pin("default", 50)
    second = await checkpointer.pin("other", 1)
    assert not first.done()
    assert [(await first).slot, (await second).slot] == [50, 1]
    assert node.files.slots() == [50]
    assert CheckpointFiles(node.path / "checkpoints", "c1", "other").slots() == [1]
    await checkpointer.close()
    other.close()


async def test_a_newer_checkpoint_supersedes_one_that_is_being_written(nodes):
    """At most one is written for a group at a time; what there is of the older one goes."""
    node = nodes("n1", 50)
    checkpointer = node.checkpointer(rate=20_000)
    await checkpointer.start()
    first = await checkpointer.pin("default", 50)
    await until_there(node.files.path(50, "part"))
    node.write()
    second = await checkpointer.pin("default", 51)
    with pytest.raises(CheckpointError, match="superseded by the checkpoint at slot 51"):
        await first
    assert (await second).slot == 51
    assert [path.name for path in (node.path / "checkpoints").iterdir()] == ["default-51.ckpt"]
    await checkpointer.close()


async def test_a_cancelled_checkpoint_leaves_nothing(nodes):
    """Its file goes and its view ends, the worker lives, and another group's is not hurt."""
    node = nodes("n1", 50)
    checkpointer = node.checkpointer(rate=100)
    await checkpointer.start()
    writing = await checkpointer.pin("default", 50)
    part = node.files.path(50, "part")
    await until_there(part)
    checkpointer.cancel("other", "not this one")
    assert not writing.done()
    checkpointer.cancel("default", "given up")
    with pytest.raises(CheckpointError, match="given up"):
        await writing
    await until_there(part, there=False)
    assert list((node.path / "checkpoints").iterdir()) == []
    writing = await checkpointer.pin("default", 50)
    assert not writing.done()
    assert checkpointer.workers_started == 1
    await checkpointer.close()


async def test_the_worker_pins_at_the_nodes_priority_and_writes_below_it(nodes):
    """The node applies nothing until the pin is answered: only the writing thread stands back."""
    node = nodes("n1", 5)
    checkpointer = node.checkpointer()
    await checkpointer.start()
    await (await checkpointer.pin("default", 5))
    worker = checkpointer._process.pid
    nice = nice_values(worker)
    own = os.getpriority(os.PRIO_PROCESS, os.getpid())
    assert nice.pop(worker) == own
    assert min(own + NICENESS, 19) in nice.values()
    await checkpointer.close()


async def test_a_decayed_entry_fails_the_checkpoint(nodes):
    """A store whose content contradicts its digest makes no file, and is reported as damage."""
    node = nodes("n1", 10)
    key, entry = next(node.store.scan(b""))
    node.store.begin()
    node.store.put(key, entry[:-1] + bytes([entry[-1] ^ 1]))
    node.store.commit(flush=True)
    checkpointer = node.checkpointer()
    await checkpointer.start()
    writing = await checkpointer.pin("default", 10)
    with pytest.raises(DamageError, match="not what its hash says"):
        await writing
    assert list((node.path / "checkpoints").iterdir()) == []
    node.store.begin()
    node.store.put(key, entry)
    node.store.commit(flush=True)
    assert (await (await checkpointer.pin("default", 10))).digest == node.machine.digest
    await checkpointer.close()


async def test_a_killed_worker_is_reported_and_replaced(nodes, monkeypatch):
    """What the worker was writing fails, the node is not hurt, and a new worker serves the next checkpoint."""
    monkeypatch.setattr(checkpoint, "RESPAWN_SECONDS", (0.01, 0.02))
    node = nodes("n1", 50)
    checkpointer = node.checkpointer(rate=100)
    await checkpointer.start()
    writing = await checkpointer.pin("default", 50)
    checkpointer._process.kill()
    with pytest.raises(CheckpointError, match="ended"):
        await writing
    while checkpointer.workers_started == 1:
        with pytest.raises(CheckpointError, match="not running"):
            await checkpointer.pin("default", 50)
        await asyncio.sleep(0.005)
    await checkpointer.pin("default", 50)
    await checkpointer.close()
    assert CheckpointFiles(node.path / "checkpoints", "c1", "default").slots() == []
    assert list((node.path / "checkpoints").iterdir()) == []


async def test_a_transfer_makes_the_receiver_equal(nodes, written):
    """A received checkpoint replaces the receiver's content; its machine then has the sender's digest."""
    receiver = nodes("n2", 3)
    copy_to(receiver, written, 100)
    header = await receiver.files.keep(100, written.machine.digest)
    assert receiver.machine.applied_slot != 100
    await receiver.files.install(100, receiver.store)
    receiver.machine.reload()
    assert header.slot == receiver.machine.applied_slot == 100
    assert receiver.machine.digest == written.machine.digest
    assert receiver.content() == written.content()
    assert receiver.store.trusted("disk", "boot")
    assert receiver.files.slots() == [100]


@pytest.mark.parametrize("how", ["flipped", "short", "other digest", "other group"])
async def test_a_bad_transfer_changes_nothing(nodes, written, how):
    """Whatever is wrong with the received bytes, the old state stays and the file goes."""
    receiver = nodes("n2", 3)
    before = receiver.machine.digest, receiver.content()
    copy_to(receiver, written, 100)
    path = receiver.files.path(100, "in")
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[:-1] if how == "short" else data)
    if how == "other group":
        receiver.files._group = "other"
        path.rename(receiver.files.path(100, "in"))
    with pytest.raises(DamageError):
        await receiver.files.keep(100, b"x" * 16 if how == "other digest" else b"")
    receiver.machine.reload()
    assert (receiver.machine.digest, receiver.content()) == before
    assert receiver.store.trusted("disk", "boot")
    assert receiver.files.slots() == []


def test_received_bytes_must_follow_each_other(nodes):
    """A chunk at another offset, or of another checkpoint, is refused; a new begin drops what was there."""
    files = nodes("n1").files
    files.begin(5)
    files.write(5, 0, b"abc")
    for slot, offset in ((5, 0), (5, 4), (6, 3)):
        with pytest.raises(DamageError, match="do not follow"):
            files.write(slot, offset, b"d")
    files.begin(6)
    assert not files.path(5, "in").exists()
    files.write(6, 0, b"x")


async def test_loading_at_start_verifies_on_the_way(nodes, written):
    """A good file fills an empty store; a bad one leaves it empty and says so."""
    fresh = nodes("n2")
    copy_to(fresh, written, 100)
    fresh.files.path(100, "in").rename(fresh.files.path(100))
    fresh.files.load(100, fresh.store)
    fresh.machine.reload()
    assert fresh.machine.digest == written.machine.digest
    path = fresh.files.path(100)
    path.write_bytes(path.read_bytes()[:-1])
    assert fresh.files.newest_valid() == 0
    with pytest.raises(DamageError):
        fresh.files.load(100, fresh.store)
    fresh.machine.reload()
    assert (fresh.machine.applied_slot, fresh.machine.digest, fresh.content()) == (0, bytes(16), ([], []))


def test_newest_valid_skips_what_does_not_verify(nodes):
    """A damaged or missing newest file is passed over."""
    files = nodes("n1").files
    files.path(7).write_bytes(b"nonsense")
    assert files.slots() == [7]
    assert files.newest_valid() == files.newest_valid([9, 7]) == 0


async def test_older_files_go_unless_they_are_being_sent(written):
    """A committed checkpoint replaces older ones; one that was read from lately stays for its receiver."""
    files = written.files
    files.path(50).write_bytes(b"old")
    files.path(60).write_bytes(b"old, being sent")
    assert files.read_chunk(60, 5, 5, now=1000) == (15, b"being")
    files.committed(100, now=2000)
    assert files.slots() == [100, 60]
    files.sweep(now=1000 + PIN_US)
    assert files.slots() == [100]
    assert files.read_chunk(60, 0, 5, now=0) == (0, b"")
    for beyond in (2**31, 2**63 - 1, 2**63, 2**64 - 1):  # a peer may ask for any place
        total, data = files.read_chunk(100, beyond, 5, now=0)
        assert (total > 5, data) == (True, b"")
    await files.deleted()
    files.sweep(now=1000 + PIN_US)
    await files.deleted()
    assert [path.name for path in (written.path / "checkpoints").iterdir()] == ["default-100.ckpt"]


async def test_the_loop_does_not_delete_large_files(written, monkeypatch):
    """Older files lose their names at once, and are unlinked by another thread."""
    threads = []
    unlink = Path.unlink

    def noted(path, **options):
        threads.append(threading.current_thread())
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", noted)
    written.files.path(50).write_bytes(b"old")
    written.files.committed(100, now=0)
    assert written.files.slots() == [100]
    await written.files.deleted()
    assert threads
    assert threading.main_thread() not in threads


async def test_an_installed_file_stays_though_a_newer_one_was_committed_before(nodes, written):
    """A replica that rebuilds itself from an older checkpoint stands on that file from then on."""
    receiver = nodes("n2", 3)
    receiver.files.committed(200, now=0)
    copy_to(receiver, written, 100)
    await receiver.files.keep(100)
    await receiver.files.install(100, receiver.store)
    receiver.files.sweep(now=0)
    assert receiver.files.slots() == [100]


def test_leftovers_are_deleted_at_start(tmp_path):
    """Files that were being written or received when the process died are of no use; other groups' are left alone."""
    for name in ("g-1.part", "g-2.in", "g-2.old", "g-3.ckpt", "other-1.part"):
        (tmp_path / name).write_bytes(b"")
    CheckpointFiles(tmp_path, "c", "g")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g-3.ckpt", "other-1.part"]


async def test_inspection_shows_and_verifies(written):
    """Offline inspection tells where a store and a checkpoint stand, and finds what does not add up."""
    digest, entries = written.machine.digest.hex(), len(written.content()[0])
    path = written.files.path(100)
    assert checkpoint_paths(path.parent) == [path]
    seen = inspect_checkpoint(path, verify=True)
    assert (seen["slot"], seen["digest"], seen["entries"], seen["damage"]) == (100, digest, entries, "")
    assert inspect_checkpoint(path)["digest"] == digest
    written.close()
    store = written.path / "store"
    assert store_groups(store) == ["default"]
    seen = inspect_store(store, "default", verify=True)
    assert (seen["applied_slot"], seen["digest"], seen["entries"], seen["damage"]) == (100, digest, entries, "")
    assert [key for key, _ in store_entries(store, "default", b"k1", 2)] == [b"k1", b"k10"]
    with pytest.raises(KeyError, match="no group 'x'"):
        inspect_store(store, "x")
    with pytest.raises(FileNotFoundError, match="no store"):
        store_groups(written.path)
    path.write_bytes(path.read_bytes()[:-9])
    assert "cut short" in inspect_checkpoint(path, verify=True)["damage"]
