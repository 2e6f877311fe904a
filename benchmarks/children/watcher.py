"""Watches a session's events as another process writes them: `store` through the store's bell, `poll` each 10 ms."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from benchmarks.places import store_in
from meerkat_mcp.stores.sqlite_file import FILE_NAME
from meerkat_mcp.stores.sqlite_library import connect

NEW = "SELECT seq FROM events WHERE session = (SELECT number FROM sessions WHERE id = ?) AND seq > ? ORDER BY seq"


class Idle:
    """How much this process works from when it is made to the first event."""

    def __init__(self) -> None:
        print("ready", flush=True)
        self._before = (time.process_time(), time.perf_counter())
        self.share: float | None = None

    def over(self) -> None:
        """The first event is here; what follows is not idle."""
        if self.share is None:
            cpu, wall = self._before
            self.share = (time.process_time() - cpu) / (time.perf_counter() - wall)


def main() -> None:
    mode, path, session_id, last = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    seen_ns: list[int] = []
    if mode == "store":
        share = anyio.run(by_store, path, session_id, last, seen_ns.append)
    else:
        share = by_poll(path / FILE_NAME, session_id, last, seen_ns.append)
    print(json.dumps({"seen_ns": seen_ns, "idle_share": share}), flush=True)


async def by_store(path: Path, session_id: str, last: int, saw: Callable[[int], None]) -> float | None:
    async with store_in(path) as store:
        idle, seq = Idle(), 1
        async for _ in store.changes():
            idle.over()
            for recorded in await store.read(session_id, after=seq):
                saw(time.monotonic_ns())
                seq = recorded.seq
            if seq == last:
                break
        return idle.share


def by_poll(path: Path, session_id: str, last: int, saw: Callable[[int], None]) -> float | None:
    connection = connect(path, busy_timeout_s=10, pragmas=())
    version = connection.execute("PRAGMA data_version").fetchone()
    idle, seq = Idle(), 1
    while seq < last:
        time.sleep(0.01)
        if (now := connection.execute("PRAGMA data_version").fetchone()) != version:
            version = now
            for (new,) in connection.execute(NEW, (session_id, seq)).fetchall():
                idle.over()
                saw(time.monotonic_ns())
                seq = new
    connection.close()
    return idle.share


main()
