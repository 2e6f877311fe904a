"""The words of sessions from before searches were by words: looked up in their logs, some sessions at a time.

Whoever opens a realm does it, beside all else, and several share it. A session is locked while its words are put in, so
it is one transaction for a few of them; a search finds what is there so far.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress

from pydantic import ValidationError

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores.base import found_by
from meerkat_mcp.stores.postgres_library import Connection, Row
from meerkat_mcp.stores.postgres_server import Server
from meerkat_mcp.stores.postgres_values import finding, findings
from meerkat_mcp.stores.searching import SEARCHED

SESSIONS_AT_ONCE = 20
EVENTS_AT_ONCE = 500
PAUSE_S = 0.01
"""Between two transactions, so that others come first."""
RETRY_S = 5.0

_ANY = "SELECT 1 FROM unsearched WHERE realm = $1 LIMIT 1"
_NEXT = (
    "SELECT number FROM sessions WHERE number IN (SELECT session FROM unsearched WHERE realm = $1 LIMIT 200)"
    f" ORDER BY number LIMIT {SESSIONS_AT_ONCE} FOR NO KEY UPDATE SKIP LOCKED"
)
_LISTED = "SELECT session, body FROM shown WHERE session = ANY ($1::bigint[])"
_SAID = (
    "SELECT seq, type, body FROM events WHERE session = $1 AND seq > $2 AND type = ANY ($3::text[])"
    f" ORDER BY seq LIMIT {EVENTS_AT_ONCE}"
)
_ADD = (
    "INSERT INTO findings (session, seq, words)"
    " SELECT $1, seq, array_to_tsvector(string_to_array(words, ' '))"
    " FROM unnest($2::bigint[], $3::text[]) AS f (seq, words) ON CONFLICT DO NOTHING"
)
_DONE = "DELETE FROM unsearched WHERE session = ANY ($1::bigint[])"

log = logging.getLogger(__name__)


class Filling:
    """What is left to be done in a realm, and the task that does it."""

    def __init__(self, server: Server, realm: int) -> None:
        self._server = server
        self._realm = realm
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> bool:
        """Begin, if anything is left. Raises StoreUnavailable."""
        if left := bool(await self._server.rows(_ANY, self._realm)):
            self._task = asyncio.create_task(self._fill())
        return left

    async def close(self) -> None:
        """Leave the rest to the next one."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _fill(self) -> None:
        while True:
            try:
                done = await self._server.together(self._fill_some)
                if not done and not await self._server.rows(_ANY, self._realm):
                    return
                await asyncio.sleep(PAUSE_S if done else RETRY_S)  # what is left is in others' hands
            except MeerkatError as error:
                log.warning("Old sessions are not made ready for searching: %s", error.message)
                await asyncio.sleep(RETRY_S)

    async def _fill_some(self, connection: Connection) -> int:
        sessions = [number for (number,) in await connection.fetch(_NEXT, self._realm)]
        listed = {row[0]: row[1] for row in await connection.fetch(_LISTED, sessions)}
        for session in sessions:
            with suppress(ValidationError):  # what nobody can read is found by nothing
                listing = found_by(Session.model_validate_json(listed.get(session, b"")))
                await connection.fetch(_ADD, session, [0], [finding(self._realm, listing)])
            after = 0
            while page := await connection.fetch(_SAID, session, after, list(SEARCHED)):
                found = list(self._words(page))
                await connection.fetch(_ADD, session, [seq for seq, _ in found], [words for _, words in found])
                after = page[-1][0]
        await connection.fetch(_DONE, sessions)
        return len(sessions)

    def _words(self, page: Sequence[Row]) -> Iterator[tuple[int, str]]:
        for row in page:
            with suppress(ValidationError):
                yield from findings(self._realm, [Recorded(*row)])
