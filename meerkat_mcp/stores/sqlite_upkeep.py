"""What the writer of a realm's file does besides appending: work that waits is given out, and house is kept.

Each function is one transaction, in the writer's thread.
"""

import secrets
from collections.abc import Collection, Sequence

from meerkat_mcp.domain.errors import unknown_session
from meerkat_mcp.domain.events import DELTAS
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.session import WORKING
from meerkat_mcp.stores.base import SEALING_KEY_BYTES, Claim, check_instead
from meerkat_mcp.stores.sqlite_library import Connection

READY = (
    "SELECT id FROM sessions INDEXED BY sessions_by_readiness WHERE ready_ms < ? AND reserved_ms <= ? "
    "ORDER BY ready_ms, id LIMIT ?"
)
AT_WORK = (
    f"SELECT id, json_extract(CAST(body AS TEXT), '$.turn.owner.incarnation') FROM sessions WHERE doing IN {WORKING}"
)
ON_DUTY = "SELECT incarnation, until_ms FROM duties WHERE duty = ?"
SEALING_KEY = "SELECT sealing_key FROM realm"

_NUMBER = "SELECT number FROM sessions WHERE id = ?"
_PUT_CLAIM = "INSERT OR IGNORE INTO claims (key, digest, session, turn_id, created_ms) VALUES (?, ?, ?, ?, ?)"
_LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM events WHERE session = ?"
_TYPE = "SELECT seq, type FROM events WHERE session = ? AND seq = ?"
_REMOVE = f"DELETE FROM events WHERE session = ? AND seq = ? AND type IN {tuple(sorted(DELTAS))}"
_REPLACE = "UPDATE events SET body = ? WHERE session = ? AND seq = ?"


def put_claim(connection: Connection, claim: Claim) -> None:
    """See `Store`."""
    number = connection.execute(_NUMBER, (claim.session_id,)).fetchone()
    if number is None:
        raise unknown_session(claim.session_id)
    connection.execute(_PUT_CLAIM, (claim.key, claim.digest, *number, claim.turn_id, claim.created_ms))


def take(connection: Connection, *, ready_before_ms: int, until_ms: int, now_ms: int, limit: int) -> Sequence[str]:
    """See `Store`."""
    taken = connection.execute(READY, (ready_before_ms, now_ms, limit)).fetchall()
    connection.executemany("UPDATE sessions SET reserved_ms = ? WHERE id = ?", [(until_ms, one) for (one,) in taken])
    return [session_id for (session_id,) in taken]


def tidy(connection: Connection, session_id: str, *, without: Collection[int], instead: Sequence[Recorded]) -> None:
    """See `Store`."""
    row = connection.execute(_NUMBER, (session_id,)).fetchone()
    if row is None:
        return
    (number,) = row
    last = connection.execute(_LAST_SEQ, (number,)).fetchone()[0]
    new = [recorded for recorded in instead if recorded.seq != last]
    there = (connection.execute(_TYPE, (number, recorded.seq)).fetchone() for recorded in new)
    check_instead((found for found in there if found), new)
    connection.executemany(_REMOVE, [(number, seq) for seq in without if seq != last])
    connection.executemany(_REPLACE, [(recorded.body, number, recorded.seq) for recorded in new])


def on_duty(connection: Connection, duty: str, incarnation: str, *, now_ms: int, until_ms: int) -> bool:
    """See `Store`."""
    if is_others(connection.execute(ON_DUTY, (duty,)).fetchone(), incarnation, now_ms=now_ms):
        return False
    connection.execute("INSERT OR REPLACE INTO duties VALUES (?, ?, ?)", (duty, incarnation, until_ms))
    return True


def is_others(row: tuple[str, int] | None, incarnation: str, *, now_ms: int) -> bool:
    """Whether a duty, with this row if any, is somebody else's now."""
    return row is not None and row[0] != incarnation and now_ms < row[1]


def sealing_key(connection: Connection) -> bytes:
    """See `Store`."""
    if (key := connection.execute(SEALING_KEY).fetchone()[0]) is None:
        key = secrets.token_bytes(SEALING_KEY_BYTES)
        connection.execute("UPDATE realm SET sealing_key = ?", (key,))
    return key
