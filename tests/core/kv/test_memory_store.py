import pytest

from replicad.core.kv.memory_store import MemoryStore
from replicad.core.model.errors import InvariantError


def filled():
    store = MemoryStore()
    store.begin()
    for key in (b"b", b"a", b"ab", b"c"):
        store.put(key, b"1" + key)
    store.put_requests(3, b"r")
    store.put_meta("m", b"1")
    store.commit()
    return store


def content(store):
    return list(store.scan(b"")), list(store.scan_requests()), store.get_meta("m")


def test_scan_is_ordered_and_bounded():
    """Keys come in order, those with the prefix only, and those after a given one only."""
    store = filled()
    assert [key for key, _ in store.scan(b"")] == [b"a", b"ab", b"b", b"c"]
    assert [key for key, _ in store.scan(b"a")] == [b"a", b"ab"]
    assert [key for key, _ in store.scan(b"a", b"a")] == [b"ab"]
    assert [key for key, _ in store.scan(b"", b"ab")] == [b"b", b"c"]


def test_abort_takes_everything_back():
    """Puts, overwrites, deletes and a clear are undone together."""
    store = filled()
    before = content(store)
    store.begin()
    store.put(b"a", b"2")
    store.put(b"z", b"2")
    store.delete(b"b")
    store.put_meta("m", b"2")
    store.clear()
    store.put(b"b", b"3")
    store.put_requests(3, b"other")
    store.abort()
    assert content(store) == before


def test_a_snapshot_stands_still():
    """Later writes do not reach a snapshot, nor writes to the snapshot its origin."""
    store = filled()
    copy = store.snapshot()
    before = content(store)
    store.begin()
    store.clear()
    store.commit()
    assert content(copy) == before
    assert content(store) == ([], [], None)


def test_writes_need_a_transaction():
    """A write outside begin and commit is a bug, as is a second begin."""
    store = MemoryStore()
    with pytest.raises(InvariantError):
        store.put(b"a", b"1")
    assert store.get(b"a") is None
    store.begin()
    with pytest.raises(InvariantError):
        store.begin()
