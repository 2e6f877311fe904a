"""All writing to a realm's file: one transaction for whatever has queued, while this process holds the file lock.

Whoever writes puts a job into a queue and waits. The writer's thread stands in line for the lock, and only then takes
what is there by now: under load a hundred appends share one commit, and alone one goes at once; no timer decides. The
processes of a realm get the lock in the order they came, where SQLite's own would let them try at random.

Appends are written together. When the schema refuses one of them, all are rolled back and written again one by one,
each within its savepoint, so that only the guilty one hears of it. The lock is held all the while: the second try
sees what the first one saw.
"""

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio

from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.domain.events import DELTAS
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores import sqlite_search
from meerkat_mcp.stores.base import Append, Claim, KeyTaken, SequenceConflict, found_by
from meerkat_mcp.stores.doorbell import Doorbell
from meerkat_mcp.stores.filelock import FileLock
from meerkat_mcp.stores.searching import said, spelled
from meerkat_mcp.stores.sqlite_file import Thread, close_writer, make_folder, newer, open_writer
from meerkat_mcp.stores.sqlite_library import Connection, LibraryError, Refused, closed, refused_by_system, translated

EVENTS_PER_COMMIT_MAX = 512
PATIENCE_S = 30.0
NUMBERS_KEPT_MAX = 4096
SPANS_KEPT_MAX = 1024

LAST_POSITION = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'"
CLAIM = "SELECT key, digest, id, turn_id, created_ms FROM claims JOIN sessions ON number = session WHERE key = ?"

_NUMBER = "SELECT number FROM sessions WHERE id = ?"
_LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM events JOIN sessions ON number = session WHERE id = ?"
_ADD_SESSION = "INSERT INTO sessions (id) VALUES (?)"
_ADD_EVENT = "INSERT INTO logged (session, after, seq, type, body) VALUES (?, ?, ?, ?, ?)"
_SHOW = (
    "UPDATE sessions SET state = ?, archived = ?, updated_ms = ?, labels = ?, found_by = ?, body = ? WHERE number = ?"
)
_SUPERSEDE = f"DELETE FROM events WHERE session = ? AND seq >= ? AND seq < ? AND type IN {tuple(sorted(DELTAS))}"
_ADD_CLAIM = "INSERT INTO claims (key, digest, session, turn_id, created_ms) VALUES (?, ?, ?, ?, ?)"

T = TypeVar("T")


class Spans:
    """The positions this process wrote, which it need not be told of; it may be told of the oldest all the same."""

    def __init__(self) -> None:
        self._spans: deque[tuple[int, int]] = deque(maxlen=SPANS_KEPT_MAX)
        self._lock = threading.Lock()

    def add(self, first: int, last: int) -> None:
        """`first` to `last` are ours."""
        with self._lock:
            if self._spans and self._spans[-1][1] == first - 1:
                first = self._spans.pop()[0]
            self._spans.append((first, last))

    def clear(self) -> None:
        """Forget what is ours."""
        with self._lock:
            self._spans.clear()

    def between(self, after: int, through: int) -> Iterator[tuple[int, int]]:
        """What is not ours in `after < position <= through`, as pairs of the same kind."""
        with self._lock:
            spans = [*self._spans, (through + 1, through + 1)]
        for first, last in spans:
            end = min(first - 1, through)
            if after < end:
                yield after, end
            after = max(after, last)


@dataclass(slots=True, eq=False)
class _Job:
    """Something to write, and what came of it."""

    what: Append | Callable[[Connection], Any]
    done: "asyncio.Future[Any]"
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        """Tell whoever waits, if it was not cancelled."""
        if self.done.done():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.result)


class Writer:
    """The queue, and what is done with it. Every method raises StoreUnavailable and Corrupt beside what it names."""

    def __init__(self, path: Path, thread: Thread, lock: FileLock, bell: Doorbell) -> None:
        self.bell = bell
        self.spans = Spans()
        self.commits = 0
        self._path = path
        self._thread = thread
        self._lock = lock
        self._queue: deque[_Job] = deque()
        self._taking = threading.Lock()
        self._patience: asyncio.TimerHandle | None = None
        self._durable: bool | None = None
        self._numbers: dict[str, int] = {}
        self._stopped = False

    @classmethod
    async def open(cls, path: Path, *, use_inotify: bool | None) -> "Writer":
        """Make the file, if it is not there, and what belongs to it."""
        with ExitStack() as owned:
            try:
                make_folder(path.parent)
                lock = owned.enter_context(closing(FileLock(path.with_name("realm.lock"))))
                bell = owned.enter_context(closing(Doorbell(path.with_name("realm.bell"), use_inotify=use_inotify)))
                thread = await Thread(lambda: open_writer(path, lock)).opened()
            except OSError as error:
                raise refused_by_system(error, path.parent) from error
            owned.pop_all()
        return cls(path, thread, lock, bell)

    async def append(self, append: Append) -> None:
        """Write events, together with others that wait. Raises SequenceConflict, KeyTaken."""
        await self._queued(append)

    async def change(self, change: Callable[[Connection], T], *, durable: bool = True) -> T:
        """What `change` returns, called in a transaction of its own; when it raises, nothing has happened."""

        def whole(connection: Connection) -> T:
            with self._transaction(connection, durable):
                return change(connection)

        return await self.locked(whole)

    async def locked(self, function: Callable[[Connection], T]) -> T:
        """What `function` returns, called under the lock, outside of any transaction."""
        result: T = await self._queued(function)
        return result

    def stop(self) -> None:
        """Take no more jobs."""
        self._stopped = True

    async def close(self) -> None:
        """Write what waits, and let go of the file.

        StoreUnavailable means that the lock did not come in time: the thread still waits for it, and then ends.
        """
        self._stopped = False
        done = self._queued(close_writer)
        self._stopped = True
        try:
            await done
        except BaseException:
            self._thread.stop()  # pyright: ignore[reportUnknownMemberType] - as soon as it gets out of there
            raise
        finally:
            self.bell.close()
        await self._thread.close()
        self._lock.close()

    def _queued(self, what: Append | Callable[[Connection], Any]) -> "asyncio.Future[Any]":
        if self._stopped:
            raise closed(self._path)
        job = _Job(what, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        if self._patience is None:
            self._go()
        return job.done

    def _go(self) -> None:
        """Send the thread for what has queued; a timer runs until it is back."""
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up)
        self._thread.run(self._write).add_done_callback(self._settle)

    def _settle(self, written: "asyncio.Future[Sequence[_Job]]") -> None:
        """The thread is back: send it again if something has queued meanwhile, and tell those who waited."""
        assert self._patience is not None, "it runs while the thread is away"
        self._patience.cancel()
        self._patience = None
        if self._queue:
            self._go()
        for job in written.result():
            job.settle()

    def _give_up(self) -> None:
        """Fail what waits: it was not taken yet, so it will not be written either, should the lock come after all."""
        for job in self._take_all():
            job.error = StoreUnavailable(
                f"{self._path.name} could not be written for {PATIENCE_S:.0f} s: somebody else holds its lock.",
                hint="Look for a process of this realm that was stopped (Ctrl-Z), or a large deletion under way.",
            )
            job.settle()
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up)

    # ── from here on in the thread ──

    def _write(self, connection: Connection) -> Sequence[_Job]:
        """Do the next jobs of the queue, when it is our turn."""
        try:
            self._lock.acquire()
        except OSError as error:
            jobs = self._take()
            for job in jobs:
                job.error = refused_by_system(error, self._lock.path)
            return jobs
        try:
            jobs = self._take()
            self._do(connection, jobs)
        finally:
            self._lock.release()
        if jobs and isinstance(jobs[0].what, Append):
            # An append that is committed must not fail any more.
            with suppress(OSError, anyio.ClosedResourceError):
                self.bell.ring()
        return jobs

    def _take(self) -> Sequence[_Job]:
        """The next jobs: as many appends as one commit should have, or one other thing."""
        jobs: list[_Job] = []
        events = 0
        with self._taking:
            while self._queue and events < EVENTS_PER_COMMIT_MAX:
                if jobs and not isinstance(self._queue[0].what, Append):
                    break
                job = self._queue.popleft()
                if job.done.cancelled():
                    continue
                jobs.append(job)
                if not isinstance(job.what, Append):
                    break
                events += len(job.what.events)
        return jobs

    def _take_all(self) -> Sequence[_Job]:
        with self._taking:
            jobs = list(self._queue)
            self._queue.clear()
        return jobs

    def _do(self, connection: Connection, jobs: Sequence[_Job]) -> None:
        try:
            if appends := [job.what for job in jobs if isinstance(job.what, Append)]:
                for job, refusal in zip(jobs, self._append(connection, appends), strict=True):
                    job.error = refusal
            for job in jobs:
                if not isinstance(job.what, Append):
                    job.result = job.what(connection)
        except Exception as error:
            for job in jobs:
                job.error = self._understood(connection, error)

    def _append(self, connection: Connection, appends: Sequence[Append]) -> "Sequence[Exception | None]":
        """Write appends; for each of them why it was refused, if it was."""
        durable = any(append.durable for append in appends)
        try:
            with self._transaction(connection, durable):
                self._insert(connection, appends)
                self._mark(connection, appends)
            return [None] * len(appends)
        except (Refused, SequenceConflict):
            with self._transaction(connection, durable):
                refusals = [self._insert_alone(connection, append) for append in appends]
                self._mark(connection, [append for append, no in zip(appends, refusals, strict=True) if no is None])
            return refusals

    def _mark(self, connection: Connection, appends: Sequence[Append]) -> None:
        """Note the positions of what was inserted as ours, before anybody can see them."""
        if count := sum(len(append.events) for append in appends):
            last: int = connection.execute(LAST_POSITION).fetchone()[0]
            self.spans.add(last - count + 1, last)

    @contextmanager
    def _transaction(self, connection: Connection, durable: bool) -> Generator[None]:
        if durable != self._durable:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
            self.commits += 1
        except BaseException:
            self._numbers.clear()  # some were perhaps given, and some positions taken, that others will get now
            self.spans.clear()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _insert(self, connection: Connection, appends: Sequence[Append]) -> None:
        events: list[tuple[Any, ...]] = []
        shown: list[tuple[Any, ...]] = []
        superseded: list[tuple[Any, ...]] = []
        claims: list[tuple[Any, ...]] = []
        messages: list[tuple[int, int, str]] = []
        words: dict[int, str] = {}
        first: int = connection.execute(LAST_POSITION).fetchone()[0] + 1
        for append in appends:
            number = self._numbers.get(append.session.id) or self._number(connection, append)
            after = append.after
            for event in append.events:
                if text := said(event):
                    messages.append((number, first + len(events), text))
                events.append((number, after, event.seq, event.type, event.body))
                after = event.seq
            if append.shown or append.begins:
                words[number] = spelled(found_by(append.session))
                shown.append(_shown(append.session, number, words[number]))
            if gone := append.superseded:
                superseded.append((number, gone.start, gone.stop))
            if claim := append.claim:
                claims.append((claim.key, claim.digest, number, claim.turn_id, claim.created_ms))
        connection.executemany(_ADD_EVENT, events)
        sqlite_search.add(connection, words, messages)
        for sql, rows in ((_SHOW, shown), (_SUPERSEDE, superseded), (_ADD_CLAIM, claims)):
            if rows:
                connection.executemany(sql, rows)

    def _number(self, connection: Connection, append: Append) -> int:
        """The number of the session; a new one, when its log begins here."""
        session_id = append.session.id
        row = connection.execute(_NUMBER, (session_id,)).fetchone()
        if row is None and not append.begins:
            raise SequenceConflict(session_id)
        number = cast(int, row[0] if row else connection.execute(_ADD_SESSION, (session_id,)).lastrowid)
        if len(self._numbers) >= NUMBERS_KEPT_MAX:
            self._numbers.clear()
        self._numbers[session_id] = number
        return number

    def _insert_alone(self, connection: Connection, append: Append) -> Exception | None:
        connection.execute("SAVEPOINT alone")
        try:
            self._insert(connection, [append])
        except (Refused, SequenceConflict) as error:
            connection.execute("ROLLBACK TO alone")
            self._numbers.clear()
            return self._refusal(connection, append, error)
        finally:
            connection.execute("RELEASE alone")
        return None

    def _refusal(self, connection: Connection, append: Append, error: Exception) -> Exception:
        """Why an append was refused. A taken key comes first: its turn is the answer to a call that was repeated."""
        if append.claim and (taken := connection.execute(CLAIM, (append.claim.key,)).fetchone()):
            return KeyTaken(Claim(*taken))
        last = connection.execute(_LAST_SEQ, (append.session.id,)).fetchone()[0]
        if last != append.after:
            return SequenceConflict(append.session.id)
        return self._understood(connection, error)

    def _understood(self, connection: Connection, error: Exception) -> Exception:
        """The error as the seam knows it, or a bug as it is."""
        known: Exception = error
        if isinstance(error, LibraryError):
            known = newer(connection) or translated(error, self._path)
        elif isinstance(error, OSError):
            known = refused_by_system(error, self._path)
        if known is not error:
            known.__cause__ = error
        return known


def _shown(session: Session, number: int, words: str) -> tuple[Any, ...]:
    return (
        session.state,
        session.state == "archived",
        session.updated_ms,
        json.dumps(session.labels),
        words,
        session.model_dump_json().encode(),
        number,
    )
