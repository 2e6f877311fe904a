"""Looking at sessions: which one is meant, which there are, why a search found one, what was said in it."""

import base64
import binascii
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from meerkat_mcp.domain.errors import InvalidRequest, SessionAmbiguous, SessionNotFound, unknown_session
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.transcript import Placed, Transcript
from meerkat_mcp.sessions.excerpts import Excerpt, excerpts
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.sessions.portable import export
from meerkat_mcp.sessions.turns import Turns
from meerkat_mcp.stores.base import Cursor, Selection

PREFIX_CHARS_MIN = 4
CANDIDATES_MAX = 10
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PREFIX = re.compile(r"[0-9a-f-]+")
_BACK = re.compile(r"~([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of sessions, and where the next one begins."""

    sessions: Sequence[Session]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class History:
    """A page of messages, oldest first: `offset` of the first one, and how many there are in all."""

    messages: Sequence[Placed]
    offset: int
    total: int


class Reading:
    """Reads; settles on the way what dead processes left running, so that nothing looks alive that is not."""

    def __init__(self, realm_id: str, journal: Journal, turns: Turns) -> None:
        self._realm_id = realm_id
        self._journal = journal
        self._turns = turns

    async def resolve(self, reference: str, *, exact: bool = False, sees: str | None = None) -> str:
        """The full id of the session that is meant: an id, `realm:id`, a prefix, `last`, or `~N`.

        With `sees`, only sessions that this principal began are there at all.

        Raises:
            SessionNotFound, SessionAmbiguous (with candidates), InvalidRequest (not a reference; or not a full
            id where `exact` asks for one).
        """
        realm, colon, text = reference.strip().lower().rpartition(":")
        if colon and realm != self._realm_id.lower():
            raise SessionNotFound(
                f"Session {reference[:200]!r} belongs to another realm; this is {self._realm_id!r}.",
                hint="Use the server of that realm.",
            )
        if _UUID.fullmatch(text):
            if sees is not None and (await self._journal.load(text)).principal != sees:
                raise unknown_session(text)
            return text
        if exact:
            raise InvalidRequest(
                f"{reference[:200]!r} is no full session id.",
                hint="This cannot be undone, so it takes the full id, as meerkat_sessions lists it.",
            )
        if back := _BACK.fullmatch("~1" if text == "last" else text):
            return await self._nth(int(back[1]), reference, sees)
        if len(text) < PREFIX_CHARS_MIN or not _PREFIX.fullmatch(text):
            raise InvalidRequest(
                f"{reference[:200]!r} is no session reference.",
                hint=f"Use an id, its first {PREFIX_CHARS_MIN} or more characters, last, or ~2 (second most recent).",
            )
        return await self._by_prefix(text, sees)

    async def list(
        self, selection: Selection, *, cursor: str | None = None, offset: int = 0, limit: int = 50
    ) -> Listing:
        """Newest activity first. Raises InvalidRequest for a cursor that is none."""
        after = _parsed(cursor) if cursor is not None else None
        found = await self._journal.store.sessions(selection, after=after, offset=offset, limit=limit + 1)
        page = [await self._turns.settle(session) for session in found[:limit]]
        more = len(found) > limit
        return Listing(page, _cursor(found[limit - 1]) if more else None)

    async def matched(self, sessions: Sequence[Session], query: str) -> dict[str, Excerpt]:
        """Where a query found those of these sessions, by id, of which a list does not show it."""
        return await excerpts(self._journal.store, sessions, query)

    def export_session(self, session: Session) -> AsyncGenerator[bytes]:
        """The session up to its last event, as the lines of a JSONL file that `Shelf.import_session` takes.

        Raises SessionNotFound while it is read: it was deleted meanwhile.
        """
        return export(self._journal, self._realm_id, session)

    async def history(self, session_id: str, *, offset: int | None = None, limit: int = 50) -> History:
        """The committed messages, also those that a compaction replaced. The newest page when `offset` is None."""
        session = await self._journal.load(session_id)
        folded = Transcript(whole=True)
        async for recorded in self._journal.log(session_id, through=session.seq):
            if not recorded.is_delta:
                folded.add(recorded.event)
        total = len(folded.placed)
        start = max(0, total - limit) if offset is None else min(offset, total)
        return History(folded.placed[start : start + limit], start, total)

    async def _nth(self, nth: int, reference: str, sees: str | None) -> str:
        found = await self._journal.store.sessions(Selection(principal=sees), offset=nth - 1, limit=1)
        if not found:
            raise SessionNotFound(
                f"There is no session {reference[:200]!r}.", hint="meerkat_sessions lists those there are."
            )
        return found[0].id

    async def _by_prefix(self, prefix: str, sees: str | None) -> str:
        found = await self._journal.store.matching(prefix, limit=CANDIDATES_MAX + 1, principal=sees)
        if not found:
            raise SessionNotFound(
                f"No session's id begins with {prefix!r}.", hint="meerkat_sessions lists those there are."
            )
        if len(found) > 1:
            raise SessionAmbiguous(
                f"Several sessions' ids begin with {prefix!r}.",
                hint="Use more characters, or one of the candidates.",
                candidates=list(found[:CANDIDATES_MAX]),
            )
        return found[0]


def _cursor(session: Session) -> str:
    place = Cursor(updated_ms=session.updated_ms, session_id=session.id)
    return base64.urlsafe_b64encode(place.model_dump_json().encode()).decode()


def _parsed(cursor: str) -> Cursor:
    try:
        return Cursor.model_validate_json(base64.urlsafe_b64decode(cursor.encode()))
    except (ValidationError, binascii.Error, ValueError):
        raise InvalidRequest("The cursor is none of ours.", hint="Use next_cursor of the page before.") from None
