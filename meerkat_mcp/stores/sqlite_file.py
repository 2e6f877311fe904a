"""The file of a realm: how it is opened, recognised, brought up to date, and cleaned of what was deleted."""

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, Self, TypeVar

import aiosqlite

from meerkat_mcp.domain.errors import Corrupt, StoreUnavailable
from meerkat_mcp.stores import sqlite_search
from meerkat_mcp.stores.filelock import FileLock
from meerkat_mcp.stores.sqlite_library import Connection, LibraryError, connect, is_busy, translated

FILE_NAME = "realm.sqlite3"
APPLICATION_ID = 0x6D65726B  # "merk": what the command `file` shows, and what tells our files from others'
BUSY_TIMEOUT_S = 10.0
"""Our own processes queue at the file lock; this is how long a stranger (a backup, a shell) may hold up a write."""
OPEN_WAIT_S = 30.0

_WORDS_SINCE = 3
"""The first version that keeps the words of what was said: its migration reads all of it."""

_WRITER_PRAGMAS = (
    "foreign_keys = ON",
    "wal_autocheckpoint = 1000",
    "cache_size = -16000",
    "temp_store = MEMORY",
    "mmap_size = 0",
    # On macOS alone: an fsync there does not reach the disk, which would break what `append` promises.
    "fullfsync = ON",
    "checkpoint_fullfsync = ON",
)
_READER_PRAGMAS = ("query_only = ON", "cache_size = -8000", "temp_store = MEMORY", "mmap_size = 0")

T = TypeVar("T")


class Thread(aiosqlite.Connection):
    """A connection that lives in a thread of its own and runs whole functions there: one hop for many statements."""

    def __init__(self, opened: Callable[[], Connection]) -> None:
        super().__init__(opened, 64)
        self._ended: asyncio.Future[Any] | None = None
        # A thread that stands in line for a lock that is never given back must not keep the process from ending.
        self._thread.daemon = True

    async def opened(self) -> Self:
        """Open it. Where that fails the thread has ended when the error comes: aiosqlite only tells it to end, and it
        would say so to an event loop that may be closed by then.
        """
        try:
            await self
        except Exception:
            if (ended := self._ended) is not None:
                await ended
            raise
        return self

    def stop(self) -> "asyncio.Future[Any] | None":
        """As aiosqlite has it."""
        self._ended = super().stop()  # pyright: ignore[reportUnknownMemberType]
        return self._ended

    def run(self, function: Callable[[Connection], T]) -> "asyncio.Future[T]":
        """What `function` returns, called with the connection in its thread; what has begun there is not cancelled.

        This is aiosqlite's `_execute` without the coroutine, since who sends for the writer is a callback, no task.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, lambda: function(self._conn)))  # pyright: ignore[reportUnknownMemberType]
        return future


def make_folder(folder: Path) -> None:
    """The folder of a realm, for its owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def open_writer(path: Path, lock: FileLock) -> Connection:
    """The connection that writes; creates the file and brings it up to date. Raises StoreUnavailable, Corrupt."""
    lock.acquire(timeout_s=OPEN_WAIT_S)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives the files beside it the same permissions
        with ExitStack() as owned:
            connection = owned.enter_context(closing(connect(path, busy_timeout_s=BUSY_TIMEOUT_S, pragmas=())))
            _prepare(connection, path)
            owned.pop_all()
        return connection
    except LibraryError as error:
        raise translated(error, path) from error
    finally:
        lock.release()


def open_reader(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Connection:
    """A connection that cannot write. Raises StoreUnavailable, Corrupt."""
    try:
        return connect(path, busy_timeout_s=busy_timeout_s, pragmas=_READER_PRAGMAS)
    except LibraryError as error:
        raise translated(error, path) from error


def newer(connection: Connection) -> StoreUnavailable | None:
    """Why this program cannot use the file: a newer one brought it up to its own date, perhaps while we had it open."""
    try:
        version = _number(connection, "PRAGMA user_version")
    except LibraryError:
        return None  # then something else is wrong, and was said already
    if version <= len(_MIGRATIONS):
        return None
    return StoreUnavailable(
        f"The realm's file has version {version}; this meerkat_mcp knows versions up to {len(_MIGRATIONS)}.",
        hint="Update this meerkat_mcp to the one that wrote the file, or use another realm.",
        version=version,
        known=len(_MIGRATIONS),
    )


def erase(connection: Connection) -> None:
    """Remove what unused parts of the file still hold of deleted sessions. Raises StoreUnavailable.

    `secure_delete` would not do: where SQLite moves rows between pages it leaves copies in their unused middle (after
    one of ten deletions in a trial). VACUUM writes the file anew, and the checkpoint empties the write-ahead log. For a
    million events that takes 2 s, in which nobody can write, and 260 MB of memory. The index of words goes before that:
    it notes only what it has no more, until its parts are made one.
    """
    if not _number(connection, "SELECT erasing FROM realm"):
        return
    sqlite_search.clean(connection)
    connection.execute("VACUUM")
    if not _checkpoint(connection):
        raise StoreUnavailable(
            "The session is deleted, but somebody still reads the file as it was: some of its bytes are left in it.",
            hint="Delete it once more to have them removed; else whoever opens the realm next removes them.",
        )
    connection.execute("UPDATE realm SET erasing = 0")


def close_writer(connection: Connection) -> None:
    """Move everything into the file itself, unless somebody reads it just now, and let go of it; under the lock."""
    try:
        connection.execute("PRAGMA busy_timeout = 0")
        _checkpoint(connection)
    finally:
        connection.close()


def _prepare(connection: Connection, path: Path) -> None:
    application, tables = _number(connection, "PRAGMA application_id"), "SELECT count(*) FROM sqlite_master"
    if application != APPLICATION_ID and (application or _number(connection, tables)):
        raise Corrupt(
            f"{path.name} is the SQLite database of another program.",
            hint="Move it out of the realm's folder, or use another realm.",
        )
    if too_new := newer(connection):
        raise too_new
    if (mode := connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
        raise StoreUnavailable(
            f"{path.name} cannot be shared between processes here (journal mode {mode}).",
            hint="Put the state root on a local disk, with --state-root.",
        )
    for pragma in _WRITER_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    for version in range(_number(connection, "PRAGMA user_version") + 1, len(_MIGRATIONS) + 1):
        _migrate(connection, version)
    sqlite_search.build(connection)
    with suppress(StoreUnavailable, LibraryError):  # else the note stays, and the next one who opens it tries
        erase(connection)


def _migrate(connection: Connection, version: int) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{_MIGRATIONS[version - 1]}")
        if version == _WORDS_SINCE:
            sqlite_search.collect(connection)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _checkpoint(connection: Connection) -> bool:
    """Move the write-ahead log into the file and leave it empty; False when a reader was in the way to the end."""
    try:
        return connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    except LibraryError as error:
        if is_busy(error):
            return False
        raise


def _number(connection: Connection, sql: str) -> int:
    return connection.execute(sql).fetchone()[0]


def _migrations() -> tuple[str, ...]:
    """The scripts in `sql`, `0001_…` first; a realm's file counts how many it has seen."""
    scripts = sorted((files("meerkat_mcp.stores") / "sql").iterdir(), key=lambda script: script.name)
    return tuple(script.read_text(encoding="utf-8") for script in scripts if script.name.endswith(".sql"))


_MIGRATIONS = _migrations()
SCHEMA_VERSION = len(_MIGRATIONS)
"""How many migrations this program knows."""
