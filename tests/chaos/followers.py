"""Those who follow a session, from one server after the other, and write down everything they see."""

import json
import math
import time
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import anyio
from chaos.ledger import Seen
from chaos.servers import Json, Server
from simulation.promises import Log

from meerkat_mcp.domain.recorded import Recorded

if TYPE_CHECKING:
    from chaos.town import Town

READ_MS = 5000
LAST_READ_MS = 1500
GONE = ("session_not_found", "stream_not_found")


class Follower:
    """One place in one log."""

    def __init__(self, town: "Town", name: str, session_id: str, random: Random) -> None:
        self._town = town
        self._random = random
        self._stream_id = ""
        self._again = False
        self._seen = Seen(name, session_id, 0)
        self._leaves_s = time.monotonic() + (random.uniform(3, 40) if random.random() < 0.7 else math.inf)

    async def follow(self) -> None:
        """Until everything has come to rest and been seen, or the session is deleted, or it is enough."""
        server = await self._opened()
        while self._stream_id and not self._seen.whole and time.monotonic() < self._leaves_s:
            if self._random.random() < 0.15 or not server.up.is_set():
                server = await self._town.somebody(self._random)
            if not await self._read(server):
                return

    async def _opened(self) -> Server:
        session_id = self._seen.session_id
        while True:
            server = await self._town.somebody(self._random)
            asked = {"session_id": session_id} | self._random.choice(({}, {"after_seq": 0}))
            answer = await server.call("meerkat_event_stream_open", asked)
            self._town.heard(answer, f"{self._seen.name} opens a stream of {session_id[-6:]} in {server.name}")
            if answer.result is not None:
                self._stream_id, self._seen.after = answer.result["stream_id"], answer.result["after_seq"]
                self._town.ledger.followers.append(self._seen)
                return server
            if answer.code in GONE or self._town.resting.is_set():
                return server
            await anyio.sleep(0.2)

    async def _read(self, server: Server) -> bool:
        """Read on; whether there may be more one day."""
        resting = self._town.resting.is_set()
        last = self._seen.events[-1].seq if self._seen.events else self._seen.after
        wait_ms = LAST_READ_MS if resting else self._random.choice((0, 500, READ_MS))
        asked = {"stream_id": self._stream_id, "timeout_ms": wait_ms, "max_events": self._random.choice((5, 100, 1000))}
        if self._again:  # who lost an answer does not know where its stream stands
            asked["after_seq"] = last
        began_ms = time.time_ns() // 1_000_000
        answer = await server.call("meerkat_event_stream_read", asked, waits_s=wait_ms / 1000)
        came_ms = time.time_ns() // 1_000_000
        if answer.result is None:
            self._again = True
            if not answer.lost:
                self._town.heard(answer, f"{self._seen.name} reads in {server.name}")
                if answer.code in GONE:
                    return False
            await anyio.sleep(0.1)
            return True
        if answer.result["status"] == "closed":
            return False
        for event in events_of(answer.result["events"]):
            if event.timestamp_ms >= began_ms:
                self._seen.delays_ms.append(max(0, came_ms - event.timestamp_ms))
                if answer.calm and self._town.calm_since_ms < event.timestamp_ms:
                    self._seen.calm_delays_ms.append(max(0, came_ms - event.timestamp_ms))
            self._seen.events.append(event)
        self._seen.whole = resting and answer.result["status"] == "timeout" and not answer.result["more"]
        if wait_ms == 0 and not answer.result["events"]:
            await anyio.sleep(0.2)
        return True


def events_of(bodies: Sequence[Json]) -> Log:
    """Events as a host gets them."""
    return [Recorded(body["seq"], body["type"], json.dumps(body).encode()).event for body in bodies]
