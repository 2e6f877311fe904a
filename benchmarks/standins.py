"""Providers that stand in for an SDK: what one costs or how long it takes is set here, so that the rest can be seen."""

import time
from collections.abc import AsyncGenerator, Callable

import anyio
import anyio.lowlevel

from meerkat_mcp.domain.messages import Usage
from meerkat_mcp.providers.base import Model, ModelRequest, Part, Piece, Reply, Whole

SDK_DELTA_US = 27.0
"""The CPU of the fastest provider SDK that was measured, for one delta of a burst."""
BURST_DELTAS = 50
"""How many deltas come in one read of a socket, about."""

LINGER_S = 0.1
"""How long a reply goes on after its first word, so that nothing but the word itself can carry it to a reader."""

REQUEST = ModelRequest(model="standin", messages=(), max_tokens=100_000)


class Standin:
    """The one model of a provider of ours."""

    name = "standin"

    async def models(self) -> tuple[Model, ...]:
        return (Model(model="standin", provider=self.name),)


class Burst(Standin):
    """Sends deltas as fast as an SDK could, at its price in CPU."""

    def __init__(self, deltas: int, cost_us: float = SDK_DELTA_US) -> None:
        self._deltas = deltas
        self._loops = loops_taking(cost_us)

    async def reply(self, request: ModelRequest) -> AsyncGenerator[Part]:
        for number in range(self._deltas):
            if number % BURST_DELTAS == 0:
                await anyio.lowlevel.checkpoint()
            for _ in range(self._loops):
                pass
            yield Piece(kind="text", text="word ")
        yield Whole(kind="text", text="word " * self._deltas)
        yield Reply(stop_reason="end", usage=Usage())


class Late(Standin):
    """Thinks for some time, then says one word, `sent_ns`, and ends a while later."""

    def __init__(self, think_s: float) -> None:
        self._think_s = think_s
        self.asked_ns = 0
        self.sent_ns = 0

    async def reply(self, request: ModelRequest) -> AsyncGenerator[Part]:
        self.asked_ns = time.monotonic_ns()
        await anyio.sleep(self._think_s)
        self.sent_ns = time.monotonic_ns()
        yield Piece(kind="text", text="word")
        await anyio.sleep(LINGER_S)
        yield Whole(kind="text", text="word")
        yield Reply(stop_reason="end", usage=Usage())


class Endless(Standin):
    """Says a word, then nothing more; tells when it is hung up on."""

    def __init__(self, hung_up: Callable[[int], None]) -> None:
        self._hung_up = hung_up

    async def reply(self, request: ModelRequest) -> AsyncGenerator[Part]:
        try:
            yield Piece(kind="text", text="word")
            await anyio.sleep_forever()
            yield Reply(stop_reason="end", usage=Usage())
        finally:
            self._hung_up(time.monotonic_ns())


def loops_taking(cost_us: float) -> int:
    """How often an empty loop turns in this time, when nothing else runs."""
    loops, best_s = 20_000, float("inf")
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(loops):
            pass
        best_s = min(best_s, time.perf_counter() - started)
    return max(1, round(cost_us / 1e6 / best_s * loops))
