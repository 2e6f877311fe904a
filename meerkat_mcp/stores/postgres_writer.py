"""All appending to a realm's log by this process: one call of the database for whatever has queued.

Whoever appends puts a job into a queue and waits. One task takes what is there, sends it as one statement, and comes
back for what has queued meanwhile: under load hundreds of appends share a commit, and alone one goes at once; no timer
decides. The statement is a transaction of its own, so no lock is held for longer than the server takes to run and
commit it, whatever becomes of this process. The database leaves out what does not fit (`append` in `pgsql/0001`), so
that only the guilty one hears of it; when the statement as a whole is refused, its appends are sent one by one.

When the connection breaks under a statement, nobody knows whether it was done. The next connection then first makes
sure that the server's process for the old one is gone: from then on the log tells for certain. What is in it was done,
and what is not is sent again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.stores.base import Append, Claim, KeyTaken, SequenceConflict
from meerkat_mcp.stores.postgres_library import (
    ANSWER_S,
    PLANS,
    Connection,
    Row,
    closed,
    is_known,
    is_lost,
    is_slow,
    is_undone,
)
from meerkat_mcp.stores.postgres_server import Server, goodbye
from meerkat_mcp.stores.postgres_values import arguments

EVENTS_PER_COMMIT_MAX = 512
TRIES_MAX = 4
WRITE_S = 30
"""How long a commit is tried, until nobody waits for the answer any more."""

_APPEND = f"SELECT * FROM append({', '.join(f'${number}' for number in range(1, 30))})"
_OURSELVES = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_BURY = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"
_LAST = (
    "SELECT type, body FROM events JOIN sessions ON number = session WHERE sessions.realm = $1 AND id = $2"
    " AND events.seq = $3"
)

Told = Callable[[int, Collection[str]], None]


@dataclass(slots=True, eq=False)
class _Job:
    """An append, and what came of it. `sent` says that it may have entered, `entered` that it has."""

    append: Append
    done: "asyncio.Future[None]"
    sent: bool = False
    entered: bool = False
    error: Exception | None = None

    def settle(self) -> None:
        """Tell whoever waits, if it was not cancelled."""
        if self.done.done():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(None)


class Writer:
    """The queue, and the connection it is emptied through."""

    def __init__(self, server: Server, realm: int, name: int, told: Told) -> None:
        """`told` hears of every transaction that recorded something, and in which sessions."""
        self.commits = 0
        self._server = server
        self._realm = realm
        self._name = name
        self._told = told
        self._queue: deque[_Job] = deque()
        self._working: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._predecessor: Row | None = None
        self._stopped = False

    async def append(self, append: Append) -> None:
        """Write events, together with others that wait.

        Raises:
            SequenceConflict, KeyTaken, StoreUnavailable, Corrupt.
        """
        if self._stopped:
            raise closed()
        job = _Job(append, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        await job.done

    async def close(self) -> None:
        """Write what waits, and let go of the connection; closing twice is fine."""
        self._stopped = True
        if self._working is not None:
            await asyncio.wait([self._working])
        if self._connection is not None:
            await goodbye(self._connection)
            self._connection = None

    def drop(self) -> None:
        """Let go of the connection at once, whatever it does."""
        self._stopped = True
        if self._connection is not None:
            self._connection.terminate()

    async def _work(self) -> None:
        try:
            while jobs := self._take():
                await self._write(jobs)
                for job in jobs:
                    job.settle()
        finally:
            self._working = None

    def _take(self) -> Sequence[_Job]:
        """The next jobs: as many as one commit should have."""
        jobs: list[_Job] = []
        events = 0
        while self._queue and events < EVENTS_PER_COMMIT_MAX:
            job = self._queue.popleft()
            if not job.done.cancelled():
                jobs.append(job)
                events += len(job.append.events)
        return jobs

    async def _write(self, jobs: Sequence[_Job]) -> None:
        try:
            async with asyncio.timeout(WRITE_S):
                await self._commit(jobs)
        except Exception as error:
            if isinstance(error, TimeoutError):
                self._lose()
            jobs = [job for job in jobs if not job.entered]
            if len(jobs) > 1 and not (is_lost(error) or is_slow(error) or isinstance(error, StoreUnavailable)):
                for job in jobs:
                    await self._write([job])
                return
            known = await self._server.understood(error) if is_known(error) else error
            if known is not error:
                known.__cause__ = error
            for job in jobs:
                job.error = known

    async def _commit(self, jobs: Sequence[_Job]) -> None:
        """Send appends until the answer is known."""
        for tries_left in reversed(range(TRIES_MAX)):
            try:
                connection = await self._connected()
                async with asyncio.timeout(ANSWER_S):
                    jobs = [job for job in jobs if not await self._has_entered(connection, job)]
                    if not jobs:
                        return
                    appends = arguments(self._realm, [job.append for job in jobs])
                    for job in jobs:
                        job.sent = True
                    rows = await connection.fetch(_APPEND, self._realm, self._name, *appends)
            except Exception as error:
                if is_lost(error):
                    self._lose()
                if not tries_left or not (is_lost(error) or is_undone(error)):
                    raise
                continue
            self.commits += 1
            self._answer(jobs, rows)
            return

    def _answer(self, jobs: Sequence[_Job], rows: Sequence[Row]) -> None:
        for _, at, digest, session_id, turn_id, created_ms in rows[1:]:
            job = jobs[int(at) - 1]
            if digest is not None and job.append.claim is not None:
                job.error = KeyTaken(Claim(job.append.claim.key, digest, session_id, turn_id, created_ms))
            else:
                job.error = SequenceConflict(job.append.session.id)
        if recorded := {job.append.session.id for job in jobs if job.error is None}:
            self._told(rows[0][0], recorded)

    async def _connected(self) -> Connection:
        """A connection; when there was one before, nothing is under way on that any more."""
        if self._connection is not None and self._connection.is_closed():
            self._lose()
        if self._connection is None:
            connection = await self._server.reconnect(**PLANS)
            try:
                async with asyncio.timeout(ANSWER_S):
                    if self._predecessor is not None:
                        await self._bury(connection, self._predecessor)
                    (self._predecessor,) = await connection.fetch(_OURSELVES)
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
        return self._connection

    def _lose(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _bury(self, connection: Connection, dead: Row) -> None:
        for (gone,) in await connection.fetch(_BURY, *dead):
            if not gone:
                raise StoreUnavailable(
                    "A lost statement still runs in the realm's PostgreSQL; nobody knows yet whether it will be done.",
                    hint="Look for it in pg_stat_activity, and end it.",
                )

    async def _has_entered(self, connection: Connection, job: _Job) -> bool:
        """Whether an append that was sent before, and got no answer, is in the log after all."""
        if job.sent:
            last = job.append.events[-1]
            rows = await connection.fetch(_LAST, self._realm, job.append.session.id, last.seq)
            job.entered = [tuple(row) for row in rows] == [(last.type, last.body)]
        return job.entered
