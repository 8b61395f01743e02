import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import lmdb
import pytest

from replicad.core.kv.digest import StateDigest
from replicad.core.kv.machine import Machine, read_state
from replicad.core.kv.memory_store import MemoryStore
from replicad.core.model.errors import InvariantError, RequestError
from replicad.core.model.operations import CONFIGURATION, NO_CAS, encode_batch, make_request_id
from replicad.node import lmdb_store
from replicad.node.lmdb_store import LmdbStore, StoreEnvironment, StoreFailedError, StoreFullError
from replicad.node.write_behind import Layer
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
        for number in range(random.randrange(8)):
            rid = make_request_id(seed + 1, slot * 8 + number)
            key = random.choice(keys)
            value = random.randbytes(random.choice([0, 10, 100, 9000]))
            cas = random.choice([NO_CAS, NO_CAS, 0, slot])
            kind = random.randrange(20)
            made = [put(key, value, cas=cas, rid=rid, base=slot - 1), delete(key, rid=rid, base=slot - 1)][kind > 16]
            operations.append(made if kind else delete_prefix(key[:3], rid=rid, base=slot - 1))
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


def test_a_full_map_refuses_writes_and_loses_nothing(tmp_path, monkeypatch):
    """What does not fit is kept, begin raises StoreFullError before anything is applied, and room lets it go on."""
    monkeypatch.setattr(lmdb_store, "LAYER_BYTES", 300_000)
    environment = environment_at(tmp_path / "store", map_size=512 * 1024)
    store = LmdbStore(environment, "default")
    machine, memory = Machine(store, 50), Machine(MemoryStore(), 50)
    values = [batch(put(b"k%d" % n, bytes(100_000))) if n % 7 else batch(delete(b"k1")) for n in range(1, 40)]
    refused = 0
    for value in values:
        while True:
            try:
                machine.begin()
            except StoreFullError:
                assert content(store) == content(memory.store)
                refused += 1
                if refused % 3 == 0:
                    environment.lmdb.set_mapsize(environment.lmdb.info()["map_size"] + 1024 * 1024)
            else:
                break
        machine.apply(machine.applied_slot + 1, value)
        machine.commit()
        apply_all(memory, [value])
    assert refused > 3
    environment.lmdb.set_mapsize(16 * 1024 * 1024)
    store.flush()
    with environment.view("default") as view:
        assert content(view) == content(store) == content(memory.store)
    store.close()
    environment.close()


def test_a_flush_that_does_not_fit_is_taken_back_whole(tmp_path):
    """A commit that must reach the databases and cannot raises; after an abort everything is as it was before it."""
    environment = environment_at(tmp_path / "store", map_size=512 * 1024)
    store = LmdbStore(environment, "default")
    machine = Machine(store, 50)
    apply_all(machine, [batch(put(b"a", b"1"))])
    before = machine.digest, content(store)
    for _ in range(2):
        machine.begin()
        machine.apply(2, batch(*[put(b"k%d" % n, bytes(100_000)) for n in range(10)]))
        with pytest.raises(StoreFullError, match="cannot grow"):
            machine.commit(flush=True)
        machine.abort()
        assert (machine.digest, content(store)) == before
    machine.begin()
    machine.apply(2, batch(put(b"b", b"2")))
    machine.commit(flush=True)
    with environment.view("default") as view:
        assert content(view) == content(store)
    store.close()
    environment.close()


def test_a_failed_write_is_no_full_disk(store, environment, monkeypatch):
    """An error that does not pass by itself raises StoreFailedError, and the next start begins with an empty store."""

    def fail(*_):
        raise lmdb.Error("broken")

    store.begin()
    store.put(b"a", b"1")
    store.commit()
    monkeypatch.setattr(Layer, "write", fail)
    with pytest.raises(StoreFailedError, match="broken"):
        store.flush()
    assert store.get(b"a") == b"1"
    assert not (environment.path / "trust").exists()


@pytest.mark.parametrize(
    ("code", "crowded", "full"),
    [
        (errno.ENOSPC, False, True),
        (errno.EIO, True, True),
        (errno.EIO, False, False),
        (errno.EROFS, True, False),
        (0, True, False),
    ],
)
def test_a_full_disk_is_known_by_its_number(store, environment, monkeypatch, code, crowded, full):
    """What the error says in words means nothing; a write that was cut short is a full disk if there is no room."""

    def fail(*_):
        error = lmdb.Error(f"{os.strerror(errno.ENOSPC)}, {os.strerror(errno.EIO)}")
        error.code = code
        raise error

    monkeypatch.setattr(Layer, "write", fail)
    monkeypatch.setattr(environment, "crowded", lambda: crowded)
    store.begin()
    store.put(b"a", b"1")
    store.commit()
    with pytest.raises(StoreFullError if full else StoreFailedError):
        store.flush()
    assert (environment.path / "trust").exists() == full


@pytest.mark.parametrize("seed", range(6))
def test_layers_are_invisible(tmp_path, monkeypatch, seed):
    """Whatever is written when, aborted, cleared, viewed or reopened: the store shows what a store in memory shows."""
    monkeypatch.setattr(lmdb_store, "LAYER_KEYS_FIRST", 20)
    monkeypatch.setattr(lmdb_store, "LAYER_KEYS", 20)
    monkeypatch.setattr(lmdb_store, "LAYER_COMMITS", 9)
    random = Random(seed)
    environment = environment_at(tmp_path / "store")
    store = LmdbStore(environment, "default")
    other = LmdbStore(environment, "other")
    machine, memory = Machine(store, 5), Machine(MemoryStore(), 5)
    views = []
    for value in random_values(seed, 400):
        what = random.randrange(40)
        if what == 0:
            store.flush()
        elif what == 1:
            environment.relieve()
        elif what == 3:
            machine.begin()
            machine.apply(machine.applied_slot + 1, value)
            machine.abort()
        elif what == 4:
            store.begin()
            store.clear()
            assert list(store.scan(b"")) == []
            store.abort()
        elif what == 5:
            store.close()
            store = LmdbStore(environment, "default")
            machine = Machine(store, 5)
        elif what == 6:
            other.begin()
            other.put(b"x", value)
            other.commit(flush=random.random() < 0.5)
        elif what == 7:
            views.append((store.view(), memory.store.snapshot()))
            views[-1] = (views[-1][0], views[-1][0].__enter__(), views[-1][1])
        elif what == 8 and views:
            context, view, then = views.pop(random.randrange(len(views)))
            assert content(view) == content(then)
            assert list(view.scan(b"a/1", b"a/12")) == list(then.scan(b"a/1", b"a/12"))
            assert all(view.get(key) == entry for key, entry in then.scan(b""))
            context.__exit__(None, None, None)
        assert apply_all(machine, [value]) == apply_all(memory, [value])
        assert machine.digest == memory.digest
        assert content(store) == content(memory.store)
        for prefix in (b"a/1", b"b", b"\xff/", b"nothing"):
            assert list(store.scan(prefix, prefix + b"3")) == list(memory.store.scan(prefix, prefix + b"3"))
    for context, *_ in views:
        context.__exit__(None, None, None)
    assert environment.unwritten == store.unwritten + other.unwritten
    store.close()
    other.close()
    assert environment.unwritten == 0
    environment.close()


def test_the_databases_hold_the_state_after_a_slot(store, environment, monkeypatch):
    """Whenever another process looks, it finds one slot's state, whose digest adds up, and at most a layer old."""
    monkeypatch.setattr(lmdb_store, "LAYER_COMMITS", 7)
    machine = Machine(store, 50)
    seen = set()
    for value in random_values(9, 300):
        apply_all(machine, [value])
        with environment.view("default") as view:
            slot, _, digest, configuration = read_state(view)
            state = StateDigest()
            for key, entry in view.scan(b""):
                state.add_entry(key, entry)
            for at, record in view.scan_requests():
                state.add_requests(at, record)
            state.add_configuration(configuration)
            assert state.value() == digest
            assert machine.applied_slot - 7 <= slot <= machine.applied_slot
            seen.add(slot)
    assert len(seen) > 20


def test_how_far_it_came_is_noted_at_once_and_forgotten_with_the_content(environment):
    """A commit that is not written yet is noted; a clear takes the note back first, and so does a group's end."""
    store = LmdbStore(environment, "default")
    machine = Machine(store, 50)
    apply_all(machine, random_values(1, 30))
    assert environment.reached_by("default") == 29
    store.begin()
    store.clear()
    assert environment.reached_by("default") == 0
    store.abort()
    apply_all(machine, [batch(put(b"a"))])
    assert environment.reached_by("default") == 30
    store.close()
    environment.drop("default")
    assert environment.reached_by("default") == 0


def test_a_layer_is_as_large_as_can_be_written_in_time(environment, monkeypatch):
    """If writing takes too long the next layer is smaller, down to a limit; if not it grows again, up to a limit."""
    store = LmdbStore(environment, "default")

    def keys_written():
        """Put one key a commit until the databases have changed; return how many that took."""
        monkeypatch.setattr(lmdb_store, "LAYER_COMMITS", 10**9)
        for number in range(1, 10_000):
            store.begin()
            if not store.unwritten and number > 1:
                store.abort()
                return number - 1
            store.put(b"%d" % number, b"")
            store.commit()
        raise AssertionError

    monkeypatch.setattr(lmdb_store, "FLUSH_SECONDS", 0)
    assert [keys_written(), keys_written()] == [lmdb_store.LAYER_KEYS_FIRST, lmdb_store.LAYER_KEYS_MIN]
    monkeypatch.setattr(lmdb_store, "FLUSH_SECONDS", 1000)
    assert [keys_written() for _ in range(6)] == [256, 512, 1024, 2048, 4096, 4096]
    store.close()


def test_idle_groups_do_not_keep_memory(environment, monkeypatch):
    """When all groups together keep too much, the largest of them is written, though nobody writes to it."""
    monkeypatch.setattr(lmdb_store, "UNWRITTEN_BYTES", 100_000)
    idle, busy = LmdbStore(environment, "idle"), LmdbStore(environment, "busy")
    for store, key in ((idle, b"a"), (busy, b"b"), (busy, b"c")):
        store.begin()
        store.put(key, bytes(70_000))
        store.commit()
    busy.begin()
    busy.commit()
    assert idle.unwritten == 0
    assert environment.unwritten < 150_000
    assert idle.get(b"a") == bytes(70_000)
    idle.close()
    busy.close()


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
from replicad.node import lmdb_store
from replicad.node.lmdb_store import LmdbStore, StoreEnvironment
from tests.node.test_lmdb_store import random_values
lmdb_store.LAYER_KEYS_FIRST = lmdb_store.LAYER_KEYS = 50
lmdb_store.LAYER_COMMITS = 20
machine = Machine(LmdbStore(StoreEnvironment(Path(sys.argv[1]), disk="disk", machine_boot="boot"), "default"), 50)
values = random_values(int(sys.argv[2]), 5_000)
machine.begin()
machine.commit(flush=True)
print("ready", flush=True)
for slot in range(machine.applied_slot + 1, len(values)):
    machine.begin()
    machine.apply(slot, values[slot - 1])
    machine.commit(flush=slot % 90 == 0)
    print(slot, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_goes_on_from_a_whole_slot(tmp_path, seed):
    """SIGKILL at any moment of writing a layer: the store is the state of one slot, and the slots after it, applied
    again, give what they gave before. What was flushed is there; of the rest at most a layer is missing.
    """
    random = Random(seed)
    values = random_values(seed, 5_000)
    command = [sys.executable, "-c", WRITER, str(tmp_path / "store"), str(seed)]
    memory = Machine(MemoryStore(), 50)
    for _ in range(6):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert process.stdout.readline() == b"ready\n"
        lines = [process.stdout.readline() for _ in range(random.randrange(1, 150))]
        for _ in range(random.randrange(3000)):
            pass  # not at the moment of an answer
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        said = max(int(line) for line in lines if line.endswith(b"\n"))
        environment = environment_at(tmp_path / "store")
        store = LmdbStore(environment, "default")
        found = Machine(store, 50)
        assert store.trusted("disk", "boot")
        assert said // 90 * 90 <= found.applied_slot
        assert said - 20 <= found.applied_slot <= said + 1
        assert said <= environment.reached_by("default") <= said + 1
        if found.applied_slot < memory.applied_slot:
            memory = Machine(MemoryStore(), 50)
        apply_all(memory, values[memory.applied_slot : found.applied_slot])
        assert content(store)[:2] == content(memory.store)[:2]
        assert (found.digest, found.index, found.configuration) == (memory.digest, memory.index, memory.configuration)
        again = values[found.applied_slot : environment.reached_by("default") + 60]
        assert apply_all(found, again) == apply_all(memory, again)
        assert found.digest == memory.digest
        store.close()
        environment.close()


def test_an_idle_store_pins_no_pages(tmp_path):
    """A store that was only read keeps nothing from being reused: the file stops growing while another is written."""
    environment = StoreEnvironment(tmp_path / "store", disk="d", machine_boot="b")
    idle, busy = LmdbStore(environment, "idle"), LmdbStore(environment, "busy")
    sizes = []
    for number in range(12):
        idle.get(b"nothing")
        busy.begin()
        for key in range(2_000):
            busy.put(b"%06d" % key, b"%02d" % number * 60)
        busy.commit(flush=True)
        sizes.append(environment.size())
    assert sizes[-1] == sizes[3]
    for store in (idle, busy):
        store.close()
    environment.close()
