"""Bad luck: what befalls the servers, and their database."""

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import anyio
from chaos.servers import Server
from stores.cutting import Wire

from meerkat_mcp.sessions.turns import LEASE_S

if TYPE_CHECKING:
    from chaos.town import Town

Stroke = Callable[[Server, Wire | None], Awaitable[None]]
RESTART_EVERY_S = (20.0, 40.0)


class Fate:
    """Strikes until it is over; what it began it also ends."""

    def __init__(self, town: "Town") -> None:
        self._town = town
        self._random = Random(f"{town.plan.seed} fate")
        self._tasks: anyio.abc.TaskGroup | None = None
        self.strokes: Counter[str] = Counter()
        plan = town.plan
        self._possible: list[Stroke] = []
        if plan.kills:
            self._possible += [self._kill, self._kill]
        if plan.ends:
            self._possible += [self._end, self._hang_up]
        if plan.stops:
            self._possible += [self._pause, self._pause]
        if plan.long_stops:
            self._possible += [self._freeze]
        if plan.cuts and plan.backend == "postgres":
            self._possible += [self._cut, self._cut, self._stall, self._refuse]

    async def run(self) -> None:
        async with anyio.create_task_group() as self._tasks:
            if self._town.plan.restarts:
                self._tasks.start_soon(self._restart_the_database)
            while self._possible:
                await self._rest(self._random.uniform(*self._town.plan.rhythm_s))
                if self._town.over:
                    return
                server = self._town.any_server(self._random)
                if server.stopped or not server.up.is_set():
                    continue
                await self._random.choice(self._possible)(server, self._town.wires.get(server.name))

    def _befalls(self, what: str, server: Server, seconds: float = 0.0) -> None:
        self.strokes[what] += 1
        self._town.say(f"{server.name} {what}{f' for {seconds:.1f} s' if seconds else ''}")
        self._town.trouble(seconds)

    async def _rest(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._town.time_is_up.wait()

    async def _kill(self, server: Server, _: Wire | None) -> None:
        self._befalls("is killed", server)
        server.strike("kill")

    async def _end(self, server: Server, _: Wire | None) -> None:
        self._befalls("is told to end", server)
        server.strike("end")

    async def _hang_up(self, server: Server, _: Wire | None) -> None:
        self._befalls("loses its host", server)
        await server.hang_up()

    async def _pause(self, server: Server, _: Wire | None) -> None:
        await self._stop("is stopped", server, self._random.uniform(0.05, 3.0))

    async def _freeze(self, server: Server, _: Wire | None) -> None:
        await self._stop("is stopped for longer than its lease", server, LEASE_S + self._random.uniform(1.0, 4.0))

    async def _stop(self, what: str, server: Server, seconds: float) -> None:
        self._befalls(what, server, seconds)
        server.strike("stop")

        async def go_on() -> None:
            server.strike("go on")

        self._later(seconds, go_on)

    async def _cut(self, server: Server, wire: Wire | None) -> None:
        assert wire is not None, "only postgres has wires"
        self._befalls("is cut off", server)
        server.trouble("cut")
        await wire.sever()

    async def _stall(self, server: Server, wire: Wire | None) -> None:
        assert wire is not None, "only postgres has wires"
        seconds = self._random.choice((0.3, 2.0, 8.0, LEASE_S + 3))
        self._befalls("hears nothing of its database", server, seconds)
        server.trouble("stall")
        wire.stall()
        self._later(seconds, partial(self._mend, server, wire))

    async def _refuse(self, server: Server, wire: Wire | None) -> None:
        assert wire is not None, "only postgres has wires"
        seconds = self._random.choice((0.3, 2.0, 8.0))
        self._befalls("is refused by its database", server, seconds)
        server.trouble("refuse")
        await wire.cut()
        self._later(seconds, partial(self._mend, server, wire))

    async def _mend(self, server: Server, wire: Wire) -> None:
        server.trouble("mended")
        await wire.mend()

    async def _restart_the_database(self) -> None:
        assert self._town.database is not None, "the plan has a database of its own"
        while True:
            await self._rest(self._random.uniform(*RESTART_EVERY_S))
            if self._town.over:
                return
            crash = self._random.random() < 0.5
            what = f"the database {'crashes' if crash else 'is restarted'}"
            self.strokes[what] += 1
            self._town.say(what)
            for server in self._town.servers:
                server.trouble("database restarted")
            await self._town.database.restart(crash=crash)
            for server in self._town.servers:
                server.trouble("database is back")
            self._town.trouble(5.0)

    def _later(self, seconds: float, what: Callable[[], Awaitable[None]]) -> None:
        async def do() -> None:
            await self._rest(seconds)
            await what()

        assert self._tasks is not None, "fate runs"
        self._tasks.start_soon(do)
