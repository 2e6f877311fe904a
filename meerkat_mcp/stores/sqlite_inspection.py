"""A realm's SQLite file, looked into by a connection that cannot write."""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from meerkat_mcp.domain.errors import Corrupt, MeerkatError, StoreUnavailable
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.stores import sqlite_library
from meerkat_mcp.stores.filelock import is_held
from meerkat_mcp.stores.inspection import Examination, Finding, Glance, fed, parsed
from meerkat_mcp.stores.sqlite_file import APPLICATION_ID, BUSY_TIMEOUT_S, FILE_NAME, SCHEMA_VERSION, Thread
from meerkat_mcp.stores.sqlite_library import Connection, LibraryError, translated

WAL_WARNING_B = 256 * 1024 * 1024
PROBLEMS_MAX = 5
PAGE_SESSIONS = 200

_CANTOPEN = 14

_DAMAGED = (
    "Stop all processes of the realm, keep a copy of its folder, and put a backup in its place; or try sqlite3's "
    ".recover on the copy."
)
_ORPHANS = "SELECT count(*) FROM {0} WHERE session NOT IN (SELECT number FROM sessions)"

T = TypeVar("T")


class SQLiteInspection:
    """See `Inspection`. Made by `open`, for the event loop it was opened in."""

    def __init__(self, folder: Path, thread: Thread, clock_ms: Callable[[], int]) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._thread = thread
        self._clock_ms = clock_ms

    @classmethod
    async def open(cls, folder: Path, *, clock_ms: Callable[[], int]) -> "SQLiteInspection":
        """Look into the file in this folder. Raises StoreUnavailable: there is none, or it cannot be opened."""
        path = folder / FILE_NAME
        if not path.is_file():
            raise StoreUnavailable(
                f"{FILE_NAME} is not there.", hint="Put a backup in its place; the next server makes an empty one."
            )
        try:
            thread = await Thread(lambda: _opened(path)).opened()
        except LibraryError as error:
            raise translated(error, path) from error
        return cls(folder, thread, clock_ms)

    async def close(self) -> None:
        """See `Inspection`."""
        await self._thread.close()

    async def glance(self) -> Glance:
        """See `Inspection`."""
        sessions, used_ms = await self._run(_count)
        return Glance(sessions, used_ms, [who for who, _ in await self._run(self._living)])

    async def health(self, *, full: bool) -> Sequence[Finding]:
        """See `Inspection`."""
        try:
            found = await self._run(partial(_problems, full=full))
        except (Corrupt, StoreUnavailable) as error:
            return [Finding("damaged", error.message, error.hint)]
        wal = self._path.with_name(FILE_NAME + "-wal")
        if (size := wal.stat().st_size if wal.exists() else 0) > WAL_WARNING_B:
            found.append(
                Finding(
                    "warning",
                    f"The write-ahead log has {size >> 20} MiB: something has read the file for very long.",
                    "End what holds the file open (a backup, a shell), or restart the servers of the realm.",
                )
            )
        more = [Finding("warning", warning, "Install pysqlite3.") for warning in sqlite_library.warnings]
        return [*found, *more]

    async def examinations(self) -> AsyncIterator[Examination]:
        """See `Inspection`."""
        after = ""
        while rows := await self._run(partial(_page, after=after)):
            for session_id, number, body in rows:
                examination = Examination(session_id, parsed(body))
                try:
                    await self._run(partial(_examine, examination=examination, number=number))
                except MeerkatError as error:
                    examination.damaged(f"its log cannot be read to its end ({error.message})")
                if examination.events or await self._run(partial(_there, number=number)):
                    yield examination
            after = rows[-1][0]

    async def alive(self, incarnation: str) -> bool:
        """See `Inspection`."""
        return incarnation in [one for _, one in await self._run(self._living)]

    async def _run(self, function: Callable[[Connection], T]) -> T:
        try:
            return await self._thread.run(function)
        except LibraryError as error:
            raise translated(error, self._path) from error

    def _living(self, connection: Connection) -> list[tuple[str, str]]:
        """Who is alive, for people, and the incarnation; a process that is stopped is."""
        living: list[tuple[str, str]] = []
        for incarnation, name, host, pid, expires_ms in connection.execute(
            "SELECT incarnation, instance_id, host, pid, expires_ms FROM instances"
        ).fetchall():
            held = self._held(incarnation)
            if held or (held is None and self._clock_ms() < expires_ms):
                living.append((f"{name} (process {pid} on {host})", incarnation))
        return living

    def _held(self, incarnation: str) -> bool | None:
        path = self._folder / "instances" / f"{incarnation}.lock"
        try:
            return is_held(path) if path.exists() else None
        except OSError:
            return None


def _opened(path: Path) -> Connection:
    """A connection that cannot write. A file on a disk that cannot be written has no one who changes it."""
    connection = sqlite_library.library.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except LibraryError as error:
        wal = path.with_name(f"{FILE_NAME}-wal")
        if _code(error) != _CANTOPEN or (wal.exists() and wal.stat().st_size):
            return connection  # what is wrong is found out when it is looked into
        connection.close()
        uri = f"{path.absolute().as_uri()}?immutable=1"
        return sqlite_library.library.connect(uri, uri=True, isolation_level=None)
    return connection


def _code(error: LibraryError) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _count(connection: Connection) -> tuple[int, int | None]:
    return connection.execute("SELECT count(*), max(updated_ms) FROM sessions").fetchone()


def _page(connection: Connection, after: str) -> list[tuple[str, int, bytes]]:
    sql = "SELECT id, number, body FROM sessions WHERE id > ? ORDER BY id LIMIT ?"
    return connection.execute(sql, (after, PAGE_SESSIONS)).fetchall()


def _there(connection: Connection, number: int) -> bool:
    """Whether the session was not deleted meanwhile."""
    return bool(connection.execute("SELECT 1 FROM sessions WHERE number = ?", (number,)).fetchall())


def _examine(connection: Connection, examination: Examination, number: int) -> None:
    rows = connection.execute("SELECT seq, type, body FROM events WHERE session = ? ORDER BY seq", (number,))
    try:
        fed(examination, (Recorded(*row) for row in rows))
    finally:
        rows.close()


def _problems(connection: Connection, *, full: bool) -> list[Finding]:
    found: list[Finding] = []
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        what = f"{FILE_NAME} is the SQLite database of another program"
        return [Finding("damaged", f"{what}.", "Move it out of the realm's folder, and put a backup in its place.")]
    if version > SCHEMA_VERSION:
        what = f"{FILE_NAME} has version {version}; this meerkat_mcp knows versions up to {SCHEMA_VERSION}."
        return [Finding("damaged", what, "Update this meerkat_mcp to the one that wrote the file.")]
    if version < SCHEMA_VERSION:
        what = f"{FILE_NAME} has version {version}, of an older meerkat_mcp."
        found.append(Finding("warning", what, "Nothing: the next command or server brings it up to date."))
    check = "integrity_check" if full else "quick_check"
    rows: list[tuple[Any, ...]] = connection.execute(f"PRAGMA {check}({PROBLEMS_MAX})").fetchall()
    found += [Finding("damaged", f"{FILE_NAME}: {row[0]}", _DAMAGED) for row in rows if row[0] != "ok"]
    for table in ("events", "claims", "streams", "labels"):
        ((count,),) = connection.execute(_ORPHANS.format(table)).fetchall()
        if count:
            what = f"{count} of {table} belong to sessions that are not there."
            found.append(Finding("damaged", what, "Copy the realm: they stay out of the copy."))
    return found
