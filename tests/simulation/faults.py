"""One store, as each of several processes sees it: slow, failing, frozen, cut off by death."""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import anyio.lowlevel

from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.stores.base import Append
from meerkat_mcp.stores.memory import MemoryStore


class Crashed(BaseException):
    """The process is dead: nothing it does has an effect any more, and no `except Exception` sees this."""


@dataclass
class Weather:
    """How likely it is that something goes wrong, for a while."""

    fails: float = 0.0
    fails_unknown: float = 0.0
    slow: float = 0.1
    outage: bool = False


@dataclass(eq=False)
class Shared:
    """What all processes have in common: the store itself, and who is to be told of what."""

    seed: int
    store: MemoryStore = field(default_factory=MemoryStore)
    weather: Weather = field(default_factory=Weather)
    views: list["View"] = field(default_factory=list)
    committed: Callable[["View", Append], None] = lambda view, append: None
    dead_at_once: set[str] = field(default_factory=set)
    """The incarnations that are known to be dead: their OS lock is free."""


class View:
    """The store as one process sees it. See `stores.base.Store` for what it has to promise, whatever happens."""

    def __init__(self, shared: Shared, name: str) -> None:
        self._shared = shared
        self._random = Random(f"{shared.seed} view {name}")
        self._told: list[str] = []
        self._rang = anyio.Event()
        self._thawed: anyio.Event | None = None
        self.name = name
        self.incarnation = ""
        self.crashed = False
        shared.views.append(self)

    # ── what happens to it ──

    def freeze(self) -> None:
        self._thawed = self._thawed or anyio.Event()

    def thaw(self) -> None:
        if self._thawed is not None:
            self._thawed.set()
            self._thawed = None

    def crash(self) -> None:
        self.crashed = True
        self.thaw()

    @property
    def frozen(self) -> bool:
        return self._thawed is not None

    def ring(self, session_id: str) -> None:
        self._told.append(session_id)
        self._rang.set()

    async def _live(self) -> None:
        """Time passes; the process may be stopped in it, or die."""
        await anyio.lowlevel.checkpoint()
        if self._random.random() < self._shared.weather.slow:
            await anyio.sleep(self._random.choice((0.001, 0.004, 0.03, 0.5)))
        while self._thawed is not None:
            await self._thawed.wait()
        if self.crashed:
            raise Crashed

    async def _may_fail(self) -> None:
        await self._live()
        if self._shared.weather.outage or self._random.random() < self._shared.weather.fails:
            raise StoreUnavailable("The disk is full.")

    # ── the store ──

    async def append(self, append: Append) -> None:
        await self._may_fail()
        await self._shared.store.append(append)
        self._shared.committed(self, append)
        others = [view for view in self._shared.views if view is not self]
        unknown = self._random.random() < self._shared.weather.fails_unknown
        for view in [*others, self] if unknown else others:
            for _ in range(self._random.choice((1, 1, 1, 2))):
                delay_s = self._random.choice((0, 0, 0.002, 0.1))
                _later(delay_s, view, append.session.id)
        await self._live()
        if unknown:
            raise StoreUnavailable("The connection broke; nobody knows whether it was written.")

    async def changes(self) -> AsyncGenerator[Collection[str]]:
        while True:
            while not self._told:
                self._rang = anyio.Event()
                await self._rang.wait()
            await self._may_fail()
            told = list(self._told)
            yield list(dict.fromkeys(told))
            del self._told[: len(told)]

    async def load(self, *given: Any, **named: Any) -> Any:
        return await self._answered(self._shared.store.load, *given, **named)

    async def read(self, *given: Any, **named: Any) -> Any:
        return await self._answered(self._shared.store.read, *given, **named)

    async def sessions(self, *given: Any, **named: Any) -> Sequence[Any]:
        return await self._answered(self._shared.store.sessions, *given, **named)

    async def matching(self, *given: Any, **named: Any) -> Sequence[str]:
        return await self._answered(self._shared.store.matching, *given, **named)

    async def delete(self, *given: Any, **named: Any) -> None:
        return await self._answered(self._shared.store.delete, *given, **named)

    async def claim(self, *given: Any, **named: Any) -> Any:
        return await self._answered(self._shared.store.claim, *given, **named)

    async def config(self) -> Any:
        return await self._answered(self._shared.store.config)

    async def put_config(self, *given: Any, **named: Any) -> Any:
        return await self._answered(self._shared.store.put_config, *given, **named)

    async def put_stream(self, *given: Any) -> None:
        return await self._answered(self._shared.store.put_stream, *given)

    async def stream(self, *given: Any) -> Any:
        return await self._answered(self._shared.store.stream, *given)

    async def close_stream(self, *given: Any) -> bool:
        return await self._answered(self._shared.store.close_stream, *given)

    async def prune_streams(self, **named: Any) -> int:
        return await self._answered(self._shared.store.prune_streams, **named)

    async def renew(self, instance: Instance) -> None:
        self.incarnation = instance.incarnation
        return await self._answered(self._shared.store.renew, instance)

    async def alive(self, incarnation: str, *, now_ms: int) -> bool:
        await self._may_fail()
        if incarnation == self.incarnation:
            return True
        if incarnation in self._shared.dead_at_once:
            return False
        return await self._shared.store.alive(incarnation, now_ms=now_ms)

    async def on_duty(self, *given: Any, **named: Any) -> bool:
        return await self._answered(self._shared.store.on_duty, *given, **named)

    async def take(self, **named: Any) -> Sequence[str]:
        return await self._answered(self._shared.store.take, **named)

    async def working(self) -> Sequence[tuple[str, str]]:
        return await self._answered(self._shared.store.working)

    async def retire(self, incarnation: str) -> None:
        return await self._answered(self._shared.store.retire, incarnation)

    async def close(self) -> None:
        pass

    async def _answered(self, ask: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """What the store says, which may be old when it arrives."""
        await self._may_fail()
        answer = await ask(*given, **named)
        await self._live()
        return answer


def _later(delay_s: float, view: View, session_id: str) -> None:
    import asyncio

    asyncio.get_running_loop().call_later(delay_s, view.ring, session_id)
