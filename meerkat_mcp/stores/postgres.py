"""The realm in a PostgreSQL database, shared by any number of processes on any number of machines.

One database holds many realms, in the tables of one schema, told apart by a column. A schema for each realm would keep
them further apart, but every realm would have to be migrated by itself, by a user that may create schemas, and a
thousand realms would be ten thousand tables. Here the schema is made once, realms are rows, and who opens one needs no
more than the right to read and write the tables.

`pgsql/0001_realm.sql` says what the tables look like, `postgres_writer` how logs are written, `postgres_bell` how
processes hear of each other. The server should be reached directly, or through a pooler in session mode.

What goes beyond other stores: a process is known to be alive by its lease alone, by the clock of the database, however
far the clocks of the machines are apart. What does not reach as far: `delete` removes a session for every reader at
once, but PostgreSQL writes over the bytes in its files only when it needs the room. `VACUUM FULL` clears them from the
tables; the write-ahead log and backups end by their own rules.
"""

import json
import secrets
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
from pydantic import ValidationError

from meerkat_mcp.domain.config import Versioned
from meerkat_mcp.domain.errors import Corrupt, MeerkatError, unknown_session
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.stores.base import READ_EVENTS_MAX, Append, Claim, Cursor, Selection, Store, Stream, fitting
from meerkat_mcp.stores.postgres_bell import SNAPSHOT, Bell, Ear
from meerkat_mcp.stores.postgres_library import driver_version
from meerkat_mcp.stores.postgres_server import Server
from meerkat_mcp.stores.postgres_values import indexed, label, searched
from meerkat_mcp.stores.postgres_writer import Writer

HEARING_INTERVAL_S = 0.01
"""What follows a quiet time is heard at once; in a flood of commits it is enough to look this often."""
CONNECTIONS = 4
"""The most of them that read, beside one that writes and one that listens."""

_END = 2**63 - 1
_READ = (
    "SELECT seq, type, body FROM events WHERE session = (SELECT number FROM sessions WHERE realm = $1 AND id = $2)"
    " AND seq > $3 AND seq <= $4 {} ORDER BY seq LIMIT $5"
)
_LOAD = """
SELECT seq, NULL, body FROM shown WHERE session = (SELECT number FROM sessions WHERE realm = $1 AND id = $2)
UNION ALL
(SELECT events.seq, events.type, events.body FROM shown JOIN events ON events.session = shown.session
WHERE shown.session = (SELECT number FROM sessions WHERE realm = $1 AND id = $2) AND events.seq > shown.seq
ORDER BY events.seq LIMIT 1000)
"""
_MATCHING = (
    "SELECT id FROM shown WHERE realm = $1 AND id >= $2 AND id < $3 AND ($5::text IS NULL OR principal = $5)"
    " ORDER BY id DESC LIMIT $4"
)
_CLAIM = (
    "SELECT digest, sessions.id, turn_id, created_ms FROM claims JOIN sessions ON number = session"
    " WHERE claims.realm = $1 AND key = $2"
)
_PUT_STREAM = (
    "INSERT INTO streams (realm, id, session, used_ms, body)"
    " SELECT $1, $2, number, $3, $4 FROM sessions WHERE realm = $1 AND id = $5 FOR KEY SHARE"
    " ON CONFLICT (realm, id) DO UPDATE SET session = excluded.session, used_ms = excluded.used_ms,"
    " body = excluded.body RETURNING 1"
)
_PRUNE_STREAMS = "DELETE FROM streams WHERE realm = $1 AND used_ms < $2 RETURNING 1"
_RENEW = (
    "WITH swept AS (DELETE FROM instances WHERE realm = $1 AND expires_ms <= now_ms() AND incarnation <> $2)"
    " INSERT INTO instances VALUES ($1, $2, $3, $4, $5, now_ms() + $6)"
    " ON CONFLICT (realm, incarnation) DO UPDATE SET expires_ms = excluded.expires_ms"
)
_ALIVE = "SELECT 1 FROM instances WHERE realm = $1 AND incarnation = $2 AND now_ms() + $3 < expires_ms"
_RETIRE = "DELETE FROM instances WHERE realm = $1 AND incarnation = $2"


class PostgresStore:
    """Made by `open`, for the event loop it was opened in."""

    def __init__(
        self, server: Server, realm: int, *, name: int, seen: str, listen: bool, clock_ms: Callable[[], int]
    ) -> None:
        self.mechanisms: Mapping[str, str] = {
            "postgresql": server.version,
            "driver": f"asyncpg {driver_version}",
            "bell": "notify" if listen else "poll",
        }
        self.warnings: Sequence[str] = server.warnings
        self.realm = realm
        self.name = name
        self._server = server
        self._bell = Bell(server, realm, name)
        self._ear = Ear(server, realm, name, seen=seen, listen=listen)
        self.writer = Writer(server, realm, name, self._bell.ring)
        self._clock_ms = clock_ms
        self._own: set[str] = set()
        self._closed = False

    @classmethod
    async def open(
        cls,
        dsn: str,
        realm_id: str,
        *,
        clock_ms: Callable[[], int],
        connections: int = CONNECTIONS,
        listen: bool = True,
    ) -> "PostgresStore":
        """The store of that realm, made if it is not there.

        `dsn` is `postgresql://user:password@host:port/database`; asyncpg's documentation says what more may be in it.
        `connections` is the most that may read at once. Without `listen` other processes are heard by looking alone.

        Raises:
            StoreUnavailable: the database cannot be reached or used, or a newer version of this program changed it.
            Corrupt: the schema is another program's.
        """
        server = Server(dsn, connections=connections)
        try:
            realm = await server.open(realm_id)
            ((seen,),) = await server.rows(SNAPSHOT)
        except BaseException:
            await server.close()
            raise
        return cls(server, realm, name=secrets.randbits(62), seen=seen, listen=listen, clock_ms=clock_ms)

    async def close(self) -> None:
        """See `Store`."""
        if self._closed:
            return
        self._closed = True
        await self._ear.close()
        try:
            await self.writer.close()
            await self._bell.close()
            with suppress(MeerkatError):
                for incarnation in self._own:  # who closed the store does nothing in it any more
                    await self._server.rows_once(_RETIRE, self.realm, incarnation)
        finally:
            self._server.stop()
            self.writer.drop()
            await self._server.close()

    # ── logs ──

    async def append(self, append: Append) -> None:
        """See `Store`."""
        await self.writer.append(append)

    async def load(self, session_id: str) -> Session:
        """See `Store`."""
        rows = await self._rows(_LOAD, searched(session_id))
        if not rows:
            raise unknown_session(session_id)
        (_, _, body), *events = rows
        try:
            session = Session.model_validate_json(body)
            for row in events:
                session = advance(session, Recorded(*row).event)
            while len(events) == READ_EVENTS_MAX:
                events = await self.read(session_id, after=session.seq)
                for recorded in events:
                    session = advance(session, recorded.event)
        except ValidationError as error:
            raise Corrupt(f"Session {session_id} cannot be read.", session_id=session_id) from error
        return session

    async def read(
        self,
        session_id: str,
        *,
        after: int = 0,
        limit: int = READ_EVENTS_MAX,
        types: Collection[str] = (),
        through: int | None = None,
    ) -> Sequence[Recorded]:
        """See `Store`."""
        some = ("AND type = ANY ($6)", list(types)) if types else ("",)
        through = _END if through is None else through
        rows = await self._rows(_READ.format(some[0]), searched(session_id), after, through, limit, *some[1:])
        return fitting(Recorded(*row) for row in rows)

    async def changes(self) -> AsyncGenerator[Collection[str]]:
        """See `Store`."""
        while told := await self._ear.heard():
            yield {session_id for session_id, _ in told}
            self._ear.tell(told)
            await anyio.sleep(HEARING_INTERVAL_S)

    # ── sessions ──

    async def sessions(
        self, selection: Selection, *, after: Cursor | None = None, offset: int = 0, limit: int = 50
    ) -> Sequence[Session]:
        """See `Store`."""
        conditions = _Conditions(self.realm)
        conditions.select(selection)
        if after is not None:
            conditions.add("(updated_ms, id) < ({}, {})", after.updated_ms, searched(after.session_id))
        rows = await self._server.rows(
            f"SELECT body FROM shown WHERE {conditions} ORDER BY updated_ms DESC, id DESC"
            f" LIMIT {int(limit)} OFFSET {int(offset)}",
            *conditions.parameters,
        )
        return [Session.model_validate_json(body) for (body,) in rows]

    async def matching(self, prefix: str, *, limit: int, principal: str | None = None) -> Sequence[str]:
        """See `Store`."""
        prefix, theirs = searched(prefix), None if principal is None else searched(principal)
        rows = await self._rows(_MATCHING, prefix, prefix + chr(0x10FFFF), limit, theirs)
        return [session_id for (session_id,) in rows]

    async def delete(self, session_id: str) -> None:
        """See `Store`, and the module for what is left of the bytes."""
        await self._server.rows("SELECT erase($1, $2)", self.realm, searched(session_id), unhurried=True)

    async def claim(self, key: str) -> Claim | None:
        """See `Store`."""
        rows = await self._rows(_CLAIM, indexed(key))
        return Claim(key, *rows[0]) if rows else None

    # ── config ──

    async def config(self) -> Versioned:
        """See `Store`."""
        ((generation, document),) = await self._server.rows(
            "SELECT generation, config FROM realms WHERE number = $1", self.realm
        )
        return Versioned(generation=generation, document=json.loads(document))

    async def put_config(self, document: JsonObject, *, expected: int | None) -> Versioned:
        """See `Store`."""
        await self.config()  # may be asked twice, this not: connections that broke meanwhile are found out here
        ((done, generation, found),) = await self._server.rows_once(
            "SELECT * FROM put_config($1, $2, $3)", self.realm, json.dumps(document), expected
        )
        current = Versioned(generation=generation, document=json.loads(found))
        return current if done else current.changed(document, expected)

    # ── streams ──

    async def put_stream(self, stream: Stream) -> None:
        """See `Store`."""
        body = stream.model_dump_json().encode()
        row = (searched(stream.stream_id), stream.used_ms, body, searched(stream.session_id))
        if not await self._rows(_PUT_STREAM, *row):
            raise unknown_session(stream.session_id)

    async def stream(self, stream_id: str) -> Stream | None:
        """See `Store`."""
        rows = await self._rows("SELECT body FROM streams WHERE realm = $1 AND id = $2", searched(stream_id))
        return Stream.model_validate_json(rows[0][0]) if rows else None

    async def close_stream(self, stream_id: str) -> bool:
        """See `Store`."""
        gone = await self._rows("DELETE FROM streams WHERE realm = $1 AND id = $2 RETURNING 1", searched(stream_id))
        return bool(gone)

    async def prune_streams(self, *, used_before_ms: int) -> int:
        """See `Store`."""
        return len(await self._rows(_PRUNE_STREAMS, used_before_ms))

    # ── instances ──

    async def renew(self, instance: Instance) -> None:
        """See `Store`. By the clock of the database the lease ends as far from now as it does by ours."""
        lasts_ms = instance.expires_ms - self._clock_ms()
        known = (instance.incarnation, instance.instance_id, instance.host, instance.pid)
        await self._rows(_RENEW, *known, lasts_ms)
        self._own.add(instance.incarnation)

    async def alive(self, incarnation: str, *, now_ms: int) -> bool:
        """See `Store`. `now_ms` counts as what it is from this moment on. A process does not doubt itself."""
        if incarnation in self._own:
            return True
        return bool(await self._rows(_ALIVE, searched(incarnation), now_ms - self._clock_ms()))

    async def retire(self, incarnation: str) -> None:
        """See `Store`."""
        self._own.discard(incarnation)
        await self._rows(_RETIRE, searched(incarnation))

    async def _rows(self, sql: str, *parameters: Any) -> Sequence[Sequence[Any]]:
        return await self._server.rows(sql, self.realm, *parameters)


class _Conditions:
    """A WHERE that grows, with its parameters; the first is the realm."""

    def __init__(self, realm: int) -> None:
        self._conditions = ["realm = $1"]
        self.parameters: list[Any] = [realm]

    def __str__(self) -> str:
        return " AND ".join(self._conditions)

    def add(self, condition: str, *parameters: Any) -> None:
        """One more condition; each `{}` in it is the next of the parameters."""
        numbers = range(len(self.parameters) + 1, len(self.parameters) + len(parameters) + 1)
        self._conditions.append(condition.format(*(f"${number}" for number in numbers)))
        self.parameters += parameters

    def select(self, selection: Selection) -> None:
        """What a list is to show."""
        if selection.archived is not None:
            self.add("archived = {}", selection.archived)
        if selection.states:
            self.add("state = ANY ({}::text[])", list(selection.states))
        for each in selection.labels.items():
            self.add("session IN (SELECT session FROM labels WHERE realm = $1 AND label = {})", label(*each))
        if selection.principal is not None:
            self.add("principal = {}", searched(selection.principal))
        if selection.query:
            query = searched(selection.query.casefold())
            self.add("(starts_with(lower(id), {}) OR strpos(found_by, {}) > 0)", query, query)


_: type[Store] = PostgresStore
