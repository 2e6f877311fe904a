"""What becomes of whole sessions: renamed, archived, restored, forked, imported, deleted."""

from collections.abc import AsyncIterable, Mapping, Sequence

import anyio

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import Conflict, InvalidRequest, LimitExceeded, MeerkatError, NotFound, PlanChanged
from meerkat_mcp.domain.recorded import Recorded, encode
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.sessions.checks import check_labels, check_title
from meerkat_mcp.sessions.compaction import replaceable
from meerkat_mcp.sessions.copies import closing
from meerkat_mcp.sessions.intake import Imported, take_in
from meerkat_mcp.sessions.service import Sessions
from meerkat_mcp.stores.base import LIST_SESSIONS_MAX, Append, Cursor, Selection

FORK_EVENTS_MAX = 100_000
DELETED_AT_ONCE = 200


class Shelf:
    """Every method raises SessionNotFound and StoreUnavailable beside what it names."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._journal = sessions.journal

    async def rename(
        self,
        session_id: str,
        *,
        title: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        by: str | None = None,
    ) -> Session:
        """Another title, other labels, also while a turn runs or waits. An empty title takes it away.

        Each label that is named gets its value, or goes where that is None; the others stay, whoever sets them at the
        same time.

        Raises:
            InvalidRequest (too long, too many), SessionArchived.
        """

        def decide(session: Session) -> Sequence[e.Event]:
            merged = {**session.labels, **(labels or {})}
            kept = {key: value for key, value in merged.items() if value is not None}
            check_title(title or "")
            check_labels(kept)
            change = e.SettingsChanged(
                title=title if title != session.title else None, labels=kept if kept != session.labels else None
            )
            return [] if change == e.SettingsChanged() else [change]

        return await self._journal.record(session_id, decide, by=by)

    async def archive(self, session_id: str, *, by: str | None = None) -> Session:
        """Put a session away; a waiting or suspended turn ends, queued prompts are withdrawn. Raises SessionBusy."""
        await self._sessions.settled(session_id)

        def decide(session: Session) -> Sequence[e.Event]:
            if session.state == "archived":
                return ()
            dropped = [e.PromptDropped(turn_id=queued.turn_id) for queued in session.queue]
            if session.state in ("waiting", "suspended") and session.turn is not None:
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
            if (turn := origin.open_turn) is not None:
                at_seq = turn.first_seq - 1
        if not 1 <= at_seq <= origin.seq:
            raise InvalidRequest(
                f"There is no event {at_seq} in session {session_id}: it has 1 to {origin.seq}.",
                hint="Leave at_seq out to fork after the last turn.",
            )
        fork_id = self._journal.clock.new_id()
        append = await self._copy(origin, fork_id, at_seq, title, dict(labels) if labels is not None else None, by)
        await self._journal.enter(append)
        forked = e.SessionForked(fork_id=fork_id, at_seq=at_seq)
        await self._journal.record(session_id, lambda _: [forked], by=by)
        return append.session

    async def import_session(
        self,
        pieces: AsyncIterable[bytes],
        *,
        title: str = "",
        keep_id: bool = False,
        trusted: bool = False,
        by: str | None = None,
    ) -> Imported:
        """A session of an exported file, whose bytes come in pieces of any size: all of it, or none.

        It is a new session of the principal `by`, as a fork is; with `keep_id` under the id that it had. Events keep
        their numbers. A turn that was not over ends as interrupted. Unless the file is `trusted`, the tool servers it
        defines are dropped, and a permission mode laxer than the realm's.

        Raises:
            InvalidRequest: it is no whole, unchanged export that this version can read; or its id is taken.
            SchemaInvalid: its output schema is none.
            LimitExceeded: it is too large; with `keep_id` that is more than 100,000 events.
        """
        config = await self._sessions.config()
        return await take_in(self._journal, config, pieces, title=title, keep_id=keep_id, trusted=trusted, by=by)

    async def delete(self, *session_ids: str, archived_only: bool = False) -> None:
        """Remove every byte of some sessions, many at once: a store can clean up after them together.

        Raises:
            SessionBusy: one of them is at work; the others are gone all the same.
            PlanChanged: with `archived_only`, one was brought back meanwhile; that one stays.
        """
        refused = await self._remove(session_ids, archived_only=archived_only)
        if refused:
            raise refused[0]

    async def delete_archived(self, *session_ids: str) -> int:
        """Remove what is archived of these; how many they were. What was brought back meanwhile stays."""
        refused = await self._remove(session_ids, archived_only=True)
        for exc in refused:
            if not isinstance(exc, Conflict | NotFound):
                raise exc
        return len(session_ids) - len(refused)

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

    async def _remove(self, session_ids: Sequence[str], *, archived_only: bool) -> Sequence[MeerkatError]:
        """Remove them; what stood in the way of those that are left."""
        refused: list[MeerkatError] = []

        async def one(session_id: str) -> None:
            try:
                session = await self._sessions.settled(session_id)
                if session.active:
                    raise session.busy()
                if archived_only and session.state != "archived":
                    raise PlanChanged(f"Session {session_id} was brought back meanwhile.", session_id=session_id)
                await self._journal.store.delete(session_id)
                self._journal.forget(session_id)
            except MeerkatError as exc:
                refused.append(exc)

        for start in range(0, len(session_ids), DELETED_AT_ONCE):
            async with anyio.create_task_group() as tasks:
                for session_id in session_ids[start : start + DELETED_AT_ONCE]:
                    tasks.start_soon(one, session_id)
        return refused

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
        closed = self._journal.placed(fork, closing(fork, title=title, labels=labels), by=by)
        return Append(closed.session, [*events, *closed.events])
