"""How a turn gets into the log: what it says is written behind it, in order, and its end comes last and once.

A turn may write only while it is its own: the log says whose it is (`Lost`), and whether somebody wants it to end
(`Stopped`).
"""

import logging
from collections.abc import Sequence

import anyio

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import Internal, MeerkatError, StoreUnavailable
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.session import ACCEPTS, Session
from meerkat_mcp.providers.base import Piece
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.pen import Pen
from meerkat_mcp.sessions.plan import Plan, warnings

END_RETRY_S = 1.0
STORE_RETRY_S = 0.2
STORE_PATIENCE_S = 60.0
"""How long a turn waits for a store that is away: a database that is restarted ends no turn."""

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The session is stopping: somebody asked this turn to end."""


class Lost(Exception):
    """The turn is not ours any more: another process ended it, or its session is gone."""


class Writing:
    """One turn's way into the log."""

    def __init__(self, journal: Journal, session: Session, plan: Plan) -> None:
        assert session.turn is not None, "a turn was started"
        self._journal = journal
        self._session_id = session.id
        self._turn_id = session.turn.turn_id
        self._incarnation = session.turn.owner.incarnation
        self._plan = plan
        self._pen = Pen(self._jot, plan.delta_interval_s)
        self._lock = anyio.Lock()

    def add(self, said: e.Event | Piece) -> None:
        """Take what was said; the log soon has it."""
        self._pen.add(said)

    async def run(self) -> None:
        """Write what gathers, until cancelled."""
        await self._pen.run()

    async def heed(self, after: int, scope: anyio.CancelScope) -> None:
        """Cut the work short when the log says that somebody wants it, or that the turn is not ours any more."""
        async with self._journal.follow(self._session_id, after=after, to_the_last=True) as log_from_here:
            while True:
                for recorded in await log_from_here.next():
                    if recorded.type in _CUTS and recorded.event.turn_id in (None, self._turn_id):
                        scope.cancel()
                        return

    def check(self, session: Session) -> None:
        """Whether the turn may go on. Raises Stopped, Lost."""
        self._own(session)
        if session.state == "stopping":
            raise Stopped

    async def flush(self) -> Session:
        """The session when everything said so far is recorded. A store that is away is waited for.

        Raises Stopped, Lost, StoreUnavailable.
        """
        until_s = anyio.current_time() + STORE_PATIENCE_S
        while True:
            try:
                return await self._flush()
            except StoreUnavailable as exc:
                if anyio.current_time() >= until_s:
                    raise
                log.info("Turn %s waits for the store: %s", self._turn_id, exc.message)
            await anyio.sleep(STORE_RETRY_S)

    async def _flush(self) -> Session:
        """What is taken is written, also when the turn is cut short. What cannot be stays first in line: no log has
        gaps.
        """
        session = None
        with anyio.CancelScope(shield=True):
            async with self._lock:
                drafts = self._named(self._pen.rest())
                try:
                    session = await self._write(drafts)
                except (Stopped, MeerkatError):
                    self._pen.put_back(drafts)
                    raise
        assert session is not None, "a shield lets nothing through"
        return session

    async def end(self, end: e.Event) -> None:
        """Record the end, after what was said before; again until the store takes it, or until cancelled."""
        rest, (end,) = self._named(self._pen.rest()), self._named([end])

        def decide(session: Session) -> Sequence[e.Event]:
            self._own(session)
            asked = session.turn.interrupt if session.turn is not None else None
            if asked is None:
                return [*self._ours(session, rest), *self._ours(session, [end])]
            still = [draft for draft in rest if isinstance(draft, ACCEPTS["stopping"])]
            return self._ours(session, [*still, e.TurnInterrupted(reason=asked)])

        while True:
            try:
                with anyio.CancelScope(shield=True):
                    await self._journal.record(self._session_id, decide)
                return
            except Lost:
                return log.debug("Turn %s had ended already.", self._turn_id)
            except StoreUnavailable as exc:
                log.error("The end of turn %s cannot be recorded yet: %s", self._turn_id, exc.message)
            except MeerkatError as exc:
                log.error("The end of turn %s could not be recorded: %s", self._turn_id, exc.message)
                if not rest:
                    return
                rest, (end,) = [], self._named([e.TurnFailed(error=exc.as_dict())])  # what was said last cannot be kept
                continue
            await anyio.sleep(END_RETRY_S)

    async def _write(self, drafts: Sequence[e.Event]) -> Session:
        def decide(session: Session) -> Sequence[e.Event]:
            self.check(session)
            return self._ours(session, drafts)

        return await self._journal.record(self._session_id, decide)

    async def _jot(self) -> None:
        """Write in passing. A store that cannot just now is no error yet: what was said waits for the next time."""
        try:
            await self._flush()
        except (Stopped, Lost):
            return  # `heed` ends the turn, or nobody waits for it any more
        except StoreUnavailable as exc:
            log.debug("What turn %s said is not written yet: %s", self._turn_id, exc.message)

    def _named(self, drafts: Sequence[e.Event]) -> list[e.Event]:
        """The drafts with ids: a store that took them and could not say so is given them again, and knows them."""
        new_id = self._journal.clock.new_id
        return [draft if draft.event_id else draft.model_copy(update={"event_id": new_id()}) for draft in drafts]

    def _ours(self, session: Session, drafts: Sequence[e.Event]) -> list[e.Event]:
        """The drafts as this turn's, with the warnings that a completed step brings about."""
        told: list[e.Event] = []
        for step in drafts:
            if isinstance(step, e.StepCompleted):
                session = session.model_copy(update={"usage": session.usage + step.usage})
                told = [*warnings(session, self._plan.budget, self._journal.clock.now_ms())]
        return [draft.model_copy(update={"turn_id": self._turn_id}) for draft in (*drafts, *told)]

    def _own(self, session: Session) -> None:
        turn = session.turn
        if turn is None or turn.turn_id != self._turn_id or turn.owner.incarnation != self._incarnation:
            raise Lost
        if not session.active:
            raise Lost


_CUTS = frozenset({"interrupt_requested", "turn_interrupted"})


def failed(exc: Exception, what: str) -> JsonObject:
    """The error that a turn is said to have failed with; a bug's text goes to the log alone."""
    if isinstance(exc, MeerkatError):
        return exc.as_dict()
    log.error("%s failed by a bug.", what, exc_info=exc)
    return Internal().as_dict()
