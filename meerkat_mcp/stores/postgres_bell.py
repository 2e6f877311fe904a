"""Hearing what other processes record, and telling them.

Whoever recorded something rings: a NOTIFY on the realm's channel with the ids of the sessions, and the transaction.
It is sent after the commit and not within it, since PostgreSQL lets only one transaction with a NOTIFY commit at a
time, in all databases of a server, and the commit includes the wait for the disk: with a disk that takes 5 ms, 8
connections made 1200 commits a second without NOTIFY in them, and 165 with it.

The bell is a hint; the truth is in the tables (`pgsql/0001`, WHAT IS NEW). Once a second, and whenever listening began
anew, the ear looks there for what it was not told: a process can die between its commit and its ringing. Where nobody
can listen, it looks more often.
"""

import asyncio
import json
from collections.abc import Collection, Iterator
from typing import Any

from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.stores.postgres_library import ANSWER_S, PLANS, Connection, is_known
from meerkat_mcp.stores.postgres_server import Server, goodbye

LOOK_INTERVAL_S = 1.0
DEAF_LOOK_INTERVAL_S = 0.05
RING_INTERVAL_S = 0.005
"""What follows a quiet time is told at once; in a flood of commits it is enough to ring this often."""
LAST_RING_S = 1.0
PAYLOAD_IDS_B = 7000
"""PostgreSQL takes less than 8000 bytes."""

SNAPSHOT = "SELECT pg_current_snapshot()::text"

_RING = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"
_NEW = """
SELECT NULL, NULL, pg_current_snapshot()::text
UNION ALL
SELECT id, tx, NULL FROM (
    SELECT DISTINCT session, tx::text::bigint AS tx FROM (
        SELECT session, tx, writer FROM events
        WHERE realm = $1 AND tx >= pg_snapshot_xmax($3::text::pg_snapshot)
        AND tx < pg_snapshot_xmax(pg_current_snapshot())
        UNION ALL
        SELECT session, tx, writer FROM events
        WHERE realm = $1 AND tx = ANY (ARRAY(SELECT pg_snapshot_xip($3::text::pg_snapshot)))
    ) AS fresh WHERE writer <> $2
) AS theirs JOIN sessions ON number = session
"""

Told = tuple[str, int]
"""A session, and the transaction in which something was recorded there."""


def channel(realm: int) -> str:
    """Where the processes of a realm ring."""
    return f"meerkat_{realm}"


class Bell:
    """Tells the other processes of the realm."""

    def __init__(self, server: Server, realm: int, name: int) -> None:
        self._server = server
        self._channel = channel(realm)
        self._name = name
        self._due: list[Told] = []
        self._ringing: asyncio.Task[None] | None = None
        self._closed = False

    def ring(self, transaction: int, session_ids: Collection[str]) -> None:
        """Say that this was recorded; returns at once."""
        self._due += [(session_id, transaction) for session_id in session_ids]
        if self._ringing is None:
            self._ringing = asyncio.create_task(self._ring())

    async def close(self) -> None:
        """Ring for the last time; when that takes long, the others look for themselves."""
        self._closed = True
        if self._ringing is not None:
            ringing = self._ringing
            await asyncio.wait([ringing], timeout=LAST_RING_S)
            ringing.cancel()

    async def _ring(self) -> None:
        try:
            while self._due:
                due, self._due = self._due, []
                await self._server.rows_once(_RING, self._channel, list(_payloads(self._name, due)))
                if not self._closed:
                    await asyncio.sleep(RING_INTERVAL_S)
        except StoreUnavailable:  # they look for themselves
            self._due.clear()
        finally:
            self._ringing = None


class Ear:
    """Knows what other processes recorded and nobody here was told of yet."""

    def __init__(self, server: Server, realm: int, name: int, *, seen: str, listen: bool) -> None:
        """`seen` is the snapshot from which on everything counts."""
        self._server = server
        self._realm = realm
        self._name = name
        self._seen = seen
        self._listen = listen
        self._connection: Connection | None = None
        self._untold: dict[Told, None] = {}
        self._told: set[Told] = set()
        self._told_before: set[Told] = set()
        self._rang = asyncio.Event()
        self._look_at = 0.0
        self._closed = False

    async def heard(self) -> Collection[Told]:
        """What is new; waits until there is something. None, once the ear is closed. Raises StoreUnavailable."""
        clock = asyncio.get_running_loop().time
        while not self._closed:
            if self._listen and (self._connection is None or self._connection.is_closed()):
                await self._listen_again()
            if clock() >= self._look_at:
                try:
                    await self._look()
                except StoreUnavailable:
                    if self._closed:
                        return ()
                    if self._connection is None or not self._connection.is_closed():
                        raise
                    continue
                self._look_at = clock() + (LOOK_INTERVAL_S if self._connection else DEAF_LOOK_INTERVAL_S)
            if self._untold:
                return tuple(self._untold)
            try:
                async with asyncio.timeout_at(self._look_at):
                    await self._rang.wait()
            except TimeoutError:
                continue
            self._rang.clear()
        return ()

    def tell(self, told: Collection[Told]) -> None:
        """Note that this was told. It is remembered until a look at the tables cannot find it any more."""
        for each in told:
            self._untold.pop(each, None)
        self._told.update(told)

    async def close(self) -> None:
        """End a wait that is under way; closing twice is fine."""
        self._closed = True
        self._rang.set()
        if self._connection is not None:
            await goodbye(self._connection)
            self._connection = None

    async def _listen_again(self) -> None:
        """Listen on a new connection, and look for what was said meanwhile. Without one, looking has to do."""
        self._connection, connection = None, None
        try:
            connection = await self._server.connect(**PLANS)
            connection.add_termination_listener(self._on_loss)
            await connection.add_listener(channel(self._realm), self._on_notify)
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if not (is_known(error) or isinstance(error, StoreUnavailable)):
                raise
        else:
            if self._closed:
                await goodbye(connection)
            else:
                self._connection, self._look_at = connection, 0.0

    async def _look(self) -> None:
        """Find out from the tables what happened since the last look; it also shows whether we still can listen."""
        question = (_NEW, self._realm, self._name, self._seen)
        if self._connection is None:
            rows = await self._server.rows(*question)
        else:
            try:
                rows = await self._connection.fetch(*question, timeout=ANSWER_S)
            except Exception as error:
                if not is_known(error):
                    raise
                self._connection.terminate()
                raise await self._server.understood(error) from error
        for session_id, transaction, snapshot in rows:
            if snapshot is not None:
                self._seen = snapshot
            else:
                self._note((session_id, transaction))
        self._told_before, self._told = self._told, set()

    def _note(self, news: Told) -> None:
        if news not in self._told and news not in self._told_before:
            self._untold[news] = None

    def _on_notify(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        try:
            name, transactions = json.loads(payload)
            heard = [(str(each), int(transaction)) for transaction, ids in transactions for each in ids]
        except (ValueError, TypeError):  # somebody else rang: we look who
            self._look_at = 0.0
        else:
            for each in heard if name != self._name else ():
                self._note(each)
        if self._untold or not self._look_at:
            self._rang.set()

    def _on_loss(self, connection: Any) -> None:
        self._look_at = 0.0
        self._rang.set()


def _payloads(name: int, told: Collection[Told]) -> Iterator[str]:
    """`[who, [[transaction, [session, …]], …]]`, in pieces that PostgreSQL takes."""
    transactions: dict[int, list[str]] = {}
    size = 0
    for session_id, transaction in told:
        size += len(json.dumps(session_id)) + 24
        if size > PAYLOAD_IDS_B and transactions:
            yield json.dumps([name, list(transactions.items())], separators=(",", ":"))
            transactions, size = {}, len(json.dumps(session_id)) + 24
        transactions.setdefault(transaction, []).append(session_id)
    yield json.dumps([name, list(transactions.items())], separators=(",", ":"))
