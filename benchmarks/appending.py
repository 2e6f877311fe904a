"""Writing events down: throughput, the latency of one, and the bytes they take."""

import time
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median

import aiosqlite
import anyio

from benchmarks.places import begun, filler, folder, following, store_in
from benchmarks.results import Row, Scale, alternating, at_least, at_most, share
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores.sqlite import SQLiteStore
from meerkat_mcp.stores.sqlite_library import Connection, connect

PRODUCERS = 256
EVENT_BYTES = 300
INSERT = "INSERT INTO events (session, seq, type, body) VALUES (?, ?, 'step_started', ?)"
RAW_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "cache_size = -16000")


def raw_file(path: Path, sessions: int, *, timeout_s: float = 30.0) -> Connection:
    """A database with the realm's tables and some sessions, written by the same library without our code."""
    connection = connect(path, busy_timeout_s=timeout_s, pragmas=RAW_PRAGMAS)
    schema = files("meerkat_mcp.stores") / "sql" / "0001_realm.sql"
    connection.executescript(schema.read_text(encoding="utf-8"))
    connection.executemany("INSERT INTO sessions (id) VALUES (?)", [(f"s{number}",) for number in range(sessions)])
    return connection


def append(scale: Scale) -> Sequence[Row]:
    """Durable appends a second by 256 producers through the store, against executemany(256) and COMMIT on one table."""
    each = scale.of(40, 120)
    rates: tuple[list[float], list[float]] = ([], [])
    for which in alternating(scale.of(3, 9)):
        with folder() as path:
            rate = anyio.run(_appended, path, each) if which == 0 else _raw_batches(path / "raw.sqlite3", each)
            rates[which].append(rate)
    ours, raw = map(median, rates)
    return [Row("6", "durable appends, 256 producers, vs executemany(256)+commit", "1/s", ours, raw, at_least(0.45))]


async def _appended(path: Path, each: int) -> float:
    async with store_in(path) as store:
        sessions = [await begun(store) for _ in range(PRODUCERS)]
        started = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for session in sessions:
                tasks.start_soon(_append_in_turn, store, session, each)
        return PRODUCERS * each / (time.perf_counter() - started)


async def _append_in_turn(store: SQLiteStore, session: Session, count: int) -> None:
    for seq in range(2, count + 2):
        await store.append(following(session, seq))


def _raw_batches(path: Path, each: int) -> float:
    connection = raw_file(path, PRODUCERS)
    body = filler(EVENT_BYTES)
    started = time.perf_counter()
    for seq in range(2, each + 2):
        rows = [(number, seq, body) for number in range(1, PRODUCERS + 1)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, rows)
        connection.execute("COMMIT")
    rate = PRODUCERS * each / (time.perf_counter() - started)
    connection.close()
    return rate


def append_single(scale: Scale) -> Sequence[Row]:
    """One durable append at a time, its median, against INSERT and COMMIT of one event; and against aiosqlite's way."""
    with folder() as path:
        ours, raw, aio = anyio.run(_singles, path, scale.of(200, 1500))
    return [
        Row("7", "one durable append p50, vs raw INSERT+COMMIT", "ms", ours, raw, at_most(2.0)),
        Row("7", "one durable append p50, vs aiosqlite BEGIN, INSERT, COMMIT", "ms", ours, aio, at_most(0.67)),
    ]


async def _singles(path: Path, count: int) -> list[float]:
    """The medians of the three ways, event by event in turn, each on a file of its own."""
    taken: tuple[list[float], ...] = ([], [], [])
    raw = raw_file(path / "raw.sqlite3", 1)
    raw_file(path / "aio.sqlite3", 1).close()
    opened = partial(connect, path / "aio.sqlite3", busy_timeout_s=30, pragmas=RAW_PRAGMAS)
    async with store_in(path) as store, aiosqlite.Connection(opened, 64) as aio:
        session = await begun(store)

        async def by_store(seq: int) -> None:
            await store.append(following(session, seq))

        async def by_hand(seq: int) -> None:
            raw.execute(INSERT, (1, seq, filler(EVENT_BYTES)))

        async def by_aiosqlite(seq: int) -> None:
            await aio.execute("BEGIN IMMEDIATE")
            await aio.execute(INSERT, (1, seq, filler(EVENT_BYTES)))
            await aio.commit()

        ways = (by_store, by_hand, by_aiosqlite)
        for at, which in enumerate(alternating(count, 3)):
            started = time.perf_counter()
            await ways[which](at // 3 + 2)
            taken[which].append((time.perf_counter() - started) * 1000)
    raw.close()
    return [share(numbers, 0.5) for numbers in taken]


def storage(scale: Scale) -> Sequence[Row]:
    """Bytes of the closed file for an event of 220 bytes, over the 220."""
    size, sessions, each = 220, 20, scale.of(250, 1000)

    async def fill(path: Path) -> None:
        async with store_in(path) as store:
            begun_here = [await begun(store) for _ in range(sessions)]
            for seq in range(2, each + 2):
                async with anyio.create_task_group() as tasks:
                    for session in begun_here:
                        tasks.start_soon(store.append, following(session, seq, size))

    with folder() as path:
        anyio.run(fill, path)
        total = sum(file.stat().st_size for file in path.glob("realm.sqlite3*"))
    what = "file bytes for an event of 220 bytes, vs its bytes"
    return [Row("15", what, "B", total / (sessions * each), size, at_most(1.4))]
