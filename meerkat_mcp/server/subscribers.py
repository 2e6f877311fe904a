"""What one client wants to hear of, and what of it has changed since it was told.

A change is a level, not a message: "read again if you care". So there is no queue: a slow reader costs nothing and
delays nobody, a flood of events becomes one notice in a while, and the last change is always told.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
from mcp.server.subscriptions import ServerEvent

from meerkat_mcp.domain.errors import MeerkatError

Look = Callable[[], Awaitable[object]]


@dataclass(eq=False, slots=True)
class Watch:
    """One thing that a subscriber wants to hear of. `event` is what it is told; `topic` is what stirs it.

    `whole`: pieces of a text in the making do not change it. `look` says what it shows now, where that has to be
    compared; `every_s`: how often to look without being stirred.
    """

    event: ServerEvent
    topic: str
    rest_s: float
    whole: bool = False
    look: Look | None = None
    every_s: float = math.inf
    shown: object = None
    told_s: float = -math.inf


@dataclass(eq=False, slots=True)
class Subscriber:
    """One client's watches, and what of them has changed. `run` tells it, in a task of its own."""

    tell: Callable[[ServerEvent], Awaitable[None]]
    watches: dict[ServerEvent, Watch] = field(default_factory=dict[ServerEvent, Watch])
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _due: dict[Watch, float] = field(default_factory=dict[Watch, float])
    _stirred: anyio.Event = field(default_factory=anyio.Event)
    _ended: bool = False

    def stir(self, watch: Watch) -> None:
        """Something changed that this watch may show: at once when it rested, else when it has."""
        self._wake_at(watch, max(anyio.current_time(), watch.told_s + watch.rest_s))

    def told(self, event: ServerEvent) -> None:
        """A program that embeds us said that this changed."""
        if (watch := self.watches.get(event)) is not None:
            self.stir(watch)

    def rest(self, watch: Watch) -> None:
        """From now on, look at it by the clock, if it is to be looked at so."""
        if watch.every_s < math.inf:
            self._wake_at(watch, anyio.current_time() + watch.every_s)

    def forget(self, event: ServerEvent) -> Watch | None:
        """It is watched no more; what watched it."""
        watch = self.watches.pop(event, None)
        if watch is not None:
            self._due.pop(watch, None)
        return watch

    def end(self) -> None:
        """Let `run` return."""
        self._ended = True
        self._stirred.set()

    async def run(self) -> None:
        """Tell what changed, until the end; never the same thing twice within its rest."""
        while not self._ended:
            self._stirred = anyio.Event()
            now = anyio.current_time()
            ready = [watch for watch, due_s in self._due.items() if due_s <= now]
            for watch in ready:
                if self._due.pop(watch, None) is not None:  # else it was unsubscribed while another one was told
                    await self._tell(watch)
            if not ready:
                with anyio.CancelScope(deadline=min(self._due.values(), default=math.inf)):
                    await self._stirred.wait()

    async def _tell(self, watch: Watch) -> None:
        watch.told_s = anyio.current_time()
        self.rest(watch)
        if watch.look is not None:
            try:
                shown = await watch.look()
            except MeerkatError:
                shown = None  # reading it will say why
            if shown == watch.shown:
                return
            watch.shown = shown
        await self.tell(watch.event)

    def _wake_at(self, watch: Watch, due_s: float) -> None:
        if due_s < self._due.get(watch, math.inf):
            self._due[watch] = due_s
            self._stirred.set()
