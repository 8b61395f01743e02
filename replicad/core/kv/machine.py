"""The deterministic state machine: applies slots in order, each exactly once, to a store.

Every replica computes the same results, indexes and digest from the same slots. Every operation takes one index, also
one that fails, repeats or expires, so that an index follows from the slot alone.

Between :meth:`Machine.begin` and :meth:`Machine.commit` any number of slots may be applied; the store shows all of
them or none. If anything raises in between, :meth:`Machine.abort` goes back to the last commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from struct import Struct
from struct import error as struct_error
from typing import cast

import msgpack

from replicad.core.kv.digest import DIGEST_BYTES, MASK, configuration_part, to_bytes, to_int
from replicad.core.kv.entries import (
    HASH_BYTES,
    NO_SESSION,
    Entry,
    decode_entry,
    fields_bytes,
    hash_of,
    pack_fields,
    stored_hash,
    unpack_fields,
)
from replicad.core.kv.requests import RequestTable, Single, fingerprint
from replicad.core.kv.store import Store, StoreReader
from replicad.core.model.errors import DamageError, InvariantError, check
from replicad.core.model.limits import KEY_BYTES_MAX
from replicad.core.model.operations import (
    APPLIED,
    CONFIGURATION,
    DELETE,
    DELETE_PREFIX,
    DELETE_SLICE,
    EXPIRED,
    IDEMPOTENCY_ID_BYTES,
    MISMATCH,
    MORE,
    NO_CAS,
    OPERATIONS,
    PUT,
    REFUSED,
    REQUEST_ID_BYTES,
    Result,
    decode_batch,
)

STATE = "state"
CONFIGURATION_META = "configuration"
RELOAD_SLICE = 2_000
"""Request ids that are loaded in one slice of a reload."""
_STATE = Struct(f">QQ{DIGEST_BYTES}s")
_MALFORMED = (ValueError, TypeError, struct_error, msgpack.exceptions.UnpackException)


def read_state(store: StoreReader) -> tuple[int, int, bytes, bytes]:
    """Return ``(applied slot, index, digest, configuration)`` as a store holds them (zeros if it is empty).

    Raises DamageError if they are not what a machine writes.
    """
    state = store.get_meta(STATE)
    if state is None:
        return 0, 0, bytes(DIGEST_BYTES), b""
    if len(state) != _STATE.size:
        raise DamageError(f"the store's state has {len(state)} bytes, not {_STATE.size}")
    slot, index, digest = _STATE.unpack(state)
    return slot, index, digest, store.get_meta(CONFIGURATION_META) or b""


def slot_of(state: bytes) -> int:
    """Return the applied slot in the meta value :data:`STATE`."""
    return int.from_bytes(state[:8], "big")


def write_state(store: Store, slot: int, index: int, digest: bytes, configuration: bytes) -> None:
    """Write what :func:`read_state` reads (inside a write transaction): the last step of loading a checkpoint."""
    store.put_meta(STATE, _STATE.pack(slot, index, digest))
    store.put_meta(CONFIGURATION_META, configuration)


class Machine:
    """The state of one group at one replica, on a store that it loads itself from.

    Attributes: ``applied_slot``, ``index`` (of the last operation) and ``configuration`` (bytes, b"" if none).
    """

    def __init__(self, store: Store, window: int) -> None:
        """Load the state from ``store``; ``window`` is W, in slots. Raises DamageError if it makes no sense."""
        check(window > 0, "the request window has at least one slot")
        self._store = store
        self._window = window
        self._requests = RequestTable(window)
        self.applied_slot = self.index = self._digest = 0
        self.configuration = self._written_configuration = b""
        self.reload()

    def reload(self) -> None:
        """Take over what the store holds now (at start, after an abort, after a checkpoint was loaded)."""
        for _ in self.reload_slices():
            pass

    def reload_slices(self) -> Iterator[None]:
        """Do what :meth:`reload` does in slices of a few milliseconds; use nothing else of the machine meanwhile."""
        self.applied_slot, self.index, digest, self.configuration = read_state(self._store)
        self._digest = to_int(digest)
        self._written_configuration = self.configuration
        requests = RequestTable(self._window)
        loaded = 0
        for slot, record in self._store.scan_requests():
            requests.load(slot, record)
            if len(requests) >= loaded + RELOAD_SLICE:
                loaded = len(requests)
                yield
        self._requests = requests

    @property
    def digest(self) -> bytes:
        """The 16-byte rolling digest of entries, request records and configuration."""
        return to_bytes(self._digest)

    @property
    def store(self) -> Store:
        """The store below."""
        return self._store

    @property
    def remembered(self) -> int:
        """How many request ids are remembered."""
        return len(self._requests)

    def read(self, key: bytes) -> Entry | None:
        """Return the entry of ``key``, or None."""
        data = self._store.get(key)
        return None if data is None else decode_entry(data)

    def recall(self, request_id: bytes, code: int, key: bytes, value: bytes, flags: int, cas: int) -> Result | None:
        """Return what a repeat of this operation would be told, or None if its id is not remembered.

        A contact needs it after a checkpoint was loaded over slots whose results it never saw, and for ids from
        idempotency keys, which two contacts may use for two contents at once.
        """
        known = self._requests.find(request_id)
        if known is None:
            return None
        return _repeated(known, self.index, (request_id, code, key, value, flags, cas))

    def begin(self) -> None:
        """Open the store's write transaction."""
        self._store.begin()

    def commit(self, *, flush: bool = False) -> None:
        """Write where the machine stands, and make everything since :meth:`begin` visible; ``flush``: see the store."""
        self._store.put_meta(STATE, _STATE.pack(self.applied_slot, self.index, to_bytes(self._digest)))
        if self.configuration != self._written_configuration:
            self._store.put_meta(CONFIGURATION_META, self.configuration)
        self._store.commit(flush=flush)
        self._written_configuration = self.configuration

    def abort(self) -> None:
        """Go back to the last commit, whatever happened since :meth:`begin`."""
        self._store.abort()
        self.reload()

    def apply(self, slot: int, value: bytes) -> list[tuple[bytes, Result]]:
        """Apply the batch of the next slot; return ``(request id, result)`` for each of its operations, in order.

        Raises InvariantError for a slot out of order, and for operations that no contact lets through.
        """
        check(slot == self.applied_slot + 1, f"slot {slot} cannot follow slot {self.applied_slot}")
        results: list[tuple[bytes, Result]] = []
        try:
            kind, payload = decode_batch(value)
            if kind == OPERATIONS:
                check(type(payload) is tuple, "a batch of operations holds a list")
                results = self._apply_operations(slot, cast("tuple[bytes, ...]", payload))
            elif kind == CONFIGURATION:
                self._configure(payload)
        except _MALFORMED as error:
            raise InvariantError(f"slot {slot} holds what no contact lets through: {error}") from error
        evicted = self._requests.evict(slot)
        while evicted is not None:
            self._store.delete_requests(evicted[0])
            self._digest = (self._digest - evicted[1]) & MASK
            evicted = self._requests.evict(slot)
        self.applied_slot = slot
        return results

    def _configure(self, configuration: object) -> None:
        if type(configuration) is not bytes:
            raise TypeError("a configuration is bytes")
        change = configuration_part(configuration) - configuration_part(self.configuration)
        self._digest = (self._digest + change) & MASK
        self.configuration = configuration

    def _apply_operations(self, slot: int, operations: tuple[bytes, ...]) -> list[tuple[bytes, Result]]:
        table = self._requests
        unpack, to_number, new = msgpack.unpackb, int.from_bytes, tuple.__new__
        oldest_base = slot - self._window
        results: list[tuple[bytes, Result]] = []
        index = self.index
        # A run of new ids, as integers: it goes on with `following`, as long as that is below `ceiling`.
        first = first_index = ceiling = 0
        following = -1
        statuses = bytearray()
        for encoded in operations:
            index += 1
            request_id, base, code, key, value, flags, cas = unpack(encoded, use_list=False)
            number = to_number(request_id, "big") if len(request_id) == REQUEST_ID_BYTES else -2
            if number != following or number >= ceiling or base < oldest_base:
                if statuses:
                    table.add_run(first, first_index, bytes(statuses))
                    statuses.clear()
                following = -1
                known = table.find(request_id)
                if known is not None:
                    repeated = _repeated(known, index, (request_id, code, key, value, flags, cas))
                    results.append((request_id, repeated))
                    continue
                if base < oldest_base:
                    results.append((request_id, Result(EXPIRED, index)))
                    continue
            if code == PUT:
                status = self._put(index, key, value, flags, cas)
            elif code == DELETE:
                status = self._delete(key, cas)
            elif code == DELETE_PREFIX:
                status = self._delete_prefix(key)
            else:
                raise ValueError(f"there is no operation {code!r}")
            results.append((request_id, new(Result, (status, index))))
            if number < 0:
                content = fingerprint(request_id, code, key, value, flags, cas)
                table.add_single(Single(request_id, index, content, status))
                continue
            if following < 0:
                first, first_index, ceiling = number, index, table.ceiling(number)
            following = number + 1
            statuses.append(status)
        if statuses:
            table.add_run(first, first_index, bytes(statuses))
        self.index = index
        record, part = table.close_slot(slot)
        if record:
            self._store.put_requests(slot, record)
            self._digest = (self._digest + part) & MASK
        return results

    def _put(self, index: int, key: bytes, value: bytes, flags: int, cas: int) -> int:
        if type(key) is not bytes or not 0 < len(key) <= KEY_BYTES_MAX:
            raise ValueError(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {key[:64]!r}")
        old = self._store.get(key)
        if old is None:
            if cas > 0:
                return REFUSED
            fields = pack_fields(index, index, 0, flags, NO_SESSION)
            removed = 0
        else:
            create, modify, lock, old_flags, session = unpack_fields(old)
            if cas not in (NO_CAS, modify):
                return REFUSED
            # Rewriting what is there changes nothing: watchers of the modify index must not wake up for it.
            if old.endswith(value) and flags == old_flags and len(old) == fields_bytes(old) + HASH_BYTES + len(value):
                return APPLIED
            fields = pack_fields(create, index, lock, flags, session)
            removed = to_int(stored_hash(old))
        hashed = hash_of(key, fields, value)
        self._store.put(key, b"".join((fields, hashed, value)))
        self._digest = (self._digest + to_int(hashed) - removed) & MASK
        return APPLIED

    def _delete(self, key: bytes, cas: int) -> int:
        if type(key) is not bytes or not 0 < len(key) <= KEY_BYTES_MAX:
            raise ValueError(f"a key has 1 to {KEY_BYTES_MAX} bytes, not {key[:64]!r}")
        old = self._store.get(key)
        if old is None:
            return APPLIED
        if cas not in (NO_CAS, unpack_fields(old)[1]):
            return REFUSED
        self._remove(key, old)
        return APPLIED

    def _delete_prefix(self, prefix: bytes) -> int:
        # One more than the slice is looked at, to know whether some are left.
        found = list(islice(self._store.scan(prefix), DELETE_SLICE + 1))
        for key, entry in found[:DELETE_SLICE]:
            self._remove(key, entry)
        return MORE if len(found) > DELETE_SLICE else APPLIED

    def _remove(self, key: bytes, entry: bytes) -> None:
        self._store.delete(key)
        self._digest = (self._digest - to_int(stored_hash(entry))) & MASK


def _repeated(known: tuple[Result, int], index: int, operation: tuple[bytes, int, bytes, bytes, int, int]) -> Result:
    """Return the first result, unless the id's idempotency key was used with another content."""
    first, content = known
    if len(operation[0]) == IDEMPOTENCY_ID_BYTES and content != fingerprint(*operation):
        return Result(MISMATCH, index)
    return first
