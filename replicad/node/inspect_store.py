"""What ``replicad inspect store`` and ``replicad inspect checkpoint`` show: offline, and without changing a byte.

The node whose store this is must not be running: the caller takes the data directory's lock first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import lmdb

from replicad.core.journal.checkpoints import CheckpointDecoder, CheckpointHeader, Entries, Requests
from replicad.core.kv.digest import StateDigest
from replicad.core.kv.entries import Entry, decode_entry
from replicad.core.kv.machine import read_state
from replicad.core.kv.requests import decode_record, ids_in
from replicad.core.model.errors import DamageError
from replicad.node.checkpoint import SLICE_BYTES, read_header
from replicad.node.lmdb_store import StoreEnvironment, StoreView


@contextmanager
def open_store(path: Path) -> Iterator[StoreEnvironment]:
    """Open the store in ``path`` for reading; raises FileNotFoundError or DamageError with a plain sentence."""
    if not (path / "data.mdb").is_file():
        raise FileNotFoundError(f"there is no store in {path}: no data.mdb")
    try:
        environment = StoreEnvironment(path, readonly=True)
    except lmdb.Error as error:
        raise DamageError(f"the store in {path} cannot be opened: {error}") from error
    try:
        yield environment
    finally:
        environment.close()


def store_groups(path: Path) -> list[str]:
    """Return the names of the groups in the store in ``path``."""
    with open_store(path) as environment:
        return environment.groups()


def inspect_store(path: Path, group: str, *, verify: bool = False) -> dict[str, object]:
    """Return where one group's store stands; with ``verify`` also whether its content adds up to its digest.

    Keys: group, applied_slot, index, digest (hexadecimal), configuration (bytes), entries, remembered_requests,
    loading (a load was cut short: the content is not to be believed), file_bytes, and with ``verify`` damage: "" or
    what is wrong. Raises KeyError for an unknown group.
    """
    with open_store(path) as environment, environment.view(group) as view:
        slot, index, digest, configuration = read_state(view)
        found: dict[str, object] = {
            "group": group,
            "applied_slot": slot,
            "index": index,
            "digest": digest.hex(),
            "configuration": configuration,
            "entries": view.entries(),
            "remembered_requests": sum(
                ids_in(item) for at, record in view.scan_requests() for item in decode_record(at, record)
            ),
            "loading": view.get_meta("loading") is not None,
            "file_bytes": environment.size(),
        }
        if verify:
            found["damage"] = _store_damage(view, digest, configuration)
        return found


def store_entries(path: Path, group: str, prefix: bytes = b"", limit: int = 100) -> list[tuple[bytes, Entry]]:
    """Return the first ``limit`` keys with ``prefix`` and their entries, in key order."""
    with open_store(path) as environment, environment.view(group) as view:
        return [(key, decode_entry(entry)) for key, entry in islice(view.scan(prefix), limit)]


def _store_damage(view: StoreView, digest: bytes, configuration: bytes) -> str:
    state = StateDigest()
    try:
        for key, entry in view.scan(b""):
            state.add_entry(key, entry)
    except DamageError as error:
        return str(error)
    for slot, record in view.scan_requests():
        state.add_requests(slot, record)
    state.add_configuration(configuration)
    if state.value() != digest:
        return f"the content has digest {state.value().hex()}, the store claims {digest.hex()}"
    return ""


def checkpoint_paths(directory: Path) -> list[Path]:
    """Return the complete checkpoint files in a directory, by group and slot."""
    return sorted(directory.glob("*.ckpt"), key=lambda path: (path.stem.rpartition("-")[0], len(path.stem), path.stem))


def checkpoint_slots(directory: Path, group: str) -> list[int]:
    """Return the slots of a group's complete checkpoint files in a directory."""
    found = [path.stem.rpartition("-") for path in directory.glob("*.ckpt")]
    return [int(slot) for name, _, slot in found if name == group and slot.isdecimal()]


def inspect_checkpoint(path: Path, *, verify: bool = False) -> dict[str, object]:
    """Return what a checkpoint file says it is; with ``verify`` read all of it and recompute its digest.

    Keys: those of its header (digest in hexadecimal, configuration in bytes) and file_bytes; with ``verify`` also
    entries, requests, value sizes by power of two (``{64: 10}``: ten values of 64 to 127 bytes), and damage: "" or
    what is wrong. Without ``verify`` a damaged header raises DamageError.
    """
    found: dict[str, object] = {"file": path.name, "file_bytes": path.stat().st_size}
    if not verify:
        return found | _header_fields(read_header(path))
    decoder = CheckpointDecoder(StateDigest())
    entries = requests = 0
    sizes: Counter[int] = Counter()
    damage = ""
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(SLICE_BYTES):
                for part in decoder.feed(piece):
                    if type(part) is Entries:
                        entries += len(part.pairs)
                        sizes.update(_power(len(decode_entry(entry).value)) for _, entry in part.pairs)
                    elif type(part) is Requests:
                        requests += sum(
                            ids_in(item) for slot, record in part.records for item in decode_record(slot, record)
                        )
        decoder.finish()
    except DamageError as error:
        damage = str(error)
    if decoder.header is not None:
        found |= _header_fields(decoder.header)
    return found | {"entries": entries, "requests": requests, "sizes": dict(sorted(sizes.items())), "damage": damage}


def _header_fields(header: CheckpointHeader) -> dict[str, object]:
    return header._asdict() | {"digest": header.digest.hex()}


def _power(size: int) -> int:
    """Return the greatest power of two that is not above ``size`` (0 for 0)."""
    return 1 << size.bit_length() - 1 if size else 0
