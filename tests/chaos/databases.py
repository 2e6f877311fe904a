"""The PostgreSQL that a realm lies on: a database of the server there is, or a server of our own."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
import asyncpg
from stores.own_postgres import OwnPostgres, own_postgres

SERVER = "postgresql://postgres@127.0.0.1:5432/postgres"
CONNECTIONS = 300


@dataclass
class Database:
    """Where it is; `own` is its server, if that is ours to restart."""

    dsn: str
    own: OwnPostgres | None = None

    @property
    def port(self) -> int:
        port = urlsplit(self.dsn).port
        assert port is not None, "the address names it"
        return port

    async def restart(self, *, crash: bool) -> None:
        assert self.own is not None, "the server is not ours"
        await self.own.stop(crash=crash)
        await self.own.start(max_connections=CONNECTIONS)


@asynccontextmanager
async def database(*, own: bool) -> AsyncGenerator[Database]:
    """A database with nothing in it. Raises OSError when there is no server."""
    if own:
        with own_postgres() as server:
            await server.start(max_connections=CONNECTIONS)
            yield Database(server.dsn, server)
        return
    name = f"meerkat_chaos_{secrets.token_hex(6)}"
    await _told(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    try:
        yield Database(f"{SERVER.rpartition('/')[0]}/{name}")
    finally:
        with anyio.CancelScope(shield=True):
            await _told(f"DROP DATABASE {name} WITH (FORCE)")


async def _told(statement: str) -> None:
    connection: Any = await asyncpg.connect(SERVER, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
