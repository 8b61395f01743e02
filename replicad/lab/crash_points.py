"""Where two things are made durable apart: at each of these points a process may die, or its machine.

Faults at random times hardly ever hit the moments that matter: between the end of an install and the flush of its
record lie some hundred microseconds of a minute. So every such moment has a name, and a chance of its own.
"""

from __future__ import annotations

from random import Random

LOG_FLUSHED = "log flushed, promise file not"
PROMISES_STORED = "promise file stored, nothing reported"
STORE_WRITTEN = "databases written, watermark not"
WATERMARK_CLEARED = "watermark cleared, databases not"
LOAD_BEGUN = "load begun"
LOAD_WRITTEN = "load written, watermark not"
FILE_WRITTEN = "own checkpoint file written, not reported"
FILE_KEPT = "received checkpoint file kept, store as it was"
LOADED = "store replaced by a checkpoint, not reported"
RECORD_APPENDED = "record of a kept checkpoint appended, not flushed"
RECORD_DURABLE = "record of a kept checkpoint durable, store as it was"
FILES_DROPPED = "older checkpoint files gone, segments not"
LIVE_WRITTEN = "live records written again, segments there"
SEGMENT_REMOVED = "one segment removed, others there"
LOG_PUT_RIGHT = "log put right, start not recorded"
IDENTITY_RENEWED = "identity renewed, old data there"
STORE_MOVED = "store and checkpoints set aside, log there"
WATERMARK_FORGOTTEN = "watermark of a dropped group forgotten, its store there"
STORE_DELETED = "store of a dropped group deleted, log and checkpoints there"
CHECKPOINT_DELETED = "one checkpoint of a dropped group deleted, maybe others there"
CHECKPOINTS_DELETED = "store and checkpoints of a dropped group deleted, log there"
DROP_APPENDED = "drop of a group appended, not flushed"
DROP_LOGGED = "drop of a group logged, its promise in the promise file there"

POINTS: dict[str, int] = {
    LOG_FLUSHED: 1_000,
    PROMISES_STORED: 1_000,
    STORE_WRITTEN: 3_000,
    WATERMARK_CLEARED: 60_000,
    LOAD_BEGUN: 100_000,
    LOAD_WRITTEN: 150_000,
    FILE_WRITTEN: 30_000,
    FILE_KEPT: 150_000,
    LOADED: 250_000,
    RECORD_APPENDED: 150_000,
    RECORD_DURABLE: 150_000,
    FILES_DROPPED: 50_000,
    LIVE_WRITTEN: 50_000,
    SEGMENT_REMOVED: 50_000,
    LOG_PUT_RIGHT: 50_000,
    IDENTITY_RENEWED: 300_000,
    STORE_MOVED: 300_000,
    WATERMARK_FORGOTTEN: 100_000,
    STORE_DELETED: 150_000,
    CHECKPOINT_DELETED: 100_000,
    CHECKPOINTS_DELETED: 150_000,
    DROP_APPENDED: 150_000,
    DROP_LOGGED: 150_000,
}
"""Point -> the chance that a process dies there, in parts per million: the rarer it is passed, the higher."""
POWER_PPM = 250_000
"""Share of these deaths that are the machine's."""


class Died(BaseException):
    """The process that was at work is dead; nothing of what it was about to do happens."""


class CrashPoints:
    """The crash points of one node.

    ``scale_ppm`` scales the chances (0: nobody dies), ``installs_ppm`` that of :data:`LOADED` if it is more.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self.scale_ppm = 0
        self.installs_ppm = 0

    def strikes(self, point: str) -> bool:
        """Return whether a process that comes to this point dies there."""
        scale = max(self.scale_ppm, self.installs_ppm) if point == LOADED else self.scale_ppm
        if not scale:
            return False
        return self._random.randrange(1_000_000) < POINTS[point] * scale // 1_000_000

    def power(self) -> bool:
        """Return whether its machine dies with it."""
        return self._random.randrange(1_000_000) < POWER_PPM

    def outage(self) -> int:
        """Return how long it stays down, in microseconds."""
        return self._random.choice((1_000, 50_000, 300_000, 1_500_000))
