"""Appends for some seconds: `store` and `raw` 400 events/s that come at random, `flood` as fast as 32 tasks can."""

import json
import random
import sys
import time
from pathlib import Path

import anyio
import anyio.to_thread

from benchmarks.appending import INSERT, RAW_PRAGMAS
from benchmarks.places import begun, filler, following, store_in
from meerkat_mcp.stores.sqlite_library import connect

RATE = 400
TASKS = 32


def main() -> None:
    mode, path, seconds, number = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    if mode == "raw":
        late_ms = raw(path / "raw.sqlite3", seconds, number + 1)
    else:
        late_ms = anyio.run(store if mode == "store" else flood, path, seconds)
    print(json.dumps({"late_ms": late_ms if mode != "flood" else [], "count": len(late_ms)}), flush=True)


def wait_for_go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


async def store(path: Path, seconds: float) -> list[float]:
    """Each append is begun when it is due; how long each took."""
    late_ms: list[float] = []

    async def one(seq: int, began: float) -> None:
        await kept.append(following(session, seq))
        late_ms.append((time.perf_counter() - began) * 1000)

    async with store_in(path) as kept, anyio.create_task_group() as tasks:
        session = await begun(kept)
        await anyio.to_thread.run_sync(wait_for_go)
        due = time.perf_counter()
        end, seq = due + seconds, 1
        while due < end:
            due += random.expovariate(RATE)
            await anyio.sleep(max(0.0, due - time.perf_counter()))
            seq += 1
            tasks.start_soon(one, seq, time.perf_counter())
    return late_ms


def raw(path: Path, seconds: float, session: int) -> list[float]:
    """What is due by the time the lock is got goes into one transaction; how long after it was due each was there."""
    connection = connect(path, busy_timeout_s=30, pragmas=RAW_PRAGMAS)
    body = filler(300)
    wait_for_go()
    start = time.perf_counter()
    dues = [start]
    while dues[-1] < start + seconds:
        dues.append(dues[-1] + random.expovariate(RATE))
    late_ms: list[float] = []
    while len(late_ms) < len(dues):
        time.sleep(max(0.0, dues[len(late_ms)] - time.perf_counter()))
        connection.execute("BEGIN IMMEDIATE")
        now, first = time.perf_counter(), len(late_ms)
        batch = [due for due in dues[first : first + 512] if due <= now]
        connection.executemany(INSERT, [(session, first + at + 1, body) for at in range(len(batch))])
        connection.execute("COMMIT")
        done = time.perf_counter()
        late_ms += [(done - due) * 1000 for due in batch]
    connection.close()
    return late_ms


async def flood(path: Path, seconds: float) -> list[float]:
    """One entry for each append."""
    done: list[float] = []

    async def producer() -> None:
        session, seq = await begun(kept), 1
        started.set()
        await go.wait()
        while time.perf_counter() < end:
            seq += 1
            await kept.append(following(session, seq))
            done.append(0.0)

    go, end = anyio.Event(), 0.0
    async with store_in(path) as kept, anyio.create_task_group() as tasks:
        for _ in range(TASKS):
            started = anyio.Event()
            tasks.start_soon(producer)
            await started.wait()
        await anyio.to_thread.run_sync(wait_for_go)
        end = time.perf_counter() + seconds
        go.set()
    return done


main()
