"""What a server does for its realm by itself: it takes up what waits, and ends the turns of processes that died."""

import logging
from collections.abc import Collection, Sequence

import anyio

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.sessions.service import Sessions
from meerkat_mcp.stores.base import Append

LOOK_INTERVAL_S = 1.0
QUIET_INTERVAL_S = 5.0
"""Where nobody else works, news come before they are looked for; looking is for what was missed."""
LOOK_AGAIN_S = 0.2
"""What is heard of other processes is looked into at once, but in a flood of news no more often than this."""
RESERVED_S = 5.0
"""For this long nobody else reaches for what one process has found."""
AT_ONCE_MAX = 8

log = logging.getLogger(__name__)


class Upkeep:
    """Looks after a realm while a server is there: see `run`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._store = sessions.journal.store
        self._news = anyio.Event()

    def recorded(self, append: Append, seconds: float) -> None:
        """Our own turns are no news."""

    def heard(self, session_ids: Collection[str]) -> None:
        """Another process did something: perhaps it left something to do."""
        self._news.set()

    def lagged(self, seconds: float) -> None:
        """That we hear late changes nothing here."""

    async def run(self) -> None:
        """Look when other processes do something, and every second while they do; until cancelled."""
        journal = self._sessions.journal
        journal.listeners.add(self)
        try:
            while True:
                self._news = anyio.Event()
                busy = True
                try:
                    busy = await self.look()
                except MeerkatError as exc:
                    log.warning("The realm could not be looked after: %s", exc.message)
                await anyio.sleep(LOOK_AGAIN_S)
                with anyio.move_on_after((LOOK_INTERVAL_S if busy else QUIET_INTERVAL_S) - LOOK_AGAIN_S):
                    await self._news.wait()
        finally:
            journal.listeners.discard(self)

    async def look(self) -> bool:
        """End what the dead left running, then take up what waits, as much as there is room for. Whether there was
        anything that is not this process's own.
        """
        turns = self._sessions.turns
        if not turns.accepting:
            return False
        working = await self._store.working()
        for session_id in await turns.lost(working):
            await self._settle(session_id)
        waiting = await self._waiting()
        for session_id in waiting:
            await self._settle(session_id)
        return bool(waiting) or any(incarnation != turns.owner.incarnation for _, incarnation in working)

    async def _waiting(self) -> Sequence[str]:
        """Sessions in which something waits, as many as there is room for here."""
        most = (await self._sessions.config()).limits.max_concurrent_turns
        room = min(AT_ONCE_MAX, most - self._sessions.turns.running)
        if room <= 0:
            return ()
        now_ms = self._sessions.journal.clock.now_ms()
        until_ms = now_ms + int(RESERVED_S * 1000)
        return await self._store.take(ready_before_ms=now_ms + 1, until_ms=until_ms, now_ms=now_ms, limit=room)

    async def _settle(self, session_id: str) -> None:
        try:
            await self._sessions.settled(session_id)
        except MeerkatError as exc:
            log.info("Session %s could not be looked after: %s", session_id, exc.message)
