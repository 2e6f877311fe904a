"""PostgreSQL that is restarted, crashes, is cut off, stalls, or has no connection left: what is kept, and what is said.

The server is the test's own where it is ended; else it is the one that all tests use, behind a wire that breaks.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
import asyncpg
import pytest
from stores.conftest import Log, OpenPostgres
from stores.cutting import Wire, wired
from stores.own_postgres import OwnPostgres, own_postgres

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import StoreUnavailable
from meerkat_mcp.domain.session import Session
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.sessions.clock import SystemClock
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.stores import postgres_library, postgres_server, postgres_writer
from meerkat_mcp.stores.base import Append, Selection, SequenceConflict
from meerkat_mcp.stores.postgres import PostgresStore

pytestmark = pytest.mark.anyio

LONG_S = 90
SOON_S = 10
"""How soon appends work again after the server is back, with a wide margin: it takes two seconds at most."""
STARTED = e.TurnStarted(prompt="p", turn_id="t-1", owner=e.Owner(instance_id="i", incarnation="l", host="h", pid=1))


@pytest.fixture(scope="module")
def server() -> Any:
    with own_postgres() as made:
        yield made


@pytest.fixture
async def running(server: OwnPostgres) -> AsyncGenerator[OwnPostgres]:
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def opened(dsn: str, realm_id: str, **how: Any) -> PostgresStore:
    return await PostgresStore.open(dsn, realm_id, clock_ms=lambda: time.time_ns() // 1_000_000, **how)


class Writing:
    """Somebody who appends to a log of its own, on and on, and remembers what of it was acknowledged."""

    def __init__(self, store: PostgresStore, number: int) -> None:
        self.store = store
        self.log = Log(f"s-{number}")
        self.acknowledged: list[Append] = []
        self.refused: list[Append] = []
        self.stopped = False

    async def run(self) -> None:
        append = self.log.begin()
        while not self.stopped:
            before = self.log.session
            try:
                await self.store.append(append)
            except (StoreUnavailable, SequenceConflict) as error:
                if isinstance(error, StoreUnavailable):
                    self.refused.append(append)
                self.log.session = before.model_copy(update={"seq": await self._last()})
            else:
                self.acknowledged.append(append)
            text = f"{len(self.acknowledged)} {len(self.refused)}"
            created = [] if self.log.session.seq else [e.SessionCreated(settings=Settings())]
            append = self.log.next(*created, e.TextComplete(text=f"{text} a"), e.TextComplete(text=f"{text} b"))

    async def _last(self) -> int:
        with anyio.fail_after(LONG_S):
            while True:
                try:
                    return max(
                        (recorded.seq for recorded in await self.store.read(self.log.id, limit=100_000)), default=0
                    )
                except StoreUnavailable:
                    await anyio.sleep(0.1)

    async def goes_on(self) -> None:
        """Come back when another append was acknowledged."""
        before = len(self.acknowledged)
        while len(self.acknowledged) == before:  # noqa: ASYNC110 - it is the store that is waited for
            await anyio.sleep(0.005)

    def check(self, found: Sequence[Any]) -> None:
        """Everything acknowledged is there, and of everything else all or nothing."""
        there = set(found)
        for append in self.acknowledged:
            assert there >= set(append.events)
        for append in self.refused:
            assert len(there & set(append.events)) in (0, len(append.events))
        whole = {event for append in (*self.acknowledged, *self.refused) for event in append.events}
        assert there <= whole
        assert [recorded.seq for recorded in found] == list(range(1, len(found) + 1))


@asynccontextmanager
async def busy(stores: Sequence[PostgresStore]) -> AsyncGenerator[list[Writing]]:
    """Four that write in each of these stores; they are checked at the end."""
    writing = [Writing(store, number) for number, store in enumerate(store for store in stores for _ in range(4))]
    async with anyio.create_task_group() as tasks:
        for each in writing:
            tasks.start_soon(each.run)
        for each in writing:
            await each.goes_on()
        yield writing
        for each in writing:
            each.stopped = True
    for each in writing:
        each.check(await stores[0].read(each.log.id, limit=100_000))


@pytest.mark.parametrize("crash", [False, True])
async def test_a_server_that_is_restarted_keeps_what_was_acknowledged_and_all_go_on(
    running: OwnPostgres, crash: bool
) -> None:
    told: set[str] = set()
    async with AsyncExitStack() as stack:
        stores = [await opened(running.dsn, f"restarted-{crash}") for _ in range(2)]
        for store in stores:
            stack.push_async_callback(store.close)

        async def hear() -> None:
            journal = Journal(stores[1], SystemClock())
            journal.listeners.add(Heard(told))
            await journal.run()

        with anyio.fail_after(LONG_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hear)
                async with busy(stores) as writing:
                    for _ in range(3):
                        await running.stop(crash=crash)
                        await running.start()
                        with anyio.fail_after(SOON_S):
                            for each in writing:
                                await each.goes_on()
                told.clear()
                late = Log("s-late")
                await stores[0].append(late.begin())
                while "s-late" not in told:  # noqa: ASYNC110 - the journal wakes nobody for this
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()


class Heard:
    """Remembers which sessions others wrote to."""

    def __init__(self, told: set[str]) -> None:
        self._told = told

    def heard(self, session_ids: Any) -> None:
        self._told.update(session_ids)

    def recorded(self, append: Append, lasted_s: float) -> None:
        pass

    def lagged(self, lag_s: float) -> None:
        pass


# ── a log that is shorter than somebody knew, as after a failover to a server that had not got everything ──


async def test_a_turn_goes_on_in_a_log_that_lost_its_last_deltas(running: OwnPostgres) -> None:
    """Their places stay empty: others may have read them."""
    store = await opened(running.dsn, "lost-deltas")
    with anyio.fail_after(LONG_S):
        journal = await saying(store)
        async with journal.tail("s-1") as tail:
            for _ in range(5):
                await journal.record("s-1", lambda _: [e.TextDelta(text="x")])
            told = tail.session.seq
            await lose(running.dsn, after=3)
            session = await journal.record("s-1", lambda _: [e.TextComplete(text="x" * 5)])
            assert session.seq == told + 1
        assert [recorded.seq for recorded in await store.read("s-1")] == [1, 2, told + 1]
        assert await store.load("s-1") == session
        await store.close()


async def test_who_lost_deltas_does_not_go_on_past_somebody_who_went_on_without_them(running: OwnPostgres) -> None:
    store = await opened(running.dsn, "taken-over")
    with anyio.fail_after(LONG_S):
        journal = await saying(store)
        async with journal.tail("s-1") as tail:
            for _ in range(5):
                await journal.record("s-1", lambda _: [e.TextDelta(text="x")])
            await lose(running.dsn, after=2)
            other = Log()
            other.session = await store.load("s-1")
            await store.append(other.next(e.SettingsChanged(title="other")))
            titles: list[str] = []

            def decide(session: Session) -> list[e.Event]:
                titles.append(session.title)
                return [e.TextComplete(text="x")]

            await journal.record("s-1", decide)
            assert titles == ["", "other"]
            types = [recorded.type for recorded in await store.read("s-1")]
            assert types == ["session_created", "turn_started", "settings_changed", "text_complete"]
            assert tail.session == await store.load("s-1")
        await store.close()


async def saying(store: PostgresStore) -> Journal:
    """A journal with a turn in it."""
    journal = Journal(store, SystemClock())
    await journal.create("s-1", [e.SessionCreated(settings=Settings()), STARTED])
    return journal


async def lose(dsn: str, *, after: int) -> None:
    """Have what came after this seq never been there."""
    async with stranger(dsn) as connection:
        await connection.execute(f"DELETE FROM events WHERE seq > {after}; UPDATE sessions SET seq = {after}")


@asynccontextmanager
async def stranger(dsn: str) -> AsyncGenerator[Any]:
    connection: Any = await asyncpg.connect(dsn, server_settings={"search_path": "meerkat"})
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_server_that_is_away_for_long_is_said_and_used_again_when_it_is_back(
    running: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "PATIENCE_S", 0.3)
    store = await opened(running.dsn, "away")
    log = Log()
    await store.append(log.begin())
    await running.stop()
    with anyio.fail_after(LONG_S):
        for ask in (partial(store.append, log.text("lost")), partial(store.read, "s-1"), store.config):
            with pytest.raises(StoreUnavailable, match=r"cannot be reached|shutting down") as refused:
                await ask()
            assert refused.value.retryable
        await running.start()
        log.session = await store.load("s-1")
        await store.append(log.text("kept"))
        assert [recorded.seq for recorded in await store.read("s-1")] == [1, 2]
        await store.close()


async def test_a_server_without_a_connection_left_says_so_and_what_helps(server: OwnPostgres) -> None:
    await server.start(max_connections=6, superuser_reserved_connections=1)
    taken: list[Any] = []
    try:
        store = await opened(server.dsn, "crowded", connections=2)
        await store.append(Log().begin())
        with anyio.fail_after(LONG_S), suppress(asyncpg.TooManyConnectionsError):
            while True:
                taken.append(await asyncpg.connect(server.dsn))
        for ask in (partial(opened, server.dsn, "other"), partial(gathered, store)):
            with anyio.fail_after(LONG_S), pytest.raises(StoreUnavailable, match="no connection left") as refused:
                await ask()
            assert "max_connections" in refused.value.hint
        for connection in taken:
            await connection.close()
        assert len(await store.read("s-1")) == 1
        await store.close()
    finally:
        await server.stop()


async def gathered(store: PostgresStore) -> None:
    """Need as many connections as a store may have."""
    refused: list[StoreUnavailable] = []

    async def ask() -> None:
        try:
            await store._server.rows("SELECT pg_sleep(0.2)")
        except StoreUnavailable as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(ask)
    raise refused[0]


async def test_a_server_that_is_too_old_is_refused_naming_both_versions(
    open_postgres: OpenPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "OLDEST", 990000)
    with pytest.raises(StoreUnavailable, match=r"has version \d+.*; 99 is the oldest") as refused:
        await open_postgres()
    assert "Update the server" in refused.value.hint


# ── a wire that breaks ──


@pytest.fixture
async def wire() -> AsyncGenerator[Wire]:
    async with wired("127.0.0.1", 5432) as wire:
        yield wire


async def test_connections_cut_in_mid_append_lose_and_double_nothing(
    open_postgres: OpenPostgres, postgres_dsn: str, wire: Wire
) -> None:
    store = await open_postgres(dsn=wire.through(postgres_dsn))
    with anyio.fail_after(LONG_S):
        async with busy([store]) as writing:
            for number in range(12):
                if number % 2:
                    wire.swallow_answers = True
                else:
                    await wire.sever()
                for each in writing:
                    await each.goes_on()
    assert wire.carried > 12


async def test_what_a_journal_records_over_a_wire_that_breaks_is_there_once(
    open_postgres: OpenPostgres, postgres_dsn: str, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer has no second try here: the journal itself finds out what became of an append."""
    monkeypatch.setattr(postgres_writer, "TRIES_MAX", 1)
    store = await open_postgres(dsn=wire.through(postgres_dsn))
    journal = Journal(store, SystemClock())
    session = await journal.create("s-1", [e.SessionCreated(settings=Settings())])
    with anyio.fail_after(LONG_S):
        for number in range(10):
            wire.swallow_answers = True
            session = await journal.record("s-1", lambda _, number=number: [e.SettingsChanged(title=str(number))])
            assert not wire.swallow_answers
    titles = [recorded.event.title for recorded in await store.read("s-1", after=1)]  # type: ignore[union-attr]
    assert titles == [str(number) for number in range(10)]
    assert await store.load("s-1") == session


async def test_a_wire_that_stalls_is_said_within_a_bound_and_nothing_hangs(
    open_postgres: OpenPostgres, postgres_dsn: str, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_library, "CONNECT_S", 0.5)
    monkeypatch.setattr(postgres_library, "ANSWER_S", 0.6)
    monkeypatch.setattr(postgres_server, "ANSWER_S", 0.6)
    monkeypatch.setattr(postgres_writer, "ANSWER_S", 0.6)
    monkeypatch.setattr(postgres_server, "PATIENCE_S", 0.3)
    monkeypatch.setattr(postgres_writer, "WRITE_S", 1.5)
    store = await open_postgres(dsn=wire.through(postgres_dsn))
    log = Log()
    await store.append(log.begin())
    before = log.session
    wire.stall()
    asked = (
        partial(store.append, log.text("lost")),
        partial(store.append, log.text("lost too")),
        partial(store.read, "s-1"),
        partial(store.sessions, Selection(query="needle")),
        partial(store.put_config, {}, expected=None),
        partial(store.take, ready_before_ms=1, until_ms=1, now_ms=1, limit=1),
        store.changes().__anext__,
        partial(open_postgres, dsn=wire.through(postgres_dsn)),
    )
    refusals: list[StoreUnavailable] = []

    async def one(ask: Any) -> None:
        with pytest.raises(StoreUnavailable) as refused:
            await ask()
        refusals.append(refused.value)

    begun_s = anyio.current_time()
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for ask in asked:
                tasks.start_soon(one, ask)
        assert anyio.current_time() - begun_s < SOON_S
        assert len(refusals) == len(asked)
        for refusal in refusals:
            assert refusal.hint
            assert "127.0.0.1" not in str(refusal.as_dict())
        await wire.sever()
        await wire.mend()
        log.session = await store.load("s-1")
        assert before.seq <= log.session.seq <= before.seq + 2
        await store.append(log.text("after it"))
        await store.close()


async def test_a_store_is_closed_soon_while_its_wire_stalls(
    open_postgres: OpenPostgres, postgres_dsn: str, wire: Wire
) -> None:
    store = await open_postgres(dsn=wire.through(postgres_dsn))
    await store.append(Log().begin())
    wire.stall()
    with anyio.fail_after(SOON_S):
        await store.close()


async def test_a_read_that_is_cancelled_while_its_wire_stalls_ends_and_hands_its_place_on(
    open_postgres: OpenPostgres, postgres_dsn: str, wire: Wire
) -> None:
    store = await open_postgres(dsn=wire.through(postgres_dsn), connections=1)
    log = Log()
    await store.append(log.begin())
    await store.load("s-1")
    wire.stall()
    with anyio.fail_after(SOON_S):
        for _ in range(3):
            with anyio.move_on_after(0.1):
                await store.load("s-1")
        await wire.mend()
        assert await store.load("s-1") == log.session
