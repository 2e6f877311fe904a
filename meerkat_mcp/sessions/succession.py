"""What goes on without being asked: the next queued prompt, a suspended turn, and the end of what the dead left.

Whoever looks at a session settles it first, so that nothing looks alive that is not. Servers look by themselves, too:
see `upkeep`. Any number of processes may reach for the same: the log takes the first one.
"""

from collections.abc import Awaitable, Callable, Sequence

import anyio

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.config import Config
from meerkat_mcp.domain.errors import LimitExceeded, MeerkatError, ProviderUnauthenticated
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.domain.turn import Queued, Turn
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.plan import Plan
from meerkat_mcp.sessions.turns import Place, Turns

OTHERS_MAY_S = 600.0
"""How long a process without the key of a session's provider leaves it to others, before it says what is missing."""


class Succession:
    """Finds what is left to do in a session, and does it here where there is room."""

    def __init__(
        self,
        journal: Journal,
        turns: Turns,
        config: Callable[[], Awaitable[Config]],
        planned: Callable[[Settings, Config], Plan],
    ) -> None:
        self._journal = journal
        self._turns = turns
        self._config = config
        self._planned = planned

    async def settled(self, session_id: str) -> Session:
        """The session as it is, after what a dead process left was ended, and what waits for a process was begun here
        if it can be. Raises SessionNotFound, StoreUnavailable.
        """
        session = await self._turns.settle(await self._journal.load(session_id))
        if not self._is_for_us(session):
            return session
        config = await self._config()
        try:
            place = await self._turns.reserve(config.limits.max_concurrent_turns)
        except LimitExceeded:
            return session
        try:
            await self.go_on(session_id, place)
        except BaseException:
            place.free()
            raise
        return await self._journal.load(session_id)

    async def go_on(self, session_id: str, place: Place) -> None:
        """Begin what waits in a session in the place of a turn that ended, or in one taken for it; else free that."""
        session = await self._journal.load(session_id)
        if not self._is_for_us(session):
            return place.free()
        begun = await self._begun(session)
        config = await self._config()
        planned: Plan | None = None

        def decide(current: Session) -> Sequence[e.Event]:
            nonlocal planned
            planned = None
            if _what_waits(current) != _what_waits(session):
                return ()
            try:
                planned = self._planned(current.settings, config)
            except MeerkatError as exc:  # the config has changed since, or this process is not the one that was asked
                if isinstance(exc, ProviderUnauthenticated) and self._others_may(current):
                    return ()
                return [begun, e.TurnFailed(turn_id=begun.turn_id, error=exc.as_dict())]
            return [begun]

        with anyio.CancelScope(shield=True):
            session = await self._journal.record(session_id, decide)
            if planned is None:
                return place.free()
            await self._turns.start(session, planned, place, then=self.go_on)

    def _is_for_us(self, session: Session) -> bool:
        """Whether something waits here that this process may begin. Suspended turns are for those that stay."""
        if session.ready_ms is None or not self._turns.accepting:
            return False
        return session.state != "suspended" or self._turns.hands_over

    def _others_may(self, session: Session) -> bool:
        ready_ms = session.ready_ms or 0
        return self._journal.clock.now_ms() - ready_ms < OTHERS_MAY_S * 1000

    async def _begun(self, session: Session) -> e.TurnResumed | e.TurnStarted:
        """What begins when this process takes up what waits in the session."""
        owner = self._turns.owner
        if (turn := session.open_turn) is not None:
            return e.TurnResumed(turn_id=turn.turn_id, owner=owner)
        queued = session.queue[0]
        (recorded,) = await self._journal.store.read(session.id, after=queued.seq - 1, limit=1)
        event = recorded.event
        assert isinstance(event, e.PromptQueued), "the session says where its queued prompt is"
        return e.TurnStarted(turn_id=queued.turn_id, prompt=event.prompt, owner=owner, principal=event.principal)


def _what_waits(session: Session) -> tuple[str, Turn | Queued | None]:
    """The suspended turn, or the prompt that is next."""
    if session.state == "suspended":
        return session.state, session.turn
    return session.state, session.queue[0] if session.queue else None
