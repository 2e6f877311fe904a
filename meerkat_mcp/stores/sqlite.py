"""The realm in one SQLite file, shared by any number of processes on one machine.

`sql/0001_realm.sql` says what the file looks like, `sqlite_writer` how it is written. There are two ways to read it.
What is small is read here and now, on the event loop: that takes 10 to 70 us, a sixth of a hop to another thread. But
nothing here waits: what is large, has to search, or finds the file locked is read in a thread.
"""

import json
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
from pydantic import ValidationError

from meerkat_mcp.domain.config import Versioned
from meerkat_mcp.domain.errors import Corrupt, unknown_session
from meerkat_mcp.domain.messages import JsonObject
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import Session, advance
from meerkat_mcp.stores import sqlite_library, sqlite_search, sqlite_upkeep
from meerkat_mcp.stores.base import (
    READ_EVENTS_MAX,
    Append,
    Claim,
    Cursor,
    Selection,
    Store,
    Stream,
    fitting,
    is_full,
)
from meerkat_mcp.stores.sqlite_file import FILE_NAME, Thread, erase, open_reader
from meerkat_mcp.stores.sqlite_instances import EXPIRES, Instances
from meerkat_mcp.stores.sqlite_library import Connection, LibraryError, closed, is_busy, translated
from meerkat_mcp.stores.sqlite_listing import Page, id_range
from meerkat_mcp.stores.sqlite_writer import CLAIM, LAST_POSITION, Writer

T = TypeVar("T")

SMALL_ROWS_MAX = 200
CATCH_UP_S = 1.0
"""For those whom a locked file kept from renewing their leases."""
HEARING_INTERVAL_S = 0.01
"""What follows a quiet time is heard at once; in a flood of commits it is enough to look this often."""

_CONFIG = "SELECT generation, config FROM realm"
_CHANGED = "SELECT id FROM sessions WHERE number IN (SELECT session FROM events WHERE position > ? AND position <= ?)"
_CLAIMS_OF = "SELECT key, digest, id, turn_id, created_ms FROM claims JOIN sessions ON number = session WHERE id = ?"
_STREAMS_OF = "SELECT streams.body FROM streams JOIN sessions ON number = session WHERE sessions.id = ?"
_PUT_STREAM = (
    "INSERT OR REPLACE INTO streams (id, session, used_ms, body) SELECT ?, number, ?, ? FROM sessions WHERE id = ?"
)


class SQLiteStore:
    """Made by `open`, for the event loop it was opened in."""

    warnings = sqlite_library.warnings

    def __init__(
        self,
        path: Path,
        *,
        writer: Writer,
        reader: Thread,
        inline: Connection,
        instances: Instances,
        clock_ms: Callable[[], int],
    ) -> None:
        self.path = path
        self.writer = writer
        self.bell = writer.bell
        self._owned = AsyncExitStack()
        self._reader = reader
        self._inline = inline
        self._instances = instances
        self._clock_ms = clock_ms
        self._closed = False
        self._seen = 0

    @classmethod
    async def open(cls, folder: Path, *, clock_ms: Callable[[], int], use_inotify: bool | None = None) -> "SQLiteStore":
        """The store in this folder, made if it is not there.

        Raises:
            StoreUnavailable: it cannot be opened, or a newer version of this program wrote it.
            Corrupt: the file is damaged, or another program's.
        """
        path = folder / FILE_NAME
        async with AsyncExitStack() as owned:
            instances = owned.enter_context(closing(Instances(folder / "instances")))
            writer = await Writer.open(path, use_inotify=use_inotify)
            owned.push_async_callback(writer.close)
            reader = await Thread(lambda: open_reader(path)).opened()
            owned.push_async_callback(reader.close)
            inline = owned.enter_context(closing(open_reader(path, busy_timeout_s=0)))
            store = cls(path, writer=writer, reader=reader, inline=inline, instances=instances, clock_ms=clock_ms)
            store._seen = await store._last_position()
            store._owned = owned.pop_all()
        return store

    @property
    def mechanisms(self) -> dict[str, str]:
        """See `Store`."""
        search = "fts5" if sqlite_search.is_usable() else "scan"
        return {"sqlite": sqlite_library.sqlite_version, "bell": self.writer.bell.mechanism, "search": search}

    async def close(self) -> None:
        """See `Store`.

        The writer goes after those who read, so that SQLite's own checkpoint at the end is made under the lock; and
        only when it has written all is this process dead to others.
        """
        if not self._closed:
            self._closed = True
            self.writer.stop()
            await self._owned.aclose()

    # ── logs ──

    async def append(self, append: Append) -> None:
        """See `Store`."""
        await self.writer.append(append)

    async def load(self, session_id: str) -> Session:
        """See `Store`."""
        rows = await self._rows("SELECT body FROM sessions WHERE id = ?", (session_id,))
        if not rows:
            raise unknown_session(session_id)
        try:
            session = Session.model_validate_json(rows[0][0])
            while events := await self.read(session_id, after=session.seq, limit=SMALL_ROWS_MAX):
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
        where, parameters = "seq > ?", [session_id, after]
        if through is not None:
            where, parameters = where + " AND seq <= ?", [*parameters, through]
        if types:
            where, parameters = where + f" AND type IN ({_marks(types)})", [*parameters, *types]
        events = await self._read(
            "SELECT seq, type, body FROM events WHERE session = (SELECT number FROM sessions WHERE id = ?)"
            f" AND {where} ORDER BY seq LIMIT ?",
            (*parameters, limit),
            _events,
            small=limit <= SMALL_ROWS_MAX and not types,
        )
        if is_full(events, limit):
            await anyio.lowlevel.checkpoint()  # who reads on and on must let others in between
        return events

    async def changes(self) -> AsyncGenerator[Collection[str]]:
        """See `Store`."""
        while not self._closed:
            through = await self._last_position()
            changed: set[str] = set()
            for after, last in self.writer.spans.between(self._seen, through):
                rows = await self._rows(_CHANGED, (after, last), small=last - after <= SMALL_ROWS_MAX)
                changed.update(session_id for (session_id,) in rows)
            if changed:
                yield changed
            self._seen = through
            try:
                await anyio.sleep(HEARING_INTERVAL_S)
                await self.bell.wait()
            except anyio.ClosedResourceError:
                return

    # ── sessions ──

    async def sessions(
        self, selection: Selection, *, after: Cursor | None = None, offset: int = 0, limit: int = 50
    ) -> Sequence[Session]:
        """See `Store`."""
        page = Page(selection, after, offset, limit)
        if page.is_plain:
            walk = page.walk()
            rows = await self._rows(walk.sql, walk.parameters, small=offset == 0 and limit <= SMALL_ROWS_MAX)
        else:
            rows = await self._found(page.find)
        return [Session.model_validate_json(body) for (body,) in rows]

    async def matching(self, prefix: str, *, limit: int, principal: str | None = None) -> Sequence[str]:
        """See `Store`."""
        whose, theirs = ("", ()) if principal is None else ("principal = ? AND ", (principal,))
        rows = await self._rows(
            f"SELECT id FROM sessions WHERE {whose}id >= ? AND id < ? ORDER BY id DESC LIMIT ?",
            (*theirs, *id_range(prefix), limit),
        )
        return [session_id for (session_id,) in rows]

    async def delete(self, session_id: str) -> None:
        """See `Store`."""
        await self.writer.change(partial(sqlite_search.delete, session_id=session_id))
        await self.writer.locked(erase)

    async def claim(self, key: str) -> Claim | None:
        """See `Store`."""
        rows = await self._rows(CLAIM, (key,))
        return Claim(*rows[0]) if rows else None

    async def put_claim(self, claim: Claim) -> None:
        """See `Store`."""
        await self.writer.change(partial(sqlite_upkeep.put_claim, claim=claim))

    async def prune_claims(self, *, created_before_ms: int) -> int:
        """See `Store`."""
        return await self._changed("DELETE FROM claims WHERE created_ms < ?", (created_before_ms,))

    async def kept_with(self, session_id: str) -> tuple[Sequence[Claim], Sequence[Stream]]:
        """See `Store`."""
        claims = await self._rows(_CLAIMS_OF, (session_id,), small=False)
        streams = await self._rows(_STREAMS_OF, (session_id,), small=False)
        return [Claim(*claim) for claim in claims], [Stream.model_validate_json(body) for (body,) in streams]

    # ── work that waits, or goes on ──

    async def take(self, *, ready_before_ms: int, until_ms: int, now_ms: int, limit: int) -> Sequence[str]:
        """See `Store`. It is asked often and mostly for nothing, so nothing is written for nothing."""
        if not await self._rows(sqlite_upkeep.READY, (ready_before_ms, now_ms, 1)):
            return []
        take = partial(
            sqlite_upkeep.take, ready_before_ms=ready_before_ms, until_ms=until_ms, now_ms=now_ms, limit=limit
        )
        return await self.writer.change(take, durable=False)

    async def working(self) -> Sequence[tuple[str, str]]:
        """See `Store`."""
        return [(session_id, incarnation) for session_id, incarnation in await self._rows(sqlite_upkeep.AT_WORK)]

    # ── keeping house ──

    async def tidy(self, session_id: str, *, without: Collection[int], instead: Sequence[Recorded]) -> None:
        """See `Store`."""
        tidy = partial(sqlite_upkeep.tidy, session_id=session_id, without=without, instead=instead)
        await self.writer.change(tidy)

    async def on_duty(self, duty: str, incarnation: str, *, now_ms: int, until_ms: int) -> bool:
        """See `Store`."""
        for row in await self._rows(sqlite_upkeep.ON_DUTY, (duty,)):
            if sqlite_upkeep.is_others(row, incarnation, now_ms=now_ms):
                return False
        ask = partial(sqlite_upkeep.on_duty, duty=duty, incarnation=incarnation, now_ms=now_ms, until_ms=until_ms)
        return await self.writer.change(ask, durable=False)

    async def sealing_key(self) -> bytes:
        """See `Store`."""
        ((key,),) = await self._rows(sqlite_upkeep.SEALING_KEY)
        return key or await self.writer.change(sqlite_upkeep.sealing_key)

    # ── config ──

    async def config(self) -> Versioned:
        """See `Store`."""
        return _versioned(await self._rows(_CONFIG))

    async def put_config(self, document: JsonObject, *, expected: int | None) -> Versioned:
        """See `Store`."""

        def put(connection: Connection) -> Versioned:
            changed = _versioned(connection.execute(_CONFIG).fetchall()).changed(document, expected)
            row = (changed.generation, json.dumps(changed.document))
            connection.execute("UPDATE realm SET generation = ?, config = ?", row)
            return changed

        return await self.writer.change(put)

    # ── streams ──

    async def put_stream(self, stream: Stream) -> None:
        """See `Store`."""
        row = (stream.stream_id, stream.used_ms, stream.model_dump_json().encode(), stream.session_id)
        if not await self._changed(_PUT_STREAM, row):
            raise unknown_session(stream.session_id)

    async def stream(self, stream_id: str) -> Stream | None:
        """See `Store`."""
        rows = await self._rows("SELECT body FROM streams WHERE id = ?", (stream_id,))
        return Stream.model_validate_json(rows[0][0]) if rows else None

    async def close_stream(self, stream_id: str) -> bool:
        """See `Store`."""
        return await self._changed("DELETE FROM streams WHERE id = ?", (stream_id,)) > 0

    async def prune_streams(self, *, used_before_ms: int) -> int:
        """See `Store`."""
        return await self._changed("DELETE FROM streams WHERE used_ms < ?", (used_before_ms,))

    # ── instances ──

    async def renew(self, instance: Instance) -> None:
        """See `Store`."""
        now_ms = self._clock_ms()
        await self.writer.change(partial(self._instances.renew, instance=instance, now_ms=now_ms), durable=False)

    async def alive(self, incarnation: str, *, now_ms: int) -> bool:
        """See `Store`. A process does not doubt itself, however late it comes to renew its lease. Of another one that
        is there a lapsed lease says nothing yet: perhaps nobody could write, because somebody was stopped in the middle
        of it. So it is asked again when one can write, and everybody had the time to.
        """
        if incarnation in self._instances.own:
            return True
        if not (rows := await self._rows(EXPIRES, (incarnation,))) or self._instances.is_dead(incarnation):
            return False
        if now_ms < rows[0][0]:
            return True
        await self.writer.change(lambda _: None, durable=False)
        await anyio.sleep(CATCH_UP_S)
        rows = await self._rows(EXPIRES, (incarnation,))
        return bool(rows) and now_ms < rows[0][0] and not self._instances.is_dead(incarnation)

    async def retire(self, incarnation: str) -> None:
        """See `Store`."""
        await self.writer.change(partial(self._instances.retire, incarnation=incarnation), durable=False)

    # ── how it is done ──

    async def _last_position(self) -> int:
        ((position,),) = await self._rows(LAST_POSITION)
        return position

    async def _rows(self, sql: str, parameters: tuple[Any, ...] = (), *, small: bool = True) -> list[tuple[Any, ...]]:
        """All rows of a query; one that is not `small` is made in the reader's thread."""
        return await self._read(sql, parameters, lambda rows: rows.fetchall(), small=small)

    async def _read(
        self, sql: str, parameters: tuple[Any, ...], take: Callable[[Any], list[T]], *, small: bool
    ) -> list[T]:
        """What `take` makes of the rows of a query."""
        if small and not self._closed:
            try:
                return take(self._inline.execute(sql, parameters))
            except LibraryError as error:
                if not is_busy(error):
                    raise translated(error, self.path) from error
        return await self._found(lambda connection: take(connection.execute(sql, parameters)))

    async def _found(self, find: Callable[[Connection], list[T]]) -> list[T]:
        """What is found in the reader's thread, in one state of the file."""
        if self._closed:
            raise closed(self.path)

        def whole(connection: Connection) -> list[T]:
            connection.execute("BEGIN")
            try:
                return find(connection)
            finally:
                connection.execute("ROLLBACK")

        try:
            return await self._reader.run(whole)
        except LibraryError as error:
            raise translated(error, self.path) from error

    async def _changed(self, sql: str, parameters: tuple[Any, ...]) -> int:
        """How many rows a statement changed, of those that a power cut may undo."""
        return await self.writer.change(lambda connection: connection.execute(sql, parameters).rowcount, durable=False)


def _events(rows: Any) -> list[Recorded]:
    events = fitting(Recorded(*row) for row in rows)
    rows.close()  # a page that is full before the rows end would keep them open
    return events


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _versioned(rows: list[tuple[Any, ...]]) -> Versioned:
    ((generation, document),) = rows
    return Versioned(generation=generation, document=json.loads(document))


_: type[Store] = SQLiteStore
