"""A replica with its own clock and a disk that flushes on command, and short ways to build what it resumes from."""

from random import Random

from replicad.core.group.effects import EVERYONE
from replicad.core.group.executor import Execution
from replicad.core.group.replica import Replica
from replicad.core.group.state import GroupState
from replicad.core.journal.records import EntryRecord
from replicad.core.journal.recovery import DurableState
from replicad.core.model import messages as m
from replicad.core.model.configuration import Configuration
from replicad.core.model.ids import make_epoch
from replicad.core.model.limits import Limits
from replicad.core.model.operations import (
    ACK_ALL,
    APPLIED,
    CHECKPOINT,
    NO_CAS,
    OPERATIONS,
    PUT,
    REMOTE_WRITE,
    Result,
    decode_batch,
    decode_operation,
    encode_batch,
    encode_operation,
    make_request_id,
)

LIMITS = Limits(pipelined_slots=256)
LEASE = LIMITS.lease_us
HEARTBEAT = LIMITS.heartbeat_us
TICK = 10_000
BEGIN = 1_000_000_000
"""What the clock shows when a rig starts."""


def names(count):
    return tuple(f"n{number}" for number in range(1, count + 1))


def disk_of(node):
    return f"disk-{node}"


def configuration_of(count=3, protocol=REMOTE_WRITE):
    """The first configuration of n1 … n<count>."""
    return Configuration.initial({node: disk_of(node) for node in names(count)}, protocol)


def epoch_of(node, counter=1):
    """The epoch of a node with its first disk."""
    return make_epoch(counter, int(node[1:]))


def operation(number, key=b"k", value=b"v", base=0, cas=NO_CAS):
    """``(request id, encoded operation)`` of the ``number``-th put of some process."""
    request_id = make_request_id(1, number)
    return request_id, encode_operation((request_id, base, PUT, key, value, 0, cas))


def batch(number, **fields):
    """A batch of one put."""
    return encode_batch(OPERATIONS, [operation(number, **fields)[1]])


def durable_state(promised=0, entries=(), committed=0, count=3, formed=True, protocol=REMOTE_WRITE):
    """What a disk holds; ``entries`` are ``(slot, epoch, value)``."""
    return DurableState(
        promised=max([promised, *(epoch for _, epoch, _ in entries)]),
        entries={slot: EntryRecord(slot, epoch, 0, False, value) for slot, epoch, value in entries},
        committed=committed,
        formation=configuration_of(count, protocol).encode() if formed else b"",
    )


def group_state(node="n1", count=3, limits=LIMITS, **durable):
    """The shared state of a replica, for tests of one room."""
    return GroupState(
        node=node,
        disk=disk_of(node),
        boot=7,
        members=names(count),
        limits=limits,
        durable=durable_state(count=count, **durable),
        applied=0,
        digest=bytes(16),
        configuration=b"",
        lost=False,
        rebuild=False,
        random=Random(1),
        now=BEGIN,
    )


class Rig:
    """Drives one replica as a node does: applies at once, flushes when told to (or always: ``flushing``)."""

    def __init__(
        self,
        node="n1",
        count=3,
        *,
        limits=LIMITS,
        durable=None,
        disk=None,
        applied=0,
        lost=False,
        rebuild=False,
        flushing=True,
        seed=1,
        neighbours=(),
        **fields,
    ):
        self.node = node
        self.now = BEGIN
        self.flushing = flushing
        self.tickets = self.flushed = 0
        self.sent = []
        """``(to, message)`` that left, in order; what is sent to everyone has a line for each peer."""
        self.held = []
        self.records = []
        self.applied = []
        self.durable_requests = []
        self.refused_requests = []
        self.read_points = []
        self.changes = []
        self.catalog_stale = 0
        self.transfers = []
        self.events = []
        self.distrusted = False
        self.halted = self.forgotten = ""
        self.peers = [name for name in names(count) if name != node]
        self.replica = Replica(
            node=node,
            disk=disk or disk_of(node),
            boot=7,
            members=names(count),
            limits=limits,
            durable=durable or durable_state(count=count, **fields),
            applied=applied,
            digest=bytes(16),
            configuration=b"",
            lost=lost,
            rebuild=rebuild,
            random=Random(seed),
            now=self.now,
            neighbours=neighbours,
        )
        self.take(self.replica.start(self.now))

    # --- inputs -------------------------------------------------------------------------------------------------------

    def step(self, sender, message, disk=None):
        """A message of ``sender`` arrives; returns what was sent because of it."""
        before = len(self.sent)
        self.take(self.replica.step(sender, disk or disk_of(sender), message, self.now))
        return self.sent[before:]

    def wait(self, duration):
        """Let time pass, tick by tick; returns what was sent meanwhile."""
        before = len(self.sent)
        end = self.now + duration
        while self.now < end:
            self.now = min(self.now + TICK, end)
            self.take(self.replica.tick(self.now))
        return self.sent[before:]

    def submit(self, *operations, ack=ACK_ALL):
        """Clients of this node bring ``(request id, encoded operation)``."""
        before = len(self.sent)
        self.take(self.replica.submit([(rid, encoded, ack) for rid, encoded in operations], self.now))
        return self.sent[before:]

    def flush(self):
        """The disk is done with everything; returns what was sent because of it."""
        before = len(self.sent)
        while self.flushed < self.tickets:
            self.flushed = self.tickets
            held, self.held = self.held, []
            self._send(held)
            self.take(self.replica.durable(self.flushed, self.now))
        return self.sent[before:]

    # --- effects ------------------------------------------------------------------------------------------------------

    def take(self, effects):
        """Carry out effects in their order."""
        self.distrusted = self.distrusted or effects.distrust
        if effects.append:
            self.records += effects.append
            self.tickets += 1
        self._send(effects.send)
        if self.flushed == self.tickets:
            self._send(effects.send_durable)
        else:
            self.held += effects.send_durable
        self.durable_requests += effects.durable_requests
        self.refused_requests += effects.refused_requests
        self.read_points += effects.read_points
        self.changes += effects.changes
        self.catalog_stale += effects.catalog_stale
        self.transfers += effects.transfer
        self.events += effects.events
        self.halted = self.halted or effects.halt
        self.forgotten = self.forgotten or effects.forget
        if effects.apply:
            self.applied += effects.apply
            results = [item for slot, value in effects.apply for item in _results(slot, value)]
            slot = effects.apply[-1][0]
            marks = [(s, b"digest %09d" % s) for s, _ in effects.apply if s % LIMITS.digest_slots == 0]
            digests = [bytes(16)] * (slot - self.replica.applied)
            self.take(self.replica.executed(Execution(slot, bytes(16), results, marks, digests), self.now))
        if self.flushing:
            self.flush()

    def _send(self, messages):
        for to, message in messages:
            self.sent += [(peer, message) for peer in (self.peers if to == EVERYONE else [to])]

    def take_sent(self, kind=None):
        """Return what was sent so far (of one kind), and forget all of it."""
        sent, self.sent = self.sent, []
        return [(to, message) for to, message in sent if kind is None or isinstance(message, kind)]

    # --- common ways --------------------------------------------------------------------------------------------------

    def follow(self, leader="n2", *, epoch=None, committed=0, **fields):
        """Hear a heartbeat of a coordinator."""
        return self.step(leader, heartbeat(epoch or epoch_of(leader), committed=committed, **fields))

    def elect(self, promises=()):
        """Become coordinator by the votes of all peers; ``promises``: peer -> fields of its promise."""
        promises = dict(promises)
        self.until(m.PreVote)
        prepare = self.vote()
        for peer in self.peers:
            self.step(peer, promise(prepare, **promises.get(peer, {})))
        return prepare

    def vote(self):
        """All peers grant the last pre-vote; returns the Prepare."""
        pre_vote = next(message for _, message in reversed(self.sent) if isinstance(message, m.PreVote))
        for peer in self.peers:
            self.step(peer, m.PreVoteAnswer(pre_vote.epoch, pre_vote.attempt, True, 0))
        return next(message for _, message in reversed(self.sent) if isinstance(message, m.Prepare))

    def until(self, kind, patience=5_000_000):
        """Let time pass until a message of this kind is sent; returns it."""
        end = self.now + patience
        while self.now < end:
            for _, message in self.wait(TICK):
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"no {kind.__name__} was sent")

    def acknowledge(self, *peers, **fields):
        """These peers (by default all) answer the newest heartbeat."""
        beat = next(message for _, message in reversed(self.sent) if isinstance(message, m.Heartbeat))
        for peer in peers or self.peers:
            self.step(peer, ack(beat, **fields))

    def serve(self, duration, *peers, **fields):
        """Let time pass while these peers answer every round of heartbeats."""
        end = self.now + duration
        while self.now < end:
            if any(isinstance(message, m.Heartbeat) for _, message in self.wait(TICK)):
                self.acknowledge(*peers, **fields)

    def accept_all(self, *peers):
        """These peers durably accept everything that was assigned."""
        for peer in peers or self.peers:
            self.step(peer, m.Accepted(self.replica.epoch, self.highest, False))

    @property
    def highest(self):
        """The highest slot that this replica holds."""
        return max([slot for slot, *_ in self.slots()], default=self.replica.committed)

    def slots(self):
        """``(slot, epoch, value)`` of the records written so far, in order."""
        return [(record.slot, record.epoch, record.value) for record in self.records if isinstance(record, EntryRecord)]

    def of(self, kind):
        """The messages of one kind that were sent, without their destinations."""
        return [message for _, message in self.sent if isinstance(message, kind)]

    def event_names(self):
        return [name for name, _ in self.events]


class SlowRig(Rig):
    """Applies a slot when it is told to."""

    def __init__(self, *arguments, **fields):
        self.waiting = []
        super().__init__(*arguments, **fields)

    def take(self, effects):
        self.waiting += effects.apply
        effects.apply = []
        super().take(effects)

    def apply(self):
        """Apply the next slot."""
        slot, _ = self.waiting.pop(0)
        self.take(self.replica.executed(Execution(slot, bytes(16), [], []), self.now))


def _results(slot, value):
    kind, payload = decode_batch(value)
    if kind != OPERATIONS:
        return []
    return [(decode_operation(encoded).request_id, Result(APPLIED, slot)) for encoded in payload]


def heartbeat(epoch, sequence=1, **fields):
    """A heartbeat that grants and announces nothing but ``fields``."""
    plain = {
        "start": 1,
        "assigned": 0,
        "committed": 0,
        "acknowledged": 0,
        "grant_boot": 0,
        "grant_request": 0,
        "grant_us": 0,
        "grant_slot": 0,
        "checkpoint": 0,
        "checkpoint_digest": b"",
        "digest_slot": 0,
        "digest": b"",
    }
    return m.Heartbeat(epoch, sequence, **{**plain, **fields})


def ack(beat, **fields):
    """An answer to a heartbeat by a member that wants a lease and has everything."""
    plain = {
        "boot": 9,
        "matched": beat.assigned,
        "applied": beat.committed,
        "lease_request": beat.sequence,
        "digest_slot": 0,
        "digest": b"",
        "checkpoint": 0,
        "checkpoint_digest": b"",
    }
    return m.HeartbeatAck(beat.epoch, beat.sequence, **{**plain, **fields})


def promise(prepare, committed=0, base=0, entries=(), highest=None):
    """A complete promise; ``entries`` are summaries."""
    if highest is None:
        highest = max([committed, *(entry[0] for entry in entries)])
    return m.Promise(
        prepare.epoch, prepare.attempt, committed, base, highest, prepare.from_slot, highest, tuple(entries)
    )


def is_checkpoint(value):
    return decode_batch(value)[0] == CHECKPOINT
