"""Which node and which disk a data directory is, and that one process at a time uses it.

A disk id names one unbroken memory. Whatever breaks it (files that are gone, damaged or foreign) must end in a new disk
id, because the group relies on what the old one promised (rule M4).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from hashlib import blake2b
from pathlib import Path

from replicad.core.journal.segments import LogIdentity
from replicad.core.journal.startup import Action, IdentityFound, judge_identity
from replicad.core.model.errors import DamageError
from replicad.node.disk_operations import DiskOperations, replace_file

FORMAT_VERSION = 1
OK = "ok"
LOST = "lost"
"""States: the directory is what it always was; or its data was damaged, and it must be re-admitted."""

DRAINED = "drained"
"""A file whose presence says that the node is drained. It is about the node, whatever becomes of its data: no part."""

PARTS = ("checkpoints", "store", "promise", "wal")
"""What :meth:`DataDirectory.set_aside` moves, in this order: as long as the log is there, an interruption shows."""

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


class DirectoryError(Exception):
    """This process may not use the directory; the message is a plain sentence."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Content of ``identity.json``. ``machine_boot`` is the machine's boot id at the last start ("": never started).

    ``cluster_id`` is "" until it is known, and then not in the file: a release that does not know it can be started on
    the directory again. From then on it cannot, because the message log has entries that it could not read either.
    """

    cluster: str
    node: str
    disk: str
    state: str = OK
    machine_boot: str = ""
    format_version: int = FORMAT_VERSION
    cluster_id: str = ""

    @property
    def log(self) -> LogIdentity:
        """Return what the message log's files carry."""
        return LogIdentity(self.cluster, self.node, self.disk)

    @property
    def started_before(self) -> bool:
        """Return whether this disk id has run already, so that it must have a message log."""
        return bool(self.machine_boot)


def machine_boot_id() -> str:
    """Return the random id of this boot of the machine; a new one each time if the system does not tell."""
    try:
        return BOOT_ID_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return secrets.token_hex(16)


def new_disk_id() -> str:
    """Return 16 random hexadecimal digits."""
    return secrets.token_hex(8)


class DataDirectory:
    """A node's data directory, locked for this process from construction to :meth:`close`."""

    def __init__(
        self,
        path: Path,
        cluster: str,
        node: str,
        *,
        machine_boot: str | None = None,
        disk: DiskOperations | None = None,
    ) -> None:
        """Create the directory if need be, lock it, and read or create its identity.

        Raises DirectoryError if another process has it, or if it belongs to another node, cluster or format version;
        OSError if it cannot be read or written. A directory with data but without a good identity is set aside, see
        :attr:`set_aside_reason`.
        """
        self.path = path
        self.set_aside_reason = ""
        """Why the directory was set aside while it was opened ("": it was not)."""
        self._disk = disk or DiskOperations()
        self._machine_boot = machine_boot if machine_boot is not None else machine_boot_id()
        path.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            self.identity = self._open(cluster, node)
        except BaseException:
            self.close()
            raise

    @property
    def rebooted(self) -> bool:
        """Return whether the machine restarted since the last :meth:`record_start` (or there was none)."""
        return self.identity.machine_boot != self._machine_boot

    def record_start(self) -> None:
        """Note this boot of the machine. To be called when the message log is open: put right, and durable."""
        if self.rebooted:
            self._store(replace(self.identity, machine_boot=self._machine_boot))

    def set_state(self, state: str) -> None:
        """Note ``OK`` or ``LOST``; raises OSError."""
        if state not in {OK, LOST}:
            raise ValueError(f"state {state!r} is neither ok nor lost")
        if state != self.identity.state:
            self._store(replace(self.identity, state=state))

    def set_cluster_id(self, cluster_id: str) -> None:
        """Note which cluster the data belong to, once; raises OSError, and ValueError if they belong to another."""
        if self.identity.cluster_id == cluster_id:
            return
        if self.identity.cluster_id:
            raise ValueError(f"the directory belongs to the cluster {self.identity.cluster_id}, not to {cluster_id}")
        self._store(replace(self.identity, cluster_id=cluster_id))

    @property
    def drained(self) -> bool:
        """Whether the node was drained, and that was not ended."""
        return (self.path / DRAINED).exists()

    def set_drained(self, *, drained: bool) -> None:
        """Note durably whether the node is drained; raises OSError."""
        if drained:
            replace_file(self._disk, self.path / DRAINED, b"")
        else:
            if self.drained:
                self._disk.unlink(self.path / DRAINED)
            self._disk.sync_directory(self.path)  # also if it was gone before: that may not have been durable

    def set_aside(self) -> Identity:
        """Move all data to ``DIR/damaged`` (replacing what was there), and return the new, lost identity.

        The new disk id is durable before anything moves: the old one must never be seen with less than it had.
        """
        fresh = replace(self.identity, disk=new_disk_id(), state=LOST, machine_boot="")
        self._store(fresh)
        damaged = self.path / "damaged"
        if damaged.exists():
            shutil.rmtree(damaged)
        damaged.mkdir()
        for name in PARTS:
            part = self.path / name
            if part.exists():
                self._disk.rename(part, damaged / name)
        self._disk.sync_directory(damaged)
        self._disk.sync_directory(self.path)
        return fresh

    def close(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> int:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DirectoryError(
                f"the data directory {self.path} is in use by another replicad process; stop it or choose another one"
            ) from None
        return descriptor

    def _open(self, cluster: str, node: str) -> Identity:
        fresh = Identity(cluster, node, new_disk_id())
        found, identity = find_identity(self.path)
        decision = judge_identity(found, cluster, node)
        if decision.action is Action.REFUSE:
            raise DirectoryError(decision.reason)
        if decision.action is Action.GO_ON and identity is not None:
            return identity
        self.identity = fresh
        if decision.action is Action.SET_ASIDE:
            self.set_aside_reason = decision.reason
            return self.set_aside()
        self._store(fresh)
        return fresh

    def _store(self, identity: Identity) -> None:
        fields = asdict(identity)
        if not identity.cluster_id:
            del fields["cluster_id"]
        text = json.dumps({**fields, "check": _check(fields)}, indent=2) + "\n"
        replace_file(self._disk, self.path / "identity.json", text.encode())
        self.identity = identity


def find_identity(path: Path) -> tuple[IdentityFound, Identity | None]:
    """Return what a start finds in the data directory ``path``, and the identity if there is a good one.

    Raises DirectoryError if its format version is unknown, and OSError. Nothing is created or changed.
    """
    where = str(path)
    beside = any((path / name).exists() for name in PARTS)
    try:
        identity = read_identity(path / "identity.json")
    except FileNotFoundError:
        return IdentityFound(where, data_beside=beside), None
    except DamageError as error:
        return IdentityFound(where, damage=str(error), data_beside=beside), None
    return IdentityFound(where, (identity.cluster, identity.node), data_beside=beside), identity


def read_identity(path: Path) -> Identity:
    """Return the identity in a file.

    Raises FileNotFoundError, DamageError if it is broken, and DirectoryError if its format version is unknown.
    """
    try:
        fields = json.loads(path.read_bytes())
        check = fields.pop("check")
        intact = check == _check(fields)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise DamageError(f"{path} is damaged: it is not the JSON object that replicad wrote") from error
    if not intact:
        raise DamageError(f"{path} is damaged: its checksum is wrong")
    version = fields.get("format_version")
    if version != FORMAT_VERSION:
        raise DirectoryError(f"{path} has format version {version}; this replicad reads version {FORMAT_VERSION}")
    unknown = fields.keys() - {field.name for field in dataclass_fields(Identity)}
    if unknown:
        raise DirectoryError(
            f"{path} has fields that this release does not know ({', '.join(sorted(unknown))}): upgrade"
        )
    try:
        return Identity(**fields)
    except TypeError as error:
        raise DamageError(f"{path} is damaged: a field is missing") from error


def _check(fields: dict[str, object]) -> str:
    return blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=8).hexdigest()
