import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from replicad.core.kv.machine import Machine
from replicad.core.kv.memory_store import MemoryStore
from replicad.core.model.errors import InvariantError, RequestError
from replicad.core.model.operations import CONFIGURATION, NO_CAS, encode_batch
from replicad.node import lmdb_store
from replicad.node.lmdb_store import LmdbStore, StoreEnvironment, StoreFullError
from tests.core.kv.state_builders import apply_all, batch, delete, delete_prefix, put


def environment_at(path, boot="boot", disk="disk", **options):
    return StoreEnvironment(path, disk=disk, machine_boot=boot, **options)


@pytest.fixture
def environment(tmp_path):
    opened = environment_at(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def store(environment):
    opened = LmdbStore(environment, "default")
    yield opened
    opened.close()


def random_values(seed, count):
    """Batches that put, overwrite, compare and delete a few hundred keys, with values up to several pages."""
    random = Random(seed)
    keys = [b"%s/%d" % (random.choice([b"a", b"b", b"\xff"]), n) for n in range(200)]
    values = [encode_batch(CONFIGURATION, b"members")]
    for slot in range(2, count):
        operations = []
        for _ in range(random.randrange(8)):
            key = random.choice(keys)
            value = random.randbytes(random.choice([0, 10, 100, 9000]))
            cas = random.choice([NO_CAS, NO_CAS, 0, slot])
            kind = random.randrange(20)
            made = [put(key, value, cas=cas, base=slot - 1), delete(key, base=slot - 1)][kind > 16]
            operations.append(made if kind else delete_prefix(key[:3], base=slot - 1))
        values.append(batch(*operations))
    return values


def content(store):
    return list(store.scan(b"")), list(store.scan_requests()), store.get_meta("state"), store.get_meta("configuration")


def test_both_stores_give_equal_digests_also_across_a_reopen(tmp_path):
    """The same batches give the same results, content and digest in memory and in LMDB, which may be reopened."""
    memory = Machine(MemoryStore(), 50)
    values = random_values(1, 400)
    for start in range(0, len(values), 100):
        environment = environment_at(tmp_path / "store")
        lmdb = LmdbStore(environment, "default")
        machine = Machine(lmdb, 50)
        assert (machine.digest, machine.remembered) == (memory.digest, memory.remembered)
        part = values[start : start + 100]
        assert apply_all(machine, part) == apply_all(memory, part)
        assert machine.digest == memory.digest
        assert content(lmdb) == content(memory.store)
        assert list(lmdb.scan(b"a/1", b"a/12")) == list(memory.store.scan(b"a/1", b"a/12"))
        lmdb.close()
        environment.close()


def test_an_aborted_transaction_leaves_no_trace(store):
    """After an abort the store and the machine are where the last commit was."""
    machine = Machine(store, 50)
    values = random_values(2, 60)
    apply_all(machine, values[:30])
    before = content(store), machine.digest
    machine.begin()
    for slot in range(31, 41):
        machine.apply(slot, values[slot - 1])
    machine.abort()
    assert (content(store), machine.digest) == before
    assert machine.applied_slot == 30


def test_reads_see_the_last_commit_and_inside_a_transaction_what_was_written(store):
    """The cached read transaction is renewed by a commit."""
    store.begin()
    store.put(b"a", b"1")
    assert store.get(b"a") == b"1"
    store.commit()
    assert store.get(b"a") == b"1"
    store.begin()
    store.put(b"a", b"2")
    store.commit()
    assert store.get(b"a") == b"2"


def test_a_view_stands_still(store):
    """A view shows one moment, whatever is committed meanwhile."""
    store.begin()
    store.put(b"a", b"1")
    store.commit()
    with store.view() as view:
        store.begin()
        store.delete(b"a")
        store.commit()
        assert list(view.scan(b"")) == [(b"a", b"1")]
    assert store.get(b"a") is None


def test_views_are_bounded(store, monkeypatch):
    """One view too many is refused as overload; a closed one makes room."""
    monkeypatch.setattr(lmdb_store, "VIEWS_MAX", 1)
    with store.view(), pytest.raises(RequestError) as refused, store.view():
        pass
    assert refused.value.kind.name == "overloaded"
    with store.view():
        pass


def test_pages_are_reused_while_nobody_reads(store, environment):
    """Overwriting the same keys for long, with reads in between, does not make the file grow without bound."""
    for _ in range(3):
        for n in range(200):
            store.begin()
            store.put(b"a", bytes([n]) * 20_000)
            store.commit()
            store.get(b"a")
    assert environment.size() < 1_000_000


def test_groups_do_not_see_each_other(environment):
    """Two groups of one environment have their own keys, records, meta values and clear."""
    one, two = LmdbStore(environment, "one"), LmdbStore(environment, "two")
    for store, value in ((one, b"1"), (two, b"2")):
        store.begin()
        store.put(b"k", value)
        store.put_requests(1, value)
        store.put_meta("m", value)
        store.commit()
    one.begin()
    one.clear()
    one.commit()
    assert (one.get(b"k"), list(one.scan_requests()), one.get_meta("m")) == (None, [], None)
    assert (two.get(b"k"), list(two.scan_requests()), two.get_meta("m")) == (b"2", [(1, b"2")], b"2")
    assert environment.groups() == ["one", "two"]


@pytest.mark.parametrize(
    ("boot", "disk", "kept"), [("boot", "disk", True), ("later", "disk", False), ("boot", "x", False)]
)
def test_a_store_is_trusted_by_the_same_disk_on_the_same_boot_only(tmp_path, boot, disk, kept):
    """Files of another boot of the machine, or of another disk id, are gone when the environment is opened."""
    first = environment_at(tmp_path / "store")
    store = LmdbStore(first, "default")
    assert not store.trusted("disk", "boot")
    store.begin()
    store.put(b"a", b"1")
    store.commit()
    assert store.trusted("disk", "boot")
    store.close()
    first.close()
    second = environment_at(tmp_path / "store", boot=boot, disk=disk)
    store = LmdbStore(second, "default")
    assert (second.fresh, store.get(b"a"), store.trusted(disk, boot)) == (not kept, b"1" if kept else None, kept)
    store.close()
    second.close()


def test_a_torn_file_of_another_boot_is_never_mapped(tmp_path):
    """After a power cut the file may hold anything: it is deleted unread."""
    environment_at(tmp_path / "store").close()
    (tmp_path / "store" / "data.mdb").write_bytes(os.urandom(100_000))
    second = environment_at(tmp_path / "store", boot="later")
    assert second.groups() == []
    second.close()


def test_an_unfinished_load_is_not_trusted(store):
    """Between the start and the end of a load the content counts for nothing."""
    store.begin()
    store.set_loading(loading=True)
    store.commit()
    assert not store.trusted("disk", "boot")
    store.begin()
    store.set_loading(loading=False)
    store.commit()
    assert store.trusted("disk", "boot")


def test_a_full_map_is_refused_and_the_store_goes_on(tmp_path):
    """A write that does not fit raises StoreFullError; after an abort everything committed before is still there."""
    environment = environment_at(tmp_path / "store", map_size=512 * 1024)
    store = LmdbStore(environment, "default")
    machine = Machine(store, 50)
    apply_all(machine, [batch(put(b"a", b"1"))])
    before = machine.digest
    machine.begin()
    with pytest.raises(StoreFullError, match="cannot grow"):
        machine.apply(2, batch(*[put(b"k%d" % n, bytes(100_000)) for n in range(10)]))
    machine.abort()
    assert (machine.digest, machine.read(b"a").value) == (before, b"1")
    apply_all(machine, [batch(put(b"b", b"2"))])
    assert machine.applied_slot == 2
    store.close()
    environment.close()


def test_writes_need_a_transaction(store):
    """A write outside begin and commit, or a second begin, is a bug."""
    with pytest.raises(InvariantError):
        store.put_meta("a", b"1")
    store.begin()
    with pytest.raises(InvariantError):
        store.begin()


def test_destroy_leaves_nothing(tmp_path):
    """After destroy the directory holds no file of the store."""
    environment = environment_at(tmp_path / "store")
    environment.destroy()
    assert list((tmp_path / "store").iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from replicad.core.kv.machine import Machine
from replicad.node.lmdb_store import LmdbStore, StoreEnvironment
from tests.core.kv.state_builders import batch, put
machine = Machine(LmdbStore(StoreEnvironment(Path(sys.argv[1]), disk="disk", machine_boot="boot"), "default"), 50)
for slot in range(1, 10**9):
    machine.begin()
    machine.apply(slot, batch(put(b"slot", b"%d" % slot, base=slot - 1), put(b"k%d" % (slot % 999), base=slot - 1)))
    machine.commit()
    print(slot, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_slot(tmp_path):
    """SIGKILL between any two instructions: what was committed is there, and the state is that of one slot."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "store")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    lines = [process.stdout.readline() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().splitlines(keepends=True)
    process.wait()
    process.stdout.close()
    said = [line for line in lines + rest if line.endswith(b"\n")]
    environment = environment_at(tmp_path / "store")
    store = LmdbStore(environment, "default")
    machine = Machine(store, 50)
    assert store.trusted("disk", "boot")
    assert machine.applied_slot >= int(said[-1])
    assert machine.read(b"slot").value == b"%d" % machine.applied_slot
    assert machine.index == 2 * machine.applied_slot
    store.close()
    environment.close()
