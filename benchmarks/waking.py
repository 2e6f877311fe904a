"""How soon others know: another process through the store, followers through the journal."""

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import anyio

from benchmarks.places import Child, begun, children, folder, following, realm_in, store_in
from benchmarks.results import Row, Scale, at_most, share
from meerkat_mcp.domain.events import SettingsChanged
from meerkat_mcp.domain.settings import Settings

MODES = ("store", "poll")
IDLE_S = 3.0


def wake(scale: Scale) -> Sequence[Row]:
    """From a commit to its event in another process, and that process's CPU when idle, against polling each 10 ms."""
    late: tuple[list[float], list[float]] = ([], [])
    idle: tuple[list[float], list[float]] = ([], [])
    for _ in range(scale.of(1, 3)):
        said = anyio.run(_watched, scale.of(100, 300))
        for which in range(2):
            late[which].append(share(said[which]["late_ms"], 0.5))
            idle[which].append(said[which]["idle_share"] * 100)
    return [
        Row("9", "commit to event in another process p50, vs polling each 10 ms", "ms", *map(median, late),
            at_most(0.1)),
        Row("9", "its CPU when idle, vs the same", "% core", *map(median, idle), at_most(0.05)),
    ]  # fmt: skip


async def _watched(count: int) -> list[dict[str, list[float]]]:
    """Both watch the same commits of the same store."""
    with folder() as path:
        async with store_in(path) as store:
            session = await begun(store)
            watchers = [Child("watcher", mode, path, session.id, count + 1) for mode in MODES]
            for watcher in watchers:
                watcher.line()
            await anyio.sleep(IDLE_S)
            committed: list[int] = []
            ring = store.bell.ring

            def ring_in_time() -> None:
                committed.append(time.monotonic_ns())
                ring()

            store.bell.ring = ring_in_time  # the writer rings right after each commit
            for seq in range(2, count + 2):
                await anyio.sleep(random.uniform(0.005, 0.02))
                await store.append(following(session, seq))
            said = [await anyio.to_thread.run_sync(watcher.line) for watcher in watchers]
            for watcher in watchers:
                watcher.end()
    found = [json.loads(line) for line in said]
    for one in found:
        one["late_ms"] = [(seen - done) / 1e6 for seen, done in zip(one["seen_ns"], committed, strict=True)]
    return found


def follow(scale: Scale) -> Sequence[Row]:
    """From the call that records an event to a follower's hands, in the same process and in another one."""
    here, there = [], []
    for _ in range(scale.of(1, 3)):
        with folder() as root:
            delays = anyio.run(_followed, root, scale.of(60, 200))
        here += delays[0]
        there += delays[1]
    return [
        Row("9", "journal: record to follower, same process p50", "ms", share(here, 0.5)),
        Row("9", "journal: record to follower, same process p99", "ms", share(here, 0.99)),
        Row("issue", "journal: record to follower in another process p50", "ms", share(there, 0.5), None, at_most(50)),
        Row("issue", "journal: record to follower in another process p99", "ms", share(there, 0.99)),
    ]


async def _followed(root: Path, count: int) -> tuple[list[float], list[float]]:
    here: list[float] = []

    async def follower(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with realm.journal.follow(session_id, after=1) as log:
            task_status.started()
            while len(here) < count:
                for recorded in await log.next():
                    said_ns = int(recorded.event.title)  # type: ignore[union-attr]
                    here.append((time.monotonic_ns() - said_ns) / 1e6)

    async with realm_in(root) as realm:
        session_id = (await realm.sessions.run("", Settings())).session_id
        with children("follower", 1, root, session_id, count) as (other,):
            async with anyio.create_task_group() as tasks:
                await tasks.start(follower)
                for _ in range(count):
                    await anyio.sleep(random.uniform(0.005, 0.025))
                    changed = SettingsChanged(title=str(time.monotonic_ns()))
                    await realm.journal.record(session_id, lambda _, changed=changed: [changed])
            there = json.loads(await anyio.to_thread.run_sync(other.line))
    return here, there
