"""The server of a realm: how it is reached, checked, brought up to date, and asked.

Who asks through `rows` gets a connection out of a small pool. When that breaks (a restart, a failover, a terminated
backend), the question is asked again on another one for a while, so it must be one that may be asked twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar

from meerkat_mcp.domain.errors import Corrupt, MeerkatError, StoreUnavailable
from meerkat_mcp.stores import postgres_library as library
from meerkat_mcp.stores.postgres_library import ANSWER_S, PLANS, Connection, Row, closed, is_known, is_lost, translated

T = TypeVar("T")

SCHEMA = "meerkat"
OLDEST = 140000
PATIENCE_S = 5.0
"""How long a server that cannot be reached is tried again: about as long as a restart takes."""
RETRY_S = 0.1
RELEASE_S = 2.0
"""How long the server may take to leave off what nobody waits for any more."""
LONG_S = 600
"""How long a migration or a large deletion may take."""
MIGRATION_LOCK = 0x6D65726B617400  # "meerkat": all who might migrate this database stand in line here

_UNHURRIED = f"SET LOCAL statement_timeout = '{LONG_S}s'; SET LOCAL lock_timeout = '60s';"
_STATE = """
SELECT current_setting('server_version_num')::int, current_setting('server_version'),
    current_setting('server_encoding'), current_setting('transaction_read_only')::bool, current_setting('fsync')::bool,
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
    coalesce(host(inet_server_addr()) LIKE ANY (ARRAY['127.%', '::1']), true)
"""
_REALM = "SELECT number FROM realms WHERE id = $1"
_ADD_REALM = "INSERT INTO realms (id) VALUES ($1) ON CONFLICT DO NOTHING"


class Server:
    """A database with realms in it. Every method raises StoreUnavailable and Corrupt."""

    def __init__(self, dsn: str, *, connections: int) -> None:
        self._dsn = dsn
        self._connections = connections
        self._pool: Any = None
        self._closing = False
        self.version = ""
        self.warnings: tuple[str, ...] = ()

    async def open(self, realm_id: str) -> int:
        """Check the server, bring the schema up to date, and give the number of the realm, made if it is not there."""
        connection = await self.connect()
        try:
            await self._check(connection)
            await _update(connection)
            if not await connection.fetch(_REALM, realm_id):
                await connection.execute(_ADD_REALM, realm_id)
            ((number,),) = await connection.fetch(_REALM, realm_id)
            settings = {"synchronous_commit": "off", **PLANS}
            self._pool = await library.pool(self._dsn, SCHEMA, settings, size=self._connections)
            return number
        except Exception as error:
            if is_known(error):
                raise translated(error) from error
            raise
        finally:
            await goodbye(connection)

    async def connect(self, **settings: str) -> Connection:
        """A connection of its own."""
        try:
            return await library.connect(self._dsn, SCHEMA, settings)
        except Exception as error:
            if not (is_known(error) or isinstance(error, ValueError)):  # this one: no port, no way to read the DSN
                raise
            refusal = translated(error)
        raise refusal from None  # the driver's own words may quote the DSN

    async def reconnect(self, **settings: str) -> Connection:
        """A connection of its own; a server that is away is tried again for `PATIENCE_S`."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            if self._closing:
                raise closed()
            try:
                return await self.connect(**settings)
            except StoreUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(RETRY_S)

    async def rows(self, sql: str, *parameters: Any, unhurried: bool = False) -> list[Row]:
        """All rows of a statement that may be run twice, and that a power cut may undo unless it says otherwise."""
        return await self._again(partial(self.rows_once, sql, *parameters, unhurried=unhurried))

    async def together(self, ask: Callable[[Connection], Awaitable[T]], **transaction: Any) -> T:
        """What comes of several statements in one transaction, which may be run twice."""

        async def asked(connection: Connection) -> T:
            async with connection.transaction(**transaction):
                return await ask(connection)

        return await self._again(partial(self._lent, asked))

    async def rows_once(self, sql: str, *parameters: Any, unhurried: bool = False) -> list[Row]:
        """All rows of a statement; `unhurried` gives it `LONG_S`. StoreUnavailable can mean that it was done."""

        async def asked(connection: Connection) -> list[Row]:
            if not unhurried:
                return await connection.fetch(sql, *parameters)
            async with connection.transaction():
                await connection.execute(_UNHURRIED)
                return await connection.fetch(sql, *parameters, timeout=LONG_S)

        return await self._lent(asked)

    async def _again(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What comes of this; a server that is away is tried again for `PATIENCE_S`."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                return await attempt()
            except StoreUnavailable as error:
                away = error.__cause__ is not None and is_lost(error.__cause__)
                if not away or self._closing or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _lent(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """What comes of this with a connection of the pool."""
        if self._closing:
            raise closed()
        try:
            connection = await self._pool.acquire(timeout=ANSWER_S)
            try:
                return await ask(connection)
            except BaseException as error:  # who is cancelled again and again does not get as far as to roll back
                if is_lost(error) or connection.is_in_transaction():
                    connection.terminate()
                raise
            finally:
                with suppress(Exception):  # then it is of no use any more, and the pool let go of it
                    await self._pool.release(connection, timeout=RELEASE_S)
        except Exception as error:
            if not is_known(error):
                raise
            if self._closing:
                raise closed() from error
            raise await self.understood(error) from error

    async def understood(self, error: BaseException) -> MeerkatError:
        """The error as the seam knows it. What is missing was perhaps replaced, by a newer version of this program."""
        if library.sqlstate(error) in ("42P01", "42883", "42703"):
            with suppress(StoreUnavailable):
                connection = await self.connect()
                try:
                    _refuse_newer(await _version(connection))
                except StoreUnavailable as newer:
                    return newer
                finally:
                    await goodbye(connection)
        return translated(error)

    async def close(self) -> None:
        """Let go of all connections of the pool; closing twice is fine."""
        self._closing = True
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(1):
                await self._pool.close()
        except BaseException as error:  # somebody still waits for a server that does not answer, or not for us
            self._pool.terminate()
            if not isinstance(error, Exception):
                raise

    def stop(self) -> None:
        """Try nothing again any more."""
        self._closing = True

    async def _check(self, connection: Connection) -> None:
        ((number, self.version, encoding, read_only, fsync, encrypted, local),) = await connection.fetch(_STATE)
        if number < OLDEST:
            raise StoreUnavailable(
                f"The realm's PostgreSQL has version {self.version}; {OLDEST // 10000} is the oldest that will do.",
                hint="Update the server, or use another one.",
            )
        if encoding != "UTF8":
            raise StoreUnavailable(
                f"The realm's database has the encoding {encoding}; it cannot hold every text.",
                hint="Create one with createdb --encoding UTF8 --template template0, and name that in the DSN.",
            )
        if read_only:
            raise StoreUnavailable(
                "The realm's PostgreSQL is read-only.",
                hint="Name the primary server in the DSN, or all of them with target_session_attrs=primary.",
            )
        warnings: list[str] = []
        if not fsync:
            warnings.append("PostgreSQL runs with fsync = off: a power cut can lose or damage everything.")
        if not (encrypted or local):
            warnings.append("The way to PostgreSQL is not encrypted: add sslmode=verify-full to the DSN.")
        self.warnings = tuple(warnings)


async def goodbye(connection: Connection) -> None:
    """Close a connection, however it is."""
    try:
        await connection.close(timeout=1)
    except Exception:  # it is gone, or does not answer
        connection.terminate()


async def _update(connection: Connection) -> None:
    """Run the migrations that are missing, all or none, while all others wait who would do the same."""
    version = await _version(connection)
    _refuse_newer(version)
    if version == len(_MIGRATIONS):
        return
    await connection.execute(f"BEGIN; {_UNHURRIED}")
    try:
        await connection.fetch("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK, timeout=LONG_S)
        version = await _version(connection)
        _refuse_newer(version)
        if not version:
            ((there,),) = await connection.fetch("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA)
            if not there:
                await connection.execute(f"CREATE SCHEMA {SCHEMA}")
            await connection.execute("CREATE TABLE version (number integer NOT NULL); INSERT INTO version VALUES (0)")
        for script in _MIGRATIONS[version:]:
            await connection.execute(script, timeout=LONG_S)
        await connection.fetch("UPDATE version SET number = $1", len(_MIGRATIONS))
        await connection.execute("COMMIT")
    except BaseException:
        with suppress(Exception):
            await connection.execute("ROLLBACK")
        raise


async def _version(connection: Connection) -> int:
    """How many migrations the schema has seen; 0, when there is none."""
    ((table, others),) = await connection.fetch(
        "SELECT to_regclass($1 || '.version') IS NOT NULL,"
        " EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace($1))",
        SCHEMA,
    )
    if table:
        ((version,),) = await connection.fetch(f"SELECT number FROM {SCHEMA}.version")
        return version
    if others:
        raise Corrupt(
            f"The schema {SCHEMA} of the realm's database is another program's.", hint="Use another database."
        )
    return 0


def _refuse_newer(version: int) -> None:
    if version > len(_MIGRATIONS):
        raise StoreUnavailable(
            f"The realm's database has version {version}; this meerkat_mcp knows versions up to {len(_MIGRATIONS)}.",
            hint="Update this meerkat_mcp to the one that changed the database, or use another one.",
            version=version,
            known=len(_MIGRATIONS),
        )


def _migrations() -> Sequence[str]:
    """The scripts in `pgsql`, `0001_…` first; a database counts how many it has seen."""
    scripts = sorted((files("meerkat_mcp.stores") / "pgsql").iterdir(), key=lambda script: script.name)
    return tuple(script.read_text(encoding="utf-8") for script in scripts if script.name.endswith(".sql"))


_MIGRATIONS = _migrations()
