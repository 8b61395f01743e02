"""A clock that starts anywhere, and is a little too fast or too slow. Pure."""


class VirtualClock:
    """A machine's CLOCK_BOOTTIME: any offset, and a rate that is wrong by ``ppm`` parts per million."""

    def __init__(self, ppm: int, offset: int) -> None:
        self.ppm = ppm
        self.offset = offset

    def read(self, now: int) -> int:
        """Return the clock's microseconds at the virtual time ``now``."""
        return self.offset + now + now * self.ppm // 1_000_000

    def restart(self, now: int, reading: int) -> None:
        """Let the clock show ``reading`` at ``now``."""
        self.offset += reading - self.read(now)
