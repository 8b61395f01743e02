from random import Random

import pytest

from replicad.core.kv.machine import Machine
from replicad.core.kv.memory_store import MemoryStore
from replicad.core.model.operations import (
    CHECKPOINT_BATCH,
    DELETE,
    DELETE_PREFIX,
    NO_CAS,
    NOOP_BATCH,
    OPERATIONS,
    PUT,
    encode_batch,
    encode_operation,
)
from replicad.lab.model import Model


def random_batch(random, slot):
    if random.random() < 0.1:
        return random.choice((NOOP_BATCH, CHECKPOINT_BATCH))
    operations = []
    for _ in range(random.randrange(4)):
        width = random.choice((14, 16))
        request_id = b"%d" % random.randrange(40)
        operations.append(
            encode_operation(
                (
                    request_id.ljust(width),
                    max(0, slot - random.randrange(1, 14)),
                    random.choice((PUT, PUT, PUT, DELETE, DELETE_PREFIX)),
                    random.choice((b"a", b"ab", b"b")),
                    random.choice((b"x", b"y")),
                    random.randrange(2),
                    random.choice((NO_CAS, NO_CAS, 0, random.randrange(60))),
                )
            )
        )
    return encode_batch(OPERATIONS, operations)


@pytest.mark.parametrize("seed", range(30))
def test_the_model_and_the_machine_agree(seed):
    """Two independent machines give the same results and the same content for the same random slots."""
    random = Random(seed)
    window = random.choice((3, 8, 20))
    machine = Machine(MemoryStore(), window)
    model = Model(window)
    for slot in range(1, 80):
        batch = random_batch(random, slot)
        machine.begin()
        results = machine.apply(slot, batch)
        machine.commit()
        model.apply(batch)
        assert results == model.results.get(slot, [])
        assert machine.index == model.index
        for key in (b"a", b"ab", b"b"):
            entry, version = machine.read(key), model.at(key, slot)
            assert (entry.value if entry else None) == version.value
            if entry:
                assert (entry.modify, entry.create, entry.flags) == (version.modify, version.create, version.flags)
