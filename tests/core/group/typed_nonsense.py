"""Messages of the right shape whose values make no sense, drawn from a seeded random source."""

from dataclasses import fields, replace

from replicad.core.model import messages as m
from replicad.core.model.messages.base import INTEGER_MAX
from replicad.core.model.operations import CHECKPOINT_BATCH, CONFIGURATION, NOOP_BATCH, encode_batch
from tests.core.group.rigs import batch, configuration_of, disk_of, epoch_of, operation

KINDS = tuple(kind for kind in m.MESSAGES.values() if kind is not m.DrainNotice)
"""A drain is an affair of nodes: such a notice comes to no group."""
HUGE = (1 << 31, 1 << 32, 1 << 53, 1 << 62, INTEGER_MAX - 1, INTEGER_MAX)
EPOCHS = (0, 1, *(epoch_of(node, counter) for node in ("n1", "n2", "n3", "n9") for counter in (1, 2, 3)))
WORDS = ("", "n1", "n2", "n3", "n4", "n9", "\x00", "ä" * 100, "n1\n\x1b[2J", disk_of("n1"), disk_of("n2"))
CHANGES = ("add", "promote", "demote", "remove", "move", "protocol")


def foreign_configurations():
    """Configurations of another cluster, and what is none at all."""
    foreign = configuration_of().identified("their cluster", "their life")
    return [
        foreign.encode(),
        replace(foreign, version=1 << 40).encode(),
        replace(foreign, version=INTEGER_MAX, slot=INTEGER_MAX, next_number=1, machine_version=INTEGER_MAX).encode(),
        replace(foreign, mirrors=("n1",), members=foreign.members[1:]).encode(),
        foreign.encode()[:-3],
        foreign.encode() + b"\x00",
        b"",
        b"\x90",
        b"\xc1",
        b"\x91" * 1020 + b"\xc0",
    ]


class Nonsense:
    """Draws messages of these kinds."""

    def __init__(self, random, kinds=KINDS):
        self.random = random
        self.kinds = kinds
        self.configurations = foreign_configurations()
        self.near = ()
        """Numbers that mean something to the receiver at the moment."""

    def message(self):
        """A message of a random kind, as it comes from the wire."""
        kind = self.random.choice(self.kinds)
        message = kind(*[self._field(field.name, str(field.type)) for field in fields(kind)])
        return m.decode_message(m.encode_message(message))

    def _field(self, name, kind):
        random = self.random
        if name == "state":
            return random.choice(("empty", "lost", "formed"))
        if name == "configuration" and kind == "bytes":
            return random.choice(self.configurations)
        match kind:
            case "int":
                return self.number(name)
            case "bool":
                return random.random() < 0.5
            case "str":
                return random.choice(CHANGES if name == "kind" else WORDS)
            case "bytes":
                return self.value()
            case "tuple[int, ...]":
                return self._several(self.number)
            case "tuple[str, ...]":
                return self._several(lambda: random.choice(WORDS))
            case "tuple[bytes, ...]":
                return self._several(self.value)
            case "tuple[Entry, ...]" | "tuple[Summary, ...]":
                return self._several(lambda: (self.number(), self.number("epoch"), self.number(), self.value()))
        raise AssertionError(f"{name} has a type of which no nonsense is known: {kind}")

    def _several(self, draw):
        return tuple(draw() for _ in range(self.random.randrange(5)))

    def number(self, name=""):
        """A slot, an epoch, a time, or nothing of the kind."""
        random = self.random
        if name in {"epoch", "promised"} and random.random() < 0.8:
            return random.choice(EPOCHS)
        roll = random.random()
        if roll < 0.4:
            return random.randrange(6)
        if roll < 0.7 and self.near:
            return min(max(0, random.choice(self.near) + random.randint(-2, 2)), INTEGER_MAX)
        return random.choice(HUGE) if roll < 0.85 else random.randrange(1 << random.randrange(1, 63))

    def value(self):
        """A batch, an operation, a digest, or nothing of the kind."""
        random = self.random
        number = random.randrange(1, 1000)
        return random.choice(
            (
                b"",
                bytes(16),
                random.randbytes(3),
                b"\x92\x02" + random.randbytes(8),
                batch(number),
                operation(number)[1],
                operation(number)[1][:-1],
                operation(number, key=b"", value=b"")[1],
                operation(number, base=INTEGER_MAX)[1],
                NOOP_BATCH,
                CHECKPOINT_BATCH,
                encode_batch(CONFIGURATION, random.choice(self.configurations)),
            )
        )
