"""The words that sessions of a realm's file are found by, and the index of them: see `sql/0003_search_and_work.sql`.

Everything here is done under the writer's lock, in the transaction of what it belongs to. Where the library has no
FTS5, words are kept all the same and looked through one by one.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.stores.searching import SEARCHED, said, spelled
from meerkat_mcp.stores.sqlite_library import Connection, connect

INDEXED = "SELECT indexed FROM realm"
ROWS_AT_ONCE = 500

_TOKENS = "ascii tokenchars ''_''"
"""Words as they come: folded already, whatever is not ASCII is a letter, and nothing depends on anybody's Unicode."""

_MAKE = f"CREATE VIRTUAL TABLE search USING fts5(words, content='', columnsize=0, detail=none, tokenize='{_TOKENS}')"
_INDEX = "INSERT INTO search (rowid, words) VALUES (?, ?)"
_UNINDEX = "INSERT INTO search (search, rowid, words) VALUES ('delete', ?, ?)"
_INDEX_ALL = (
    "INSERT INTO search (rowid, words) SELECT 2 * number + 1, found_by FROM sessions WHERE found_by <> '' "
    "ORDER BY number",
    "INSERT INTO search (rowid, words) SELECT 2 * said_in.position, words "
    "FROM said_in CROSS JOIN said USING (session, position) ORDER BY said_in.position",
)
_UNINDEX_SAID = (
    "INSERT INTO search (search, rowid, words) SELECT 'delete', 2 * position, words FROM said WHERE session = ? "
    "ORDER BY position"
)
_SAY = "INSERT INTO said (session, position, words) VALUES (?, ?, ?)"
_SAY_IN = "INSERT INTO said_in (position, session) VALUES (?, ?)"
_FOUND_BY = "SELECT found_by FROM sessions WHERE number = ?"
_PARTS = "SELECT name FROM sqlite_master WHERE name IN ('search_data', 'search_idx')"
_MESSAGES = (
    f"SELECT session, position, seq, type, body FROM events WHERE type IN {tuple(sorted(SEARCHED))} "
    "ORDER BY session, seq"
)


@cache
def is_usable() -> bool:
    """Whether this library has what the index is made with."""
    with closing(connect(Path(":memory:"), busy_timeout_s=0, pragmas=())) as connection:
        return connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone() is not None


def tells_all(connection: Connection) -> bool:
    """Whether the index is there and has everything, and this library can read it."""
    return is_usable() and bool(connection.execute(INDEXED).fetchone()[0])


def collect(connection: Connection) -> None:
    """Keep the words of all that is in a file of version 2: once, for its migration."""
    connection.create_function("spelled", 1, spelled, deterministic=True)
    connection.execute("UPDATE sessions SET found_by = spelled(found_by)")
    with closing(connection.execute(_MESSAGES)) as messages:
        while rows := messages.fetchmany(ROWS_AT_ONCE):
            found = (
                (session, position, said(Recorded(seq, type_, body))) for session, position, seq, type_, body in rows
            )
            _keep(connection, [(session, position, spelled(text)) for session, position, text in found if text])


def build(connection: Connection) -> None:
    """Make the index anew, if it does not tell everything, and this library can."""
    if connection.execute(INDEXED).fetchone()[0] or not is_usable():
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # What an index that was left behind still has of deleted sessions must go from the file, too.
        erasing = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'search'").fetchone() is not None
        connection.execute("DROP TABLE IF EXISTS search")
        connection.execute(_MAKE)
        for fill in _INDEX_ALL:
            connection.execute(fill)
        connection.execute("UPDATE realm SET indexed = 1, erasing = max(erasing, ?)", (erasing,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def add(connection: Connection, found_by: Mapping[int, str], messages: Iterable[tuple[int, int, str]]) -> None:
    """What sessions are found by from now on, by number, and messages: session, position and text of each.

    To be called before `sessions.found_by` is changed.
    """
    said = [(session, position, words) for session, position, text in messages if (words := spelled(text))]
    changed = [
        (number, before, now)
        for number, now in sorted(found_by.items())
        if (before := connection.execute(_FOUND_BY, (number,)).fetchone()[0]) != now
    ]
    if not said and not changed:
        return
    _keep(connection, said)
    if not tells_all(connection):
        connection.execute("UPDATE realm SET indexed = 0 WHERE indexed")
        return
    for number, before, now in changed:
        if before:
            connection.execute(_UNINDEX, (2 * number + 1, before))
        if now:
            connection.execute(_INDEX, (2 * number + 1, now))
    connection.executemany(_INDEX, [(2 * position, words) for _, position, words in said])


def delete(connection: Connection, session_id: str) -> None:
    """Delete a session with all that is its, and note that its bytes are to be erased; fine if it is not there."""
    row = connection.execute("SELECT number, found_by FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if row is None:
        return
    number, found_by = row
    indexed = tells_all(connection)
    if indexed:
        connection.execute(_UNINDEX_SAID, (number,))
        if found_by:
            connection.execute(_UNINDEX, (2 * number + 1, found_by))
    connection.execute("DELETE FROM sessions WHERE number = ?", (number,))
    connection.execute("UPDATE realm SET erasing = 1, indexed = ?", (indexed,))


def clean(connection: Connection) -> None:
    """Leave nothing in the index that was taken out of it; all of it goes where that cannot be done."""
    if tells_all(connection):
        connection.execute("INSERT INTO search (search) VALUES ('optimize')")
        return
    for (table,) in connection.execute(_PARTS).fetchall():
        connection.execute(f"DELETE FROM {table}")


def _keep(connection: Connection, said: Sequence[tuple[int, int, str]]) -> None:
    connection.executemany(_SAY, said)
    connection.executemany(_SAY_IN, [(position, session) for session, position, _ in said])
