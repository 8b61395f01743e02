"""Short ways to make batches, and a naive model of the machine to compare it with."""

from itertools import count

from replicad.core.model.operations import (
    APPLIED,
    DELETE,
    DELETE_PREFIX,
    DELETE_SLICE,
    EXPIRED,
    MISMATCH,
    MORE,
    NO_CAS,
    OPERATIONS,
    PUT,
    REFUSED,
    Result,
    encode_batch,
    encode_operation,
    make_request_id,
)

_numbers = count(1)


def put(key, value=b"v", *, flags=0, cas=NO_CAS, rid=None, base=0):
    """A PUT as a plain operation tuple, with a request id of its own unless one is given."""
    return (rid or make_request_id(1, next(_numbers)), base, PUT, key, value, flags, cas)


def delete(key, *, cas=NO_CAS, rid=None, base=0):
    return (rid or make_request_id(1, next(_numbers)), base, DELETE, key, b"", 0, cas)


def delete_prefix(prefix, *, rid=None, base=0):
    return (rid or make_request_id(1, next(_numbers)), base, DELETE_PREFIX, prefix, b"", 0, NO_CAS)


def batch(*operations):
    return encode_batch(OPERATIONS, [encode_operation(operation) for operation in operations])


def apply_all(machine, values):
    """Apply each value to the next slot in a transaction of its own; return the results per slot."""
    results = []
    for value in values:
        machine.begin()
        results.append([result for _, result in machine.apply(machine.applied_slot + 1, value)])
        machine.commit()
    return results


class NaiveModel:
    """The machine's rules, written for reading: key -> (create, modify, flags, value), id -> (slot, asked, result)."""

    def __init__(self, window):
        self.window = window
        self.slot = 0
        self.index = 0
        self.entries = {}
        self.requests = {}

    def apply(self, operations):
        self.slot += 1
        results = [self._one(*operation) for operation in operations]
        self.requests = {i: r for i, r in self.requests.items() if r[0] > self.slot - self.window}
        return results

    def _one(self, rid, base, *asked):
        self.index += 1
        if rid in self.requests:
            _, first, result = self.requests[rid]
            return Result(MISMATCH, self.index) if len(rid) == 16 and first != asked else result
        if self.slot > base + self.window:
            return Result(EXPIRED, self.index)
        result = Result(self._status(*asked), self.index)
        self.requests[rid] = (self.slot, tuple(asked), result)
        return result

    def _status(self, code, key, value, flags, cas):
        create, modify, *rest = self.entries.get(key, (self.index, 0))
        if code == DELETE_PREFIX:
            found = sorted(name for name in self.entries if name.startswith(key))
            for name in found[:DELETE_SLICE]:
                del self.entries[name]
            return MORE if len(found) > DELETE_SLICE else APPLIED
        if code == DELETE and not modify:
            return APPLIED
        if cas not in {NO_CAS, modify}:
            return REFUSED
        if code == DELETE:
            del self.entries[key]
        elif rest != [flags, value]:
            self.entries[key] = (create, self.index, flags, value)
        return APPLIED
