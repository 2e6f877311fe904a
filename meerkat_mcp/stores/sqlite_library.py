"""The SQLite library of this process, chosen once, and what its errors mean to people.

Two SQLite libraries must never have one file open in one process: POSIX drops the locks of both when either closes
it. So everything here goes through `library`: pysqlite3, which brings a recent SQLite, or else Python's own.
"""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from meerkat_mcp.domain.errors import Corrupt, Internal, MeerkatError, StoreUnavailable

if TYPE_CHECKING:
    import sqlite3 as library
else:
    try:
        from pysqlite3 import dbapi2 as library
    except ImportError:
        import sqlite3 as library

Connection: TypeAlias = library.Connection
LibraryError: TypeAlias = library.Error
Refused: TypeAlias = library.IntegrityError

sqlite_version: str = library.sqlite_version


def connect(path: Path, *, busy_timeout_s: float, pragmas: tuple[str, ...]) -> Connection:
    """A connection in autocommit mode, for the thread that opens it and no other."""
    connection = library.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def version_warnings(version: tuple[int, ...]) -> tuple[str, ...]:
    """What a person should know about this version of SQLite."""
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    if fixed or version < (3, 7):
        return ()
    return (
        f"SQLite {'.'.join(map(str, version))} can lose committed data when one process writes to a file while another "
        "moves its write-ahead log into it. Several processes on one realm are safe only because every write and every "
        "such move of ours is made under the realm's lock: let no other program write to the file, or install "
        "pysqlite3, which brings a SQLite without this fault (3.51.3 or later).",
    )


warnings = version_warnings(library.sqlite_version_info)

_BUSY = 5
_UNAVAILABLE = {
    3: ("access is not permitted", "Check who owns the realm's folder and its files."),
    _BUSY: ("another program holds it locked", "Find the program that has the file open, and try again."),
    6: ("it is locked", "Try again."),
    7: ("there is not enough memory", "Free memory and try again."),
    8: ("it is read-only", "Check the permissions of the realm's folder and its files, and how the disk is mounted."),
    9: ("the operation was interrupted", "Try again."),
    10: ("the disk reported an error", "Check the disk; nothing acknowledged was undone."),
    13: ("the disk is full", "Free space on the disk of the state root and try again."),
    14: ("it cannot be opened", "Check that the realm's folder exists and can be written."),
    15: ("its locks do not work", "Put the state root on a local disk, with --state-root."),
    22: ("the file system cannot hold a file so large", "Put the state root on another disk, with --state-root."),
    23: ("access is not permitted", "Check who owns the realm's folder and its files."),
}
_CORRUPT = {
    11: (
        "is damaged",
        "Stop all processes of the realm, keep a copy of its folder, then try sqlite3's .recover on it.",
    ),
    26: ("is no SQLite database", "Keep a copy, then put back what belongs there or remove it."),
}


def is_busy(error: LibraryError) -> bool:
    """Whether the call could succeed if it waited."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == _BUSY


def translated(error: LibraryError, path: Path) -> MeerkatError:
    """The error as the seam knows it; raise it from the original."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:  # the binding itself complains: it was misused, here
        return Internal()
    if reason := _UNAVAILABLE.get(code & 0xFF):
        return StoreUnavailable(f"{path.name} cannot be used: {reason[0]}.", hint=reason[1])
    what, hint = _CORRUPT.get(
        code & 0xFF, (f"is not as it should be ({error})", "Keep a copy and tell the developers.")
    )
    return Corrupt(f"{path.name} {what}.", hint=hint)


def refused_by_system(error: OSError, path: Path) -> StoreUnavailable:
    """What the operating system's refusal to open or lock a file means."""
    return StoreUnavailable(
        f"{path} cannot be used: {error.strerror or error}.",
        hint="Check that the folder exists, is on a local disk and can be written, or name another --state-root.",
    )


def closed(path: Path) -> StoreUnavailable:
    """What a closed store answers."""
    return StoreUnavailable(f"{path.name} is closed here.")
