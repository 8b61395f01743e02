"""``replicad recover`` on data directories made by hand: every refusal, and that nothing is changed without consent."""

import asyncio
import hashlib
import json
import os
import shutil

import pytest
import structlog

from replicad.cli import locks
from replicad.cli import recover as recovering
from replicad.core.journal.records import CheckpointRecord, EntryRecord, FormationRecord, PromiseRecord, WatermarkRecord
from replicad.core.kv.machine import Machine
from replicad.core.model.configuration import Configuration
from replicad.core.model.operations import CONFIGURATION, encode_batch
from replicad.node.identity import LOST, DataDirectory, machine_boot_id
from replicad.node.lmdb_store import LmdbStore, StoreEnvironment
from replicad.node.opening import open_log
from replicad.node.settings import load
from replicad.node.survivor import read_survivor
from replicad.node.wal import Callbacks, MessageLog
from tests.cli.served import served
from tests.core.kv.state_builders import apply_all, batch, put
from tests.http.fake import FakeNode

pytestmark = pytest.mark.xdist_group("files")

SEGMENT_BYTES = 5 << 20
EPOCH = 3_000_001
CONSENT = ("--yes-i-lose-data", "c")
DISKS = {"n1": "1" * 16, "n2": "2" * 16, "n3": ""}


class Place:
    """A settings file with nodes n1 to n3, of which n3 is here, and the means to make directories."""

    def __init__(self, root, run):
        self.root, self.run = root, run
        self.config = root / "cluster.toml"
        self.data = root / "n3"
        self.addresses = {"n1": "127.0.0.1:1", "n2": "127.0.0.1:2", "n3": "127.0.0.1:3"}

    def settings(self):
        text = f'[cluster]\nname = "c"\n[node]\nsegment_bytes = {SEGMENT_BYTES}\n'
        for number, (name, http) in enumerate(self.addresses.items(), 1):
            text += (
                f'[nodes.{name}]\nhttp_listen = "{http}"\npeer_listen = "127.0.0.1:{100 + number}"\ndata = "{name}"\n'
            )
        self.config.write_text(text)

    def make(self, node="n3", group="default", **options):
        """Make a node's directory; returns its disk id."""
        return asyncio.run(make(self.root / node, node, {group: options}))

    def recover(self, *arguments, **options):
        """Run the command for n3."""
        self.settings()
        return self.run("recover", "--config", self.config, "--node", "n3", *arguments, **options)

    def refused(self, *arguments, code=1, **options):
        """Run the command, which changes nothing; returns what it says."""
        before = contents(self.root)
        result = self.recover(*arguments, **options)
        assert result.exit_code == code, result.output + result.stderr
        assert contents(self.root) == before
        return result.output + result.stderr

    def survivor(self, node="n3"):
        """Read a directory as the command does."""
        self.settings()
        return read_survivor(self.root / node, "c", load(self.config, node, {}).limits)


async def make(path, node, groups):
    """Build a directory: slots 1 to ``slots`` accepted at ``epoch``, those up to ``committed`` known as committed."""
    data = DataDirectory(path, "c", node)
    identity = data.identity
    log = MessageLog(path, identity.log, rebooted=True, started_before=False, segment_bytes=SEGMENT_BYTES)
    done = asyncio.get_running_loop().create_future()
    log.start(asyncio.get_running_loop(), Callbacks(done.set_result, done.set_exception))
    records = []
    for group, options in groups.items():
        records += [(group, record) for record in made(node, identity.disk, **options)]
    log.append(records, 1)
    await done
    await asyncio.to_thread(log.close)
    data.record_start()
    data.close()
    return identity.disk


def made(node, disk, *, slots=5, committed=4, epoch=EPOCH, disks=DISKS, configuration=None, formed=True, more=()):
    """Return the records of one group; a disk "" among ``disks`` is the own one."""
    disks = {name: disk if name == node else other for name, other in disks.items()}
    configuration = configuration(disk) if configuration else Configuration.initial(disks)
    yield PromiseRecord(epoch)
    if formed:
        yield FormationRecord(configuration.encode())
    for slot in range(1, slots + 1):
        yield EntryRecord(slot, epoch, 0, False, batch(put(b"k%d" % slot, b"v"), put(b"l%d" % slot, b"v")))
    yield from more
    yield WatermarkRecord(committed)


def contents(root):
    """Return a digest, and the time of the last change, of every file."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "cluster.toml")
    return {
        str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in files
    }


@pytest.fixture
def place(tmp_path, replicad):
    return Place(tmp_path, replicad)


class Running(FakeNode):
    """A node that answers with a status of its own making."""

    def __init__(self, name, disk, cluster="c", **groups):
        super().__init__()
        self.said = {"node": name, "cluster": cluster, "disk": disk, "groups": groups}

    def status(self):
        return self.said


def group(committed=4, highest=5, version=1, role="follower", **disks):
    """Return what a status page says of a group."""
    members = [{"node": node, "disk": disk, "state": "", "matched_slot": 0} for node, disk in disks.items()]
    said = {"role": role, "committed_slot": committed, "highest_slot": highest}
    return {**said, "configuration": version, "members": members}


# --- what is refused --------------------------------------------------------------------------------------------------


def test_there_must_be_data(place):
    """An empty directory is no survivor."""
    assert "holds no data of a node" in place.refused(*CONSENT)


def test_the_node_must_be_stopped(place):
    """Its lock is asked for first."""
    place.make()
    descriptor = locks.take(place.data)
    try:
        assert "a node is running on" in place.refused(*CONSENT)
    finally:
        os.close(descriptor)


def test_settings_and_arguments_that_make_no_sense(place):
    """A file that is not there, a node that is not in it, another cluster's name, JSON that would have to ask."""
    place.make()
    assert place.run("recover", "--config", "/no/such", "--node", "n3").exit_code == 2
    place.settings()
    result = place.run("recover", "--config", place.config, "--node", "n9")
    assert (result.exit_code, "there is no node 'n9'" in result.stderr) == (2, True)
    assert "the cluster is 'c'; nothing was changed" in place.refused("--yes-i-lose-data", "d", code=2)
    assert "--json does not ask" in place.refused("--json", code=2)


def test_a_group_that_is_not_here(place):
    """The groups that are here are named."""
    place.make()
    assert "group 'orders' is not in" in place.refused("--group", "orders", *CONSENT)
    assert "there is: default" in place.refused("--group", "orders", *CONSENT)


def test_a_directory_of_another_node_or_cluster(place):
    """Settings that point to the wrong directory are no reason to change it."""
    place.make("n1")
    (place.root / "n1").rename(place.data)
    assert "belongs to node 'n1', and this is 'n3'" in place.refused(*CONSENT)
    place.data.rename(place.root / "n1")
    place.make()
    DataDirectory(place.root / "other", "d", "n2").close()
    assert "belongs to cluster 'd'" in place.refused("--also", place.root / "other", *CONSENT)


def test_a_disk_that_was_lost(place):
    """What was set aside and began anew has nothing to go on from, whatever it has fetched since."""
    place.make(disks={"n1": "1" * 16, "n2": "2" * 16})
    data = DataDirectory(place.data, "c", "n3")
    data.set_state(LOST)
    data.close()
    assert "was damaged and set aside" in place.refused(*CONSENT)


def test_a_disk_that_was_lost_and_died_when_it_had_just_been_readmitted(place):
    """Its log shows the vote, although the identity file does not say so yet."""
    place.make()
    data = DataDirectory(place.data, "c", "n3")
    data.set_state(LOST)
    data.close()
    assert "n3 is the only voter now" in place.recover(*CONSENT).output


def test_damage(place):
    """A log with a bad record in its middle, and an identity that does not verify."""
    place.make()
    segment = place.data / "wal" / "00000001.seg"
    data = bytearray(segment.read_bytes())
    data[4096 + 30] ^= 1
    segment.write_bytes(data)
    assert "is damaged, a group cannot go on from there" in place.refused(*CONSENT)
    segment.unlink()
    assert "is damaged" in place.refused(*CONSENT)
    (place.data / "identity.json").write_text("{}")
    assert "identity.json is damaged" in place.refused(*CONSENT)


async def applied(path, applied, *, group="default", slots=None):
    """Give a directory a store that has applied slots 1 to ``applied``; ``slots``: up to there it is written."""
    data = DataDirectory(path, "c", "n3")
    environment = StoreEnvironment(path / "store", disk=data.identity.disk, machine_boot=machine_boot_id())
    store = LmdbStore(environment, group)
    machine = Machine(store, 16_384)
    values = [batch(put(b"k%d" % slot, b"v"), put(b"l%d" % slot, b"v")) for slot in range(1, applied + 1)]
    apply_all(machine, values[: slots or applied])
    store.flush()
    environment.note_reached(group, applied)
    store.close()
    environment.close()
    data.close()


def start(place):
    """Open the directory as a start of the node does; returns whether it was set aside."""
    place.settings()
    settings = load(place.config, "n3", {})
    data = DataDirectory(place.data, "c", "n3")
    disk = data.identity.disk
    environment, log = open_log(data, settings, structlog.get_logger())
    environment.close()
    log.close()
    data.close()
    return data.identity.disk != disk


@pytest.mark.parametrize("slots", [10, 3], ids=["written", "by the watermark"])
def test_a_log_that_is_older_than_the_store(place, slots):
    """The next start would set everything aside: recover says so, and what to do; after that a start goes on."""
    place.make(slots=8, committed=8)
    asyncio.run(applied(place.data, 10, slots=slots))
    said = place.refused(*CONSENT)
    assert "the next start sets all that is in" in said
    assert "the store has applied slot 10, and the message log lacks slot 9" in said
    assert "Put the wal directory back" in said
    assert "the message log alone counts, which holds slots up to 8" in said
    copy = Place(place.root.with_name(f"{place.root.name}-copy"), place.run)
    shutil.copytree(place.root, copy.root)
    assert start(copy)
    (place.data / "store").rename(place.root / "store")
    assert "n3 is the only voter now" in place.recover(*CONSENT).output
    assert not start(place)


def test_a_group_that_only_the_store_knows(place):
    """A log from before the group was made is an older one, too, whichever group is to be recovered."""
    place.make()
    asyncio.run(applied(place.data, 2, group="orders.1"))
    assert "group orders.1: the store has applied slot 2, and the message log lacks slot 1" in place.refused(*CONSENT)
    assert start(place)


def test_the_recovered_vote_does_not_hang_on_the_store(place):
    """The configuration counts from what the log bears witness to, for a restart of the machine takes the store."""
    place.make(slots=8, committed=3)
    asyncio.run(applied(place.data, 6))
    assert place.survivor().groups["default"].committed == 6
    assert place.recover(*CONSENT).exit_code == 0
    (place.data / "store").rename(place.root / "store")
    held = place.survivor().groups["default"]
    assert (held.configuration.slot, held.committed, held.voter) == (3, 3, True)


def test_a_checkpoint_that_is_gone(place):
    """Without the state below, the log is no whole."""
    place.make(more=[CheckpointRecord(3, b"d" * 16)])
    said = place.refused(*CONSENT)
    assert "is not whole: the file of checkpoint 3 is gone" in said
    (place.data / "checkpoints").mkdir()
    (place.data / "checkpoints" / "default-3.ckpt").write_bytes(b"x" * 100)
    assert "is not whole: its checkpoint default-3.ckpt is damaged" in place.refused(*CONSENT)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"formed": False}, "the group never formed here"),
        ({"disks": {"n1": "1" * 16, "n2": "2" * 16}}, "has no vote in default"),
        (
            {"configuration": lambda _: Configuration.initial({"n1": "1", "n2": "2", "n3": "3"})},
            "and another disk for n3",
        ),
        (
            {"configuration": lambda disk: Configuration.initial({"n1": "1", "n3": "3"}).with_disk("n3", disk, 9)},
            "does not hold what came before: it ends at slot 4",
        ),
        ({"disks": {"n3": ""}}, "n3, 1 of 1 voters, have their disks"),
    ],
    ids=["never formed", "no voter", "another disk", "admitted later", "alone"],
)  # fmt: skip
def test_a_disk_without_a_vote(place, options, words):
    """Whoever has no vote, or does not hold the log up to its admission, cannot speak for the group."""
    place.make(**options)
    assert words in place.refused(*CONSENT)


def test_a_configuration_in_the_log_counts(place):
    """One that is committed in the log, and not recorded yet, took this disk's vote away."""

    def later(disk):
        return Configuration.initial({"n1": "1", "n2": "2", "n3": disk}).without("n3", 4)

    place.make(slots=3, more=[EntryRecord(4, EPOCH, 0, False, encode_batch(CONFIGURATION, later("3").encode()))])
    assert "the newest configuration has the voters n1, n2" in place.refused(*CONSENT)


def test_a_majority_in_directories(place):
    """With n2's old directory two of three are there."""
    disk = place.make("n2")
    place.make(disks={"n1": "1", "n2": disk, "n3": ""})
    said = place.refused("--also", place.root / "n2", *CONSENT)
    assert "n3 and n2, 2 of 3 voters, have their disks: that is a majority" in said
    assert f"Put {place.root / 'n2'} (node n2) where its node looks for it" in said


@pytest.mark.parametrize(
    ("theirs", "refused"),
    [
        ({"committed": 5}, True),
        ({"slots": 6}, True),
        ({"epoch": EPOCH + 1_000_000}, True),
        ({}, False),
        ({"epoch": EPOCH - 1_000_000}, False),
        ({"slots": 9, "committed": 3}, False),
    ],
    ids=["more committed", "more accepted", "a later ballot", "the same", "an earlier ballot", "less committed"],
)
def test_the_survivor_that_holds_most_is_the_one(place, theirs, refused):
    """Two of five survive: committed slots decide, then the ballot and the slot that were accepted last."""
    voters = {"n1": "1" * 16, "n2": "", "n3": "3" * 16, "n4": "4" * 16, "n5": "5" * 16}
    disk = place.make("n2", disks=voters, **theirs)
    place.make(disks={**voters, "n2": disk, "n3": ""})
    arguments = ("--also", place.root / "n2")
    if refused:
        said = place.refused(*arguments, *CONSENT)
        assert "holds more of default" in said
        assert "Run this there" in said
    else:
        said = place.recover(*arguments, "--dry-run").output
        assert "3 of 5 voters are gone with their disks (n1, n4, n5)" in said
        assert ("n2, a voter, holds slots up to 9, which are given up" in said) == ("slots" in theirs)


def test_directories_that_cannot_be_compared(place):
    """One that is not there, the survivor's own, and one on which a node runs."""
    place.make()
    assert "holds no data of a node" in place.refused("--also", place.root / "none", *CONSENT)
    assert "is node n3's own" in place.refused("--also", place.data, *CONSENT, code=2)
    place.make("n2")
    descriptor = locks.take(place.root / "n2")
    try:
        assert "a node is running on" in place.refused("--also", place.root / "n2", *CONSENT)
    finally:
        os.close(descriptor)


# --- what running nodes say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (Running("n2", "2" * 16, default=group()), "that is a majority, and nothing is lost"),
        (Running("n2", "2" * 16), "that is a majority, and nothing is lost"),
        (Running("n2", "x", default=group(9, 9, 2, n1="1" * 16, n2="x")), "has no vote in default"),
        (Running("n2", "x", default=group(9, 9, 1_000_000, n2="x")), "the newest configuration has the voters n2"),
    ],
    ids=["its disk", "its disk, the group closed", "n3 was removed", "recovered there"],
)
def test_running_nodes_that_make_it_needless_or_wrong(place, node, words):
    """A majority that answers, or that has gone on without this disk."""
    place.make()
    with served(node) as (_, address):
        place.addresses["n2"] = address
        assert words in place.refused(*CONSENT)


@pytest.mark.parametrize(
    ("node", "row"),
    [
        (Running("n2", "x", default=group(0, 0, 0, role="unformed")), "LOST, another one"),
        (Running("n2", "2" * 16, "d"), "node n2 of d answers there"),
        (Running("n7", "2" * 16), "node n7 of c answers there"),
        (Running("n2", "2" * 16, default={}), "something else than replicad answers there"),
    ],
    ids=["wiped", "another cluster", "another node", "nonsense"],
)
def test_running_nodes_that_have_nothing(place, node, row):
    """They are shown, and do not count."""
    place.make()
    with served(node) as (_, address):
        place.addresses["n2"] = address
        said = place.refused("--dry-run", code=0)
        assert row in said
        assert "2 of 3 voters are gone with their disks (n1, n2)" in said


def test_a_mirror_that_holds_more(place):
    """It has no vote; what it holds beyond is shown as lost, to be saved first."""
    place.make()
    mirror = Running("n4", "4" * 16, default=group(70, 70, 1, "mirror"))
    with served(mirror) as (_, address):
        place.addresses["n4"] = address
        assert "n4, no voter, holds slots up to 70, which are given up: save first" in place.refused(
            "--dry-run", code=0
        )


# --- asking and doing -------------------------------------------------------------------------------------------------


def test_the_plan_says_what_may_be_lost(place):
    """Who has what, where the log ends, and what is open; nothing is changed."""
    place.make()
    said = place.refused("--dry-run", code=0)
    assert "2 of 3 voters are gone with their disks (n1, n2): no majority is left" in said
    assert "The log ends here at slot 5, index 10." in said
    assert "Slot 5 may or may not have been committed" in said
    assert "X-Consul-Index above 10" in said
    assert "Nothing was heard of n1, n2." in said
    plan = json.loads(place.refused("--dry-run", "--json", code=0))
    assert (plan["done"], plan["configurations"]) == (False, {"default": 1_000_000})
    assert plan["plans"][0]["verdict"] == "recover"
    assert plan["plans"][0]["holding"]["index"] == 10


def test_without_consent_nothing_is_changed(place, monkeypatch):
    """Nobody to ask, another word, or nothing at all."""
    place.make()
    assert "nobody can be asked here" in place.refused()
    monkeypatch.setattr(recovering, "at_terminal", lambda: True)
    for answer in ("yes\n", "\n", "C\n", "default\n"):
        assert "nothing was changed" in place.refused(input=answer)
    place.refused(input="")


@pytest.mark.parametrize("consent", ["typed", "given"])
def test_with_consent_it_is_done(place, monkeypatch, consent):
    """The disk is the only voter of the next generation, durably; a second run finds nothing to recover."""
    disk = place.make()
    monkeypatch.setattr(recovering, "at_terminal", lambda: True)
    result = place.recover(input="c\n") if consent == "typed" else place.recover(*CONSENT)
    assert result.exit_code == 0, result.output + result.stderr
    assert "group default: n3 is the only voter now" in result.output
    held = place.survivor().groups["default"]
    assert held.configuration.nodes() == ("n3",)
    assert held.configuration.holds("n3", disk)
    assert (held.configuration.version, held.configuration.slot, held.voter) == (1_000_000, 4, True)
    assert (held.committed, held.highest) == (4, 5)
    assert "n3, 1 of 1 voters, have their disks" in place.refused(*CONSENT)


def test_all_groups(place):
    """Those that have lost their majority are recovered together; the others stay as they are."""
    asyncio.run(make(place.data, "n3", {"_meta": {}, "default": {}, "single": {"disks": {"n3": ""}}}))
    said = place.refused("--dry-run", code=0)
    assert "also without a majority: _meta; --all-groups" in said
    said = place.refused("--dry-run", "--all-groups", code=0)
    assert "group single stays as it is: n3, 1 of 1 voters" in said
    result = place.recover("--all-groups", *CONSENT)
    assert "groups _meta and default: n3 is the only voter now" in result.output
    versions = {name: held.configuration.version for name, held in place.survivor().groups.items()}
    assert versions == {"_meta": 1_000_000, "default": 1_000_000, "single": 1}
    assert "nothing was changed" in place.refused("--all-groups", *CONSENT)


def test_a_log_that_cannot_be_written(place):
    """A directory that may only be read gets a sentence."""
    place.make()
    place.settings()
    wal = place.data / "wal"
    (wal / "00000002.seg").unlink()
    (wal / "00000002.new").mkdir()
    result = place.recover(*CONSENT)
    assert result.exit_code == 1
    assert "could not be written" in result.stderr
