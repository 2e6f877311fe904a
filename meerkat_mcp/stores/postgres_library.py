"""The PostgreSQL driver as this program uses it, and what its errors mean to people.

asyncpg was measured against psycopg 3 on one machine (PostgreSQL 15, 2 cores): a durable append of one event 0.23 ms
against 0.36 ms at best, 256 concurrent appends 110 000/s against 30 000/s, and both hear a NOTIFY within 0.3 ms.

No message here says where the database is or how one logs in to it: these texts reach callers.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from meerkat_mcp.domain.errors import Corrupt, Internal, MeerkatError, StoreUnavailable

Row = Sequence[Any]

CONNECT_S = 10.0
"""How long a login may take."""
STATEMENT_S = 10
"""How long the server works on a statement before it gives up."""
LOCK_S = 3
"""How long a statement waits for somebody's lock; ours are held for the time of a commit."""
ANSWER_S = STATEMENT_S + 2.0
"""How long we wait for an answer before we take the connection for dead."""

_driver: Any = asyncpg  # it brings no types
driver_version: str = asyncpg.__version__

_SETTINGS = {
    "application_name": "meerkat_mcp",
    "statement_timeout": f"{STATEMENT_S}s",
    "lock_timeout": f"{LOCK_S}s",
    "idle_in_transaction_session_timeout": f"{STATEMENT_S}s",
    "client_min_messages": "warning",
    "jit": "off",  # it would compile for longer than our statements take
    "enable_seqscan": "off",  # plans are kept, and must not be those that were right while the tables were empty
    "enable_bitmapscan": "off",  # an index that is gone through in order has nothing to be sorted
    "max_parallel_workers_per_gather": "0",
}
PLANS = {"enable_hashjoin": "off", "enable_mergejoin": "off"}
"""The same for joins: all of ours look at a few rows, one by one."""


class Connection(Protocol):
    """What is used of asyncpg's connection."""

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Row]:
        """All rows of a query."""
        ...

    def transaction(self, *, isolation: str | None = None, readonly: bool = False) -> AbstractAsyncContextManager[Any]:
        """What is asked inside is done together, or not at all."""
        ...

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Run statements for their effect; several, when there are no arguments."""
        ...

    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, str], None]) -> None:
        """LISTEN; the callback gets connection, pid, channel, payload."""
        ...

    def add_termination_listener(self, callback: Callable[[Any], None]) -> None:
        """Call when the connection is gone."""
        ...

    def is_closed(self) -> bool:
        """Whether it is gone, as far as is known."""
        ...

    def terminate(self) -> None:
        """Let go of it at once."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:
        """Say goodbye and let go of it."""
        ...


class _Pooled(asyncpg.Connection):
    """A connection that is given back to its pool as it is: nothing of ours outlives a statement."""

    def get_reset_query(self) -> str:
        return ""


async def connect(dsn: str, schema: str, settings: Mapping[str, str]) -> Connection:
    """A connection of its own. Raises what `translated` knows."""
    return await _driver.connect(**_arguments(dsn, schema, settings))


def pool(dsn: str, schema: str, settings: Mapping[str, str], *, size: int) -> Any:
    """A pool that connects when somebody asks it for a connection, and lets go of idle ones after a minute."""
    return _driver.create_pool(
        **_arguments(dsn, schema, settings),
        min_size=0,
        max_size=size,
        max_inactive_connection_lifetime=60,
        connection_class=_Pooled,
    )


def _arguments(dsn: str, schema: str, settings: Mapping[str, str]) -> dict[str, Any]:
    return {
        "dsn": dsn,
        "timeout": CONNECT_S,
        "command_timeout": ANSWER_S,
        "server_settings": {**_SETTINGS, "search_path": schema, **settings},
    }


_ARGUMENT = asyncpg.exceptions._base.DataError  # pyright: ignore[reportPrivateUsage] - exported under no other name
_DRIVER = asyncpg.InterfaceError | asyncpg.InternalClientError
"""What the driver itself says; also, in words of its own state, when the server ended an idle connection just now."""
_LOST = ("08", "57P01", "57P02", "57P03", "57P05", "25006")
_AGAIN = ("40P01", "40001")
_LOGIN = ("is refused: the server does not know this user or password", "Check user and password in the DSN.")
_UNAVAILABLE = {
    "28": _LOGIN,
    "3D000": ("is refused: there is no such database", "Create it with createdb, or name another one in the DSN."),
    "42501": (
        "is refused: this user may not do that",
        "Let the database's owner open a realm once, which makes the schema meerkat, and grant this user USAGE on it, "
        "SELECT, INSERT, UPDATE and DELETE on its tables.",
    ),
    "25006": ("is read-only", "Name the primary server in the DSN, or all of them with target_session_attrs=primary."),
    "53300": ("has no connection left", "Raise max_connections, or have fewer processes on it."),
    "53100": ("has no space left on its disk", "Free space on the disk of the server."),
    "53": ("is short of resources", "Look into the server's log."),
    "55P03": ("is locked by somebody else", "Look for a long transaction in pg_stat_activity, and end it."),
    "57014": ("took too long over this and stopped", "Try again; look at the load of the server."),
    "57": ("is shutting down or starting up", "Try again in a moment."),
    "58": ("had an error of its operating system", "Look into the server's log."),
    "40": ("had another transaction in the way", "Try again."),
    "54000": ("cannot hold so much", "Make it smaller."),
}
_UNREACHABLE = ("cannot be reached", "Check that the server runs and that host and port in the DSN are right.")


def sqlstate(error: BaseException) -> str:
    """The five characters by which PostgreSQL tells errors apart; empty for an error that it did not send."""
    return getattr(error, "sqlstate", None) or ""


def is_lost(error: BaseException) -> bool:
    """Whether the connection is of no use any more, so that what was asked may have been done or not."""
    if code := sqlstate(error):
        return code.startswith(_LOST)
    if isinstance(error, _DRIVER):
        return not isinstance(error, ValueError)
    return isinstance(error, OSError | TimeoutError | EOFError)


def is_undone(error: BaseException) -> bool:
    """Whether the server took back what was asked, since others were in the way, and would do it another time."""
    return sqlstate(error) in _AGAIN


def is_slow(error: BaseException) -> bool:
    """Whether the server gave up since it took too long."""
    return sqlstate(error) == "57014"


def is_known(error: BaseException) -> bool:
    """Whether it comes from the driver, or the way to the server."""
    return isinstance(error, asyncpg.PostgresError | _DRIVER | OSError | TimeoutError | EOFError)


def translated(error: BaseException) -> MeerkatError:
    """The error as the seam knows it; raise it from the original."""
    if isinstance(error, ValueError) and not isinstance(error, _ARGUMENT):
        return StoreUnavailable(
            "The DSN of the realm's PostgreSQL cannot be understood.",
            hint="Write it as postgresql://user:password@host:5432/database.",
        )
    code = sqlstate(error)
    if code == "23503":  # a row of ours wants a realm that is not there; sessions are locked first
        return destroyed()
    reason = _UNAVAILABLE.get(code) or _UNAVAILABLE.get(code[:2])
    if reason is None and is_lost(error):
        reason = _UNREACHABLE
    if reason is not None:
        return StoreUnavailable(f"The realm's PostgreSQL {reason[0]}.", hint=reason[1], retry_after_s=1.0)
    if code:
        return Corrupt(
            f"The realm's PostgreSQL is not as it should be (SQLSTATE {code}).",
            hint="Look into the server's log, and tell the developers.",
        )
    return Internal()


def destroyed() -> StoreUnavailable:
    """What a realm answers that somebody removed from the database."""
    return StoreUnavailable(
        "The realm was removed from its PostgreSQL.", hint="End this server; started again, it makes a new realm."
    )


def closed() -> StoreUnavailable:
    """What a closed store answers."""
    return StoreUnavailable("The realm's PostgreSQL is closed here.")
