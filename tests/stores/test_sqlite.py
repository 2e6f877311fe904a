"""What is special about SQLite: real processes on one file, deaths, versions, and files that are not as they should be.

What every store promises is in `test_contract.py`.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from stores.conftest import Log, OpenSQLite

from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.errors import Corrupt, Internal, SessionNotFound, StoreUnavailable
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.domain.recorded import Recorded, encode
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.stores import (
    sqlite_file,
    sqlite_instances,
    sqlite_library,
    sqlite_listing,
    sqlite_search,
    sqlite_upkeep,
    sqlite_writer,
)
from meerkat_mcp.stores.base import Append, Claim, Cursor, KeyTaken, Selection, SequenceConflict, Stream, found_by
from meerkat_mcp.stores.filelock import FileLock
from meerkat_mcp.stores.memory import MemoryStore
from meerkat_mcp.stores.sqlite import SQLiteStore
from meerkat_mcp.stores.sqlite_library import library, translated, version_warnings
from meerkat_mcp.stores.sqlite_listing import Page
from meerkat_mcp.stores.sqlite_writer import Spans

pytestmark = pytest.mark.anyio

LONG_S = 60
OWNER = e.Owner(instance_id="i", incarnation="life", host="h", pid=1)
KNOWN = len(sqlite_file._MIGRATIONS)
ROOT = Path(sqlite_file.__file__).parents[2]

IN_ANOTHER_PROCESS = """
import sys, time
sys.path[:0] = [{root!r}, {tests!r}]
import anyio
from pathlib import Path
from stores.conftest import Log
from meerkat_mcp.domain.realm import Instance
from meerkat_mcp.stores.base import SequenceConflict
from meerkat_mcp.stores.sqlite import SQLiteStore

def say(*what):
    print(*what, flush=True)

async def heard():
    return await anyio.to_thread.run_sync(sys.stdin.readline)

async def main(store):
{body}

async def run():
    store = await SQLiteStore.open(Path(sys.argv[1]), clock_ms=lambda: time.time_ns() // 1_000_000)
    await main(store)
    await store.close()

anyio.run(run)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "realm"


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "realm.sqlite3"


@asynccontextmanager
async def another_process(folder: Path, body: str) -> AsyncIterator[tuple[Process, "Lines"]]:
    """Run `body`, which has a `store`, in a process of its own; gives it and the lines it says."""
    body = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    script = IN_ANOTHER_PROCESS.format(root=str(ROOT), tests=str(ROOT / "tests"), body=body)
    process = await anyio.open_process([sys.executable, "-c", script, str(folder)], stderr=None)
    try:
        yield process, Lines(process)
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


class Lines:
    """What a process says, line by line."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        self._stream = TextReceiveStream(process.stdout)
        self._rest = ""

    async def next(self) -> str:
        while "\n" not in self._rest:
            self._rest += await self._stream.receive()
        line, _, self._rest = self._rest.partition("\n")
        return line

    async def rest(self) -> list[str]:
        async for text in self._stream:
            self._rest += text
        return self._rest.splitlines()


async def tell(process: Process) -> None:
    assert process.stdin is not None
    await process.stdin.send(b"\n")


async def begun(store: SQLiteStore, session_id: str = "s-1", **how: Any) -> Log:
    log = Log(session_id)
    await store.append(log.begin(**how))
    return log


def connected(file: Path) -> "closing[sqlite_library.Connection]":
    """The file, as a program sees it that knows nothing of us."""
    return closing(sqlite_library.connect(file, busy_timeout_s=0, pragmas=()))


def laid(file: Path, content: bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)


def made(folder: Path, *, mode: int = 0o700) -> None:
    folder.mkdir(mode=mode, parents=True)


def found(folder: Path) -> dict[str, bytes]:
    """The files in a folder and all below it, with their content."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def bytes_in(folder: Path) -> bytes:
    return b"".join(found(folder).values())


def changed(file: Path, *statements: str) -> None:
    with connected(file) as connection:
        for statement in statements:
            connection.execute(statement)


# ── several processes ──

RACE = """
name, won = sys.argv[2] if len(sys.argv) > 2 else str(time.perf_counter_ns()), 0
say(name)
await heard()
log = Log()
while won < 60:
    log.session = await store.load("s-1")
    append = log.text(name)
    try:
        await store.append(append)
    except SequenceConflict:
        continue
    won += 1
    say(append.events[0].seq)
"""


async def test_two_processes_that_write_one_log_each_win_their_own_places(sqlite: SQLiteStore, folder: Path) -> None:
    await begun(sqlite)
    with anyio.fail_after(LONG_S):
        async with another_process(folder, RACE) as (one, ones), another_process(folder, RACE) as (other, others):
            names = [await ones.next(), await others.next()]
            await tell(one)
            await tell(other)
            won = [[int(seq) for seq in await lines.rest()] for lines in (ones, others)]
    events = await sqlite.read("s-1", after=1)
    assert [recorded.seq for recorded in events] == list(range(2, 122))
    for name, seqs in zip(names, won, strict=True):
        written = [recorded.seq for recorded in events if f'"text":"{name}"'.encode() in recorded.body]
        assert written == seqs
        assert len(seqs) == 60


WRITE_FLAT_OUT = """
async def write(log):
    await store.append(log.begin())
    for number in range(50):
        await store.append(log.text() if number % 5 else log.delta())

async with anyio.create_task_group() as tasks:
    for number in range(8):
        tasks.start_soon(write, Log(f"s-{time.time_ns()}-{number}"))
"""


async def test_processes_that_write_side_by_side_lose_nothing(open_sqlite: OpenSQLite, folder: Path) -> None:
    with anyio.fail_after(LONG_S):
        async with (
            another_process(folder, WRITE_FLAT_OUT) as (one, _),
            another_process(folder, WRITE_FLAT_OUT) as (other, _),
        ):
            assert await one.wait() == 0
            assert await other.wait() == 0
    store = await open_sqlite()
    sessions = await store.sessions(Selection())
    assert len(sessions) == 16
    for session in sessions:
        assert [recorded.seq for recorded in await store.read(session.id)] == list(range(1, 52))


APPEND_UNTIL_KILLED = """
log = Log()
await store.append(log.begin())
while True:
    append = log.text() if log.session.seq % 3 else log.delta()
    await store.append(append)
    say(append.events[0].seq)
"""


async def test_a_killed_process_loses_nothing_that_was_acknowledged(open_sqlite: OpenSQLite, folder: Path) -> None:
    with anyio.fail_after(LONG_S):
        async with another_process(folder, APPEND_UNTIL_KILLED) as (process, lines):
            while int(await lines.next()) < 100:
                pass
            process.kill()
            acknowledged = [int(line) for line in (await lines.rest())[:-1] or ["100"]]
    store = await open_sqlite()
    seqs = [recorded.seq for recorded in await store.read("s-1")]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= acknowledged[-1] >= 100
    assert (await store.load("s-1")).seq == len(seqs)


@pytest.mark.parametrize("use_inotify", [None, False])
async def test_a_process_hears_what_another_one_records(
    open_sqlite: OpenSQLite, folder: Path, use_inotify: bool | None
) -> None:
    store = await open_sqlite(use_inotify=use_inotify)
    assert store.bell.mechanism == ("inotify" if use_inotify is None and sys.platform == "linux" else "poll")
    write = "for number in range(3):\n    await heard()\n    await store.append(Log(f's-{number}').begin())"
    with anyio.fail_after(LONG_S):
        async with another_process(folder, write) as (process, _):
            told = store.changes()
            for number in range(3):
                await tell(process)
                assert set(await anext(told)) == {f"s-{number}"}


HOLD_THE_LOCKS = """
from meerkat_mcp.stores.filelock import FileLock
from meerkat_mcp.stores.sqlite_library import connect
with FileLock(store.path.parent / "realm.lock"):
    connection = connect(store.path, busy_timeout_s=0, pragmas=())
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM events")
    say("held")
    await heard()
    connection.close()
"""


async def test_reading_goes_on_while_another_process_writes(sqlite: SQLiteStore, folder: Path) -> None:
    log = await begun(sqlite)
    with anyio.fail_after(LONG_S):
        async with another_process(folder, HOLD_THE_LOCKS) as (process, lines):
            assert await lines.next() == "held"
            for limit in (100, 1000):
                assert await sqlite.read("s-1", limit=limit) == log.events
            assert await sqlite.load("s-1") == log.session
            assert len(await sqlite.sessions(Selection(query="s-1"))) == 1
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sqlite.append, log.text())
                await tell(process)
    assert await sqlite.read("s-1") == log.events


# ── one writer ──


async def queued(store: SQLiteStore, appends: Sequence[Append]) -> None:
    """Have these appends wait for the lock together, and let them go; the refusals come as a group."""
    lock, refusals = FileLock(store.path.parent / "realm.lock"), list[Exception]()

    async def one(append: Append) -> None:
        try:
            await store.append(append)
        except (KeyTaken, SequenceConflict) as refusal:
            refusals.append(refusal)

    with closing(lock), anyio.fail_after(LONG_S):
        lock.acquire()
        async with anyio.create_task_group() as tasks:
            for append in appends:
                tasks.start_soon(one, append)
            await anyio.wait_all_tasks_blocked()
            lock.release()
    if refusals:
        raise ExceptionGroup("refused", refusals)


async def test_what_waits_together_is_committed_together(sqlite: SQLiteStore) -> None:
    logs = [await begun(sqlite, f"s-{number}") for number in range(100)]
    before = sqlite.writer.commits
    await queued(sqlite, [log.text() for log in logs])
    assert sqlite.writer.commits == before + 1


async def test_a_commit_has_a_bounded_number_of_events(sqlite: SQLiteStore) -> None:
    log = await begun(sqlite)
    before = sqlite.writer.commits
    await queued(sqlite, [log.next(*(e.TextComplete(text="x") for _ in range(100))) for _ in range(12)])
    assert sqlite.writer.commits == before + 2
    assert await sqlite.read("s-1", limit=2000) == log.events


@pytest.mark.parametrize(("appends", "level"), [("delta", 1), ("text", 2), ("delta text", 2)])
async def test_only_recorded_events_wait_for_the_disk(sqlite: SQLiteStore, appends: str, level: int) -> None:
    log = await begun(sqlite)
    for first in ("delta", "text"):  # whatever came before
        await sqlite.append(getattr(log, first)())
        await queued(sqlite, [getattr(log, kind)() for kind in appends.split()])
        assert await sqlite.writer.locked(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (
            level,
        )


async def test_changes_of_other_things_keep_their_place_among_appends(sqlite: SQLiteStore) -> None:
    log, outcomes = await begun(sqlite), list[object]()

    async def put() -> None:
        outcomes.append((await sqlite.put_config({"a": 1}, expected=0)).generation)

    lock = FileLock(sqlite.path.parent / "realm.lock")
    with closing(lock), anyio.fail_after(LONG_S):
        lock.acquire()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sqlite.append, log.text())
            tasks.start_soon(put)
            tasks.start_soon(sqlite.append, log.text())
            await anyio.wait_all_tasks_blocked()
            lock.release()
    assert outcomes == [1]
    assert await sqlite.read("s-1") == log.events


async def test_an_append_that_was_cancelled_in_the_queue_is_not_written(sqlite: SQLiteStore) -> None:
    log = await begun(sqlite)
    before = log.session
    lock = FileLock(sqlite.path.parent / "realm.lock")
    with closing(lock), anyio.fail_after(LONG_S):
        lock.acquire()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sqlite.append, log.text("cancelled"))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        lock.release()
        log.session = before
        await sqlite.append(log.text("after"))
    assert b"after" in (await sqlite.read("s-1"))[-1].body


async def test_who_waits_too_long_for_a_frozen_process_is_told_and_nothing_is_written_later(
    sqlite: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "PATIENCE_S", 0.02)
    log = await begun(sqlite)
    events = list(log.events)
    lock = FileLock(sqlite.path.parent / "realm.lock")
    with closing(lock), anyio.fail_after(LONG_S):
        lock.acquire()
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="could not be written"):
                await sqlite.append(log.text())
            with pytest.raises(StoreUnavailable, match="could not be written"):
                await sqlite.put_config({"a": 1}, expected=None)
        lock.release()
        monkeypatch.undo()
        assert (await sqlite.put_config({"a": 2}, expected=0)).generation == 1
    assert await sqlite.read("s-1") == events


async def test_a_bug_in_a_change_reaches_its_caller_and_nobody_else(sqlite: SQLiteStore) -> None:
    def bug(connection: sqlite_library.Connection) -> None:
        connection.execute("UPDATE realm SET generation = 7")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sqlite.writer.change(bug)
    assert (await sqlite.config()).generation == 0


def test_the_positions_between_ours_are_others() -> None:
    ours = Spans()
    for first, last in [(3, 4), (5, 5), (8, 9), (20, 30)]:
        ours.add(first, last)
    assert list(ours.between(0, 40)) == [(0, 2), (5, 7), (9, 19), (30, 40)]
    assert list(ours.between(2, 5)) == []
    assert list(ours.between(6, 12)) == [(6, 7), (9, 12)]
    assert list(ours.between(25, 28)) == []
    ours.clear()
    assert list(ours.between(6, 12)) == [(6, 12)]


async def test_what_failed_at_last_does_not_make_others_events_ours(
    open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = await open_sqlite(), await open_sqlite()
    log, mark = await begun(store), store.writer._mark

    def fail(*what: Any) -> None:
        mark(*what)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(store.writer, "_mark", fail)
        with pytest.raises(ZeroDivisionError):
            await store.append(log.text())
    await begun(other, "s-2")
    with anyio.fail_after(LONG_S):
        assert "s-2" in await anext(store.changes())


async def test_what_is_written_alone_does_not_build_on_what_was_refused(sqlite: SQLiteStore) -> None:
    log, first, second = await begun(sqlite), Log("s-new"), Log("s-new")
    claim = Claim(key="key", digest="d", session_id="s-1", turn_id="t", created_ms=1)
    await sqlite.append(log.next(e.TextComplete(text="x"), claim=claim))
    taken = replace(first.begin(), claim=claim)
    with pytest.RaisesGroup(KeyTaken):
        await queued(sqlite, [taken, second.begin(), second.text(), log.text()])
    assert await sqlite.read("s-new") == second.events
    assert await sqlite.read("s-1") == log.events


async def test_events_out_of_order_do_not_get_in(sqlite: SQLiteStore) -> None:
    log = await begun(sqlite)
    append = log.next(*(e.TextComplete(text=text) for text in "abc"))
    first, second, third = append.events
    with pytest.raises(Corrupt, match="does not follow"):
        await sqlite.append(replace(append, events=[first, third, second]))
    assert len(await sqlite.read("s-1")) == 1


# ── the disk, and what stands on it ──


async def test_a_full_disk_is_said_and_leaves_nothing_half_written(sqlite: SQLiteStore) -> None:
    log = await begun(sqlite)
    events, session = list(log.events), log.session

    def full(connection: sqlite_library.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    await sqlite.writer.locked(full)
    with pytest.raises(StoreUnavailable, match="disk is full") as refused:
        await sqlite.append(log.text("x" * 100_000))
    assert refused.value.retryable
    assert refused.value.hint
    assert await sqlite.read("s-1") == events
    await sqlite.writer.locked(lambda connection: connection.execute("PRAGMA max_page_count = 1000000"))
    log.session = session
    await sqlite.append(log.text("y" * 100_000))
    assert (await sqlite.load("s-1")).seq == 2


async def test_a_file_that_is_no_database_is_refused_and_left_alone(file: Path, open_sqlite: OpenSQLite) -> None:
    laid(file, b"These are my notes, not a database." * 100)
    with pytest.raises(Corrupt, match="is no SQLite database"):
        await open_sqlite()
    assert found(file.parent)[file.name] == b"These are my notes, not a database." * 100


@pytest.mark.parametrize("statement", ["CREATE TABLE recipes (name)", "PRAGMA application_id = 7"])
async def test_a_database_of_another_program_is_refused_and_left_alone(
    file: Path, open_sqlite: OpenSQLite, statement: str
) -> None:
    made(file.parent)
    changed(file, statement)
    before = found(file.parent)[file.name]
    with pytest.raises(Corrupt, match="of another program"):
        await open_sqlite()
    assert found(file.parent)[file.name] == before


async def test_a_file_from_the_future_is_refused_naming_both_versions(file: Path, open_sqlite: OpenSQLite) -> None:
    await (await open_sqlite()).close()
    changed(file, "PRAGMA user_version = 99")
    with pytest.raises(StoreUnavailable, match=rf"version 99.* up to {KNOWN}") as refused:
        await open_sqlite()
    assert "Update" in refused.value.hint
    assert refused.value.facts == {"version": 99, "known": KNOWN}


async def test_a_program_that_was_overtaken_while_it_had_the_file_open_says_so(sqlite: SQLiteStore, file: Path) -> None:
    log = await begun(sqlite)
    changed(file, "DROP VIEW logged", f"PRAGMA user_version = {KNOWN + 1}")
    with pytest.raises(StoreUnavailable, match=rf"version {KNOWN + 1}.* up to {KNOWN}"):
        await sqlite.append(log.text())


async def test_migrations_are_applied_in_order_once(
    file: Path, open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_sqlite()
    log = await begun(store)
    await store.close()
    later = ("CREATE TABLE added (x); INSERT INTO added VALUES (1);", "UPDATE added SET x = x + 1;")
    monkeypatch.setattr(sqlite_file, "_MIGRATIONS", sqlite_file._MIGRATIONS + later)
    for _ in range(2):
        store = await open_sqlite()
        assert await store.read("s-1") == log.events
        await store.close()
    with connected(file) as connection:
        assert connection.execute("SELECT x FROM added").fetchall() == [(2,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (KNOWN + 2,)


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    file: Path, open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_sqlite()
    log = await begun(store)
    await store.close()
    with monkeypatch.context() as patch:
        patch.setattr(
            sqlite_file, "_MIGRATIONS", (*sqlite_file._MIGRATIONS, "DROP VIEW logged; INSERT INTO nowhere VALUES (1);")
        )
        with pytest.raises(Corrupt, match="nowhere"):
            await open_sqlite()
    store = await open_sqlite()
    await store.append(log.text())
    assert await store.read("s-1") == log.events


async def test_what_stands_in_the_way_of_the_folder_is_named(tmp_path: Path, open_sqlite: OpenSQLite) -> None:
    (tmp_path / "realm").write_text("a file")
    with pytest.raises(StoreUnavailable, match="realm cannot be used"):
        await open_sqlite()


async def test_a_folder_in_place_of_the_file_is_said(file: Path, open_sqlite: OpenSQLite) -> None:
    made(file)
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await open_sqlite()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root")
async def test_a_folder_that_cannot_be_written_is_said(folder: Path, open_sqlite: OpenSQLite) -> None:
    made(folder, mode=0o500)
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await open_sqlite()


async def test_a_damaged_file_is_said(sqlite: SQLiteStore, file: Path, open_sqlite: OpenSQLite) -> None:
    log = await begun(sqlite)
    await sqlite.append(log.text("x" * 50_000))
    await sqlite.close()
    whole = found(file.parent)[file.name]
    laid(file, whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(Corrupt, match=r"realm.sqlite3 is damaged") as refused:
        await (await open_sqlite()).load("s-1")
    assert "copy" in refused.value.hint


async def test_a_file_that_cannot_be_opened_leaves_no_thread_that_would_still_say_something() -> None:
    def opened() -> Any:
        raise OSError("not today")

    thread = sqlite_file.Thread(opened)
    with pytest.raises(OSError, match="not today"):
        await thread.opened()
    assert thread._ended is not None
    assert thread._ended.done(), "before anybody hears of the error"


async def test_a_session_that_contradicts_itself_is_said(sqlite: SQLiteStore, file: Path) -> None:
    await begun(sqlite)
    changed(file, "UPDATE sessions SET body = '{\"id\": 7}'")
    with pytest.raises(Corrupt, match="s-1"):
        await sqlite.load("s-1")


RESULTS = {
    StoreUnavailable: (3, 5, 6, 7, 8, 9, 10, 13, 14, 15, 22, 23),
    Corrupt: (1, 2, 4, 11, 12, 16, 17, 18, 19, 20, 21, 24, 25, 26),
}
"""Every result code of SQLite that is an error (sqlite.org/rescode.html), by what it means here."""


@pytest.mark.parametrize(("kind", "code"), [(kind, code) for kind, codes in RESULTS.items() for code in codes])
def test_every_result_of_sqlite_is_understood(kind: type[Exception], code: int) -> None:
    for extended in (0, 1, 6):
        error = library.OperationalError("what SQLite says")
        error.sqlite_errorcode = code | extended << 8
        known = translated(error, Path("a folder/realm.sqlite3"))
        assert type(known) is kind
        assert known.message.startswith("realm.sqlite3 ")
        assert known.hint


def test_no_result_of_sqlite_is_missing() -> None:
    assert sorted(code for codes in RESULTS.values() for code in codes) == list(range(1, 27))


def test_misuse_of_the_library_is_a_bug() -> None:
    assert isinstance(translated(library.ProgrammingError("closed"), Path("realm.sqlite3")), Internal)


def modes(folder: Path) -> dict[str, set[int]]:
    modes: dict[str, set[int]] = {"file": set(), "folder": {folder.stat().st_mode & 0o777}}
    for path in folder.rglob("*"):
        modes["folder" if path.is_dir() else "file"].add(path.stat().st_mode & 0o777)
    return modes


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
async def test_only_the_owner_can_look_into_the_files(sqlite: SQLiteStore, folder: Path) -> None:
    await begun(sqlite)
    await sqlite.renew(instance())
    assert set(found(folder)) >= {"realm.sqlite3", "realm.sqlite3-wal", "realm.lock", "realm.bell", "life-1.lock"}
    assert modes(folder) == {"file": {0o600}, "folder": {0o700}}


# ── reading ──


class Busy:
    """A connection that finds the file locked."""

    def execute(self, *_: object) -> None:
        error = library.OperationalError("database is locked")
        error.sqlite_errorcode = 5 | 2 << 8
        raise error


async def test_a_read_that_would_have_to_wait_waits_in_a_thread(
    sqlite: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await begun(sqlite)
    monkeypatch.setattr(sqlite, "_inline", Busy())
    assert await sqlite.read("s-1", limit=1) == log.events


async def test_who_reads_on_and_on_lets_others_in_between(sqlite: SQLiteStore) -> None:
    log, others = await begun(sqlite), list[int]()
    await sqlite.append(log.next(*(e.TextComplete(text="x") for _ in range(50))))

    async def other() -> None:
        others.append(len(read))

    read: list[Recorded] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        while page := await sqlite.read("s-1", after=read[-1].seq if read else 0, limit=1):
            read += page
    assert others[0] < 5


async def test_no_reader_can_write(sqlite: SQLiteStore) -> None:
    for small in (True, False):
        with pytest.raises(StoreUnavailable, match="read-only"):
            await sqlite._rows("DELETE FROM sessions", small=small)


# ── deleting ──


async def filled(store: SQLiteStore, seed: int) -> None:
    """Sessions that grow and shrink among each other, each with a mark of its own in all it has."""
    by_chance = random.Random(seed)
    logs = [Log(f"s-{number}-mark{number:03}mark") for number in range(12)]
    for log in logs:
        mark = log.id[-10:]
        await store.append(log.begin(title=mark, labels={mark: mark}))
    for _ in range(400):
        log = by_chance.choice(logs)
        mark = log.id[-10:] * by_chance.choice((1, 10, 40, 150, 700))
        match by_chance.randrange(4):
            case 0:
                await store.append(log.next(e.SettingsChanged(title=mark, labels={mark[:60]: mark[:200]})))
            case 1:
                await store.append(log.text(mark))
            case _:
                first = log.session.seq + 1
                await store.append(log.next(*(e.TextDelta(text=mark[:500]) for _ in range(by_chance.randrange(1, 6)))))
                await store.append(log.text(mark, supersedes=first))
    for log in logs:
        key = Claim(key=log.id, digest=log.id, session_id=log.id, turn_id=log.id, created_ms=1)
        await store.append(log.next(e.TextComplete(text="last"), claim=key))
        await store.put_stream(Stream(stream_id=log.id, session_id=log.id, after_seq=0, used_ms=1))


@pytest.mark.parametrize("seed", range(3))
async def test_a_deleted_session_leaves_no_byte_in_any_file(sqlite: SQLiteStore, folder: Path, seed: int) -> None:
    await filled(sqlite, seed)
    for number in (3, 7, 0, 11, 5):
        mark = f"mark{number:03}mark"
        assert mark.encode() in bytes_in(folder)
        await sqlite.delete(f"s-{number}-{mark}")
        assert mark.encode() not in bytes_in(folder)
    assert len(await sqlite.sessions(Selection())) == 7
    assert b"mark001mark" in bytes_in(folder)


async def test_deleting_several_at_once_cleans_up_once(
    sqlite: SQLiteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        await begun(sqlite, f"s-{number}", title="marked")
    checkpoints: list[int] = []
    checkpoint = sqlite_file._checkpoint

    def counted(connection: sqlite_library.Connection) -> bool:
        checkpoints.append(1)
        return checkpoint(connection)

    monkeypatch.setattr(sqlite_file, "_checkpoint", counted)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(sqlite.delete, f"s-{number}")
    assert len(checkpoints) <= 2
    assert b"marked" not in bytes_in(folder)


async def test_a_reader_in_the_way_of_deleting_is_said_and_deleting_again_helps(
    sqlite: SQLiteStore, folder: Path, file: Path
) -> None:
    await begun(sqlite, title="marked")
    await sqlite.writer.locked(lambda connection: connection.execute("PRAGMA busy_timeout = 20"))
    with connected(file) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchall()
        with pytest.raises(StoreUnavailable, match="some of its bytes"):
            await sqlite.delete("s-1")
        with pytest.raises(SessionNotFound):
            await sqlite.load("s-1")
        assert b"marked" in bytes_in(folder)
    await sqlite.delete("s-1")
    assert b"marked" not in bytes_in(folder)


async def test_who_opens_the_realm_next_finishes_a_deletion_that_was_cut_off(
    open_sqlite: OpenSQLite, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_sqlite()
    await begun(store, title="marked")
    with monkeypatch.context() as patch:
        patch.setattr("meerkat_mcp.stores.sqlite.erase", lambda _: None)
        await store.delete("s-1")
    await store.close()
    assert b"marked" in bytes_in(folder)
    await open_sqlite()
    assert b"marked" not in bytes_in(folder)


# ── searching ──


async def said(store: SQLiteStore, session_id: str, text: str, *, title: str = "", at_ms: int = 1) -> Log:
    """A session with this title, in which this was said."""
    log = await begun(store, session_id, title=title, at_ms=at_ms)
    await store.append(log.text(text))
    return log


async def searched(store: SQLiteStore, query: str) -> list[str]:
    return [session.id for session in await store.sessions(Selection(query=query))]


def rows(file: Path, sql: str) -> list[Any]:
    with connected(file) as connection:
        return connection.execute(sql).fetchall()


def without_fts5(patch: pytest.MonkeyPatch) -> None:
    """A library as some build it."""
    patch.setattr(sqlite_search, "is_usable", lambda: False)


LETTERS = ("alpha", "beta", "gamma", "delta", "alphabet", "be", "gam_ma", "дом", "会议")


def by_chance(random: random.Random) -> Selection:
    words = [word[: random.randint(1, 6)] for word in random.sample(LETTERS, random.choice((0, 1, 1, 1, 2)))]
    return Selection(
        query=" ".join(words) or random.choice(("", "s", "s-1", "s-01")),
        labels=random.choice(({}, {}, {"k": "0"}, {"k": "1"}, {"k": "1", "all": "yes"}, {"k": "no"})),
        states=random.choice(((), (), ("idle",), ("running",), ("running", "waiting"), ("idle", "running"))),
        archived=random.choice((False, False, True, None)),
        principal=random.choice((None, None, "ann", "bob")),
    )


@pytest.mark.parametrize("fts5", [True, False], ids=["fts5", "scan"])
@pytest.mark.parametrize(
    ("collected", "known", "walked"), [(0, 0, (1,)), (0, 99, (1, 9)), (4, 12, (3, 20)), (300, 5000, (100,))]
)
async def test_every_way_to_a_page_leads_to_the_same(
    open_sqlite: OpenSQLite,
    monkeypatch: pytest.MonkeyPatch,
    collected: int,
    known: int,
    walked: tuple[int, ...],
    fts5: bool,
) -> None:
    monkeypatch.setattr(sqlite_listing, "COLLECTED_MAX", collected)
    monkeypatch.setattr(sqlite_listing, "KNOWN_MAX", known)
    monkeypatch.setattr(sqlite_listing, "WALKED_FIRST", walked)
    if not fts5:
        without_fts5(monkeypatch)
    sqlite, memory, chance = await open_sqlite(), MemoryStore(), random.Random(collected)
    for number in range(60):
        log = Log(f"s-{number:02}")
        labels = {"k": str(int(chance.random() < 0.1)), "all": "yes"}
        created = e.SessionCreated(
            settings=Settings(),
            title=chance.choice(LETTERS),
            labels=labels,
            principal=chance.choice((None, "ann", "bob")),
        )
        appends = [log.next(created, at_ms=chance.randrange(40))]
        appends += [log.text(" ".join(chance.sample(LETTERS, 3))) for _ in range(chance.randrange(3))]
        if more := chance.choice((None, e.SessionArchived(), e.TurnStarted(prompt="delta", owner=OWNER))):
            appends.append(log.next(more, at_ms=chance.randrange(40)))
        for append in appends:
            await sqlite.append(append)
            await memory.append(append)
    assert sqlite.mechanisms["search"] == ("fts5" if fts5 else "scan")
    for _ in range(400):
        selection, limit, offset = by_chance(chance), chance.choice((1, 3, 50)), chance.choice((0, 0, 2))
        after = chance.choice((None, Cursor(updated_ms=chance.randrange(40), session_id="s-30")))
        how: dict[str, Any] = {"limit": limit, "offset": offset, "after": after}
        assert await sqlite.sessions(selection, **how) == await memory.sessions(selection, **how), (selection, how)


async def test_words_of_a_deleted_session_are_in_no_file_and_in_no_index(sqlite: SQLiteStore, folder: Path) -> None:
    await said(sqlite, "s-1", "jabberwocky in a message", title="manxome foe")
    await said(sqlite, "s-2", "bandersnatch in a message")
    index = "SELECT count(*) FROM search_data WHERE instr(block, CAST('abberwocky' AS BLOB))"
    assert rows(sqlite.path, index) == [(1,)]
    assert await searched(sqlite, "jabber") == await searched(sqlite, "manx") == ["s-1"]
    await sqlite.delete("s-1")
    for part in (b"abberwocky", b"anxome"):
        assert part not in bytes_in(folder)
    assert b"andersnatch" in bytes_in(folder)
    assert await searched(sqlite, "jabber") == []
    assert await searched(sqlite, "message") == ["s-2"]


async def test_the_index_is_whole_after_all_kinds_of_changes(sqlite: SQLiteStore, folder: Path) -> None:
    await filled(sqlite, 7)
    for number in (3, 7, 0):
        await sqlite.delete(f"s-{number}-mark{number:03}mark")
    kept = "SELECT words FROM said UNION ALL SELECT found_by FROM sessions"
    words = {word for (words,) in rows(sqlite.path, kept) for word in words.split()}
    with connected(sqlite.path) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab('main', 'search', 'row')")
        assert {term for (term,) in connection.execute("SELECT term FROM temp.terms")} == words
        connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")


async def test_a_library_without_fts5_searches_and_writes_and_the_next_one_with_it_makes_the_index_anew(
    open_sqlite: OpenSQLite, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_sqlite()
    await said(store, "s-1", "jabberwocky")
    log = await said(store, "s-2", "slithy", title="toves")
    with monkeypatch.context() as patch:
        without_fts5(patch)
        poor = await open_sqlite()
        assert poor.mechanisms["search"] == "scan"
        assert await searched(poor, "jabber") == ["s-1"]
        await poor.append(log.next(e.SettingsChanged(title="mimsy")))
        await said(poor, "s-3", "slithy again")
        assert [await searched(poor, query) for query in ("slit", "mims", "tove")] == [["s-3", "s-2"], ["s-2"], []]
        await poor.delete("s-1")
        assert b"abberwocky" not in bytes_in(folder)
    assert [await searched(store, query) for query in ("slit", "mims", "jabb")] == [["s-3", "s-2"], ["s-2"], []]
    await said(store, "s-4", "slithy, too")
    assert await searched(store, "slit") == ["s-4", "s-3", "s-2"]
    assert rows(file, "SELECT indexed FROM realm") == [(0,)]
    again = await open_sqlite()
    assert rows(file, "SELECT indexed FROM realm") == [(1,)]
    for one in (store, again):
        assert [await searched(one, query) for query in ("slit", "mims", "tove")] == [
            ["s-4", "s-3", "s-2"],
            ["s-2"],
            [],
        ]
    await said(store, "s-5", "slithy, of course")
    assert (await searched(again, "slit"))[0] == "s-5"


async def test_a_file_made_by_a_library_without_fts5_gets_its_index_later(
    open_sqlite: OpenSQLite, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        without_fts5(patch)
        await said(await open_sqlite(), "s-1", "jabberwocky")
        assert rows(file, "SELECT count(*) FROM sqlite_master WHERE name LIKE 'search%'") == [(0,)]
    assert await searched(await open_sqlite(), "jabber") == ["s-1"]
    assert rows(file, "SELECT indexed FROM realm") == [(1,)]


PAGES = {
    "all": (Page(Selection(), None, 0, 50), "sessions_by_archive"),
    "archived too": (Page(Selection(archived=None), None, 0, 50), "sessions_by_activity"),
    "a principal's": (Page(Selection(principal="ann"), None, 0, 50), "sessions_by_principal"),
    "searched": (Page(Selection(query="a"), Cursor(updated_ms=1, session_id="s"), 0, 50), "sessions_by_archive"),
    "labelled": (Page(Selection(labels={"a": "b"}, states=("idle",)), None, 0, 50), "sessions_by_archive"),
}


@pytest.mark.parametrize("which", PAGES)
async def test_a_walk_goes_along_an_index_and_sorts_nothing(sqlite: SQLiteStore, which: str) -> None:
    page, index = PAGES[which]
    walk = page.walk()
    plan = [row[3] for row in await sqlite._rows(f"EXPLAIN QUERY PLAN {walk.sql}", walk.parameters)]
    assert index in plan[0]
    assert not any("TEMP B-TREE" in step or step.startswith("SCAN said") for step in plan)


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (sqlite_upkeep.READY, "sessions_by_readiness"),
        (sqlite_upkeep.AT_WORK, "sessions_by_doing"),
        ("SELECT number FROM sessions WHERE doing IN (?, ?)", "sessions_by_doing"),
        ("SELECT id FROM sessions WHERE principal = ? AND id >= ? AND id < ?", "sessions_of_principal"),
        ("DELETE FROM claims WHERE created_ms < ?", "claims_by_age"),
    ],
)
async def test_what_is_rare_is_found_in_an_index(sqlite: SQLiteStore, sql: str, index: str) -> None:
    plan = await sqlite._rows(f"EXPLAIN QUERY PLAN {sql}", ("1",) * sql.count("?"))
    assert f"INDEX {index}" in plan[0][3]


# ── work that waits ──


async def test_nothing_is_written_where_nothing_waits(sqlite: SQLiteStore) -> None:
    log = await begun(sqlite)
    before = sqlite.writer.commits
    assert await sqlite.take(ready_before_ms=9, until_ms=9, now_ms=0, limit=9) == []
    assert sqlite.writer.commits == before
    await sqlite.append(log.next(e.TurnStarted(prompt="p", owner=OWNER), e.TurnSuspended()))
    for taken in (["s-1"], [], []):
        assert await sqlite.take(ready_before_ms=9, until_ms=9, now_ms=0, limit=9) == taken
    assert sqlite.writer.commits == before + 2


TAKE_ALL = """
say("ready")
await heard()
while taken := await store.take(ready_before_ms=1000, until_ms=1000, now_ms=0, limit=2):
    say(*taken)
"""


async def test_processes_share_what_waits(sqlite: SQLiteStore, folder: Path) -> None:
    for number in range(100):
        log = await begun(sqlite, f"s-{number:02}")
        await sqlite.append(log.next(e.TurnStarted(prompt="p", owner=OWNER), e.TurnSuspended(), at_ms=number))
    with anyio.fail_after(LONG_S):
        async with another_process(folder, TAKE_ALL) as (one, ones), another_process(folder, TAKE_ALL) as (two, twos):
            for process, lines in ((one, ones), (two, twos)):
                assert await lines.next() == "ready"
                await tell(process)
            taken = [session_id for lines in (ones, twos) for line in await lines.rest() for session_id in line.split()]
    assert sorted(taken) == [f"s-{number:02}" for number in range(100)]


async def test_tidying_moves_no_event_and_rings_no_bell(sqlite: SQLiteStore, open_sqlite: OpenSQLite) -> None:
    log = await begun(sqlite)
    await sqlite.append(log.delta("a"))
    await sqlite.append(log.next(e.ReasoningComplete(text="long"), e.TextComplete(text="b")))
    other = await open_sqlite()
    before = rows(sqlite.path, "SELECT seq, position FROM events")
    less = encode(e.ReasoningComplete(text="", seq=3, session_id="s-1"))
    await sqlite.tidy("s-1", without=[2], instead=[less])
    assert rows(sqlite.path, "SELECT seq, position FROM events") == [before[0], *before[2:]]
    with anyio.move_on_after(0.2) as heard:
        await other.bell.wait()
    assert heard.cancelled_caught


# ── files of earlier versions ──


def made_by_version_2(file: Path, logs: Sequence[Log]) -> None:
    """A file as the program wrote it that knew two scripts, with what it looked for in `found_by`."""
    made(file.parent)
    with connected(file) as connection:
        connection.executescript("".join(sqlite_file._MIGRATIONS[:2]))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}")
        for number, log in enumerate(logs, 1):
            session = log.shown
            row = (
                number,
                log.id,
                session.state,
                session.updated_ms,
                found_by(session).casefold(),
                session.model_dump_json(),
            )
            sql = "INSERT INTO sessions (number, id, state, updated_ms, found_by, body) VALUES (?, ?, ?, ?, ?, ?)"
            connection.execute(sql, row)
            after = 0
            for recorded in log.events:
                event = (number, after, recorded.seq, recorded.type, recorded.body)
                connection.execute("INSERT INTO log (session, after, seq, type, body) VALUES (?, ?, ?, ?, ?)", event)
                after = recorded.seq
        connection.execute("PRAGMA user_version = 2")


def of_version_2() -> list[Log]:
    logs = [Log(f"s-{number:04}") for number in range(1200)]
    for number, log in enumerate(logs):
        log.begin(title=f"Title {number}", labels={"team": "Größe"}, at_ms=number)
        log.next(e.TurnStarted(prompt=f"{'long ' * 20} jabber{number}", owner=OWNER), at_ms=number)
        log.text(f"Füße {number}")
        if number:
            log.next(e.TurnCompleted(), at_ms=number)
    return logs


async def test_a_file_of_version_2_is_brought_up_to_date_with_all_that_was_said(
    file: Path, open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = of_version_2()
    made_by_version_2(file, logs)
    store = await open_sqlite()
    for log in logs[::100]:
        assert await store.read(log.id) == log.events
        assert await store.load(log.id) == log.session
    assert await searched(store, "jabber77") == [f"s-{number:04}" for number in (*range(779, 769, -1), 77)]
    assert await searched(store, "FÜSSE 5") == [f"s-{number:04}" for number in range(599, 549, -1)]
    assert await searched(store, "title 1100") == await searched(store, "1100 gröss") == ["s-1100"]
    assert await store.working() == [("s-0000", "life")]
    assert rows(file, "SELECT indexed FROM realm") == [(1,)]
    await store.append(logs[5].text("slithy"))
    assert await searched(store, "slithy") == ["s-0005"]
    await store.delete("s-0005")
    assert b"lithy" not in bytes_in(file.parent)


async def test_a_program_of_version_2_that_still_runs_can_add_nothing_and_what_it_deletes_is_not_found(
    file: Path, folder: Path, open_sqlite: OpenSQLite
) -> None:
    made_by_version_2(file, [])
    with connected(file) as old:
        old.execute("PRAGMA foreign_keys = ON")
        old.execute("INSERT INTO sessions (id) VALUES ('s-old')")
        add = "INSERT INTO log (session, after, seq, type, body) VALUES (1, 0, 1, 'session_created', '{}')"
        old.execute(add)
        store = await open_sqlite()
        with pytest.raises(library.OperationalError, match="no such table"):
            old.execute(add)
        assert sqlite_file.newer(old) is None
        await said(store, "s-1", "jabberwocky")
        await said(store, "s-2", "jabberwocky and slithy toves")
        old.execute("DELETE FROM sessions WHERE id = 's-1'")
        assert await searched(store, "jabber") == ["s-2"]
    await store.delete("s-2")
    await store.close()
    assert await searched(await open_sqlite(), "jabber") == []
    assert b"abberwocky" not in bytes_in(folder)


# ── instances ──


def instance(incarnation: str = "life-1", *, expires_ms: int = 1 << 60) -> Instance:
    return Instance(instance_id="i", incarnation=incarnation, host="h", pid=1, expires_ms=expires_ms)


RENEW = """
await store.renew(Instance(instance_id="i", incarnation="theirs", host="h", pid=1, expires_ms=1 << 60))
say("renewed")
await heard()
"""


async def test_a_killed_process_is_known_to_be_dead_at_once(sqlite: SQLiteStore, folder: Path) -> None:
    with anyio.fail_after(LONG_S):
        async with another_process(folder, RENEW) as (process, lines):
            assert await lines.next() == "renewed"
            assert await sqlite.alive("theirs", now_ms=0)
            process.kill()
            await process.wait()
            assert not await sqlite.alive("theirs", now_ms=0)


async def test_a_process_that_closed_the_store_is_done(sqlite: SQLiteStore, folder: Path) -> None:
    with anyio.fail_after(LONG_S):
        async with another_process(folder, RENEW) as (process, lines):
            assert await lines.next() == "renewed"
            await tell(process)
            await process.wait()
            assert not await sqlite.alive("theirs", now_ms=0)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows stops no processes")
async def test_the_lease_of_a_stopped_process_decides(sqlite: SQLiteStore, folder: Path) -> None:
    body = RENEW.replace("1 << 60", "1000")
    with anyio.fail_after(LONG_S):
        async with another_process(folder, body) as (process, lines):
            assert await lines.next() == "renewed"
            process.send_signal(signal.SIGSTOP)
            assert await sqlite.alive("theirs", now_ms=999)
            assert not await sqlite.alive("theirs", now_ms=1001)


async def test_a_process_does_not_doubt_itself(sqlite: SQLiteStore) -> None:
    await sqlite.renew(instance(expires_ms=1000))
    assert await sqlite.alive("life-1", now_ms=5000)


@pytest.mark.parametrize("loss", ["the lock file", "locks"])
async def test_without_a_lock_the_lease_decides(
    open_sqlite: OpenSQLite, folder: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    def refuse(*_: object) -> bool:
        raise OSError("no locks available")

    store, other = await open_sqlite(), await open_sqlite()
    if loss == "locks":
        monkeypatch.setattr(sqlite_instances.FileLock, "acquire", refuse)
        monkeypatch.setattr(sqlite_instances, "is_held", refuse)
        store._instances.renew(
            sqlite_library.connect(store.path, busy_timeout_s=9, pragmas=()), instance(expires_ms=1000), now_ms=0
        )
        monkeypatch.undo()
    else:
        await store.renew(instance(expires_ms=1000))
        (folder / "instances" / "life-1.lock").unlink()
    assert await other.alive("life-1", now_ms=999)
    assert not await other.alive("life-1", now_ms=1001)


async def test_who_comes_sweeps_up_after_the_dead(sqlite: SQLiteStore, open_sqlite: OpenSQLite, folder: Path) -> None:
    living = await open_sqlite()
    await living.renew(instance("living", expires_ms=1))
    for incarnation in ("dead-1", "dead-2"):
        gone = await open_sqlite()
        await gone.renew(instance(incarnation))
        await gone.close()
    (folder / "instances" / "dead-2.lock").unlink()
    changed(sqlite.path, "UPDATE instances SET expires_ms = 1 WHERE incarnation = 'dead-2'")
    await sqlite.renew(instance())
    assert set(found(folder / "instances")) == {"living.lock", "life-1.lock"}
    with connected(sqlite.path) as connection:
        assert {row[0] for row in connection.execute("SELECT incarnation FROM instances")} == {"living", "life-1"}


async def test_a_retired_instance_leaves_nothing_behind(sqlite: SQLiteStore, folder: Path) -> None:
    await sqlite.renew(instance())
    await sqlite.retire("life-1")
    assert found(folder / "instances") == {}


# ── opening and closing ──


async def test_a_store_that_is_closing_writes_what_was_queued_and_takes_nothing_more(
    sqlite: SQLiteStore, open_sqlite: OpenSQLite
) -> None:
    log = await begun(sqlite)
    lock = FileLock(sqlite.path.parent / "realm.lock")
    with closing(lock), anyio.fail_after(LONG_S):
        lock.acquire()
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(sqlite.append, log.text())
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(sqlite.close)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(StoreUnavailable, match="closed"):
                await sqlite.append(log.text())
            lock.release()
    assert len(await (await open_sqlite()).read("s-1")) == 11


async def test_closing_does_not_wait_for_a_frozen_process_forever(
    open_sqlite: OpenSQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "PATIENCE_S", 0.02)
    store = await open_sqlite()
    lock = FileLock(store.path.parent / "realm.lock")
    with closing(lock), anyio.fail_after(LONG_S):
        lock.acquire()
        with pytest.raises(StoreUnavailable, match="could not be written"):
            await store.close()
        await store.close()
        lock.release()
        await anyio.to_thread.run_sync(store.writer._thread._thread.join)


async def test_a_closed_store_says_so(sqlite: SQLiteStore) -> None:
    await sqlite.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await sqlite.append(Log().begin())
    for limit in (1, 1000):
        with pytest.raises(StoreUnavailable, match="closed"):
            await sqlite.read("s-1", limit=limit)


async def test_the_last_one_to_close_leaves_one_file(open_sqlite: OpenSQLite, folder: Path) -> None:
    stores = [await open_sqlite() for _ in range(3)]
    await begun(stores[0])
    for store in stores:
        await store.close()
    assert set(found(folder)) == {"realm.sqlite3", "realm.lock", "realm.bell"}


def test_one_event_loop_after_the_other_can_use_a_realm(folder: Path) -> None:
    async def use() -> int:
        store = await SQLiteStore.open(folder, clock_ms=lambda: 0)
        log = Log()
        log.session = log.session.model_copy(update={"seq": len(await store.read("s-1"))})
        await store.append(log.text() if log.session.seq else log.begin())
        await store.close()
        return log.session.seq

    assert [anyio.run(use) for _ in range(3)] == [1, 2, 3]


async def test_a_cancelled_opening_can_be_repeated(open_sqlite: OpenSQLite, folder: Path) -> None:
    made(folder)
    lock = FileLock(folder / "realm.lock")
    with closing(lock), anyio.fail_after(LONG_S):
        lock.acquire()
        with anyio.move_on_after(0.05) as scope:
            await open_sqlite()
        assert scope.cancelled_caught
        lock.release()
        await begun(await open_sqlite())


@pytest.mark.parametrize(
    ("version", "faulty"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 4), False),
        ((4, 0, 0), False),
    ],
)
def test_versions_of_sqlite_that_can_lose_commits_are_named(version: tuple[int, ...], faulty: bool) -> None:
    warnings = version_warnings(version)
    assert len(warnings) == faulty
    assert all(".".join(map(str, version)) in warning for warning in warnings)


def test_the_contract_holds_on_pythons_own_sqlite_too(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['pysqlite3'] = None; import pytest;"
        "from meerkat_mcp.stores import sqlite_library;"
        f"assert sqlite_library.sqlite_version == {sqlite3.sqlite_version!r};"
        "sys.exit(pytest.main(['tests/stores/test_contract.py', '-k', 'sqlite and not polling', '-n', '0', '-p',"
        f"'no:cacheprovider', '--basetemp', {str(tmp_path / 'tests')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
