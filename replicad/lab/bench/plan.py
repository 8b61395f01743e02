"""What a benchmark measures, in which order, and how its options are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2}
SIZE = re.compile(r"([0-9]{1,9})\s*([a-z]*)")
VALUE_BYTES_MAX = 16 * 1024**2
CELLS_MAX = 100


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the table: a group, loaded with values of one size."""

    group: str
    value_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Every cell is measured once in each round, so that what slows the machine for a while slows all of them.

    ``seconds`` is how long one cell is loaded in one round, ``clients`` how many connections do that, and
    ``put_percent`` how many of 100 operations are writes. ``ack`` is "" for what each group does by itself.
    """

    cells: tuple[Cell, ...]
    rounds: int = 3
    seconds: float = 5.0
    clients: int = 32
    put_percent: int = 100
    ack: str = ""

    def turns(self) -> Iterator[tuple[int, Cell]]:
        """Yield ``(round, cell)`` in the order of measuring."""
        for number in range(self.rounds):
            for cell in self.cells:
                yield number, cell


def cells(groups: list[str], sizes: list[int]) -> tuple[Cell, ...]:
    """Return every group with every size; the groups of one size stand together. Raises ValueError with a sentence."""
    found = tuple(dict.fromkeys(Cell(group, size) for size in sizes for group in groups))
    if len(found) > CELLS_MAX:
        raise ValueError(f"{len(groups)} groups by {len(sizes)} sizes are {len(found)} cells; the most is {CELLS_MAX}")
    return found


def parse_sizes(text: str) -> list[int]:
    """Return the sizes in ``100,4KiB,64KiB``, in bytes. Raises ValueError with a sentence."""
    found: list[int] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = SIZE.fullmatch(part.lower())
        unit = UNITS.get(match[2]) if match else None
        if match is None or unit is None:
            raise ValueError(f"{part[:40]!r} is not a size; write bytes, KiB or MiB, for example 100,4KiB,64KiB")
        size = int(match[1]) * unit
        if not 1 <= size <= VALUE_BYTES_MAX:
            raise ValueError(f"{part} is {size} bytes; a value has 1 to {VALUE_BYTES_MAX}")
        found.append(size)
    if not found:
        raise ValueError("no size is named; an example is 100,4KiB,64KiB")
    return found


def parse_mix(text: str) -> int:
    """Return how many of 100 operations are writes, from ``put``, ``get`` or ``90/10``. Raises ValueError."""
    if text in {"put", "get"}:
        return 100 if text == "put" else 0
    puts, slash, gets = text.partition("/")
    if slash and puts.isdecimal() and gets.isdecimal() and int(puts) + int(gets) == 100:
        return int(puts)
    raise ValueError(
        f"{text[:40]!r} is not a mix; it is put, get, or the percentages of both, such as 90/10 for 90 puts and 10 gets"
    )


def size_label(size: int) -> str:
    """Return a size as it is written on the command line."""
    for unit, factor in (("MiB", 1024**2), ("KiB", 1024)):
        if size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"
