"""Making a session of an exported file, which may be anybody's: all of it enters the realm, or nothing stays.

Nothing is recorded before a file was read to its end, unless it is large. Then pages are recorded on the way, cut only
where no turn is open and no prompt is queued: no other process ever finds something in them to go on with. What fails
later takes them away again. Only the death of this process can leave one that is not whole; it is known by that its
log ends before the place it says it was copied up to (`forked_from.at_seq`).
"""

import logging
from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass

import anyio
from pydantic import ValidationError

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.config import Config
from meerkat_mcp.domain.errors import InvalidRequest, LimitExceeded, MeerkatError
from meerkat_mcp.domain.recorded import Recorded, encode
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.domain.settings import Settings, strictest
from meerkat_mcp.sessions.checks import check, check_labels, check_title
from meerkat_mcp.sessions.copies import closing
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.portable import Header, unpacked
from meerkat_mcp.stores.base import Append, SequenceConflict

PAGE_EVENTS = 20_000
PAGE_BYTES = 32 * 1024 * 1024
"""From here on a page is recorded at the next place where it may end."""
APPEND_EVENTS_MAX = 100_000
APPEND_BYTES_MAX = 256 * 1024 * 1024
"""Of what is recorded at once and held in memory for that: one turn, or all of a session that keeps its id."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Imported:
    """The session that was made, and what it was called where it comes from. `dropped` says what was not taken over."""

    session: Session
    origin: Header
    dropped: tuple[str, ...]


async def take_in(
    journal: Journal,
    config: Config,
    pieces: AsyncIterable[bytes],
    *,
    title: str,
    keep_id: bool,
    trusted: bool,
    by: str | None,
) -> Imported:
    """See `Shelf.import_session`."""
    check_title(title)
    header, events = await unpacked(pieces)
    intake = Intake(journal, header, keep_id=keep_id, by=by)
    try:
        async with aclosing(events):
            async for event in events:
                await intake.add(event)
        return await intake.finish(config, title, trusted=trusted)
    except BaseException:
        await intake.undo()
        raise


class Intake:
    """A session that is being made, event by event."""

    def __init__(self, journal: Journal, header: Header, *, keep_id: bool, by: str | None) -> None:
        self._journal = journal
        self._header = header
        self._keeps_id = keep_id
        self._by = by
        self._session = Session(id=header.session_id if keep_id else journal.clock.new_id())
        self._page: list[Recorded] = []
        self._bytes = 0
        self._after = 0

    async def add(self, event: e.Event) -> None:
        """Take the next event of the log. Raises InvalidRequest, LimitExceeded, StoreUnavailable."""
        event = self._ours(event)
        self._session = self._advanced(event)
        recorded = encode(event)
        try:
            recorded.event  # noqa: B018  (a number beyond all numbers is read, and written as none)
        except ValidationError:
            raise InvalidRequest(f"Event {event.seq} has a number that cannot be kept.") from None
        self._page.append(recorded)
        self._bytes += len(recorded.body)
        if len(self._page) > APPEND_EVENTS_MAX or self._bytes > APPEND_BYTES_MAX:
            what, other = ("turn", "") if not self._keeps_id else ("session", " without keeping its id")
            raise LimitExceeded(
                f"The {what} is too large to import.",
                hint=f"Import it{other}." if other else "",
                limit="import_events",
                maximum=APPEND_EVENTS_MAX,
            )
        full = len(self._page) >= PAGE_EVENTS or self._bytes >= PAGE_BYTES
        if full and not self._keeps_id and self._session.state == "idle" and not self._session.queue:
            await self._record(self._session)

    async def finish(self, config: Config, title: str, *, trusted: bool) -> Imported:
        """Close the log, and record what was not yet. Raises what `Shelf.import_session` does."""
        settings, dropped = (self._session.settings, ()) if trusted else _harmless(self._session.settings, config)
        check("", settings, None, config)
        check_title(title or self._session.title)
        check_labels(self._session.labels)
        ended = self._session.model_copy(update={"seq": self._header.last_seq})
        drafts = closing(ended, title=title, settings=settings if dropped else None)
        closed = self._journal.placed(ended, drafts, by=self._by)
        self._page += closed.events
        await self._record(closed.session)
        return Imported(closed.session, self._header, dropped)

    async def undo(self) -> None:
        """Take away what was recorded."""
        if self._keeps_id and not self._after:
            return  # the session with that id, if there is one, is not ours
        with anyio.CancelScope(shield=True):
            try:
                await self._journal.store.delete(self._session.id)
                self._journal.forget(self._session.id)
            except MeerkatError as exc:
                log.warning("Session %s was not imported and is still there: %s", self._session.id, exc.message)

    async def _record(self, session: Session) -> None:
        try:
            await self._journal.enter(Append(session, self._page, follows=self._after))
        except SequenceConflict:
            raise InvalidRequest(
                f"There is a session {session.id} here already."
                if self._keeps_id
                else f"Somebody else went on with session {session.id} while it was imported.",
                hint="Import it under a new id, or delete that one first." if self._keeps_id else "Import it again.",
                session_id=session.id,
            ) from None
        self._after, self._page, self._bytes = session.seq, [], 0

    def _ours(self, event: e.Event) -> e.Event:
        """The event as one of this realm: who asked for it is who imports, for a file can name anybody."""
        update: dict[str, object] = {"principal": self._by}
        if not self._keeps_id:
            update |= {"session_id": self._session.id, "event_id": self._journal.clock.new_id()}
            if isinstance(event, e.SessionCreated):
                update["forked_from"] = e.Fork(session_id=self._header.session_id, at_seq=self._header.last_seq)
        return event.model_copy(update=update)

    def _advanced(self, event: e.Event) -> Session:
        try:
            self._session.check(event)
        except MeerkatError as exc:
            raise InvalidRequest(f"Event {event.seq} cannot come where it stands: {exc.message}") from None
        if _is_stray(event, self._session):
            raise InvalidRequest(
                f"Event {event.seq} cannot come where it stands: its turn, or its place, is not there."
            )
        return advance(self._session, event)


def _is_stray(event: e.Event, session: Session) -> bool:
    """Whether an event speaks of a turn, or of a place in the log, that is not there."""
    match event:
        case e.TurnStarted() | e.PromptQueued() | e.PromptDropped():
            return event.turn_id is None
        case e.TurnCompleted() | e.TurnInterrupted() | e.TurnLimitReached() | e.TurnFailed():
            return session.turn is None or event.turn_id != session.turn.turn_id
        case e.HistoryCompacted():
            return not 0 <= event.through_seq < event.seq
        case _:
            return session.turn is not None and event.turn_id not in (None, session.turn.turn_id)


def _harmless(settings: Settings, config: Config) -> tuple[Settings, tuple[str, ...]]:
    """The settings without what a file could bring to be run here, and what that was."""
    changes: dict[str, object] = {}
    dropped: list[str] = []
    servers = settings.mcp_servers or {}
    if brought := [name for name, server in servers.items() if server is not None]:
        changes["mcp_servers"] = {name: None for name, server in servers.items() if server is None}
        dropped += [f"tool server {name}" for name in brought]
    mode, usual = settings.permission_mode, config.agent.permission_mode
    if mode is not None and strictest(mode, usual) != mode:
        changes["permission_mode"] = None
        dropped.append(f"permission mode {mode}")
    return settings.changed(**changes) if changes else settings, tuple(dropped)
