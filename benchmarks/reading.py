"""Reading a log: the next events of a large one, and events from their JSON."""

import json
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio

from benchmarks.places import filler, folder, realm_in, store_in
from benchmarks.results import Row, Scale, alternating, at_most, interleaved, share
from benchmarks.turning import turn
from meerkat_mcp.domain.recorded import Recorded
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.stores.sqlite_file import FILE_NAME
from meerkat_mcp.stores.sqlite_library import Connection, connect

LIVE = 16
EVENTS_OF_SESSION = 5000
ROWS = 100
INSERT = "INSERT INTO events (session, seq, type, body) VALUES (?, ?, 'step_completed', ?)"
SINCE = "SELECT seq, type, body FROM events WHERE session = ? AND seq > ? ORDER BY seq LIMIT ?"
READER_PRAGMAS = ("query_only = ON", "cache_size = -8000")


def read_since(scale: Scale) -> Sequence[Row]:
    """The next 100 events of a session out of 1e6 (16 sessions live at a time), against 1e5 and against the query."""
    small, large = 10**5, scale.of(2 * 10**5, 10**6, 10**7)
    with folder() as root:
        times = anyio.run(_reads, root, (small, large), scale.of(300, 2000))
    store_small, store_large, bare = (share(taken, 0.5) for taken in times)
    return [
        Row("14", f"read 100 of {large:.0e} events, vs of {small:.0e}", "us", store_large, store_small, at_most(1.6)),
        Row("14", "the same through the store, vs the bare query", "us", store_large, bare, at_most(3)),
    ]


async def _reads(root: Path, sizes: tuple[int, int], count: int) -> list[list[float]]:
    """Times of the store on both files, then of the bare query on the larger one, read by read in turn."""
    taken: list[list[float]] = [[], [], []]
    for name, size in zip("sl", sizes, strict=True):
        await _fill(root / name, size)
    async with store_in(root / "s") as small, store_in(root / "l") as large:
        raw = connect(root / "l" / FILE_NAME, busy_timeout_s=1, pragmas=READER_PRAGMAS)
        places = [_place(number, size) for number in range(count) for size in sizes]
        for at, which in enumerate(alternating(count, 3)):
            session, seq = places[2 * (at // 3) + (which > 0)]
            started = time.perf_counter()
            if which < 2:
                found: Sequence[Any] = await (small, large)[which].read(f"s{session}", after=seq, limit=ROWS)
            else:
                found = _bare(raw, session, seq)
            taken[which].append((time.perf_counter() - started) * 1e6)
            if len(found) != ROWS:
                raise RuntimeError(f"{len(found)} events instead of {ROWS}")
        raw.close()
    return taken


def _bare(connection: Connection, session: int, seq: int) -> list[tuple[Any, ...]]:
    return connection.execute(SINCE, (session, seq, ROWS)).fetchall()


def _place(number: int, events: int) -> tuple[int, int]:
    """A session, and a place in the middle of it, that differ from read to read."""
    return number * 7919 % (events // EVENTS_OF_SESSION) + 1, number * 104_729 % (EVENTS_OF_SESSION - 2 * ROWS)


async def _fill(path: Path, events: int) -> None:
    """A file with so many events, as 16 sessions at a time would have left them."""
    async with store_in(path):
        pass
    connection = connect(path / FILE_NAME, busy_timeout_s=10, pragmas=("synchronous = OFF",))
    sessions = events // EVENTS_OF_SESSION
    connection.executemany("INSERT INTO sessions (id) VALUES (?)", [(f"s{n}",) for n in range(1, sessions + 1)])
    body = filler(220)
    for first in range(1, sessions + 1, LIVE):
        live = range(first, min(first + LIVE, sessions + 1))
        rows = ((session, seq, body) for seq in range(1, EVENTS_OF_SESSION + 1) for session in live)
        connection.execute("BEGIN")
        connection.executemany(INSERT, rows)
        connection.execute("COMMIT")
    connection.close()


def replay(scale: Scale) -> Sequence[Row]:
    """Reading events from their JSON, the log of a real turn, against json.loads of the same bytes."""
    with folder() as root:
        log = anyio.run(_log, root)
    bodies, times = [recorded.body for recorded in log], scale.of(20, 100)

    def cost(decode: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            started = time.perf_counter()
            decode()
            return (time.perf_counter() - started) / len(log) * 1e6

        return measure

    def events() -> object:
        return [recorded.event for recorded in log]

    ours, plain = interleaved(times, cost(events), cost(lambda: [json.loads(body) for body in bodies]))
    rows = [Row("18", "an event from its JSON, vs json.loads", "us", ours, plain, at_most(4))]
    if find_spec("orjson"):  # no dependency of ours, only another yardstick
        import orjson

        ours, fast = interleaved(times, cost(events), cost(lambda: [orjson.loads(body) for body in bodies]))
        rows.append(Row("18", "the same, vs orjson.loads (no dependency)", "us", ours, fast))
    return rows


async def _log(root: Path) -> list[Recorded]:
    """The events of some turns, deltas too, many times over."""
    seen: list[Recorded] = []
    async with realm_in(root) as realm:
        session_id = (await realm.sessions.run("", Settings())).session_id
        for _ in range(3):
            await turn(realm, realm.sessions, session_id, "[[delta_ms 5]][[words 100]]", seen.append)
    return seen * 20
