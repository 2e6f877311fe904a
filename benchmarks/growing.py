"""Realms of 10^3 to 10^6 events: what grows with them, and what does not.

`python -m benchmarks.growing [--backend sqlite|postgres] [--sizes 3,4,5,6]` shows all of it in a table by size.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import anyio

from benchmarks.filling import COMMON, RARE, Filled, Place, fill, following, postgres_database, settle_in
from benchmarks.places import REALM, clock, folder
from benchmarks.results import Row, Scale, at_most, share
from meerkat_mcp.domain import events as e
from meerkat_mcp.domain.realm import Backend
from meerkat_mcp.realms import Realm
from meerkat_mcp.stores.base import Cursor, Selection

PAGE = 50
SINCE = 100
TIMES = 60
OPENINGS = 5
DELETIONS = 5
FEW_MS = 5.0
HOUR_MS = 3_600_000
OPENING, MEMORY, FILLING, DISK = "open a realm", "memory of an open realm", "fill", "on the disk"
UNITS = {MEMORY: "MB", FILLING: "s", DISK: "MB"}

Call = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Times:
    """What one operation took: the median and the p99, in ms (or in what `UNITS` says)."""

    p50: float
    p99: float

    @classmethod
    def of(cls, taken: Sequence[float]) -> "Times":
        return cls(share(taken, 0.5), share(taken, 0.99))


Measured = Mapping[str, Times]


def growing_sqlite(scale: Scale) -> Sequence[Row]:
    """Lists, searches, reads and appends on SQLite in a realm of 10^5 events (10^6 with --full), against 10^3."""
    return _rows("sqlite", scale)


def growing_postgres(scale: Scale) -> Sequence[Row]:
    """The same on PostgreSQL; nothing where there is no server on 127.0.0.1:5432."""
    return _rows("postgres", scale)


def _rows(backend: Backend, scale: Scale) -> Sequence[Row]:
    small, large = 10**3, scale.of(10**4, 10**5, 10**6)
    found = by_size(backend, (small, large))
    if found is None:
        return ()
    rows: list[Row] = []
    for what, times in found[large].items():
        name, unit = f"{backend}, {large:.0e} events: {what}", UNITS.get(what, "ms")
        rows.append(Row("issue", f"{name}, vs {small:.0e}", unit, times.p50, found[small][what].p50))
        if what in QUICK:
            rows.append(Row("issue", name, unit, times.p50, None, at_most(FEW_MS)))
    return rows


def by_size(backend: Backend, sizes: Sequence[int]) -> Mapping[int, Measured] | None:
    """Everything that is measured, at each size; None when the backend is not there."""
    found: dict[int, Measured] = {}
    for size in sizes:
        with ExitStack() as owned:
            dsn = owned.enter_context(postgres_database()) if backend == "postgres" else ""
            if dsn is None:
                return None
            found[size] = _measured(Place(owned.enter_context(folder()), backend), size)
    return found


def _measured(at: Place, size: int) -> Measured:
    filled, seconds = anyio.run(_fill, at, size)
    taken = anyio.run(_work, at, filled)
    openings = [_opened(at) for _ in range(OPENINGS)]
    taken[OPENING] = [said["ms"] for said in openings]
    taken[MEMORY] = [said["mb"] for said in openings]
    taken[FILLING] = [seconds]
    if at.backend == "sqlite":
        taken[DISK] = [sum(file.stat().st_size for file in (at.root / REALM).iterdir() if file.is_file()) / 2**20]
    return {what: Times.of(numbers) for what, numbers in taken.items()}


async def _fill(at: Place, size: int) -> tuple[Filled, float]:
    started = time.perf_counter()
    async with at.opened() as realm:
        filled = await fill(realm.store, size)
    if at.backend == "postgres":
        await settle_in()
    return filled, time.perf_counter() - started


async def _work(at: Place, filled: Filled) -> dict[str, list[float]]:
    """Every operation so many times, in turn, each time on something else."""
    chance, taken = Random(1), dict[str, list[float]]()
    async with at.opened() as realm:
        calls = await _calls(realm, filled)
        for _ in range(TIMES):
            for what, make in calls.items():
                call = await make(chance)
                started = time.perf_counter()
                await call()
                taken.setdefault(what, []).append((time.perf_counter() - started) * 1000)
        for session_id in chance.sample(filled.session_ids[: len(filled.session_ids) // 2], DELETIONS):
            started = time.perf_counter()
            await realm.store.delete(session_id)
            taken.setdefault(DELETE, []).append((time.perf_counter() - started) * 1000)
    return taken


Make = Callable[[Random], Awaitable[Call]]
DELETE = "delete a session"


async def _calls(realm: Realm, filled: Filled) -> Mapping[str, Make]:
    """How each operation is prepared, outside of the measured time."""
    store, ids = realm.store, filled.session_ids

    def some(chance: Random) -> str:
        return chance.choice(ids[: len(ids) * 9 // 10])

    def listed(**which: Any) -> Make:
        async def make(_: Random) -> Call:
            return partial(store.sessions, Selection(**which), limit=PAGE)

        return make

    async def page(chance: Random) -> Call:
        session = await store.load(some(chance))
        after = Cursor(updated_ms=session.updated_ms, session_id=session.id)
        return partial(store.sessions, Selection(), after=after, limit=PAGE)

    async def by_job(chance: Random) -> Call:
        session = await store.load(some(chance))
        return partial(store.sessions, Selection(labels={"job": session.labels["job"]}), limit=PAGE)

    async def matching(chance: Random) -> Call:
        return partial(store.matching, some(chance)[:20], limit=11)

    async def load(chance: Random) -> Call:
        return partial(store.load, some(chance))

    async def read(chance: Random) -> Call:
        return partial(store.read, some(chance), limit=SINCE)

    async def since(chance: Random) -> Call:
        after = filled.long_events - SINCE - chance.randint(0, 50)
        return partial(store.read, filled.long_id, after=after, limit=SINCE)

    async def history(chance: Random) -> Call:
        return partial(realm.reading.history, some(chance), limit=20)

    async def append(chance: Random) -> Call:
        session = await store.load(some(chance))
        return partial(store.append, following(session, e.SessionForked(fork_id="f", at_seq=1)))

    async def rename(chance: Random) -> Call:
        session = await store.load(some(chance))
        while session.state == "archived":
            session = await store.load(some(chance))
        return partial(store.append, following(session, e.SettingsChanged(title=f"another name {chance.random()}")))

    async def take(_: Random) -> Call:
        now_ms = clock.now_ms()
        return partial(store.take, ready_before_ms=now_ms, until_ms=now_ms, now_ms=now_ms, limit=8)

    async def working(_: Random) -> Call:
        return store.working

    return {
        "list the newest 50": listed(),
        "a page of 50 deep inside": page,
        "list by label, 5 have it": by_job,
        "list by label, a tenth have it": listed(labels={"team": "t3"}),
        "list the running ones": listed(states=("running", "stopping")),
        "list the waiting ones": listed(states=("waiting",)),
        "list the archived ones": listed(archived=True),
        "search, 5 have the word": listed(query=RARE),
        "search, all have the word": listed(query=COMMON),
        "search, two words, 5 have both": listed(query=f"{COMMON} {RARE}"),
        "search, none has the word": listed(query="zzyzx"),
        "ids that begin so": matching,
        "load a session": load,
        "read a log of ten events": read,
        f"the last {SINCE} of a long log": since,
        "the history of a session": history,
        "append an event": append,
        "append a new title": rename,
        "take what is ready": take,
        "who is working": working,
    }


QUICK = (
    "list the newest 50",
    "a page of 50 deep inside",
    "list by label, 5 have it",
    "search, 5 have the word",
    "search, all have the word",
    f"the last {SINCE} of a long log",
    "read a log of ten events",
    "append an event",
)
"""What the issue wants within a few milliseconds."""


def _opened(at: Place) -> Mapping[str, float]:
    """In a process of its own. An empty realm beside it is opened first, so that imports do not count."""
    argv = [sys.executable, "-m", "benchmarks.children.opener", str(at.root), at.backend, at.dsn_env or ""]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growing", description=__doc__)
    parser.add_argument("--backend", choices=("sqlite", "postgres"), action="append")
    parser.add_argument("--sizes", default="3,4,5,6", help="powers of ten")
    args = parser.parse_args()
    sizes = [10 ** int(power) for power in args.sizes.split(",")]
    for backend in args.backend or ("sqlite", "postgres"):
        found = by_size(backend, sizes)
        if found is None:
            print(f"{backend}: there is no server")
            continue
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        print(f"\n{backend}: median / p99 in ms; load of the machine {load:.1f}")
        print("  ".join([" " * 34, *(f"{f'{size:,} events':>18}" for size in sizes)]))
        for what in found[sizes[-1]]:
            unit = UNITS.get(what, "")
            cells = [f"{found[size][what].p50:9.2f} / {found[size][what].p99:6.2f}" for size in sizes]
            print("  ".join([f"{what}{f', {unit}' if unit else '':<4}".ljust(34), *(f"{cell:>18}" for cell in cells)]))


if __name__ == "__main__":
    main()
