"""What becomes of whole sessions: archived, restored, forked, deleted."""

from collections.abc import Mapping, Sequence

import anyio

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import InvalidRequest, LimitExceeded, MeerkatError
from meerkat_mcp.domain.recorded import Recorded, encode
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.sessions.compaction import replaceable
from meerkat_mcp.sessions.service import Sessions
from meerkat_mcp.stores.base import LIST_SESSIONS_MAX, Append, Cursor, Selection

FORK_EVENTS_MAX = 100_000


class Shelf:
    """Every method raises SessionNotFound and StoreUnavailable beside what it names."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._journal = sessions.journal

    async def archive(self, session_id: str, *, by: str | None = None) -> Session:
        """Put a session away; a waiting turn ends, queued prompts are withdrawn. Raises SessionBusy."""
        await self._sessions.settled(session_id)

        def decide(session: Session) -> Sequence[e.Event]:
            if session.state == "archived":
                return ()
            dropped = [e.PromptDropped(turn_id=queued.turn_id) for queued in session.queue]
            if session.state == "waiting" and session.turn is not None:
                ended = e.TurnInterrupted(turn_id=session.turn.turn_id, reason="abandoned")
                return [*dropped, ended, e.SessionArchived()]
            return [*dropped, e.SessionArchived()]

        return await self._journal.record(session_id, decide, by=by)

    async def restore(self, session_id: str, *, by: str | None = None) -> Session:
        """Bring a session back from the archive; fine when it is not there."""
        return await self._journal.record(
            session_id, lambda session: [e.SessionRestored()] if session.state == "archived" else (), by=by
        )

    async def fork(
        self,
        session_id: str,
        *,
        at_seq: int | None = None,
        title: str = "",
        labels: Mapping[str, str] | None = None,
        by: str | None = None,
    ) -> Session:
        """A new session with this one's history up to `at_seq`; without it, up to the last turn that has ended.

        It is the session of the principal `by`. Events are copied with their numbers, so that a place in one log is the
        same place in the other. A turn
        that is cut through ends in the fork as interrupted.

        Raises:
            InvalidRequest: there is no such place in the log.
            LimitExceeded: the history is longer than 100,000 events.
        """
        origin = await self._sessions.settled(session_id)
        if at_seq is None:
            at_seq = origin.seq
            if origin.state in ("running", "stopping", "waiting") and origin.turn is not None:
                at_seq = origin.turn.first_seq - 1
        if not 1 <= at_seq <= origin.seq:
            raise InvalidRequest(
                f"There is no event {at_seq} in session {session_id}: it has 1 to {origin.seq}.",
                hint="Leave at_seq out to fork after the last turn.",
            )
        fork_id = self._journal.clock.new_id()
        append = await self._copy(origin, fork_id, at_seq, title, dict(labels) if labels is not None else None, by)
        await self._journal.store.append(append)
        forked = e.SessionForked(fork_id=fork_id, at_seq=at_seq)
        await self._journal.record(session_id, lambda _: [forked], by=by)
        return append.session

    async def delete(self, *session_ids: str) -> None:
        """Remove every byte of some sessions, all at once: a store can clean up after them together.

        Raises:
            SessionBusy: one of them is at work; the others are gone all the same.
        """
        refused: list[MeerkatError] = []

        async def one(session_id: str) -> None:
            try:
                session = await self._sessions.settled(session_id)
                if session.active:
                    raise session.busy()
                await self._journal.store.delete(session_id)
                self._journal.forget(session_id)
            except MeerkatError as exc:
                refused.append(exc)

        async with anyio.create_task_group() as tasks:
            for session_id in session_ids:
                tasks.start_soon(one, session_id)
        if refused:
            raise refused[0]

    async def archived_before(self, before_ms: int, *, principal: str | None = None) -> Sequence[Session]:
        """The archived sessions without activity since, oldest last; only those that `principal` began, if named."""
        found: list[Session] = []
        after: Cursor | None = Cursor(updated_ms=before_ms, session_id="")
        while page := await self._journal.store.sessions(
            Selection(archived=True, principal=principal), after=after, limit=LIST_SESSIONS_MAX
        ):
            found += page
            after = Cursor(updated_ms=page[-1].updated_ms, session_id=page[-1].id)
        return found

    async def compactable(self, session_id: str) -> tuple[int, int]:
        """How many messages a compaction would replace, and their size in characters."""
        session = await self._sessions.settled(session_id)
        replaced = await replaceable(self._journal, session, (await self._sessions.config()).compaction)
        return len(replaced), sum(len(placed.message.model_dump_json()) for placed in replaced)

    async def _copy(
        self, origin: Session, fork_id: str, at_seq: int, title: str, labels: dict[str, str] | None, by: str | None
    ) -> Append:
        clock = self._journal.clock
        events: list[Recorded] = []
        fork = Session(id=fork_id)
        async for recorded in self._journal.log(origin.id, through=at_seq):
            event = recorded.event.model_copy(update={"session_id": fork_id, "event_id": clock.new_id()})
            if isinstance(event, e.SessionCreated):
                came_from = e.Fork(session_id=origin.id, at_seq=at_seq)
                event = event.model_copy(update={"forked_from": came_from, "principal": by})
            fork = advance(fork, event)
            events.append(encode(event))
            if len(events) > FORK_EVENTS_MAX:
                raise LimitExceeded(
                    "The history is too long to fork.",
                    limit="fork_events",
                    maximum=FORK_EVENTS_MAX,
                    session_id=origin.id,
                )
        closed = self._journal.placed(fork, _closing(fork, title, labels), by=by)
        return Append(closed.session, [*events, *closed.events])


def _closing(fork: Session, title: str, labels: dict[str, str] | None) -> Sequence[e.Event]:
    """What makes a copied log one that stands by itself: no open turn, no queue, not archived, its own name."""
    drafts: list[e.Event] = [e.PromptDropped(turn_id=queued.turn_id) for queued in fork.queue]
    if fork.state in ("running", "stopping", "waiting") and fork.turn is not None:
        drafts.append(e.TurnInterrupted(turn_id=fork.turn.turn_id, reason="abandoned"))
    if fork.state == "archived":
        drafts.append(e.SessionRestored())
    return [*drafts, e.SettingsChanged(title=title or None, labels=labels)]
