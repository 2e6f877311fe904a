"""Stores of every kind, and logs to put into them."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from meerkat_mcp.domain.events import Event, SessionCreated, TextComplete, TextDelta
from meerkat_mcp.domain.recorded import Recorded, encode, place
from meerkat_mcp.domain.session import SHOWN, Session, advance
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.stores.base import Append, Claim, Store
from meerkat_mcp.stores.memory import MemoryStore
from meerkat_mcp.stores.sqlite import SQLiteStore

OpenStore = Callable[[], Awaitable[Store]]
OpenSQLite = Callable[..., Awaitable[SQLiteStore]]


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
async def open_memory() -> AsyncIterator[OpenStore]:
    """Gives one store again and again: it is for one process."""
    store = MemoryStore()

    async def open_one() -> Store:
        return store

    yield open_one
    await store.close()


@pytest.fixture(params=["memory", "sqlite", "sqlite-polling"])
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    """Opens a store of each kind; once more gives what another process would see of it."""
    match request.param:
        case "memory":
            return request.getfixturevalue("open_memory")
        case "sqlite":
            return request.getfixturevalue("open_sqlite")
        case _:
            return partial(request.getfixturevalue("open_sqlite"), use_inotify=False)


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
async def sqlite(open_sqlite: OpenSQLite) -> SQLiteStore:
    return await open_sqlite()
