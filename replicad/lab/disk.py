"""A virtual disk: the message log's segments as bytes, and what faults make of them.

The protocol promises to survive:

* the death of the process at any moment: every completed write is kept by the operating system, the one that was being
  written may be cut short at any byte;
* the death of the machine at any moment: of what was not flushed each sector is kept, lost or garbage, in any order;
  the machine's boot id changes;
* flushes of any duration (a *hang*, or a disk that is slow for good), and a full disk: no segment can be made, and
  what has no place waits until there is space again; promises may use the space that is reserved for them;
* *rot* (a changed byte, a zeroed range or a missing segment) in what was flushed before the last record was written,
  and the loss (*wipe*) of a whole data directory, on no more than a minority of the members at once: a member counts as
  lost from the damage until it has been re-admitted. The damage must be noticed at the next start; the disk then gets a
  new id.

It does not promise to survive, and this disk does not do: rot of the records written last (they look like records that
were cut short; S1), a flush that lies, and damage of a majority.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """Bytes that the operating system holds and the disk does not yet."""

    segment: int
    position: int
    data: bytes


class VirtualDisk:
    """Segments of one data directory. Reading sees what is durable; call :meth:`flush` first to include the rest."""

    def __init__(self, random: Random, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
        self.promises: dict[str, int] = {}
        """The promise file beside the log: group -> epoch; always durable."""
        self.formed = False
        """Whether a group's members were ever durable here: for the checks, no node looks at it."""
        self.full = False
        """There is no space for another segment; those that are there can be written."""
        self.slow_us = 0
        """Every flush takes so much longer, whichever process asks for it."""
        self._random = random
        self._segments: dict[int, bytearray] = {}
        self._pending: list[PendingWrite] = []

    def write(self, segment: int, position: int, data: bytes) -> None:
        """Write to a segment (created zero-filled when it is new); durable after :meth:`flush`."""
        if position < 0 or position + len(data) > self.segment_bytes:
            raise ValueError(f"{len(data)} bytes at {position} do not fit a segment of {self.segment_bytes} bytes")
        self._pending.append(PendingWrite(segment, position, bytes(data)))

    def create(self, segment: int, header: bytes) -> None:
        """Make a zero-filled segment that begins with ``header``; it is durable before this returns.

        Raises OSError on a full disk. The first one is always made: a node that finds no space for it does not start.
        """
        if self.full and self._segments:
            raise OSError(errno.ENOSPC, "no space left on device")
        self._put(segment, 0, header)

    def flush(self) -> None:
        """Make every completed write durable."""
        for write in self._pending:
            self._put(write.segment, write.position, write.data)
        self._pending.clear()

    def segments(self) -> list[tuple[int, bytes]]:
        """Return the durable segments in the order of their numbers."""
        return [(number, bytes(self._segments[number])) for number in sorted(self._segments)]

    def remove(self, numbers: list[int]) -> None:
        """Delete segments; like a rename, this is durable at once."""
        for number in numbers:
            self._segments.pop(number, None)

    def image(self) -> dict[int, bytearray]:
        """Return all segments as the operating system shows them: with what was written and not flushed yet."""
        image = {number: bytearray(data) for number, data in self._segments.items()}
        for write in self._pending:
            data = image.setdefault(write.segment, bytearray(self.segment_bytes))
            data[write.position : write.position + len(write.data)] = write.data
        return image

    def restore(self, segments: dict[int, bytearray], promises: dict[str, int]) -> None:
        """Hold just these segments and promises, all of them durable."""
        self.wipe()
        self._segments = {number: bytearray(data) for number, data in segments.items()}
        self.promises = dict(promises)

    def wipe(self) -> None:
        """Lose everything."""
        self._segments.clear()
        self._pending.clear()
        self.promises.clear()
        self.formed = False

    def die(self, *, cut: bool) -> None:
        """The process dies: completed writes stay; with ``cut``, the last of them was only partly written."""
        if cut and self._pending:
            last = self._pending.pop()
            kept = last.data[: self._random.randrange(len(last.data) + 1)]
            self._pending.append(PendingWrite(last.segment, last.position, kept))
        self.flush()

    def lose_power(self) -> None:
        """The machine dies: of what was not flushed every sector may be there, or not, or be garbage, in any order."""
        pending, self._pending = self._pending, []
        random = self._random
        kept = random.choice((0.0, 0.5, 0.9, 1.0))
        sector = random.choice((16, 64, 512))
        for write in pending:
            for start in range(0, len(write.data), sector):
                part = write.data[start : start + sector]
                if random.random() < kept:
                    self._put(write.segment, write.position + start, part)
                elif random.random() < 0.1:
                    self._put(write.segment, write.position + start, random.randbytes(len(part)))

    def rot(self, before: tuple[int, int]) -> str:
        """Damage a byte range somewhere before ``before`` (segment, position) and say what was done; "" if nothing."""
        last, end = before
        numbers = [number for number in sorted(self._segments) if number < last or (number == last and end > 0)]
        if not numbers:
            return ""
        number = self._random.choice(numbers)
        image = self._segments[number]
        used = end if number == last else len(image.rstrip(b"\0"))
        kind = self._random.randrange(3)
        if kind == 0 and numbers[0] < number < last:
            del self._segments[number]
            return f"segment {number} is gone"
        position = self._random.randrange(used)
        if kind == 1:
            length = min(self._random.randrange(1, 64), used - position)
            if any(image[position : position + length]):
                image[position : position + length] = bytes(length)
                return f"{length} bytes at {position} of segment {number} are zero"
        image[position] ^= self._random.randrange(1, 256)
        return f"byte {position} of segment {number} changed"

    def _put(self, segment: int, position: int, data: bytes) -> None:
        image = self._segments.get(segment)
        if image is None:
            image = self._segments[segment] = bytearray(self.segment_bytes)
        image[position : position + len(data)] = data
