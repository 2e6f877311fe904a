"""The realm in a PostgreSQL database, shared by any number of processes on any number of machines.

One database holds many realms, in the tables of one schema, told apart by a column. A schema for each realm would keep
them further apart, but every realm would have to be migrated by itself, by a user that may create schemas, and a
thousand realms would be ten thousand tables. Here the schema is made once, realms are rows, and who opens one needs no
more than the right to read and write the tables.

`pgsql/0001_realm.sql` and those after it say what the tables look like, `postgres_writer` how logs are written,
`postgres_bell` how processes hear of each other, `postgres_listing` how sessions are listed and searched. The server
should be reached directly, or through a pooler in session mode.

A server that is away is waited for, for some seconds; one that does not answer is given up. Half a minute after it was
asked everything has come to an end (`PATIENCE_S`, `CONNECT_S`, `ANSWER_S`, `WRITE_S`), twice that for what had to wait
behind it; only deletions of a session or a realm, `tidy` and migrations may take longer.

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
from meerkat_mcp.stores import postgres_statements as sql
from meerkat_mcp.stores.base import (
    READ_EVENTS_MAX,
    SEALING_KEY_BYTES,
    Append,
    Claim,
    Cursor,
    Selection,
    Store,
    Stream,
    check_instead,
    fitting,
)
from meerkat_mcp.stores.postgres_bell import SNAPSHOT, Bell, Ear
from meerkat_mcp.stores.postgres_filling import Filling
from meerkat_mcp.stores.postgres_library import destroyed, driver_version
from meerkat_mcp.stores.postgres_listing import listed
from meerkat_mcp.stores.postgres_server import Server
from meerkat_mcp.stores.postgres_values import claimed, findings, indexed, searched, whole_key
from meerkat_mcp.stores.postgres_writer import Writer
from meerkat_mcp.stores.searching import SEARCHED

HEARING_INTERVAL_S = 0.01
"""What follows a quiet time is heard at once; in a flood of commits it is enough to look this often."""
CONNECTIONS = 4
"""The most of them that read, beside one that writes and one that listens."""
GOODBYE_S = 2.0
_END = 2**63 - 1
_UNSEARCHED = "What was said before this database was updated is being made ready for searching: some is not found yet."


class PostgresStore:
    """Made by `open`, for the event loop it was opened in."""

    def __init__(
        self, server: Server, realm: int, *, name: int, seen: str, listen: bool, clock_ms: Callable[[], int]
    ) -> None:
        self.mechanisms: Mapping[str, str] = {
            "postgresql": server.version,
            "driver": f"asyncpg {driver_version}",
            "bell": "notify" if listen else "poll",
            "search": "tsvector",
        }
        self.warnings: Sequence[str] = server.warnings
        self.realm = realm
        self.name = name
        self._server = server
        self._bell = Bell(server, realm, name)
        self._ear = Ear(server, realm, name, seen=seen, listen=listen)
        self.writer = Writer(server, realm, name, self._bell.ring)
        self._filling = Filling(server, realm)
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
            store = cls(server, realm, name=secrets.randbits(62), seen=seen, listen=listen, clock_ms=clock_ms)
            if await store._filling.begin():
                store.warnings = (*store.warnings, _UNSEARCHED)
        except BaseException:
            await server.close()
            raise
        return store

    async def close(self) -> None:
        """See `Store`."""
        if self._closed:
            return
        self._closed = True
        await self._ear.close()
        await self._filling.close()
        try:
            await self.writer.close()
            await self._bell.close()
            with suppress(MeerkatError), anyio.move_on_after(GOODBYE_S):  # else the lease lapses
                for incarnation in self._own:  # who closed the store does nothing in it any more
                    await self._server.rows_once(sql.RETIRE, self.realm, incarnation)
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
        rows = await self._rows(sql.LOAD, searched(session_id))
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
        rows = await self._rows(sql.READ.format(some[0]), searched(session_id), after, through, limit, *some[1:])
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
        found = await listed(self._server, self.realm, selection, after=after, offset=offset, limit=limit)
        return [Session.model_validate_json(body) for body in found]

    async def matching(self, prefix: str, *, limit: int, principal: str | None = None) -> Sequence[str]:
        """See `Store`."""
        prefix = searched(prefix)
        which = (prefix, prefix + chr(0x10FFFF), limit)
        if principal is None:
            rows = await self._rows(sql.MATCHING, *which)
        else:
            rows = await self._rows(sql.MATCHING_OF, *which, searched(principal))
        return [session_id for (session_id,) in rows]

    async def delete(self, session_id: str) -> None:
        """See `Store`, and the module for what is left of the bytes."""
        await self._server.rows("SELECT erase($1, $2)", self.realm, searched(session_id), unhurried=True)

    async def claim(self, key: str) -> Claim | None:
        """See `Store`."""
        rows = await self._rows(sql.CLAIM, indexed(key))
        return Claim(key, *rows[0]) if rows else None

    async def put_claim(self, claim: Claim) -> None:
        """See `Store`."""
        known = (claim.digest, searched(claim.session_id), claim.turn_id, claim.created_ms)
        ((there,),) = await self._rows(sql.PUT_CLAIM, indexed(claim.key), whole_key(claim.key), *known)
        if not there:
            raise unknown_session(claim.session_id)

    async def prune_claims(self, *, created_before_ms: int) -> int:
        """See `Store`. Some at a time."""
        forgotten = 0
        while gone := len(await self._rows(sql.PRUNE_CLAIMS, created_before_ms)):
            forgotten += gone
        return forgotten

    async def kept_with(self, session_id: str) -> tuple[Sequence[Claim], Sequence[Stream]]:
        """See `Store`. Not told are keys longer than 1000 bytes that version 1 kept: it kept a hash."""
        claims = [
            Claim(key, digest, session_id, turn_id, created_ms)
            for short, whole, digest, turn_id, created_ms in await self._rows(sql.CLAIMS_OF, searched(session_id))
            if (key := claimed(short, whole)) is not None
        ]
        streams = await self._rows(sql.STREAMS_OF, searched(session_id))
        return claims, [Stream.model_validate_json(body) for (body,) in streams]

    # ── work that waits, or goes on ──

    async def take(self, *, ready_before_ms: int, until_ms: int, now_ms: int, limit: int) -> Sequence[str]:
        """See `Store`. Processes that ask together pass by what the others are about to get.

        Reservations end by the clock of the database, as leases do. Since when something waits was written down by the
        clock of the machine that recorded it, and is compared as it is: as far as clocks are apart, something is taken
        sooner or later than it should.
        """
        lasts_ms, ahead_ms = until_ms - self._clock_ms(), now_ms - self._clock_ms()
        rows = await self._rows(sql.TAKE, ready_before_ms, lasts_ms, ahead_ms, limit)
        return [session_id for _, session_id in sorted((ready_ms, session_id) for ready_ms, session_id in rows)]

    async def working(self) -> Sequence[tuple[str, str]]:
        """See `Store`."""
        sessions = (Session.model_validate_json(body) for (body,) in await self._rows(sql.AT_WORK))
        return [(session.id, session.turn.owner.incarnation) for session in sessions if session.turn is not None]

    # ── keeping house ──

    async def tidy(self, session_id: str, *, without: Collection[int], instead: Sequence[Recorded]) -> None:
        """See `Store`."""
        found = {recorded.seq: "" for recorded in instead if recorded.type in SEARCHED}
        found |= findings(self.realm, instead)
        new = ([each.seq for each in instead], [each.type for each in instead], [each.body for each in instead])
        words = (list(found), list(found.values()))
        question = (sql.TIDY, self.realm, searched(session_id), list(without), *new, *words)
        check_instead(map(tuple, await self._server.rows(*question, unhurried=True)), instead)

    async def on_duty(self, duty: str, incarnation: str, *, now_ms: int, until_ms: int) -> bool:
        """See `Store`. By the clock of the database, as leases are."""
        lasts_ms, ahead_ms = until_ms - self._clock_ms(), now_ms - self._clock_ms()
        return bool(await self._rows(sql.ON_DUTY, searched(duty), searched(incarnation), lasts_ms, ahead_ms))

    async def sealing_key(self) -> bytes:
        """See `Store`."""
        ((key,),) = await self._rows(sql.SEALING_KEY, secrets.token_bytes(SEALING_KEY_BYTES))
        return key

    async def destroy(self) -> None:
        """Remove the realm and all that is its, in steps that hold up nobody for long. Whoever has it open hears that
        it is gone. When it fails, some is left; it helps to do it again.
        """
        while (await self._server.rows(sql.DESTROY, self.realm, unhurried=True))[0][0]:
            pass

    # ── config ──

    async def config(self) -> Versioned:
        """See `Store`."""
        rows = await self._rows("SELECT generation, config FROM realms WHERE number = $1")
        if not rows:
            raise destroyed()
        ((generation, document),) = rows
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
        if not await self._rows(sql.PUT_STREAM, *row):
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
        return len(await self._rows(sql.PRUNE_STREAMS, used_before_ms))

    # ── instances ──

    async def renew(self, instance: Instance) -> None:
        """See `Store`. By the clock of the database the lease ends as far from now as it does by ours."""
        lasts_ms = instance.expires_ms - self._clock_ms()
        known = (instance.incarnation, instance.instance_id, instance.host, instance.pid)
        await self._rows(sql.RENEW, *known, lasts_ms)
        self._own.add(instance.incarnation)

    async def alive(self, incarnation: str, *, now_ms: int) -> bool:
        """See `Store`. `now_ms` counts as what it is from this moment on. A process does not doubt itself."""
        if incarnation in self._own:
            return True
        return bool(await self._rows(sql.ALIVE, searched(incarnation), now_ms - self._clock_ms()))

    async def living(self) -> Sequence[tuple[str, str, int]]:
        """Every instance whose lease has not lapsed: its name, host and pid."""
        rows = await self._rows(
            "SELECT instance_id, host, pid FROM instances WHERE realm = $1 AND now_ms() < expires_ms"
        )
        return [(name, host, pid) for name, host, pid in rows]

    async def retire(self, incarnation: str) -> None:
        """See `Store`."""
        self._own.discard(incarnation)
        await self._rows(sql.RETIRE, searched(incarnation))

    async def _rows(self, statement: str, *parameters: Any) -> Sequence[Sequence[Any]]:
        return await self._server.rows(statement, self.realm, *parameters)


_: type[Store] = PostgresStore
