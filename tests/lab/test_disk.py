from random import Random

import pytest

from replicad.core.journal.records import EntryRecord, PromiseRecord
from replicad.core.journal.recovery import recover
from replicad.core.journal.segments import LogIdentity
from replicad.core.journal.space import SPARES_KEPT
from replicad.core.model.errors import DamageError
from replicad.lab.disk import VirtualDisk
from replicad.lab.events import EventQueue
from replicad.lab.swarm import DiskFaults
from replicad.lab.virtual_log import RETRY_US, VirtualLog, used_bytes

IDENTITY = LogIdentity("lab", "n1", "d1")
SIZE = 8_192


class Machine:
    """A disk, a log on it, and the records that were reported durable."""

    def __init__(self, seed):
        self.disk = VirtualDisk(Random(seed), SIZE)
        self.queue = EventQueue()
        self.durable = []
        self.open(rebooted=True)

    def open(self, *, rebooted):
        """Recover, and return what the log holds."""
        recovery = recover(self.disk.segments(), IDENTITY, rebooted=rebooted)
        self.log = VirtualLog(
            identity=IDENTITY,
            disk=self.disk,
            recovery=recovery,
            faults=DiskFaults(),
            queue=self.queue,
            random=Random(1),
            at=lambda _point: None,
        )
        return recovery

    def append(self, *slots):
        records = [("g", EntryRecord(slot, 1_000_001, 0, False, b"v%d" % slot * 20)) for slot in slots]
        self.log.append(records, lambda: self.durable.extend(slots))

    def fill(self, count):
        for slot in range(1, count + 1):
            self.append(slot)
            self.queue.run_until(self.queue.now + 2_000)

    def slots(self, recovery):
        return sorted(recovery.states["g"].entries) if recovery.states else []


def test_records_are_durable_only_after_their_flush():
    """Nothing is reported durable at once, and all of it in order after the flush."""
    machine = Machine(1)
    machine.append(1)
    machine.append(2, 3)
    assert machine.durable == []
    machine.queue.run_until(10_000)
    assert machine.durable == [1, 2, 3]


@pytest.mark.parametrize("power", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_a_crash_keeps_what_was_durable_and_invents_nothing(seed, power):
    """After a crash at any time the log holds a prefix that includes everything reported durable."""
    machine = Machine(seed)
    random = Random(seed)
    for slot in range(1, 60):
        machine.append(slot)
        machine.queue.run_until(machine.queue.now + random.randrange(600))
    machine.log.stop()
    if power:
        machine.disk.lose_power()
    else:
        machine.disk.die(cut=random.random() < 0.5)
    slots = machine.slots(machine.open(rebooted=power))
    assert slots == list(range(1, len(slots) + 1))
    assert set(machine.durable) <= set(slots)


@pytest.mark.parametrize("seed", range(60))
def test_rot_before_the_last_record_is_noticed(seed):
    """Whatever rot does, the next recovery says that the log is damaged."""
    machine = Machine(seed)
    machine.fill(120)
    machine.log.stop()
    rebooted = bool(seed % 2)
    if rebooted:
        machine.disk.lose_power()
    recovery = recover(machine.disk.segments(), IDENTITY, rebooted=rebooted)
    assert recovery.segment >= 2
    assert machine.disk.rot(used_bytes(recovery))
    with pytest.raises(DamageError):
        recover(machine.disk.segments(), IDENTITY, rebooted=rebooted)


def test_a_hanging_disk_reports_nothing_until_it_goes_on():
    """While the disk hangs no flush ends; afterwards all do."""
    machine = Machine(1)
    machine.log.hang_until = 50_000
    machine.append(1)
    machine.queue.run_until(49_999)
    assert machine.durable == []
    machine.queue.run_until(60_000)
    assert machine.durable == [1]


def test_a_full_disk_takes_promises_and_waits_with_the_rest():
    """On a full disk promises are flushed, other records wait until there is space again."""
    machine = Machine(1)
    told = []
    machine.log.start(told.append)
    machine.disk.full = True
    machine.log.use_up()
    machine.fill(40)
    assert told == [True]
    taken = len(machine.durable)
    assert 0 < taken < 40
    promised = []
    machine.log.append([("g", PromiseRecord(7))], lambda: promised.append(7))
    machine.queue.run_until(machine.queue.now + 10_000)
    assert machine.durable == list(range(1, len(machine.durable) + 1))
    assert machine.disk.promises == ({"g": 7} if promised else {})
    machine.disk.full = False
    machine.queue.run_until(machine.queue.now + 2 * RETRY_US)
    assert (promised, machine.durable, told) == ([7], list(range(1, 41)), [True, False])


def test_promises_have_space_of_their_own():
    """What is reserved for them takes a promise when nothing else has a place any more."""
    machine = Machine(1)
    machine.log.start(lambda _: None)
    machine.disk.full = True
    machine.log.use_up()
    slot = 1
    while len(machine.durable) == slot - 1:
        machine.append(slot)
        machine.queue.run_until(machine.queue.now + 2_000)
        slot += 1
    promised = []
    machine.log.append([("g", PromiseRecord(7))], lambda: promised.append(7))
    machine.queue.run_until(machine.queue.now + 10_000)
    assert promised == [7]


def test_a_start_on_a_full_disk_with_a_segment_ahead_is_not_full():
    """It counts as full when that one is used, and until another is made."""
    machine = Machine(1)
    machine.log.start(lambda _: None)
    machine.fill(2)
    told = []
    machine.log.stop()
    machine.disk.full = True
    machine.open(rebooted=False)
    machine.log.start(told.append)
    machine.queue.run_until(machine.queue.now + 3 * RETRY_US)
    assert told == []
    for slot in range(3, 80):
        machine.append(slot)
        machine.queue.run_until(machine.queue.now + 2_000)
    assert told == [True]
    machine.disk.full = False
    machine.queue.run_until(machine.queue.now + 2 * RETRY_US)
    assert told == [True, False]


def test_starts_leave_no_segments_behind():
    """However often a log is opened, one empty segment stands ready."""
    machine = Machine(1)
    for _ in range(8):
        machine.log.start(lambda _: None)
        machine.log.stop()
        machine.open(rebooted=False)
    machine.log.start(lambda _: None)
    assert machine.log.spare_segments() == SPARES_KEPT
    assert len(machine.disk.segments()) == 1 + SPARES_KEPT


def test_a_wiped_disk_is_empty():
    """After a wipe nothing is left, promises included."""
    machine = Machine(1)
    machine.fill(3)
    machine.disk.wipe()
    assert machine.disk.segments() == []
    assert machine.disk.promises == {}
