"""A node in memory, for tests of the HTTP edge: the real machine on the memory store, and no replication.

Its switches make it behave like a node in trouble: see the attributes of :class:`FakeGroup`.
"""

import asyncio
from contextlib import contextmanager
from itertools import count

from replicad.core.kv.entries import decode_entry
from replicad.core.kv.machine import Machine
from replicad.core.kv.memory_store import MemoryStore
from replicad.core.model.errors import RequestError
from replicad.core.model.limits import Limits
from replicad.core.model.operations import (
    ACK_ALL,
    NO_CAS,
    OPERATIONS,
    Result,
    encode_batch,
    encode_operation,
    make_request_id,
)
from replicad.node.metrics import Metrics


class FakeListing:
    def __init__(self, store):
        self.store = store

    def scan(self, prefix, after=None):
        for key, entry in self.store.scan(prefix, after):
            yield key, decode_entry(entry)


class FakeGroup:
    name = "default"
    id = "default"
    default_ack = ACK_ALL
    limits = Limits(value_bytes_max=200_000)

    def __init__(self):
        self.reaches = []  # the index of every wait for one
        self.reach_error = None  # what such a wait raises; None: the index is there at once
        self.store = MemoryStore()
        self.machine = Machine(self.store, 1000)
        self.numbers = count(1)
        self.ready = True  # linearizable reads are served locally
        self.barriers = []  # the `consistent` of every barrier that was waited for
        self.barrier_error = None  # what a barrier raises
        self.refusals = []  # errors that the next writes raise at once, None for a write that goes through
        self.held = None  # a list: writes are collected here and not answered
        self.age_ms = 0
        self.coordinator = True
        self.open_listings = 0
        self.acks = []  # the `ack` of every write

    @property
    def index(self):
        return self.machine.index

    def write(self, code, key, value=b"", flags=0, cas=NO_CAS, ack=ACK_ALL, idempotency=None):
        if self.refusals and (error := self.refusals.pop(0)):
            raise error
        self.acks.append(ack)
        future = asyncio.get_running_loop().create_future()
        if self.held is not None:
            self.held.append(future)
            return future
        request_id = idempotency or make_request_id(1, next(self.numbers))
        slot = self.machine.applied_slot + 1
        operation = encode_operation((request_id, slot - 1, code, key, value, flags, cas))
        self.machine.begin()
        result = self.machine.apply(slot, encode_batch(OPERATIONS, [operation]))[0][1]
        self.machine.commit()
        future.set_result(result if ack == ACK_ALL else Result(result.status, 0))
        return future

    def write_then(self, code, key, value, flags, cas, ack, done, token, idempotency=None):
        def tell(future):
            if not future.cancelled():
                done(token, future.exception() or future.result())

        self.write(code, key, value, flags, cas, ack, idempotency).add_done_callback(tell)

    def read_ready(self):
        return self.ready

    async def read_barrier(self, *, consistent):
        self.barriers.append(consistent)
        await asyncio.sleep(0)
        if self.barrier_error:
            raise self.barrier_error

    async def reach(self, index):
        self.reaches.append(index)
        await asyncio.sleep(0)
        if self.reach_error:
            raise self.reach_error
        self.age_ms = 0

    def read(self, key):
        return self.machine.read(key)

    def staleness_ms(self):
        return self.age_ms

    def has_coordinator(self):
        return self.coordinator

    def coordinator_address(self):
        return "127.0.0.1:8001" if self.coordinator else ""

    @contextmanager
    def listing(self):
        self.open_listings += 1
        try:
            yield FakeListing(self.store.snapshot())
        finally:
            self.open_listings -= 1

    async def checkpoint(self):
        return {"slot": self.machine.applied_slot, "digest": self.machine.digest.hex()}

    def status(self):
        return {"role": "coordinator", "index": self.index}


class FakeAdministration:
    """Knows the node's groups, and notes what it is asked to do."""

    def __init__(self, node):
        self.node = node
        self.asked = []

    def groups(self):
        return [self.describe(name) for name in self.node.groups]

    def describe(self, name):
        return {"name": name}

    def everyone(self):
        return (self.node.name,)

    async def create(self, wish, seconds):
        self.asked.append(("create", wish, seconds))
        return {"name": wish.name, "members": list(wish.members), "coordinator": "n1"}

    async def change_members(self, group, action, name, other, seconds, *, mirror):
        self.asked.append((action, group.name, name, other, seconds, mirror))
        return ["done"]

    async def remove_node(self, name, seconds):
        self.asked.append(("remove node", name, seconds))
        return {"name": name, "removed": True}

    def drained(self):
        return {"node": self.node.name, "drained": ("drain", True) in self.asked}

    async def drain(self, *, drained):
        self.asked.append(("drain", drained))
        return self.drained()

    async def put_node(self, name, entry):
        self.asked.append(("node", name, entry))
        return {"name": name}


class FakeNode:
    cluster = "test"

    def __init__(self, limits=None, name="n1"):
        self.name = name
        self.limits = limits or Limits(value_bytes_max=200_000)
        self.metrics = Metrics(self.name, self.cluster, "0")
        self.default = FakeGroup()
        self.groups = {"default": self.default}
        self.missing = []
        self.administration = FakeAdministration(self)
        self.others = {}  # name of a group that this node is no member of -> addresses of its members

    def group(self, name):
        if name not in self.groups:
            raise RequestError("not_found", f"there is no group {name!r} here")
        return self.groups[name]

    def elsewhere(self, name):
        return self.others.get(name, [])

    def status(self):
        return {"node": self.name, "cluster": self.cluster, "groups": {"default": self.default.status()}}

    def readiness(self):
        return self.missing

    def peer_addresses(self):
        return ["127.0.0.1:8001", "127.0.0.1:8002"]
