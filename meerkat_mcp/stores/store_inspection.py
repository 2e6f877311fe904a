"""Any store, looked into through its own door: for backends whose server checks the rest by itself."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from meerkat_mcp.domain.errors import Corrupt, MeerkatError, SessionNotFound
from meerkat_mcp.stores.base import Selection, Store
from meerkat_mcp.stores.inspection import EVERYTHING, Examination, Finding, Glance, fed


class StoreInspection:
    """See `Inspection`. It closes the store at the end; `living` says who is alive in it."""

    def __init__(
        self, store: Store, living: Callable[[], Awaitable[Sequence[str]]], clock_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._living = living
        self._clock_ms = clock_ms

    async def close(self) -> None:
        """See `Inspection`."""
        await self._store.close()

    async def glance(self) -> Glance:
        """See `Inspection`. The sessions are counted one by one."""
        newest = await self._store.sessions(Selection(archived=None), limit=1)
        sessions = len(await self._store.matching("", limit=EVERYTHING))
        return Glance(sessions, newest[0].updated_ms if newest else None, await self._living())

    async def health(self, *, full: bool) -> Sequence[Finding]:
        """See `Inspection`."""
        return [Finding("warning", warning, "See the page about backends.") for warning in self._store.warnings]

    async def examinations(self) -> AsyncIterator[Examination]:
        """See `Inspection`."""
        for session_id in reversed(await self._store.matching("", limit=EVERYTHING)):
            try:
                stored = await self._store.load(session_id)
            except SessionNotFound:
                continue
            except Corrupt:
                stored = None
            examination = Examination(session_id, stored)
            through = stored.seq if stored is not None else None
            try:
                while events := await self._store.read(session_id, after=examination.last_seq, through=through):
                    fed(examination, events)
            except MeerkatError as error:
                examination.damaged(f"its log cannot be read to its end ({error.message})")
            if examination.events or await self._store.matching(session_id, limit=1):
                yield examination

    async def alive(self, incarnation: str) -> bool:
        """See `Inspection`."""
        return await self._store.alive(incarnation, now_ms=self._clock_ms())
