"""An event loop whose time passes only when nobody has anything to do: an hour of waiting costs nothing.

The intervals of the program (50 ms between writings of a text, 15 s of a lease) stay what they are, and every run
of a seed sees the same order of timers.
"""

import asyncio
import itertools
import selectors
from typing import Any

from meerkat_mcp.sessions.clock import uuid7

EPOCH_MS = 1_767_225_600_000
SECONDS_MAX = 3600.0
ROUNDS_MAX = 200_000
BUSY_ROUNDS, BUSY_S = 50, 0.001
"""Work takes time too: after so many rounds without a pause each one takes a millisecond. anyio tells a task that waits
behind a shield of its cancellation in every single round, and time must not stand still for that."""


class Stuck(BaseException):
    """Nothing will ever happen again, or it happens for ever; no `except Exception` gets in the way of this."""


class _Skipping(selectors.DefaultSelector):
    """Where a loop would sleep, time jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.rounds = 0
        self._busy = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.rounds += 1
        if self.rounds > ROUNDS_MAX:
            raise Stuck(f"still busy after {ROUNDS_MAX} rounds, at {self.now_s:.3f} s")
        if timeout is None or self.now_s > SECONDS_MAX:
            raise Stuck(f"nobody will ever wake up, at {self.now_s:.3f} s")
        self._busy = 0 if timeout else self._busy + 1
        self.now_s += timeout if self._busy < BUSY_ROUNDS else BUSY_S
        return []


class _Numbered(asyncio.Task[Any]):
    """A task whose place in a set does not depend on where it lies in memory: each run of a seed has the same order."""

    def __init__(self, *given: Any, number: int, **named: Any) -> None:
        self._number = number
        super().__init__(*given, **named)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop for one world, without threads and without files."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)
        numbers = itertools.count()
        self.set_task_factory(lambda loop, work, **named: _Numbered(work, loop=loop, number=next(numbers), **named))

    def time(self) -> float:
        return self._skipping.now_s


class VirtualClock:
    """A process's clock: the loop's time, a little wrong, and ids that this seed always gives."""

    def __init__(self, random: Any, skew_ms: int) -> None:
        self._random = random
        self._skew_ms = skew_ms
        self._ticks = 0

    def now_ms(self) -> int:
        return EPOCH_MS + self._skew_ms + int(asyncio.get_running_loop().time() * 1000)

    def new_id(self) -> str:
        self._ticks = max(self._ticks + 1, self.now_ms() << 12)
        return str(uuid7(self._ticks, self._random.getrandbits(62)))
