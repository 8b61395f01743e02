"""A group's databases that cannot be deleted, because there is no space to write down that they are gone."""

import lmdb
import pytest

from replicad.core.journal.recovery import DurableState
from replicad.core.kv.machine import Machine
from replicad.node.identity import DataDirectory
from replicad.node.lmdb_environment import TRUST
from replicad.node.lmdb_store import LmdbStore, StoreEnvironment
from replicad.node.opening import open_group
from replicad.node.settings import load
from tests.core.kv.state_builders import apply_all, batch, put
from tests.node.test_bad_files import Notes

pytestmark = pytest.mark.xdist_group("files")


class Full:
    """An LMDB environment whose write transactions find no space when they delete a database."""

    def __init__(self, real):
        self.real = real

    def begin(self, *arguments, write=False, **options):
        if write:
            raise lmdb.MapFullError("no space")
        return self.real.begin(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.fixture
def place(tmp_path):
    """A directory of n1, its settings, and an environment in which the group `orders.1` has applied 29 slots."""
    (tmp_path / "c.toml").write_text('[cluster]\nname = "c"\n[nodes.n1]\ndata = "n1"\n')
    settings = load(tmp_path / "c.toml", "n1", {})
    data = DataDirectory(settings.data, "c", "n1")
    environment = StoreEnvironment(data.path / "store", disk=data.identity.disk, machine_boot="boot")
    store = LmdbStore(environment, "orders.1")
    apply_all(Machine(store, 50), [batch(put(b"k%d" % number)) for number in range(29)])
    store.flush()
    store.close()
    yield data, settings, environment
    environment.close()
    data.close()


def drop_on_a_full_disk(environment):
    real, environment.lmdb = environment.lmdb, Full(environment.lmdb)
    environment.drop("orders.1")
    environment.lmdb = real


def test_what_could_not_be_deleted_counts_for_nothing_when_the_group_is_back(place):
    """The node was removed from the group and added again: it begins empty, and not with what it held before."""
    data, settings, environment = place
    drop_on_a_full_disk(environment)
    assert "orders.1" in environment.groups()
    opened = open_group(data, settings, environment, "orders.1", DurableState(), Notes())
    assert (opened.machine.applied_slot, opened.rebuild) == (0, False)
    assert list(opened.store.scan(b"")) == []
    opened.store.close()


def test_nor_at_a_later_start(place):
    """The next start begins with an empty store, whatever the databases hold."""
    data, _, environment = place
    drop_on_a_full_disk(environment)
    assert not (environment.path / TRUST).exists()
    environment.close()
    again = StoreEnvironment(environment.path, disk=data.identity.disk, machine_boot="boot")
    assert again.groups() == []
    again.close()


def test_with_space_they_are_gone(place):
    """Nothing is left, and the store of the other groups stays trusted."""
    _, _, environment = place
    environment.drop("orders.1")
    assert environment.groups() == []
    assert environment.leftovers == {}
    assert (environment.path / TRUST).exists()
