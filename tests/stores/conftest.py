"""Stores of every kind, and logs to put into them."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.domain.events import Event, SessionCreated, TextComplete, TextDelta
from meerkat_mcp.domain.recorded import Recorded, encode, place
from meerkat_mcp.domain.session import SHOWN, Session, advance
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.stores.base import Append, Claim, Store
from meerkat_mcp.stores.jsonl import JsonlStore
from meerkat_mcp.stores.memory import MemoryStore
from meerkat_mcp.stores.postgres import PostgresStore
from meerkat_mcp.stores.sqlite import SQLiteStore

POSTGRES_DSN = "postgresql://postgres@127.0.0.1:5432/postgres"
OpenStore = Callable[[], Awaitable[Store]]
OpenSQLite = Callable[..., Awaitable[SQLiteStore]]
OpenJsonl = Callable[[], Awaitable[JsonlStore]]
OpenPostgres = Callable[..., Awaitable[PostgresStore]]


class Log:
    """A session as its writer sees it: makes its appends, and knows what they should come to."""

    def __init__(self, session_id: str = "s-1") -> None:
        self.session = Session(id=session_id)
        self.shown = self.session
        self.events: list[Recorded] = []

    @property
    def id(self) -> str:
        return self.session.id

    def begin(self, *, title: str = "", labels: dict[str, str] | None = None, at_ms: int = 1) -> Append:
        return self.next(SessionCreated(settings=Settings(), title=title, labels=labels or {}), at_ms=at_ms)

    def text(self, text: str = "text", *, supersedes: int | None = None) -> Append:
        return self.next(TextComplete(text=text), supersedes=supersedes)

    def delta(self, text: str = "te") -> Append:
        return self.next(TextDelta(text=text))

    def next(
        self,
        *drafts: Event,
        at_ms: int = 1,
        supersedes: int | None = None,
        claim: Claim | None = None,
        holes: int = 0,
    ) -> Append:
        """The append with these events; `holes` numbers are left out between any two of them."""
        before, events = self.session.seq, list[Recorded]()
        for draft in drafts:
            event = place(
                draft,
                event_id=f"{self.id}/{before + 1}",
                seq=before + 1,
                session_id=self.id,
                turn_id="t-1",
                timestamp_ms=at_ms,
            )
            self.session = advance(self.session, event)
            events.append(encode(event))
            before = self.session.seq + holes
        append = Append(
            self.session,
            events,
            shown=any(isinstance(draft, SHOWN) for draft in drafts),
            supersedes=supersedes,
            claim=claim,
        )
        if append.shown:
            self.shown = self.session
        self.events = [
            each for each in (*self.events, *events) if not (each.is_delta and each.seq in append.superseded)
        ]
        return append


@pytest.fixture
async def open_sqlite(tmp_path: Path) -> AsyncIterator[OpenSQLite]:
    """Opens stores on one folder, each as another process would; they are closed at the end."""
    async with AsyncExitStack() as opened:

        async def open_one(*, use_inotify: bool | None = None) -> SQLiteStore:
            folder = tmp_path / "realm"
            store = await SQLiteStore.open(
                folder, clock_ms=lambda: time.time_ns() // 1_000_000, use_inotify=use_inotify
            )
            opened.push_async_callback(store.close)
            return store

        yield open_one


@pytest.fixture
async def open_jsonl(tmp_path: Path) -> AsyncIterator[OpenJsonl]:
    """Opens a store on one folder; while it is open it is given again, since it is for one process."""
    folder, opened = tmp_path / "realm", list[JsonlStore]()

    async def open_one() -> JsonlStore:
        try:
            store = await JsonlStore.open(folder, clock_ms=lambda: time.time_ns() // 1_000_000, wait_s=0)
        except StoreUnavailable:
            if not opened:
                raise
        else:
            opened.append(store)
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def open_memory() -> AsyncIterator[OpenStore]:
    """Gives one store again and again: it is for one process."""
    store = MemoryStore()

    async def open_one() -> Store:
        return store

    yield open_one
    await store.close()


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A database of this test process, removed at the end."""
    name = f"meerkat_test_{secrets.token_hex(6)}"
    try:
        asyncio.run(told_postgres(POSTGRES_DSN, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0"))
    except OSError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no PostgreSQL at 127.0.0.1:5432 ({error})")
    try:
        yield f"{POSTGRES_DSN.rpartition('/')[0]}/{name}"
    finally:
        asyncio.run(told_postgres(POSTGRES_DSN, f"DROP DATABASE {name} WITH (FORCE)"))


async def told_postgres(dsn: str, *statements: str) -> list[Any]:
    """The rows of the last of these statements, run one by one by a stranger."""
    connection: Any = await asyncpg.connect(dsn, timeout=10)
    try:
        rows: list[Any] = []
        for statement in statements:
            rows = await connection.fetch(statement)
        return rows
    finally:
        await connection.close()


@pytest.fixture
async def open_postgres(postgres_dsn: str) -> AsyncIterator[OpenPostgres]:
    """Opens stores on one realm, a new one for each test, each as another process would; they are closed at the end."""
    realm_id = f"realm-{secrets.token_hex(8)}"
    async with AsyncExitStack() as opened:

        async def open_one(realm_id: str = realm_id, **how: Any) -> PostgresStore:
            how = {"clock_ms": lambda: time.time_ns() // 1_000_000} | how
            store = await PostgresStore.open(how.pop("dsn", postgres_dsn), realm_id, **how)
            opened.push_async_callback(store.close)
            return store

        yield open_one


@pytest.fixture(params=["memory", "jsonl", "sqlite", "sqlite-polling", "postgres", "postgres-polling"])
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    """Opens a store of each kind; once more gives what another process would see of it."""
    match request.param:
        case "memory":
            return request.getfixturevalue("open_memory")
        case "jsonl":
            return request.getfixturevalue("open_jsonl")
        case "sqlite":
            return request.getfixturevalue("open_sqlite")
        case "postgres":
            return request.getfixturevalue("open_postgres")
        case "postgres-polling":
            return partial(request.getfixturevalue("open_postgres"), listen=False)
        case _:
            return partial(request.getfixturevalue("open_sqlite"), use_inotify=False)


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
async def postgres(open_postgres: OpenPostgres) -> PostgresStore:
    return await open_postgres()


@pytest.fixture
async def jsonl(open_jsonl: OpenJsonl) -> JsonlStore:
    return await open_jsonl()


@pytest.fixture
async def sqlite(open_sqlite: OpenSQLite) -> SQLiteStore:
    return await open_sqlite()
