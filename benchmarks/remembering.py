"""What a process keeps of sessions that do nothing."""

import gc
import tracemalloc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import psutil

from benchmarks.places import folder, realm_in
from benchmarks.results import Row, Scale, at_most
from meerkat_mcp.domain.settings import Settings
from meerkat_mcp.realms import Realm

AT_ONCE = 8
PROMPT = "[[delta_ms 0]][[words 100]]"


def memory(scale: Scale) -> Sequence[Row]:
    """Memory of a session that had a turn and is idle (RSS, so SQLite's page caches too), and of one being followed."""
    with folder() as root:
        idle_rss, idle_python, followed = anyio.run(_sizes, root, scale.of(400, 5000, 10_000), scale.of(200, 1000))
    return [
        Row("17", "RSS of an idle session that had a turn", "KB", idle_rss, None, at_most(4)),
        Row("17", "what Python holds of it (tracemalloc)", "KB", idle_python, None, at_most(4)),
        Row("17", "what Python holds of a session being followed", "KB", followed),
    ]


async def _sizes(root: Path, count: int, followers: int) -> tuple[float, float, float]:
    process = psutil.Process()
    async with realm_in(root) as realm:
        await _turns(realm, count // 4)  # caches fill, code warms up
        before = _settled_rss(process)
        session_ids = await _turns(realm, count)
        rss = (_settled_rss(process) - before) / count
        tracemalloc.start()
        before = _settled_python()
        session_ids += await _turns(realm, count // 4)
        python = (_settled_python() - before) / (count // 4)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(realm.journal.follow(session_ids[0], after=0))
            before = _settled_python()
            for session_id in session_ids[1 : followers + 1]:
                last = (await realm.journal.load(session_id)).seq
                await stack.enter_async_context(realm.journal.follow(session_id, after=last))
            followed = (_settled_python() - before) / min(followers, len(session_ids) - 1)
        tracemalloc.stop()
    return rss / 1024, python / 1024, followed / 1024


async def _turns(realm: Realm, count: int) -> list[str]:
    """Sessions that had a turn each, some at a time."""
    session_ids: list[str] = []

    async def one_after_another() -> None:
        while len(session_ids) < count:
            started = await realm.sessions.run(PROMPT, Settings())
            assert started.turn_id is not None, "a prompt makes a turn"
            session_ids.append(started.session_id)
            await realm.sessions.wait(started.session_id, started.turn_id, 60)

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(one_after_another)
    return session_ids


def _settled_rss(process: psutil.Process) -> int:
    gc.collect()
    return process.memory_info().rss


def _settled_python() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
