"""Pages of a long list of sessions."""

import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from benchmarks.places import REALM, clock, folder, realm_in
from benchmarks.results import Row, Scale, alternating, at_most, share
from meerkat_mcp.domain.session import Session
from meerkat_mcp.stores.base import Selection
from meerkat_mcp.stores.sqlite_file import FILE_NAME
from meerkat_mcp.stores.sqlite_library import connect

PAGE = 50
INSERT = "INSERT INTO sessions (id, state, updated_ms, body) VALUES (?, 'idle', ?, ?)"


def list_pages(scale: Scale) -> Sequence[Row]:
    """Pages of 50 out of 100,000 sessions by their cursors: the slowest of several places, against the first page."""
    total = scale.of(20_000, 100_000)
    depths = [0, *(int(total * part) for part in (0.01, 0.1, 0.5, 0.99))]
    with folder() as root:
        anyio.run(_make, root)
        _fill(root / REALM / FILE_NAME, total)
        p50s = anyio.run(_pages, root, depths, scale.of(30, 200))
    worst = max(range(1, len(depths)), key=lambda at: p50s[at])
    what = f"slowest page of {total} sessions (at {depths[worst]}), vs the first"
    return [Row("16", what, "us", p50s[worst], p50s[0], at_most(2))]


async def _make(root: Path) -> None:
    async with realm_in(root):
        pass


def _fill(path: Path, total: int) -> None:
    rows: list[tuple[str, int, bytes]] = []
    now_ms = clock.now_ms()
    for number in range(total):
        session = Session(id=clock.new_id(), seq=1, state="idle", title=f"session {number}", updated_ms=now_ms + number)
        rows.append((session.id, session.updated_ms, session.model_dump_json().encode()))
    connection = connect(path, busy_timeout_s=10, pragmas=("synchronous = OFF",))
    connection.execute("BEGIN")
    connection.executemany(INSERT, rows)
    connection.execute("COMMIT")
    connection.close()


async def _pages(root: Path, depths: Sequence[int], times: int) -> list[float]:
    """The median time of a page at each depth."""
    taken: list[list[float]] = [[] for _ in depths]
    async with realm_in(root) as realm:
        cursors: list[str | None] = [None]
        for depth in depths[1:]:
            before = await realm.reading.list(Selection(), offset=depth - 1, limit=1)
            cursors.append(before.next_cursor)
        for which in alternating(times, len(depths)):
            started = time.perf_counter()
            page = await realm.reading.list(Selection(), cursor=cursors[which], limit=PAGE)
            taken[which].append((time.perf_counter() - started) * 1e6)
            if len(page.sessions) != PAGE:
                raise RuntimeError(f"{len(page.sessions)} sessions on a page")
    return [share(numbers, 0.5) for numbers in taken]
