"""The node's clock: CLOCK_BOOTTIME, which goes on while the machine sleeps, in integer microseconds."""

from __future__ import annotations

import time


def now_us() -> int:
    """Return the time since the machine's boot, in microseconds, sampled now (rule L4)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
