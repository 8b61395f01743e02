"""Data directories that something happened to, and what each gets. A table in the docs is made from these rows.

:func:`make` builds the directory of node n1 of cluster c as it is after twelve slots: three segments of the message
log, a checkpoint at slot 6, and a store that has applied slot 11 (the last record was not applied yet).
"""

import asyncio
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgpack

from replicad.core.journal.checkpoints import CheckpointEncoder, CheckpointHeader
from replicad.core.journal.records import CheckpointRecord, EntryRecord, FormationRecord, PromiseRecord, WatermarkRecord
from replicad.core.journal.segments import HEADER_BYTES, MAGIC, scan
from replicad.core.kv.machine import Machine
from replicad.core.model.configuration import Configuration
from replicad.core.model.limits import STATE_MACHINE_VERSION
from replicad.node.identity import DataDirectory, _check, machine_boot_id
from replicad.node.lmdb_environment import TRUST
from replicad.node.lmdb_store import LmdbStore, StoreEnvironment
from replicad.node.promise_file import BLOCK_BYTES
from replicad.node.segment_files import segment_path
from replicad.node.wal import Callbacks, MessageLog
from tests.core.kv.state_builders import apply_all, batch, put

SEGMENT_BYTES = 5 << 20
SLOTS, CHECKPOINT, APPLIED = 12, 6, 11
EPOCH = 1_000_001

REFUSED = "refused"
"""The node says why and ends with exit code 2; nothing is changed."""
SET_ASIDE = "set aside"
"""Everything moves to DIR/damaged; the node gets a new disk id and waits until the group re-admits it."""
REBUILT = "rebuilt here"
"""The store is thrown away and made again from checkpoint and log; the disk id stays."""
FETCHED = "fetched"
"""The state must come from the others; the disk id and all promises stay."""
GOES_ON = "goes on"
"""It is put right without a word to anybody."""


class BadFile(NamedTuple):
    """``what`` happened; ``harm(dir)`` does it and may return a descriptor to keep; outcome; a phrase of the log."""

    what: str
    harm: Callable[[Path], int | None]
    outcome: str
    phrase: str
    gets: str


async def make(path: Path) -> None:
    """Build the directory."""
    data = DataDirectory(path, "c", "n1")
    configuration = Configuration.initial({"n1": data.identity.disk}).encode()
    values = [batch(put(b"k%02d" % slot, bytes([slot]) * 1_000_000)) for slot in range(1, SLOTS + 1)]
    environment = StoreEnvironment(path / "store", disk=data.identity.disk, machine_boot=machine_boot_id())
    store = LmdbStore(environment, "default")
    machine = Machine(store, 16_384)
    apply_all(machine, values[:CHECKPOINT])
    digest = _write_checkpoint(path, store, machine)
    apply_all(machine, values[CHECKPOINT:APPLIED])
    store.close()
    environment.close()
    log = MessageLog(path, data.identity.log, rebooted=True, started_before=False, segment_bytes=SEGMENT_BYTES)
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    log.start(loop, Callbacks(lambda ticket: ticket == SLOTS + 1 and done.set_result(None), done.set_exception))
    log.append([("default", FormationRecord(configuration)), ("default", PromiseRecord(EPOCH))], 1)
    for slot, value in enumerate(values, 1):
        records = [("default", EntryRecord(slot, EPOCH, 0, decided=False, value=value))]
        if slot == SLOTS:
            records[:0] = [
                ("default", CheckpointRecord(CHECKPOINT, digest)),
                ("default", WatermarkRecord(APPLIED)),
            ]
        log.append(records, slot + 1)
    await done
    await asyncio.to_thread(log.close)
    data.record_start()
    data.close()


def _write_checkpoint(path: Path, store: LmdbStore, machine: Machine) -> bytes:
    header = CheckpointHeader(
        STATE_MACHINE_VERSION, "c", "default", CHECKPOINT, machine.index, machine.digest, machine.configuration
    )
    (path / "checkpoints").mkdir()
    store.flush()
    with store.environment.view("default") as view:
        (path / "checkpoints" / f"default-{CHECKPOINT}.ckpt").write_bytes(b"".join(CheckpointEncoder(header, view)))
    return machine.digest


# --- what can happen to it ----------------------------------------------------------------------------------------


def _take_lock(path: Path) -> int:
    descriptor = os.open(path / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _identity(**changes: object) -> Callable[[Path], None]:
    """Return a function that writes another identity, with a checksum that fits."""

    def harm(path: Path) -> None:
        fields = json.loads((path / "identity.json").read_bytes())
        del fields["check"]
        fields.update(changes)
        (path / "identity.json").write_text(json.dumps({**fields, "check": _check(fields)}))

    return harm


def _edit_identity(path: Path) -> None:
    """Change a field as somebody with an editor does."""
    file = path / "identity.json"
    file.write_text(file.read_text().replace('"node": "n1"', '"node": "n2"'))


def _replace(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(data) and None


def _flip(name: str, position: int) -> Callable[[Path], None]:
    """Return a function that turns one bit of a file the other way."""

    def harm(path: Path) -> None:
        data = bytearray((path / name).read_bytes())
        data[position] ^= 1
        (path / name).write_bytes(data)

    return harm


def _remove(name: str) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        target = path / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return harm


def _cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path / name, size)


def _segment(number: int) -> str:
    return f"wal/{number:08d}.seg"


def _last_record_cut_short(path: Path) -> None:
    """Leave of the last record what a killed process leaves: a beginning, then zeros."""
    file = segment_path(path / "wal", 3)
    data = bytearray(file.read_bytes())
    used = len(data.rstrip(b"\0"))
    data[used - 1000 : used] = bytes(1000)
    file.write_bytes(data)


def _renamed(path: Path) -> None:
    second, third = segment_path(path / "wal", 2), segment_path(path / "wal", 3)
    shutil.copy(second, third)


def _foreign_segment(path: Path) -> None:
    """Put another disk's segment in the place of this one's."""
    _rewrite_header(path, lambda fields: [*fields[:3], "0123456789abcdef", *fields[4:]])


def _later_format(path: Path) -> None:
    _rewrite_header(path, lambda fields: [2, *fields[1:]])


def _rewrite_header(path: Path, change: Callable[[list[object]], list[object]]) -> None:
    file = segment_path(path / "wal", 1)
    data = bytearray(file.read_bytes())
    unpacker = msgpack.Unpacker()
    unpacker.feed(bytes(data[len(MAGIC) : HEADER_BYTES]))
    body = MAGIC + msgpack.packb(change(list(unpacker.unpack())))
    block = body.ljust(HEADER_BYTES - 4, b"\0")
    data[:HEADER_BYTES] = block + crc32(block).to_bytes(4, "big")
    file.write_bytes(data)


def _older_log(path: Path) -> None:
    """Put back what a copy of the log held that was made before the store's last slot was written."""
    file = segment_path(path / "wal", 3)
    data = bytearray(file.read_bytes())
    records = scan(data, 3, rebooted=False).records
    end = next(at for _, record, at in records if isinstance(record, EntryRecord) and record.slot == APPLIED)
    data[end:] = bytes(len(data) - end)
    file.write_bytes(data)


def _no_wal(path: Path) -> None:
    shutil.rmtree(path / "wal")
    (path / "wal").mkdir()


def _untrusted(then: Callable[[Path], None]) -> Callable[[Path], None]:
    """Return a function that does something and makes the store be what another boot of the machine left."""

    def harm(path: Path) -> None:
        (path / "store" / "trust").write_bytes(b"another disk, another boot")
        then(path)

    return harm


def _older_store(path: Path) -> None:
    """Leave a store as the release before wrote it."""
    trust = path / "store" / TRUST
    version, _, rest = trust.read_bytes().partition(b" ")
    trust.write_bytes(b"%d " % (int(version) - 1) + rest)


CKPT = f"checkpoints/default-{CHECKPOINT}.ckpt"

BAD_FILES = (
    BadFile(
        "the directory is in use",
        _take_lock,
        REFUSED,
        "is in use by another replicad process",
        "the lock is the process's own: a dead one holds none",
    ),
    BadFile(
        "the directory of another node",
        _identity(node="n2"),
        REFUSED,
        "belongs to node 'n2', and this is 'n1'",
        "both names are said",
    ),
    BadFile(
        "the directory of another cluster",
        _identity(cluster="d"),
        REFUSED,
        "belongs to cluster 'd', and this is 'c'",
        "both names are said",
    ),
    BadFile(
        "an `identity.json` of a later format",
        _identity(format_version=2),
        REFUSED,
        "has format version 2; this replicad reads version 1",
        "a newer release wrote it: use that one",
    ),
    BadFile(
        "a message log of a later format",
        _later_format,
        REFUSED,
        "the message log has format version 2; this replicad reads version 1",
        "the same",
    ),
    BadFile(
        "an `identity.json` that is no JSON",
        _replace("identity.json", b"\0" * 200),
        SET_ASIDE,
        "it is not the JSON object that replicad wrote",
        "whose promises these were cannot be known",
    ),
    BadFile(
        "an `identity.json` whose checksum is wrong",
        _edit_identity,
        SET_ASIDE,
        "its checksum is wrong",
        "as after an edit by hand",
    ),
    BadFile(
        "`identity.json` is gone, and data is there",
        _remove("identity.json"),
        SET_ASIDE,
        "is gone, and there is data beside it",
        "the same",
    ),
    BadFile(
        "one bit of a record flipped",
        _flip(_segment(1), 500_000),
        SET_ASIDE,
        "is bad, and was not merely cut short",
        "segment and byte are named",
    ),
    BadFile(
        "one bit of the last record flipped",
        _flip(_segment(3), 100_000),
        SET_ASIDE,
        "is bad, and was not merely cut short",
        "it was complete, so it may have been acknowledged",
    ),
    BadFile(
        "the last record was cut short",
        _last_record_cut_short,
        GOES_ON,
        "was being written when the process stopped",
        "nobody was told of it; the rest of it is erased",
    ),
    BadFile(
        "a segment's header overwritten",
        _flip(_segment(2), 20),
        SET_ASIDE,
        "the checksum of a segment header is wrong",
        "",
    ),
    BadFile(
        "a segment is missing",
        _remove(_segment(2)),
        SET_ASIDE,
        "segment 2 of the message log is missing: segment 3 is there",
        "its number is named",
    ),
    BadFile(
        "the newest segment with records is missing",
        _remove(_segment(3)),
        SET_ASIDE,
        "segment 3 of the message log is missing: segment 4 is there",
        "the spare one after it gives it away",
    ),
    BadFile(
        "a segment was truncated",
        _cut(_segment(2), 1 << 20),
        SET_ASIDE,
        "has 1048576 bytes, not 5242880",
        "segments have a fixed length",
    ),
    BadFile(
        "a segment in the place of another",
        _renamed,
        SET_ASIDE,
        "segment 3 of the message log has the header of segment 2",
        "",
    ),
    BadFile(
        "a segment of another disk",
        _foreign_segment,
        SET_ASIDE,
        "belongs to node 'n1' of cluster 'c' with disk id 0123456789abcdef",
        "as after a backup was copied over live data",
    ),
    BadFile(
        "the message log is gone",
        _no_wal,
        SET_ASIDE,
        "the message log is gone: this disk id has one",
        "",
    ),
    BadFile(
        "the message log is an older one",
        _older_log,
        SET_ASIDE,
        f"the store has applied slot {APPLIED}, and the message log lacks slot {APPLIED}: it is an older one",
        "as after a copy of `wal/` was put back: what it acknowledged since is forgotten",
    ),
    BadFile(
        "both copies of the promises are damaged",
        _replace("promise", bytes(2 * BLOCK_BYTES)),
        SET_ASIDE,
        "both copies in the promise file are damaged",
        "",
    ),
    BadFile(
        "one copy of the promises is damaged",
        _flip("promise", 10),
        GOES_ON,
        "",
        "that is why there are two, and a third in the log",
    ),
    BadFile(
        "the store was written on another boot of the machine",
        _untrusted(lambda _: None),
        REBUILT,
        "store_rebuilding",
        "the store is never synced, so a power cut may have torn it",
    ),
    BadFile(
        "a store of the release before",
        _older_store,
        REBUILT,
        "store_rebuilding",
        "once after an upgrade that changes its format, and after going back",
    ),
    BadFile(
        "the store is gone",
        _remove("store"),
        REBUILT,
        "store_rebuilding",
        "",
    ),
    BadFile(
        "a checkpoint cut short, and no store to trust",
        _untrusted(_cut(CKPT, 1_000_000)),
        FETCHED,
        "the checkpoint is cut short at byte 1000000",
        "",
    ),
    BadFile(
        "one bit of a checkpoint flipped, and no store to trust",
        _untrusted(_flip(CKPT, 2_000_000)),
        FETCHED,
        "fails its checksum",
        "",
    ),
    BadFile(
        "a checkpoint that is something else, and no store to trust",
        _untrusted(_replace(CKPT, b"replicad checkpoint\n" + b"\0" * 100)),
        FETCHED,
        "the frame at byte 20 claims 0 bytes",
        "what is no frame is not read",
    ),
    BadFile(
        "the checkpoint is gone, and no store to trust",
        _untrusted(_remove(CKPT)),
        FETCHED,
        f"the file of checkpoint {CHECKPOINT} is gone",
        "the log before it is gone on purpose",
    ),
    BadFile(
        "half-written files of a process that died",
        lambda path: (
            [(path / name).write_bytes(b"half") for name in ("wal/00000005.new", "checkpoints/default-9.part")] and None
        ),
        GOES_ON,
        "",
        "they are removed",
    ),
)
