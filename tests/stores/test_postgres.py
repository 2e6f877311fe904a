"""What is special about PostgreSQL: processes on one database, broken connections, clocks, versions, and refusals.

What every store promises is in `test_contract.py`.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest
from anyio.abc import Process
from stores.conftest import Log, OpenPostgres, told_postgres
from stores.cutting import Wire, wired
from stores.test_sqlite import APPEND_UNTIL_KILLED, RACE, WRITE_FLAT_OUT, Lines, tell

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import Corrupt, Internal, MeerkatError, SessionNotFound, StoreUnavailable
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.domain.recorded import encode
from meerkat_mcp.sessions.clock import SystemClock
from meerkat_mcp.sessions.journal import Journal
from meerkat_mcp.stores import (
    postgres_bell,
    postgres_filling,
    postgres_library,
    postgres_listing,
    postgres_server,
    postgres_statements,
    postgres_values,
    postgres_writer,
)
from meerkat_mcp.stores.base import Append, Claim, KeyTaken, Selection, SequenceConflict, Stream, found_by
from meerkat_mcp.stores.postgres import PostgresStore
from meerkat_mcp.stores.postgres_library import translated

pytestmark = pytest.mark.anyio

LONG_S = 60
KNOWN = len(postgres_server._MIGRATIONS)
ROOT = Path(postgres_server.__file__).parents[2]
HOUR_MS = 3_600_000

IN_ANOTHER_PROCESS = """
import sys, time
sys.path[:0] = [{root!r}, {tests!r}]
import anyio
from stores.conftest import Log
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.stores.base import SequenceConflict
from meerkat_mcp.stores.postgres import PostgresStore
del sys.argv[2:]

def say(*what):
    print(*what, flush=True)

async def heard():
    return await anyio.to_thread.run_sync(sys.stdin.readline)

async def main(store):
{body}

async def run():
    store = await PostgresStore.open({dsn!r}, {realm!r}, clock_ms=lambda: time.time_ns() // 1_000_000)
    await main(store)
    await store.close()

anyio.run(run)
"""


@asynccontextmanager
async def another_process(dsn: str, realm_id: str, body: str) -> AsyncIterator[tuple[Process, Lines]]:
    """Run `body`, which has a `store`, in a process of its own; gives it and the lines it says."""
    body = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    script = IN_ANOTHER_PROCESS.format(root=str(ROOT), tests=str(ROOT / "tests"), body=body, dsn=dsn, realm=realm_id)
    process = await anyio.open_process([sys.executable, "-c", script], stderr=None)
    try:
        yield process, Lines(process)
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


async def begun(store: PostgresStore, session_id: str = "s-1", **how: Any) -> Log:
    log = Log(session_id)
    await store.append(log.begin(**how))
    return log


@pytest.fixture
async def empty_dsn(postgres_dsn: str) -> AsyncIterator[str]:
    """A database in which no realm was opened yet."""
    name = f"meerkat_test_{time.time_ns()}"
    await told_postgres(postgres_dsn, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    yield f"{postgres_dsn.rpartition('/')[0]}/{name}"
    await told_postgres(postgres_dsn, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def a_stranger(dsn: str) -> AsyncIterator[Any]:
    """A connection of a program that knows nothing of us."""
    connection: Any = await asyncpg.connect(dsn, server_settings={"search_path": "meerkat"})
    try:
        yield connection
    finally:
        connection.terminate()


async def until(condition: Callable[[], Any]) -> None:
    """Come back when `condition`, a coroutine function, gives something true."""
    with anyio.fail_after(LONG_S):
        while not await condition():  # noqa: ASYNC110 - the server tells nobody of this
            await anyio.sleep(0.01)


async def terminate(dsn: str, pid: int | None = None) -> None:
    """Have the server end our connections to it, or the one with this pid, and wait for that."""
    which = "pid <> pg_backend_pid()" if pid is None else f"pid = {pid}"
    await told_postgres(
        dsn,
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND {which}",
    )


def writer_pid(store: PostgresStore) -> int:
    assert store.writer._predecessor is not None
    return store.writer._predecessor[0]


# ── several processes ──


async def test_two_processes_that_write_one_log_each_win_their_own_places(
    open_postgres: OpenPostgres, postgres_dsn: str
) -> None:
    store = await open_postgres("race")
    await begun(store)
    with anyio.fail_after(LONG_S):
        async with (
            another_process(postgres_dsn, "race", RACE) as (one, ones),
            another_process(postgres_dsn, "race", RACE) as (other, others),
        ):
            names = [await ones.next(), await others.next()]
            await tell(one)
            await tell(other)
            won = [[int(seq) for seq in await lines.rest()] for lines in (ones, others)]
    events = await store.read("s-1", after=1)
    assert [recorded.seq for recorded in events] == list(range(2, 122))
    for name, seqs in zip(names, won, strict=True):
        assert [recorded.seq for recorded in events if f'"text":"{name}"'.encode() in recorded.body] == seqs
        assert len(seqs) == 60


async def test_processes_that_write_side_by_side_lose_nothing(open_postgres: OpenPostgres, postgres_dsn: str) -> None:
    with anyio.fail_after(LONG_S):
        async with (
            another_process(postgres_dsn, "flat-out", WRITE_FLAT_OUT) as (one, _),
            another_process(postgres_dsn, "flat-out", WRITE_FLAT_OUT) as (other, _),
        ):
            assert await one.wait() == 0
            assert await other.wait() == 0
    store = await open_postgres("flat-out")
    sessions = await store.sessions(Selection())
    assert len(sessions) == 16
    for session in sessions:
        assert [recorded.seq for recorded in await store.read(session.id)] == list(range(1, 52))


async def test_a_process_killed_in_mid_append_loses_nothing_that_was_acknowledged(
    open_postgres: OpenPostgres, postgres_dsn: str
) -> None:
    with anyio.fail_after(LONG_S):
        async with another_process(postgres_dsn, "killed", APPEND_UNTIL_KILLED) as (process, lines):
            while int(await lines.next()) < 100:
                pass
            process.kill()
            acknowledged = [int(line) for line in (await lines.rest())[:-1] or ["100"]]
    store = await open_postgres("killed")
    seqs = [recorded.seq for recorded in await store.read("s-1")]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= acknowledged[-1] >= 100
    log = Log()
    log.session = await store.load("s-1")
    await store.append(log.text("after it"))


@pytest.mark.parametrize("listen", [True, False])
async def test_a_process_hears_what_another_one_records(
    open_postgres: OpenPostgres, postgres_dsn: str, listen: bool
) -> None:
    realm_id = f"hears-{listen}"
    store = await open_postgres(realm_id, listen=listen)
    assert store.mechanisms["bell"] == ("notify" if listen else "poll")
    write = "for number in range(3):\n    await heard()\n    await store.append(Log(f's-{number}').begin())"
    with anyio.fail_after(LONG_S):
        async with another_process(postgres_dsn, realm_id, write) as (process, _):
            told = store.changes()
            for number in range(3):
                await tell(process)
                assert set(await anext(told)) == {f"s-{number}"}


async def test_opposite_orders_of_sessions_and_keys_do_not_lock_each_other(open_postgres: OpenPostgres) -> None:
    one, other = await open_postgres(), await open_postgres()
    outcomes: list[type[Exception] | None] = []

    async def write(store: PostgresStore, append: Append) -> None:
        try:
            await store.append(append)
            outcomes.append(None)
        except (KeyTaken, SequenceConflict) as refusal:
            outcomes.append(type(refusal))

    with anyio.fail_after(LONG_S):
        for round_ in range(20):
            async with anyio.create_task_group() as tasks:
                for store, numbers in ((one, range(8)), (other, range(7, -1, -1))):
                    for number in numbers:
                        log = Log(f"s-{round_}-{number}")
                        key = Claim(f"{round_} {7 - number}", "d", log.id, "t", 1)
                        tasks.start_soon(write, store, replace(log.begin(), claim=key))
    assert outcomes.count(None) == outcomes.count(KeyTaken) == 160


# ── what is new ──


async def test_what_nobody_rang_for_is_found_by_looking(open_postgres: OpenPostgres) -> None:
    store, other = await open_postgres(), await open_postgres()
    silent = postgres_writer.Writer(
        other._server, other.realm, other.name, lambda *_: None
    )  # as one who dies before it rings
    with anyio.fail_after(LONG_S):
        told = store.changes()
        await begun(other, "s-heard")
        assert set(await anext(told)) == {"s-heard"}
        begun_s = anyio.current_time()
        await silent.append(Log("s-silent").begin())
        assert set(await anext(told)) == {"s-silent"}
        assert anyio.current_time() - begun_s < postgres_bell.LOOK_INTERVAL_S + 5
        await silent.close()


async def test_a_ring_is_heard_long_before_the_next_look(open_postgres: OpenPostgres) -> None:
    store, other = await open_postgres(), await open_postgres()
    log, waits_s = await begun(other), list[float]()
    with anyio.fail_after(LONG_S):
        told = store.changes()
        await anext(told)
        for _ in range(15):
            await other.append(log.text())
            begun_s = anyio.current_time()
            assert set(await anext(told)) == {"s-1"}
            waits_s.append(anyio.current_time() - begun_s)
    assert sorted(waits_s)[7] < postgres_bell.LOOK_INTERVAL_S / 5


async def test_a_commit_that_comes_late_is_told_of_whatever_came_before_it(
    open_postgres: OpenPostgres, postgres_dsn: str
) -> None:
    """Its transaction began first, so that its number is lower than what was already told."""
    store, other = await open_postgres(listen=False), await open_postgres()
    await begun(other, "s-late")
    number = "SELECT number FROM sessions WHERE realm = $1 AND id = $2"
    with anyio.fail_after(LONG_S):
        told = store.changes()
        assert set(await anext(told)) == {"s-late"}
        async with a_stranger(postgres_dsn) as late:
            session = await late.fetchval(number, store.realm, "s-late")
            await late.execute("BEGIN")
            await late.execute(
                "INSERT INTO events VALUES ($1, 2, pg_current_xact_id(), 7, $2, 'text_complete', '')",
                session,
                store.realm,
            )
            for count in range(3):
                await begun(other, f"s-{count}")
                assert set(await anext(told)) == {f"s-{count}"}
            await late.execute("COMMIT")
        assert set(await anext(told)) == {"s-late"}
        await begun(other, "s-9")
        assert set(await anext(told)) == {"s-9"}


async def test_events_from_a_restored_dump_are_not_told_of_again_and_again(
    open_postgres: OpenPostgres, postgres_dsn: str
) -> None:
    """In it they have the transactions of another server, perhaps from this one's future."""
    first = await open_postgres()
    await begun(first, "s-restored")
    async with a_stranger(postgres_dsn) as stranger:
        await stranger.execute("UPDATE events SET tx = '9000000000000' WHERE realm = $1", first.realm)
    store = await open_postgres(listen=False)
    with anyio.fail_after(LONG_S):
        told = store.changes()
        for number in range(3):
            await begun(first, f"s-{number}")
            assert set(await anext(told)) == {f"s-{number}"}


async def test_nonsense_on_the_channel_harms_nobody(open_postgres: OpenPostgres, postgres_dsn: str) -> None:
    store, other = await open_postgres(), await open_postgres()
    with anyio.fail_after(LONG_S):
        told = store.changes()
        await begun(other, "s-1")
        assert set(await anext(told)) == {"s-1"}
        for nonsense in ("", "{", "7", "[1]", '["a", [[1, 2]]]', '[1, [["x", ["s-1"]]]]'):
            await told_postgres(postgres_dsn, f"SELECT pg_notify('meerkat_{store.realm}', '{nonsense}')")
        await begun(other, "s-2")
        assert set(await anext(told)) == {"s-2"}


async def test_many_sessions_with_long_names_fit_into_notifications(open_postgres: OpenPostgres) -> None:
    store, other = await open_postgres(), await open_postgres()
    names = {f"{number:03}-{'ü' * 150}" for number in range(300)}
    told: set[str] = set()
    with anyio.fail_after(LONG_S):
        changes = store.changes()
        await begun(other, "first")
        assert set(await anext(changes)) == {"first"}
        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(begun, other, name)
        while told != names:
            told |= set(await anext(changes))


async def test_realms_in_one_database_do_not_see_each_other(open_postgres: OpenPostgres) -> None:
    one, other = await open_postgres("here"), await open_postgres("there")
    key, owner = Claim("key", "d", "s-1", "t", 1), instance()
    log = Log()
    await one.append(log.next(e.SessionCreated(settings=log.session.settings, labels={"k": "v"}), claim=key))
    await one.put_stream(Stream(stream_id="evt-1", session_id="s-1", after_seq=0, used_ms=1))
    await one.put_config({"a": 1}, expected=0)
    await one.renew(owner)
    assert await other.read("s-1") == await other.sessions(Selection()) == await other.matching("s", limit=9) == []
    assert await other.sessions(Selection(labels={"k": "v"})) == []
    assert await other.claim("key") is await other.stream("evt-1") is None
    assert (await other.config()).generation == 0
    assert not await other.alive(owner.incarnation, now_ms=now_ms())
    assert await other.prune_streams(used_before_ms=9) == 0
    await other.delete("s-1")
    assert await one.read("s-1") == log.events
    theirs = Log()
    await other.append(theirs.next(e.SessionCreated(settings=theirs.session.settings, title="other"), claim=key))
    third = await open_postgres("here")
    with anyio.fail_after(LONG_S):
        await begun(other, "s-2")
        await begun(one, "s-3")
        assert set(await anext(third.changes())) == {"s-3"}


# ── one writer ──


@asynccontextmanager
async def held(dsn: str, store: PostgresStore, session_id: str = "s-1") -> AsyncIterator[Any]:
    """A stranger who holds the lock of a session."""
    async with a_stranger(dsn) as stranger:
        await stranger.execute("BEGIN")
        await stranger.execute(
            "SELECT 1 FROM sessions WHERE realm = $1 AND id = $2 FOR UPDATE", store.realm, session_id
        )
        yield stranger


async def waits(dsn: str, pid: int) -> bool:
    """Whether a connection waits for a lock."""
    rows = await told_postgres(dsn, f"SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {pid}")
    return bool(rows and rows[0][0])


async def test_what_waits_together_is_committed_together(postgres: PostgresStore, postgres_dsn: str) -> None:
    logs = [await begun(postgres, f"s-{number}") for number in range(100)]
    before = postgres.writer.commits
    with anyio.fail_after(LONG_S):
        async with held(postgres_dsn, postgres, "s-0") as stranger, anyio.create_task_group() as tasks:
            tasks.start_soon(postgres.append, logs[0].text())
            await until(partial(waits, postgres_dsn, writer_pid(postgres)))
            for log in logs:
                tasks.start_soon(postgres.append, log.text())
            await anyio.wait_all_tasks_blocked()
            await stranger.execute("COMMIT")
    assert postgres.writer.commits == before + 2
    for log in logs:
        assert await postgres.read(log.id) == log.events


@pytest.mark.parametrize("level", ["on", "off", "remote_apply"])
async def test_every_event_waits_for_the_disk(postgres: PostgresStore, postgres_dsn: str, level: str) -> None:
    """What the server waits for by itself is not made less, but where that is nothing. Pieces of text wait, too: their
    numbers are seen, and a database that crashed would give them again.
    """
    log = await begun(postgres)
    found: list[str] = []
    async with a_stranger(postgres_dsn) as stranger:
        await stranger.execute(f"SET synchronous_commit = {level}")
        for append in (log.text(), log.delta()):
            async with stranger.transaction():
                await stranger.fetch(*statement(postgres, append))
                found.append(await stranger.fetchval("SHOW synchronous_commit"))
    assert found == ["on" if level == "off" else level] * 2


def statement(store: PostgresStore, append: Append) -> Sequence[Any]:
    """The statement that adds this append, and its parameters."""
    arguments = postgres_values.arguments(store.realm, [append])
    return (postgres_writer._APPEND, store.realm, store.name, *arguments)


async def test_events_out_of_order_do_not_get_in(postgres: PostgresStore) -> None:
    log, other = await begun(postgres), await begun(postgres, "s-2")
    append = log.next(*(e.TextComplete(text=text) for text in "abc"))
    first, second, third = append.events
    outcomes: list[type[Exception]] = []

    async def write() -> None:
        try:
            await postgres.append(replace(append, events=[first, third, second]))
        except Corrupt as error:
            outcomes.append(type(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        tasks.start_soon(postgres.append, other.text())
    assert outcomes == [Corrupt]
    assert len(await postgres.read("s-1")) == 1
    assert await postgres.read("s-2") == other.events


async def test_a_session_that_somebody_locks_is_said_and_holds_up_nobody_else(
    postgres: PostgresStore, postgres_dsn: str
) -> None:
    locked, free = await begun(postgres, "s-locked"), await begun(postgres, "s-free")
    before, refusals = list(locked.events), list[MeerkatError]()

    async def write() -> None:
        try:
            await postgres.append(locked.text())
        except MeerkatError as error:
            refusals.append(error)

    with anyio.fail_after(LONG_S):
        async with held(postgres_dsn, postgres, "s-locked"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                tasks.start_soon(postgres.append, free.text())
            assert await postgres.read("s-locked") == before  # reading waits for no lock
    assert [(error.code, error.message) for error in refusals] == [
        ("store_unavailable", "The realm's PostgreSQL is locked by somebody else.")
    ]
    assert await postgres.read("s-free") == free.events
    assert await postgres.read("s-locked") == before


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(postgres: PostgresStore) -> None:
    await postgres._server.rows_once("SELECT set_config('statement_timeout', '50ms', false)")
    with pytest.raises(StoreUnavailable, match="took too long") as refused:
        await postgres._server.rows_once("SELECT pg_sleep(30)")
    assert refused.value.hint


# ── connections that break ──


async def test_after_its_connections_were_ended_a_store_goes_on(postgres: PostgresStore, postgres_dsn: str) -> None:
    log = await begun(postgres)
    for _ in range(3):
        await terminate(postgres_dsn)
        await postgres.append(log.text())
        await terminate(postgres_dsn)
        assert await postgres.read("s-1") == log.events
        assert await postgres.load("s-1") == log.session
    for generation in range(3):
        await terminate(postgres_dsn)
        await postgres.put_config({"a": 1}, expected=generation)
        await terminate(postgres_dsn)
        await postgres.delete("s-1")
    assert await postgres.read("s-1") == []


async def test_an_append_whose_connection_is_ended_while_it_waits_enters_once(
    postgres: PostgresStore, postgres_dsn: str
) -> None:
    log = await begun(postgres)
    with anyio.fail_after(LONG_S):
        async with held(postgres_dsn, postgres) as stranger, anyio.create_task_group() as tasks:
            tasks.start_soon(postgres.append, log.text())
            pid = writer_pid(postgres)
            await until(partial(waits, postgres_dsn, pid))
            await terminate(postgres_dsn, pid)
            await stranger.execute("COMMIT")
    assert writer_pid(postgres) != pid
    assert await postgres.read("s-1") == log.events


async def test_who_listens_goes_on_when_the_connection_is_ended(open_postgres: OpenPostgres, postgres_dsn: str) -> None:
    store, other = await open_postgres(), await open_postgres()
    with anyio.fail_after(LONG_S):
        told = store.changes()
        for number in range(4):
            await begun(other, f"s-{number}")
            assert set(await anext(told)) == {f"s-{number}"}
            await terminate(postgres_dsn)


async def test_who_follows_a_session_misses_nothing_when_all_connections_are_ended(
    open_postgres: OpenPostgres, postgres_dsn: str
) -> None:
    store, other = await open_postgres(), await open_postgres()
    log, seen = await begun(other), list[int]()
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            journal = Journal(store, SystemClock())
            tasks.start_soon(journal.run)
            async with journal.follow("s-1", after=0) as follower:
                for number in range(30):
                    if number % 10 == 5:
                        await terminate(postgres_dsn)
                    await other.append(log.text())
                    if number % 3 == 0:
                        seen += [recorded.seq for recorded in await follower.next()]
                while len(seen) < 31:
                    seen += [recorded.seq for recorded in await follower.next()]
            tasks.cancel_scope.cancel()
    assert seen == list(range(1, 32))


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with wired("127.0.0.1", 5432) as wire:
        yield wire


async def test_an_append_whose_answer_was_lost_enters_once(
    open_postgres: OpenPostgres, postgres_dsn: str, wire: Wire
) -> None:
    store = await open_postgres(dsn=wire.through(postgres_dsn))
    log = await begun(store)
    with anyio.fail_after(LONG_S):
        for number in range(5):
            wire.swallow_answers = True
            claim = Claim(f"key {number}", "d", "s-1", "t", 1)
            await store.append(log.next(e.TextComplete(text=str(number)), claim=claim))
            assert not wire.swallow_answers
    assert await store.read("s-1") == log.events
    assert await store.load("s-1") == log.session


async def test_a_short_outage_is_waited_for(open_postgres: OpenPostgres, postgres_dsn: str, wire: Wire) -> None:
    store = await open_postgres(dsn=wire.through(postgres_dsn))
    log, read = await begun(store), list[Any]()

    async def reading() -> None:
        read.append(await store.load("s-1"))

    with anyio.fail_after(LONG_S):
        await wire.cut()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reading)
            tasks.start_soon(store.append, log.text())
            await anyio.sleep(0.5)  # longer than a few attempts
            await wire.mend()
    assert len(read) == 1
    assert await store.read("s-1") == log.events


async def test_a_long_outage_is_said_without_saying_where_and_ends(
    open_postgres: OpenPostgres, postgres_dsn: str, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "PATIENCE_S", 0.2)
    store = await open_postgres(dsn=wire.through(postgres_dsn))
    log = await begun(store)
    await wire.cut()
    before = log.session
    with anyio.fail_after(LONG_S):
        for ask in (partial(store.append, log.text()), partial(store.load, "s-1"), store.changes().__anext__):
            with pytest.raises(StoreUnavailable, match="cannot be reached") as refused:
                await ask()
            assert refused.value.hint
            assert refused.value.retryable
            assert "127.0.0.1" not in str(refused.value.as_dict())
        await wire.mend()
        log.session = before
        await store.append(log.text("after it"))
        assert b"after it" in (await store.read("s-1"))[-1].body


async def test_closing_does_not_wait_for_a_server_that_is_gone(
    open_postgres: OpenPostgres, postgres_dsn: str, wire: Wire
) -> None:
    store = await open_postgres(dsn=wire.through(postgres_dsn))
    log, refusals = await begun(store), list[MeerkatError]()

    async def write() -> None:
        try:
            await store.append(log.text())
        except MeerkatError as error:
            refusals.append(error)

    await wire.cut()
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.2, shield=True):
                await store.close()
        await store.close()
    assert [error.code for error in refusals] == ["store_unavailable"]


async def test_a_cancelled_read_leaves_its_connection_to_others(open_postgres: OpenPostgres) -> None:
    store = await open_postgres(connections=1)
    log = await begun(store)
    with anyio.fail_after(LONG_S):
        for _ in range(20):
            with anyio.move_on_after(0.01):
                await store._server.rows("SELECT pg_sleep(20)")
        assert await store.read("s-1") == log.events


async def test_no_more_connections_than_allowed_are_used(open_postgres: OpenPostgres, empty_dsn: str) -> None:
    store = await open_postgres(dsn=empty_dsn, connections=3)
    log = await begun(store)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(store.read, log.id)
            for number in range(100):
                tasks.start_soon(begun, store, f"s-x{number}")
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert (await told_postgres(empty_dsn, count))[0][0] <= 4
    await store.close()


# ── who may not in, and what is not as it should be ──


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("/meerkat_test", "/no_such_database_"), "no such database"),
        (("//postgres@", "//nobody_at_all:tell-no-one@"), "does not know this user or password"),
        ((":5432", ":1"), "cannot be reached"),
        (("127.0.0.1", "no-such-host.invalid"), "cannot be reached"),
        (("postgresql://", "mysql://"), "cannot be understood"),
        ((":5432", ":tell-no-one"), "cannot be understood"),
    ],
)
async def test_why_a_database_cannot_be_used_is_said_without_saying_where_it_is(
    open_postgres: OpenPostgres, postgres_dsn: str, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(StoreUnavailable, match=message) as refused:
        await open_postgres(dsn=postgres_dsn.replace(*change))
    assert refused.value.hint
    told = f"{refused.value.as_dict()} {refused.value.__cause__}"
    for secret in ("tell-no-one", "127.0.0.1", "no-such-host", "nobody_at_all", "no_such_database"):
        assert secret not in told


@asynccontextmanager
async def a_server_that_says(*messages: bytes) -> AsyncIterator[str]:
    """Something at a port that answers whoever comes with this, and then nothing."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if (await reader.readexactly(8))[4:] == b"\x04\xd2\x16\x2f":  # may we encrypt?
                writer.write(b"N")
                await reader.readexactly(8)
            writer.write(b"".join(messages))
            await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"postgresql://someone:tell-no-one@127.0.0.1:{server.sockets[0].getsockname()[1]}/realm"
    finally:
        server.close()


async def test_a_wrong_password_is_said(open_postgres: OpenPostgres) -> None:
    fields = b"SFATAL\0C28P01\0Mpassword authentication failed for user\0\0"
    async with a_server_that_says(b"E" + (len(fields) + 4).to_bytes(4) + fields) as dsn:
        with pytest.raises(StoreUnavailable, match="does not know this user or password") as refused:
            await open_postgres(dsn=dsn)
    assert "password" in refused.value.hint
    assert "tell-no-one" not in str(refused.value.as_dict())


async def test_a_server_that_does_not_answer_is_given_up(
    open_postgres: OpenPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_library, "CONNECT_S", 0.1)
    with anyio.fail_after(LONG_S):
        async with a_server_that_says() as dsn:
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await open_postgres(dsn=dsn)


async def test_a_database_that_cannot_hold_every_text_is_refused(
    open_postgres: OpenPostgres, postgres_dsn: str
) -> None:
    name = f"meerkat_test_{time.time_ns()}"
    await told_postgres(postgres_dsn, f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(StoreUnavailable, match="encoding SQL_ASCII") as refused:
            await open_postgres(dsn=f"{postgres_dsn.rpartition('/')[0]}/{name}")
        assert "UTF8" in refused.value.hint
    finally:
        await told_postgres(postgres_dsn, f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_database_that_is_read_only_is_said(open_postgres: OpenPostgres, empty_dsn: str) -> None:
    store = await open_postgres(dsn=empty_dsn)
    log = await begun(store)
    name = empty_dsn.rpartition("/")[2]
    await told_postgres(empty_dsn, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await terminate(empty_dsn)
    for ask in (partial(store.append, log.text()), partial(store.put_config, {}, expected=0), open_postgres):
        with pytest.raises(StoreUnavailable, match="is read-only") as refused:
            await (ask(dsn=empty_dsn) if ask is open_postgres else ask())
        assert "primary" in refused.value.hint
    assert len(await store.read("s-1")) == 1
    await store.close()


async def test_who_may_only_read_and_write_the_tables_can_use_a_realm(
    open_postgres: OpenPostgres, empty_dsn: str
) -> None:
    role = f"meerkat_test_{time.time_ns()}"
    await told_postgres(empty_dsn, f"CREATE ROLE {role} LOGIN")
    theirs = empty_dsn.replace("//postgres@", f"//{role}@")
    try:
        with pytest.raises(StoreUnavailable, match="may not do that") as refused:
            await open_postgres(dsn=theirs)
        assert "USAGE" in refused.value.hint
        await (await open_postgres(dsn=empty_dsn)).close()
        await told_postgres(
            empty_dsn,
            f"GRANT USAGE ON SCHEMA meerkat TO {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA meerkat TO {role}",
        )
        store = await open_postgres(dsn=theirs)
        log = await begun(store, labels={"k": "v"})
        await store.append(log.text())
        await terminate(empty_dsn, writer_pid(store))
        await store.append(log.text())
        assert await store.read("s-1") == log.events
        await store.delete("s-1")
        await store.close()
    finally:
        await told_postgres(empty_dsn, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_a_schema_of_another_program_is_refused_and_left_alone(
    open_postgres: OpenPostgres, empty_dsn: str
) -> None:
    await told_postgres(empty_dsn, "CREATE SCHEMA meerkat", "CREATE TABLE meerkat.recipes (name text)")
    with pytest.raises(Corrupt, match="another program's"):
        await open_postgres(dsn=empty_dsn)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'meerkat'"
    assert [row[0] for row in await told_postgres(empty_dsn, tables)] == ["recipes"]


async def test_a_database_from_the_future_is_refused_naming_both_versions(
    open_postgres: OpenPostgres, empty_dsn: str
) -> None:
    store = await open_postgres(dsn=empty_dsn)
    log = await begun(store)
    await told_postgres(
        empty_dsn,
        "UPDATE meerkat.version SET number = 99",
        "ALTER FUNCTION meerkat.append RENAME TO append_99",
    )
    for ask in (partial(open_postgres, dsn=empty_dsn), partial(store.append, log.text())):
        with pytest.raises(StoreUnavailable, match=rf"version 99.* up to {KNOWN}") as refused:
            await ask()
        assert "Update" in refused.value.hint
        assert refused.value.facts == {"version": 99, "known": KNOWN}
    await store.close()


async def test_processes_that_open_a_new_database_together_migrate_it_once(
    open_postgres: OpenPostgres, empty_dsn: str
) -> None:
    body = "say('open')\nawait store.append(Log(f's-{time.time_ns()}').begin())"
    with anyio.fail_after(LONG_S):
        async with (
            another_process(empty_dsn, "new", body) as (one, _),
            another_process(empty_dsn, "new", body) as (other, _),
        ):
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(partial(open_postgres, "new", dsn=empty_dsn))
            assert await one.wait() == 0
            assert await other.wait() == 0
    store = await open_postgres("new", dsn=empty_dsn)
    assert len(await store.sessions(Selection())) == 2
    assert (await told_postgres(empty_dsn, "SELECT count(*) FROM meerkat.realms"))[0][0] == 1
    assert [row[0] for row in await told_postgres(empty_dsn, "SELECT number FROM meerkat.version")] == [KNOWN]


async def test_migrations_are_applied_in_order_once_or_not_at_all(
    open_postgres: OpenPostgres, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_postgres(dsn=empty_dsn)
    log = await begun(store)
    await store.close()
    with monkeypatch.context() as patch:
        faulty = "DROP FUNCTION erase; INSERT INTO nowhere VALUES (1);"
        patch.setattr(postgres_server, "_MIGRATIONS", (*postgres_server._MIGRATIONS, faulty))
        with pytest.raises(MeerkatError):
            await open_postgres(dsn=empty_dsn)
    later = ("CREATE TABLE added (x int); INSERT INTO added VALUES (1);", "UPDATE added SET x = x + 1;")
    monkeypatch.setattr(postgres_server, "_MIGRATIONS", postgres_server._MIGRATIONS + later)
    for _ in range(2):
        store = await open_postgres(dsn=empty_dsn)
        assert await store.read("s-1") == log.events
        await store.close()
    assert [tuple(row) for row in await told_postgres(empty_dsn, "SELECT x FROM meerkat.added")] == [(2,)]
    monkeypatch.undo()
    with pytest.raises(StoreUnavailable, match=rf"version {KNOWN + 2}"):
        await open_postgres(dsn=empty_dsn)


async def test_a_session_that_contradicts_itself_is_said(postgres: PostgresStore, postgres_dsn: str) -> None:
    await begun(postgres)
    async with a_stranger(postgres_dsn) as stranger:
        await stranger.execute("UPDATE shown SET body = '{\"id\": 7}' WHERE realm = $1", postgres.realm)
    with pytest.raises(Corrupt, match="s-1"):
        await postgres.load("s-1")


STATES = {
    StoreUnavailable: (
        *("08006", "28P01", "28000", "3D000", "42501", "25006", "53300", "53100", "53200", "55P03", "57014", "57P01"),
        *("57P02", "57P03", "58030", "40P01", "40001", "54000"),
    ),
    Corrupt: ("XX001", "XX002", "42P01", "23505", "22000"),
}


@pytest.mark.parametrize(("kind", "code"), [(kind, code) for kind, codes in STATES.items() for code in codes])
def test_every_error_of_the_server_is_understood(kind: type[Exception], code: str) -> None:
    known = translated(asyncpg.PostgresError.new({"C": code, "M": "what the server says, with a secret"}))
    assert type(known) is kind
    assert known.hint
    assert "secret" not in str(known.as_dict())


def test_misuse_of_the_driver_is_a_bug() -> None:
    assert isinstance(translated(asyncpg.exceptions._base.DataError("an argument")), Internal)


# ── texts that PostgreSQL cannot hold ──


async def test_texts_with_nul_are_kept_and_found(postgres: PostgresStore) -> None:
    log = await begun(postgres, title="a\0title", labels={"k\0": "v\0"})
    key = Claim("k\0ey", "d", "s-1", "t", 1)
    await postgres.append(log.next(e.TextComplete(text="\0"), claim=key))
    assert await postgres.read("s-1") == log.events
    assert await postgres.claim("k\0ey") == key
    assert await postgres.claim("k\ufffdey") is None
    for selection in (Selection(labels={"k\0": "v\0"}), Selection(query="a\0t"), Selection(query="K\0=v")):
        assert await postgres.sessions(selection) == [log.shown]
    assert await postgres.sessions(Selection(labels={"k\ufffd": "v\ufffd"})) == []
    for look in (postgres.load, postgres.delete, postgres.stream, postgres.close_stream, postgres.retire):
        with suppress(SessionNotFound):
            assert not await look("s-1\0")
    assert await postgres.matching("s\0", limit=9) == []


async def test_keys_and_labels_of_any_length_are_kept(postgres: PostgresStore) -> None:
    keys = [
        "k" * postgres_values.INDEXED_MAX,
        "k" * (postgres_values.INDEXED_MAX + 1),
        "ü" * 100_000,
        "ü" * 100_000 + "u",
    ]
    for number, key in enumerate(keys):
        log, claim = Log(f"s-{number}"), Claim(key, "d", f"s-{number}", "t", 1)
        created = e.SessionCreated(settings=log.session.settings, labels={"label": key})
        await postgres.append(log.next(created, claim=claim))
        assert await postgres.claim(key) == claim
    for number, key in enumerate(keys):
        assert [session.id for session in await postgres.sessions(Selection(labels={"label": key}))] == [f"s-{number}"]


# ── deleting ──


async def test_a_deleted_session_leaves_no_row(postgres: PostgresStore, postgres_dsn: str) -> None:
    log = await begun(postgres, labels={"k": "v"})
    await postgres.append(log.next(e.TextComplete(text="x"), claim=Claim("key", "d", "s-1", "t", 1)))
    await postgres.put_stream(Stream(stream_id="evt-1", session_id="s-1", after_seq=0, used_ms=1))
    await postgres.delete("s-1")
    async with a_stranger(postgres_dsn) as stranger:
        for table in ("sessions", "events", "shown", "labels", "claims", "streams"):
            assert await stranger.fetchval(f"SELECT count(*) FROM {table} WHERE realm = $1", postgres.realm) == 0


async def test_deleting_waits_for_an_append_under_way_and_leaves_nothing_of_it(
    postgres: PostgresStore, postgres_dsn: str
) -> None:
    log = await begun(postgres)
    append = log.text()
    with anyio.fail_after(LONG_S):
        async with a_stranger(postgres_dsn) as stranger, anyio.create_task_group() as tasks:
            await stranger.execute("BEGIN")
            await stranger.fetch(*statement(postgres, append))
            tasks.start_soon(postgres.delete, "s-1")
            waiting = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT erase%' AND wait_event_type = 'Lock'"
            await until(lambda: told_postgres(postgres_dsn, waiting))
            await stranger.execute("COMMIT")
    async with a_stranger(postgres_dsn) as stranger:
        assert await stranger.fetchval("SELECT count(*) FROM events WHERE realm = $1", postgres.realm) == 0


# ── instances ──


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def instance(incarnation: str = "life-1", *, expires_ms: int | None = None) -> Instance:
    expires_ms = now_ms() + HOUR_MS if expires_ms is None else expires_ms
    return Instance(instance_id="i", incarnation=incarnation, host="h", pid=1, expires_ms=expires_ms)


@pytest.mark.parametrize("shift_ms", [-10 * HOUR_MS, 10 * HOUR_MS])
async def test_machines_with_different_clocks_agree_on_who_lives(open_postgres: OpenPostgres, shift_ms: int) -> None:
    def shifted_ms() -> int:
        return now_ms() + shift_ms

    store, other = await open_postgres(), await open_postgres(clock_ms=shifted_ms)
    await store.renew(instance("mine", expires_ms=now_ms() + HOUR_MS))
    await other.renew(instance("theirs", expires_ms=shifted_ms() + HOUR_MS))
    assert await other.alive("mine", now_ms=shifted_ms())
    assert await store.alive("theirs", now_ms=now_ms())
    await store.renew(instance("mine", expires_ms=now_ms()))
    await other.renew(instance("theirs", expires_ms=shifted_ms()))
    assert not await other.alive("mine", now_ms=shifted_ms() + 1)
    assert not await store.alive("theirs", now_ms=now_ms() + 1)


async def test_a_process_does_not_doubt_itself(postgres: PostgresStore) -> None:
    await postgres.renew(instance(expires_ms=0))
    assert await postgres.alive("life-1", now_ms=now_ms())


async def test_who_comes_sweeps_up_after_those_whose_lease_lapsed(
    open_postgres: OpenPostgres, postgres_dsn: str
) -> None:
    store, other = await open_postgres(), await open_postgres()
    await other.renew(instance("dead", expires_ms=now_ms() - HOUR_MS))
    await other.renew(instance("living"))
    await store.renew(instance("mine"))
    async with a_stranger(postgres_dsn) as stranger:
        found = await stranger.fetch("SELECT incarnation FROM instances WHERE realm = $1", store.realm)
    assert {row[0] for row in found} == {"living", "mine"}


async def test_who_closed_the_store_is_done_at_once(open_postgres: OpenPostgres) -> None:
    store, other = await open_postgres(), await open_postgres()
    await other.renew(instance())
    assert await store.alive("life-1", now_ms=now_ms())
    await other.close()
    assert not await store.alive("life-1", now_ms=now_ms())


# ── work that waits ──


async def waiting(store: PostgresStore, session_id: str, at_ms: int = 1) -> Log:
    """A session with a suspended turn."""
    log = Log(session_id)
    started = e.TurnStarted(prompt="p", owner=e.Owner(instance_id="i", incarnation="life-1", host="h", pid=1))
    created = e.SessionCreated(settings=log.session.settings)
    await store.append(log.next(created, started, e.TurnSuspended(), at_ms=at_ms))
    return log


@pytest.mark.parametrize("shift_ms", [-10 * HOUR_MS, 10 * HOUR_MS])
async def test_machines_with_different_clocks_agree_on_what_is_taken_and_on_duty(
    open_postgres: OpenPostgres, shift_ms: int
) -> None:
    def shifted_ms() -> int:
        return now_ms() + shift_ms

    store, other = await open_postgres(), await open_postgres(clock_ms=shifted_ms)
    await waiting(store, "s-1")
    for which, clock_ms, lasts_ms, found in (
        (store, now_ms, HOUR_MS, ["s-1"]),
        (other, shifted_ms, HOUR_MS, []),
        (store, lambda: now_ms() + 2 * HOUR_MS, -3 * HOUR_MS, ["s-1"]),
        (other, shifted_ms, HOUR_MS, ["s-1"]),
        (store, now_ms, HOUR_MS, []),
    ):
        until_ms = clock_ms() + lasts_ms
        assert await which.take(ready_before_ms=9, until_ms=until_ms, now_ms=clock_ms(), limit=9) == found
    assert await store.on_duty("sweep", "life-1", now_ms=now_ms(), until_ms=now_ms() + HOUR_MS)
    assert not await other.on_duty("sweep", "life-2", now_ms=shifted_ms(), until_ms=shifted_ms() + HOUR_MS)
    later_ms = shifted_ms() + 2 * HOUR_MS
    assert await other.on_duty("sweep", "life-2", now_ms=later_ms, until_ms=later_ms + HOUR_MS)


async def test_what_another_one_is_about_to_take_is_not_waited_for(
    open_postgres: OpenPostgres, postgres_dsn: str
) -> None:
    store = await open_postgres()
    for number in range(3):
        await waiting(store, f"s-{number}", number)
    async with a_stranger(postgres_dsn) as stranger:
        await stranger.execute("BEGIN")
        await stranger.execute("SELECT 1 FROM shown WHERE realm = $1 AND id = 's-0' FOR UPDATE", store.realm)
        with anyio.fail_after(postgres_library.LOCK_S):
            assert await store.take(ready_before_ms=9, until_ms=HOUR_MS, now_ms=0, limit=2) == ["s-1", "s-2"]


async def test_a_process_that_ended_is_on_duty_no_more(open_postgres: OpenPostgres) -> None:
    store, other = await open_postgres(), await open_postgres()
    later_ms = now_ms() + HOUR_MS
    await other.renew(instance("life-2"))
    assert await other.on_duty("sweep", "life-2", now_ms=now_ms(), until_ms=later_ms)
    assert not await store.on_duty("sweep", "life-1", now_ms=now_ms(), until_ms=later_ms)
    await other.close()
    assert await store.on_duty("sweep", "life-1", now_ms=now_ms(), until_ms=later_ms)


# ── searching ──


async def said_here(store: PostgresStore, *texts: str, session_id: str = "s-1") -> Log:
    log = await begun(store, session_id)
    await store.append(log.next(*(e.TextComplete(text=text) for text in texts)))
    return log


async def found(store: PostgresStore, query: str) -> list[str]:
    return [session.id for session in await store.sessions(Selection(query=query))]


async def test_a_search_finds_nothing_in_another_realm(open_postgres: OpenPostgres) -> None:
    one, other = await open_postgres("one"), await open_postgres("other")
    await said_here(one, "needle")
    assert await found(one, "needle") == ["s-1"]
    assert await found(other, "needle") == await found(other, f"{one.realm}:needle") == await found(other, "s-") == []


async def test_a_text_with_more_words_than_postgresql_holds_is_found_by_those_that_fit(postgres: PostgresStore) -> None:
    words = [f"{number:06}" + chr(0x10400 + number % 40) * 58 for number in range(19_000)]
    log = await said_here(postgres, " ".join(words))
    assert await found(postgres, words[0]) == await found(postgres, words[4_000]) == ["s-1"]
    assert await found(postgres, words[-1]) == []
    assert await postgres.read("s-1") == log.events


async def test_what_was_tidied_away_is_not_found_any_more(postgres: PostgresStore) -> None:
    log = await said_here(postgres, "needle and thread", "needle", "last")
    less = encode(log.events[1].event.model_copy(update={"text": "thread"}))
    assert await found(postgres, "needle thread") == ["s-1"]
    await postgres.tidy("s-1", without=[], instead=[less, replace(log.events[3], body=less.body)])
    assert await found(postgres, "needle thread") == []
    assert (
        await found(postgres, "needle") == await found(postgres, "thread") == await found(postgres, "last") == ["s-1"]
    )


async def test_nothing_is_left_of_what_was_deleted(postgres: PostgresStore, postgres_dsn: str) -> None:
    await said_here(postgres, "needle")
    await postgres.delete("s-1")
    async with a_stranger(postgres_dsn) as stranger:
        words = await stranger.fetchval("SELECT count(*) FROM findings WHERE words @@ $1", f"'{postgres.realm}':*")
    assert words == 0


async def test_lists_and_searches_read_no_table_from_end_to_end(postgres: PostgresStore, postgres_dsn: str) -> None:
    """Nor sort more than they show, so that they are as fast in a large realm as here."""
    states: tuple[Any, ...] = ((), ("idle",), ("waiting",), ("running", "waiting", "archived"))
    for state, principal, archived in itertools.product(states, (None, "ann"), (None, False, True)):
        statement = postgres_listing._Statement(postgres.realm)
        selection = Selection(states=state, principal=principal, archived=archived)
        lanes = statement.lanes(selection, (99, "x"), 50)
        plan = await planned(postgres, f"SELECT body FROM {lanes} LIMIT 50", *statement.parameters)
        assert "Seq Scan" not in plan
        assert "Sort" not in plan
    for statement, *parameters in (
        (postgres_statements.TAKE, 9, 0, 0, 9),
        (postgres_statements.AT_WORK,),
        (postgres_statements.MATCHING, "a", "b", 9),
        (postgres_statements.MATCHING_OF, "a", "b", 9, "ann"),
        (postgres_statements.CLAIMS_OF, "s-1"),
        (postgres_statements.PRUNE_CLAIMS, 9),
    ):
        assert "Seq Scan" not in await planned(postgres, statement, postgres.realm, *parameters)
    assert "shown_by_readiness" in await planned(postgres, postgres_statements.TAKE, postgres.realm, 9, 0, 0, 9)
    assert "shown_by_state" in await planned(postgres, postgres_statements.AT_WORK, postgres.realm)


async def planned(store: PostgresStore, statement: str, *parameters: Any) -> str:
    return "\n".join(row[0] for row in await store._server.rows(f"EXPLAIN {statement}", *parameters))


# ── version 2 ──


@asynccontextmanager
async def version_1(dsn: str, *appends: Append) -> AsyncIterator[Any]:
    """A database as version 1 left it, with these sessions in the realm `old`; gives a connection to it."""
    connection: Any = await asyncpg.connect(dsn, server_settings={"search_path": "meerkat"})
    try:
        await connection.execute("CREATE SCHEMA meerkat; CREATE TABLE version (number integer NOT NULL)")
        await connection.execute(f"{postgres_server._MIGRATIONS[0]}; INSERT INTO version VALUES (1)")
        realm = await connection.fetchval("INSERT INTO realms (id) VALUES ('old') RETURNING number")
        for append in appends:
            await append_as_version_1(connection, realm, append)
        yield connection
    finally:
        await connection.close()


async def append_as_version_1(connection: Any, realm: int, append: Append) -> None:
    whole_keys, readies = 8, 22
    new = list(postgres_values.arguments(realm, [append])[:-3])
    if new[readies] is not None:
        new[readies] = [found_by(append.session)]
    del new[whole_keys]
    marks = ", ".join(f"${number}" for number in range(1, len(new) + 3))
    await connection.fetch(f"SELECT * FROM append({marks})", realm, 7, *new)


def old_sessions(count: int) -> list[Append]:
    appends: list[Append] = []
    for number in range(count):
        log = Log(f"s-{number:03}")
        created = e.SessionCreated(settings=log.session.settings, title=f"title{number}", principal="ann")
        owner = e.Owner(instance_id="i", incarnation="life-1", host="h", pid=1)
        appends.append(log.next(created, e.TurnStarted(prompt=f"prompt{number} common", owner=owner), at_ms=number))
        appends.append(log.next(*(e.TextComplete(text=f"reply{number} {piece}") for piece in range(3))))
    return appends


async def test_a_realm_of_version_1_is_migrated_and_what_was_said_in_it_is_found(
    open_postgres: OpenPostgres, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_filling, "RETRY_S", 0.01)
    key, long_key = Claim("key", "d", "s-000", "t", 1), Claim("ü" * 900, "d", "s-000", "t", 1)
    first, *others = old_sessions(70)
    claiming = Log("s-000")
    claiming.session = others[0].session
    keyed = [claiming.next(e.TextComplete(text="claims"), claim=each) for each in (key, long_key)]
    async with version_1(empty_dsn, first, others[0], *keyed, *others[1:]) as old:
        stores = [await open_postgres("old", dsn=empty_dsn) for _ in range(2)]
        assert any("searching" in warning for warning in stores[0].warnings)
        store = stores[0]

        async def filled() -> bool:
            return not await told_postgres(empty_dsn, "SELECT 1 FROM meerkat.unsearched")

        await until(filled)
        assert (
            await found(store, "reply42 2")
            == await found(store, "title42")
            == await found(store, "prompt42")
            == ["s-042"]
        )
        assert len(await found(store, "common")) == 50
        assert await store.matching("s-06", limit=2, principal="ann") == ["s-069", "s-068"]
        assert await store.matching("s-06", limit=2, principal="bob") == []
        assert len(await store.working()) == 70
        assert await store.claim(long_key.key) == long_key
        assert await store.kept_with("s-000") == ([key], [])
        with pytest.raises(asyncpg.UndefinedFunctionError):  # this a program of version 1 understands
            await append_as_version_1(old, store.realm, others[-1])
        for each in stores:
            await each.close()
    again = await open_postgres("old", dsn=empty_dsn)
    assert list(again.warnings) == []
    await again.close()


async def test_what_is_deleted_or_goes_on_while_old_words_are_put_in_is_right_in_the_end(
    open_postgres: OpenPostgres, empty_dsn: str
) -> None:
    async with version_1(empty_dsn, *old_sessions(60)):
        store = await open_postgres("old", dsn=empty_dsn)
        for number in range(60):
            name = f"s-{number:03}"
            if number % 2:
                await store.delete(name)
            else:
                log = Log(name)
                log.session = await store.load(name)
                await store.append(
                    log.next(e.SettingsChanged(title=f"new{number}"), e.TextComplete(text="later common"))
                )

        async def filled() -> bool:
            return not await told_postgres(empty_dsn, "SELECT 1 FROM meerkat.unsearched")

        await until(filled)
        assert await found(store, "title42") == []
        assert await found(store, "new42") == await found(store, "prompt42") == ["s-042"]
        assert len(await found(store, "later")) == len(await found(store, "common")) == 30
        rows = "SELECT count(DISTINCT session), count(*) FROM meerkat.findings"
        assert [tuple(row) for row in await told_postgres(empty_dsn, rows)] == [(30, 30 * 6)]
        await store.close()


async def test_who_was_let_in_to_the_tables_of_version_1_is_let_in_to_those_of_version_2(
    open_postgres: OpenPostgres, empty_dsn: str
) -> None:
    role = f"meerkat_test_{time.time_ns()}"
    await told_postgres(empty_dsn, f'CREATE ROLE "{role}-x" LOGIN')
    try:
        async with version_1(empty_dsn, *old_sessions(1)) as old:
            await old.execute(f'GRANT USAGE ON SCHEMA meerkat TO "{role}-x"')
            await old.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA meerkat TO "{role}-x"')
        await (await open_postgres("old", dsn=empty_dsn)).close()
        store = await open_postgres("old", dsn=empty_dsn.replace("//postgres@", f"//{role}-x@"))
        await said_here(store, "needle", session_id="s-new")
        assert await found(store, "needle") == ["s-new"]
        assert await store.on_duty("sweep", "life-1", now_ms=0, until_ms=HOUR_MS)
        assert len(await store.sealing_key()) == 32
        await store.destroy()
        await store.close()
    finally:
        await told_postgres(empty_dsn, f'DROP OWNED BY "{role}-x"', f'DROP ROLE "{role}-x"')


async def test_long_keys_are_told_with_their_session(postgres: PostgresStore) -> None:
    log = await begun(postgres)
    claims = [Claim("ü" * length, "d", "s-1", "t", 1) for length in (1, 500, 501, 2000)]
    await postgres.append(log.next(e.TextComplete(text="x"), claim=claims[0]))
    await postgres.append(log.next(e.TextComplete(text="x"), claim=claims[3]))
    for claim in claims[1:3]:
        await postgres.put_claim(claim)
    kept, _ = await postgres.kept_with("s-1")
    assert sorted(kept, key=lambda claim: len(claim.key)) == claims


# ── the end of a realm ──


TABLES = ("sessions", "shown", "labels", "events", "findings", "claims", "streams", "instances", "duties")


async def test_a_realm_that_is_destroyed_is_gone_and_no_other_one(
    open_postgres: OpenPostgres, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_statements, "DESTROY", "SELECT destroy($1, 100)")  # many steps
    store, other = await open_postgres("gone", dsn=empty_dsn), await open_postgres("stays", dsn=empty_dsn)
    for each in (store, other):
        for number in range(120):
            log = await begun(each, f"s-{number}", labels={"k": "v"}, title="needle")
            claim = Claim(f"key {number}", "d", log.id, "t", 1)
            await each.append(log.next(*(e.TextComplete(text=f"text {piece}") for piece in range(5)), claim=claim))
        await each.put_stream(Stream(stream_id="evt-1", session_id="s-1", after_seq=0, used_ms=1))
        await each.renew(instance())
        await each.on_duty("sweep", "life-1", now_ms=0, until_ms=HOUR_MS)
    rows = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM meerkat.{table}" for table in TABLES)
    before: dict[str, int] = dict(await told_postgres(empty_dsn, rows))
    await store.destroy()
    after: dict[str, int] = dict(await told_postgres(empty_dsn, rows))
    assert {table: 2 * count for table, count in after.items()} == before
    assert len(await found(other, "needle")) == 50
    for ask in (
        partial(store.append, Log("s-new").begin()),
        store.config,
        partial(store.put_config, {}, expected=None),
    ):
        with pytest.raises(StoreUnavailable, match="was removed") as refused:
            await ask()
        assert refused.value.hint
    await store.destroy()
    anew = await open_postgres("gone", dsn=empty_dsn)
    assert await anew.sessions(Selection()) == []
    for each in (store, other, anew):
        await each.close()


async def test_a_realm_is_destroyed_while_others_write_to_it(open_postgres: OpenPostgres, postgres_dsn: str) -> None:
    store, other = await open_postgres(), await open_postgres()
    refused: list[str] = []

    async def write(number: int) -> None:
        for count in range(1000):
            try:
                await begun(other, f"s-{number}-{count}")
            except StoreUnavailable as error:
                refused.append(error.message)
                return

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(write, number)
            await until(partial(store.matching, "s-0-20", limit=1))
            await store.destroy()
    assert refused == ["The realm was removed from its PostgreSQL."] * 8
    async with a_stranger(postgres_dsn) as stranger:
        for table in ("sessions", "shown", "events"):
            assert not await stranger.fetch(f"SELECT 1 FROM {table} WHERE realm = $1", store.realm)


# ── opening and closing ──


async def test_a_closed_store_says_so(postgres: PostgresStore) -> None:
    await postgres.close()
    for ask in (partial(postgres.append, Log().begin()), partial(postgres.read, "s-1"), postgres.config):
        with pytest.raises(StoreUnavailable, match="closed"):
            await ask()


async def test_a_store_that_is_closing_writes_what_was_queued_and_takes_nothing_more(
    open_postgres: OpenPostgres,
) -> None:
    store = await open_postgres()
    log = await begun(store)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(store.append, log.text())
            await anyio.lowlevel.checkpoint()
            tasks.start_soon(store.close)
            await anyio.lowlevel.checkpoint()
            with pytest.raises(StoreUnavailable, match="closed"):
                await store.append(log.text())
    assert len(await (await open_postgres()).read("s-1")) == 11


async def test_a_store_leaves_no_connection_behind(open_postgres: OpenPostgres, empty_dsn: str) -> None:
    store = await open_postgres(dsn=empty_dsn)
    await begun(store)
    with anyio.move_on_after(0.1):
        await anext(store.changes())
    await store.close()
    count = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

    async def gone() -> bool:
        return not await told_postgres(empty_dsn, count)

    await until(gone)


async def test_what_does_the_work_is_said(postgres: PostgresStore) -> None:
    assert set(postgres.mechanisms) == {"postgresql", "driver", "bell", "search"}
    assert postgres.mechanisms["search"] == "tsvector"
    assert postgres.mechanisms["driver"] == f"asyncpg {asyncpg.__version__}"
    assert list(postgres.warnings) == []
