"""Time and new ids, in one place, so that a test or a simulation can bring its own."""

import secrets
import time
import uuid
from typing import Protocol

DAY_MS = 86_400_000


class Clock(Protocol):
    """What time it is, and names nobody had before."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    def new_id(self) -> str:
        """A UUIDv7: ids made later sort later."""
        ...


class SystemClock:
    """The machine's clock. Ids of one process keep their order even when the clock is set back."""

    def __init__(self) -> None:
        self._last = 0

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def new_id(self) -> str:
        """A UUIDv7 (RFC 9562 §5.7; method 3 of §6.2: the 12 bits after the milliseconds are their fraction)."""
        self._last = max(self._last + 1, (time.time_ns() << 12) // 1_000_000)
        return str(uuid7(self._last, secrets.randbits(62)))


def uuid7(ticks: int, random: int) -> uuid.UUID:
    """The UUIDv7 of a time, in 4096ths of a millisecond since the epoch, and 62 random bits."""
    ms, fraction = ticks >> 12, ticks & 0xFFF
    return uuid.UUID(int=(ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random)
