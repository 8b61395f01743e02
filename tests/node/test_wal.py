"""The message log on real files: durable before it says so, silent after a failure, and patient with a full disk."""

import asyncio
import errno
import subprocess
import sys
import threading
import traceback

import pytest

from replicad.core.journal.records import CheckpointRecord, EntryRecord, FormationRecord, PromiseRecord, WatermarkRecord
from replicad.core.journal.segments import FRAME_BYTES, HEADER_BYTES, SEGMENT_BYTES_MIN, LogIdentity, encode_record
from replicad.core.model.errors import DamageError
from replicad.node.disk_operations import DiskOperations
from replicad.node.inspect import inspect_log
from replicad.node.promise_file import BLOCK_BYTES, PromiseFile
from replicad.node.segment_files import SegmentFiles, segment_numbers
from replicad.node.wal import BATCH_BYTES, Callbacks, MessageLog

IDENTITY = LogIdentity("c", "n1", "0011223344556677")
LARGE = 1_500_000


class Disk(DiskOperations):
    """A real disk that fails, fills up, or hangs when it is told to, and remembers what was flushed when."""

    def __init__(self):
        self.fail_flush = False
        self.fail_write = False
        self.short_writes = False
        self.full = False
        self.full_until_asked_by = ""
        self.gate = threading.Event()
        self.gate.set()
        self.calls = []

    def allocate(self, descriptor, size):
        if self.full:
            callers = {frame.name for frame in traceback.extract_stack()}
            self.full = self.full_until_asked_by not in callers
            raise OSError(errno.ENOSPC, "No space left on device")
        super().allocate(descriptor, size)

    def pwrite(self, descriptor, data, position):
        self.calls.append("write")
        if self.fail_write:
            raise OSError(errno.EIO, "Input/output error")
        return super().pwrite(descriptor, data[:7] if self.short_writes else data, position)

    def fdatasync(self, descriptor):
        assert self.gate.wait(30)
        self.calls.append("flush")
        if self.fail_flush:
            raise OSError(errno.EIO, "Input/output error")
        super().fdatasync(descriptor)

    def unlink(self, path):
        self.calls.append(f"unlink {path.name}")
        super().unlink(path)


class Node:
    """Opens a log, drives it, and waits for what it reports."""

    def __init__(self, path, *, started=False, rebooted=False, full=False, **arguments):
        self.disk = Disk()
        self.durable = []
        self.failures = []
        self.full = []
        self.flushes = []
        self.news = asyncio.Event()
        self.log = MessageLog(
            path,
            IDENTITY,
            rebooted=rebooted,
            started_before=started,
            segment_bytes=SEGMENT_BYTES_MIN,
            full_retry_seconds=0.01,
            disk=self.disk,
            **arguments,
        )
        self.disk.full = full
        self.log.start(
            asyncio.get_running_loop(),
            Callbacks(
                self.note(self.durable),
                self.note(self.failures),
                self.note(self.full),
                lambda *flush: self.flushes.append(flush),
            ),
        )

    def note(self, target):
        """Return a callback that remembers what it was told."""

        def callback(what):
            target.append(what)
            self.news.set()

        return callback

    async def until(self, condition):
        """Wait until what was reported fulfils the condition."""
        async with asyncio.timeout(60):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def flush(self, ticket, *records, reserved=False):
        """Append records and wait until they are durable."""
        self.log.append([("g", record) for record in records], ticket, reserved=reserved)
        await self.until(lambda: self.durable and self.durable[-1] >= ticket)


def recovered(path, *, started=True, rebooted=False):
    """Open a log as it is on disk, close it, and return what it held."""
    log = MessageLog(path, IDENTITY, rebooted=rebooted, started_before=started, segment_bytes=SEGMENT_BYTES_MIN)
    log.close()
    return log.recovery


def entry(slot, size=10):
    """Return an entry."""
    return EntryRecord(slot, 5, 0, decided=False, value=bytes([slot % 250 + 1]) * size)


async def test_what_was_reported_durable_is_there_after_a_restart(tmp_path):
    """Entries across segments, promises and watermarks come back."""
    node = Node(tmp_path)
    await node.flush(1, PromiseRecord(5), FormationRecord(b"f"))
    for slot in range(1, 7):
        await node.flush(slot + 1, entry(slot, LARGE))
    await node.flush(8, WatermarkRecord(6))
    node.log.close()
    assert len(list((tmp_path / "wal").iterdir())) >= 3
    again = Node(tmp_path, started=True)
    state = again.log.recovery.states["g"]
    assert (state.promised, state.committed, state.formation) == (5, 6, b"f")
    assert [state.entries[slot] for slot in range(1, 7)] == [entry(slot, LARGE) for slot in range(1, 7)]
    await again.flush(1, entry(7))
    again.log.close()
    assert 7 in recovered(tmp_path).states["g"].entries


async def test_nothing_is_reported_before_its_flush(tmp_path):
    """While a flush hangs, no ticket is reported; what queues up meanwhile shares the next flush."""
    node = Node(tmp_path)
    await node.flush(1, entry(1))
    await asyncio.sleep(0)
    node.disk.gate.clear()
    for ticket in range(2, 40):
        node.log.append([("g", entry(ticket))], ticket)
    await asyncio.sleep(0.05)
    assert node.durable == [1]
    node.disk.gate.set()
    await node.until(lambda: node.durable[-1] == 39)
    assert sum(records for _, _, records in node.flushes) == 39
    assert len(node.flushes) <= 4
    node.log.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from replicad.core.journal.records import EntryRecord
from replicad.core.journal.segments import SEGMENT_BYTES_MIN, LogIdentity
from replicad.node.wal import Callbacks, MessageLog

async def main():
    identity = LogIdentity("c", "n1", "0011223344556677")
    log = MessageLog(Path(sys.argv[1]), identity, rebooted=False, started_before=False, segment_bytes=SEGMENT_BYTES_MIN)
    reported = 0

    def on_durable(ticket):
        nonlocal reported
        reported = ticket
        print(ticket, flush=True)

    log.start(asyncio.get_running_loop(), Callbacks(on_durable, print))
    slot = reported = len(log.recovery.states["g"].entries) if log.recovery.states else 0
    while True:
        if slot >= reported + 8:
            await asyncio.sleep(0.0005)
            continue
        slot += 1
        log.append([("g", EntryRecord(slot, 1, 0, False, bytes([slot % 250 + 1]) * (slot * 7919 % 60000)))], slot)
        await asyncio.sleep(0)

asyncio.run(main())
"""


def test_a_killed_process_keeps_all_that_it_reported_durable(tmp_path):
    """Killed in the middle of writing, again and again: the log is never damage, and no reported entry is lost."""
    for round_number in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
            reported = [int(process.stdout.readline()) for _ in range(20 + 13 * round_number)]
            process.kill()
            rest = process.stdout.read().split(b"\n")
        reported.extend(int(line) for line in rest[:-1])
        entries = recovered(tmp_path).states["g"].entries
        assert sorted(entries) == list(range(1, len(entries) + 1))
        assert len(entries) >= reported[-1]
        assert all(
            entries[slot].value == bytes([slot % 250 + 1]) * (slot * 7919 % 60000)
            for slot in range(1, len(entries) + 1)
        )


async def test_short_writes_are_completed(tmp_path):
    """A disk that takes a few bytes at a time still gets all of them."""
    node = Node(tmp_path)
    node.disk.short_writes = True
    await node.flush(1, entry(1, 300))
    node.log.close()
    assert recovered(tmp_path).states["g"].entries[1] == entry(1, 300)


@pytest.mark.parametrize("what", ["fail_flush", "fail_write"])
async def test_a_failed_write_or_flush_stops_everything(tmp_path, what):
    """It is reported once, nothing is written afterwards, even if the disk would work again."""
    node = Node(tmp_path)
    await node.flush(1, entry(1))
    await node.until(lambda: node.log.stats()["queued"] == 0)
    setattr(node.disk, what, True)
    node.log.append([("g", entry(2))], 2)
    await node.until(lambda: node.failures)
    setattr(node.disk, what, False)
    calls = len(node.disk.calls)
    node.log.append([("g", entry(3))], 3)
    node.log.close()
    await asyncio.sleep(0.02)
    assert len(node.disk.calls) == calls
    assert node.durable == [1]
    assert len(node.failures) == 1
    assert "Input/output error" in node.failures[0]


async def test_a_node_that_never_stops_appending_still_sees_its_records_written(tmp_path):
    """One flush takes a bounded share of the queue, so that a fast producer cannot put it off for ever."""
    node = Node(tmp_path)
    node.disk.gate.clear()
    for ticket in range(1, 41):
        node.log.append([("g", entry(ticket, 500_000))], ticket)
    node.disk.gate.set()
    await node.until(lambda: node.durable and node.durable[-1] == 40)
    assert all(size <= BATCH_BYTES + 500_100 for _, size, _ in node.flushes)
    node.log.close()


async def test_a_failed_promise_file_stops_everything_too(tmp_path):
    """A promise is not reported while only one of its two copies is durable."""
    node = Node(tmp_path)
    node.log._promise_file.store = lambda promises: (_ for _ in ()).throw(OSError("no"))
    node.log.append([("g", PromiseRecord(4))], 1)
    await node.until(lambda: node.failures)
    assert node.durable == []
    node.log.close()


async def test_a_full_disk_is_reported_early_keeps_its_promises_and_recovers(tmp_path):
    """Full is said while a segment still has room; entries then stop at the reserve, a promise gets through."""
    node = Node(tmp_path)
    await node.flush(1, entry(1, LARGE))
    await node.until(lambda: node.log.stats()["segments"] == 2)
    node.disk.full = True
    ticket = 1
    while not node.full:
        ticket += 1
        await node.flush(ticket, entry(ticket, LARGE))
    assert node.full == [True]
    assert node.log.stats()["full"]
    for _ in range(3):  # far more than there is room for
        ticket += 1
        node.log.append([("g", entry(ticket, LARGE))], ticket)
    await asyncio.sleep(0.1)
    held = ticket
    assert node.durable[-1] < held
    node.disk.full = False
    await node.until(lambda: node.durable[-1] == held)
    assert node.full == [True, False]
    assert node.failures == []
    node.log.close()
    assert len(recovered(tmp_path).states["g"].entries) == held


async def test_a_start_on_a_full_disk_with_a_spare_segment_is_not_full(tmp_path):
    """What stands ready has room: being full begins when it is used up, and ends by itself with new space."""
    node = Node(tmp_path)
    await node.flush(1, entry(1, LARGE))
    node.log.close()
    assert segment_numbers(tmp_path / "wal") == [1, 2]
    node = Node(tmp_path, started=True, full=True)
    await node.flush(1, entry(2, LARGE))
    assert node.full == []
    ticket = 1
    while not node.full:
        ticket += 1
        await node.flush(ticket, entry(ticket + 1, LARGE))
    node.disk.full = False
    await node.until(lambda: node.full == [True, False])
    assert not node.log.stats()["full"]
    node.log.close()


async def test_starts_leave_no_segments_behind(tmp_path):
    """However often a node is started in idleness, one empty segment stands ready; what is more is removed."""
    for start in range(6):
        node = Node(tmp_path, started=start > 0)
        if not start:
            await node.flush(1, entry(1))
        node.log.close()
    assert segment_numbers(tmp_path / "wal") == [1, 2]
    files = SegmentFiles(tmp_path / "wal", IDENTITY, DiskOperations())
    for number in (3, 4, 5):  # as many starts of an earlier release left them
        files.create(number, SEGMENT_BYTES_MIN)
    files.close()
    node = Node(tmp_path, started=True)
    await node.flush(1, entry(2))
    assert segment_numbers(tmp_path / "wal") == [1, 2]
    node.log.close()
    assert sorted(recovered(tmp_path).states["g"].entries) == [1, 2]


async def test_space_that_comes_between_two_tries_is_used_at_once(tmp_path):
    """Records that found no room are written when the next try, made for a later segment only, finds some."""
    node = Node(tmp_path)
    ticket = 1
    await node.flush(ticket, entry(ticket, LARGE))
    node.disk.full = True
    while not node.full:
        ticket += 1
        await node.flush(ticket, entry(ticket, LARGE))
    node.disk.full_until_asked_by = "_make_room"
    node.log.append([("g", entry(ticket + number, LARGE)) for number in (1, 2)], ticket + 2)
    await node.until(lambda: node.durable[-1] == ticket + 2)
    assert node.full[-1] is False
    node.log.close()


async def test_the_space_kept_for_promises_is_not_given_to_entries(tmp_path):
    """With the disk full and only the reserve left, an entry waits and a promise is written."""
    node = Node(tmp_path, full=True, reserve_bytes=SEGMENT_BYTES_MIN - HEADER_BYTES - LARGE - 200)
    await node.until(lambda: node.full)
    await node.flush(1, entry(1, LARGE))
    await node.flush(2, PromiseRecord(6))
    node.log.append([("g", entry(5, LARGE))], 3)
    await asyncio.sleep(0.05)
    assert node.durable[-1] == 2
    node.log.append([("g", PromiseRecord(7))], 4, reserved=True)
    await node.until(lambda: node.durable[-1] == 4)
    node.log.close()
    assert recovered(tmp_path).states["g"].promised == 7


async def test_truncation_writes_what_lives_before_segments_go(tmp_path):
    """Old segments are removed, oldest first, after a flush of the live records, and the state survives a restart."""
    node = Node(tmp_path)
    await node.flush(1, PromiseRecord(8), FormationRecord(b"f"))
    for slot in range(1, 8):
        await node.flush(slot + 1, entry(slot, LARGE))
    await node.flush(9, WatermarkRecord(7), CheckpointRecord(6, b"d" * 16))
    node.disk.calls.clear()
    node.log.truncate({"g": 6})
    await node.flush(10, entry(8))
    removals = [call for call in node.disk.calls if call.startswith("unlink")]
    assert removals == ["unlink 00000001.seg", "unlink 00000002.seg", "unlink 00000003.seg"]
    assert node.disk.calls.index("flush") < node.disk.calls.index(removals[0])
    node.log.close()
    state = recovered(tmp_path).states["g"]
    assert (state.promised, state.formation, state.committed, sorted(state.entries)) == (8, b"f", 7, [7, 8])


async def test_a_torn_tail_is_erased_so_that_it_never_comes_back(tmp_path):
    """After a cut, even whole records behind it are gone for good."""
    node = Node(tmp_path)
    await node.flush(1, entry(1))
    await node.flush(2, entry(2), entry(3), entry(4))
    node.log.close()
    path = tmp_path / "wal" / "00000001.seg"
    length = len(encode_record("g", entry(1))) + FRAME_BYTES
    content = bytearray(path.read_bytes())
    second = HEADER_BYTES + length
    content[second + 5 : second + 9] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(DamageError):
        Node(tmp_path, started=True)
    again = Node(tmp_path, started=True, rebooted=True)
    assert sorted(again.log.recovery.states["g"].entries) == [1]
    await again.flush(1, EntryRecord(2, 5, 0, decided=False, value=bytes([9]) * 10))
    again.log.close()
    state = recovered(tmp_path).states["g"]
    assert sorted(state.entries) == [1, 2]


async def test_a_log_that_vanished_is_damage(tmp_path):
    """A disk id that ran before must have its log: an empty one would forget acknowledged slots."""
    Node(tmp_path).log.close()
    for path in (tmp_path / "wal").iterdir():
        path.unlink()
    with pytest.raises(DamageError, match="is gone"):
        Node(tmp_path, started=True)


async def test_an_interrupted_creation_of_a_segment_leaves_nothing(tmp_path):
    """A half-made segment is removed when the log is opened."""
    Node(tmp_path).log.close()
    (tmp_path / "wal" / "00000009.new").write_bytes(b"half")
    Node(tmp_path, started=True).log.close()
    assert not list((tmp_path / "wal").glob("*.new"))


async def test_the_promise_file_outlives_a_tail_that_rotted(tmp_path):
    """The promise is taken from the file when a power cut took it from the log."""
    node = Node(tmp_path)
    await node.flush(1, PromiseRecord(77))
    node.log.close()
    path = tmp_path / "wal" / "00000001.seg"
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES:] = bytes(len(content) - HEADER_BYTES)
    path.write_bytes(content)
    assert recovered(tmp_path, rebooted=True).states["g"].promised == 77


def test_one_good_copy_of_the_promises_is_enough_and_none_is_damage(tmp_path):
    """The newest good block counts, whichever it is."""
    path = tmp_path / "promise"
    file = PromiseFile(path, IDENTITY, DiskOperations())
    assert file.load() == {}
    file.store({"g": 1})
    file.store({"g": 2})
    file.close()
    content = path.read_bytes()
    loaded = [{"g": 1}, {"g": 2}]
    for number in (0, 1):
        broken = bytearray(content)
        broken[number * BLOCK_BYTES + 3] ^= 1
        path.write_bytes(broken)
        assert PromiseFile(path, IDENTITY, DiskOperations()).load() == loaded[number]
    path.write_bytes(bytes(len(content)))
    with pytest.raises(DamageError, match="both copies"):
        PromiseFile(path, IDENTITY, DiskOperations()).load()
    path.write_bytes(content)
    with pytest.raises(DamageError, match="belongs to"):
        PromiseFile(path, IDENTITY._replace(disk="ff"), DiskOperations()).load()


async def test_an_inspection_lists_every_record_and_judges_the_log(tmp_path):
    """Lines carry place, kind, slot and ballot; the verdict is clean, then torn, then damaged."""
    node = Node(tmp_path)
    await node.flush(1, PromiseRecord(5), entry(1), entry(2), WatermarkRecord(1), CheckpointRecord(1, b"d" * 16))
    await node.flush(2, entry(3))
    node.log.close()
    inspection = inspect_log(tmp_path, verify=True)
    lines = list(inspection)
    assert [line.kind for line in lines] == ["promise", "entry", "entry", "watermark", "checkpoint", "entry"]
    assert (lines[1].slot, lines[1].ballot, lines[1].position) == (1, "5.0", lines[0].position + lines[0].size)
    verdict = inspection.verdict
    assert (verdict.ok, verdict.ending, verdict.records) == (True, "clean", 6)
    assert verdict.groups["g"].highest_slot == 3
    path = tmp_path / "wal" / "00000001.seg"
    content = bytearray(path.read_bytes())
    content[lines[-1].position + lines[-1].size - 1] = 0
    path.write_bytes(content)
    inspection = inspect_log(tmp_path / "wal")
    assert len(list(inspection)) == 5
    assert (inspection.verdict.ok, inspection.verdict.ending) == (True, "torn")
    content[lines[1].position + 20] ^= 1
    path.write_bytes(content)
    inspection = inspect_log(tmp_path)
    assert len(list(inspection)) == 1
    assert (inspection.verdict.ok, inspection.verdict.ending) == (False, "damaged")
    with pytest.raises(FileNotFoundError, match="no message log"):
        inspect_log(tmp_path / "elsewhere")
